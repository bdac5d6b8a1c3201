//! `augment`: generates synthetic defective images from the training split, for the defect bank.
//!
//! Every method adds a synthetic defect to a random normal training image, inside a random defect mask of the training
//! split that is rotated, mirrored and scaled:
//!
//! - `cutpaste` pastes the real defect. It is the cheap baseline that trained generators must beat.
//! - `ddpm` inpaints a defect with a small diffusion model that is trained on the split itself.
//! - `sdxl-inpaint` inpaints a defect with Stable Diffusion XL from a text prompt, as in `ExDD`.
//!
//! ```text
//! images/pixels/images/<method>/00000.png
//! images/labels/train/defect/synthetic/<method>/00000.png
//! images/pixels/set.json                   copied from the input set
//! images/pixels/padding.json               where the samples lie within their padding (only if one has any)
//! images/provenance.csv                    the sources and parameters of each image
//! images/samples.png                       the first images with their masks, for people
//! ```

mod cutpaste;
mod ddpm;
mod faults;
mod motions;
mod provenance;
mod samples;
mod sdxl;
mod sources;

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Reader, fields};
use super::{
    About, Context, Estimates, InputSizes, Inputs, PortUse, Reads, Stage, StageError, Variables, Workload,
};
use crate::artifacts::Artifact;
use crate::artifacts::image_set::{
    Label, Region, Selection, read_preprocessing, write_padding, write_preprocessing,
};
use crate::artifacts::size::{ImageClass, ImageCounts, Size};
use crate::kernels::backbone::{Backend, Target};
use crate::kernels::random::Rng;

pub use cutpaste::Pasting;
pub use ddpm::Painting;
pub use motions::Motions;
pub use sdxl::Inpainting;

/// Raised when outputs change for equal inputs.
///
/// 1: first; `cutpaste`. 2: one table of provenance for all methods (2026-11-28). 3: nothing is cut out of or painted into
/// padding; a picture of the first images; samples that show no defect are left out (2026-11-29).
pub const VERSION: u32 = 3;

/// Files of the output that the run folder shows.
const PICTURES: [&str; 4] = ["provenance.csv", samples::PICTURE, "training/loss.svg", "training/samples.png"];

/// Seconds for an image that is read or written, and for each of its pixels (chosen: as of `preprocess`).
const IMAGE_SECONDS: f64 = 0.4e-3;
const PIXEL_SECONDS: f64 = 19e-9;

/// How defects are generated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Method {
    /// Pastes real defects onto normal images.
    CutPaste(Pasting),
    /// Inpaints defects with a diffusion model that the stage trains.
    Ddpm(Painting),
    /// Inpaints defects with Stable Diffusion XL.
    SdxlInpaint(Inpainting),
}

impl Method {
    /// Returns the name in a manifest.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CutPaste(_) => "cutpaste",
            Self::Ddpm(_) => "ddpm",
            Self::SdxlInpaint(_) => "sdxl-inpaint",
        }
    }
}

/// The fields of an `augment` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Augment {
    /// How defects are generated.
    pub method: Method,
    /// Number of images that are generated. Those that show no defect are left out afterwards.
    pub count: usize,
    /// How masks are rotated, mirrored and scaled.
    pub motions: Motions,
}

impl Stage for Augment {
    fn name() -> &'static str {
        "augment"
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        reader.port("images", Artifact::ImageSet);
        Self {
            method: read_method(reader),
            count: reader.integer("count", 1..=100_000, None) as usize,
            motions: Motions::read(reader),
        }
    }

    fn about(&self) -> About {
        About {
            version: VERSION,
            is_random: true,
            is_item_wise: false,
            is_blocking: matches!(self.method, Method::SdxlInpaint(_)),
            is_target: false,
            is_shown: true,
            is_verified: true,
            estimates: Estimates::WithEqual(&["method", "device", "precision"]),
            foresees: false,
            pictures: &PICTURES,
            threads: 1,
            memory_bytes: 0,
            tolerance: None,
            depends_on_machine: self.depends_on_machine(),
            compute_target: self.compute_target(),
            source: None,
            tools: Vec::new(),
            implied: Vec::new(),
        }
    }

    fn port(&self, port: &str) -> PortUse {
        match port {
            "images" => PortUse::one(Reads::Images(training_split())),
            _ => PortUse::whole(),
        }
    }

    fn outputs(&self) -> Vec<(String, Artifact)> {
        vec![("images".to_owned(), Artifact::ImageSet)]
    }

    /// All fields enter the key.
    fn key_fields(&self) -> Fields {
        let Self { method, count, motions } = self;
        let mut all = fields([("method", method.name().into()), ("count", (*count).into())]);
        motions.add_fields(&mut all);
        match method {
            Method::CutPaste(pasting) => pasting.add_fields(&mut all),
            Method::Ddpm(painting) => painting.add_fields(&mut all),
            Method::SdxlInpaint(inpainting) => inpainting.add_fields(&mut all),
        }
        all
    }

    fn estimated_memory(&self, input_bytes: u64) -> u64 {
        match &self.method {
            Method::CutPaste(_) | Method::Ddpm(_) => 256_000_000,
            Method::SdxlInpaint(inpainting) => inpainting.memory(input_bytes),
        }
    }

    fn workload(&self, inputs: &InputSizes) -> Workload {
        let Some(source) = inputs.first_images("images") else { return Workload::unknown() };
        let (count, pixels) = (self.count as f64, source.positions);
        let defects = source.selected(&Selection { label: Some(Label::Defect), ..training_split() });
        let an_image = IMAGE_SECONDS + pixels * PIXEL_SECONDS;
        let generation = match &self.method {
            Method::CutPaste(_) => 0.0,
            Method::Ddpm(painting) => painting.seconds(count),
            Method::SdxlInpaint(inpainting) => inpainting.seconds(count),
        };
        let class = ImageClass { split: "train".to_owned(), label: Label::Defect, count };
        let images = ImageCounts { classes: vec![class], positions: pixels, channels: 3.0 };
        let seconds = (defects + count) * an_image + generation;
        Workload::of(seconds, "images", Size::of_images(images))
    }

    fn preflight(&self, environment: &Variables) -> Result<(), StageError> {
        match &self.method {
            Method::CutPaste(_) => Ok(()),
            Method::Ddpm(painting) => painting.preflight(),
            Method::SdxlInpaint(_) => Inpainting::preflight(environment),
        }
    }

    fn run(&self, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
        run(self, inputs, output, context)
    }
}

impl Augment {
    /// Returns backend, device and number format of a generator in this build; `None` for the other methods.
    fn compute_target(&self) -> Option<Target> {
        match &self.method {
            // The libraries of an external program are not part of this build. The program logs their versions.
            Method::CutPaste(_) | Method::SdxlInpaint(_) => None,
            Method::Ddpm(painting) => Some(painting.target),
        }
    }

    /// Returns whether another machine may paint other pixels: libtorch and PyTorch sum in an order that depends on the
    /// processor or card.
    fn depends_on_machine(&self) -> bool {
        match &self.method {
            Method::CutPaste(_) => false,
            Method::Ddpm(painting) => painting.target.backend == Backend::Torch,
            Method::SdxlInpaint(_) => true,
        }
    }

    /// Returns one seed for each sample. They are drawn in order, so a larger `count` does not change the first seeds.
    fn seeds(&self, seed: u64) -> Vec<u64> {
        let mut rng = Rng::new(seed, "augment");
        (0..self.count).map(|_| rng.next_u64()).collect()
    }
}

/// Returns the selection of images that are read. Test images are never used for synthetic defects.
fn training_split() -> Selection {
    Selection { split: Some("train".to_owned()), label: None }
}

fn read_method(reader: &mut Reader<'_>) -> Method {
    const NAMES: [&str; 3] = ["cutpaste", "ddpm", "sdxl-inpaint"];
    // `method` may be an axis, so the fields of all methods are allowed for each method.
    reader.know(&Pasting::FIELDS);
    reader.know(&Painting::FIELDS);
    reader.know(&Inpainting::FIELDS);
    let name = reader.text("method");
    let is_sdxl = name.as_deref() == Some("sdxl-inpaint");
    let has_weights = reader.optional_port("weights", Artifact::Files, is_sdxl);
    match name.as_deref() {
        Some("ddpm") => return Method::Ddpm(Painting::read(reader)),
        Some("sdxl-inpaint") => return Method::SdxlInpaint(Inpainting::read(reader, has_weights)),
        Some(name) if name != "cutpaste" => reader.unknown_choice("method", name, &NAMES),
        None if !reader.has("method") => {
            reader.missing("method", "`\"cutpaste\"`, `\"ddpm\"` or `\"sdxl-inpaint\"`");
        }
        Some(_) | None => {}
    }
    Method::CutPaste(Pasting::read(reader))
}

/// Generates `count` images and writes them into `output/images`.
///
/// # Errors
/// [`StageError::Data`] if the training split lacks defects or normal images.
fn run(spec: &Augment, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
    let files = inputs.require("images")?;
    let set = output.join("images");
    let origins = match &spec.method {
        Method::CutPaste(pasting) => pasting.run(spec, files, &set, context)?,
        Method::Ddpm(painting) => painting.run(spec, files, &set, context)?,
        Method::SdxlInpaint(inpainting) => inpainting.run(spec, inputs, &set, context)?,
    };
    faults::report(&origins, context)?;
    write_preprocessing(&set, &read_preprocessing(files)?)?;
    let kept = origins.iter().filter(|origin| origin.fault.is_none());
    let padded = kept.filter_map(|origin| {
        let Region { top, left, height, width } = origin.region?;
        Some((origin.id.as_str(), [top, left, height, width]))
    });
    write_padding(&set, &padded.collect())?;
    let table = provenance::table(spec.method.name(), &origins);
    crate::artifacts::files::write(&set.join("provenance.csv"), table.as_bytes())?;
    samples::draw(&set, &origins)
}

fn id_of(method: &str, index: usize) -> String {
    format!("{method}/{index:05}")
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, Rgb, RgbImage};

    use super::*;
    use crate::artifacts::Files;
    use crate::artifacts::image_set::{
        Preprocessing, Resize, SYNTHETIC_KIND, UNCOUNTED, label_name, labelled, pixels, pixels_name,
        read_mask, read_padding, read_rgb, write_mask, write_rgb,
    };
    use crate::stages::context::testing::TestContext;
    use crate::stages::drawing::tests::read_line;
    use crate::stages::fields::{Problem, Value};

    /// Writes a training set of `normal` normal and `defect` defective images of 24×32 px, and a defect in `test` that
    /// must not be read.
    pub(super) fn set(normal: u32, defect: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let how = Preprocessing {
            height_px: None,
            width_px: None,
            resize: Resize::Native,
            via_px: None,
            depth_bits: None,
        };
        write_preprocessing(folder.path(), &how).unwrap();
        for index in 0..=(normal + defect) {
            let (split, label) = match index {
                _ if index < normal => ("train", Label::Normal),
                _ if index < normal + defect => ("train", Label::Defect),
                _ => ("test", Label::Defect),
            };
            let id = format!("{split}/{index}");
            let mut image = RgbImage::from_pixel(32, 24, Rgb([100 + index as u8; 3]));
            let mut mask = GrayImage::new(32, 24);
            for column in 8..16 {
                if label == Label::Defect {
                    image.put_pixel(column, 10, Rgb([20; 3]));
                    mask.put_pixel(column, 10, Luma([255]));
                }
            }
            write_rgb(&folder.path().join(pixels_name(&id)), &image).unwrap();
            write_mask(&folder.path().join(label_name(split, label, "any", &id)), &mask).unwrap();
        }
        folder
    }

    pub(super) fn read(pairs: &[(&str, Value)]) -> (Augment, Vec<Problem>) {
        let mut table: Fields =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        table.insert("images".to_owned(), "images".into());
        let (mut problems, mut ports) = (Vec::new(), Vec::new());
        let mut reader = Reader::new(&table, &mut problems, &mut ports);
        let spec = Augment::read(&mut reader);
        reader.finish();
        (spec, problems)
    }

    fn spec() -> crate::stages::Spec {
        let (spec, problems) = read(&[("method", "cutpaste".into()), ("count", Value::Integer(40))]);
        assert!(problems.is_empty(), "{problems:?}");
        crate::stages::Spec::new(spec)
    }

    fn generate(context: &TestContext, set: &tempfile::TempDir, seed: u64) -> Result<Files, StageError> {
        let inputs =
            Inputs([(crate::stages::Role::only("images"), Files::of_folder(set.path()).unwrap())].into());
        context.run(&spec(), &inputs, seed, "images")
    }

    fn digest(files: &Files) -> String {
        let mut hasher = blake3::Hasher::new();
        for (name, file) in files.iter() {
            hasher.update(name.as_bytes()).update(&file.read().unwrap());
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }

    #[test]
    fn every_sample_is_a_training_defect_whose_mask_marks_what_changed() {
        let (context, set) = (TestContext::new(), set(3, 2));
        let files = generate(&context, &set, 1).unwrap();
        let all = labelled(&files);
        assert_eq!(all.len(), 40);
        for (id, one) in all {
            assert_eq!((one.entry.split, one.entry.kind), ("train", Some(SYNTHETIC_KIND)), "{id}");
            let (image, mask) = (read_rgb(pixels(&files)[id]).unwrap(), read_mask(one.mask).unwrap());
            let marked: usize = mask.iter().map(|&value| usize::from(value == 255)).sum();
            assert!((4..=24).contains(&marked), "{id}: {marked}");
            let background = image.pixels().map(|pixel| pixel.0[0]).max().unwrap();
            assert!((100..103).contains(&background), "{id} is based on a normal training image");
            for (pixel, value) in image.pixels().zip(mask.iter()) {
                assert!(*value == 0 || pixel.0[0] < background, "{id}: a marked pixel is darker");
            }
        }
        let table = String::from_utf8(files.get("provenance.csv").unwrap().read().unwrap()).unwrap();
        assert_eq!(table.lines().count(), 41);
        assert!(table.lines().nth(1).unwrap().starts_with("cutpaste/00000,cutpaste,train/"), "{table}");
        assert!(!table.contains("test/"));
        // Four rows of two samples; the lines say which, and on what.
        let picture = image::load_from_memory(&files.get("samples.png").unwrap().read().unwrap());
        let picture = picture.unwrap().to_rgb8();
        assert!(read_line(&picture, 0).starts_with("cutpaste/00000"), "{}", read_line(&picture, 0));
        assert!(read_line(&picture, 1).starts_with("on train/"));
        let masks = picture.pixels().filter(|pixel| pixel.0 == [0; 3]).count();
        assert!(
            masks >= 8 * 20 * 30,
            "the masks of eight samples are black where nothing was pasted: {masks}"
        );
        assert_eq!(read_preprocessing(&files).unwrap().resize, Resize::Native);
    }

    /// Surrounds the images of a set with padding of 6 px above and 8 below, of a colour that no image has.
    fn pad(set: &tempfile::TempDir) {
        let files = Files::of_folder(set.path()).unwrap();
        for (id, one) in labelled(&files) {
            let (image, mask) = (read_rgb(pixels(&files)[id]).unwrap(), read_mask(one.mask).unwrap());
            let mut framed = RgbImage::from_pixel(32, 38, PAD);
            image::imageops::replace(&mut framed, &image, 0, 6);
            let mut marks = GrayImage::from_pixel(32, 38, Luma([UNCOUNTED]));
            image::imageops::replace(&mut marks, &mask, 0, 6);
            write_rgb(&pixels(&files)[id].path, &framed).unwrap();
            write_mask(&one.mask.path, &marks).unwrap();
        }
    }

    const PAD: Rgb<u8> = Rgb([250, 0, 250]);

    #[test]
    fn nothing_is_cut_out_of_padding_or_painted_into_it() {
        let (context, whole) = (TestContext::new(), set(3, 2));
        let unpadded = generate(&context, &whole, 1).unwrap();
        assert!(unpadded.get("pixels/padding.json").is_none());
        pad(&whole);
        let padded_context = TestContext::new();
        let files = generate(&padded_context, &whole, 1).unwrap();
        let boxes = read_padding(&files).unwrap();
        let right = labelled(&unpadded);
        for (id, one) in labelled(&files) {
            assert_eq!(boxes[id], [6, 0, 24, 32], "{id}");
            let image = read_rgb(pixels(&files)[id]).unwrap();
            let marks = image::load_from_memory(&one.mask.read().unwrap()).unwrap().into_luma8();
            for y in (0..6).chain(30..38) {
                assert!((0..32).all(|x| *image.get_pixel(x, y) == PAD), "{id}: row {y}");
                assert!((0..32).all(|x| marks.get_pixel(x, y).0[0] == UNCOUNTED), "{id}: row {y}");
            }
            // Inside it is the sample of the set without padding: no defect is placed, cut out or levelled by it.
            let inside = image::imageops::crop_imm(&image, 0, 6, 32, 24).to_image();
            assert_eq!(inside, read_rgb(pixels(&unpadded)[id]).unwrap(), "{id}");
            let inside = image::imageops::crop_imm(&marks, 0, 6, 32, 24).to_image();
            assert_eq!(inside, read_mask(right[id].mask).unwrap(), "{id}");
        }
        let tops = |files: &Files| -> Vec<i64> {
            let table = String::from_utf8(files.get("provenance.csv").unwrap().read().unwrap()).unwrap();
            table.lines().skip(1).map(|line| line.split(',').nth(9).unwrap().parse().unwrap()).collect()
        };
        let lower: Vec<i64> = tops(&unpadded).into_iter().map(|top| top + 6).collect();
        assert_eq!(tops(&files), lower, "positions are those in the padded image");
    }

    #[test]
    fn equal_seeds_give_equal_bytes_for_any_number_of_threads() {
        let set = set(3, 2);
        let digest_with = |threads: usize, seed: u64| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let context = TestContext::new();
            pool.install(|| digest(&generate(&context, &set, seed).unwrap()))
        };
        assert_eq!(digest_with(1, 1), digest_with(3, 1));
        assert_ne!(digest_with(1, 1), digest_with(1, 2));
    }

    #[test]
    fn a_training_split_without_defects_or_normals_is_refused() {
        let error = |set: &tempfile::TempDir| generate(&TestContext::new(), set, 1).unwrap_err().to_string();
        assert!(error(&set(2, 0)).contains("it has 2 normal and 0 defective images"));
        assert!(error(&set(0, 2)).contains("the training split has no normal image"));
    }

    #[test]
    fn fields_of_another_method_are_allowed_and_not_in_the_key() {
        let pairs =
            [("method", "cutpaste".into()), ("count", Value::Integer(4)), ("steps", Value::Integer(9))];
        let (spec, problems) = read(&pairs);
        assert!(problems.is_empty() && !spec.key_fields().contains_key("steps"));
        let known = |name: &str, fields: &[&str]| {
            let (spec, _) = read(&[("method", name.into()), ("count", Value::Integer(4))]);
            let fields_of_all = ["count", "flip", "method", "min_area", "rotation", "scale"];
            for field in spec.key_fields().keys() {
                let derived = ["levels", "groups", "times", "program"].contains(&field.as_str());
                assert!(
                    fields_of_all.contains(&field.as_str()) || fields.contains(&field.as_str()) || derived
                );
            }
        };
        known("cutpaste", &Pasting::FIELDS);
        known("ddpm", &Painting::FIELDS);
        known("sdxl-inpaint", &Inpainting::FIELDS);
    }

    #[test]
    fn a_diffusion_model_runs_in_every_build_and_on_libtorch_where_it_is_there() {
        let of = |backend: &str| {
            read(&[("method", "ddpm".into()), ("count", Value::Integer(1)), ("backend", backend.into())])
        };
        let (spec, problems) = read(&[("method", "ddpm".into()), ("count", Value::Integer(1))]);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(spec, of("rust").0, "the default");
        assert!(spec.preflight(&Variables::new()).is_ok() && !spec.depends_on_machine());
        assert!(spec.key_fields().contains_key("backend"));
        let (spec, problems) = of("torch");
        assert!(problems.is_empty(), "{problems:?}");
        assert!(spec.depends_on_machine() && !spec.key_fields().contains_key("backend"));
        match spec.preflight(&Variables::new()) {
            Err(missing) => assert!(!Backend::Torch.is_built() && missing.to_string().contains("ddpm")),
            Ok(()) => assert!(Backend::Torch.is_built()),
        }
        let (_, problems) =
            read(&[("method", "ddpm".into()), ("count", Value::Integer(1)), ("device", "cuda".into())]);
        assert_eq!(problems.iter().map(Problem::code).collect::<Vec<_>>(), ["unfit_backend"]);
        let (_, problems) = read(&[
            ("method", "ddpm".into()),
            ("count", Value::Integer(1)),
            ("side", Value::Integer(60)),
            ("channels", Value::Integer(12)),
            ("device", "gpu".into()),
        ]);
        let codes: Vec<&str> = problems.iter().map(Problem::code).collect();
        assert_eq!(codes, ["unfit_side", "unfit_channels", "unknown_choice"]);
    }

    #[test]
    fn a_misspelt_method_gets_a_suggestion() {
        let (_, problems) = read(&[("method", "cutpast".into()), ("count", Value::Integer(1))]);
        assert_eq!(problems[0].help().as_deref(), Some("did you mean `cutpaste`?"));
        let (_, problems) = read(&[]);
        assert_eq!(problems.iter().map(Problem::code).collect::<Vec<_>>(), ["missing_field"; 2]);
    }
}
