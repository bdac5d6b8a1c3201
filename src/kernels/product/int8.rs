//! Inner products of int8 rows, compared with limits on the way: a sixteenth of the memory of f32 and a part of its work,
//! and exact, since they are sums of integers.
//!
//! The instructions multiply an unsigned byte (the rows on the right, stored with an offset added) with a signed one (the
//! left operand). What the offset adds to a sum, `offset·Σ_c left_c`, is subtracted beforehand: sums start at
//! `-offset·Σ_c left_c`. How large the integers may be depends on the instructions: [`Int8Simd::range`].

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod vnni;

/// Rows on the right that are compared together, a tile: two registers of AVX-512, four of AVX2.
pub(crate) const TILE: usize = 32;

/// Bytes in a word. A vector instruction multiplies whole words.
pub(crate) const WORD: usize = 4;

/// Most bytes of a row for which no 32-bit sum overflows: `d·255·127 < 2^31`.
pub(crate) const LONGEST: usize = 65_536;

/// The instructions that multiply int8 rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Int8Simd {
    /// VNNI with the vectors of AVX-512: by the count of instructions, eight times the products of f32 with AVX2.
    Vnni,
    /// AVX2 without VNNI: by the count of instructions, 2.4 times the products of f32.
    Avx2,
}

/// The integers that rows are quantised to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Int8Range {
    /// Largest absolute value on the left.
    pub(crate) left: i8,
    /// Largest absolute value on the right.
    pub(crate) right: i8,
    /// What is added to integers on the right, so that they are not negative.
    pub(crate) offset: u8,
}

impl Int8Simd {
    /// Returns the fastest instructions of this processor; `None` if products in f32 are faster.
    pub(crate) fn fastest() -> Option<Self> {
        [Self::Vnni, Self::Avx2].into_iter().find(|simd| simd.is_available())
    }

    /// Returns the name that people know the instructions by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vnni => "vnni",
            Self::Avx2 => "avx2",
        }
    }

    /// Returns whether this processor has the instructions.
    pub(crate) fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Vnni => false,
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 => false,
        }
    }

    /// Returns the integers whose products the instructions sum exactly. AVX2 adds four products in 16 bits (`avx2`).
    pub(crate) fn range(self) -> Int8Range {
        match self {
            Self::Vnni => Int8Range { left: 127, right: 127, offset: 128 },
            Self::Avx2 => Int8Range { left: 64, right: 63, offset: 64 },
        }
    }
}

/// A left row, except its bytes.
#[derive(Clone, Copy)]
pub(crate) struct LeftRow {
    /// Start of its sums: `-offset·Σ_c left_c`.
    pub(crate) start: i32,
    /// Factor that its products are multiplied by.
    pub(crate) factor: f32,
    /// Limit that the row's values are compared with.
    pub(crate) limit: f32,
}

/// Thirty-two rows of the right operand.
pub(crate) struct Tile {
    /// For each word of a row: that word of all rows.
    pub(crate) words: Vec<[u32; TILE]>,
    /// Factor of each row's products.
    pub(crate) scale: [f32; TILE],
    /// Term from which each row's products are subtracted.
    pub(crate) norm: [f32; TILE],
}

impl Tile {
    /// Returns a tile for rows of this many words. Its rows are not within any limit, until they are set.
    pub(crate) fn new(words: usize) -> Self {
        Self { words: vec![[0; TILE]; words], scale: [0.0; TILE], norm: [f32::INFINITY; TILE] }
    }
}

/// The value that is compared with the limit: `norm - factor·(scale·product)`, the last two operations fused.
fn value(left: &LeftRow, tile: &Tile, lane: usize, product: i32) -> f32 {
    (-left.factor).mul_add(tile.scale[lane] * product as f32, tile.norm[lane])
}

/// Scalar version of [`super::int8_masks`]. Writes the same bits.
pub(super) fn plain(lefts: &[LeftRow], words: &[u32], tile: &Tile, masks: &mut [u32]) {
    for ((left, words), mask) in lefts.iter().zip(words.chunks_exact(tile.words.len())).zip(masks) {
        let mut values = [0.0; TILE];
        plain_values(left, words, tile, &mut values);
        let is_within =
            |lane: &usize| values[*lane] <= left.limit || values[*lane].is_nan() || left.limit.is_nan();
        *mask = (0..TILE).filter(is_within).fold(0, |mask, lane| mask | 1 << lane);
    }
}

/// Scalar version of [`super::int8_values`]. Writes the same bits.
pub(super) fn plain_values(left: &LeftRow, words: &[u32], tile: &Tile, out: &mut [f32; TILE]) {
    let mut sums = [left.start; TILE];
    for (&word, others) in words.iter().zip(&tile.words) {
        for (sum, other) in sums.iter_mut().zip(others) {
            let pairs = word.to_le_bytes().into_iter().zip(other.to_le_bytes());
            *sum += pairs.map(|(a, b)| i32::from(a.cast_signed()) * i32::from(b)).sum::<i32>();
        }
    }
    for (lane, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
        *out = value(left, tile, lane, sum);
    }
}
