//! Paints the hole of a patch: DDIM from pure noise, with the rest of the patch known at every step.

use super::schedule::{Ddim, KnownRegion};
use super::{Denoiser, DiffusionError, IMAGE_CHANNELS};
use crate::kernels::random::Rng;

/// What is painted into.
#[derive(Debug, Clone, Copy)]
pub struct InpaintCondition<'a> {
    /// The surface, `[3, side, side]` of -1 to 1; what is in the hole is not looked at.
    pub image: &'a [f32],
    /// 1 where a defect shall be, `[side, side]`.
    pub mask: &'a [f32],
    /// 1 where is painted, `[side, side]`.
    pub hole: &'a [f32],
}

/// How is painted.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// The steps.
    pub ddim: Ddim,
    /// How far beyond the conditioned output is gone, away from that for an empty mask: 1 is not at all
    /// (classifier-free guidance; Ho and Salimans 2022, eq. 6 with `w = guidance - 1`).
    pub guidance: f64,
}

/// Paints one patch with the noise of `stream`: `[3, side, side]` of -1 to 1, outside of the hole the surface.
///
/// # Errors
/// What libtorch fails with.
///
/// # Panics
/// If the condition's shapes are not the network's.
pub fn inpaint(
    denoiser: &Denoiser,
    sampling: &Sampling,
    condition: &InpaintCondition<'_>,
    rng: &mut Rng,
) -> Result<Vec<f32>, DiffusionError> {
    let InpaintCondition { image, mask, hole } = *condition;
    let count = image.len();
    assert!(
        count == IMAGE_CHANNELS * mask.len() && mask.len() == hole.len(),
        "a patch of {count} values has a mask of {} and a hole of {}",
        mask.len(),
        hole.len()
    );
    let background: Vec<f32> =
        image.iter().enumerate().map(|(index, &value)| value * (1.0 - hole[index % hole.len()])).collect();
    let nothing = vec![0.0; mask.len()];
    let mut draw = || (0..count).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
    let mut values = draw();
    let known = KnownRegion { image: &background, hole };
    for (step, time) in sampling.ddim.times().enumerate() {
        let mut output = denoiser.predict(&values, &background, mask, time)?;
        if (sampling.guidance - 1.0).abs() > f64::EPSILON {
            let plain = denoiser.predict(&values, &background, &nothing, time)?;
            for (output, plain) in output.iter_mut().zip(plain) {
                *output = (f64::from(plain) + sampling.guidance * f64::from(*output - plain)) as f32;
            }
        }
        let noise = if sampling.ddim.is_noisy() { draw() } else { Vec::new() };
        sampling.ddim.step_around(step, &mut values, &output, &noise, Some(known));
    }
    Ok(values)
}
