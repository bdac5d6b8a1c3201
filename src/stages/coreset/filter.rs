//! Filters the candidates of a bank: drops single patches that look normal, and unsuitable synthetic samples.
//!
//! A synthetic sample (from an `augment` stage) is judged by two medians over the patches that its mask covers: of
//! their distances to the normal bank, and of their distances to the nearest patch of a real defect. The limits are
//! quantiles of the same distances between normal rows, or real defect patches, of different images.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::super::fields::{Fields, Reader};
use super::super::{Context, Inputs, StageError};
use super::{Source, rows_of};
use crate::artifacts::bank::{Bank, SyntheticCounts};
use crate::artifacts::files::csv_field;
use crate::kernels::KernelError;
use crate::kernels::nearest;
use crate::kernels::scoring::quantile;

/// Which synthetic samples are dropped: the fields `select.made_near_normal` and `select.made_far_from_real`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SyntheticFilter {
    /// Drops samples that are near the normal bank: the limit is this quantile of the distances between its rows of
    /// different images. `None` drops nothing.
    pub near_normal: Option<f64>,
    /// Drops samples that are far from all real defects: the limit is this quantile of the distances between real
    /// defect patches of different images. `None` drops nothing.
    pub far_from_real: Option<f64>,
}

impl SyntheticFilter {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            near_normal: reader.optional_float("made_near_normal", 0.0..=1.0),
            far_from_real: reader.optional_float("made_far_from_real", 0.0..=1.0),
        }
    }

    /// Returns whether any filter is set.
    pub fn is_set(&self) -> bool {
        self.near_normal.is_some() || self.far_from_real.is_some()
    }

    pub(super) fn add_fields(&self, all: &mut Fields) {
        let Self { near_normal, far_from_real } = self;
        for (name, value) in [("made_near_normal", near_normal), ("made_far_from_real", far_from_real)] {
            if let Some(value) = value {
                all.insert(name.to_owned(), (*value).into());
            }
        }
    }

    /// Removes unsuitable samples from `sources`. Returns the verdicts as a CSV table, and their counts.
    pub(super) fn apply(
        &self,
        inputs: &Inputs,
        sources: &mut Vec<Source<'_>>,
        context: &Context<'_>,
    ) -> Result<(String, SyntheticCounts), StageError> {
        let normal = self.near_normal.map(|q| DistanceLimit::of_normals(q, inputs, context)).transpose()?;
        let real = self.far_from_real.map(|q| DistanceLimit::of_reals(q, sources, context)).transpose()?;
        let mut table = "id,patches,to_normal,normal_limit,to_real,real_limit,verdict\n".to_owned();
        let mut counts = SyntheticCounts::default();
        let mut kept = Vec::new();
        for source in sources.drain(..) {
            context.check()?;
            if !source.is_synthetic {
                kept.push(source);
                continue;
            }
            let rows = rows_of(&source)?;
            let measure = |limit: &Option<DistanceLimit>| {
                limit.as_ref().map(|limit| limit.median_distance(&rows)).transpose()
            };
            let (to_normal, to_real) = (measure(&normal)?, measure(&real)?);
            let distance = |limit: &Option<DistanceLimit>| limit.as_ref().map(|limit| limit.distance);
            let (near, far) = (distance(&normal), distance(&real));
            let verdict = if to_normal.zip(near).is_some_and(|(distance, limit)| distance <= limit) {
                counts.near_normal += 1;
                "near normal"
            } else if to_real.zip(far).is_some_and(|(distance, limit)| distance > limit) {
                counts.far_from_real += 1;
                "far from real"
            } else {
                counts.kept += 1;
                "kept"
            };
            let cell = |value: Option<f32>| value.map_or_else(String::new, |value| format!("{value:.6}"));
            let _ = writeln!(
                table,
                "{},{},{},{},{},{},{verdict}",
                csv_field(source.id),
                source.patches.len(),
                cell(to_normal),
                cell(near),
                cell(to_real),
                cell(far)
            );
            if verdict == "kept" {
                kept.push(source);
            }
        }
        *sources = kept;
        Ok((table, counts))
    }
}

/// Reference rows, and the distance to them that a sample is compared with.
struct DistanceLimit {
    index: nearest::SearchBank,
    distance: f32,
}

impl DistanceLimit {
    /// Uses the bank of the port `normal` as reference. The limit is the quantile `q` of the distances between its rows
    /// of different images.
    fn of_normals(q: f64, inputs: &Inputs, context: &Context<'_>) -> Result<Self, StageError> {
        let normal = Bank::read(inputs.require("normal")?)?;
        Self::new(q, &normal.rows, normal.d(), &normal.image, "the normal bank", context)
    }

    /// Uses the candidates of real defects as reference. The limit is the quantile `q` of the distances between patches
    /// of different images.
    fn of_reals(q: f64, sources: &[Source<'_>], context: &Context<'_>) -> Result<Self, StageError> {
        let (mut rows, mut images) = (Vec::new(), Vec::new());
        let mut d = 0;
        for (image, source) in sources.iter().filter(|source| !source.is_synthetic).enumerate() {
            let of_source = rows_of(source)?;
            d = of_source.len() / source.patches.len();
            images.extend(source.patches.iter().map(|_| image as u32));
            rows.extend(of_source);
        }
        if images.is_empty() {
            return Err(StageError::data(
                "`made_far_from_real` has no real defect to compare with: none is selected",
                "remove `select.set`, so that the real defects are candidates too, or remove `made_far_from_real`",
            ));
        }
        Self::new(q, &rows, d, &images, "the real defects", context)
    }

    fn new(
        q: f64,
        rows: &[f32],
        d: usize,
        images: &[u32],
        what: &str,
        context: &Context<'_>,
    ) -> Result<Self, StageError> {
        let index = nearest::SearchBank::on(context.search_device, rows.to_vec(), d).map_err(failed)?;
        let between = index.nearest_excluding(rows, images, images).map_err(failed)?;
        let finite: Vec<f32> = between.distance.into_iter().filter(|distance| distance.is_finite()).collect();
        if finite.is_empty() {
            return Err(StageError::data(
                format!("{what} come from a single image: the filter needs distances between images"),
                "remove the filter, or add more images",
            ));
        }
        Ok(Self { index, distance: quantile(&finite, q).map_err(failed)? })
    }

    /// Returns the median distance of `rows` to their nearest reference rows.
    fn median_distance(&self, rows: &[f32]) -> Result<f32, StageError> {
        quantile(&self.distances(rows)?, 0.5).map_err(failed)
    }

    /// Returns the distance of each row to its nearest reference row.
    fn distances(&self, rows: &[f32]) -> Result<Vec<f32>, StageError> {
        Ok(self.index.nearest(rows, 1).map_err(failed)?.distance)
    }
}

fn failed(error: KernelError) -> StageError {
    StageError::kernel("cannot compare the candidates", error)
}

/// Drops candidates that are near the normal bank: not farther than the quantile `q` of the distances between its rows
/// of different images.
pub(super) fn drop_near_normal(
    q: f64,
    inputs: &Inputs,
    sources: &mut Vec<Source<'_>>,
    context: &Context<'_>,
) -> Result<(), StageError> {
    let normal = DistanceLimit::of_normals(q, inputs, context)?;
    for source in sources.iter_mut() {
        context.check()?;
        let distances = normal.distances(&rows_of(source)?)?;
        let mut far = distances.iter().map(|&distance| distance > normal.distance);
        source.patches.retain(|_| far.next().unwrap_or(true));
    }
    sources.retain(|source| !source.patches.is_empty());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use image::{GrayImage, Luma};

    use super::super::super::context::testing::TestContext;
    use super::super::super::fields::{Problem, Value};
    use super::super::Coreset;
    use super::*;
    use crate::artifacts::Files;
    use crate::artifacts::bank::Description;
    use crate::artifacts::feature_set::{Block, Extraction, StoragePrecision, block_name, write_block};
    use crate::artifacts::files::write_json;
    use crate::artifacts::image_set::{Label, Preprocessing, Resize, SYNTHETIC_KIND, label_name, write_mask};
    use crate::stages::{MASKS, Role, Spec, Stage};

    fn extraction() -> Extraction {
        let preprocessing = Preprocessing {
            height_px: None,
            width_px: None,
            resize: Resize::Native,
            via_px: None,
            depth_bits: None,
        };
        Extraction {
            preprocessing,
            backbone: "resnet18".to_owned(),
            weights: "test".to_owned(),
            layers: vec!["layer2".to_owned()],
            neighbourhood: "mean3".to_owned(),
            alignment: "bilinear".to_owned(),
            embedding: "concat".to_owned(),
            storage: StoragePrecision::F32,
            dimension: 2,
        }
    }

    /// Adds an image with one patch per value. Its mask covers all patches.
    fn add(folder: &Path, id: &str, kind: &str, values: &[[f32; 2]]) {
        let block = Block { height: 1, width: values.len(), d: 2, data: values.concat(), frame: None };
        write_block(&folder.join("features").join(block_name(id)), &block, StoragePrecision::F32).unwrap();
        let mask = GrayImage::from_pixel(values.len() as u32 * 8, 8, Luma([255]));
        let name = label_name("train", Label::Defect, kind, id);
        write_mask(&folder.join("masks").join(name), &mask).unwrap();
    }

    fn inputs(folder: &Path) -> Inputs {
        write_json(&folder.join("features/features.json"), &extraction()).unwrap();
        // Normal rows of two images, at distance 1 from each other.
        let normal = Bank {
            description: Description {
                extraction: extraction(),
                strategy: "all".to_owned(),
                candidates: 2,
                filtered: 0,
                synthetic: None,
                images: vec!["a".to_owned(), "b".to_owned()],
            },
            rows: vec![0.0, 0.0, 1.0, 0.0],
            image: vec![0, 1],
            patch: vec![0, 0],
        };
        normal.write(&folder.join("normal")).unwrap();
        let files = |name: &str| Files::of_folder(&folder.join(name)).unwrap();
        Inputs(
            [
                (Role::indexed("features", 0), files("features")),
                (Role::indexed(MASKS, 0), files("masks")),
                (Role::only("normal"), files("normal")),
            ]
            .into(),
        )
    }

    fn read(near: Option<f64>, far: Option<f64>) -> (Spec, Vec<Problem>) {
        let mut select: Fields = [("label".to_owned(), "defect".into())].into();
        for (name, value) in [("made_near_normal", near), ("made_far_from_real", far)] {
            select.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        let table: Fields = [
            ("features".to_owned(), "features".into()),
            ("normal".to_owned(), "bank".into()),
            ("select".to_owned(), Value::Table(select)),
        ]
        .into();
        let (mut problems, mut ports) = (Vec::new(), Vec::new());
        let mut reader = Reader::new(&table, &mut problems, &mut ports);
        let spec = Coreset::read(&mut reader);
        reader.finish();
        (Spec::new(spec), problems)
    }

    #[test]
    fn samples_that_look_normal_or_like_no_real_defect_are_dropped_whole() {
        let folder = tempfile::tempdir().unwrap();
        // Real defects at 10 and 12, so at distance 2.
        add(folder.path(), "real/1", "any", &[[10.0, 0.0]]);
        add(folder.path(), "real/2", "any", &[[12.0, 0.0]]);
        // Two of the three patches of the first sample are within distance 1 of the normal rows.
        add(folder.path(), "made/normal", SYNTHETIC_KIND, &[[0.5, 0.0], [1.5, 0.0], [11.0, 0.0]]);
        add(folder.path(), "made/good", SYNTHETIC_KIND, &[[11.0, 0.5], [0.5, 0.0], [11.0, 1.0]]);
        add(folder.path(), "made/strange", SYNTHETIC_KIND, &[[0.0, 90.0]]);
        let (spec, problems) = read(Some(1.0), Some(1.0));
        assert!(problems.is_empty(), "{problems:?}");
        let context = TestContext::new();
        let files = context.run(&spec, &inputs(folder.path()), 1, "bank").unwrap();
        let bank = Bank::read(&files).unwrap();
        assert_eq!(bank.description.images, ["made/good", "real/1", "real/2"]);
        let counts = bank.description.synthetic.unwrap();
        assert_eq!((counts.kept, counts.near_normal, counts.far_from_real), (1, 1, 1));
        let table = String::from_utf8(files.get("made.csv").unwrap().read().unwrap()).unwrap();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[1], "made/good,3,10.012492,1.000000,1.414214,2.000000,kept");
        assert!(
            lines[2].starts_with("made/normal,3,0.500000,1.000000,") && lines[2].ends_with(",near normal")
        );
        assert!(lines[3].ends_with(",far from real"), "{table}");
    }

    #[test]
    fn each_filter_works_alone_and_missing_real_defects_are_reported() {
        let folder = tempfile::tempdir().unwrap();
        add(folder.path(), "made/1", SYNTHETIC_KIND, &[[5.0, 0.0]]);
        let context = TestContext::new();
        let alone = context.run(&read(Some(0.5), None).0, &inputs(folder.path()), 1, "bank").unwrap();
        assert_eq!(Bank::read(&alone).unwrap().len(), 1);
        let error =
            TestContext::new().run(&read(None, Some(0.5)).0, &inputs(folder.path()), 1, "bank").unwrap_err();
        assert!(error.to_string().contains("no real defect to compare with"), "{error}");
        let (_, problems) = {
            let table: Fields = [
                ("features".to_owned(), "features".into()),
                ("select".to_owned(), Value::Table([("made_near_normal".to_owned(), 0.5.into())].into())),
            ]
            .into();
            let (mut problems, mut ports) = (Vec::new(), Vec::new());
            let mut reader = Reader::new(&table, &mut problems, &mut ports);
            let spec = Coreset::read(&mut reader);
            reader.finish();
            (spec, problems)
        };
        let help = problems[0].help().unwrap();
        assert!(help.contains("`select.made_near_normal` compares with"), "{problems:?}");
    }
}
