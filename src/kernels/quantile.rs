//! Quantiles of samples, and the rank of a distance among the distances of normal patches.

use serde::{Deserialize, Serialize};

use super::KernelError;

/// Quantiles that are stored per distance: steps of 1/1000 (chosen, untested).
const QUANTILES: usize = 1001;

/// The distribution of the distances of normal training patches to the normal bank (`d-`) and to the defect bank
/// (`d+`), as 1001 quantiles each.
///
/// The `rank` of a distance is the fraction of normal training patches with a smaller distance, interpolated linearly
/// between quantiles; a distance equal to several quantiles has the mean of their ranks. Beyond the largest and the
/// smallest distance the rank continues in proportion: twice the largest distance has rank 2, and distance 0 has rank
/// -1 if the smallest distance is above 0. Defects usually lie beyond the largest distance; if ranks stopped at 1, all
/// of them would be equal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Evenly spaced quantiles of `d-`, ascending, from the minimum to the maximum.
    pub normal: Vec<f32>,
    /// The same quantiles of `d+`.
    pub defect: Vec<f32>,
}

impl Calibration {
    /// Computes the quantiles of the (leave-one-out) distances of normal training patches.
    ///
    /// # Errors
    /// If there are no distances, or one is NaN or infinite.
    pub fn fit(normal: &[f32], defect: &[f32]) -> Result<Self, KernelError> {
        Ok(Self { normal: quantile_table(normal)?, defect: quantile_table(defect)? })
    }

    /// Returns `rank(d-) - rank(d+)` for a patch at the distances `d-` and `d+`.
    pub fn score(&self, normal: f32, defect: f32) -> f32 {
        (rank(&self.normal, normal) - rank(&self.defect, defect)) as f32
    }
}

fn quantile_table(values: &[f32]) -> Result<Vec<f32>, KernelError> {
    if let Some(row) = values.iter().position(|value| !value.is_finite()) {
        return Err(KernelError::NotFinite { row });
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let last = (QUANTILES - 1) as f64;
    (0..QUANTILES).map(|step| quantile_of_sorted(&sorted, step as f64 / last)).collect()
}

fn rank(table: &[f32], value: f32) -> f64 {
    let last = (table.len() - 1) as f64;
    let (least, most) = (table[0], table[table.len() - 1]);
    if value > most {
        let scale = if most > 0.0 { most } else { 1.0 };
        return 1.0 + f64::from(value - most) / f64::from(scale);
    }
    if value < least {
        return f64::from(value - least) / f64::from(least.abs());
    }
    let below = table.partition_point(|&entry| entry < value);
    let not_above = table.partition_point(|&entry| entry <= value);
    if below < not_above {
        return f64::midpoint(below as f64, (not_above - 1) as f64) / last;
    }
    let (low, high) = (f64::from(table[below - 1]), f64::from(table[below]));
    ((below - 1) as f64 + (f64::from(value) - low) / (high - low)) / last
}

/// Returns the `q` quantile of `values`, which need not be sorted. Method `linear` of `numpy.quantile`: the value at
/// index `q·(n - 1)` of the sorted values, interpolated linearly. Cost: O(n log n).
///
/// # Errors
/// If there are no values, or one is NaN.
///
/// # Panics
/// If `q` is not between 0 and 1.
pub fn quantile(values: &[f32], q: f64) -> Result<f32, KernelError> {
    if let Some(row) = values.iter().position(|value| value.is_nan()) {
        return Err(KernelError::NotFinite { row });
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    quantile_of_sorted(&sorted, q)
}

/// As [`quantile`], for values sorted in ascending order. Interpolating between a finite and an infinite value gives
/// that infinity; between the two infinities, NaN.
///
/// # Errors
/// If there are no values.
///
/// # Panics
/// If `q` is not between 0 and 1.
pub fn quantile_of_sorted(sorted: &[f32], q: f64) -> Result<f32, KernelError> {
    assert!((0.0..=1.0).contains(&q), "quantile {q} is not between 0 and 1");
    if sorted.is_empty() {
        return Err(KernelError::NoValues);
    }
    let index = q * (sorted.len() - 1) as f64;
    let below = index.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    let (low, high) = (f64::from(sorted[below]), f64::from(sorted[above]));
    let share = index - below as f64;
    // Equal neighbours and whole indices are not interpolated: with infinities the result would be NaN.
    let is_exact = share <= 0.0 || low.total_cmp(&high).is_eq();
    Ok(if is_exact { low } else { low + (high - low) * share } as f32)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these results are promised to the bit")]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_numpys_linear_ones() {
        // numpy 2.4.6: np.quantile([3, 1, 4, 1, 5], [0, 0.25, 0.3, 0.995, 1])
        let values = [3.0, 1.0, 4.0, 1.0, 5.0];
        for (q, expected) in [(0.0, 1.0), (0.25, 1.0), (0.3, 1.4), (0.995, 4.98), (1.0, 5.0)] {
            assert!((quantile(&values, q).unwrap() - expected).abs() < 1e-6, "{q}");
        }
        assert_eq!(quantile(&[], 0.5), Err(KernelError::NoValues));
        assert_eq!(quantile(&[f32::INFINITY; 2], 0.5), Ok(f32::INFINITY));
        assert_eq!(quantile(&[1.0, 2.0, f32::INFINITY], 0.5), Ok(2.0));
        assert_eq!(quantile(&[1.0, 2.0, f32::INFINITY], 0.75), Ok(f32::INFINITY));
    }

    #[test]
    fn ranks_ascend_within_and_beyond_the_table() {
        let values: Vec<f32> = (0..=2000).map(|step| 1.0 + step as f32 / 1000.0).collect();
        let table = Calibration::fit(&values, &values).unwrap().normal;
        for (value, expected) in [(1.0, 0.0), (2.0, 0.5), (3.0, 1.0), (6.0, 2.0), (0.0, -1.0), (1.5, 0.25)] {
            assert!((rank(&table, value) - expected).abs() < 1e-6, "{value}: {}", rank(&table, value));
        }
        let mut last = f64::NEG_INFINITY;
        for step in 0..500 {
            let now = rank(&table, step as f32 * 0.01);
            assert!(now > last);
            last = now;
        }
    }

    #[test]
    fn equal_distances_rank_in_the_middle() {
        let calibration = Calibration::fit(&[2.0; 10], &[2.0; 10]).unwrap();
        assert!((rank(&calibration.normal, 2.0) - 0.5).abs() < 1e-12);
        assert_eq!(calibration.score(2.0, 2.0), 0.0);
        let zeros = Calibration::fit(&[0.0; 3], &[0.0; 3]).unwrap();
        assert!(zeros.score(5.0, 0.0).is_finite());
    }
}
