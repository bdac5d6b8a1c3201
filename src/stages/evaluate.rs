//! `evaluate`: computes metrics, scores and maps of a model on one split of one image set.

mod choice;
mod files;
mod measure;
mod passes;
mod picture;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use self::files::write_files;
use self::measure::measure;
use self::passes::{Pixels, Row, score, second_pass};
use self::picture::ShownThreshold;
use super::fields::{Fields, Reader, fields, name_of};
use super::scorer::{Scorer, require_comparable, search_seconds};
use super::{
    About, Context, Estimates, InputSizes, Inputs, PortUse, Reads, Shape, Stage, StageError, Variables,
    Workload,
};
use crate::artifacts::feature_set;
use crate::artifacts::image_set::{self, Labelled, Selection};
use crate::artifacts::model::Model;
use crate::artifacts::scores::Metrics;
use crate::artifacts::size::{ImageCounts, Size};
use crate::artifacts::{Artifact, File};
use crate::kernels::map::{default_sigma, gaussian_radius};

/// Version of the kind, raised when outputs change for equal inputs. 1: first (2026-11-24). 2: intervals of pixel
/// metrics from exact quantiles, with the bound of their error (2026-11-24). 3: pictures show mistakes too, with captions
/// (2026-11-29).
pub const VERSION: u32 = 3;

/// Upper limit of the false positive rate for AUPRO (Bergmann et al. 2020, MVTec AD).
const FPR_LIMIT: f64 = 0.3;
/// Number of bootstrap resamples (Efron and Tibshirani 1993: 1000 for 95 % percentile intervals).
const RESAMPLES: i64 = 1000;
/// Radius of the blur of the reference implementation, as its image library defines it.
const REFERENCE_RADIUS: f32 = 2.0;

/// Seconds for a pixel of a map in each pass, and for each pixel beside it, in a row and in a column, that its blur reads
/// (measured: `src/plan/estimate/measured.rs`).
const MAP_PIXEL_SECONDS: f64 = 20e-9;
const BLURRED_PIXEL_SECONDS: f64 = 2e-9;
/// Seconds for a resample, and for each of its images (measured: `src/plan/estimate/measured.rs`).
const RESAMPLE_SECONDS: f64 = 10e-6;
const RESAMPLED_IMAGE_SECONDS: f64 = 0.8e-6;
/// Seconds for a pixel of a picture (chosen).
const PICTURE_PIXEL_SECONDS: f64 = 0.2e-6;

/// How a map is smoothed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Blur {
    /// Gaussian, in f32.
    Gaussian,
    /// As in the reference implementation: on an 8-bit image, radius 2.
    Reference,
    /// No smoothing.
    None,
}

const BLURS: [(&str, Blur); 3] =
    [("gaussian", Blur::Gaussian), ("reference", Blur::Reference), ("none", Blur::None)];

/// The fields of an `evaluate` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluate {
    /// The split that is scored.
    pub split: String,
    /// How a map is smoothed.
    pub blur: Blur,
    /// Standard deviation of the Gaussian in pixels. `None` uses 4 px for a short side of 224 px, scaled in proportion.
    pub sigma: Option<f64>,
    /// Upper limit of the false positive rate for AUPRO.
    pub fpr_limit: f64,
    /// Number of bootstrap resamples. 0 omits the intervals.
    pub bootstrap: usize,
    /// Whether maps at full image size are written too.
    pub full_maps: bool,
    /// Number of pictures that are drawn: of missed defects, false alarms and the highest scores.
    pub pictures: usize,
}

impl Stage for Evaluate {
    fn name() -> &'static str {
        "evaluate"
    }

    fn read(reader: &mut Reader<'_>) -> Self {
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

    fn about(&self) -> About {
        About {
            version: VERSION,
            is_random: self.bootstrap > 0,
            is_item_wise: false,
            is_blocking: false,
            is_target: true,
            is_shown: true,
            is_verified: true,
            estimates: Estimates::OfKind,
            foresees: false,
            pictures: &[],
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
        let selection = Selection { split: Some(self.split.clone()), label: None };
        match port {
            "features" => {
                let reads = Reads::Blocks { selection, with_masks: false };
                PortUse { reads, shape: Shape::Group { set: Some("images") } }
            }
            "images" if self.pictures > 0 => PortUse::one(Reads::Images(selection)),
            "images" => PortUse::one(Reads::Masks(selection)),
            _ => PortUse::whole(),
        }
    }

    fn outputs(&self) -> Vec<(String, Artifact)> {
        vec![("scores".to_owned(), Artifact::Scores)]
    }

    fn key_fields(&self) -> Fields {
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

    /// Estimates the memory of the banks and of a few images at a time.
    fn estimated_memory(&self, input_bytes: u64) -> u64 {
        input_bytes / 2 + 256_000_000
    }

    /// Searching the banks for the patches; maps of the pixels, once or twice, with their blur; pictures; the resamples of the
    /// bootstrap.
    fn workload(&self, inputs: &InputSizes) -> Workload {
        let selection = Selection { split: Some(self.split.clone()), label: None };
        let (features, images) = (inputs.first_images("features"), inputs.first_images("images"));
        let (Some(features), Some(images), Some(rows)) = (features, images, inputs.rows("model")) else {
            return Workload::unknown();
        };
        let count = images.selected(&selection);
        let passes = if self.bootstrap > 0 || self.full_maps { 2.0 } else { 1.0 };
        let a_pixel = MAP_PIXEL_SECONDS + self.blur_radius(images.positions) * BLURRED_PIXEL_SECONDS;
        let pixels = count * images.positions * passes * a_pixel;
        let pictures = count.min(self.pictures as f64) * images.positions * PICTURE_PIXEL_SECONDS;
        let resamples = self.bootstrap as f64 * (RESAMPLE_SECONDS + count * RESAMPLED_IMAGE_SECONDS);
        let seconds = search_seconds(count * features.positions, rows) + pixels + pictures + resamples;
        let maps = ImageCounts { positions: features.positions, channels: 1.0, ..images.clone() };
        Workload::of(seconds, "scores", Size::of_images(maps))
    }

    fn preflight(&self, _: &Variables) -> Result<(), StageError> {
        Ok(())
    }

    fn run(&self, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
        run(self, inputs, output, context)
    }
}

impl Evaluate {
    /// Returns how many pixels to each side the blur of a map reads; the map is taken for a square of `pixels` pixels.
    fn blur_radius(&self, pixels: f64) -> f64 {
        let side = pixels.sqrt() as usize;
        match self.blur {
            Blur::Gaussian => gaussian_radius(self.sigma.unwrap_or_else(|| default_sigma(side, side))) as f64,
            Blur::Reference => f64::from(REFERENCE_RADIUS),
            Blur::None => 0.0,
        }
    }
}

/// Scores every image of the split and writes `scores/`.
fn run(spec: &Evaluate, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
    let images = inputs.require("images")?;
    let labelled = image_set::labelled(images);
    if labelled.is_empty() {
        return Err(StageError::data(
            format!("the images have no split `{}`", spec.split),
            "`split` is the name of a split in the data set: most have `train` and `test`",
        ));
    }
    let model = Model::read(inputs.require("model")?)?;
    let features = inputs.members("features").next().map(|(_, files)| files);
    let features = features.ok_or_else(|| StageError::MissingInput { role: "features[0]".to_owned() })?;
    let of_features = feature_set::read_extraction(features)?;
    require_comparable("the model and `features`", &model.description.extraction, &of_features)?;
    let blocks: BTreeMap<&str, &File> = feature_set::blocks(features).collect();
    let scorer = Scorer::new(&model, context.search_device);
    let scorer = scorer.map_err(|error| StageError::kernel("cannot use the model", error))?;
    let folder = output.join("scores");
    let all: Vec<&Labelled<'_>> = labelled.values().collect();
    let (rows, mut pixels) = score(spec, &scorer, &all, &blocks, context)?;
    report_pixels(spec, &rows, &pixels, context);
    let statistics = second_pass(spec, &rows, &mut pixels, &folder, context)?;
    let pixel_scores = pixels.has_defects.then_some(pixels.scores);
    let metrics = measure(spec, &model, &rows, pixel_scores, statistics.as_ref(), context)?;
    write_files(&folder, &model, &rows, &metrics)?;
    picture::draw(spec, &folder, &rows, images, threshold(&model, &metrics))
}

/// The threshold by which pictures are judged: that of the model, else the one with the best F1 on this split.
fn threshold(model: &Model, metrics: &Metrics) -> ShownThreshold {
    match &model.description.threshold {
        Some(threshold) => ShownThreshold { score: threshold.score, name: "threshold" },
        None => ShownThreshold { score: metrics.image_f1_max_threshold as f32, name: "best-F1 threshold" },
    }
}

/// Says which images no pixel metric counts.
fn report_pixels(spec: &Evaluate, rows: &[Row<'_>], pixels: &Pixels, context: &Context<'_>) {
    let defects = rows.iter().filter(|row| row.is_defect()).count();
    let without = rows.iter().filter(|row| row.is_without_region).count();
    let split = &spec.split;
    if defects > 0 && !pixels.has_defects {
        context
            .progress
            .warn(&format!("no defect of the split `{split}` has a region: pixel metrics are not measured"));
    } else if without > 0 {
        context.progress.warn(&format!(
            "{without} of {defects} defective images of the split `{split}` have no region: no pixel metric counts them"
        ));
    }
}
