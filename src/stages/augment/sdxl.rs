//! `sdxl-inpaint`: inpaints defects with Stable Diffusion XL from a text prompt, as in `ExDD`.
//!
//! Runs the pipeline of Hugging Face `diffusers` in a Python program that is embedded in patchflow (`inpaint.py`). It
//! is started by `uv run --script`, which installs the pinned packages, or by the Python that `PATCHFLOW_PYTHON` names.
//! The stage draws normal image, mask and prompt of each sample, and the program inpaints one image after the other.
//! Each finished image is stored in the cache at once, so that a stopped run loses only the current image.
//!
//! ```text
//! <work>/inpaint.py                 the program
//! <work>/jobs.json                  its settings, and the list of images
//! <work>/weights/...                links to the files of `weights`, if that port is connected
//! <work>/jobs/00000.image.png       a normal image
//! <work>/jobs/00000.mask.png        the transformed mask
//! <work>/jobs/00000.made.png        the result of the program
//! ```
//!
//! With `mask_crop_padding`, diffusers inpaints an enlarged crop around the mask and restores the pixels outside the
//! mask. But the image is scaled to `resolution` before and scaled back after, which blurs all of it. The stage
//! therefore takes only the pixels inside the mask from the result, and all others from the normal image.

mod jobs;
mod python;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::fields::{Fields, Reader, fields, name_of};
use super::super::{Context, Inputs, StageError, Variables};
use super::Augment;
use super::provenance::SampleOrigin;
use super::sources::Sources;

/// Version of `inpaint.py`, in the key. Raised when the program gives other images for equal jobs.
///
/// 1: first (2026-11-28).
const PROGRAM: usize = 1;

/// The model of the reference implementation.
const MODEL: &str = "diffusers/stable-diffusion-xl-1.0-inpainting-0.1";
/// The commit of the model on the hub as of 2026-11-28.
const REVISION: &str = "115134f363124c53c7d878647567d04daf26e41e";
/// Seconds to start the program with its weights, and of one step for a pixel (chosen: a minute, and 10 s for 1024 px).
const START_SECONDS: f64 = 60.0;
const STEP_PIXEL_SECONDS: f64 = 1e-5;

/// The prompts of the reference implementation (`ExDD`, `augmentation`).
const PROMPTS: [&str; 2] = ["white marks on the wall", "copper metal scratches"];
const NEGATIVE_PROMPT: &str = "smooth, plain, black, dark, shadow";

/// Where the pipeline comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Pipeline {
    /// A model on the Hugging Face hub at a commit.
    Hub {
        /// `owner/name`.
        model: String,
        /// The commit, 40 hexadecimal digits.
        revision: String,
    },
    /// The files of the port `weights`.
    Files,
}

/// The device that the pipeline runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PaintDevice {
    /// The CPU.
    Cpu,
    /// The CUDA device with this number.
    Cuda(usize),
    /// An Apple GPU.
    Mps,
}

impl PaintDevice {
    /// Returns the class of the device, for the key. Devices of a class are interchangeable.
    fn class(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda(_) => "cuda",
            Self::Mps => "mps",
        }
    }

    /// Returns the name in PyTorch.
    fn name(self) -> String {
        match self {
            Self::Cuda(number) => format!("cuda:{number}"),
            other => other.class().to_owned(),
        }
    }

    /// Guesses the fastest device of this machine without starting Python, because planning calls this.
    fn fastest() -> Self {
        if cfg!(all(target_os = "macos", target_arch = "aarch64")) {
            Self::Mps
        } else if Path::new("/dev/nvidiactl").exists() {
            Self::Cuda(0)
        } else {
            Self::Cpu
        }
    }
}

/// The precision of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precision {
    /// Half precision. Only on GPUs.
    F16,
    /// Single precision. TF32 is disabled.
    F32,
}

const PRECISIONS: [(&str, Precision); 2] = [("f16", Precision::F16), ("f32", Precision::F32)];

/// The fields of the method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inpainting {
    /// Where the pipeline comes from.
    pub pipeline: Pipeline,
    /// Which files of the model are read: `fp16` reads `*.fp16.safetensors`.
    pub variant: Option<String>,
    /// The prompts, used in turn.
    pub prompts: Vec<String>,
    /// What the result should not show.
    pub negative_prompt: String,
    /// Number of sampler steps before `strength` reduces them.
    pub sampling_steps: usize,
    /// Guidance scale of the prompt.
    pub guidance: f64,
    /// Share of the steps that are executed. 1 ignores the pixels under the mask.
    pub strength: f64,
    /// Margin around the bounding box of the mask, in px of the scaled image.
    pub mask_crop_padding: usize,
    /// Height and width at which the pipeline runs, in px.
    pub resolution: usize,
    /// The precision of the pipeline.
    pub precision: Precision,
    /// The device that the pipeline runs on.
    pub device: PaintDevice,
}

impl Inpainting {
    /// The fields that only this method reads, or reads with another default.
    pub(super) const FIELDS: [&str; 13] = [
        "device",
        "guidance",
        "mask_crop_padding",
        "model",
        "negative_prompt",
        "precision",
        "prompts",
        "resolution",
        "revision",
        "sampling_steps",
        "strength",
        "variant",
        "weights",
    ];

    pub(super) fn read(reader: &mut Reader<'_>, has_weights: bool) -> Self {
        let device = read_device(reader);
        let resolution = reader.integer("resolution", 64..=4096, Some(1024)) as usize;
        if !resolution.is_multiple_of(8) {
            let message = format!("`resolution` is {resolution}, but must be a multiple of 8");
            reader.problem("resolution", "unfit_resolution", message, Some("write 1024".to_owned()));
        }
        let inpainting = Self {
            pipeline: read_pipeline(reader, has_weights),
            variant: reader.text("variant"),
            prompts: read_prompts(reader),
            negative_prompt: reader.text("negative_prompt").unwrap_or_else(|| NEGATIVE_PROMPT.to_owned()),
            sampling_steps: reader.integer("sampling_steps", 1..=1000, Some(30)) as usize,
            guidance: reader.float("guidance", 0.0..=100.0, Some(20.0)),
            strength: reader.float("strength", 0.0..=1.0, Some(0.99)),
            mask_crop_padding: reader.integer("mask_crop_padding", 0..=1024, Some(2)) as usize,
            resolution,
            precision: read_precision(reader, device),
            device,
        };
        if (inpainting.sampling_steps as f64 * inpainting.strength) < 1.0 {
            let message = "`strength` leaves none of the `sampling_steps`".to_owned();
            let help = "raise `strength`: steps times strength must be 1 or more".to_owned();
            reader.problem("strength", "no_steps", message, Some(help));
        }
        inpainting
    }

    pub(super) fn add_fields(&self, all: &mut Fields) {
        let Self {
            pipeline,
            variant,
            prompts,
            negative_prompt,
            sampling_steps,
            guidance,
            strength,
            mask_crop_padding,
            resolution,
            precision,
            device,
        } = self;
        all.insert("prompts".to_owned(), prompts.clone().into());
        all.extend(fields([
            ("program", PROGRAM.into()),
            ("negative_prompt", negative_prompt.as_str().into()),
            ("sampling_steps", (*sampling_steps).into()),
            ("guidance", (*guidance).into()),
            ("strength", (*strength).into()),
            ("mask_crop_padding", (*mask_crop_padding).into()),
            ("resolution", (*resolution).into()),
            ("precision", name_of(&PRECISIONS, precision).into()),
            ("device", device.class().into()),
        ]));
        if let Some(variant) = variant {
            all.insert("variant".to_owned(), variant.as_str().into());
        }
        // Weight files enter as an input, by their digest.
        if let Pipeline::Hub { model, revision } = pipeline {
            all.insert("model".to_owned(), model.as_str().into());
            all.insert("revision".to_owned(), revision.as_str().into());
        }
    }

    /// Checks whether this machine has uv or a Python to start the program with.
    pub(super) fn preflight(environment: &Variables) -> Result<(), StageError> {
        python::find(environment).map(drop)
    }

    /// Returns an estimate of the memory in bytes: the weights and one image. SDXL has 3.5 billion weights.
    pub(super) fn memory(&self, input_bytes: u64) -> u64 {
        const GIGABYTE: u64 = 1_000_000_000;
        match (&self.pipeline, self.precision) {
            (Pipeline::Files, _) => input_bytes * 3 / 2 + GIGABYTE,
            (Pipeline::Hub { .. }, Precision::F32) => 18 * GIGABYTE,
            (Pipeline::Hub { .. }, Precision::F16) => 9 * GIGABYTE,
        }
    }

    /// Returns the seconds of `count` samples, and of starting the program and loading its weights.
    pub(super) fn seconds(&self, count: f64) -> f64 {
        let pixels = self.resolution.pow(2) as f64;
        START_SECONDS + count * self.sampling_steps as f64 * self.strength * pixels * STEP_PIXEL_SECONDS
    }

    /// Writes the samples into `set`.
    pub(super) fn run(
        &self,
        spec: &Augment,
        inputs: &Inputs,
        set: &Path,
        context: &Context<'_>,
    ) -> Result<Vec<SampleOrigin>, StageError> {
        let weights = match self.pipeline {
            Pipeline::Files => Some(inputs.require("weights")?),
            Pipeline::Hub { .. } => None,
        };
        if let Some(weights) = weights {
            jobs::check_weights(weights)?;
        }
        let sources = Sources::read(spec, 0, inputs.require("images")?, context)?;
        jobs::Jobs { inpainting: self, spec, sources: &sources, weights, set, context }.run()
    }
}

fn read_pipeline(reader: &mut Reader<'_>, has_weights: bool) -> Pipeline {
    let model = reader.text("model").unwrap_or_else(|| MODEL.to_owned());
    let revision = reader.text("revision");
    if has_weights {
        return Pipeline::Files;
    }
    let is_default = model == MODEL && !reader.has("revision");
    let revision = revision.unwrap_or_else(|| if is_default { REVISION.to_owned() } else { String::new() });
    let is_commit = revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_default && !reader.has("revision") {
        reader.missing("revision", &format!("the commit of `{model}` on the hub, 40 hexadecimal digits"));
    } else if !is_commit {
        let message = format!("`revision` is not a commit: `{revision}`");
        let help = "write the 40 hexadecimal digits of a commit: a branch may contain other weights later";
        reader.problem("revision", "no_commit", message, Some(help.to_owned()));
    }
    if model.split('/').filter(|part| !part.is_empty()).count() != 2 || model.matches('/').count() != 1 {
        let message = format!("`model` is not a model name of the hub: `{model}`");
        let help = "write `owner/name`; for a local folder, set `weights` to a `download` stage";
        reader.problem("model", "no_model", message, Some(help.to_owned()));
    }
    Pipeline::Hub { model, revision }
}

fn read_prompts(reader: &mut Reader<'_>) -> Vec<String> {
    let prompts = reader.text_or_texts("prompts");
    if reader.is_empty_list("prompts") {
        let help = "write at least one prompt, or remove `prompts`".to_owned();
        reader.problem("prompts", "empty_list", "`prompts` is empty".to_owned(), Some(help));
    }
    if prompts.is_empty() { PROMPTS.map(str::to_owned).to_vec() } else { prompts }
}

fn read_device(reader: &mut Reader<'_>) -> PaintDevice {
    match reader.text("device").as_deref() {
        None | Some("cpu") => PaintDevice::Cpu,
        Some("cuda") => PaintDevice::Cuda(0),
        Some("mps") => PaintDevice::Mps,
        Some("auto") => PaintDevice::fastest(),
        Some(name) => {
            let number = name.strip_prefix("cuda:").and_then(|number| number.parse().ok());
            number.filter(|number| name == format!("cuda:{number}")).map_or_else(
                || {
                    reader.unknown_choice("device", name, &["cpu", "cuda", "cuda:1", "mps", "auto"]);
                    PaintDevice::Cpu
                },
                PaintDevice::Cuda,
            )
        }
    }
}

/// Reads the precision. The default is `f16` on a GPU and `f32` on the CPU.
fn read_precision(reader: &mut Reader<'_>, device: PaintDevice) -> Precision {
    let default = if device == PaintDevice::Cpu { "f32" } else { "f16" };
    let precision = reader.choice("precision", &PRECISIONS, Some(default));
    if precision == Precision::F16 && device == PaintDevice::Cpu {
        let message = "`precision` is `f16`, which the CPU does not support".to_owned();
        let help = "write `precision = \"f32\"`, or `device = \"cuda\"`".to_owned();
        reader.problem("precision", "unfit_precision", message, Some(help));
    }
    precision
}
