//! Geometry of the hole, and blending of generated pixels into the image.

/// Marks every pixel within `margin` px of a marked one (Euclidean distance of the centres): `[height, width]`.
///
/// # Panics
/// If the mask is not `[height, width]`.
pub fn dilate(mask: &[bool], width: usize, margin: usize) -> Vec<bool> {
    let height = rows(mask.len(), width);
    let mut hole = vec![false; mask.len()];
    each_near(mask, width, height, margin, |index, squared| {
        if squared <= margin * margin {
            hole[index] = true;
        }
    });
    hole
}

/// Returns the opacity of each generated pixel: 1 on the mask, decreasing linearly to 0 at `border + 1` px from it.
///
/// # Panics
/// If the mask is not `[height, width]`.
pub fn feather(mask: &[bool], width: usize, border: usize) -> Vec<f32> {
    let height = rows(mask.len(), width);
    let mut alpha = vec![0.0_f32; mask.len()];
    each_near(mask, width, height, border, |index, squared| {
        alpha[index] = alpha[index].max(1.0 - (squared as f32).sqrt() / (border + 1) as f32);
    });
    alpha
}

/// Blends `above` into `below`: `(1 - alpha) · below + alpha · above`, rounded to 8 bits. `below` is `[h, w, 3]` with
/// levels 0 to 255, `above` is `[3, h, w]` with values in \[-1, 1\], `alpha` is `[h, w]`.
///
/// # Panics
/// If the shapes do not agree.
pub fn blend(below: &mut [u8], above: &[f32], alpha: &[f32]) {
    let count = alpha.len();
    assert!(below.len() == 3 * count && above.len() == 3 * count, "three channels for each of {count} px");
    for (index, &alpha) in alpha.iter().enumerate() {
        for channel in 0..3 {
            let level = &mut below[index * 3 + channel];
            let painted = (above[channel * count + index] + 1.0) * 127.5;
            let old = f32::from(*level);
            *level = (old + alpha * (painted - old) + 0.5).clamp(0.0, 255.0) as u8;
        }
    }
}

fn rows(len: usize, width: usize) -> usize {
    assert!(width > 0 && len.is_multiple_of(width), "{len} px in rows of {width}");
    len / width
}

/// Calls `visit(pixel, squared distance)` for every pixel in the square of side `2·margin + 1` around each marked one.
fn each_near(mask: &[bool], width: usize, height: usize, margin: usize, mut visit: impl FnMut(usize, usize)) {
    for index in (0..mask.len()).filter(|&index| mask[index]) {
        let (row, column) = (index / width, index % width);
        for near_row in row.saturating_sub(margin)..(row + margin + 1).min(height) {
            for near_column in column.saturating_sub(margin)..(column + margin + 1).min(width) {
                let squared = row.abs_diff(near_row).pow(2) + column.abs_diff(near_column).pow(2);
                visit(near_row * width + near_column, squared);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot() -> Vec<bool> {
        (0..35).map(|index| index == 2 * 7 + 3).collect()
    }

    #[test]
    fn a_hole_is_a_disc_around_each_marked_pixel() {
        let near = |margin: usize| dilate(&dot(), 7, margin).iter().filter(|&&is_hole| is_hole).count();
        assert_eq!((near(0), near(1), near(2)), (1, 5, 13));
        assert_eq!(near(9), 35, "it ends at the edge");
    }

    #[test]
    fn a_border_falls_off_and_what_is_outside_stays() {
        let alpha = feather(&dot(), 7, 1);
        assert_eq!((alpha[17], alpha[16], alpha[15]), (1.0, 0.5, 0.0));
        let mut below = vec![100; 35 * 3];
        blend(&mut below, &vec![1.0; 35 * 3], &alpha);
        assert_eq!((below[17 * 3], below[16 * 3 + 1], below[15 * 3]), (255, 178, 100));
    }
}
