//! Checks what comes from outside: the names in a weight file, and the features that a network computes.

use std::path::Path;

use half::f16;

use crate::artifacts::File;
use crate::artifacts::feature_set::StoragePrecision;
use crate::kernels::backbone::{Network, Prefix, Weights};
use crate::stages::{Context, StageError};

/// What training programs write before the names of a network: keys of checkpoints, and the modules that
/// `DataParallel`, `torch.compile` and detection or segmentation heads put around it.
const KNOWN: [&str; 8] =
    ["state_dict", "model_state_dict", "params", "params_ema", "module", "model", "_orig_mod", "backbone"];

/// Names of prefixes that an error lists.
const NAMED: usize = 5;

/// Removes what comes before the names of the network's tensors, if it is known. Without any fitting prefix the closest
/// is removed, and the check of the tensors names what is missing.
pub(super) fn without_prefix(
    weights: Weights,
    network: Network,
    file: &File,
    context: &Context<'_>,
) -> Result<Weights, StageError> {
    let prefixes = weights.prefixes(network);
    // Tensors beside a state dict are no part of it.
    if prefixes.is_empty() || prefixes.iter().any(|prefix| prefix.text.is_empty()) {
        return Ok(weights);
    }
    let shown = file.path.display();
    let [Prefix { text, is_complete }] = &prefixes[..] else {
        let names: Vec<String> =
            prefixes.iter().take(NAMED).map(|prefix| format!("`{}`", prefix.text)).collect();
        let message =
            format!("the weights `{shown}` hold `{network}` more than once: under {}", names.join(", "));
        return Err(StageError::data(message, one_of_them(&file.path, &prefixes[0].text)));
    };
    let mut parts = text.split(['/', '.']).filter(|part| !part.is_empty());
    if let Some(unknown) = parts.find(|part| *is_complete && !KNOWN.contains(part)) {
        let message = format!(
            "the names of the weights `{shown}` begin with `{text}`, of which `{unknown}` is not known"
        );
        return Err(StageError::data(message, one_of_them(&file.path, text)));
    }
    context.progress.log(&format!("weights: the tensors below `{text}` of `{shown}`"));
    Ok(weights.under(text))
}

/// Returns the advice to save the tensors below a prefix.
fn one_of_them(path: &Path, prefix: &str) -> String {
    let (keys, names) = prefix.rsplit_once('/').unwrap_or(("", prefix));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let keys: Vec<String> =
        keys.split('/').filter(|key| !key.is_empty()).map(|key| format!("[\"{key}\"]")).collect();
    let keys = keys.concat();
    let chosen =
        format!("{{k.removeprefix(\"{names}\"): v for k, v in w.items() if k.startswith(\"{names}\")}}");
    if path.extension().is_some_and(|end| end == "safetensors") {
        return format!(
            "if these are the ones, save them alone with Python: from safetensors.torch import *; \
             w = load_file(\"{name}\"); save_file({chosen}, \"weights.safetensors\")"
        );
    }
    format!(
        "if these are the ones, save them alone with Python: import torch; \
         w = torch.load(\"{name}\", map_location=\"cpu\"){keys}; torch.save({chosen}, \"weights.pth\")"
    )
}

/// Checks that the features of an image are numbers, and that their storage can hold them.
pub(super) fn finite(id: &str, features: &[f32], storage: StoragePrecision) -> Result<(), StageError> {
    if let Some(value) = features.iter().find(|value| !value.is_finite()) {
        return Err(StageError::data(
            format!("a feature of the image `{id}` is {value}, which is not finite"),
            "the weights do not suit the network: choose others, or check where they come from",
        ));
    }
    let largest = features.iter().copied().map(f32::abs).fold(0.0, f32::max);
    if storage == StoragePrecision::F16 && f16::from_f32(largest).is_infinite() {
        return Err(StageError::data(
            format!("a feature of the image `{id}` is {largest:e}, but the storage `f16` ends at 65504"),
            "set `storage = \"f32\"` on this stage",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_that_the_storage_cannot_hold_are_refused() {
        let refusal = |features: &[f32], storage| finite("a/1", features, storage).unwrap_err().to_string();
        assert!(finite("a", &[65519.0, -65504.0], StoragePrecision::F16).is_ok(), "they round to 65504");
        assert!(finite("a", &[1e30], StoragePrecision::F32).is_ok());
        let error = refusal(&[0.0, -65520.0], StoragePrecision::F16);
        assert!(error.contains("`a/1` is 6.552e4") && error.contains("65504"), "{error}");
        assert!(refusal(&[f32::NAN], StoragePrecision::F32).contains("NaN"));
        assert!(refusal(&[f32::INFINITY], StoragePrecision::F16).contains("inf"));
    }

    #[test]
    fn the_advice_saves_what_is_below_a_prefix() {
        let advice = one_of_them(Path::new("a/w.pth"), "net/module.encoder.");
        assert!(advice.contains("torch.load(\"w.pth\", map_location=\"cpu\")[\"net\"]"), "{advice}");
        assert!(advice.contains("k.removeprefix(\"module.encoder.\")"), "{advice}");
        assert!(one_of_them(Path::new("w.safetensors"), "encoder.").contains("save_file"));
    }
}
