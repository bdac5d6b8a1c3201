//! `coreset`: builds a bank from chosen patches of the selected images.
//!
//! Reads the blocks twice: first to project the candidates, which is all that the choice needs, then to fetch the
//! chosen rows. Memory thus holds 128 numbers for each candidate instead of its features.

mod filter;
mod rows;
mod spec;
mod work;

use std::path::Path;

use self::rows::Rows;
use self::spec::STRATEGIES;
use super::fields::name_of;
use super::scorer::require_comparable;
use super::selection::LABELS;
use super::{Context, Inputs, MASKS, Role, StageError};
use crate::artifacts::bank::{Bank, Description};
use crate::artifacts::feature_set::{self, Extraction, read_block, read_frame, read_shape};
use crate::artifacts::image_set;
use crate::artifacts::{File, Files, npy};
use crate::kernels::KernelError;
use crate::kernels::coreset::{Picks, Points, Projection, join_blocks, random_rows, require_device};
use crate::kernels::random::Rng;
use crate::kernels::resize::overlap;

pub use filter::SyntheticFilter;
pub use spec::{Coreset, Strategy};

/// Version of the kind, raised when outputs change for equal inputs. 1: first (2026-11-24). 2: a bank has at least
/// one row (2026-11-28). 3: the projection has one order of sums, so that a bank is the same on every machine
/// (2026-11-29).
pub const VERSION: u32 = 3;

/// Number of anchors of the approximate greedy choice (patchcore-inspection's constant).
const ANCHORS: usize = 10;

/// File of the bank with the verdict on each synthetic sample.
const SYNTHETIC_TABLE: &str = "made.csv";

/// The candidate patches of one image.
struct Source<'a> {
    id: &'a str,
    block: &'a File,
    patches: Vec<u32>,
    /// Whether an `augment` stage generated the image.
    is_synthetic: bool,
}

/// Chooses the rows and writes `bank/`.
fn run(spec: &Coreset, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
    let (extraction, mut sources) = candidates(spec, inputs, context)?;
    let before: usize = sources.iter().map(|source| source.patches.len()).sum();
    let filter = spec.synthetic;
    let synthetic = filter.is_set().then(|| filter.apply(inputs, &mut sources, context)).transpose()?;
    if let Some(quantile) = spec.drop_near_normal {
        filter::drop_near_normal(quantile, inputs, &mut sources, context)?;
    }
    let n: usize = sources.iter().map(|source| source.patches.len()).sum();
    if n == 0 {
        return Err(nothing_selected(spec, inputs));
    }
    let rows = Rows::of(n, spec.ratio, spec.min_size);
    if let Some(warning) = rows.warning() {
        context.progress.warn(&warning);
    }
    let count = rows.kept;
    let picks =
        if count == n { keep_all(n) } else { choose(spec, &sources, extraction.dimension, count, context)? };
    let description = Description {
        extraction,
        strategy: if count == n { "all".to_owned() } else { name_of(&STRATEGIES, &spec.strategy).to_owned() },
        candidates: before,
        filtered: before - n,
        synthetic: synthetic.as_ref().map(|(_, counts)| *counts),
        images: sources.iter().map(|source| source.id.to_owned()).collect(),
    };
    let bank = gather(description, &sources, &picks.rows)?;
    context.progress.log(&format!("kept {} of {n} rows of {} images", bank.len(), sources.len()));
    let folder = output.join("bank");
    bank.write(&folder)?;
    if let Some((table, counts)) = synthetic {
        crate::artifacts::files::write(&folder.join(SYNTHETIC_TABLE), table.as_bytes())?;
        context.progress.log(&format!("synthetic samples: {counts}"));
    }
    if !picks.radii.is_empty() {
        npy::write_f32(&folder.join("radii.npy"), &[picks.radii.len()], &picks.radii)?;
    }
    Ok(())
}

fn nothing_selected(spec: &Coreset, inputs: &Inputs) -> StageError {
    let split = spec.selection.split.as_deref().unwrap_or("any");
    let label = name_of(&LABELS, &spec.selection.label);
    let images: usize = inputs.members("features").map(|(_, set)| feature_set::blocks(set).count()).sum();
    let which = format!("split = \"{split}\", label = \"{label}\"");
    if images == 0 {
        return StageError::data(
            format!("no image has {which}"),
            "check the split of the data set, or select another split or label",
        );
    }
    StageError::data(
        format!(
            "none of the patches of {images} images with {which} has an overlap of {} or more",
            spec.min_overlap
        ),
        "check the masks of the images, or lower `min_overlap`",
    )
}

fn keep_all(n: usize) -> Picks {
    Picks { rows: (0..n as u32).collect(), radii: Vec::new() }
}

/// Lists the candidate patches of the selected images, image by image.
fn candidates<'a>(
    spec: &Coreset,
    inputs: &'a Inputs,
    context: &Context<'_>,
) -> Result<(Extraction, Vec<Source<'a>>), StageError> {
    let mut extraction: Option<Extraction> = None;
    let mut sources = Vec::new();
    for (index, set) in inputs.members("features") {
        let of_set = feature_set::read_extraction(set)?;
        if let Some(first) = &extraction {
            require_comparable("the sets of `features`", first, &of_set)?;
        }
        extraction.get_or_insert(of_set);
        let masks = inputs.get(&Role::indexed(MASKS, index));
        for (id, block) in feature_set::blocks(set) {
            context.check()?;
            let (patches, is_synthetic) = patches_of(spec, id, block, masks)?;
            if sources.iter().any(|source: &Source<'_>| source.id == id) {
                return Err(StageError::data(
                    format!("the image `{id}` is in two of the sets"),
                    "choose one of the sets with `select.set`: the rows of a bank refer to their image by id",
                ));
            }
            if !patches.is_empty() {
                sources.push(Source { id, block, patches, is_synthetic });
            }
        }
    }
    let extraction = extraction.ok_or_else(|| nothing_selected(spec, inputs))?;
    Ok((extraction, sources))
}

/// Returns the patches of an image that its mask covers sufficiently, and whether the image is synthetic.
fn patches_of(
    spec: &Coreset,
    id: &str,
    block: &File,
    masks: Option<&Files>,
) -> Result<(Vec<u32>, bool), StageError> {
    let [height, width, _] = read_shape(block)?;
    let all = 0..(height * width) as u32;
    if spec.min_overlap <= 0.0 && !spec.synthetic.is_set() {
        return Ok((all.collect(), false));
    }
    let masks = masks.map(image_set::labelled).unwrap_or_default();
    let Some(labelled) = masks.get(id) else {
        return Err(StageError::data(
            format!(
                "the image `{id}` has no mask, which `min_overlap` and the filter of synthetic samples need"
            ),
            "add a mask, or set min_overlap = 0 and remove the filter of synthetic samples",
        ));
    };
    let is_synthetic = labelled.entry.kind == Some(image_set::SYNTHETIC_KIND);
    if spec.min_overlap <= 0.0 {
        return Ok((all.collect(), is_synthetic));
    }
    let mask = image_set::read_mask(labelled.mask)?;
    let shares = shares(&mask, block, [height, width])?;
    let covered = all.filter(|&patch| f64::from(shares[patch as usize]) >= spec.min_overlap);
    Ok((covered.collect(), is_synthetic))
}

/// Returns the share of each patch that the mask covers.
fn shares(
    mask: &image::GrayImage,
    block: &File,
    [height, width]: [usize; 2],
) -> Result<Vec<f32>, StageError> {
    let (h, w) = (mask.height() as usize, mask.width() as usize);
    let Some(frame) = read_frame(block)? else { return Ok(overlap(mask.as_raw(), h, w, height, width)) };
    let shares = overlap(mask.as_raw(), h, w, frame.height, frame.width);
    let rows = shares.chunks_exact(frame.width).skip(frame.top).take(height);
    Ok(rows.flat_map(|row| row[frame.left..frame.left + width].iter().copied()).collect())
}

fn rows_of(source: &Source<'_>) -> Result<Vec<f32>, StageError> {
    let block = read_block(source.block)?;
    Ok(source.patches.iter().flat_map(|&patch| row(&block, patch)).copied().collect())
}

fn row(block: &feature_set::Block, patch: u32) -> &[f32] {
    &block.data[patch as usize * block.d..][..block.d]
}

fn choose(
    spec: &Coreset,
    sources: &[Source<'_>],
    dimension: usize,
    count: usize,
    context: &Context<'_>,
) -> Result<Picks, StageError> {
    let mut rng = Rng::new(context.seed, "coreset");
    let n = sources.iter().map(|source| source.patches.len()).sum();
    if spec.strategy == Strategy::Random {
        return Ok(Picks { rows: random_rows(n, count, &mut rng), radii: Vec::new() });
    }
    let failed = |error| match error {
        KernelError::Cancelled => StageError::Cancelled,
        other => StageError::kernel("cannot choose the rows", other),
    };
    // Fail before everything is read and projected.
    require_device(context.search_device).map_err(failed)?;
    let (points, d) = project(spec, sources, dimension, &mut rng, context)?;
    let progress = |picked: usize| {
        context.progress.report(picked as u64, count as u64, "pick");
        context.check().is_ok()
    };
    let points = Points::on(context.search_device, &points, d).map_err(failed)?;
    let picks = if spec.strategy == Strategy::Approximate {
        points.approximate_greedy(count, ANCHORS, &mut rng, &progress)
    } else {
        points.k_center_greedy(rng.below(n), count, &progress)
    };
    picks.map_err(failed)
}

/// Projects every candidate. Returns `[n, d]` and `d`.
fn project(
    spec: &Coreset,
    sources: &[Source<'_>],
    from: usize,
    rng: &mut Rng,
    context: &Context<'_>,
) -> Result<(Vec<f32>, usize), StageError> {
    let sizes: Vec<usize> = sources.iter().map(|source| source.patches.len()).collect();
    let read = |image: usize| {
        context.check()?;
        rows_of(&sources[image])
    };
    if spec.projection == 0 || spec.projection >= from {
        return Ok((join_blocks(&sizes, from, read)?, from));
    }
    let projection = Projection::new(from, spec.projection, rng);
    Ok((projection.apply_blocks(&sizes, read)?, spec.projection))
}

/// Reads the picked rows, in the order of the picks. Reads each block only once.
fn gather(description: Description, sources: &[Source<'_>], picks: &[u32]) -> Result<Bank, StageError> {
    let d = description.extraction.dimension;
    let mut order: Vec<usize> = (0..picks.len()).collect();
    order.sort_unstable_by_key(|&rank| picks[rank]);
    let mut bank = Bank {
        description,
        rows: vec![0.0; picks.len() * d],
        image: vec![0; picks.len()],
        patch: vec![0; picks.len()],
    };
    let mut next = order.into_iter().peekable();
    let mut start = 0;
    for (image, source) in sources.iter().enumerate() {
        let end = start + source.patches.len();
        if next.peek().is_some_and(|&rank| (picks[rank] as usize) < end) {
            let block = read_block(source.block)?;
            while let Some(rank) = next.next_if(|&rank| (picks[rank] as usize) < end) {
                let patch = source.patches[picks[rank] as usize - start];
                bank.rows[rank * d..][..d].copy_from_slice(row(&block, patch));
                bank.image[rank] = image as u32;
                bank.patch[rank] = patch;
            }
        }
        start = end;
    }
    Ok(bank)
}
