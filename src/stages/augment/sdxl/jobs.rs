//! The samples: drawn here, painted by the program, each kept as soon as it is made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use image::{GrayImage, RgbImage};
use serde::{Deserialize, Serialize};

use super::super::super::fields::{Fields, name_of};
use super::super::super::program::{Input, Program};
use super::super::super::{Context, Item, StageError};
use super::super::motions::position;
use super::super::provenance::{self, Origin};
use super::super::sources::Sources;
use super::super::{Augment, id_of};
use super::{Inpainting, PRECISIONS, Pipeline, python};
use crate::artifacts::image_set::{read_rgb, write_mask, write_rgb};
use crate::artifacts::{File, Files};
use crate::kernels::random::Rng;

/// What is run.
const PROGRAM: &str = include_str!("inpaint.py");

/// Draws of a defect before the training split is told to have none that fits.
const DRAWS: usize = 100;

/// Variables that the program may read: where models and packages are kept, which GPUs there are, proxies.
const PASSED: [&str; 19] = [
    "ALL_PROXY",
    "CUDA_VISIBLE_DEVICES",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LD_LIBRARY_PATH",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "UV_CACHE_DIR",
    "UV_INDEX_URL",
    "UV_PYTHON",
    "XDG_CACHE_HOME",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "PIP_INDEX_URL",
];

/// The stage at work.
pub(super) struct Jobs<'a> {
    pub(super) inpainting: &'a Inpainting,
    pub(super) spec: &'a Augment,
    pub(super) sources: &'a Sources<'a>,
    /// The files of the port, where it is wired.
    pub(super) weights: Option<&'a Files>,
    pub(super) set: &'a Path,
    pub(super) context: &'a Context<'a>,
}

/// What a sample will be.
struct Draft<'a> {
    origin: Origin,
    file: &'a File,
    prompt: &'a str,
    /// Height and width, in px.
    size: (usize, usize),
    /// The mask's pixels, row-major.
    marked: Vec<usize>,
}

/// One line of `jobs.json`.
#[derive(Serialize)]
struct Job<'a> {
    id: &'a str,
    image: PathBuf,
    mask: PathBuf,
    output: PathBuf,
    prompt: &'a str,
    seed: u64,
}

/// `jobs.json`.
#[derive(Serialize)]
struct Task<'a> {
    /// What `from_pretrained` is given.
    model: String,
    /// What the user calls it.
    named: String,
    revision: Option<&'a str>,
    variant: Option<&'a str>,
    local_only: bool,
    device: String,
    precision: &'static str,
    threads: usize,
    negative_prompt: &'a str,
    sampling_steps: usize,
    guidance: f64,
    strength: f64,
    mask_crop_padding: usize,
    resolution: usize,
    jobs: Vec<Job<'a>>,
}

/// What the program tells.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Told {
    Ready { versions: BTreeMap<String, String>, device: String },
    Made { id: String },
    Problem { message: String, help: String },
}

/// Refuses files that are no pipeline of diffusers.
pub(super) fn check_weights(weights: &Files) -> Result<(), StageError> {
    if weights.get("model_index.json").is_some() {
        return Ok(());
    }
    let names: Vec<&str> = weights.iter().map(|(name, _)| name).take(3).collect();
    Err(StageError::data(
        format!("`weights` holds no `model_index.json`; its first files are {names:?}"),
        "give a folder in the layout of diffusers: model_index.json beside unet/, vae/, scheduler/ and the like",
    ))
}

impl<'a> Jobs<'a> {
    /// Makes what is not kept yet, and places all samples in the set.
    pub(super) fn run(&self) -> Result<Vec<Origin>, StageError> {
        let shared = self.fields();
        let (mut drafts, mut items, mut missing) = (Vec::new(), BTreeMap::new(), Vec::new());
        for (place, seed) in self.spec.seeds(self.context.seed).into_iter().enumerate() {
            self.context.check()?;
            drafts.push(self.draft(place, seed)?);
        }
        for draft in &drafts {
            let kept = self.context.items.recall(&fields_of(&shared, draft));
            // What the program had made before a stop may not be kept yet.
            match kept.map_or_else(|| self.keep(draft, &shared), |item| Ok(Some(item)))? {
                Some(item) => drop(items.insert(draft.origin.id.clone(), item)),
                None => missing.push(draft),
            }
        }
        if !missing.is_empty() {
            items = self.paint(&shared, &missing, items)?;
        }
        for draft in &drafts {
            self.place(draft, &items)?;
        }
        Ok(drafts.into_iter().map(|draft| draft.origin).collect())
    }

    /// What every sample depends on, apart from its seed and its text.
    fn fields(&self) -> Fields {
        let mut fields = Fields::new();
        self.inpainting.add_fields(&mut fields);
        fields.remove("prompts");
        self.spec.motions.add_fields(&mut fields);
        fields.insert("item".to_owned(), "sdxl-inpaint".into());
        let digests: Vec<String> = self.sources.digests().collect();
        fields.insert("data".to_owned(), digests.into());
        if let Some(weights) = self.weights {
            let weights = weights.iter().flat_map(|(name, file)| [name.to_owned(), file.digest_text()]);
            fields.insert("weights".to_owned(), weights.collect::<Vec<String>>().into());
        }
        fields
    }

    /// Draws a sample: its normal image, its defect, where the mask lies.
    fn draft(&self, place: usize, seed: u64) -> Result<Draft<'a>, StageError> {
        let Sources { defects, normals, .. } = self.sources;
        let mut stream = Rng::new(seed, "sdxl-inpaint");
        let (normal, file) = normals[stream.below(normals.len())];
        let (width, height) = read_rgb(file)?.dimensions();
        let size = (height as usize, width as usize);
        let prompts = &self.inpainting.prompts;
        let prompt = prompts[place % prompts.len()].as_str();
        for _ in 0..DRAWS {
            let defect = &defects[stream.below(defects.len())];
            let (motion, moved) = self.spec.motions.draw(&mut stream, &defect.patch, 0.0, size);
            let (top, left) = position(&mut stream, &moved, size);
            let marked = moved.marked(size.0, size.1, top, left);
            let marked: Vec<usize> = (0..marked.len()).filter(|&pixel| marked[pixel]).collect();
            if !marked.is_empty() {
                let origin = Origin {
                    id: id_of("sdxl-inpaint", place),
                    normal: normal.to_owned(),
                    mask_of: defect.image.to_owned(),
                    component: defect.component,
                    seed,
                    motion,
                    top,
                    left,
                    settings: format!("noise_seed={} prompt={prompt}", noise_seed(seed)),
                };
                return Ok(Draft { origin, file, prompt, size, marked });
            }
        }
        Err(StageError::data(
            format!("no defect of the training split leaves a pixel in `{normal}` of {width}×{height} px"),
            "lower `scale`: the masks are larger than the images",
        ))
    }

    /// Lets the program make the missing images, and keeps each when it is told to be there.
    fn paint(
        &self,
        shared: &Fields,
        missing: &[&Draft<'_>],
        items: BTreeMap<String, Item>,
    ) -> Result<BTreeMap<String, Item>, StageError> {
        let mut line = python::find(self.context.environment)?;
        let work = absolute(self.context.work)?;
        let (script, jobs) = (work.join("inpaint.py"), work.join("jobs.json"));
        write(&script, PROGRAM.as_bytes())?;
        let task = self.task(missing, &work)?;
        write(&jobs, &serde_json::to_vec_pretty(&task).expect("names and numbers can be written"))?;
        line.extend([&script, &jobs].map(|path| path.to_string_lossy().into_owned()));
        let program = Program {
            line: &line,
            folder: &work,
            passed: &PASSED,
            set: &self.variables(),
            input: Input::HeldOpen,
            timeout: None,
        };
        let (total, done) = (self.spec.count, Mutex::new(items));
        let hear = |line: &str| {
            let Ok(told) = serde_json::from_str(line) else {
                self.context.progress.log(line);
                return Ok(());
            };
            match told {
                Told::Ready { versions, device } => {
                    let versions: Vec<String> =
                        versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
                    self.context.progress.log(&format!("{} on {device}", versions.join(", ")));
                    Ok(())
                }
                Told::Problem { message, help } => Err(StageError::data(message, help)),
                Told::Made { id } => {
                    let Some(draft) = missing.iter().find(|draft| draft.origin.id == id) else {
                        return Ok(());
                    };
                    let Some(item) = self.keep(draft, shared)? else { return Ok(()) };
                    let Ok(mut done) = done.lock() else { return Ok(()) };
                    done.insert(id, item);
                    self.context.progress.report(done.len() as u64, total as u64, "image");
                    Ok(())
                }
            }
        };
        program.run(&hear, self.context)?;
        let done = done.into_inner().unwrap_or_default();
        match missing.iter().find(|draft| !done.contains_key(&draft.origin.id)) {
            None => Ok(done),
            Some(draft) => Err(StageError::data(
                format!("the program that paints ended well, but made no whole image `{}`", draft.origin.id),
                "run again, and report it with the task's log if it happens twice",
            )),
        }
    }

    /// Writes what the jobs read, and says what is to be done.
    fn task<'t>(&'t self, missing: &'t [&'t Draft<'_>], work: &Path) -> Result<Task<'t>, StageError> {
        let inpainting = self.inpainting;
        let (model, named, revision) = match (&inpainting.pipeline, self.weights) {
            (Pipeline::Hub { model, revision }, _) => (model.clone(), model.clone(), Some(revision.as_str())),
            (Pipeline::Files, weights) => {
                let folder = work.join("weights");
                link_files(weights.into_iter().flat_map(Files::iter), &folder)?;
                (folder.to_string_lossy().into_owned(), "weights".to_owned(), None)
            }
        };
        let jobs: Result<Vec<Job<'t>>, StageError> = (missing.iter())
            .map(|draft| {
                self.context.check()?;
                let [image, mask, output] = job_files(work, &draft.origin.id);
                write_rgb(&image, &read_rgb(draft.file)?)?;
                write_mask(&mask, &draft.mask())?;
                let (id, seed) = (draft.origin.id.as_str(), noise_seed(draft.origin.seed));
                Ok(Job { id, image, mask, output, prompt: draft.prompt, seed })
            })
            .collect();
        Ok(Task {
            model,
            named,
            revision,
            variant: inpainting.variant.as_deref(),
            local_only: self.is_local(),
            device: inpainting.place.name(),
            precision: name_of(&PRECISIONS, &inpainting.precision),
            threads: self.context.threads,
            negative_prompt: &inpainting.negative_prompt,
            sampling_steps: inpainting.sampling_steps,
            guidance: inpainting.guidance,
            strength: inpainting.strength,
            mask_crop_padding: inpainting.mask_crop_padding,
            resolution: inpainting.resolution,
            jobs: jobs?,
        })
    }

    /// Whether the hub need not, or must not, be asked.
    fn is_local(&self) -> bool {
        self.context.is_offline || self.inpainting.pipeline == Pipeline::Files
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
            ("DO_NOT_TRACK", "1"),
            ("HF_HUB_DISABLE_TELEMETRY", "1"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
        ];
        if self.is_local() {
            variables.extend([("HF_HUB_OFFLINE", "1"), ("TRANSFORMERS_OFFLINE", "1")]);
        }
        if self.context.is_offline {
            variables.push(("UV_OFFLINE", "1"));
        }
        variables.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
    }

    /// Keeps a sample that the program has made, and takes its files out of the job folder; none where there is no
    /// whole image of the right size yet.
    fn keep(&self, draft: &Draft<'_>, shared: &Fields) -> Result<Option<Item>, StageError> {
        let files = job_files(self.context.work, &draft.origin.id);
        let Ok(painted) = image::open(&files[2]) else { return Ok(None) };
        let painted = painted.into_rgb8();
        let mut image = read_rgb(draft.file)?;
        if painted.dimensions() != image.dimensions() {
            return Ok(None);
        }
        draft.lay_onto(&painted, &mut image);
        let [image_name, mask_name] =
            provenance::write(self.set, &draft.origin.id, &image, draft.mask().into_raw())?;
        let made = [self.set.join(image_name), self.set.join(mask_name)];
        let item = self.context.items.keep(&fields_of(shared, draft), &made, "")?;
        for file in files {
            // Its inputs are not there where an earlier run has removed them.
            let _ = std::fs::remove_file(file);
        }
        Ok(Some(item))
    }

    fn place(&self, draft: &Draft<'_>, items: &BTreeMap<String, Item>) -> Result<(), StageError> {
        let id = &draft.origin.id;
        let files = items.get(id).map_or(&[][..], |item| &item.files);
        let [image, mask] = files else {
            return Err(StageError::data(
                format!("the cache holds {} files of the sample `{id}`, not 2", files.len()),
                "run with --force for this stage",
            ));
        };
        for (file, name) in [image, mask].into_iter().zip(provenance::names(id)) {
            self.context.items.add_output(file, &format!("images/{name}"));
        }
        Ok(())
    }
}

impl Draft<'_> {
    fn mask(&self) -> GrayImage {
        let (height, width) = self.size;
        let mut mask = GrayImage::new(width as u32, height as u32);
        for &pixel in &self.marked {
            mask.put_pixel((pixel % width) as u32, (pixel / width) as u32, image::Luma([255]));
        }
        mask
    }

    /// Takes the mask's pixels from what was painted: all others stay the normal image's.
    fn lay_onto(&self, painted: &RgbImage, image: &mut RgbImage) {
        let width = self.size.1;
        for &pixel in &self.marked {
            let (column, row) = ((pixel % width) as u32, (pixel / width) as u32);
            image.put_pixel(column, row, *painted.get_pixel(column, row));
        }
    }
}

/// The sample's seed, for a generator that takes 63 bits.
fn noise_seed(seed: u64) -> u64 {
    seed & (u64::MAX >> 1)
}

fn fields_of(shared: &Fields, draft: &Draft<'_>) -> Fields {
    let mut fields = shared.clone();
    fields.insert("seed".to_owned(), draft.origin.seed.to_string().into());
    fields.insert("prompt".to_owned(), draft.prompt.into());
    fields
}

/// A sample's normal image, its mask, and what is made of them.
fn job_files(work: &Path, id: &str) -> [PathBuf; 3] {
    let place = id.rsplit('/').next().unwrap_or(id);
    ["image", "mask", "made"].map(|what| work.join("jobs").join(format!("{place}.{what}.png")))
}

/// Lays files out under their names, as links.
fn link_files<'f>(files: impl Iterator<Item = (&'f str, &'f File)>, folder: &Path) -> Result<(), StageError> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(|source| StageError::io("remove", folder, source))?;
    }
    for (name, file) in files {
        let link = folder.join(name);
        let failed = |source| StageError::io("link", &link, source);
        std::fs::create_dir_all(link.parent().unwrap_or(folder)).map_err(failed)?;
        std::os::unix::fs::symlink(absolute(&file.path)?, &link).map_err(failed)?;
    }
    Ok(())
}

fn absolute(path: &Path) -> Result<PathBuf, StageError> {
    std::path::absolute(path).map_err(|source| StageError::io("find", path, source))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StageError> {
    Ok(crate::artifacts::files::write(path, bytes)?)
}
