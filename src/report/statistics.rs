//! Statistics over repeats.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Mean and spread of one metric over repeats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation (n - 1); `None` for one value.
    pub deviation: Option<f64>,
    /// Number of values.
    pub n: usize,
}

/// Summarises values; `None` if there are none. Two passes, so that close values lose no digits.
pub fn summarise(values: &[f64]) -> Option<Summary> {
    let n = values.len();
    if n == 0 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let deviation = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
    Some(Summary { mean, deviation, n })
}

/// A mean difference with its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanInterval {
    /// Mean of the differences.
    pub mean: f64,
    /// Half of the 95 % interval of the mean; `None` for one difference.
    pub half: Option<f64>,
    /// Number of differences.
    pub n: usize,
}

/// The mean of paired differences with Student's t interval, `mean ± t(0.975, n - 1) · s / √n`; `None` if there are
/// none.
pub fn paired(differences: &[f64]) -> Option<MeanInterval> {
    let Summary { mean, deviation, n } = summarise(differences)?;
    let half = deviation.and_then(|deviation| {
        let t = StudentsT::new(0.0, 1.0, (n - 1) as f64).ok()?.inverse_cdf(0.975);
        Some(t * deviation / (n as f64).sqrt())
    });
    Some(MeanInterval { mean, half, n })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        let summary = summarise(&[1.0, 2.0, 4.0]).unwrap();
        assert!((summary.mean - 7.0 / 3.0).abs() < 1e-12);
        assert!((summary.deviation.unwrap() - 1.527_525_231_651_947).abs() < 1e-12);
        assert_eq!(summarise(&[0.5]).unwrap().deviation, None);
        assert_eq!(summarise(&[]), None);
    }

    #[test]
    fn a_paired_interval_is_that_of_scipy() {
        // scipy.stats.t.interval(0.95, 4, loc=mean, scale=sem) of these five differences.
        let interval = paired(&[0.010, -0.002, 0.007, 0.004, 0.011]).unwrap();
        assert!((interval.mean - 0.006).abs() < 1e-12);
        assert!((interval.half.unwrap() - 0.006_511_340_938_852_174).abs() < 1e-9);
        assert_eq!(paired(&[0.25]), Some(MeanInterval { mean: 0.25, half: None, n: 1 }));
        assert_eq!(paired(&[]), None);
    }
}
