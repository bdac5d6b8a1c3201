//! Anomaly scores from nearest-neighbour distances: patch maps and image scores.
//!
//! Sources: "the paper" is Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022
//! (Eq. 6 and 7); "the reference" is the code of Aqeel, Leonardi, Setti, "`ExDD`", ICIAP 2025, which adds a
//! bank of defect patches. `d-` is the distance of a patch to the normal bank, `d+` its distance to the defect
//! bank. A higher score is more anomalous. All functions are sequential and deterministic.

use serde::{Deserialize, Serialize};

use super::KernelError;
use super::distance::squared_euclidean;
use super::nearest::{Neighbours, SearchBank};
pub use super::quantile::{Calibration, quantile, quantile_of_sorted};

/// Added to denominators to keep ratios finite; the constant of the reference.
const RATIO_EPSILON: f32 = 1e-6;

/// Neighbours that the reference searches for: `m*` and two more. It then leaves out `m*`.
const REFERENCE_NEIGHBOURS: usize = 3;

/// How the image score is weighted by the neighbourhood of `m*`, the bank row nearest to the highest-scoring patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reweight {
    /// Eq. 7 of the paper, over the `neighbours` rows nearest to `m*`, including `m*`.
    Paper {
        /// `b` in the paper; the default, 9, is that of anomalib.
        neighbours: usize,
    },
    /// No weight.
    None,
    /// As the reference: over the two rows nearest to `m*`, without `m*`.
    Reference,
}

impl Default for Reweight {
    fn default() -> Self {
        Self::Paper { neighbours: 9 }
    }
}

/// How the distances to two banks are combined into one score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DualScore {
    /// `d- · d-/(d- + d+)`: the distance to the normal bank times a soft nearest-neighbour weight.
    Weighted,
    /// `d- - α·d+`.
    Difference {
        /// `α`, the weight of the defect bank.
        alpha: f32,
    },
    /// `d- / (d+ + 1e-6)`.
    Ratio,
    /// `rank(d-) - rank(d+)`, see [`Calibration`].
    Calibrated,
    /// As the reference: the image score is the ratio of two independent maxima, each with its own weight. The
    /// patch map is that of `Ratio`.
    Reference {
        /// How the two maxima are weighted.
        reweight: Reweight,
    },
}

/// How the scores of an image's patches are aggregated into one number.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// The maximum.
    #[default]
    Maximum,
    /// The mean of the `max(1, ⌈p·share⌉)` largest of `p`.
    TopMean {
        /// Share of the patches to average, in \[0, 1\]; usually 0.01.
        share: f32,
    },
}

impl Aggregation {
    /// Aggregates patch scores. Cost: O(p log p) for p patches.
    ///
    /// # Errors
    /// If there are no scores, or a score is NaN.
    pub fn apply(&self, scores: &[f32]) -> Result<f32, KernelError> {
        let strongest = strongest(scores)?;
        match *self {
            Self::Maximum => Ok(scores[strongest]),
            Self::TopMean { share } => {
                let count = (scores.len() as f64 * f64::from(share)).ceil() as usize;
                let count = count.clamp(1, scores.len());
                let mut sorted = scores.to_vec();
                sorted.sort_unstable_by(|a, b| b.total_cmp(a));
                let sum: f64 = sorted[..count].iter().copied().map(f64::from).sum();
                Ok((sum / count as f64) as f32)
            }
        }
    }
}

/// The patches of one image, matched with the rows of one bank.
#[derive(Debug, Clone, Copy)]
pub struct Matched<'a> {
    /// The nearest row of each patch (`k = 1`).
    pub neighbours: &'a Neighbours,
    /// The bank that was searched.
    pub bank: &'a SearchBank,
    /// Rows that the search left out, and that the weights must leave out as well.
    pub excluded: Option<Excluded<'a>>,
}

/// A group of bank rows to leave out, such as those of the image being scored (leave-one-out).
#[derive(Debug, Clone, Copy)]
pub struct Excluded<'a> {
    /// The group of each row of the bank.
    pub groups: &'a [u32],
    /// The group that is left out.
    pub group: u32,
}

impl Matched<'_> {
    /// Returns the `count` rows nearest to `row` that are not excluded, nearest first.
    fn around(&self, row: &[f32], count: usize) -> Result<Vec<u32>, KernelError> {
        let Some(Excluded { groups, group }) = self.excluded else {
            return Ok(self.bank.nearest(row, count)?.index);
        };
        let left_out = groups.iter().filter(|&&of_row| of_row == group).count();
        let mut found = self.bank.nearest(row, count + left_out)?.index;
        found.retain(|&index| groups[index as usize] != group);
        found.truncate(count);
        Ok(found)
    }
}

/// Options of [`image_score_dual`].
#[derive(Debug, Clone, Copy)]
pub struct DualOptions<'a> {
    /// How the two distances are combined.
    pub score: DualScore,
    /// How patch scores are aggregated.
    pub aggregation: Aggregation,
    /// Required by [`DualScore::Calibrated`], otherwise unused.
    pub calibration: Option<&'a Calibration>,
}

/// Returns the patch map for a single bank: the distances `d-`.
pub fn patch_map_single(distance: &[f32]) -> Vec<f32> {
    distance.to_vec()
}

/// Returns the patch map for two banks: combines the distances of each patch to the normal and to the defect bank,
/// `[p]` each.
///
/// `Weighted` is 0 if both distances are 0. Distances below 1e32 give finite scores: neither the sum of two of them
/// nor a quotient by 1e-6 reaches the largest f32, 3e38.
///
/// # Errors
/// If `dual` is `Calibrated` and `calibration` is `None`, or a distance is NaN or infinite.
///
/// # Panics
/// If the lengths differ.
pub fn patch_map_dual(
    normal: &[f32],
    defect: &[f32],
    dual: DualScore,
    calibration: Option<&Calibration>,
) -> Result<Vec<f32>, KernelError> {
    assert_eq!(normal.len(), defect.len(), "each patch has two distances");
    let pairs = || normal.iter().zip(defect);
    if let Some(row) = pairs().position(|(a, b)| !(a.is_finite() && b.is_finite())) {
        return Err(KernelError::NotFinite { row });
    }
    let calibration = match (dual, calibration) {
        (DualScore::Calibrated, None) => return Err(KernelError::CalibrationMissing),
        (_, calibration) => calibration,
    };
    let score = |normal: f32, defect: f32| match dual {
        DualScore::Weighted => weighted(normal, defect),
        DualScore::Difference { alpha } => normal - alpha * defect,
        DualScore::Ratio | DualScore::Reference { .. } => normal / (defect + RATIO_EPSILON),
        DualScore::Calibrated => calibration.map_or(0.0, |quantiles| quantiles.score(normal, defect)),
    };
    Ok(pairs().map(|(&normal, &defect)| score(normal, defect)).collect())
}

fn weighted(normal: f32, defect: f32) -> f32 {
    let sum = normal + defect;
    if sum > 0.0 { normal * (normal / sum) } else { 0.0 }
}

/// Scores an image by the normal bank alone: `w · aggregation(d-)`, where `w` is the weight of the patch with the
/// largest distance (the paper's Eq. 6 and 7 if the aggregation is `Maximum`). `features: [p, d]` are the patches.
///
/// # Errors
/// If there are no patches, or a distance is NaN.
///
/// # Panics
/// If the shapes do not agree.
pub fn image_score_single(
    features: &[f32],
    normal: Matched<'_>,
    reweight: Reweight,
    aggregation: Aggregation,
) -> Result<f32, KernelError> {
    let score = aggregation.apply(&normal.neighbours.distance)?;
    Ok(match softmax_of_strongest(features, normal, reweight)? {
        Some(share) => ((1.0 - share) * f64::from(score)) as f32,
        None => score,
    })
}

/// Scores an image by two banks.
///
/// `Reference` is `s-/(s+ + 1e-6)` of two independent aggregates, where `s-` is weighted by
/// `w = 1 - exp(s/√d)/Σ` and `s+` by `w+ = exp(s/√d)/Σ`. Every other score is the aggregate of
/// [`patch_map_dual`], without weights.
///
/// # Errors
/// If there are no patches, a distance is not finite, or the calibration is missing.
///
/// # Panics
/// If the shapes do not agree.
pub fn image_score_dual(
    features: &[f32],
    normal: Matched<'_>,
    defect: Matched<'_>,
    options: DualOptions<'_>,
) -> Result<f32, KernelError> {
    let DualOptions { score, aggregation, calibration } = options;
    let DualScore::Reference { reweight } = score else {
        let (normal, defect) = (&normal.neighbours.distance, &defect.neighbours.distance);
        return aggregation.apply(&patch_map_dual(normal, defect, score, calibration)?);
    };
    let from_normal = image_score_single(features, normal, reweight, aggregation)?;
    let from_defect = aggregation.apply(&defect.neighbours.distance)?;
    let share = softmax_of_strongest(features, defect, reweight)?.unwrap_or(1.0);
    Ok(from_normal / ((share * f64::from(from_defect)) as f32 + RATIO_EPSILON))
}

/// Returns `exp(s*/√d) / Σ_m exp(‖p* - m‖/√d)` for the patch p* with the largest distance s*, where m runs over
/// the neighbourhood of its nearest row m*. Returns `None` if no weight applies.
///
/// Computed as `1 / Σ_m exp((‖p* - m‖ - s*)/√d)` in f64, so that it is never infinity over infinity.
/// Deviation from the paper: if the neighbourhood holds no row besides m* (a bank of one row, or b below 2),
/// the formula gives the same 0 or infinity for every image, so no weight is applied.
fn softmax_of_strongest(
    features: &[f32],
    matched: Matched<'_>,
    reweight: Reweight,
) -> Result<Option<f64>, KernelError> {
    let Matched { neighbours, bank, excluded: _ } = matched;
    let d = bank.dimension();
    assert_eq!(features.len(), neighbours.distance.len() * d, "one nearest row for each patch");
    let (count, skipped) = match reweight {
        Reweight::None => return Ok(None),
        Reweight::Paper { neighbours } => (neighbours, 0),
        Reweight::Reference => (REFERENCE_NEIGHBOURS, 1),
    };
    let strongest = strongest(&neighbours.distance)?;
    if count.min(bank.len()) < 2 {
        return Ok(None);
    }
    let patch = &features[strongest * d..][..d];
    let nearest_row = bank.row(neighbours.index[strongest] as usize);
    let around = matched.around(nearest_row, count)?;
    if around.len() < 2 {
        return Ok(None);
    }
    let star = f64::from(neighbours.distance[strongest]);
    let sum: f64 = around[skipped..]
        .iter()
        .map(|&row| f64::from(squared_euclidean(patch, bank.row(row as usize)).sqrt()))
        .map(|distance| ((distance - star) / (d as f64).sqrt()).exp())
        .sum();
    Ok(Some(1.0 / sum))
}

/// Returns the index of the largest score; ties go to the lower index.
fn strongest(scores: &[f32]) -> Result<usize, KernelError> {
    if scores.is_empty() {
        return Err(KernelError::NoValues);
    }
    if let Some(row) = scores.iter().position(|score| score.is_nan()) {
        return Err(KernelError::NotFinite { row });
    }
    let mut best = 0;
    for (index, &score) in scores.iter().enumerate() {
        if score > scores[best] {
            best = index;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Rng;

    fn normals(rng: &mut Rng, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| rng.normal() as f32 * scale).collect()
    }

    /// The formula as in the paper, in f64, over explicitly listed rows.
    fn written_weight(patch: &[f32], star: f32, rows: &[&[f32]]) -> f64 {
        let root = (patch.len() as f64).sqrt();
        let sum: f64 =
            rows.iter().map(|row| (f64::from(squared_euclidean(patch, row).sqrt()) / root).exp()).sum();
        (f64::from(star) / root).exp() / sum
    }

    #[test]
    fn the_weight_is_the_papers_formula() {
        let mut rng = Rng::new(1, "scoring");
        let (d, bank) = (4, normals(&mut rng, 30 * 4, 1.0));
        let patches = normals(&mut rng, 10 * 4, 2.0);
        let bank = SearchBank::new(bank, d).unwrap();
        let found = bank.nearest(&patches, 1).unwrap();
        let star = strongest(&found.distance).unwrap();
        let patch = &patches[star * d..][..d];
        let around = bank.nearest(bank.row(found.index[star] as usize), 9).unwrap();
        let rows: Vec<&[f32]> = around.index.iter().map(|&row| bank.row(row as usize)).collect();
        assert_eq!(around.index[0], found.index[star]);
        let matched = Matched { neighbours: &found, bank: &bank, excluded: None };
        let score = |reweight| {
            f64::from(image_score_single(&patches, matched, reweight, Aggregation::Maximum).unwrap())
        };
        let plain = f64::from(found.distance[star]);
        assert!((score(Reweight::None) - plain).abs() < 1e-6);
        let paper = plain * (1.0 - written_weight(patch, found.distance[star], &rows));
        assert!((score(Reweight::default()) - paper).abs() < 1e-5);
        let reference = plain * (1.0 - written_weight(patch, found.distance[star], &rows[1..3]));
        assert!((score(Reweight::Reference) - reference).abs() < 1e-5);
    }

    #[test]
    fn the_reference_divides_two_independent_maxima() {
        let mut rng = Rng::new(2, "scoring");
        let d = 3;
        let normal = SearchBank::new(normals(&mut rng, 20 * d, 1.0), d).unwrap();
        let defect = SearchBank::new(normals(&mut rng, 20 * d, 3.0), d).unwrap();
        let patches = normals(&mut rng, 8 * d, 2.0);
        let (near, far) = (normal.nearest(&patches, 1).unwrap(), defect.nearest(&patches, 1).unwrap());
        let (near, far) = (
            Matched { neighbours: &near, bank: &normal, excluded: None },
            Matched { neighbours: &far, bank: &defect, excluded: None },
        );
        let options = |reweight| DualOptions {
            score: DualScore::Reference { reweight },
            aggregation: Aggregation::Maximum,
            calibration: None,
        };
        let maximum = |matched: Matched| Aggregation::Maximum.apply(&matched.neighbours.distance).unwrap();
        let plain = image_score_dual(&patches, near, far, options(Reweight::None)).unwrap();
        assert!((plain - maximum(near) / (maximum(far) + 1e-6)).abs() < 1e-6);

        let weighed = image_score_dual(&patches, near, far, options(Reweight::Reference)).unwrap();
        let above = image_score_single(&patches, near, Reweight::Reference, Aggregation::Maximum).unwrap();
        let single = image_score_single(&patches, far, Reweight::Reference, Aggregation::Maximum).unwrap();
        // w+ = 1 - w, so s+ · w+ = s+ - s+ · w.
        let below = maximum(far) - single;
        assert!((weighed - above / (below + 1e-6)).abs() < 1e-4, "{weighed} {above} {below}");
    }

    #[test]
    fn weights_of_enormous_distances_stay_finite() {
        let bank = SearchBank::new(vec![0.0, 1.0, 2.0], 1).unwrap();
        let patches = [1e6];
        let found = bank.nearest(&patches, 1).unwrap();
        let matched = Matched { neighbours: &found, bank: &bank, excluded: None };
        for reweight in [Reweight::default(), Reweight::Reference] {
            let score = image_score_single(&patches, matched, reweight, Aggregation::Maximum).unwrap();
            assert!(score.is_finite() && score > 0.0);
        }
    }

    #[test]
    fn a_bank_of_one_row_is_not_weighed() {
        let bank = SearchBank::new(vec![0.0], 1).unwrap();
        let found = bank.nearest(&[3.0], 1).unwrap();
        let matched = Matched { neighbours: &found, bank: &bank, excluded: None };
        for reweight in [Reweight::default(), Reweight::Reference, Reweight::None] {
            assert_eq!(image_score_single(&[3.0], matched, reweight, Aggregation::Maximum), Ok(3.0));
        }
    }

    #[test]
    fn dual_maps_are_their_formulas() {
        let (normal, defect) = ([2.0, 0.0, 1.0], [2.0, 0.0, 3.0]);
        let map = |dual| patch_map_dual(&normal, &defect, dual, None).unwrap();
        assert_eq!(map(DualScore::Weighted), [1.0, 0.0, 0.25]);
        assert_eq!(map(DualScore::Difference { alpha: 0.25 }), [1.5, 0.0, 0.25]);
        assert_eq!(map(DualScore::Ratio), [2.0 / (2.0 + 1e-6), 0.0, 1.0 / (3.0 + 1e-6)]);
        assert_eq!(map(DualScore::Reference { reweight: Reweight::default() }), map(DualScore::Ratio));
        assert_eq!(
            patch_map_dual(&normal, &defect, DualScore::Calibrated, None),
            Err(KernelError::CalibrationMissing)
        );
        assert_eq!(
            patch_map_dual(&[f32::INFINITY], &[1.0], DualScore::Weighted, None),
            Err(KernelError::NotFinite { row: 0 })
        );
    }

    #[test]
    fn the_top_mean_counts_up() {
        let scores: Vec<f32> = (0..101).map(|score| score as f32).collect();
        assert_eq!(Aggregation::TopMean { share: 0.01 }.apply(&scores), Ok(99.5));
        assert_eq!(Aggregation::TopMean { share: 0.0 }.apply(&scores), Ok(100.0));
        assert_eq!(Aggregation::TopMean { share: 1.0 }.apply(&scores), Ok(50.0));
        assert_eq!(Aggregation::Maximum.apply(&scores), Ok(100.0));
        assert_eq!(Aggregation::Maximum.apply(&[]), Err(KernelError::NoValues));
        assert_eq!(Aggregation::Maximum.apply(&[1.0, f32::NAN]), Err(KernelError::NotFinite { row: 1 }));
    }
}
