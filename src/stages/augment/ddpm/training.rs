//! The training: one item of the cache, with a folder for its checkpoints.

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

/// Between two checkpoints.
const PERIOD: Duration = Duration::from_mins(2);

/// Steps whose mean loss is a line of the log.
const TOLD: usize = 100;

/// A trained network.
pub(super) struct Trained {
    /// Its numbers.
    pub(super) parameters: Parameters,
    /// Digest of its file.
    pub(super) digest: Digest,
    /// The loss of each step.
    pub(super) losses: Vec<f32>,
    /// Its file, and that of its losses.
    pub(super) files: [ItemFile; 2],
}

/// The trained network, found again where the same data, recipe and seed have met before.
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
            format!("the cache holds {} files of a training, not 2", files.len()),
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

/// What a training depends on.
fn fields(painting: &Painting, spec: &Augment, sources: &Sources<'_>, seed: u64) -> Fields {
    let mut fields = painting.training_fields();
    spec.motions.add_fields(&mut fields);
    fields.insert("item".to_owned(), "training".into());
    fields.insert("seed".to_owned(), seed.to_string().into());
    fields.insert("data".to_owned(), Value::List(sources.digests().map(Value::Text).collect()));
    fields
}

/// Trains in the folder `work`, from its checkpoint where there is one, and gives the files to keep.
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
        if done.is_multiple_of(TOLD) {
            let mean = trainer.losses()[done - TOLD..].iter().sum::<f32>() / TOLD as f32;
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

/// The training of a checkpoint, or a new one; a checkpoint that is damaged is told of and not used.
fn open(painting: &Painting, checkpoint: &Path, context: &Context<'_>) -> Result<Trainer, StageError> {
    let Painting { architecture, recipe, device, .. } = painting;
    let fail = failed("cannot train the diffusion model");
    match std::fs::read(checkpoint) {
        Ok(bytes) => match Trainer::resume(architecture, recipe, &bytes, *device) {
            Ok(trainer) => {
                context.progress.log(&format!("goes on after step {}", trainer.losses().len()));
                return Ok(trainer);
            }
            Err(error @ DiffusionError::Checkpoint { .. }) => {
                context.progress.log(&format!("begins anew: `{}`: {error}", checkpoint.display()));
            }
            Err(error) => return Err(fail(error)),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(StageError::io("read", checkpoint, error)),
    }
    Trainer::new(architecture, recipe, context.seed, *device).map_err(fail)
}

/// Puts a checkpoint in the place of the last: a kill leaves one of them whole.
fn save(trainer: &Trainer, checkpoint: &Path) -> Result<(), StageError> {
    let bytes = trainer.checkpoint().map_err(failed("cannot save the training"))?;
    let fresh = checkpoint.with_extension("new");
    crate::artifacts::files::write(&fresh, &bytes)?;
    std::fs::rename(&fresh, checkpoint).map_err(|error| StageError::io("write", checkpoint, error))
}
