//! Scores images with a model: patch features become a patch map and an image score. `fit` uses it for the threshold
//! and `evaluate` for the results, so that their scores are comparable.

use super::StageError;
use super::fields::{Fields, Reader, fields, name_of};
use crate::artifacts::feature_set::{Block, Extraction};
use crate::artifacts::model::{Model, Scoring, ScoringRule};
use crate::artifacts::size::RowCount;
use crate::kernels::KernelError;
use crate::kernels::backbone::Device;
use crate::kernels::nearest::{Neighbours, SearchBank, code_cost};
use crate::kernels::scoring::{
    Aggregation, Calibration, DualOptions, DualScore, Excluded, Matched, Reweight, image_score_dual,
    image_score_single, patch_map_dual, patch_map_single,
};

/// Number of neighbours of the paper's weight (b in Roth et al. 2022, Eq. 7; 9 as in its authors' follow-ups).
const NEIGHBOURS: i64 = 9;
/// Weight of the defect bank in `difference` (measured on KSDD).
const ALPHA: f64 = 0.25;
/// Share of the patches that `top_mean` averages.
const TOP_SHARE: f64 = 0.01;

/// The choices of `dual`, with default parameters.
const DUALS: [(&str, DualScore); 5] = [
    ("weighted", DualScore::Weighted),
    ("difference", DualScore::Difference { alpha: ALPHA as f32 }),
    ("ratio", DualScore::Ratio),
    ("calibrated", DualScore::Calibrated),
    ("reference", DualScore::Reference { reweight: Reweight::Paper { neighbours: NEIGHBOURS as usize } }),
];
const REWEIGHTS: [(&str, Reweight); 3] = [
    ("paper", Reweight::Paper { neighbours: NEIGHBOURS as usize }),
    ("none", Reweight::None),
    ("reference", Reweight::Reference),
];
const AGGREGATIONS: [(&str, Aggregation); 2] =
    [("maximum", Aggregation::Maximum), ("top_mean", Aggregation::TopMean { share: TOP_SHARE as f32 })];

/// Reads the scoring fields. Fields that the chosen rule does not use are checked and ignored.
pub fn read_scoring(reader: &mut Reader<'_>, is_dual: bool) -> Scoring {
    let mut reweight = reader.choice("reweight", &REWEIGHTS, Some("paper"));
    let mut dual = reader.choice("dual", &DUALS, Some("weighted"));
    let mut aggregation = reader.choice("aggregation", &AGGREGATIONS, Some("maximum"));
    let count = reader.integer("neighbours", 2..=1000, Some(NEIGHBOURS)) as usize;
    let weight = reader.float("alpha", 0.0..=100.0, Some(ALPHA)) as f32;
    let top_share = reader.float("top_share", 1e-6..=1.0, Some(TOP_SHARE)) as f32;
    if let Reweight::Paper { neighbours } = &mut reweight {
        *neighbours = count;
    }
    match &mut dual {
        DualScore::Difference { alpha } => *alpha = weight,
        DualScore::Reference { reweight: of_both } => *of_both = reweight,
        DualScore::Weighted | DualScore::Ratio | DualScore::Calibrated => {}
    }
    if let Aggregation::TopMean { share } = &mut aggregation {
        *share = top_share;
    }
    let rule = if is_dual { ScoringRule::Dual(dual) } else { ScoringRule::Single { reweight } };
    Scoring { rule, aggregation }
}

/// Returns the scoring fields for the key.
pub fn scoring_fields(scoring: &Scoring) -> Fields {
    let Scoring { rule, aggregation } = scoring;
    let mut all = match aggregation {
        Aggregation::Maximum => fields([("aggregation", "maximum".into())]),
        Aggregation::TopMean { share } => {
            fields([("aggregation", "top_mean".into()), ("top_share", f64::from(*share).into())])
        }
    };
    if let ScoringRule::Single { reweight } | ScoringRule::Dual(DualScore::Reference { reweight }) = rule {
        all.extend(match reweight {
            Reweight::Paper { neighbours } => {
                fields([("reweight", "paper".into()), ("neighbours", (*neighbours).into())])
            }
            Reweight::None => fields([("reweight", "none".into())]),
            Reweight::Reference => fields([("reweight", "reference".into())]),
        });
    }
    match rule {
        ScoringRule::Single { .. } => {}
        ScoringRule::Dual(DualScore::Difference { alpha }) => {
            all.extend(fields([("dual", "difference".into()), ("alpha", f64::from(*alpha).into())]));
        }
        ScoringRule::Dual(DualScore::Reference { .. }) => all.extend(fields([("dual", "reference".into())])),
        ScoringRule::Dual(other) => all.extend(fields([("dual", name_of(&DUALS, other).into())])),
    }
    all
}

/// Fails if two sets of features are not comparable, because they were extracted differently.
pub fn require_comparable(what: &str, one: &Extraction, other: &Extraction) -> Result<(), StageError> {
    if one.is_comparable(other) {
        return Ok(());
    }
    let describe = |of: &Extraction| {
        format!(
            "{} {:?}, {} d, {}, weights {:.12}",
            of.backbone, of.layers, of.dimension, of.embedding, of.weights
        )
    };
    Err(StageError::data(
        format!("{what} were extracted differently: {}; {}", describe(one), describe(other)),
        "connect them to the same extract stage",
    ))
}

/// Seconds for each number of a patch, in each bank that is searched for its nearest row, and for each number of a patch
/// and row of the bank; bounds leave a small part of each row
/// (measured: `src/plan/estimate/measured.rs`).
const PATCH_SECONDS: f64 = 10e-9;
const ROW_SECONDS: f64 = 12e-12;
/// Seconds for a multiplication when the codes of a bank are made (measured: `src/plan/estimate/measured.rs`).
const CODE_SECONDS: f64 = 40e-12;

/// Returns the seconds of a search for the nearest rows of `patches` patches in each of the banks.
pub fn search_seconds(patches: f64, rows: RowCount) -> f64 {
    let RowCount { count, banks, channels } = rows;
    let cost = code_cost((count / banks.max(1.0)) as usize, channels as usize) as f64 * banks;
    let codes = if patches * count * channels >= cost { cost * CODE_SECONDS } else { 0.0 };
    patches * channels * (banks * PATCH_SECONDS + count * ROW_SECONDS) + codes
}

/// The scores of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// Patch scores, `[grid h, grid w]`.
    pub map: Vec<f32>,
    /// Image score.
    pub score: f32,
}

/// The banks of a model, prepared for scoring many images.
pub struct Scorer {
    normal: SearchBank,
    defect: Option<SearchBank>,
    scoring: Scoring,
    calibration: Option<Calibration>,
}

impl Scorer {
    /// Prepares the banks of a model on a device.
    pub fn new(model: &Model, device: Device) -> Result<Self, KernelError> {
        let prepare =
            |bank: &crate::artifacts::bank::Bank| SearchBank::on(device, bank.rows.clone(), bank.d());
        Ok(Self {
            normal: prepare(&model.normal)?,
            defect: model.defect.as_ref().map(prepare).transpose()?,
            scoring: model.description.scoring,
            calibration: model.description.calibration.clone(),
        })
    }

    /// Sets the quantiles that a `calibrated` score needs.
    pub fn calibrate(&mut self, calibration: Calibration) {
        self.calibration = Some(calibration);
    }

    /// The bank of normal patches.
    pub fn normal(&self) -> &SearchBank {
        &self.normal
    }

    /// The bank of defect patches.
    pub fn defect(&self) -> Option<&SearchBank> {
        self.defect.as_ref()
    }

    /// Scores one image.
    pub fn score(&self, block: &Block) -> Result<Scored, KernelError> {
        let normal = self.normal.nearest(&block.data, 1)?;
        let defect = self.defect.as_ref().map(|bank| bank.nearest(&block.data, 1)).transpose()?;
        self.score_distances(block, &normal, defect.as_ref(), None)
    }

    /// Scores one image whose nearest rows are known. `excluded` names the rows of the normal bank that the search
    /// excluded.
    ///
    /// # Panics
    /// If the model has two banks and `defect` is `None`.
    pub fn score_distances(
        &self,
        block: &Block,
        normal: &Neighbours,
        defect: Option<&Neighbours>,
        excluded: Option<Excluded<'_>>,
    ) -> Result<Scored, KernelError> {
        let of_normal = Matched { neighbours: normal, bank: &self.normal, excluded };
        let Scoring { rule, aggregation } = self.scoring;
        let dual = match rule {
            ScoringRule::Single { reweight } => {
                let score = image_score_single(&block.data, of_normal, reweight, aggregation)?;
                return Ok(Scored { map: patch_map_single(&normal.distance), score });
            }
            ScoringRule::Dual(dual) => dual,
        };
        let (neighbours, bank) =
            defect.zip(self.defect.as_ref()).expect("both banks are searched for a dual score");
        let options = DualOptions { score: dual, aggregation, calibration: self.calibration.as_ref() };
        let of_defect = Matched { neighbours, bank, excluded: None };
        let score = image_score_dual(&block.data, of_normal, of_defect, options)?;
        let map = patch_map_dual(&normal.distance, &neighbours.distance, dual, self.calibration.as_ref())?;
        Ok(Scored { map, score })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::fields::Value;

    fn read(pairs: &[(&str, Value)], is_dual: bool) -> Scoring {
        let table = pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let (mut problems, mut ports) = (Vec::new(), Vec::new());
        let mut reader = Reader::new(&table, &mut problems, &mut ports);
        let scoring = read_scoring(&mut reader, is_dual);
        reader.finish();
        assert!(problems.is_empty(), "{problems:?}");
        scoring
    }

    #[test]
    fn scorings_are_equal_exactly_if_their_key_fields_are() {
        let choices: [&[(&str, Value)]; 7] = [
            &[],
            &[("alpha", 0.5.into())],
            &[("dual", "difference".into()), ("alpha", 0.5.into())],
            &[("neighbours", 3_i64.into())],
            &[("reweight", "none".into()), ("neighbours", 3_i64.into())],
            &[("top_share", 0.5.into())],
            &[("dual", "reference".into()), ("reweight", "reference".into())],
        ];
        for is_dual in [false, true] {
            for one in choices {
                for other in choices {
                    let (one, other) = (read(one, is_dual), read(other, is_dual));
                    assert_eq!(
                        scoring_fields(&one) == scoring_fields(&other),
                        one == other,
                        "{one:?} {other:?}"
                    );
                }
            }
        }
    }
}
