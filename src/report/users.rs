//! Which experiments use which keys, read from the latest runs in `runs/`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::cache::Digest;

/// The part of `summary.json` that is read here.
#[derive(Deserialize)]
struct Summary {
    experiment: String,
    variants: Vec<Variant>,
}

#[derive(Deserialize)]
struct Variant {
    tasks: BTreeMap<String, Digest>,
}

/// For every key, the experiments whose latest run uses it. Runs that cannot be read are skipped.
pub fn users_of_keys(project: &Path) -> BTreeMap<Digest, BTreeSet<String>> {
    let mut users: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
    for experiment in std::fs::read_dir(project.join("runs")).into_iter().flatten().flatten() {
        let path = experiment.path().join("latest").join("summary.json");
        let Ok(bytes) = std::fs::read(path) else { continue };
        let Ok(summary) = serde_json::from_slice::<Summary>(&bytes) else { continue };
        for key in summary.variants.into_iter().flat_map(|variant| variant.tasks.into_values()) {
            users.entry(key).or_default().insert(summary.experiment.clone());
        }
    }
    users
}
