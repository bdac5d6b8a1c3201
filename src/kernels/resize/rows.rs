//! Resizing of images and masks whose rows arrive from top to bottom.
//!
//! Memory is that of the rows that target rows still need, whatever the height. Sums are integers, so that the result does not
//! depend on how the rows are divided.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use rayon::prelude::*;

/// Fractional bits of a filter weight, as in Pillow, so that the results are equal.
const WEIGHT_BITS: u32 = 32 - 8 - 2;

/// Resizes an image as [`resize`](super::resize), which gives it all rows at once.
pub struct RowResize {
    from: Size,
    to: Size,
    channels: usize,
    /// `None` if the width stays.
    columns: Option<Vec<Taps>>,
    rows: Vec<Taps>,
    /// Rows that have arrived.
    arrived: usize,
    /// Sums of the target rows that are not finished, from the first one.
    sums: VecDeque<Vec<i32>>,
    done: Vec<u8>,
}

/// Height and width in px.
type Size = (usize, usize);

impl RowResize {
    /// Creates a resize of `channels` levels per pixel. Sizes are (height, width).
    ///
    /// # Panics
    /// If a side or `channels` is 0.
    pub fn new(from: Size, to: Size, channels: usize) -> Self {
        assert_sides(from, to);
        assert!(channels > 0, "an image without levels");
        Self {
            from,
            to,
            channels,
            columns: (from.1 != to.1).then(|| triangle_taps(from.1, to.1)),
            rows: triangle_taps(from.0, to.0),
            arrived: 0,
            sums: VecDeque::new(),
            done: Vec::with_capacity(to.0 * to.1 * channels),
        }
    }

    /// Adds the next rows, `[rows, w, channels]`.
    ///
    /// # Panics
    /// If a row is not whole, or there are more than the image has.
    pub fn push(&mut self, levels: &[u8]) {
        let stride = self.from.1 * self.channels;
        assert_rows(levels.len(), stride, self.arrived, self.from.0);
        let across = match &self.columns {
            None => Cow::Borrowed(levels),
            Some(taps) => Cow::Owned(resize_columns(levels, stride, self.channels, taps)),
        };
        for line in across.chunks_exact(self.to.1 * self.channels) {
            self.add(line);
        }
    }

    /// Adds a row of the target's width to the sums of all target rows that read it.
    fn add(&mut self, line: &[u8]) {
        let (row, finished) = (self.arrived, self.done.len() / line.len());
        let open = self.rows[finished..].iter().take_while(|taps| taps.first <= row);
        for (index, taps) in open.enumerate() {
            if index == self.sums.len() {
                self.sums.push_back(vec![0; line.len()]);
            }
            let Some(weight) = taps.weights.get(row - taps.first) else { continue };
            for (sum, &value) in self.sums[index].iter_mut().zip(line) {
                *sum += weight * i32::from(value);
            }
        }
        self.arrived += 1;
        let is_complete = |taps: &&Taps| taps.first + taps.weights.len() <= self.arrived;
        let complete = self.rows[finished..].iter().take_while(is_complete).count();
        for sums in self.sums.drain(..complete) {
            self.done.extend(sums.into_iter().map(level));
        }
    }

    /// Returns the resized image, `[to_h, to_w, channels]`.
    ///
    /// # Panics
    /// If rows are missing.
    pub fn finish(self) -> Vec<u8> {
        assert_eq!(self.arrived, self.from.0, "rows are missing");
        self.done
    }
}

fn resize_columns(levels: &[u8], stride: usize, channels: usize, taps: &[Taps]) -> Vec<u8> {
    let lines = levels.par_chunks(stride).flat_map_iter(|line| {
        (0..taps.len() * channels).map(move |index| {
            let (tap, channel) = (&taps[index / channels], index % channels);
            let values = line[tap.first * channels + channel..].iter().step_by(channels);
            level(tap.weights.iter().zip(values).map(|(weight, &value)| weight * i32::from(value)).sum())
        })
    });
    lines.collect()
}

/// Rounds a weighted sum in fixed point to the nearest 8-bit level.
fn level(sum: i32) -> u8 {
    ((sum + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// The source pixels that a target pixel reads, with fixed-point weights whose sum is about one.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

fn triangle_taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let support = scale.max(1.0);
    (0..to)
        .map(|index| {
            let centre = (index as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let inverse = 1.0 / support;
            let heights: Vec<f64> =
                (first..end).map(|x| (1.0 - ((x as f64 - centre + 0.5) * inverse).abs()).max(0.0)).collect();
            let sum: f64 = heights.iter().sum();
            let fixed = |height: f64| (0.5 + height / sum * f64::from(1 << WEIGHT_BITS)) as i32;
            Taps { first, weights: heights.into_iter().map(fixed).collect() }
        })
        .collect()
}

/// Resizes a mask as [`area_maximum`](super::area_maximum), which gives it all rows at once.
pub struct RowMaximum {
    from: Size,
    to: Size,
    columns: Vec<Range<usize>>,
    rows: Vec<Range<usize>>,
    arrived: usize,
    /// `[to_h, to_w]`.
    resized: Vec<u8>,
    /// The first target row that a further row can reach.
    first: usize,
}

impl RowMaximum {
    /// Creates a resize. Sizes are (height, width).
    ///
    /// # Panics
    /// If a side is 0.
    pub fn new(from: Size, to: Size) -> Self {
        assert_sides(from, to);
        Self {
            from,
            to,
            columns: covered(from.1, to.1),
            rows: covered(from.0, to.0),
            arrived: 0,
            resized: vec![0; to.0 * to.1],
            first: 0,
        }
    }

    /// Adds the next rows, `[rows, w]`, where nonzero means set.
    ///
    /// # Panics
    /// If a row is not whole, or there are more than the mask has.
    pub fn push(&mut self, levels: &[u8]) {
        let (w, to_w) = (self.from.1, self.to.1);
        assert_rows(levels.len(), w, self.arrived, self.from.0);
        for line in levels.chunks_exact(w) {
            let row = self.arrived;
            self.arrived += 1;
            self.first += self.rows[self.first..].iter().take_while(|range| range.end <= row).count();
            if line.iter().all(|&value| value == 0) {
                continue;
            }
            let across: Vec<u8> = self
                .columns
                .iter()
                .map(|range| u8::from(line[range.clone()].iter().any(|&value| value != 0)))
                .collect();
            let reached = self.rows[self.first..].iter().take_while(|range| range.start <= row).count();
            for target in self.resized[self.first * to_w..].chunks_exact_mut(to_w).take(reached) {
                target.iter_mut().zip(&across).for_each(|(pixel, &value)| *pixel |= value);
            }
        }
    }

    /// Returns the resized mask, `[to_h, to_w]`, of 0 and 1.
    ///
    /// # Panics
    /// If rows are missing.
    pub fn finish(self) -> Vec<u8> {
        assert_eq!(self.arrived, self.from.0, "rows are missing");
        self.resized
    }
}

fn covered(from: usize, to: usize) -> Vec<Range<usize>> {
    (0..to).map(|index| index * from / to..((index + 1) * from).div_ceil(to)).collect()
}

fn assert_sides(from: Size, to: Size) {
    assert!(from.0 > 0 && from.1 > 0 && to.0 > 0 && to.1 > 0, "a size of 0: {from:?} to {to:?}");
}

fn assert_rows(length: usize, stride: usize, arrived: usize, h: usize) {
    assert!(length.is_multiple_of(stride), "{length} levels are no whole rows of {stride}");
    assert!(arrived + length / stride <= h, "more than {h} rows");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Rng;

    /// Both passes over the whole image, a target pixel at a time.
    fn naive_resize(image: &[u8], (h, w): Size, (to_h, to_w): Size, channels: usize) -> Vec<u8> {
        let sum = |taps: &Taps, at: &dyn Fn(usize) -> u8| {
            let indices = taps.first..taps.first + taps.weights.len();
            level(indices.zip(&taps.weights).map(|(index, weight)| weight * i32::from(at(index))).sum())
        };
        let (columns, rows) = (triangle_taps(w, to_w), triangle_taps(h, to_h));
        let mut across = Vec::new();
        for row in 0..h {
            for taps in &columns {
                across.extend(
                    (0..channels).map(|channel| sum(taps, &|x| image[(row * w + x) * channels + channel])),
                );
            }
        }
        let stride = to_w * channels;
        rows.iter()
            .flat_map(|taps| (0..stride).map(|index| sum(taps, &|y| across[y * stride + index])))
            .collect()
    }

    /// Gives the rows to `push` in parts of random heights.
    fn in_parts(rng: &mut Rng, values: &[u8], stride: usize, mut push: impl FnMut(&[u8])) {
        let mut rest = values;
        while !rest.is_empty() {
            let rows = (1 + rng.below(5)).min(rest.len() / stride);
            let (part, after) = rest.split_at(rows * stride);
            push(part);
            rest = after;
        }
    }

    #[test]
    fn parts_of_an_image_give_the_whole() {
        let mut rng = Rng::new(1, "rows");
        for from in 1..=20 {
            for to in 1..=20 {
                let (size, target, channels) = ((from, 21 - from), (to, 1 + rng.below(24)), 1 + rng.below(4));
                let image: Vec<u8> = (0..size.0 * size.1 * channels).map(|_| rng.below(256) as u8).collect();
                let mut rows = RowResize::new(size, target, channels);
                in_parts(&mut rng, &image, size.1 * channels, |part| rows.push(part));
                let whole = naive_resize(&image, size, target, channels);
                assert_eq!(rows.finish(), whole, "{size:?} to {target:?}");
            }
        }
    }

    #[test]
    fn parts_of_a_mask_give_the_whole() {
        let mut rng = Rng::new(2, "rows");
        for from in 1..=20 {
            for to in 1..=20 {
                let (size, target) = ((from, 21 - from), (to, 7));
                let mask: Vec<u8> =
                    (0..size.0 * size.1).map(|_| if rng.below(9) == 0 { 255 } else { 0 }).collect();
                let mut rows = RowMaximum::new(size, target);
                in_parts(&mut rng, &mask, size.1, |part| rows.push(part));
                let whole = crate::kernels::resize::area_maximum(&mask, size.0, size.1, target.0, target.1);
                assert_eq!(rows.finish(), whole, "{size:?} to {target:?}");
            }
        }
    }

    #[test]
    fn only_the_rows_that_are_needed_are_held() {
        let mut rows = RowResize::new((1000, 8), (10, 4), 3);
        for _ in 0..1000 {
            rows.push(&[7; 24]);
            assert!(rows.sums.len() <= 3, "{}", rows.sums.len());
        }
        assert_eq!(rows.finish(), vec![7; 10 * 4 * 3]);
    }

    #[test]
    #[should_panic(expected = "rows are missing")]
    fn missing_rows_are_refused() {
        let mut rows = RowResize::new((3, 2), (1, 1), 1);
        rows.push(&[1, 2]);
        rows.finish();
    }
}
