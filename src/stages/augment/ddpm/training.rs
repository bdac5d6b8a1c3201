//! Trains the network. The training is one item in the cache, with a folder for its checkpoints.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::super::fields::{Fields, Value};
use super::super::super::{Context, ItemFile, StageError};
use super::super::Augment;
use super::super::sources::Sources;
use super::patches::Patches;
use super::{Painting, failed};
use crate::artifacts::denoiser;
use crate::digest::Digest;
use crate::kernels::diffusion::{DiffusionError, Parameters, Trainer};

/// Time between two checkpoints.
const PERIOD: Duration = Duration::from_mins(2);

/// Number of steps after which the log gets a line with their mean loss.
const REPORTED_STEPS: usize = 100;

/// A trained network.
pub(super) struct Trained {
    /// Parameters of the network.
    pub(super) parameters: Parameters,
    /// Digest of the network's file.
    pub(super) digest: Digest,
    /// The loss of each step.
    pub(super) losses: Vec<f32>,
    /// The files of the network and of the losses.
    pub(super) files: [ItemFile; 2],
}

/// Returns the trained network, from the cache if it was trained before with equal data, fields and seed.
pub(super) fn train(
    painting: &Painting,
    spec: &Augment,
    sources: &Sources<'_>,
    context: &Context<'_>,
) -> Result<Trained, StageError> {
    let patches = Patches::new(painting, spec, sources)?;
    let fields = fields(painting, spec, sources, context.seed);
    let item = context.items.once(&fields, &mut |work| run(painting, &patches, work, context))?;
    let [network, losses] = <[ItemFile; 2]>::try_from(item.files).map_err(|files| {
        StageError::data(
            format!("the cached training has {} files instead of 2", files.len()),
            "run with --force for this stage",
        )
    })?;
    Ok(Trained {
        parameters: denoiser::read(&network.path, &painting.architecture)?,
        digest: network.digest,
        losses: denoiser::read_losses(&losses.path)?,
        files: [network, losses],
    })
}

/// Returns the fields that a training depends on.
fn fields(painting: &Painting, spec: &Augment, sources: &Sources<'_>, seed: u64) -> Fields {
    let mut fields = painting.training_fields();
    spec.motions.add_fields(&mut fields);
    fields.insert("item".to_owned(), "training".into());
    fields.insert("seed".to_owned(), seed.to_string().into());
    fields.insert("data".to_owned(), Value::List(sources.digests().map(Value::Text).collect()));
    fields
}

/// Trains in the folder `work`, from its checkpoint if there is one. Returns the files to keep.
fn run(
    painting: &Painting,
    patches: &Patches<'_>,
    work: &Path,
    context: &Context<'_>,
) -> Result<(Vec<PathBuf>, String), StageError> {
    std::fs::create_dir_all(work).map_err(|error| StageError::io("create", work, error))?;
    let checkpoint = work.join("checkpoint.safetensors");
    let mut trainer = open(painting, &checkpoint, context)?;
    let (recipe, mut saved) = (&painting.recipe, Instant::now());
    while trainer.losses().len() < recipe.steps {
        if context.check().is_err() {
            save(&trainer, &checkpoint)?;
        }
        context.check()?;
        let step = trainer.losses().len();
        let batch = patches.batch(context.seed, step, recipe.batch, recipe.times)?;
        trainer.step(&batch).map_err(failed("cannot train the diffusion model"))?;
        let done = step + 1;
        context.progress.report(done as u64, recipe.steps as u64, "step");
        if done.is_multiple_of(REPORTED_STEPS) {
            let mean = trainer.losses()[done - REPORTED_STEPS..].iter().sum::<f32>() / REPORTED_STEPS as f32;
            context.progress.log(&format!("step {done} of {}: mean loss {mean:.4}", recipe.steps));
        }
        if saved.elapsed() > PERIOD {
            save(&trainer, &checkpoint)?;
            saved = Instant::now();
        }
    }
    let (network, losses) = (work.join("network.safetensors"), work.join("loss.csv"));
    denoiser::write(&network, &painting.architecture, trainer.average())?;
    denoiser::write_losses(&losses, trainer.losses())?;
    Ok((vec![network, losses], String::new()))
}

/// Resumes the training from the checkpoint, or starts a new one. Logs and ignores a damaged checkpoint.
fn open(painting: &Painting, checkpoint: &Path, context: &Context<'_>) -> Result<Trainer, StageError> {
    let Painting { architecture, recipe, target, .. } = painting;
    let fail = failed("cannot train the diffusion model");
    match std::fs::read(checkpoint) {
        Ok(bytes) => match Trainer::resume(architecture, recipe, &bytes, *target) {
            Ok(trainer) => {
                context.progress.log(&format!("resumed after step {}", trainer.losses().len()));
                return Ok(trainer);
            }
            Err(error @ DiffusionError::Checkpoint { .. }) => {
                context.progress.log(&format!("starting over: `{}`: {error}", checkpoint.display()));
            }
            Err(error) => return Err(fail(error)),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(StageError::io("read", checkpoint, error)),
    }
    Trainer::new(architecture, recipe, context.seed, *target).map_err(fail)
}

/// Replaces the checkpoint by renaming a new file over it, so that a kill never leaves an incomplete one.
fn save(trainer: &Trainer, checkpoint: &Path) -> Result<(), StageError> {
    let bytes = trainer.checkpoint().map_err(failed("cannot save the training"))?;
    let fresh = checkpoint.with_extension("new");
    crate::artifacts::files::write(&fresh, &bytes)?;
    std::fs::rename(&fresh, checkpoint).map_err(|error| StageError::io("write", checkpoint, error))
}
