//! Reads the defects and the normal images of the training split, the sources of the samples of every method.

use rayon::prelude::*;

use super::super::{Context, StageError};
use super::Augment;
use crate::artifacts::image_set::{Label, Labelled, labelled, pixels, pixels_name, read_mask, read_rgb};
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
    /// Indices of its pixels, row-major in the image.
    pub(super) pixels: Vec<u32>,
}

/// The sources of the samples. Test images are never used for synthetic defects.
pub(super) struct Sources<'a> {
    /// All defects of the training split that are large enough.
    pub(super) defects: Vec<Defect<'a>>,
    /// The defective images: id, pixels and mask.
    pub(super) defective: Vec<(&'a str, &'a File, Labelled<'a>)>,
    /// The normal images: id and pixels.
    pub(super) normals: Vec<(&'a str, &'a File)>,
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
                Label::Normal => normals.push((id, image)),
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
        Ok(Self { defects, defective, normals })
    }

    /// Returns the digests of all sources in order: pixels and masks of the defective images, then pixels of the normal
    /// images.
    pub(super) fn digests(&self) -> impl Iterator<Item = String> + '_ {
        let defective = self.defective.iter().flat_map(|(_, image, one)| [*image, one.mask]);
        defective.chain(self.normals.iter().map(|(_, image)| *image)).map(crate::artifacts::File::digest_text)
    }
}

/// Cuts out the defects of one image that have at least `least` pixels.
fn cut<'a>(
    least: usize,
    blend: usize,
    (image_index, id): (usize, &'a str),
    image: &File,
    one: &Labelled<'_>,
) -> Result<Vec<Defect<'a>>, StageError> {
    let (pixels, mask) = (read_rgb(image)?, read_mask(one.mask)?);
    if pixels.dimensions() != mask.dimensions() {
        let side = |(width, height): (u32, u32)| format!("{height}×{width} px");
        return Err(StageError::Artifact(ArtifactError::Mismatch {
            what: format!("the image and the mask of `{id}`"),
            left: side(pixels.dimensions()),
            right: side(mask.dimensions()),
        }));
    }
    let (height, width) = (mask.height() as usize, mask.width() as usize);
    let found = components(mask.as_raw(), height, width).into_iter().enumerate();
    Ok(found
        .filter(|(_, component)| component.pixels.len() >= least)
        .map(|(number, component)| {
            let patch = DefectPatch::cut(pixels.as_raw(), mask.as_raw(), width, &component.pixels, blend);
            Defect { image: id, image_index, component: number, patch, pixels: component.pixels }
        })
        .collect())
}
