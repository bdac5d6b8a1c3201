//! Reads the defects and the normal images of the training split, the sources of the samples of every method.

use rayon::prelude::*;

use super::super::{Context, StageError};
use super::Augment;
use super::faults::{self, Fault};
use image::RgbImage;

use crate::artifacts::image_set::{
    Label, Labelled, Region, UNCOUNTED, labelled, pixels, pixels_name, read_rgb, read_truth,
};
use crate::artifacts::{ArtifactError, File, Files};
use crate::kernels::components::components;
use crate::kernels::cutpaste::DefectPatch;

/// A defect: one component of a training mask.
pub(super) struct Defect<'a> {
    /// Id of the image.
    pub(super) image: &'a str,
    /// Index of the image in [`Sources::defective`].
    pub(super) image_index: usize,
    /// Index of the defect among the components of the image's mask.
    pub(super) component: usize,
    /// The defect with the surrounding surface.
    pub(super) patch: DefectPatch,
    /// Indices of its pixels, row-major in the image without its padding.
    pub(super) pixels: Vec<u32>,
    /// What would be a fault of a sample.
    fault: Option<Fault>,
}

/// The sources of the samples. Test images are never used for synthetic defects.
pub(super) struct Sources<'a> {
    /// All defects of the training split that are large enough.
    pub(super) defects: Vec<Defect<'a>>,
    /// The defective images: id, pixels and mask.
    pub(super) defective: Vec<(&'a str, &'a File, Labelled<'a>)>,
    /// The normal images: id, pixels and mask.
    pub(super) normals: Vec<(&'a str, &'a File, Labelled<'a>)>,
    /// What would be faults of samples, but is seen in real defects.
    accepted: Vec<Fault>,
}

impl<'a> Sources<'a> {
    /// Cuts out all defects of the training split with a soft border of `blend` px, and lists the normal images.
    ///
    /// # Errors
    /// [`StageError::Data`] if the training split lacks defects or normal images.
    pub(super) fn read(
        spec: &Augment,
        blend: usize,
        files: &'a Files,
        context: &Context<'_>,
    ) -> Result<Self, StageError> {
        let (all, selection) = (pixels(files), super::training_split());
        let (mut defective, mut normals) = (Vec::new(), Vec::new());
        for (id, one) in labelled(files).into_iter().filter(|(_, one)| selection.holds(&one.entry)) {
            let missing = || ArtifactError::MissingFile { artifact: "ImageSet", file: pixels_name(id) };
            let image = *all.get(id).ok_or_else(missing)?;
            match one.entry.label {
                Label::Normal => normals.push((id, image, one)),
                Label::Defect => defective.push((id, image, one)),
            }
        }
        context.check()?;
        let least = spec.motions.min_area;
        let cut: Result<Vec<Vec<Defect<'a>>>, StageError> = (defective.par_iter().enumerate())
            .map(|(index, &(id, image, ref one))| cut(least, blend, (index, id), image, one))
            .collect();
        let defects: Vec<Defect<'a>> = cut?.into_iter().flatten().collect();
        let counted = format!("{} normal and {} defective images", normals.len(), defective.len());
        let method = spec.method.name();
        if defects.is_empty() {
            return Err(StageError::data(
                format!("the training split has no defect of at least {least} px; it has {counted}"),
                format!(
                    "`{method}` needs labelled defects in `train`; a data set without any cannot be augmented"
                ),
            ));
        }
        if normals.is_empty() {
            return Err(StageError::data(
                format!("the training split has no normal image; it has {counted}"),
                format!("`{method}` adds defects to normal images of `train`"),
            ));
        }
        let accepted = defects.iter().filter_map(|defect| defect.fault).collect();
        Ok(Self { defects, defective, normals, accepted })
    }

    /// Finds the fault of a sample: `surface` before and `painted` after, both without padding, at the marked pixels
    /// (row-major indices).
    pub(super) fn fault(
        &self,
        surface: &RgbImage,
        painted: &RgbImage,
        marked: impl Iterator<Item = usize> + Clone,
    ) -> Option<Fault> {
        let colour = |image: &RgbImage, pixel: usize| image.as_raw().as_chunks::<3>().0[pixel];
        let changes = marked.map(|pixel| (colour(surface, pixel), colour(painted, pixel)));
        faults::of_sample(changes, &self.accepted)
    }

    /// Returns the digests of all sources in order: pixels and masks of the defective images, then of the normal images.
    pub(super) fn digests(&self) -> impl Iterator<Item = String> + '_ {
        let all = self.defective.iter().chain(&self.normals);
        all.flat_map(|(_, image, one)| [*image, one.mask]).map(crate::artifacts::File::digest_text)
    }
}

/// A training image without the padding around it, in which nothing is cut out or painted.
pub(super) struct UnpaddedImage {
    /// The image.
    pub(super) image: RgbImage,
    /// Its mask, row-major: not 0 on defects.
    pub(super) mask: Vec<u8>,
    /// The image with its padding, and where it lies in it; `None` without padding.
    frame: Option<(RgbImage, Region)>,
}

impl UnpaddedImage {
    /// Reads an image of the set. Its mask says where its padding is.
    pub(super) fn read(id: &str, image: &File, mask: &File) -> Result<Self, StageError> {
        let (pixels, truth) = (read_rgb(image)?, read_truth(mask)?);
        if pixels.dimensions() != truth.mask.dimensions() {
            let side = |(width, height): (u32, u32)| format!("{height}×{width} px");
            return Err(StageError::Artifact(ArtifactError::Mismatch {
                what: format!("the image and the mask of `{id}`"),
                left: side(pixels.dimensions()),
                right: side(truth.mask.dimensions()),
            }));
        }
        let whole = (pixels.height() as usize, pixels.width() as usize);
        let region = truth.counted.filter(|region| (region.height, region.width) != whole);
        let Some(region) = region else {
            return Ok(Self { image: pixels, mask: truth.mask.into_raw(), frame: None });
        };
        let mask = region.cut(truth.mask.as_raw(), whole.1);
        Ok(Self { image: crop(&pixels, region), mask, frame: Some((pixels, region)) })
    }

    /// Returns height and width without padding.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.image.height() as usize, self.image.width() as usize)
    }

    /// Returns where the image lies in its padding; `None` without padding.
    pub(super) fn region(&self) -> Option<Region> {
        self.frame.as_ref().map(|(_, region)| *region)
    }

    /// Returns an image with the padding of this one, without it.
    pub(super) fn unpadded(&self, padded: RgbImage) -> RgbImage {
        match self.region() {
            None => padded,
            Some(region) => crop(&padded, region),
        }
    }

    /// Returns an image of the size without padding, and its mask, with the padding of this one.
    pub(super) fn padded(&self, image: RgbImage, mask: Vec<u8>) -> (RgbImage, Vec<u8>) {
        let Some((whole, region)) = &self.frame else { return (image, mask) };
        let (mut padded, width) = (whole.clone(), whole.width() as usize);
        image::imageops::replace(&mut padded, &image, region.left as i64, region.top as i64);
        let mut marks = vec![UNCOUNTED; width * whole.height() as usize];
        for (row, from) in mask.chunks_exact(region.width).enumerate() {
            marks[(region.top + row) * width + region.left..][..region.width].copy_from_slice(from);
        }
        (padded, marks)
    }
}

fn crop(image: &RgbImage, region: Region) -> RgbImage {
    let [left, top, width, height] =
        [region.left, region.top, region.width, region.height].map(|side| side as u32);
    image::imageops::crop_imm(image, left, top, width, height).to_image()
}

/// Cuts out the defects of one image that have at least `least` pixels.
fn cut<'a>(
    least: usize,
    blend: usize,
    (image_index, id): (usize, &'a str),
    image: &File,
    one: &Labelled<'_>,
) -> Result<Vec<Defect<'a>>, StageError> {
    let surface = UnpaddedImage::read(id, image, one.mask)?;
    let (height, width) = surface.size();
    let (pixels, mask) = (&surface.image, &surface.mask);
    let found = components(mask, height, width).into_iter().enumerate();
    Ok(found
        .filter(|(_, component)| component.pixels.len() >= least)
        .map(|(number, component)| {
            let patch = DefectPatch::cut(pixels.as_raw(), mask, width, &component.pixels, blend);
            let colours = pixels.as_raw().as_chunks::<3>().0;
            let fault = faults::of_region(component.pixels.iter().map(|&pixel| colours[pixel as usize]));
            Defect { image: id, image_index, component: number, patch, pixels: component.pixels, fault }
        })
        .collect())
}
