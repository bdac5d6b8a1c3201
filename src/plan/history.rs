//! The records of earlier tasks, by kind: the basis of `explain` and of estimates.

use std::collections::BTreeMap;

use super::Record;
use super::key::Preimage;
use crate::cache::{Cache, Digest};
use crate::stages::fields::{Fields, Value};

/// A task that succeeded earlier.
#[derive(Clone, Debug)]
pub struct Earlier {
    /// Its key.
    pub key: Digest,
    /// Its record.
    pub record: Record,
}

/// Every task that the cache has a record of.
#[derive(Clone, Debug, Default)]
pub struct History {
    kinds: BTreeMap<String, Vec<Earlier>>,
}

impl History {
    /// Reads all records of the cache. Cost: one small file for each record.
    pub fn load(cache: &Cache) -> Self {
        let mut history = Self::default();
        for stored in cache.records().iter() {
            if let Some(record) = Record::from_bytes(&stored.bytes) {
                history.add(Earlier { key: stored.key, record });
            }
        }
        history
    }

    /// Adds a task.
    pub fn add(&mut self, earlier: Earlier) {
        self.kinds.entry(earlier.record.preimage.kind.clone()).or_default().push(earlier);
    }

    /// Returns the tasks of a kind, in the order of their keys.
    pub fn of_kind(&self, kind: &str) -> &[Earlier] {
        self.kinds.get(kind).map_or(&[], Vec::as_slice)
    }
}

/// Counts the differences between two preimages: version, seed, fields and inputs. An input counts once, however many
/// of its files differ.
pub(super) fn distance(old: &Preimage, new: &Preimage) -> usize {
    let digest = |preimage: &Preimage, role: &str| {
        preimage.inputs.iter().find(|input| input.role == role).map(|input| input.digest)
    };
    let inputs = new.inputs.iter().filter(|input| digest(old, &input.role) != Some(input.digest)).count();
    let gone = old.inputs.iter().filter(|input| digest(new, &input.role).is_none()).count();
    inputs
        + gone
        + field_distance(&old.spec, &new.spec)
        + usize::from(old.seed != new.seed)
        + usize::from(old.version != new.version)
}

/// Counts the fields that differ.
pub(super) fn field_distance(old: &Fields, new: &Fields) -> usize {
    let mut count = 0;
    walk_fields("", old, new, &mut |_, _, _| count += 1);
    count
}

/// Calls `found(path, old, new)` for each field that differs, in the order of paths. `None` is a field that is
/// absent.
pub(super) fn walk_fields(
    prefix: &str,
    old: &Fields,
    new: &Fields,
    found: &mut impl FnMut(String, Option<&Value>, Option<&Value>),
) {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match (old.get(name), new.get(name)) {
            (Some(Value::Table(old)), Some(Value::Table(new))) => walk_fields(&path, old, new, found),
            (old, new) if old != new => found(path, old, new),
            _ => {}
        }
    }
}
