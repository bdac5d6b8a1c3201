//! `evaluate`: metrics, scores and maps of a model on one split of one image set.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use rayon::prelude::*;
use serde_json::json;

use super::fields::{Fields, Reader, fields, name_of};
use super::scorer::{Scored, Scorer, require_comparable};
use super::{Context, Inputs, Reads, StageError, picture};
use crate::artifacts::feature_set::{self, read_block};
use crate::artifacts::files::{csv_field, write, write_json};
use crate::artifacts::image_set::{self, Label, Labelled, Selection};
use crate::artifacts::model::Model;
use crate::artifacts::scores::{AtThreshold, Interval, Intervals, KindMetrics, Metrics};
use crate::artifacts::{Artifact, File, npy};
use crate::kernels::map::{default_sigma, gaussian_blur, reference_blur, upsample};
use crate::kernels::metrics::{self, DEFAULT_BINS, MetricError, PixelScores};
use crate::kernels::random::Stream;

/// 1: first (2026-11-24).
pub const VERSION: u32 = 1;

/// Limit of the false positive rate of AUPRO (Bergmann et al. 2020, MVTec AD).
const FPR_LIMIT: f64 = 0.3;
/// Resamples of the bootstrap (Efron and Tibshirani 1993: 1000 for 95 % percentile intervals).
const RESAMPLES: i64 = 1000;
/// Radius of the reference's blur, in pixels of its image library.
const REFERENCE_RADIUS: f32 = 2.0;
/// Images scored between two looks at the user's wish to stop.
const IMAGES_AT_ONCE: usize = 32;

/// How a map is smoothed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blur {
    /// Gaussian, in f32.
    Gaussian,
    /// The reference's: through an 8-bit image, radius 2.
    Reference,
    /// None.
    None,
}

const BLURS: [(&str, Blur); 3] =
    [("gaussian", Blur::Gaussian), ("reference", Blur::Reference), ("none", Blur::None)];

/// The fields of an `evaluate` stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The split that is scored.
    pub split: String,
    /// How a map is smoothed.
    pub blur: Blur,
    /// Its width in pixels; none: 4 at a short side of 224, in proportion.
    pub sigma: Option<f64>,
    /// Limit of the false positive rate of AUPRO.
    pub fpr_limit: f64,
    /// Resamples of the bootstrap; 0 leaves the intervals out.
    pub bootstrap: usize,
    /// Whether the maps at the images' size are written too.
    pub full_maps: bool,
    /// How many pictures of the strongest images are drawn.
    pub pictures: usize,
}

impl Spec {
    /// Reads the fields.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        reader.port("model", Artifact::Model);
        reader.port("features", Artifact::FeatureSet);
        reader.port("images", Artifact::ImageSet);
        Self {
            split: reader.text("split").unwrap_or_else(|| "test".to_owned()),
            blur: reader.choice("blur", &BLURS, Some("gaussian")),
            sigma: reader.optional_float("sigma", 0.0..=1000.0),
            fpr_limit: reader.float("fpr_limit", 1e-6..=1.0, Some(FPR_LIMIT)),
            bootstrap: reader.integer("bootstrap", 0..=1_000_000, Some(RESAMPLES)) as usize,
            full_maps: reader.boolean("full_maps", false),
            pictures: reader.integer("pictures", 0..=100_000, Some(0)) as usize,
        }
    }

    /// The fields that enter the key.
    pub fn fields(&self) -> Fields {
        let Self { split, blur, sigma, fpr_limit, bootstrap, full_maps, pictures } = self;
        let mut all = fields([
            ("split", split.as_str().into()),
            ("blur", name_of(&BLURS, blur).into()),
            ("fpr_limit", (*fpr_limit).into()),
            ("bootstrap", (*bootstrap).into()),
            ("full_maps", (*full_maps).into()),
            ("pictures", (*pictures).into()),
        ]);
        if let (Some(sigma), Blur::Gaussian) = (sigma, blur) {
            all.insert("sigma".to_owned(), (*sigma).into());
        }
        all
    }

    /// Whether the seed reaches the stage.
    pub fn is_random(&self) -> bool {
        self.bootstrap > 0
    }

    /// What is read of `port`.
    pub fn reads(&self, port: &str) -> Reads {
        let selection = Selection { split: Some(self.split.clone()), label: None };
        match port {
            "features" => Reads::Blocks { selection, with_masks: false },
            "images" if self.pictures > 0 => Reads::Images(selection),
            "images" => Reads::Masks(selection),
            _ => Reads::Everything,
        }
    }
}

/// One image's scores, at the size of its patches and of its mask.
struct Image<'a> {
    labelled: &'a Labelled<'a>,
    scored: Scored,
    grid: [usize; 2],
    full: Vec<f32>,
    mask: image::GrayImage,
}

/// Scores every image of the split and writes `scores/`.
pub fn run(spec: &Spec, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
    let images = inputs.require("images")?;
    let labelled = image_set::labelled(images);
    if labelled.is_empty() {
        return Err(StageError::data(
            format!("the images have no split `{}`", spec.split),
            "`split` names a folder of the data set: most have `train` and `test`",
        ));
    }
    let model = Model::read(inputs.require("model")?)?;
    let features = inputs.members("features").next().map(|(_, files)| files);
    let features = features.ok_or_else(|| StageError::MissingInput { role: "features[0]".to_owned() })?;
    let of_features = feature_set::read_extraction(features)?;
    require_comparable("the model and `features`", &model.description.extraction, &of_features)?;
    let blocks: BTreeMap<&str, &File> = feature_set::blocks(features).collect();
    let scorer = Scorer::new(&model).map_err(|error| StageError::kernel("cannot use the model", error))?;
    let folder = output.join("scores");
    let mut pixel_scores = PixelScores::new();
    let mut rows: Vec<Row<'_>> = Vec::new();
    let mut full_maps = Vec::new();
    let all: Vec<&Labelled<'_>> = labelled.values().collect();
    for some in all.chunks(IMAGES_AT_ONCE) {
        context.check()?;
        let scored: Result<Vec<Image<'_>>, StageError> =
            some.par_iter().map(|image| score_image(spec, &scorer, image, &blocks)).collect();
        for image in scored? {
            let (height, width) = (image.mask.height() as usize, image.mask.width() as usize);
            pixel_scores.add(&image.full, image.mask.as_raw(), height, width).map_err(|error| {
                StageError::kernel(format!("`{}` has no valid map", image.labelled.entry.id), error)
            })?;
            if spec.full_maps {
                full_maps.push(([height, width], image.full));
            }
            rows.push(Row { labelled: image.labelled, scored: image.scored, grid: image.grid });
        }
        context.progress.report(rows.len() as u64, all.len() as u64, "image");
    }
    let metrics = measure(spec, &model, &rows, pixel_scores, context)?;
    write_files(&folder, &model, &rows, &metrics)?;
    if spec.full_maps {
        write_maps(&folder, "full_maps", &rows, full_maps)?;
    }
    picture::draw(spec, &folder, &rows, images)?;
    Ok(())
}

/// One image of `scores.csv`.
pub(super) struct Row<'a> {
    pub(super) labelled: &'a Labelled<'a>,
    pub(super) scored: Scored,
    pub(super) grid: [usize; 2],
}

fn score_image<'a>(
    spec: &Spec,
    scorer: &Scorer,
    labelled: &'a Labelled<'a>,
    blocks: &BTreeMap<&str, &File>,
) -> Result<Image<'a>, StageError> {
    let id = labelled.entry.id;
    let block = blocks.get(id).ok_or_else(|| {
        StageError::data(
            format!("`{id}` has no features"),
            "wire `features` to the extract stage of these images",
        )
    })?;
    let block = read_block(block)?;
    let failed = |error| StageError::kernel(format!("cannot score `{id}`"), error);
    let scored = scorer.score(&block).map_err(failed)?;
    let mask = image_set::read_mask(labelled.mask)?;
    let full = smooth(
        spec,
        &scored.map,
        [block.height, block.width],
        [mask.height() as usize, mask.width() as usize],
    );
    Ok(Image { labelled, scored, grid: [block.height, block.width], full, mask })
}

/// Brings a patch map to the image's size and smooths it.
pub(super) fn smooth(spec: &Spec, map: &[f32], grid: [usize; 2], size: [usize; 2]) -> Vec<f32> {
    let [h, w] = size;
    let full = upsample(map, grid[0], grid[1], h, w);
    match spec.blur {
        Blur::None => full,
        Blur::Gaussian => gaussian_blur(&full, h, w, spec.sigma.unwrap_or_else(|| default_sigma(h, w))),
        Blur::Reference => reference_blur(&full, h, w, REFERENCE_RADIUS),
    }
}

fn measure(
    spec: &Spec,
    model: &Model,
    rows: &[Row<'_>],
    pixel_scores: PixelScores,
    context: &Context<'_>,
) -> Result<Metrics, StageError> {
    let scores: Vec<f32> = rows.iter().map(|row| row.scored.score).collect();
    let labels: Vec<bool> = rows.iter().map(Row::is_defect).collect();
    let failed = |error| one_class(spec, &labels, error);
    let best = metrics::f1_max(&scores, &labels).map_err(failed)?;
    let intervals = match spec.bootstrap {
        0 => None,
        resamples => {
            Some(bootstrap(spec, &scores, &labels, &pixel_scores, resamples, context.seed).map_err(failed)?)
        }
    };
    let at_threshold = match &model.description.threshold {
        None => None,
        Some(threshold) => {
            let at = metrics::at_threshold(&scores, &labels, threshold.score).map_err(failed)?;
            let threshold = f64::from(threshold.score);
            Some(AtThreshold { threshold, precision: at.precision, recall: at.recall, f1: at.f1 })
        }
    };
    let pixels = pixel_scores.finish(spec.fpr_limit).map_err(failed)?;
    Ok(Metrics {
        image_auroc: metrics::auroc(&scores, &labels).map_err(failed)?,
        image_ap: metrics::average_precision(&scores, &labels).map_err(failed)?,
        image_f1_max: best.f1,
        image_f1_max_threshold: f64::from(best.threshold),
        pixel_auroc: pixels.auroc,
        pixel_ap: pixels.average_precision,
        pixel_f1_max: pixels.f1_max,
        aupro: pixels.aupro,
        aupro_fpr_limit: spec.fpr_limit,
        at_threshold,
        intervals,
        kinds: by_kind(rows).map_err(failed)?,
        images: rows.len(),
        defects: labels.iter().filter(|&&is_defect| is_defect).count(),
        defect_pixels: pixels.positives,
        pixels: pixels.positives + pixels.negatives,
        split_digest: split_digest(rows),
    })
}

fn one_class(spec: &Spec, labels: &[bool], error: MetricError) -> StageError {
    let defects = labels.iter().filter(|&&is_defect| is_defect).count();
    if defects == 0 || defects == labels.len() {
        return StageError::data(
            format!(
                "the split `{}` has {defects} defective and {} normal images: no metric is defined on one class",
                spec.split,
                labels.len() - defects
            ),
            "evaluate a split that has both, or check the masks",
        );
    }
    StageError::kernel("cannot compute the metrics", error)
}

fn bootstrap(
    spec: &Spec,
    scores: &[f32],
    labels: &[bool],
    pixel_scores: &PixelScores,
    resamples: usize,
    seed: u64,
) -> Result<Intervals, MetricError> {
    let mut stream = Stream::new(seed, "bootstrap");
    let images = metrics::image_intervals(scores, labels, resamples, &mut stream)?;
    let statistics = pixel_scores.statistics(spec.fpr_limit, DEFAULT_BINS)?;
    let pixels = metrics::pixel_intervals(&statistics, resamples, &mut stream)?;
    let of = |interval: metrics::Interval| Interval { low: interval.low, high: interval.high };
    Ok(Intervals {
        resamples,
        pixel_method: format!(
            "by image, from histograms of {DEFAULT_BINS} bins an image: error of AUROC at most 1/{DEFAULT_BINS}"
        ),
        image_auroc: of(images.auroc),
        image_ap: of(images.average_precision),
        image_f1_max: of(images.f1_max),
        pixel_auroc: of(pixels.auroc),
        pixel_ap: of(pixels.average_precision),
        aupro: of(pixels.aupro),
    })
}

impl Row<'_> {
    pub(super) fn is_defect(&self) -> bool {
        self.labelled.entry.label == Label::Defect
    }
}

fn by_kind(rows: &[Row<'_>]) -> Result<Vec<KindMetrics>, MetricError> {
    let mut kinds: Vec<&str> = rows.iter().filter_map(|row| row.labelled.entry.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    if kinds == [image_set::UNKNOWN_KIND] {
        return Ok(Vec::new());
    }
    kinds
        .into_iter()
        .map(|kind| {
            let some = rows.iter().filter(|row| row.labelled.entry.kind.is_none_or(|of_row| of_row == kind));
            let (scores, labels): (Vec<f32>, Vec<bool>) =
                some.map(|row| (row.scored.score, row.is_defect())).unzip();
            Ok(KindMetrics {
                kind: kind.to_owned(),
                images: labels.iter().filter(|&&is_defect| is_defect).count(),
                image_auroc: metrics::auroc(&scores, &labels)?,
                image_ap: metrics::average_precision(&scores, &labels)?,
            })
        })
        .collect()
}

fn split_digest(rows: &[Row<'_>]) -> String {
    let mut hasher = blake3::Hasher::new();
    for row in rows {
        for part in [row.labelled.entry.id, row.labelled.entry.split, &row.labelled.mask.digest] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(&[u8::from(row.is_defect())]);
    }
    hasher.finalize().to_hex().to_string()
}

fn write_files(folder: &Path, model: &Model, rows: &[Row<'_>], metrics: &Metrics) -> Result<(), StageError> {
    write_json(&folder.join("metrics.json"), metrics)?;
    npy::write_row(&folder.join("results.npy"), &metrics.named())?;
    let threshold = model.description.threshold.map(|threshold| threshold.score);
    write(&folder.join("scores.csv"), scores_csv(rows, threshold).as_bytes())?;
    let maps = rows.iter().map(|row| (row.grid, row.scored.map.clone())).collect();
    write_maps(folder, "maps", rows, maps)?;
    write_curves(folder, rows)
}

fn scores_csv(rows: &[Row<'_>], threshold: Option<f32>) -> String {
    let mut text = String::from("image,split,label,kind,score,prediction\n");
    for row in rows {
        let entry = &row.labelled.entry;
        let label = if row.is_defect() { "defect" } else { "normal" };
        let prediction = threshold.map_or("", |at| if row.scored.score >= at { "defect" } else { "normal" });
        let kind = entry.kind.filter(|&kind| kind != image_set::UNKNOWN_KIND).unwrap_or_default();
        let (id, kind, score) = (csv_field(entry.id), csv_field(kind), row.scored.score);
        let _ = writeln!(text, "{id},{},{label},{kind},{score},{prediction}", csv_field(entry.split));
    }
    text
}

/// Writes maps as one array where all have one size, else as one file an image.
fn write_maps(
    folder: &Path,
    name: &str,
    rows: &[Row<'_>],
    maps: Vec<([usize; 2], Vec<f32>)>,
) -> Result<(), StageError> {
    let Some(&([h, w], _)) = maps.first() else { return Ok(()) };
    if maps.iter().all(|&(size, _)| size == [h, w]) {
        let n = maps.len();
        let data: Vec<f32> = maps.into_iter().flat_map(|(_, map)| map).collect();
        return Ok(npy::write_f32(&folder.join(format!("{name}.npy")), &[n, h, w], data)?);
    }
    for (row, ([h, w], map)) in rows.iter().zip(maps) {
        let file = folder.join(name).join(format!("{}.npy", row.labelled.entry.id));
        npy::write_f32(&file, &[h, w], map)?;
    }
    Ok(())
}

fn write_curves(folder: &Path, rows: &[Row<'_>]) -> Result<(), StageError> {
    let scores: Vec<f32> = rows.iter().map(|row| row.scored.score).collect();
    let labels: Vec<bool> = rows.iter().map(Row::is_defect).collect();
    let failed = |error| StageError::kernel("cannot draw the curves", error);
    let roc = metrics::roc_curve(&scores, &labels).map_err(failed)?;
    let precision_recall = metrics::precision_recall_curve(&scores, &labels).map_err(failed)?;
    let curves = json!({
        "image_roc": {
            "threshold": roc.iter().map(|point| point.threshold).collect::<Vec<_>>(),
            "false_positive_rate": roc.iter().map(|point| point.false_positive_rate).collect::<Vec<_>>(),
            "true_positive_rate": roc.iter().map(|point| point.true_positive_rate).collect::<Vec<_>>(),
        },
        "image_precision_recall": {
            "threshold": precision_recall.iter().map(|point| point.threshold).collect::<Vec<_>>(),
            "precision": precision_recall.iter().map(|point| point.precision).collect::<Vec<_>>(),
            "recall": precision_recall.iter().map(|point| point.recall).collect::<Vec<_>>(),
        },
    });
    Ok(write_json(&folder.join("curves.json"), &curves)?)
}
