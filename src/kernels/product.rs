//! Inner products of all pairs of rows: the one place that calls the matrix product.
//!
//! The `gemm` crate takes raw pointers, so this file is also the only unsafe one of the kernels. Its
//! results depend on the instruction set of the machine (order of sums, fused operations): they serve
//! as a filter with an error margin, or where the last bit is not promised. Where it is, `panel` sums in one order.
//! Products of int8 rows, in `int8`, are exact; the call of their vector form, which the compiler cannot know to be
//! allowed, is here too.
#![expect(unsafe_code, reason = "the gemm crate's only entry point takes raw pointers")]

pub(crate) mod int8;
pub(crate) mod panel;
pub(crate) mod tile;

use int8::{Int8Simd, LeftRow, TILE, Tile};

/// Writes `out[i, j] = Σ_c left[i, c] · right[j, c]` on the calling thread alone.
///
/// `left: [n, d]`, `right: [m, d]`, `out: [n, m]`, all row-major. For equal shapes and data on one
/// machine the bytes are the same. The error of each product is at most `d·u·‖left_i‖·‖right_j‖`
/// to first order, `u = 2^-24`, in whatever order the sums run. Cost `2·n·m·d` operations.
///
/// # Panics
/// If a length is no multiple of `d`, or `out` does not have `n·m` elements.
pub(crate) fn inner_products(left: &[f32], right: &[f32], d: usize, out: &mut [f32]) {
    assert!(d > 0 && left.len().is_multiple_of(d) && right.len().is_multiple_of(d), "rows are not [.., {d}]");
    let (n, m) = (left.len() / d, right.len() / d);
    assert_eq!(out.len(), n * m, "the product of {n} and {m} rows has another size");
    if n == 0 || m == 0 {
        return;
    }
    // SAFETY: the three slices are alive for the call, `out` is borrowed mutably and so overlaps
    // neither of the others; the strides below stay inside them: row i of `left` starts at i·d < n·d,
    // column j of the transposed `right` at j·d < m·d, row i of `out` at i·m < n·m (asserted above).
    // `read_dst` is false, so `out` is written before it is read.
    unsafe {
        gemm::gemm(
            n,
            m,
            d,
            out.as_mut_ptr(),
            1,
            m as isize,
            false,
            left.as_ptr(),
            1,
            d as isize,
            right.as_ptr(),
            d as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Writes, for each row on the left, which rows of a tile have a value at most its limit: bit `j` of
/// `masks[i]` for `norm_j - factor_i·(scale_j·p_ij) <= limit_i`, or where one of the two is NaN.
///
/// `p_ij = Σ_c left_ic·right_jc` is exact, for integers in the range of `simd`. `words: [n, w]` are the rows on the left,
/// four signed bytes a word; the tile holds its rows' bytes with the offset added. The bits do not depend on `simd`.
/// Instructions that the processor lacks are replaced by loops. Cost `2·n·32·4w` operations.
///
/// # Panics
/// If the lengths differ, or rows are longer than [`int8::LONGEST`].
pub(crate) fn int8_masks(simd: Int8Simd, lefts: &[LeftRow], words: &[u32], tile: &Tile, masks: &mut [u32]) {
    let width = tile.words.len();
    assert!(width > 0 && width * int8::WORD <= int8::LONGEST, "rows of {width} words");
    assert_eq!((words.len(), masks.len()), (lefts.len() * width, lefts.len()), "rows of other lengths");
    match simd {
        // SAFETY: the processor has the features that the function is compiled for, as was just checked.
        #[cfg(target_arch = "x86_64")]
        Int8Simd::Vnni if simd.is_available() => unsafe { int8::vnni::vectors(lefts, words, tile, masks) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Int8Simd::Avx2 if simd.is_available() => unsafe { int8::avx2::vectors(lefts, words, tile, masks) },
        _ => int8::plain(lefts, words, tile, masks),
    }
}

/// Writes the values that [`int8_masks`] compares, of one row on the left with the rows of a tile.
///
/// # Panics
/// If the lengths differ, or rows are longer than [`int8::LONGEST`].
pub(crate) fn int8_values(simd: Int8Simd, left: &LeftRow, words: &[u32], tile: &Tile, out: &mut [f32; TILE]) {
    let width = tile.words.len();
    assert!(width > 0 && width * int8::WORD <= int8::LONGEST, "rows of {width} words");
    assert_eq!(words.len(), width, "rows of other lengths");
    match simd {
        // SAFETY: the processor has the features that the function is compiled for, as was just checked.
        #[cfg(target_arch = "x86_64")]
        Int8Simd::Vnni if simd.is_available() => unsafe { int8::vnni::values(left, words, tile, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Int8Simd::Avx2 if simd.is_available() => unsafe { int8::avx2::values(left, words, tile, out) },
        _ => int8::plain_values(left, words, tile, out),
    }
}

#[cfg(test)]
mod tests {
    use super::int8::Int8Range;
    use super::*;
    use crate::kernels::random::Rng;

    #[test]
    fn products_are_those_of_plain_loops() {
        let mut stream = Rng::new(1, "product");
        for (n, m, d) in [(1, 1, 1), (1, 7, 3), (5, 1, 20), (13, 17, 40), (33, 65, 129)] {
            let left: Vec<f32> = (0..n * d).map(|_| stream.normal() as f32).collect();
            let right: Vec<f32> = (0..m * d).map(|_| stream.normal() as f32).collect();
            let mut out = vec![f32::NAN; n * m];
            inner_products(&left, &right, d, &mut out);
            for (index, &product) in out.iter().enumerate() {
                let (i, j) = (index / m, index % m);
                let plain: f32 = (0..d).map(|c| left[i * d + c] * right[j * d + c]).sum();
                assert!((product - plain).abs() < 1e-4, "{n} {m} {d}: {product} {plain}");
            }
        }
    }

    /// Words of bytes from `least` to `largest`, the two themselves more often than others.
    fn words(stream: &mut Rng, count: usize, least: i32, largest: i32) -> Vec<u32> {
        let mut byte = || match stream.below(4) {
            0 => least as u8,
            1 => largest as u8,
            _ => (least + stream.below((largest - least + 1) as usize) as i32) as u8,
        };
        (0..count).map(|_| u32::from_le_bytes(std::array::from_fn(|_| byte()))).collect()
    }

    #[test]
    fn int8_products_are_those_of_plain_loops() {
        let mut stream = Rng::new(2, "product");
        for simd in [Int8Simd::Vnni, Int8Simd::Avx2] {
            let Int8Range { left, right, offset } = simd.range();
            let (left, right, offset) = (i32::from(left), i32::from(right), i32::from(offset));
            for (n, width) in [(1, 1), (2, 2), (8, 3), (13, 32), (100, 9)] {
                let left_words = words(&mut stream, n * width, -left, left);
                let mut tile = Tile::new(width);
                let right_words = words(&mut stream, width * TILE, offset - right, offset + right);
                tile.words.iter_mut().flatten().zip(right_words).for_each(|(to, word)| *to = word);
                tile.scale.iter_mut().for_each(|scale| *scale = stream.uniform() as f32);
                tile.norm.iter_mut().for_each(|norm| *norm = 30_000.0 * stream.normal() as f32);
                tile.norm[5] = f32::NAN;
                let left = |row: &[u32]| {
                    let bytes = row.iter().flat_map(|word| word.to_le_bytes());
                    let sum: i32 = bytes.map(|byte| i32::from(byte.cast_signed())).sum();
                    LeftRow { start: -offset * sum, factor: stream.uniform() as f32, limit: 1000.0 }
                };
                let lefts: Vec<LeftRow> = left_words.chunks(width).map(left).collect();
                let (mut found, mut plain) = (vec![0; n], vec![0; n]);
                int8_masks(simd, &lefts, &left_words, &tile, &mut found);
                int8::plain(&lefts, &left_words, &tile, &mut plain);
                assert_eq!(found, plain, "{simd:?} {n} {width}");
                assert!(found.iter().all(|mask| mask >> 5 & 1 == 1));
                let (mut values, mut plain) = ([0.0; TILE], [0.0; TILE]);
                int8_values(simd, &lefts[0], &left_words[..width], &tile, &mut values);
                int8::plain_values(&lefts[0], &left_words[..width], &tile, &mut plain);
                // One is NaN.
                let bits = |value: f32| (!value.is_nan()).then_some(value.to_bits());
                assert_eq!(values.map(bits), plain.map(bits), "{simd:?} {width}");
            }
        }
    }

    /// Every byte as large as the range allows, with equal signs: a sum that saturated would be too small.
    #[test]
    fn the_largest_int8_products_are_exact() {
        for simd in [Int8Simd::Vnni, Int8Simd::Avx2] {
            let Int8Range { left, right, offset } = simd.range();
            for sign in [1, -1] {
                let byte = sign * i32::from(left);
                let width = 7;
                let words = vec![u32::from_le_bytes([byte as u8; 4]); width];
                let mut tile = Tile::new(width);
                tile.words.fill([u32::from_le_bytes([offset + right.cast_unsigned(); 4]); TILE]);
                (tile.scale, tile.norm) = ([1.0; TILE], [0.0; TILE]);
                let start = -i32::from(offset) * byte * 4 * width as i32;
                let product = (byte * i32::from(right) * 4 * width as i32) as f32;
                for (limit, expected) in [(-product, u32::MAX), ((-product).next_down(), 0)] {
                    let mut masks = [7];
                    let left = LeftRow { start, factor: 1.0, limit };
                    int8_masks(simd, &[left], &words, &tile, &mut masks);
                    assert_eq!(masks, [expected], "{simd:?} {sign} {limit}");
                }
            }
        }
    }

    #[test]
    fn no_rows_give_no_products() {
        inner_products(&[], &[1.0, 2.0], 2, &mut []);
        inner_products(&[1.0, 2.0], &[], 2, &mut []);
    }
}
