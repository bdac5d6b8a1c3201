//! Inpainting: generates the content of the hole of a patch with DDIM, from pure noise. In each step, the image outside
//! of the hole is replaced by the known one.

use super::schedule::{Ddim, KnownRegion};
use super::{Denoiser, DiffusionError, IMAGE_CHANNELS};
use crate::kernels::random::Rng;

/// The inputs of [`inpaint`] for one patch.
#[derive(Debug, Clone, Copy)]
pub struct InpaintCondition<'a> {
    /// The image, `[3, side, side]` with values in \[-1, 1\]. Its content inside the hole is ignored.
    pub image: &'a [f32],
    /// Mask: `[side, side]`, 1 where a defect is to be generated and 0 elsewhere.
    pub mask: &'a [f32],
    /// Hole: `[side, side]`, 1 where pixels are generated and 0 elsewhere.
    pub hole: &'a [f32],
}

/// Options of [`inpaint`].
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// The sampling steps.
    pub ddim: Ddim,
    /// Scale of the classifier-free guidance (Ho and Salimans 2022, eq. 6 with `w = guidance - 1`). The output for an
    /// empty mask is the unconditional one; 1 is no guidance.
    pub guidance: f64,
}

/// Generates the hole of one patch with noise from `rng`. Returns the patch, `[3, side, side]` with values in
/// \[-1, 1\]; outside of the hole it is the given image.
///
/// # Errors
/// If libtorch fails.
///
/// # Panics
/// If the shapes do not fit the network.
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
