//! The objects that a record names, for usage statistics and collection: the cache itself does not parse records.

use super::items::files_of;
use crate::cache::{Described, StoredRecord};
use crate::plan::{KeptLog, Record};

/// The kind shown for per-image records that do not name one (of earlier versions).
pub const ITEMS: &str = "single items";

/// Describes the record of a task, or a per-image record; `None` if this version cannot read it.
///
/// A per-image record has no seconds: those of its task's record include them.
pub fn describe(record: &StoredRecord) -> Option<Described> {
    if let Some((kind, files)) = files_of(&record.bytes) {
        let kind = if kind.is_empty() { ITEMS.to_owned() } else { kind };
        return Some(Described { kind, files, ..Described::default() });
    }
    let Record { preimage, outputs, provenance, .. } = Record::from_bytes(&record.bytes)?;
    let experiments = if provenance.experiment.is_empty() { Vec::new() } else { vec![provenance.experiment] };
    let trees = outputs.into_values().collect();
    // The size of a long log is not known here; its digest identifies it.
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
