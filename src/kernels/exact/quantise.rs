//! Quantisation of a row to int8 after subtraction of a centre: its integers, its step (the value of 1), and the length
//! of the rounding error.
//!
//! The error analysis is at the head of `int8`.

use crate::kernels::product::int8::WORD;

/// Half a unit in the last place of 1.
const ROUNDING: f32 = 1.0 / 16_777_216.0;

/// `1.5·2^23`: at this size the last bit of a float is worth 1, so a sum with a small number is rounded to an integer, ties
/// to even, and its last bits are that integer.
const SHIFT: f32 = 12_582_912.0;

/// Numbers processed at a time, each with its own partial sum.
const LANES: usize = 16;

/// What is kept of a quantised row, except its integers.
#[derive(Clone, Copy)]
pub(super) struct QuantisedRow {
    /// The sum of the integers.
    pub(super) sum: i32,
    pub(super) step: f32,
    /// `‖x̂‖²`, lowered by its rounding error.
    pub(super) norm: f32,
    /// `e`: an upper bound of the length of what quantisation lost.
    pub(super) error: f32,
}

/// Quantises `row - centre` to integers of at most `most`: appends them to `words`, four per word and padded with zeros.
pub(super) fn quantise(row: &[f32], centre: &[f32], most: i8, words: &mut Vec<u32>) -> QuantisedRow {
    let start = words.len();
    words.resize(start + row.len().div_ceil(LANES) * LANES / WORD, 0);
    let quantised = pulp::Arch::new().dispatch(QuantiseRow { row, centre, most, words: &mut words[start..] });
    words.truncate(start + row.len().div_ceil(WORD));
    quantised
}

struct QuantiseRow<'a> {
    row: &'a [f32],
    centre: &'a [f32],
    most: i8,
    words: &'a mut [u32],
}

impl pulp::WithSimd for QuantiseRow<'_> {
    type Output = QuantisedRow;

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn with_simd<S: pulp::Simd>(self, _: S) -> QuantisedRow {
        let Self { row, centre, most, words } = self;
        let (row, rest) = row.as_chunks::<LANES>();
        let (centre, centre_rest) = centre.as_chunks::<LANES>();
        let last = [padded(rest), padded(centre_rest)];
        let mut largest = [0.0_f32; LANES];
        for (row, centre) in row.iter().zip(centre).chain([(&last[0], &last[1])]) {
            for lane in 0..LANES {
                let size = (row[lane] - centre[lane]).abs();
                largest[lane] = if size > largest[lane] { size } else { largest[lane] };
            }
        }
        let largest = fold_lanes(largest, |a, b| if a > b { a } else { b });
        let mut quantiser = Quantiser::new(largest, most);
        let (words, words_rest) = words.as_chunks_mut::<{ LANES / WORD }>();
        for ((row, centre), words) in row.iter().zip(centre).zip(&mut *words) {
            *words = quantiser.part(row, centre);
        }
        if let Some(words) = words.get_mut(row.len()) {
            *words = quantiser.part(&last[0], &last[1]);
        }
        debug_assert!(words_rest.is_empty(), "words come by the register");
        quantiser.finish(row.len() * LANES + rest.len())
    }
}

/// Reduces the lanes to one value, by folding the second half onto the first until one is left.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of `QuantiseRow`")]
fn fold_lanes<T: Copy>(mut lanes: [T; LANES], fold: impl Fn(T, T) -> T) -> T {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = fold(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}

fn padded(rest: &[f32]) -> [f32; LANES] {
    std::array::from_fn(|lane| rest.get(lane).copied().unwrap_or(0.0))
}

/// Turns a row into integers, sixteen at a time.
struct Quantiser {
    most: i32,
    largest: f32,
    step: f32,
    inverse: f32,
    sums: [i32; LANES],
    squares: [i32; LANES],
    lost: [f32; LANES],
}

impl Quantiser {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "part of `QuantiseRow`")]
    fn new(largest: f32, most: i8) -> Self {
        let inverse = if largest > 0.0 { f32::from(most) / largest } else { 0.0 };
        let step = largest / f32::from(most);
        let (sums, squares, lost) = ([0; LANES], [0; LANES], [0.0; LANES]);
        Self { most: i32::from(most), largest, step, inverse, sums, squares, lost }
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "part of `QuantiseRow`")]
    fn part(&mut self, row: &[f32; LANES], centre: &[f32; LANES]) -> [u32; LANES / WORD] {
        let mut bytes = [0_u8; LANES];
        for lane in 0..LANES {
            let centred = row[lane] - centre[lane];
            let shifted = centred * self.inverse + SHIFT;
            let rest = centred - self.step * (shifted - SHIFT);
            // Out of range only where a row overflowed; then `lost` is no number, which rules nothing out. `clamp` could
            // panic, so that the loop would not become vectors.
            let integer = shifted.to_bits().wrapping_sub(SHIFT.to_bits()).cast_signed();
            let integer = integer.max(-self.most).min(self.most);
            bytes[lane] = integer as u8;
            self.sums[lane] += integer;
            self.squares[lane] += integer * integer;
            self.lost[lane] += rest * rest;
        }
        pulp::cast(bytes)
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "part of `QuantiseRow`")]
    fn finish(self, d: usize) -> QuantisedRow {
        let lost = fold_lanes(self.lost, |a, b| a + b).sqrt();
        let norm = self.step * self.step * fold_lanes(self.squares, |a, b| a + b) as f32;
        QuantisedRow {
            sum: fold_lanes(self.sums, |a, b| a + b),
            step: self.step,
            norm: norm - norm * (16.0 * ROUNDING),
            error: 1.001 * lost + 4.0 * ROUNDING * self.largest * (d as f32).sqrt(),
        }
    }
}
