//! A model at work: one image's patch features become its patch map and its score. Used by `fit` for the
//! threshold and by `evaluate`, so that both mean the same by a score.

use super::fields::{Fields, Reader, fields};
use crate::artifacts::feature_set::Block;
use crate::artifacts::model::{Model, Scoring};
use crate::kernels::KernelError;
use crate::kernels::nearest::{Bank, Neighbours};
use crate::kernels::scoring::{
    Aggregation, Calibration, DualOptions, DualScore, Matched, Reweight, image_score_dual,
    image_score_single, patch_map_dual, patch_map_single,
};

/// Neighbours of the paper's weight (b in Roth et al. 2022, Eq. 7; 9 as in its authors' follow-ups).
const NEIGHBOURS: i64 = 9;
/// Weight of the defect bank in `difference` (measured: science of the design, KSDD).
const ALPHA: f64 = 0.25;
/// Share of the patches that `top_mean` averages.
const TOP_SHARE: f64 = 0.01;

/// Reads the fields of a scoring; the dual ones are known but not read where there is one bank.
pub fn read_scoring(reader: &mut Reader<'_>, is_dual: bool) -> Scoring {
    let reweights = [("paper", "paper"), ("none", "none"), ("reference", "reference")];
    let duals = [
        ("weighted", "weighted"),
        ("difference", "difference"),
        ("ratio", "ratio"),
        ("calibrated", "calibrated"),
        ("reference", "reference"),
    ];
    let aggregations = [("maximum", "maximum"), ("top_mean", "top_mean")];
    let reweight = reader.choice("reweight", &reweights, Some("paper"));
    let dual = reader.choice("dual", &duals, Some("weighted"));
    let aggregation = reader.choice("aggregation", &aggregations, Some("maximum"));
    Scoring {
        reweight: reweight.to_owned(),
        neighbours: reader.integer("neighbours", 2..=1000, Some(NEIGHBOURS)) as usize,
        dual: if is_dual { dual.to_owned() } else { String::new() },
        alpha: reader.float("alpha", 0.0..=100.0, Some(ALPHA)) as f32,
        aggregation: aggregation.to_owned(),
        top_share: reader.float("top_share", 1e-6..=1.0, Some(TOP_SHARE)) as f32,
    }
}

/// The fields of a scoring that can change a score.
pub fn scoring_fields(scoring: &Scoring, is_dual: bool) -> Fields {
    let Scoring { reweight, neighbours, dual, alpha, aggregation, top_share } = scoring;
    let mut all = fields([("aggregation", aggregation.as_str().into())]);
    if !is_dual || dual == "reference" {
        all.insert("reweight".to_owned(), reweight.as_str().into());
        if reweight == "paper" {
            all.insert("neighbours".to_owned(), (*neighbours).into());
        }
    }
    if is_dual {
        all.insert("dual".to_owned(), dual.as_str().into());
        if dual == "difference" {
            all.insert("alpha".to_owned(), f64::from(*alpha).into());
        }
    }
    if aggregation == "top_mean" {
        all.insert("top_share".to_owned(), f64::from(*top_share).into());
    }
    all
}

/// One image's scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// Of its patches, `[grid h, grid w]`.
    pub map: Vec<f32>,
    /// Of the image.
    pub score: f32,
}

/// A model's banks, prepared for many images.
pub struct Scorer {
    normal: Bank,
    defect: Option<Bank>,
    reweight: Reweight,
    dual: DualScore,
    aggregation: Aggregation,
    calibration: Option<Calibration>,
}

impl Scorer {
    /// Prepares a model.
    pub fn new(model: &Model) -> Result<Self, KernelError> {
        let scoring = &model.description.scoring;
        let prepare = |bank: &crate::artifacts::bank::Bank| Bank::new(bank.rows.clone(), bank.d());
        Ok(Self {
            normal: prepare(&model.normal)?,
            defect: model.defect.as_ref().map(prepare).transpose()?,
            reweight: match scoring.reweight.as_str() {
                "none" => Reweight::None,
                "reference" => Reweight::Reference,
                _ => Reweight::Paper { neighbours: scoring.neighbours },
            },
            dual: match scoring.dual.as_str() {
                "difference" => DualScore::Difference { alpha: scoring.alpha },
                "ratio" => DualScore::Ratio,
                "calibrated" => DualScore::Calibrated,
                "reference" => DualScore::Reference,
                _ => DualScore::Weighted,
            },
            aggregation: match scoring.aggregation.as_str() {
                "top_mean" => Aggregation::TopMean { share: scoring.top_share },
                _ => Aggregation::Maximum,
            },
            calibration: model
                .description
                .calibration
                .as_ref()
                .map(|tables| Calibration { normal: tables.normal.clone(), defect: tables.defect.clone() }),
        })
    }

    /// The bank of normal patches.
    pub fn normal(&self) -> &Bank {
        &self.normal
    }

    /// The bank of defect patches.
    pub fn defect(&self) -> Option<&Bank> {
        self.defect.as_ref()
    }

    /// Scores one image.
    pub fn score(&self, block: &Block) -> Result<Scored, KernelError> {
        let normal = self.normal.nearest(&block.data, 1)?;
        let defect = self.defect.as_ref().map(|bank| bank.nearest(&block.data, 1)).transpose()?;
        self.score_distances(block, &normal, defect.as_ref())
    }

    /// Scores one image whose nearest rows are known.
    pub fn score_distances(
        &self,
        block: &Block,
        normal: &Neighbours,
        defect: Option<&Neighbours>,
    ) -> Result<Scored, KernelError> {
        let of_normal = Matched { neighbours: normal, bank: &self.normal };
        let (Some(found), Some(bank)) = (defect, &self.defect) else {
            let score = image_score_single(&block.data, of_normal, self.reweight, self.aggregation)?;
            return Ok(Scored { map: patch_map_single(&normal.distance), score });
        };
        let options = DualOptions {
            score: self.dual,
            reweight: self.reweight,
            aggregation: self.aggregation,
            calibration: self.calibration.as_ref(),
        };
        let of_defect = Matched { neighbours: found, bank };
        let score = image_score_dual(&block.data, of_normal, of_defect, options)?;
        let map = patch_map_dual(&normal.distance, &found.distance, self.dual, self.calibration.as_ref())?;
        Ok(Scored { map, score })
    }
}
