//! Draws the samples, lets the program inpaint them, and stores each in the cache as soon as it is finished.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use image::{GrayImage, RgbImage};
use serde::{Deserialize, Serialize};

use super::super::super::fields::{Fields, name_of};
use super::super::super::program::{Program, Stdin};
use super::super::super::{Context, Item, StageError};
use super::super::motions::position;
use super::super::provenance::{self, SampleOrigin};
use super::super::sources::{Sources, UnpaddedImage};
use super::super::{Augment, id_of};
use super::{Inpainting, PRECISIONS, Pipeline, python};
use crate::artifacts::image_set::{write_mask, write_rgb};
use crate::artifacts::{File, Files};
use crate::kernels::random::Rng;

/// The source of the program.
const PROGRAM: &str = include_str!("inpaint.py");

/// Number of defects that are tried before the stage fails because none fits into the image.
const DRAWS: usize = 100;

/// Environment variables that are passed to the program: folders of models and packages, GPUs, proxies.
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

/// What a run of the stage needs.
pub(super) struct Jobs<'a> {
    pub(super) inpainting: &'a Inpainting,
    pub(super) spec: &'a Augment,
    pub(super) sources: &'a Sources<'a>,
    /// The files of the port `weights`. `None` if it is not connected.
    pub(super) weights: Option<&'a Files>,
    pub(super) set: &'a Path,
    pub(super) context: &'a Context<'a>,
}

/// The random choices for a sample, made before it is inpainted.
struct Draft<'a> {
    origin: SampleOrigin,
    file: &'a File,
    /// The mask of the normal image.
    mask_file: &'a File,
    prompt: &'a str,
    /// Height and width without padding, in px.
    size: (usize, usize),
    /// Indices of the marked pixels of the mask, row-major.
    marked: Vec<usize>,
}

/// A job in `jobs.json`: one image to inpaint.
#[derive(Serialize)]
struct Job<'a> {
    id: &'a str,
    image: PathBuf,
    mask: PathBuf,
    output: PathBuf,
    prompt: &'a str,
    seed: u64,
}

/// The content of `jobs.json`.
#[derive(Serialize)]
struct Task<'a> {
    /// Argument of `from_pretrained`: a model name or a folder.
    model: String,
    /// Name of the model in messages.
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

/// An event that the program writes to stdout.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum ProgramEvent {
    Ready { versions: BTreeMap<String, String>, device: String },
    Made { id: String },
    Problem { message: String, help: String },
}

/// Fails if the files are not a pipeline of diffusers.
pub(super) fn check_weights(weights: &Files) -> Result<(), StageError> {
    if weights.get("model_index.json").is_some() {
        return Ok(());
    }
    let names: Vec<&str> = weights.iter().map(|(name, _)| name).take(3).collect();
    Err(StageError::data(
        format!("`weights` has no `model_index.json`; its first files are {names:?}"),
        "use a folder in the layout of diffusers: model_index.json beside unet/, vae/, scheduler/ and so on",
    ))
}

impl<'a> Jobs<'a> {
    /// Generates the samples that are not in the cache, and adds all samples to the output.
    pub(super) fn run(&self) -> Result<Vec<SampleOrigin>, StageError> {
        let shared = self.fields();
        let (mut drafts, mut items, mut missing) = (Vec::new(), BTreeMap::new(), Vec::new());
        for (index, seed) in self.spec.seeds(self.context.seed).into_iter().enumerate() {
            self.context.check()?;
            drafts.push(self.draft(index, seed)?);
        }
        for draft in &drafts {
            let kept = self.context.items.recall(&fields_of(&shared, draft));
            // The program may have finished an image before a stop that is not in the cache yet.
            match kept.map_or_else(|| self.keep(draft, &shared), |item| Ok(Some(item)))? {
                Some(item) => drop(items.insert(draft.origin.id.clone(), item)),
                None => missing.push(draft),
            }
        }
        if !missing.is_empty() {
            items = self.inpaint(&shared, &missing, items)?;
        }
        drafts.into_iter().map(|draft| self.add_output(draft, &items)).collect()
    }

    /// Returns the fields that all samples depend on. Seed and prompt are added for each sample.
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

    /// Draws the normal image, the defect and the position of the mask of a sample.
    fn draft(&self, index: usize, seed: u64) -> Result<Draft<'a>, StageError> {
        let Sources { defects, normals, .. } = self.sources;
        let mut rng = Rng::new(seed, "sdxl-inpaint");
        let &(normal, file, ref one) = &normals[rng.below(normals.len())];
        let surface = UnpaddedImage::read(normal, file, one.mask)?;
        let size @ (height, width) = surface.size();
        let prompts = &self.inpainting.prompts;
        let prompt = prompts[index % prompts.len()].as_str();
        for _ in 0..DRAWS {
            let defect = &defects[rng.below(defects.len())];
            let (motion, moved) = self.spec.motions.draw(&mut rng, &defect.patch, 0.0, size);
            let (top, left) = position(&mut rng, &moved, size);
            let marked = moved.marked(size.0, size.1, top, left);
            let marked: Vec<usize> = (0..marked.len()).filter(|&pixel| marked[pixel]).collect();
            if !marked.is_empty() {
                let origin = SampleOrigin {
                    id: id_of("sdxl-inpaint", index),
                    normal: normal.to_owned(),
                    mask_of: defect.image.to_owned(),
                    component: defect.component,
                    seed,
                    motion,
                    top,
                    left,
                    settings: format!("noise_seed={} prompt={prompt}", noise_seed(seed)),
                    region: surface.region(),
                    fault: None,
                };
                return Ok(Draft { origin, file, mask_file: one.mask, prompt, size, marked });
            }
        }
        Err(StageError::data(
            format!("no defect of the training split fits into `{normal}` with {height}×{width} px"),
            "lower `scale`: the masks are larger than the images",
        ))
    }

    /// Runs the program for the missing images and stores each in the cache when the program reports it.
    fn inpaint(
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
        write(&jobs, &serde_json::to_vec_pretty(&task).expect("names and numbers can be serialised"))?;
        line.extend([&script, &jobs].map(|path| path.to_string_lossy().into_owned()));
        let program = Program {
            line: &line,
            folder: &work,
            passed: &PASSED,
            set: &self.variables(),
            stdin: Stdin::HeldOpen,
            timeout: None,
        };
        let (total, done) = (self.spec.count, Mutex::new(items));
        let on_line = |line: &str| {
            let Ok(event) = serde_json::from_str(line) else {
                self.context.progress.log(line);
                return Ok(());
            };
            match event {
                ProgramEvent::Ready { versions, device } => {
                    let versions: Vec<String> =
                        versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
                    self.context.progress.log(&format!("{} on {device}", versions.join(", ")));
                    Ok(())
                }
                ProgramEvent::Problem { message, help } => Err(StageError::data(message, help)),
                ProgramEvent::Made { id } => {
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
        program.run(&on_line, self.context)?;
        let done = done.into_inner().unwrap_or_default();
        match missing.iter().find(|draft| !done.contains_key(&draft.origin.id)) {
            None => Ok(done),
            Some(draft) => Err(StageError::data(
                format!("the program ended successfully, but made no complete image `{}`", draft.origin.id),
                "run again; if it happens again, report it with the log of the task",
            )),
        }
    }

    /// Writes the input files of the jobs and returns the content of `jobs.json`.
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
                write_rgb(&image, &draft.surface()?.image)?;
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
            device: inpainting.device.name(),
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

    /// Returns whether the program must not use the network to find the model.
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

    /// Stores a finished sample in the cache and deletes its files in the job folder. Returns `None` if there is no
    /// complete image of the right size yet.
    fn keep(&self, draft: &Draft<'_>, shared: &Fields) -> Result<Option<Item>, StageError> {
        let files = job_files(self.context.work, &draft.origin.id);
        let Ok(painted) = image::open(&files[2]) else { return Ok(None) };
        let painted = painted.into_rgb8();
        let surface = draft.surface()?;
        let mut image = surface.image.clone();
        if painted.dimensions() != image.dimensions() {
            return Ok(None);
        }
        draft.copy_masked(&painted, &mut image);
        let (image, mask) = surface.padded(image, draft.mask().into_raw());
        let [image_name, mask_name] = provenance::write(self.set, &draft.origin.id, &image, mask)?;
        let sample = [self.set.join(image_name), self.set.join(mask_name)];
        let item = self.context.items.keep(&fields_of(shared, draft), &sample, "")?;
        for file in files {
            // The inputs may be missing if an earlier run has deleted them.
            let _ = std::fs::remove_file(file);
        }
        Ok(Some(item))
    }

    /// Adds a sample to the output, unless it shows no defect.
    fn add_output(
        &self,
        draft: Draft<'_>,
        items: &BTreeMap<String, Item>,
    ) -> Result<SampleOrigin, StageError> {
        let id = &draft.origin.id;
        let (files, marked) =
            (items.get(id).map_or(&[][..], |item| &item.files), draft.marked.iter().copied());
        let (_, fault) =
            provenance::add_output(id, files, &draft.surface()?, marked, self.sources, self.context)?;
        Ok(SampleOrigin { fault, ..draft.origin })
    }
}

impl Draft<'_> {
    /// Reads the normal image.
    fn surface(&self) -> Result<UnpaddedImage, StageError> {
        UnpaddedImage::read(&self.origin.normal, self.file, self.mask_file)
    }

    fn mask(&self) -> GrayImage {
        let (height, width) = self.size;
        let mut mask = GrayImage::new(width as u32, height as u32);
        for &pixel in &self.marked {
            mask.put_pixel((pixel % width) as u32, (pixel / width) as u32, image::Luma([255]));
        }
        mask
    }

    /// Copies the pixels inside the mask from `painted` into the normal image. All others stay unchanged.
    fn copy_masked(&self, painted: &RgbImage, image: &mut RgbImage) {
        let width = self.size.1;
        for &pixel in &self.marked {
            let (column, row) = ((pixel % width) as u32, (pixel / width) as u32);
            image.put_pixel(column, row, *painted.get_pixel(column, row));
        }
    }
}

/// Returns the seed of the sample's noise, cut to 63 bits, which is what the generator takes.
fn noise_seed(seed: u64) -> u64 {
    seed & (u64::MAX >> 1)
}

fn fields_of(shared: &Fields, draft: &Draft<'_>) -> Fields {
    let mut fields = shared.clone();
    fields.insert("seed".to_owned(), draft.origin.seed.to_string().into());
    fields.insert("prompt".to_owned(), draft.prompt.into());
    fields
}

/// Returns the paths of a sample's normal image, mask and result in the job folder.
fn job_files(work: &Path, id: &str) -> [PathBuf; 3] {
    let number = id.rsplit('/').next().unwrap_or(id);
    ["image", "mask", "made"].map(|what| work.join("jobs").join(format!("{number}.{what}.png")))
}

/// Creates links to the files under their names in `folder`, which is emptied first.
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
