//! Connected components of a binary mask.
//!
//! The metrics (one weight per defect region) and the preprocessing (one crop per region) use the same definition of
//! a region: an 8-connected component.

/// An 8-connected component of a mask, with its bounding box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Row-major indices of the pixels, ascending.
    pub pixels: Vec<u32>,
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Last row plus 1.
    pub bottom: usize,
    /// Last column plus 1.
    pub right: usize,
}

/// Finds the 8-connected components of a mask.
///
/// - `mask: [height, width]`, row-major; nonzero values are set.
/// - Order: by the first pixel of each component in raster order.
/// - Cost: O(height · width), and O(k log k) for each component of k pixels.
/// - Memory: one byte per pixel (nothing for an empty mask), 4 bytes per set pixel for the result, and 8 bytes per
///   pixel of the largest component for the stack, since a pixel is pushed at most once.
///
/// # Panics
/// If the mask's length is not `height * width`, or does not fit into a `u32`.
#[must_use]
pub fn components(mask: &[u8], height: usize, width: usize) -> Vec<Component> {
    assert_eq!(mask.len(), height * width, "mask of {} pixels for {height}×{width}", mask.len());
    assert!(u32::try_from(mask.len()).is_ok(), "mask of {height}×{width} pixels is too large");
    let Some(first) = mask.iter().position(|&value| value != 0) else {
        return Vec::new();
    };
    let mut waiting: Vec<bool> = mask.iter().map(|&value| value != 0).collect();
    let mut found = Vec::new();
    for start in first..mask.len() {
        if waiting[start] {
            found.push(flood(&mut waiting, height, width, start));
        }
    }
    found
}

/// Returns the component of the pixel `start` and clears its pixels in `waiting` (flood fill).
fn flood(waiting: &mut [bool], height: usize, width: usize, start: usize) -> Component {
    let (row, column) = (start / width, start % width);
    let mut component =
        Component { pixels: Vec::new(), top: row, left: column, bottom: row + 1, right: column + 1 };
    let mut stack = vec![start];
    waiting[start] = false;
    while let Some(pixel) = stack.pop() {
        let (row, column) = (pixel / width, pixel % width);
        component.pixels.push(pixel as u32);
        component.left = component.left.min(column);
        component.right = component.right.max(column + 1);
        component.bottom = component.bottom.max(row + 1);
        for near_row in row.saturating_sub(1)..height.min(row + 2) {
            for near_column in column.saturating_sub(1)..width.min(column + 2) {
                let near = near_row * width + near_column;
                if std::mem::take(&mut waiting[near]) {
                    stack.push(near);
                }
            }
        }
    }
    component.pixels.sort_unstable();
    component
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Rng;

    /// Spreads the smallest index of each component until nothing changes.
    fn naive(mask: &[u8], height: usize, width: usize) -> Vec<Vec<u32>> {
        let mut label: Vec<usize> = (0..mask.len()).collect();
        let touches =
            |a: usize, b: usize| (a / width).abs_diff(b / width) <= 1 && (a % width).abs_diff(b % width) <= 1;
        let mut changed = true;
        while changed {
            changed = false;
            for a in 0..height * width {
                for b in 0..height * width {
                    if mask[a] != 0 && mask[b] != 0 && touches(a, b) && label[a] < label[b] {
                        label[b] = label[a];
                        changed = true;
                    }
                }
            }
        }
        let members = |root: usize| (0..mask.len()).filter(move |&i| mask[i] != 0).map(move |i| (root, i));
        (0..mask.len())
            .map(|root| members(root).filter(|&(r, i)| label[i] == r).map(|(_, i)| i as u32).collect())
            .filter(|pixels: &Vec<u32>| !pixels.is_empty())
            .collect()
    }

    #[test]
    fn components_agree_with_the_naive_search() {
        let mut rng = Rng::new(1, "components");
        for size in 1..=12 {
            for share in [0.2, 0.4, 0.6] {
                let (height, width) = (size, 1 + rng.below(12));
                let mask: Vec<u8> =
                    (0..height * width).map(|_| u8::from(rng.uniform() < share) * 128).collect();
                let found: Vec<_> =
                    components(&mask, height, width).into_iter().map(|one| one.pixels).collect();
                assert_eq!(found, naive(&mask, height, width), "{height}×{width} {mask:?}");
            }
        }
    }

    #[test]
    fn diagonal_neighbours_are_connected_and_boxes_enclose() {
        let mask = [
            0, 0, 1, 0, 0, //
            0, 1, 0, 0, 9, //
            1, 0, 0, 0, 9,
        ];
        let found = components(&mask, 3, 5);
        assert_eq!(
            found,
            [
                Component { pixels: vec![2, 6, 10], top: 0, left: 0, bottom: 3, right: 3 },
                Component { pixels: vec![9, 14], top: 1, left: 4, bottom: 3, right: 5 },
            ]
        );
    }

    #[test]
    fn rows_do_not_wrap_around() {
        assert_eq!(components(&[0, 0, 1, 1, 0, 0], 2, 3).len(), 2);
    }

    #[test]
    fn an_empty_mask_has_no_components() {
        assert!(components(&[0; 6], 2, 3).is_empty());
        assert!(components(&[], 0, 3).is_empty());
    }

    #[test]
    #[should_panic(expected = "mask of 5 pixels for 2×3")]
    fn a_wrong_shape_panics() {
        let _ = components(&[0; 5], 2, 3);
    }
}
