//! Crops the defects of an image, one crop per component.

use image::{GrayImage, RgbImage, imageops};

use super::spec::Crops;
use crate::kernels::components::components;
use crate::kernels::resize::{area_maximum, resize};

/// Returns a crop of each 8-connected component, in raster order of their first pixels.
///
/// The box of a crop is the bounding box of the component, padded, grown evenly to the least side and moved into the
/// image. The mask of a crop holds everything that is marked within the box. `image` and `mask` have the same size.
pub(super) fn cut(image: &RgbImage, mask: &GrayImage, how: &Crops) -> Vec<(RgbImage, GrayImage)> {
    let (height, width) = (mask.height() as usize, mask.width() as usize);
    components(mask.as_raw(), height, width)
        .iter()
        .map(|component| {
            let (top, bottom) = span(component.top, component.bottom, height, how);
            let (left, right) = span(component.left, component.right, width, how);
            let (x, y, w, h) = (left as u32, top as u32, (right - left) as u32, (bottom - top) as u32);
            let crop = imageops::crop_imm(image, x, y, w, h).to_image();
            let marks = imageops::crop_imm(mask, x, y, w, h).to_image();
            if how.size == 0 { (crop, marks) } else { stretch(&crop, &marks, how.size) }
        })
        .collect()
}

/// Returns start and end of one side of the box: padded, grown to the least length, moved and cut to fit into
/// `0..length`.
fn span(start: usize, end: usize, length: usize, how: &Crops) -> (usize, usize) {
    let (start, end) = (start.saturating_sub(how.padding), (end + how.padding).min(length));
    let wanted = how.min_side.min(length);
    let missing = wanted.saturating_sub(end - start);
    let start = start.saturating_sub(missing / 2).min(length - wanted.max(end - start));
    (start, end.max(start + wanted))
}

fn stretch(crop: &RgbImage, marks: &GrayImage, side: usize) -> (RgbImage, GrayImage) {
    let (h, w) = (crop.height() as usize, crop.width() as usize);
    let pixels = resize(crop.as_raw(), h, w, 3, side, side);
    let mut mask = area_maximum(marks.as_raw(), h, w, side, side);
    for value in &mut mask {
        *value = if *value == 0 { 0 } else { 255 };
    }
    let side = side as u32;
    (
        RgbImage::from_raw(side, side, pixels).expect("three levels per pixel"),
        GrayImage::from_raw(side, side, mask).expect("one level per pixel"),
    )
}

#[cfg(test)]
mod tests {
    use image::{Luma, Rgb};

    use super::*;

    fn marked(points: &[(u32, u32)]) -> (RgbImage, GrayImage) {
        let mut mask = GrayImage::new(20, 12);
        for &(x, y) in points {
            mask.put_pixel(x, y, Luma([255]));
        }
        (RgbImage::from_fn(20, 12, |x, y| Rgb([x as u8, y as u8, 0])), mask)
    }

    #[test]
    fn every_component_has_its_own_crop() {
        let (image, mask) = marked(&[(3, 3), (4, 4), (10, 3), (0, 11)]);
        let crops = cut(&image, &mask, &Crops { padding: 1, size: 0, min_side: 1 });
        assert_eq!(crops.len(), 3);
        let sizes: Vec<(u32, u32)> = crops.iter().map(|(crop, _)| crop.dimensions()).collect();
        assert_eq!(sizes, [(4, 4), (3, 3), (2, 2)], "the last is in a corner");
        assert_eq!(crops[0].0.get_pixel(0, 0).0, [2, 2, 0]);
        assert_eq!(crops[0].1.iter().map(|&value| usize::from(value == 255)).sum::<usize>(), 2);
    }

    #[test]
    fn a_stretched_crop_keeps_its_defect() {
        let (image, mask) = marked(&[(3, 3)]);
        let crops = cut(&image, &mask, &Crops { padding: 9, size: 2, min_side: 1 });
        assert_eq!(crops[0].0.dimensions(), (2, 2));
        assert!(crops[0].1.contains(&255));
    }

    #[test]
    fn boxes_grow_to_the_least_side_and_stay_inside() {
        for length in 1..=20 {
            for start in 0..length {
                for min_side in 1..=22 {
                    let how = Crops { padding: 1, size: 0, min_side };
                    let (from, to) = span(start, start + 1, length, &how);
                    assert!(from <= start.saturating_sub(1) || from == 0);
                    assert!(to > start && to <= length, "{from}..{to} of {length}");
                    assert!(to - from >= min_side.min(length));
                    assert!(to - from <= min_side.max(3));
                }
            }
        }
    }
}
