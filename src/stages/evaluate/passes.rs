//! The two passes over the images of an evaluation.
//!
//! Each image is scored once, `IMAGES_AT_ONCE` in parallel. Its patch scores are kept; its full-size map is dropped
//! once its pixels are counted in `PixelScores`. The bins of the bootstrap depend on all scores, and full maps are
//! written one by one, so both need a second pass: it computes the full-size maps from the patch scores again, without
//! another nearest-neighbour search. Memory does not grow with the number of pixels: see `kernels::metrics` for the
//! counts. The bins take 4 KB for each image, 16 KB if it has defects.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

use super::files::FullMaps;
use super::measure::no_metric;
use super::{Blur, Evaluate, REFERENCE_RADIUS};
use crate::artifacts::File;
use crate::artifacts::feature_set::read_block;
use crate::artifacts::image_set::{self, Label, Labelled, Truth};
use crate::kernels::map::{default_sigma, gaussian_blur, reference_blur, upsample};
use crate::kernels::metrics::{DEFAULT_BINS, ImageBins, MetricError, PixelScores, PixelStatistics};
use crate::stages::scorer::{Scored, Scorer};
use crate::stages::{Context, StageError};

/// Number of images that are scored between two checks for cancellation.
const IMAGES_AT_ONCE: usize = 32;

/// The scores of one image, with its map at full size.
struct Image<'a> {
    row: Row<'a>,
    full: Vec<f32>,
    truth: Truth,
}

/// The part of an image's scores that is kept until the end.
pub(super) struct Row<'a> {
    pub(super) labelled: &'a Labelled<'a>,
    pub(super) scored: Scored,
    /// Height and width of the patch scores.
    pub(super) grid: [usize; 2],
    /// Height and width of the mask.
    pub(super) size: [usize; 2],
    /// Whether nothing says where the defects are.
    pub(super) is_without_region: bool,
}

/// The pixels of a split.
#[derive(Default)]
pub(super) struct Pixels {
    pub(super) scores: PixelScores,
    /// Whether any of them is defective.
    pub(super) has_defects: bool,
}

impl Pixels {
    /// Counts the part of an image that metrics count.
    fn add(&mut self, full: &[f32], truth: &Truth) -> Result<(), MetricError> {
        let Some((map, mask, [height, width])) = counted(full, truth) else { return Ok(()) };
        self.has_defects |= mask.iter().any(|&level| level != 0);
        self.scores.add(&map, &mask, height, width)
    }
}

/// Map, mask and size of the part of an image that metrics count.
type Counted<'t> = (Cow<'t, [f32]>, Cow<'t, [u8]>, [usize; 2]);

/// Returns the part of an image that metrics count; `None` if there is none.
fn counted<'t>(full: &'t [f32], truth: &'t Truth) -> Option<Counted<'t>> {
    let (region, width) = (truth.counted?, truth.mask.width() as usize);
    let mask: &[u8] = truth.mask.as_raw();
    if [region.height, region.width] == [truth.mask.height() as usize, width] {
        return Some((full.into(), mask.into(), [region.height, region.width]));
    }
    Some((region.cut(full, width).into(), region.cut(mask, width).into(), [region.height, region.width]))
}

impl Row<'_> {
    pub(super) fn is_defect(&self) -> bool {
        self.labelled.entry.label == Label::Defect
    }
}

/// Scores the images in order and counts their pixels.
pub(super) fn score<'a>(
    spec: &Evaluate,
    scorer: &Scorer,
    all: &[&'a Labelled<'a>],
    blocks: &BTreeMap<&str, &File>,
    context: &Context<'_>,
) -> Result<(Vec<Row<'a>>, Pixels), StageError> {
    let (mut rows, mut pixels) = (Vec::with_capacity(all.len()), Pixels::default());
    for some in all.chunks(IMAGES_AT_ONCE) {
        context.check()?;
        let scored: Result<Vec<Image<'_>>, StageError> =
            some.par_iter().map(|image| score_image(spec, scorer, image, blocks)).collect();
        for Image { row, full, truth } in scored? {
            pixels.add(&full, &truth).map_err(|error| invalid_map(row.labelled, error))?;
            rows.push(row);
        }
        context.progress.report(rows.len() as u64, all.len() as u64, "image");
    }
    Ok((rows, pixels))
}

fn invalid_map(labelled: &Labelled<'_>, error: impl std::error::Error + Send + Sync + 'static) -> StageError {
    StageError::kernel(format!("`{}` has no valid map", labelled.entry.id), error)
}

fn score_image<'a>(
    spec: &Evaluate,
    scorer: &Scorer,
    labelled: &'a Labelled<'a>,
    blocks: &BTreeMap<&str, &File>,
) -> Result<Image<'a>, StageError> {
    let id = labelled.entry.id;
    let block = blocks.get(id).ok_or_else(|| {
        StageError::data(
            format!("`{id}` has no features"),
            "connect `features` to the extract stage of these images",
        )
    })?;
    let block = read_block(block)?;
    let failed = |error| StageError::kernel(format!("cannot score `{id}`"), error);
    let scored = scorer.score(&block).map_err(failed)?;
    let (map, grid) = block.on_grid(&scored.map);
    let scored = Scored { map, ..scored };
    let truth = image_set::read_truth(labelled.mask)?;
    let size = [truth.mask.height() as usize, truth.mask.width() as usize];
    let full = smooth(spec, &scored.map, grid, size);
    let is_without_region = truth.counted.is_none();
    Ok(Image { row: Row { labelled, scored, grid, size, is_without_region }, full, truth })
}

/// Computes the full-size maps a second time, for the bins of the bootstrap and for `full_maps`. Returns `None` without
/// a bootstrap.
pub(super) fn second_pass(
    spec: &Evaluate,
    rows: &[Row<'_>],
    pixels: &mut Pixels,
    folder: &Path,
    context: &Context<'_>,
) -> Result<Option<PixelStatistics>, StageError> {
    let bins = match spec.bootstrap {
        0 => None,
        _ if !pixels.has_defects => None,
        _ => Some(pixels.scores.bins(DEFAULT_BINS).map_err(|error| no_metric(spec, rows, error))?),
    };
    let mut full_maps = if spec.full_maps { Some(FullMaps::new(folder, rows)?) } else { None };
    if bins.is_none() && full_maps.is_none() {
        return Ok(None);
    }
    let mut images: Vec<ImageBins> = Vec::new();
    let count = |row: &Row<'_>| -> Result<(Vec<f32>, Option<ImageBins>), StageError> {
        let full = smooth(spec, &row.scored.map, row.grid, row.size);
        let Some(bins) = &bins else { return Ok((full, None)) };
        let truth = image_set::read_truth(row.labelled.mask)?;
        let Some((map, mask, [height, width])) = counted(&full, &truth) else { return Ok((full, None)) };
        let counts = bins.count(&map, &mask, height, width);
        let counts = counts.map_err(|error| invalid_map(row.labelled, error))?;
        drop((map, mask));
        Ok((full, Some(counts)))
    };
    for some in rows.chunks(IMAGES_AT_ONCE) {
        context.check()?;
        let maps_and_bins: Result<Vec<_>, StageError> = some.par_iter().map(count).collect();
        for (row, (full, counted)) in some.iter().zip(maps_and_bins?) {
            if let Some(maps) = &mut full_maps {
                maps.append(row, &full)?;
            }
            images.extend(counted);
        }
    }
    if let Some(maps) = full_maps {
        maps.finish()?;
    }
    Ok(bins.map(|bins| PixelStatistics::new(&bins, images, spec.fpr_limit)))
}

/// Resizes a patch map to the size of the image and smooths it.
pub(super) fn smooth(spec: &Evaluate, map: &[f32], grid: [usize; 2], size: [usize; 2]) -> Vec<f32> {
    let [h, w] = size;
    let full = upsample(map, grid[0], grid[1], h, w);
    match spec.blur {
        Blur::None => full,
        Blur::Gaussian => gaussian_blur(&full, h, w, spec.sigma.unwrap_or_else(|| default_sigma(h, w))),
        Blur::Reference => reference_blur(&full, h, w, REFERENCE_RADIUS),
    }
}
