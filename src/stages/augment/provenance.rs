//! `provenance.csv`: what each made image was made of, one line an image, the same columns for every method.

use std::path::Path;

use image::{GrayImage, RgbImage};

use super::super::StageError;
use crate::artifacts::files::csv_field;
use crate::artifacts::image_set::{Label, SYNTHETIC_KIND, label_name, pixels_name, write_mask, write_rgb};
use crate::kernels::cutpaste::DefectTransform;

/// What one sample was made of.
pub(super) struct Origin {
    /// The sample.
    pub(super) id: String,
    /// The normal image that it lies on.
    pub(super) normal: String,
    /// The image whose mask gave the defect's shape.
    pub(super) mask_of: String,
    /// The number of that mask's component.
    pub(super) component: usize,
    /// The sample's own seed.
    pub(super) seed: u64,
    /// How the mask was moved.
    pub(super) motion: DefectTransform,
    /// Where the moved mask's corner lies, in px.
    pub(super) top: isize,
    /// Where the moved mask's corner lies, in px.
    pub(super) left: isize,
    /// What else the method drew or was told for this sample, as `name=value`, separated by spaces.
    pub(super) settings: String,
}

/// The table; `source_mask` is the image whose mask was used.
pub(super) fn table(method: &str, origins: &[Origin]) -> String {
    let header =
        "id,method,source_image,source_mask,component,seed,angle,scale,flip,top,left,settings".to_owned();
    let rows = origins.iter().map(|origin| {
        let Origin { id, normal, mask_of, component, seed, motion, top, left, settings } = origin;
        let DefectTransform { angle, scale, flip, contrast: _ } = motion;
        let (normal, mask_of, settings) = (csv_field(normal), csv_field(mask_of), csv_field(settings));
        format!(
            "{id},{method},{normal},{mask_of},{component},{seed},{angle:.3},{scale:.4},{flip},{top},{left},{settings}"
        )
    });
    let lines: Vec<String> = std::iter::once(header).chain(rows).collect();
    lines.join("\n") + "\n"
}

/// The names of a sample's image and mask within the set.
pub(super) fn names(id: &str) -> [String; 2] {
    [pixels_name(id), label_name("train", Label::Defect, SYNTHETIC_KIND, id)]
}

/// Writes one sample, its image and its mask of a level a pixel, and gives their names within the set.
pub(super) fn write(
    set: &Path,
    id: &str,
    image: &RgbImage,
    mask: Vec<u8>,
) -> Result<[String; 2], StageError> {
    let mask = GrayImage::from_raw(image.width(), image.height(), mask).expect("a level a pixel was made");
    let names = names(id);
    write_rgb(&set.join(&names[0]), image)?;
    write_mask(&set.join(&names[1]), &mask)?;
    Ok(names)
}
