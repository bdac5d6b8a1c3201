//! What a record of the cache holds: for taking stock and for collection, which read no records themselves.

use super::items::files_of;
use crate::cache::{Described, StoredRecord};
use crate::plan::{KeptLog, Record};

/// Stands for the kind of single items that were kept without one.
pub const ITEMS: &str = "single items";

/// Describes a task's record or a single item's; none for one of a form that this version does not know.
///
/// A single item counts no seconds: those of its task's records say what it costs.
pub fn describe(record: &StoredRecord) -> Option<Described> {
    if let Some((kind, files)) = files_of(&record.bytes) {
        let kind = if kind.is_empty() { ITEMS.to_owned() } else { kind };
        return Some(Described { kind, files, ..Described::default() });
    }
    let Record { preimage, outputs, provenance, .. } = Record::from_bytes(&record.bytes)?;
    let experiments = if provenance.experiment.is_empty() { Vec::new() } else { vec![provenance.experiment] };
    let trees = outputs.into_values().collect();
    // A long log's size is not known here; it is found by its digest.
    let files = match provenance.log {
        Some(KeptLog::Object(digest)) => vec![(digest, 0)],
        _ => Vec::new(),
    };
    Some(Described {
        kind: preimage.kind,
        stage: provenance.stage,
        experiments,
        seconds: provenance.seconds,
        trees,
        files,
    })
}
