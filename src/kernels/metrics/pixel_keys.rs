//! Splits the scores of an image into those of normal and those of defective pixels.

use super::sweep::order_key;
use super::{MetricError, check_finite};
use crate::kernels::components::components;

/// Calls `normal(key)` for each normal pixel and `defective(key, pixels of its region)` for each defective pixel,
/// and returns the number of regions (8-connected components of the mask). Neither is called if the map holds a
/// score that is not finite.
///
/// # Panics
/// If `map` or `mask` is not `[height, width]`.
pub(super) fn visit_pixels(
    map: &[f32],
    mask: &[u8],
    [height, width]: [usize; 2],
    mut normal: impl FnMut(u32),
    mut defective: impl FnMut(u32, u32),
) -> Result<u64, MetricError> {
    assert_eq!(map.len(), height * width, "map of {} pixels for {height}×{width}", map.len());
    check_finite(map)?;
    let regions = components(mask, height, width);
    if regions.is_empty() {
        for &score in map {
            normal(order_key(score));
        }
        return Ok(0);
    }
    for (&score, &value) in map.iter().zip(mask) {
        if value == 0 {
            normal(order_key(score));
        }
    }
    for region in &regions {
        let size = region.pixels.len() as u32;
        for &pixel in &region.pixels {
            defective(order_key(map[pixel as usize]), size);
        }
    }
    Ok(regions.len() as u64)
}
