//! `coreset`: builds a bank from chosen patches of the selected images.
//!
//! Reads the blocks twice: first to project the candidates, which is all that the choice needs, then to fetch the
//! chosen rows. Memory thus holds 128 numbers for each candidate instead of its features.

mod filter;
mod rows;
mod work;

use std::path::Path;

use serde::{Deserialize, Serialize};

use self::rows::Rows;
use super::fields::{Fields, Reader, fields, name_of};
use super::scorer::require_comparable;
use super::selection::{LABELS, features_shape, read_selection};
use super::{
    About, Context, Estimates, InputSizes, Inputs, MASKS, PortUse, Reads, Role, Stage, StageError, Variables,
    Workload,
};
use crate::artifacts::bank::{Bank, Description};
use crate::artifacts::feature_set::{self, Extraction, read_block, read_frame, read_shape};
use crate::artifacts::image_set::{self, Label, Selection};
use crate::artifacts::{Artifact, File, Files, npy};
use crate::kernels::KernelError;
use crate::kernels::coreset::{Picks, Points, Projection, join_blocks, random_rows, require_device};
use crate::kernels::random::Rng;
use crate::kernels::resize::overlap;

pub use filter::SyntheticFilter;

/// Version of the kind, raised when outputs change for equal inputs. 1: first (2026-11-24). 2: a bank has at least
/// one row (2026-11-28). 3: the projection has one order of sums, so that a bank is the same on every machine
/// (2026-11-29).
pub const VERSION: u32 = 3;

/// Number of dimensions of the random projection (Roth et al. 2022, section 3.2, and its authors' code).
const PROJECTION: i64 = 128;
/// Least number of rows: a row and its nine neighbours, which the weight of the image score needs (Roth et al. 2022,
/// equation 7, with the `b` = 9 of anomalib), so that `ratio` means the ratio. The reference implementation keeps 1000.
const MIN_SIZE: i64 = 10;
/// Share of normal candidates that are kept (Roth et al. 2022, section 4: 1 %).
const NORMAL_RATIO: f64 = 0.01;
/// Share of defect candidates that are kept: all. On KSDD (`resnet18`, 5 seeds) the dual bank's image AUROC is 0.9930 with
/// all, 0.9804 with a tenth: `docs/augmentation.md`.
const DEFECT_RATIO: f64 = 1.0;
/// Least share of a defect patch that its mask must cover. Normal background in the defect bank makes normal patches
/// look like defects (measured on KSDD: image AUROC 0.545 with every patch of a crop).
const DEFECT_OVERLAP: f64 = 0.1;
/// Number of anchors of the approximate greedy choice (patchcore-inspection's constant).
const ANCHORS: usize = 10;

/// File of the bank with the verdict on each synthetic sample.
const SYNTHETIC_TABLE: &str = "made.csv";

/// Files that the run folder shows.
const PICTURES: [&str; 1] = [SYNTHETIC_TABLE];

/// How rows are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// Exact farthest-first traversal (k-center greedy).
    KCenter,
    /// Uniformly at random.
    Random,
    /// The approximate greedy choice of patchcore-inspection.
    Approximate,
}

const STRATEGIES: [(&str, Strategy); 3] =
    [("k_center", Strategy::KCenter), ("random", Strategy::Random), ("approximate", Strategy::Approximate)];

/// The fields of a `coreset` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coreset {
    /// Whether only the features of the set at the port `select.set` are read, instead of those of all sets.
    pub has_set: bool,
    /// Which images are selected.
    pub selection: Selection,
    /// Least share of a patch that its mask must cover. 0 takes every patch.
    pub min_overlap: f64,
    /// Which synthetic samples are dropped.
    pub synthetic: SyntheticFilter,
    /// Share of the candidates that are kept.
    pub ratio: f64,
    /// Least number of rows that are kept.
    pub min_size: usize,
    /// How rows are chosen.
    pub strategy: Strategy,
    /// Number of dimensions of the projection in which distances are measured. 0 measures distances of the features.
    pub projection: usize,
    /// Drops candidates that are near the normal bank (port `normal`): the limit is this quantile of the distances
    /// between rows of different images in that bank. `None` drops nothing.
    pub drop_near_normal: Option<f64>,
}

impl Stage for Coreset {
    fn name() -> &'static str {
        "coreset"
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        reader.port("features", Artifact::FeatureSet);
        let ((selection, has_set), min_overlap, synthetic) = reader.table("select", |reader| {
            let selected = read_selection(reader);
            let least = if selected.0.label == Some(Label::Defect) { DEFECT_OVERLAP } else { 0.0 };
            let min_overlap = reader.float("min_overlap", 0.0..=1.0, Some(least));
            (selected, min_overlap, SyntheticFilter::read(reader))
        });
        let drop_near_normal = reader.optional_float("drop_near_normal", 0.0..=1.0);
        let comparisons =
            [("drop_near_normal", drop_near_normal), ("select.made_near_normal", synthetic.near_normal)];
        let comparison = comparisons.into_iter().find(|(_, quantile)| quantile.is_some());
        let has_normal = reader.optional_port("normal", Artifact::Bank, comparison.is_some());
        if let Some((field, _)) = comparison.filter(|_| !has_normal) {
            reader.missing("normal", &format!("the bank of normal patches that `{field}` compares with"));
        }
        let ratio = if selection.label == Some(Label::Defect) { DEFECT_RATIO } else { NORMAL_RATIO };
        Self {
            has_set,
            selection,
            min_overlap,
            synthetic,
            ratio: reader.float("ratio", 1e-6..=1.0, Some(ratio)),
            min_size: reader.integer("min_size", 0..=1_000_000_000, Some(MIN_SIZE)) as usize,
            strategy: reader.choice("strategy", &STRATEGIES, Some("k_center")),
            projection: reader.integer("projection", 0..=4096, Some(PROJECTION)) as usize,
            drop_near_normal,
        }
    }

    fn about(&self) -> About {
        About {
            version: VERSION,
            // A bank that keeps every row is not random. Unless the ratio is 1, this is known only once the candidates
            // are counted.
            is_random: self.ratio < 1.0,
            is_item_wise: false,
            is_blocking: false,
            is_target: false,
            is_shown: false,
            is_verified: true,
            estimates: Estimates::WithEqual(&["strategy"]),
            foresees: true,
            pictures: &PICTURES,
            threads: 1,
            memory_bytes: 0,
            tolerance: None,
            depends_on_machine: false,
            compute_target: None,
            source: None,
            tools: Vec::new(),
            implied: Vec::new(),
        }
    }

    fn port(&self, port: &str) -> PortUse {
        if port != "features" {
            return PortUse::whole();
        }
        let with_masks = self.min_overlap > 0.0 || self.synthetic.is_set();
        let reads = Reads::Blocks { selection: self.selection.clone(), with_masks };
        PortUse { reads, shape: features_shape(self.has_set) }
    }

    fn outputs(&self) -> Vec<(String, Artifact)> {
        vec![("bank".to_owned(), Artifact::Bank)]
    }

    fn key_fields(&self) -> Fields {
        // Left out: the set and the selection, because the selected blocks enter by name and digest.
        let Self {
            has_set: _,
            selection: _,
            min_overlap,
            synthetic,
            ratio,
            min_size,
            strategy,
            projection,
            drop_near_normal,
        } = self;
        let mut all = fields([
            ("min_overlap", (*min_overlap).into()),
            ("ratio", (*ratio).into()),
            ("min_size", (*min_size).into()),
            ("strategy", name_of(&STRATEGIES, strategy).into()),
            ("projection", (*projection).into()),
        ]);
        synthetic.add_fields(&mut all);
        if let Some(quantile) = drop_near_normal {
            all.insert("drop_near_normal".to_owned(), (*quantile).into());
        }
        all
    }

    /// Estimates 128 numbers of four bytes for each candidate, which has 256 or more numbers of two bytes in the
    /// input.
    fn estimated_memory(&self, input_bytes: u64) -> u64 {
        input_bytes + 128_000_000
    }

    fn workload(&self, inputs: &InputSizes) -> Workload {
        work::workload(self, inputs)
    }

    fn preflight(&self, _: &Variables) -> Result<(), StageError> {
        Ok(())
    }

    fn run(&self, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
        run(self, inputs, output, context)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bank_of_every_row_is_not_random() {
        let table = fields([("features", "f".into()), ("ratio", 1.0.into())]);
        let (mut problems, mut ports) = (Vec::new(), Vec::new());
        let mut reader = Reader::new(&table, &mut problems, &mut ports);
        let spec = Coreset::read(&mut reader);
        reader.finish();
        assert!(problems.is_empty() && !spec.about().is_random);
    }
}
