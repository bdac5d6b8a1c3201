//! How a training mask is turned, scaled, mirrored and placed before a defect is made under it.

use serde::{Deserialize, Serialize};

use super::super::fields::{Fields, Reader};
use crate::kernels::cutpaste::{DefectPatch, DefectTransform, TransformedDefect};
use crate::kernels::random::Rng;

/// Draws of a motion before a defect is used unturned and unscaled.
const DRAWS: usize = 8;

/// How far masks are moved.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Motions {
    /// Greatest turn to either side, in degrees. Li et al. turn their scars by up to 45.
    pub rotation: f64,
    /// Sizes vary by factors from `1 / (1 + scale)` to `1 + scale`.
    pub scale: f64,
    /// Whether half of the defects are mirrored.
    pub flip: bool,
    /// Components with fewer pixels are left out.
    pub min_area: usize,
}

impl Motions {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            rotation: reader.float("rotation", 0.0..=180.0, Some(45.0)),
            scale: reader.float("scale", 0.0..=4.0, Some(0.25)),
            flip: reader.boolean("flip", true),
            min_area: reader.integer("min_area", 1..=1_000_000, Some(4)) as usize,
        }
    }

    pub(super) fn add_fields(&self, all: &mut Fields) {
        let Self { rotation, scale, flip, min_area } = self;
        all.insert("rotation".to_owned(), (*rotation).into());
        all.insert("scale".to_owned(), (*scale).into());
        all.insert("flip".to_owned(), (*flip).into());
        all.insert("min_area".to_owned(), (*min_area).into());
    }

    /// Draws a motion after which the defect is still there and fits into `height × width` px; `colour` is how
    /// far contrasts vary.
    pub(super) fn draw(
        &self,
        stream: &mut Rng,
        patch: &DefectPatch,
        colour: f64,
        (height, width): (usize, usize),
    ) -> (DefectTransform, TransformedDefect) {
        for _ in 0..DRAWS {
            let size = stream.between(-1.0, 1.0);
            let factor = 1.0 + self.scale * size.abs();
            let motion = DefectTransform {
                angle: stream.between(-self.rotation, self.rotation),
                scale: if size < 0.0 { 1.0 / factor } else { factor },
                flip: stream.below(2) == 1 && self.flip,
                contrast: stream.between(1.0 - colour, 1.0 + colour),
            };
            let moved = patch.transformed(&motion);
            if moved
                .extent()
                .is_some_and(|(top, left, bottom, right)| bottom - top <= height && right - left <= width)
            {
                return (motion, moved);
            }
        }
        let still = DefectTransform { angle: 0.0, scale: 1.0, flip: false, contrast: 1.0 };
        (still, patch.transformed(&still))
    }
}

/// Draws where a moved defect's corner comes to lie, so that all that is marked lies within the image; a
/// defect larger than the image begins at its edge.
pub(super) fn position(
    stream: &mut Rng,
    moved: &TransformedDefect,
    (height, width): (usize, usize),
) -> (isize, isize) {
    let (top, left, bottom, right) = moved.extent().expect("an unmoved defect keeps its pixels");
    let mut place = |first: usize, length: usize, side: usize| {
        stream.below(side.saturating_sub(length) + 1) as isize - first as isize
    };
    (place(top, bottom - top, height), place(left, right - left, width))
}
