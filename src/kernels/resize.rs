//! Resizing of images and masks.
//!
//! Images are u8 `[h, w, channels]`; masks are u8 `[h, w]`, where nonzero means set. Both are row-major. All sums are
//! integers, so results are the same on every machine and for any number of threads.

mod rows;

pub use rows::{RowMaximum, RowResize};

/// Resizes an image with an antialiased bilinear ("triangle") filter: `resize(…, BILINEAR)` of Pillow and
/// `resize(…, antialias=True)` of torchvision.
///
/// The width is resized first, then the height. Along each axis, a target pixel is the weighted mean of the source
/// pixels within the support of its centre, rounded to 8 bits. The weight decreases linearly to 0 over the support,
/// which is one target pixel when shrinking and one source pixel when enlarging. An axis that keeps its length is
/// copied.
///
/// The result differs from Pillow and torchvision by at most 1 level. It equals that of Pillow if Pillow also resizes
/// the width first: both round weights to 22 bits, but Pillow 13 resizes the height first for some shapes that shrink
/// in height. Cost per channel: `h·to_w·support + to_h·to_w·support`, the first in parallel.
///
/// # Panics
/// If the image is not `[h, w, channels]`, or a side is 0.
pub fn resize(image: &[u8], h: usize, w: usize, channels: usize, to_h: usize, to_w: usize) -> Vec<u8> {
    assert!(h > 0 && w > 0 && channels > 0 && to_h > 0 && to_w > 0, "an image of no size");
    assert_eq!(image.len(), h * w * channels, "the image is not [{h}, {w}, {channels}]");
    let mut rows = RowResize::new((h, w), (to_h, to_w), channels);
    rows.push(image);
    rows.finish()
}

/// Resizes a mask such that no defect vanishes: a target pixel is 1 if any source pixel that it covers, even
/// partially, is nonzero; otherwise 0.
///
/// Target row `i` covers the source rows `⌊i·h/to_h⌋ .. ⌈(i + 1)·h/to_h⌉`; columns likewise, and the same when
/// enlarging. Cost: `h·w + to_h·w`, plus the source pixels covered by more than one target pixel.
///
/// # Panics
/// If the mask is not `[h, w]`, or a side is 0.
pub fn area_maximum(mask: &[u8], h: usize, w: usize, to_h: usize, to_w: usize) -> Vec<u8> {
    assert_mask(mask, h, w, to_h, to_w);
    let mut rows = RowMaximum::new((h, w), (to_h, to_w));
    rows.push(mask);
    rows.finish()
}

/// Resizes a mask as the `ExDD` reference code does: bilinear on levels 0 and 255, then integer division by 255, so
/// that only fully covered pixels stay 1. Thin defects vanish; this exists to reproduce results of that code.
///
/// # Panics
/// If the mask is not `[h, w]`, or a side is 0.
pub fn mask_reference(mask: &[u8], h: usize, w: usize, to_h: usize, to_w: usize) -> Vec<u8> {
    assert_mask(mask, h, w, to_h, to_w);
    let levels: Vec<u8> = mask.iter().map(|&value| if value == 0 { 0 } else { 255 }).collect();
    resize(&levels, h, w, 1, to_h, to_w).into_iter().map(|level| level / 255).collect()
}

/// Returns the fraction of each patch's cell that the mask covers: `[grid_h, grid_w]`, in \[0, 1\].
///
/// Cell `(i, j)` is a rectangle of `h/grid_h × w/grid_w` pixels, whose edges need not lie on pixel edges; a pixel
/// counts with the part that is inside. Integer sums are divided once, so a cell is exactly 1 if and only if it is
/// fully covered. Cost: `h·w`, more if cells are smaller than pixels.
///
/// # Panics
/// If the mask is not `[h, w]`, or a side is 0.
pub fn overlap(mask: &[u8], h: usize, w: usize, grid_h: usize, grid_w: usize) -> Vec<f32> {
    assert_mask(mask, h, w, grid_h, grid_w);
    let columns: Vec<Vec<(usize, u64)>> = (0..grid_w).map(|cell| parts(cell, w, grid_w)).collect();
    let area = (h * w) as f64;
    let mut shares = Vec::with_capacity(grid_h * grid_w);
    for cell in 0..grid_h {
        let rows = parts(cell, h, grid_h);
        shares.extend(columns.iter().map(|columns| {
            let set: u64 = rows
                .iter()
                .map(|&(y, height)| {
                    let inside = columns.iter().filter(|&&(x, _)| mask[y * w + x] != 0);
                    height * inside.map(|&(_, width)| width).sum::<u64>()
                })
                .sum();
            (set as f64 / area) as f32
        }));
    }
    shares
}

/// Returns the pixels that a cell touches along one axis, each with the length that is inside the cell. The unit is
/// `1/cells` of a pixel, so a cell is `length` units long.
fn parts(cell: usize, length: usize, cells: usize) -> Vec<(usize, u64)> {
    let (start, end) = (cell * length, (cell + 1) * length);
    (start / cells..end.div_ceil(cells))
        .map(|pixel| (pixel, (end.min((pixel + 1) * cells) - start.max(pixel * cells)) as u64))
        .collect()
}

fn assert_mask(mask: &[u8], h: usize, w: usize, to_h: usize, to_w: usize) {
    assert!(h > 0 && w > 0 && to_h > 0 && to_w > 0, "a mask of no size");
    assert_eq!(mask.len(), h * w, "the mask is not [{h}, {w}]");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::golden_file;
    use crate::kernels::random::Rng;

    /// Expected results of resizing, written by `tests/golden/kernels.py`. The first line of the file names the
    /// library versions.
    const GOLDEN: &str = include_str!("../../tests/golden/resize.txt");

    fn golden(name: &str) -> Vec<u8> {
        golden_file::line(GOLDEN, name)
    }

    fn hashed(count: u32) -> Vec<u8> {
        (0..count).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    fn random_mask(rng: &mut Rng, count: usize) -> Vec<u8> {
        (0..count).map(|_| if rng.below(5) == 0 { 255 } else { 0 }).collect()
    }

    #[test]
    fn images_resize_as_in_pillow_and_torchvision() {
        let image = hashed(13 * 11 * 3);
        for (name, h, w) in
            [("down", 5, 4), ("up", 20, 23), ("mixed", 7, 30), ("half", 7, 6), ("rows", 4, 11)]
        {
            let found = resize(&image, 13, 11, 3, h, w);
            let pillow = golden(&format!("pillow_{name}"));
            assert!(found == pillow || name == "mixed", "{name}: Pillow takes rows first in `mixed` alone");
            for library in [pillow, golden(&format!("torch_{name}"))] {
                assert!(found.iter().zip(&library).all(|(a, b)| a.abs_diff(*b) <= 1), "{name}");
            }
        }
        assert_eq!(resize(&image, 13, 11, 3, 13, 11), image);
    }

    #[test]
    fn a_flat_image_stays_flat() {
        for side in 1..=20 {
            assert_eq!(resize(&[200; 7 * 9], 7, 9, 1, side, 21 - side), vec![200; side * (21 - side)]);
        }
    }

    #[test]
    fn the_reference_mask_is_pillows_cut_to_whole_numbers() {
        let mask: Vec<u8> = hashed(20 * 16).iter().map(|&value| u8::from(value > 60)).collect();
        assert_eq!(mask_reference(&mask, 20, 16, 10, 8), golden("mask"));
        let mut crack = vec![0; 20 * 20];
        crack[7 * 20..8 * 20].fill(1);
        assert_eq!(mask_reference(&crack, 20, 20, 10, 10), [0; 100], "thin defects vanish there");
    }

    /// Whether source pixel `x` and target pixel `i` overlap, by comparing fractions.
    fn touches(x: usize, from: usize, i: usize, to: usize) -> bool {
        x * to < (i + 1) * from && i * from < (x + 1) * to
    }

    #[test]
    fn the_area_maximum_sees_every_pixel_it_touches() {
        let mut rng = Rng::new(1, "resize");
        for from in 1..=20 {
            for to in 1..=20 {
                let (h, w, to_h, to_w) = (from, 21 - from, to, 7);
                let mask = random_mask(&mut rng, h * w);
                let found = area_maximum(&mask, h, w, to_h, to_w);
                for (index, &pixel) in found.iter().enumerate() {
                    let is_set = (0..h * w).any(|source| {
                        mask[source] != 0
                            && touches(source / w, h, index / to_w, to_h)
                            && touches(source % w, w, index % to_w, to_w)
                    });
                    assert_eq!(pixel, u8::from(is_set), "{h}×{w} to {to_h}×{to_w}, pixel {index}");
                }
            }
        }
    }

    #[test]
    fn shares_add_up_to_the_masks_area() {
        let mut rng = Rng::new(2, "resize");
        for h in 1..=20 {
            for grid in 1..=12 {
                let w = 21 - h;
                let mask = random_mask(&mut rng, h * w);
                let shares = overlap(&mask, h, w, grid, 5);
                let cell = (h * w) as f64 / (grid * 5) as f64;
                let covered: f64 = shares.iter().map(|&share| f64::from(share) * cell).sum();
                let set = mask.iter().filter(|&&value| value != 0).count() as f64;
                assert!((covered - set).abs() < 1e-4, "{h}×{w} on {grid}×5: {covered} {set}");
                assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
            }
        }
    }

    #[test]
    fn shares_are_exact() {
        assert_eq!(overlap(&[1, 0, 0], 1, 3, 1, 2), [2.0 / 3.0, 0.0]);
        assert_eq!(overlap(&[0, 1, 0], 1, 3, 1, 2), [1.0 / 3.0, 1.0 / 3.0]);
        assert_eq!(overlap(&[1; 35], 5, 7, 3, 4), [1.0; 12]);
        assert_eq!(overlap(&[1, 0], 2, 1, 4, 1), [1.0, 1.0, 0.0, 0.0]);
    }
}
