//! The fields of a `coreset` stage.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::filter::SyntheticFilter;
use super::{SYNTHETIC_TABLE, VERSION, run, work};
use crate::artifacts::Artifact;
use crate::artifacts::image_set::{Label, Selection};
use crate::stages::fields::{Fields, Reader, fields, name_of};
use crate::stages::selection::{features_shape, read_selection};
use crate::stages::{
    About, Context, Estimates, InputSizes, Inputs, PortUse, Reads, Stage, StageError, Variables, Workload,
};

/// Number of dimensions of the random projection (Roth et al. 2022, section 3.2, and its authors' code).
const PROJECTION: i64 = 128;
/// Least number of rows: a row and its nine neighbours, which the weight of the image score needs (Roth et al. 2022,
/// equation 7, with the `b` = 9 of anomalib), so that `ratio` means the ratio. The reference implementation keeps 1000.
const MIN_SIZE: i64 = 10;
/// Share of normal candidates that are kept (Roth et al. 2022, section 4: 1 %).
const NORMAL_RATIO: f64 = 0.01;
/// Share of defect candidates that are kept: all. On KSDD (`resnet18`, 5 seeds) the dual bank's image AUROC is 0.9930 with
/// all, 0.9804 with a tenth: `docs/augmentation.md`.
const DEFECT_RATIO: f64 = 1.0;
/// Least share of a defect patch that its mask must cover. Normal background in the defect bank makes normal patches
/// look like defects (measured on KSDD: image AUROC 0.545 with every patch of a crop).
const DEFECT_OVERLAP: f64 = 0.1;
/// Files that the run folder shows.
const PICTURES: [&str; 1] = [SYNTHETIC_TABLE];

/// How rows are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// Exact farthest-first traversal (k-center greedy).
    KCenter,
    /// Uniformly at random.
    Random,
    /// The approximate greedy choice of patchcore-inspection.
    Approximate,
}

pub(super) const STRATEGIES: [(&str, Strategy); 3] =
    [("k_center", Strategy::KCenter), ("random", Strategy::Random), ("approximate", Strategy::Approximate)];

/// The fields of a `coreset` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coreset {
    /// Whether only the features of the set at the port `select.set` are read, instead of those of all sets.
    pub has_set: bool,
    /// Which images are selected.
    pub selection: Selection,
    /// Least share of a patch that its mask must cover. 0 takes every patch.
    pub min_overlap: f64,
    /// Which synthetic samples are dropped.
    pub synthetic: SyntheticFilter,
    /// Share of the candidates that are kept.
    pub ratio: f64,
    /// Least number of rows that are kept.
    pub min_size: usize,
    /// How rows are chosen.
    pub strategy: Strategy,
    /// Number of dimensions of the projection in which distances are measured. 0 measures distances of the features.
    pub projection: usize,
    /// Drops candidates that are near the normal bank (port `normal`): the limit is this quantile of the distances
    /// between rows of different images in that bank. `None` drops nothing.
    pub drop_near_normal: Option<f64>,
}

impl Stage for Coreset {
    fn name() -> &'static str {
        "coreset"
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        reader.port("features", Artifact::FeatureSet);
        let ((selection, has_set), min_overlap, synthetic) = reader.table("select", |reader| {
            let selected = read_selection(reader);
            let least = if selected.0.label == Some(Label::Defect) { DEFECT_OVERLAP } else { 0.0 };
            let min_overlap = reader.float("min_overlap", 0.0..=1.0, Some(least));
            (selected, min_overlap, SyntheticFilter::read(reader))
        });
        let drop_near_normal = reader.optional_float("drop_near_normal", 0.0..=1.0);
        let comparisons =
            [("drop_near_normal", drop_near_normal), ("select.made_near_normal", synthetic.near_normal)];
        let comparison = comparisons.into_iter().find(|(_, quantile)| quantile.is_some());
        let has_normal = reader.optional_port("normal", Artifact::Bank, comparison.is_some());
        if let Some((field, _)) = comparison.filter(|_| !has_normal) {
            reader.missing("normal", &format!("the bank of normal patches that `{field}` compares with"));
        }
        let ratio = if selection.label == Some(Label::Defect) { DEFECT_RATIO } else { NORMAL_RATIO };
        Self {
            has_set,
            selection,
            min_overlap,
            synthetic,
            ratio: reader.float("ratio", 1e-6..=1.0, Some(ratio)),
            min_size: reader.integer("min_size", 0..=1_000_000_000, Some(MIN_SIZE)) as usize,
            strategy: reader.choice("strategy", &STRATEGIES, Some("k_center")),
            projection: reader.integer("projection", 0..=4096, Some(PROJECTION)) as usize,
            drop_near_normal,
        }
    }

    fn about(&self) -> About {
        About {
            version: VERSION,
            // A bank that keeps every row is not random. Unless the ratio is 1, this is known only once the candidates
            // are counted.
            is_random: self.ratio < 1.0,
            is_item_wise: false,
            is_blocking: false,
            is_target: false,
            is_shown: false,
            is_verified: true,
            estimates: Estimates::WithEqual(&["strategy"]),
            foresees: true,
            pictures: &PICTURES,
            threads: 1,
            memory_bytes: 0,
            tolerance: None,
            depends_on_machine: false,
            compute_target: None,
            source: None,
            tools: Vec::new(),
            implied: Vec::new(),
        }
    }

    fn port(&self, port: &str) -> PortUse {
        if port != "features" {
            return PortUse::whole();
        }
        let with_masks = self.min_overlap > 0.0 || self.synthetic.is_set();
        let reads = Reads::Blocks { selection: self.selection.clone(), with_masks };
        PortUse { reads, shape: features_shape(self.has_set) }
    }

    fn outputs(&self) -> Vec<(String, Artifact)> {
        vec![("bank".to_owned(), Artifact::Bank)]
    }

    fn key_fields(&self) -> Fields {
        // Left out: the set and the selection, because the selected blocks enter by name and digest.
        let Self {
            has_set: _,
            selection: _,
            min_overlap,
            synthetic,
            ratio,
            min_size,
            strategy,
            projection,
            drop_near_normal,
        } = self;
        let mut all = fields([
            ("min_overlap", (*min_overlap).into()),
            ("ratio", (*ratio).into()),
            ("min_size", (*min_size).into()),
            ("strategy", name_of(&STRATEGIES, strategy).into()),
            ("projection", (*projection).into()),
        ]);
        synthetic.add_fields(&mut all);
        if let Some(quantile) = drop_near_normal {
            all.insert("drop_near_normal".to_owned(), (*quantile).into());
        }
        all
    }

    /// Estimates 128 numbers of four bytes for each candidate, which has 256 or more numbers of two bytes in the
    /// input.
    fn estimated_memory(&self, input_bytes: u64) -> u64 {
        input_bytes + 128_000_000
    }

    fn workload(&self, inputs: &InputSizes) -> Workload {
        work::workload(self, inputs)
    }

    fn preflight(&self, _: &Variables) -> Result<(), StageError> {
        Ok(())
    }

    fn run(&self, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
        run(self, inputs, output, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bank_of_every_row_is_not_random() {
        let table = fields([("features", "f".into()), ("ratio", 1.0.into())]);
        let (mut problems, mut ports) = (Vec::new(), Vec::new());
        let mut reader = Reader::new(&table, &mut problems, &mut ports);
        let spec = Coreset::read(&mut reader);
        reader.finish();
        assert!(problems.is_empty() && !spec.about().is_random);
    }
}
