//! Generates synthetic surfaces in the layout of KSDD2: `train/10000.png` with `train/10000_GT.png`, `test/20000.png` …

use std::path::Path;

use image::{GrayImage, RgbImage};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::artifacts::image_set::{write_mask, write_rgb};
use crate::artifacts::size::ImageCounts;
use crate::kernels::random::Rng;
use crate::kernels::surface::{SurfaceDefect, Texture, surface};
use crate::stages::fields::{Fields, Reader, fields, name_of};
use crate::stages::{Context, StageError};

/// Number of images between two checks for cancellation.
const BATCH: usize = 64;

/// The kinds of defects, assigned to defective images in turn.
const DEFECTS: [SurfaceDefect; 3] = [SurfaceDefect::Scratch, SurfaceDefect::Spot, SurfaceDefect::Crack];

/// What is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum SurfaceKind {
    Surfaces,
}

const SURFACES: [(&str, SurfaceKind); 1] = [("surfaces", SurfaceKind::Surfaces)];

const TEXTURES: [(&str, Texture); 2] = [("brushed", Texture::Brushed), ("cast", Texture::Cast)];

/// How many surfaces are generated, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synthetic {
    kind: SurfaceKind,
    texture: Texture,
    train_normal: usize,
    train_defect: usize,
    test_normal: usize,
    test_defect: usize,
    height: usize,
    width: usize,
    seed: u64,
}

impl Synthetic {
    /// Reads the table `synthetic`. With the default counts and size, the quickstart takes seconds.
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let kind = reader.choice("kind", &SURFACES, Some("surfaces"));
        let texture = reader.choice("texture", &TEXTURES, Some("brushed"));
        let mut count = |name, least, default| reader.integer(name, least..=100_000, Some(default)) as usize;
        Self {
            kind,
            texture,
            train_normal: count("train_normal", 1, 40),
            train_defect: count("train_defect", 0, 8),
            test_normal: count("test_normal", 1, 16),
            test_defect: count("test_defect", 1, 16),
            height: reader.integer("height", 16..=4096, Some(96)) as usize,
            width: reader.integer("width", 16..=4096, Some(160)) as usize,
            seed: reader.integer("seed", 0..=i64::MAX, Some(0)) as u64,
        }
    }

    pub(super) fn key_fields(&self) -> Fields {
        let Self { kind, texture, train_normal, train_defect, test_normal, test_defect, height, width, seed } =
            self;
        fields([
            ("kind", name_of(&SURFACES, kind).into()),
            ("texture", name_of(&TEXTURES, texture).into()),
            ("train_normal", (*train_normal).into()),
            ("train_defect", (*train_defect).into()),
            ("test_normal", (*test_normal).into()),
            ("test_defect", (*test_defect).into()),
            ("height", (*height).into()),
            ("width", (*width).into()),
            ("seed", (*seed).into()),
        ])
    }

    /// Counts the images.
    pub(super) fn images(&self) -> ImageCounts {
        let splits =
            [("train", self.train_normal, self.train_defect), ("test", self.test_normal, self.test_defect)];
        super::image_counts(&splits, (self.height * self.width) as f64)
    }

    /// Lists all images: the name without extension, and the defect.
    fn plan(&self) -> Vec<(String, Option<SurfaceDefect>)> {
        let split = |folder: &'static str, first: usize, normal: usize, defect: usize| {
            (0..normal + defect).map(move |index| {
                let defect = index.checked_sub(normal).map(|index| DEFECTS[index % DEFECTS.len()]);
                (format!("{folder}/{}", first + index), defect)
            })
        };
        let train = split("train", 10_000, self.train_normal, self.train_defect);
        // The first digit is that of KSDD2. Ids need not be unique across the folders.
        train.chain(split("test", 20_000, self.test_normal, self.test_defect)).collect()
    }
}

/// Writes the surfaces. Each has its own random number stream, so results do not depend on the order of work.
pub(super) fn write(synthetic: &Synthetic, files: &Path, context: &Context<'_>) -> Result<(), StageError> {
    let plan = synthetic.plan();
    for (batch, images) in plan.chunks(BATCH).enumerate() {
        context.check()?;
        images.par_iter().try_for_each(|(name, defect)| write_one(synthetic, name, *defect, files))?;
        context.progress.report((batch * BATCH + images.len()) as u64, plan.len() as u64, "image");
    }
    Ok(())
}

fn write_one(
    synthetic: &Synthetic,
    name: &str,
    defect: Option<SurfaceDefect>,
    files: &Path,
) -> Result<(), StageError> {
    let mut rng = Rng::new(synthetic.seed, &format!("surface/{name}"));
    let (height, width) = (synthetic.height, synthetic.width);
    let drawn = surface(&mut rng, synthetic.texture, defect, height, width);
    let (wide, high) = (width as u32, height as u32);
    let pixels = RgbImage::from_raw(wide, high, drawn.pixels).expect("three levels per pixel");
    let mask = GrayImage::from_raw(wide, high, drawn.mask).expect("one level per pixel");
    write_rgb(&files.join(format!("{name}.png")), &pixels)?;
    write_mask(&files.join(format!("{name}_GT.png")), &mask)?;
    Ok(())
}
