//! The per-region overlap curve and the area under it (AUPRO).
//!
//! Source: Bergmann et al., "The MVTec Anomaly Detection Dataset" (IJCV 2021), section 5.2. For each threshold, x
//! is the false positive rate over the normal pixels of all images, and y is the mean over all regions of all
//! images of the fraction of the region's pixels at or above the threshold. So a pixel of a region of r pixels has
//! weight 1/r. As in the authors' evaluation code, the curve starts at (0, 0), has one point per distinct score,
//! and is linear between them; it is cut at the limit by linear interpolation, and its area is divided by the limit.

/// Accumulates the area under the curve up to a false positive rate, the limit.
pub(super) struct OverlapCurve {
    limit: f64,
    rate: f64,
    overlap: f64,
    area: f64,
}

impl OverlapCurve {
    /// Starts a curve at (0, 0).
    ///
    /// # Panics
    /// If the limit is not in (0, 1].
    pub(super) fn new(limit: f64) -> Self {
        assert!(limit > 0.0 && limit <= 1.0, "the limit {limit} of the false positive rate is not in (0, 1]");
        Self { limit, rate: 0.0, overlap: 0.0, area: 0.0 }
    }

    /// Adds a line to the next point. Neither coordinate may decrease.
    pub(super) fn line_to(&mut self, rate: f64, overlap: f64) {
        if self.rate >= self.limit {
            return;
        }
        let (end, height) = if rate <= self.limit {
            (rate, overlap)
        } else {
            let share = (self.limit - self.rate) / (rate - self.rate);
            (self.limit, self.overlap + share * (overlap - self.overlap))
        };
        self.area += (end - self.rate) * (self.overlap + height) / 2.0;
        (self.rate, self.overlap) = (end, height);
    }

    /// Returns the area under the curve up to the limit, divided by the limit: in \[0, 1\].
    pub(super) fn normalised_area(&self) -> f64 {
        self.area / self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(limit: f64, points: &[(f64, f64)]) -> f64 {
        let mut curve = OverlapCurve::new(limit);
        for &(rate, overlap) in points {
            curve.line_to(rate, overlap);
        }
        curve.normalised_area()
    }

    #[test]
    fn the_limit_cuts_a_line_where_it_crosses_it() {
        // The diagonal up to 0.3: 0.3² / 2 / 0.3.
        assert!((area(0.3, &[(1.0, 1.0)]) - 0.15).abs() < 1e-15);
        // (0.1 · 0.5 / 2 + 0.2 · 0.5) / 0.3, the second line being level.
        assert!((area(0.3, &[(0.1, 0.5), (0.6, 0.5), (1.0, 1.0)]) - 0.125 / 0.3).abs() < 1e-15);
    }

    #[test]
    fn a_rise_at_the_limit_itself_adds_nothing() {
        assert!((area(0.5, &[(0.0, 0.5), (0.5, 0.5), (0.5, 1.0), (1.0, 1.0)]) - 0.5).abs() < 1e-15);
    }

    #[test]
    #[should_panic(expected = "is not in (0, 1]")]
    fn a_limit_of_0_panics() {
        let _ = OverlapCurve::new(0.0);
    }
}
