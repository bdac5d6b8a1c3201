//! Statistics over repeats.

/// Mean and spread of one metric over repeats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation (n - 1); none for one value.
    pub deviation: Option<f64>,
    /// Number of values.
    pub n: usize,
}

/// Summarises values; none where there is none. Two passes, so that close values lose no digits.
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
}
