//! `augment`: defective images made from the training split, for the defect bank.
//!
//! `cutpaste` pastes a random real defect (a component of a training mask) at a random place of a random
//! normal training image, turned, mirrored and scaled. It is the cheap baseline that trained generators
//! must beat.
//!
//! ```text
//! images/pixels/images/cutpaste/00000.png
//! images/labels/train/defect/synthetic/cutpaste/00000.png
//! images/pixels/set.json                   that of the set it was made from
//! images/provenance.csv                    what each image was made of
//! ```

use std::path::Path;

use image::{GrayImage, RgbImage};
use rayon::prelude::*;

use super::fields::{Fields, Reader, fields};
use super::{Context, Inputs, StageError};
use crate::artifacts::files::csv_field;
use crate::artifacts::image_set::{
    Label, Labelled, Selection, label_name, labelled, pixels, pixels_name, read_mask, read_preprocessing,
    read_rgb, write_mask, write_preprocessing, write_rgb,
};
use crate::artifacts::{Artifact, ArtifactError, File, Files};
use crate::kernels::components::components;
use crate::kernels::cutpaste::{Motion, Moved, Patch, Target};
use crate::kernels::random::Stream;

/// Bumped when outputs change for equal inputs.
///
/// 1: first; `cutpaste`.
pub const VERSION: u32 = 1;

/// Samples between two looks at whether the user wants to stop.
const BATCH: usize = 32;

/// Draws of a motion before a defect is pasted unturned and unscaled.
const DRAWS: usize = 8;

/// The kind of a made defect.
const KIND: &str = "synthetic";

/// How defects are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Real defects pasted onto normal images.
    CutPaste,
}

/// Names that will be methods, and are asked for.
const LATER: [&str; 2] = ["ddpm", "sdxl-inpaint"];

/// What an `augment` stage does.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// How defects are made.
    pub method: Method,
    /// How many images are made.
    pub count: usize,
    /// Width of the soft border around a pasted defect, in px.
    pub blend: usize,
    /// Greatest turn to either side, in degrees. Li et al. turn their scars by up to 45.
    pub rotation: f64,
    /// Sizes vary by factors from `1 / (1 + scale)` to `1 + scale`.
    pub scale: f64,
    /// Whether half of the defects are mirrored.
    pub flip: bool,
    /// Contrasts vary by factors from `1 - colour` to `1 + colour`. Li et al. jitter colours by 0.1.
    pub colour: f64,
    /// Components with fewer pixels are left out.
    pub min_area: usize,
}

impl Spec {
    /// Reads the fields of an `augment` stage.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        reader.port("images", Artifact::ImageSet);
        Self {
            method: read_method(reader),
            count: reader.integer("count", 1..=100_000, None) as usize,
            blend: reader.integer("blend", 0..=64, Some(2)) as usize,
            rotation: reader.float("rotation", 0.0..=180.0, Some(45.0)),
            scale: reader.float("scale", 0.0..=4.0, Some(0.25)),
            flip: reader.boolean("flip", true),
            colour: reader.float("colour", 0.0..=1.0, Some(0.1)),
            min_area: reader.integer("min_area", 1..=1_000_000, Some(4)) as usize,
        }
    }

    /// The fields that enter the key: all of them.
    pub fn fields(&self) -> Fields {
        let Self { method: Method::CutPaste, count, blend, rotation, scale, flip, colour, min_area } = self;
        fields([
            ("method", "cutpaste".into()),
            ("count", (*count).into()),
            ("blend", (*blend).into()),
            ("rotation", (*rotation).into()),
            ("scale", (*scale).into()),
            ("flip", (*flip).into()),
            ("colour", (*colour).into()),
            ("min_area", (*min_area).into()),
        ])
    }

    /// The images that are read: the training split. Test images never reach a made defect.
    pub fn selection(&self) -> Selection {
        Selection { split: Some("train".to_owned()), label: None }
    }
}

fn read_method(reader: &mut Reader<'_>) -> Method {
    match reader.text("method") {
        Some(name) if LATER.contains(&name.as_str()) => {
            let message = format!("`method` has no choice `{name}` yet");
            let help = "write `method = \"cutpaste\"`; `ddpm` and `sdxl-inpaint` come with a later release";
            reader.problem("method", "unknown_choice", message, Some(help.to_owned()));
        }
        Some(name) if name != "cutpaste" => reader.unknown_choice("method", &name, &["cutpaste"]),
        None if !reader.has("method") => reader.missing("method", "`\"cutpaste\"`"),
        Some(_) | None => {}
    }
    Method::CutPaste
}

/// A defect that can be pasted.
struct Defect<'a> {
    image: &'a str,
    component: usize,
    patch: Patch,
}

/// What one sample was made of: a line of `provenance.csv`.
struct Origin<'a> {
    normal: &'a str,
    defect: &'a Defect<'a>,
    seed: u64,
    motion: Motion,
    top: isize,
    left: isize,
}

/// Makes `count` images into `output/images`.
///
/// Each sample has a seed of its own, drawn in order from the stream `augment`; samples are then made
/// in parallel, and the bytes do not depend on the number of threads.
///
/// # Errors
/// [`StageError::Data`] where the training split lacks defects or normal images.
pub fn run(spec: &Spec, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
    let files = inputs.require("images")?;
    let set = output.join("images");
    let (defects, normals) = sources(spec, files, context)?;
    let mut stream = Stream::new(context.seed, "augment");
    let seeds: Vec<u64> = (0..spec.count).map(|_| stream.next_u64()).collect();
    let mut origins = Vec::with_capacity(spec.count);
    for (batch, members) in seeds.chunks(BATCH).enumerate() {
        context.check()?;
        let first = batch * BATCH;
        let made: Result<Vec<Origin<'_>>, StageError> = members
            .par_iter()
            .enumerate()
            .map(|(place, &seed)| make(spec, seed, &defects, &normals, &set, &id_of(first + place)))
            .collect();
        origins.extend(made?);
        context.progress.report((first + members.len()) as u64, spec.count as u64, "image");
    }
    write_preprocessing(&set, &read_preprocessing(files)?)?;
    Ok(crate::artifacts::files::write(&set.join("provenance.csv"), provenance(&origins).as_bytes())?)
}

fn id_of(place: usize) -> String {
    format!("cutpaste/{place:05}")
}

type Sources<'a> = (Vec<Defect<'a>>, Vec<(&'a str, &'a File)>);

/// Cuts every defect of the training split, and lists its normal images.
fn sources<'a>(spec: &Spec, files: &'a Files, context: &Context<'_>) -> Result<Sources<'a>, StageError> {
    let (all, selection) = (pixels(files), spec.selection());
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
    let cut: Result<Vec<Vec<Defect<'a>>>, StageError> =
        defective.par_iter().map(|(id, image, one)| cut(spec, id, image, one)).collect();
    let defects: Vec<Defect<'a>> = cut?.into_iter().flatten().collect();
    let counted = format!("{} normal and {} defective images", normals.len(), defective.len());
    if defects.is_empty() {
        return Err(StageError::data(
            format!("no defect of {} px or more is in the training split; it has {counted}", spec.min_area),
            "cutpaste needs labelled defects in `train`; a data set without any cannot be augmented this way",
        ));
    }
    if normals.is_empty() {
        let help = "cutpaste pastes onto normal images of `train`";
        return Err(StageError::data(
            format!("no normal image is in the training split; it has {counted}"),
            help,
        ));
    }
    Ok((defects, normals))
}

fn cut<'a>(
    spec: &Spec,
    id: &'a str,
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
        .filter(|(_, component)| component.pixels.len() >= spec.min_area)
        .map(|(number, component)| {
            let patch = Patch::cut(pixels.as_raw(), mask.as_raw(), width, &component.pixels, spec.blend);
            Defect { image: id, component: number, patch }
        })
        .collect())
}

/// Makes one sample and writes it.
fn make<'a>(
    spec: &Spec,
    seed: u64,
    defects: &'a [Defect<'a>],
    normals: &[(&'a str, &File)],
    set: &Path,
    id: &str,
) -> Result<Origin<'a>, StageError> {
    let mut stream = Stream::new(seed, "cutpaste");
    let (normal, file) = normals[stream.below(normals.len())];
    let defect = &defects[stream.below(defects.len())];
    let mut image = read_rgb(file)?;
    let (height, width) = (image.height() as usize, image.width() as usize);
    let (motion, moved) = draw(spec, &mut stream, &defect.patch, (height, width));
    let (top, left) = position(&mut stream, &moved, (height, width));
    let mask = moved.paste(&mut Target { height, width, pixels: &mut image }, top, left);
    write(set, id, &image, mask)?;
    Ok(Origin { normal, defect, seed, motion, top, left })
}

/// Draws a motion after which the defect is still there and fits into the image.
fn draw(spec: &Spec, stream: &mut Stream, patch: &Patch, (height, width): (usize, usize)) -> (Motion, Moved) {
    for _ in 0..DRAWS {
        let size = stream.between(-1.0, 1.0);
        let factor = 1.0 + spec.scale * size.abs();
        let motion = Motion {
            angle: stream.between(-spec.rotation, spec.rotation),
            scale: if size < 0.0 { 1.0 / factor } else { factor },
            flip: stream.below(2) == 1 && spec.flip,
            contrast: stream.between(1.0 - spec.colour, 1.0 + spec.colour),
        };
        let moved = patch.moved(&motion);
        if moved
            .extent()
            .is_some_and(|(top, left, bottom, right)| bottom - top <= height && right - left <= width)
        {
            return (motion, moved);
        }
    }
    let still = Motion { angle: 0.0, scale: 1.0, flip: false, contrast: 1.0 };
    (still, patch.moved(&still))
}

/// Draws where the patch's corner comes to lie, so that all that is marked lies within the image; a
/// defect larger than the image begins at its edge.
fn position(stream: &mut Stream, moved: &Moved, (height, width): (usize, usize)) -> (isize, isize) {
    let (top, left, bottom, right) = moved.extent().expect("an unmoved defect keeps its pixels");
    let mut place = |first: usize, length: usize, side: usize| {
        stream.below(side.saturating_sub(length) + 1) as isize - first as isize
    };
    (place(top, bottom - top, height), place(left, right - left, width))
}

fn write(set: &Path, id: &str, image: &RgbImage, mask: Vec<u8>) -> Result<(), StageError> {
    let mask = GrayImage::from_raw(image.width(), image.height(), mask).expect("a level a pixel was made");
    write_rgb(&set.join(pixels_name(id)), image)?;
    write_mask(&set.join(label_name("train", Label::Defect, KIND, id)), &mask)?;
    Ok(())
}

/// The table of origins: the normal image, the image whose mask gave the defect, and how it was moved.
fn provenance(origins: &[Origin<'_>]) -> String {
    let header = "id,source_image,source_mask,component,seed,angle,scale,flip,contrast,top,left".to_owned();
    let rows = origins.iter().enumerate().map(|(place, origin)| {
        let Origin { normal, defect, seed, motion, top, left } = origin;
        let Motion { angle, scale, flip, contrast } = motion;
        let (id, normal, image) = (id_of(place), csv_field(normal), csv_field(defect.image));
        let component = defect.component;
        format!(
            "{id},{normal},{image},{component},{seed},{angle:.3},{scale:.4},{flip},{contrast:.4},{top},{left}"
        )
    });
    let lines: Vec<String> = std::iter::once(header).chain(rows).collect();
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use image::{Luma, Rgb};

    use super::*;
    use crate::artifacts::image_set::Preprocessing;
    use crate::artifacts::image_set::Resize;
    use crate::stages::context::testing::Bench;
    use crate::stages::fields::{Problem, Value};

    /// A training set of `normal` and `defect` images of 24×32 px, and a defect in `test` that must not
    /// be read.
    fn set(normal: u32, defect: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let how = Preprocessing { height_px: None, width_px: None, resize: Resize::Native, via_px: None };
        write_preprocessing(folder.path(), &how).unwrap();
        for place in 0..=(normal + defect) {
            let (split, label) = match place {
                _ if place < normal => ("train", Label::Normal),
                _ if place < normal + defect => ("train", Label::Defect),
                _ => ("test", Label::Defect),
            };
            let id = format!("{split}/{place}");
            let mut image = RgbImage::from_pixel(32, 24, Rgb([100 + place as u8; 3]));
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

    fn read(pairs: &[(&str, Value)]) -> (Spec, Vec<Problem>) {
        let mut table: Fields =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        table.insert("images".to_owned(), "images".into());
        let (mut problems, mut ports) = (Vec::new(), Vec::new());
        let mut reader = Reader::new(&table, &mut problems, &mut ports);
        let spec = Spec::read(&mut reader);
        reader.finish();
        (spec, problems)
    }

    fn spec() -> super::super::Spec {
        let (spec, problems) = read(&[("method", "cutpaste".into()), ("count", Value::Integer(40))]);
        assert!(problems.is_empty(), "{problems:?}");
        super::super::Spec::Augment(spec)
    }

    fn made(bench: &Bench, set: &tempfile::TempDir, seed: u64) -> Result<Files, StageError> {
        let inputs = Inputs([("images".to_owned(), Files::of_folder(set.path()).unwrap())].into());
        bench.run(&spec(), &inputs, seed, "images")
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
        let (bench, set) = (Bench::new(), set(3, 2));
        let files = made(&bench, &set, 1).unwrap();
        let all = labelled(&files);
        assert_eq!(all.len(), 40);
        for (id, one) in all {
            assert_eq!((one.entry.split, one.entry.kind), ("train", Some(KIND)), "{id}");
            let (image, mask) = (read_rgb(pixels(&files)[id]).unwrap(), read_mask(one.mask).unwrap());
            let marked: usize = mask.iter().map(|&value| usize::from(value == 255)).sum();
            assert!((4..=24).contains(&marked), "{id}: {marked}");
            let background = image.pixels().map(|pixel| pixel.0[0]).max().unwrap();
            assert!((100..103).contains(&background), "{id} lies on a normal training image");
            for (pixel, value) in image.pixels().zip(mask.iter()) {
                assert!(*value == 0 || pixel.0[0] < background, "{id}: a marked pixel is darker");
            }
        }
        let table = String::from_utf8(files.get("provenance.csv").unwrap().read().unwrap()).unwrap();
        assert_eq!(table.lines().count(), 41);
        assert!(table.lines().nth(1).unwrap().starts_with("cutpaste/00000,train/"), "{table}");
        assert!(!table.contains("test/"));
        assert_eq!(read_preprocessing(&files).unwrap().resize, Resize::Native);
    }

    #[test]
    fn equal_seeds_give_equal_bytes_for_any_number_of_threads() {
        let set = set(3, 2);
        let digest_with = |threads: usize, seed: u64| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let bench = Bench::new();
            pool.install(|| digest(&made(&bench, &set, seed).unwrap()))
        };
        assert_eq!(digest_with(1, 1), digest_with(3, 1));
        assert_ne!(digest_with(1, 1), digest_with(1, 2));
    }

    #[test]
    fn a_training_split_without_defects_or_normals_is_refused() {
        let error = |set: &tempfile::TempDir| made(&Bench::new(), set, 1).unwrap_err().to_string();
        assert!(error(&set(2, 0)).contains("it has 2 normal and 0 defective images"));
        assert!(error(&set(0, 2)).contains("no normal image is in the training split"));
    }

    #[test]
    fn methods_to_come_are_named() {
        let (_, problems) = read(&[("method", "ddpm".into()), ("count", Value::Integer(1))]);
        assert!(
            problems[0].code == "unknown_choice"
                && problems[0].help.as_ref().unwrap().contains("later release")
        );
        let (_, problems) = read(&[("method", "cutpast".into()), ("count", Value::Integer(1))]);
        assert_eq!(problems[0].help.as_deref(), Some("did you mean `cutpaste`?"));
        let (_, problems) = read(&[]);
        assert_eq!(problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), ["missing_field"; 2]);
    }
}
