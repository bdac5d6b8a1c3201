//! Writes `provenance.csv`: the sources and parameters of each synthetic image, one line per image. The columns are the
//! same for every method.

use std::path::Path;

use image::{GrayImage, RgbImage};

use super::super::{Context, ItemFile, StageError};
use super::faults::Fault;
use super::sources::{Sources, UnpaddedImage};
use crate::artifacts::files::csv_field;
use crate::artifacts::image_set::{
    Label, Region, SYNTHETIC_KIND, label_name, pixels_name, read_rgb, write_mask, write_rgb,
};
use crate::kernels::cutpaste::DefectTransform;

/// The sources and parameters of one sample.
pub(super) struct SampleOrigin {
    /// Id of the sample.
    pub(super) id: String,
    /// Id of the normal image.
    pub(super) normal: String,
    /// Id of the image whose mask was used.
    pub(super) mask_of: String,
    /// Index of the component in that mask.
    pub(super) component: usize,
    /// Seed of the sample.
    pub(super) seed: u64,
    /// How the mask was transformed.
    pub(super) motion: DefectTransform,
    /// Top of the transformed mask in the image, in px, without padding.
    pub(super) top: isize,
    /// Left of the transformed mask in the image, in px, without padding.
    pub(super) left: isize,
    /// Further parameters of the method for this sample, as `name=value`, separated by spaces.
    pub(super) settings: String,
    /// Where the image lies in its padding; `None` without padding.
    pub(super) region: Option<Region>,
    /// Why the sample is left out of the set; `None` if it is in it.
    pub(super) fault: Option<Fault>,
}

/// Formats the table. The column `source_mask` holds the id of the image whose mask was used.
pub(super) fn table(method: &str, origins: &[SampleOrigin]) -> String {
    let header = "id,method,source_image,source_mask,component,seed,angle,scale,flip,top,left,settings,fault"
        .to_owned();
    let rows = origins.iter().map(|origin| {
        let SampleOrigin { id, normal, mask_of, component, seed, motion, top, left, settings, region, fault } =
            origin;
        let fault = fault.map_or("", Fault::name);
        let (row, column) = region.map_or((0, 0), |region| (region.top as isize, region.left as isize));
        let (top, left) = (top + row, left + column);
        let DefectTransform { angle, scale, flip, contrast: _ } = motion;
        let (normal, mask_of, settings) = (csv_field(normal), csv_field(mask_of), csv_field(settings));
        format!(
            "{id},{method},{normal},{mask_of},{component},{seed},{angle:.3},{scale:.4},{flip},{top},{left},{settings},{fault}"
        )
    });
    let lines: Vec<String> = std::iter::once(header).chain(rows).collect();
    lines.join("\n") + "\n"
}

/// Returns the paths of a sample's image and mask within the set.
pub(super) fn names(id: &str) -> [String; 2] {
    [pixels_name(id), label_name("train", Label::Defect, SYNTHETIC_KIND, id)]
}

/// Adds the cached files of a sample to the output, unless it shows no defect. Returns the sample without its padding, and its
/// fault.
///
/// `marked` are the pixels of its mask, as row-major indices in the normal image `surface` without padding.
pub(super) fn add_output(
    id: &str,
    files: &[ItemFile],
    surface: &UnpaddedImage,
    marked: impl Iterator<Item = usize> + Clone,
    sources: &Sources<'_>,
    context: &Context<'_>,
) -> Result<(RgbImage, Option<Fault>), StageError> {
    let [image, mask] = files else {
        return Err(StageError::data(
            format!("the cached sample `{id}` has {} files instead of 2", files.len()),
            "run with --force for this stage",
        ));
    };
    let painted = surface.unpadded(read_rgb(&image.file())?);
    let fault = sources.fault(&surface.image, &painted, marked);
    if fault.is_none() {
        for (file, name) in [image, mask].into_iter().zip(names(id)) {
            context.items.add_output(file, &format!("images/{name}"));
        }
    }
    Ok((painted, fault))
}

/// Writes the image and the mask of one sample and returns their paths within the set. `mask` has one level per pixel.
pub(super) fn write(
    set: &Path,
    id: &str,
    image: &RgbImage,
    mask: Vec<u8>,
) -> Result<[String; 2], StageError> {
    let mask = GrayImage::from_raw(image.width(), image.height(), mask).expect("one level per pixel");
    let names = names(id);
    write_rgb(&set.join(&names[0]), image)?;
    write_mask(&set.join(&names[1]), &mask)?;
    Ok(names)
}
