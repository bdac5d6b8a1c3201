//! Rotates, scales, mirrors and positions a training mask before a defect is generated inside it.

use serde::{Deserialize, Serialize};

use super::super::fields::{Fields, Reader};
use crate::kernels::cutpaste::{DefectPatch, DefectTransform, TransformedDefect};
use crate::kernels::random::Rng;

/// Number of random transforms that are tried before a defect is used without a transform.
const DRAWS: usize = 8;

/// The range of random transforms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Motions {
    /// Greatest rotation in either direction, in degrees. Li et al. rotate their scars by up to 45.
    pub rotation: f64,
    /// The size is multiplied by a random factor between `1 / (1 + scale)` and `1 + scale`.
    pub scale: f64,
    /// Whether defects are mirrored with probability 1/2.
    pub flip: bool,
    /// Least number of pixels of a component. Smaller components are ignored.
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

    /// Draws a transform whose result is not empty and fits into `height × width` px; after [`DRAWS`] misses returns
    /// the identity. The contrast is drawn from `1 ± colour`.
    pub(super) fn draw(
        &self,
        rng: &mut Rng,
        patch: &DefectPatch,
        colour: f64,
        (height, width): (usize, usize),
    ) -> (DefectTransform, TransformedDefect) {
        for _ in 0..DRAWS {
            let size = rng.between(-1.0, 1.0);
            let factor = 1.0 + self.scale * size.abs();
            let motion = DefectTransform {
                angle: rng.between(-self.rotation, self.rotation),
                scale: if size < 0.0 { 1.0 / factor } else { factor },
                flip: rng.below(2) == 1 && self.flip,
                contrast: rng.between(1.0 - colour, 1.0 + colour),
            };
            let moved = patch.transformed(&motion);
            if moved
                .extent()
                .is_some_and(|(top, left, bottom, right)| bottom - top <= height && right - left <= width)
            {
                return (motion, moved);
            }
        }
        let identity = DefectTransform { angle: 0.0, scale: 1.0, flip: false, contrast: 1.0 };
        (identity, patch.transformed(&identity))
    }
}

/// Draws the position (top, left) of a transformed defect so that all marked pixels are inside the image. A defect
/// larger than the image starts at its edge.
pub(super) fn position(
    rng: &mut Rng,
    moved: &TransformedDefect,
    (height, width): (usize, usize),
) -> (isize, isize) {
    let (top, left, bottom, right) = moved.extent().expect("a defect without a transform keeps its pixels");
    let mut offset = |first: usize, length: usize, side: usize| {
        rng.below(side.saturating_sub(length) + 1) as isize - first as isize
    };
    (offset(top, bottom - top, height), offset(left, right - left, width))
}
