//! A task of a lock file: how it is matched with a task of a plan, and its line in the file.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::cache::Digest;
use crate::plan::graph::{Plan, PlanVariant, TaskId};

/// A task of a lock file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedTask {
    pub(super) stage: String,
    /// Name of the task; `None` if it is that of the stage.
    pub(super) task: Option<String>,
    /// The axis values on which all variants of the task agree.
    #[serde(default)]
    pub(super) values: BTreeMap<String, String>,
    /// Names of the task's variants; `None` if name and values identify the task.
    pub(super) variants: Option<BTreeSet<String>>,
    /// Its key.
    pub key: Digest,
    /// The digest of each output's tree.
    pub outputs: BTreeMap<String, Digest>,
}

impl LockedTask {
    /// Makes the entry of a task of a plan.
    pub(super) fn of(plan: &Plan, id: TaskId, key: Digest, outputs: BTreeMap<String, Digest>) -> Self {
        let task = &plan.tasks[id.0];
        let mut of_task = task.variants.iter().map(|&variant| &plan.variants[variant]);
        let mut values: BTreeMap<String, String> =
            of_task.next().map(|variant| variant.values.iter().cloned().collect()).unwrap_or_default();
        for variant in of_task {
            values.retain(|axis, value| {
                variant.values.iter().any(|(name, other)| (name, other) == (&*axis, &*value))
            });
        }
        let mut locked = Self {
            stage: task.stage.clone(),
            task: Some(task.name.clone()).filter(|name| *name != task.stage),
            values,
            variants: None,
            key,
            outputs,
        };
        let others =
            plan.tasks.iter().enumerate().filter(|(other, of)| *other != id.0 && of.name == task.name);
        let mut variants = others.flat_map(|(_, other)| &other.variants);
        if variants.any(|&variant| locked.holds(&plan.variants[variant])) {
            let ids = task.variants.iter().map(|&variant| plan.variants[variant].id.clone());
            locked.variants = Some(ids.collect());
        }
        locked
    }

    pub(super) fn name(&self) -> &String {
        self.task.as_ref().unwrap_or(&self.stage)
    }

    pub(super) fn order(&self) -> (&String, &BTreeMap<String, String>, &Option<BTreeSet<String>>) {
        (self.name(), &self.values, &self.variants)
    }

    pub(super) fn holds(&self, variant: &PlanVariant) -> bool {
        let has = |(axis, value): (&String, &String)| {
            variant.values.iter().any(|(name, other)| (name, other) == (axis, value))
        };
        self.variants.as_ref().is_none_or(|ids| ids.contains(&variant.id)) && self.values.iter().all(has)
    }

    pub(super) fn title(&self) -> String {
        let values: Vec<String> = self.values.iter().map(|(axis, value)| format!("{axis}={value}")).collect();
        if values.is_empty() {
            self.name().clone()
        } else {
            format!("{} ({})", self.name(), values.join(","))
        }
    }

    pub(super) fn line(&self, quoted: &dyn Fn(&str) -> String) -> String {
        let table = |pairs: Vec<(String, String)>| {
            let shown: Vec<String> =
                pairs.iter().map(|(name, value)| format!("{} = {}", key_text(name), quoted(value))).collect();
            format!("{{ {} }}", shown.join(", "))
        };
        let mut parts = vec![format!("stage = {}", quoted(&self.stage))];
        parts.extend(self.task.as_ref().map(|task| format!("task = {}", quoted(task))));
        if !self.values.is_empty() {
            let values = self.values.iter().map(|(axis, value)| (axis.clone(), value.clone()));
            parts.push(format!("values = {}", table(values.collect())));
        }
        if let Some(variants) = &self.variants {
            let ids: Vec<String> = variants.iter().map(|id| quoted(id)).collect();
            parts.push(format!("variants = [{}]", ids.join(", ")));
        }
        parts.push(format!("key = {}", quoted(&self.key.to_string())));
        let outputs = self.outputs.iter().map(|(name, digest)| (name.clone(), digest.to_string()));
        parts.push(format!("outputs = {}", table(outputs.collect())));
        format!("{{ {} }}", parts.join(", "))
    }
}

/// Returns a name as a TOML key, quoted only if necessary.
fn key_text(name: &str) -> String {
    let is_bare = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    if !name.is_empty() && name.chars().all(is_bare) {
        name.to_owned()
    } else {
        toml::Value::from(name).to_string()
    }
}
