//! Samples of rows: evenly spaced indices, and the mean of rows.

/// Returns at most `count` indices of `0..n`, evenly spaced, ascending.
pub(crate) fn evenly_spaced(n: usize, count: usize) -> impl ExactSizeIterator<Item = usize> {
    let count = count.min(n);
    (0..count).map(move |number| number * n / count)
}

/// Returns at most `count` of `rows: [n, d]`, evenly spaced: their indices, and the rows.
pub(crate) fn sample_rows(rows: &[f32], d: usize, count: usize) -> (Vec<usize>, Vec<f32>) {
    let indices: Vec<usize> = evenly_spaced(rows.len() / d, count).collect();
    let sample = indices.iter().flat_map(|&row| &rows[row * d..][..d]).copied().collect();
    (indices, sample)
}

/// Returns the mean of `rows: [n, d]`.
pub(crate) fn mean(rows: &[f32], d: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f64; d];
    for row in rows.chunks_exact(d) {
        sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    let count = (rows.len() / d) as f64;
    sums.into_iter().map(|sum| (sum / count) as f32).collect()
}
