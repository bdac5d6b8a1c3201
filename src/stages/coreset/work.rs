//! How much a coreset has to do, and what its result follows from, by the sizes of its inputs.

use super::rows::Rows;
use super::{Coreset, Strategy};
use crate::artifacts::size::{RowCount, Size};
use crate::stages::fields::Fields;
use crate::stages::scorer::search_seconds;
use crate::stages::workload::selected_positions;
use crate::stages::{InputSizes, Stage, Workload};

/// Seconds for each number of a patch that is read, for each of a candidate that is projected, and for a candidate and
/// the square root of the chosen rows. Without bounds the choice would compare each candidate with each chosen row
/// (measured: `src/plan/estimate/measured.rs`; the choice of 14,896 of 148,960 rows takes 1.8 s, and 2.4 s by this).
const READ_SECONDS: f64 = 2e-9;
const PROJECTION_SECONDS: f64 = 6.5e-9;
const CHOICE_SECONDS: f64 = 0.13e-6;
/// Expected share of the patches of a defective image that its mask covers (measured on generated sets: 0.01 to 0.03).
const COVERED_SHARE: f64 = 0.03;

/// Reading and projecting the candidates, and choosing among them.
pub(super) fn workload(spec: &Coreset, inputs: &InputSizes) -> Workload {
    let Some(sets) = inputs.images("features") else { return Workload::unknown() };
    let channels = sets.first().map_or(0.0, |set| set.channels);
    let read = selected_positions(&sets, &spec.selection);
    let candidates = if spec.min_overlap > 0.0 { read * COVERED_SHARE } else { read };
    let expected = Rows::of(candidates.round() as usize, spec.ratio, spec.min_size);
    let rows = expected.kept as f64;
    let is_choosing = rows < candidates.floor() && spec.strategy != Strategy::Random;
    let a_candidate = channels * PROJECTION_SECONDS + rows.sqrt() * CHOICE_SECONDS;
    let choice = if is_choosing { candidates * a_candidate } else { 0.0 };
    let is_comparing = spec.drop_near_normal.is_some() || spec.synthetic.near_normal.is_some();
    let compared = match inputs.rows("normal") {
        _ if !is_comparing => 0.0,
        Some(normal) => search_seconds(candidates + normal.count, normal),
        None => return Workload::unknown(),
    };
    let seconds = read * channels * READ_SECONDS + choice + compared;
    let workload =
        Workload::of(seconds, "bank", Size::of_rows(RowCount { count: rows, banks: 1.0, channels }));
    if spec.keeps_all_selected() {
        return workload.deciding(spec.deciding_fields(expected), expected.warning());
    }
    workload
}

impl Coreset {
    /// Returns whether every patch of the selected images is a candidate, so that their number follows from the sizes of
    /// the inputs.
    fn keeps_all_selected(&self) -> bool {
        self.min_overlap <= 0.0 && !self.synthetic.is_set() && self.drop_near_normal.is_none()
    }

    /// Returns the fields that decide the rows if their number is known: that number, in place of the fields that it
    /// follows from. If all candidates are kept, nothing is chosen.
    fn deciding_fields(&self, expected: Rows) -> Fields {
        let mut deciding = self.key_fields();
        let chosen: &[&str] =
            if expected.kept == expected.candidates { &["strategy", "projection"] } else { &[] };
        for field in ["ratio", "min_size"].iter().chain(chosen) {
            deciding.remove(*field);
        }
        deciding.insert("rows".to_owned(), expected.kept.into());
        deciding
    }
}
