//! The network of an extraction, with its weights.

use std::num::NonZeroUsize;
use std::path::Path;

use super::{Extract, WeightSource, check};
use crate::artifacts::File;
use crate::artifacts::weights::parse_weights;
use crate::kernels::backbone::{Backbone, RuntimeError, Weights};
use crate::stages::{Context, Inputs, StageError};

/// Returns the digest of the weights and their file. The file is `None` for seeded weights.
pub(super) fn weights_input<'a>(
    spec: &Extract,
    inputs: &'a Inputs,
) -> Result<(String, Option<&'a File>), StageError> {
    if let WeightSource::Seeded(seed) = spec.weights {
        return Ok((format!("seeded:{seed}"), None));
    }
    let files = inputs.require("weights")?;
    let mut found = files.iter().filter(|(name, _)| {
        Path::new(name).extension().is_some_and(|end| end == "pth" || end == "pt" || end == "safetensors")
    });
    if let (Some((_, file)), None) = (found.next(), found.next()) {
        return Ok((file.digest_text(), Some(file)));
    }
    let names: Vec<&str> = files.iter().map(|(name, _)| name).take(5).collect();
    Err(StageError::data(
        format!("`weights` must hold one .pth or .safetensors file, but holds {names:?}"),
        "let the `download` stage provide only the weight file",
    ))
}

/// Loads the network with its weights: those of `file`, or seeded ones.
pub(super) fn load_backbone(
    spec: &Extract,
    file: Option<&File>,
    context: &Context<'_>,
) -> Result<Backbone, StageError> {
    let weights = match (spec.weights, file) {
        (WeightSource::Seeded(seed), _) => Weights::seeded(spec.network, seed),
        (_, Some(file)) => {
            let weights = parse_weights(&file.read_unchanged()?).map_err(|error| {
                StageError::kernel(format!("cannot use the weights `{}`", file.path.display()), error)
            })?;
            check::without_prefix(weights, spec.network, file, context)?
        }
        (_, None) => return Err(StageError::MissingInput { role: "weights".to_owned() }),
    };
    let threads = NonZeroUsize::new(context.threads).unwrap_or(NonZeroUsize::MIN);
    let what = || match file {
        Some(file) => format!("the weights `{}` do not fit", file.path.display()),
        None => "the seeded weights do not fit".to_owned(),
    };
    if let Err(error) = weights.check(spec.network) {
        for fault in &error.faults {
            context.progress.log(&fault.to_string());
        }
        let help =
            "set `backbone` to the network of these weights; the log lists each tensor that does not fit";
        return Err(StageError::data(format!("{}: {error}", what()), help));
    }
    Backbone::on(spec.target, spec.network, &weights, &spec.layers, threads)
        .map_err(|error| unprepared(error, what))
}

/// Converts the error of a network that cannot be prepared. `what` describes the failure if the weights are the cause.
pub(super) fn unprepared(error: RuntimeError, what: impl Fn() -> String) -> StageError {
    match error {
        RuntimeError::NotBuilt(_) | RuntimeError::NoDevice { .. } | RuntimeError::Unsupported(_) => {
            StageError::Unavailable(error)
        }
        RuntimeError::Torch { .. } => StageError::kernel("the network cannot be prepared", error),
        RuntimeError::Backbone(_) => StageError::kernel(what(), error),
    }
}
