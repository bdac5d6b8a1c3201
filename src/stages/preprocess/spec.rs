//! The fields of a `preprocess` stage.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::depth::{DEPTHS, Depth};
use super::reading::Reading;
use crate::artifacts::Artifact;
use crate::artifacts::image_set::{Preprocessing, Resize};
use crate::artifacts::size::{ImageCounts, Size};
use crate::stages::fields::{Fields, Reader, fields, name_of};
use crate::stages::{
    About, Context, Estimates, InputSizes, Inputs, PortUse, Stage, StageError, Variables, Workload,
};

/// Allowed height and width of a resized image, in px.
const SIDES: std::ops::RangeInclusive<i64> = 1..=8192;

/// Seconds for an image with its mask, for each pixel that is decoded and for each that is encoded
/// (measured: `src/plan/estimate/measured.rs`).
const IMAGE_SECONDS: f64 = 0.4e-3;
const DECODED_PIXEL_SECONDS: f64 = 7e-9;
const ENCODED_PIXEL_SECONDS: f64 = 12e-9;

/// How a mask is resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MaskResize {
    /// A pixel is a defect if any source pixel that it covers is one.
    Area,
    /// Bilinear and truncated to integers, as in the reference implementation. Thin defects vanish.
    Reference,
}

/// How the defects of the training split are cropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crops {
    /// Margin around the bounding box of the component, in px.
    pub padding: usize,
    /// Height and width that a crop is stretched to, in px. 0 keeps the size of the box.
    pub size: usize,
    /// Least height and width of the box before it is stretched, in px.
    pub min_side: usize,
}

impl Crops {
    fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            padding: reader.integer("padding", 0..=1024, Some(1)) as usize,
            size: reader.integer("size", 0..=4096, Some(128)) as usize,
            min_side: reader.integer("min_side", 1..=4096, Some(1)) as usize,
        }
    }

    pub(super) fn key_fields(&self) -> Fields {
        let Self { padding, size, min_side } = self;
        fields([("padding", (*padding).into()), ("size", (*size).into()), ("min_side", (*min_side).into())])
    }

    pub(super) fn preprocessing(&self, depth_bits: Option<u8>) -> Preprocessing {
        let side = (self.size > 0).then_some(self.size);
        let resize = if self.size > 0 { Resize::Stretch } else { Resize::Native };
        Preprocessing { height_px: side, width_px: side, resize, via_px: None, depth_bits }
    }
}

const RESIZES: [(&str, Resize); 3] =
    [("stretch", Resize::Stretch), ("fit", Resize::Fit), ("crop", Resize::Crop)];
const MASK_RESIZES: [(&str, MaskResize); 2] =
    [("area", MaskResize::Area), ("reference", MaskResize::Reference)];

/// The fields of a `preprocess` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// How the input folder is read.
    pub reading: Reading,
    /// Height and width of the result. `None` keeps the size of each image.
    pub size: Option<(usize, usize)>,
    /// Height and width of an intermediate resize step, if any.
    pub via: Option<(usize, usize)>,
    /// Bits per level that are in use in images with 16 bits per level.
    pub depth: Depth,
    /// How an image is resized.
    pub resize: Resize,
    /// How a mask is resized.
    pub mask_resize: MaskResize,
    /// A pixel of a mask is a defect if its level is greater than this.
    pub mask_threshold: u8,
    /// How defects are cropped. `None` if they are not.
    pub crops: Option<Crops>,
}

impl Stage for Preprocess {
    fn name() -> &'static str {
        "preprocess"
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        reader.port("input", Artifact::Files);
        let reading = Reading::read(reader);
        let size = read_size(reader);
        let resize = reader.choice("resize", &RESIZES, Some("stretch"));
        let via = read_via(reader, size, resize);
        let has_crops = reader.has("crops");
        let crops = reader.table("crops", Crops::read);
        Self {
            reading,
            size,
            via,
            depth: read_depth(reader),
            resize,
            mask_resize: reader.choice("mask_resize", &MASK_RESIZES, Some("area")),
            mask_threshold: reader.integer("mask_threshold", 0..=254, Some(0)) as u8,
            crops: has_crops.then_some(crops),
        }
    }

    fn about(&self) -> About {
        About {
            version: super::VERSION,
            is_random: false,
            is_item_wise: true,
            is_blocking: false,
            is_target: false,
            is_shown: false,
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

    fn port(&self, _: &str) -> PortUse {
        PortUse::whole()
    }

    fn outputs(&self) -> Vec<(String, Artifact)> {
        let names = std::iter::once(super::IMAGES).chain(self.crops.as_ref().map(|_| super::CROPS));
        names.map(|name| (name.to_owned(), Artifact::ImageSet)).collect()
    }

    fn key_fields(&self) -> Fields {
        let mut all = self.pixel_fields();
        let Self { reading, size: _, via: _, depth, resize: _, mask_resize: _, mask_threshold: _, crops } =
            self;
        all.extend(reading.key_fields());
        all.insert("depth".to_owned(), depth.value());
        if let Some(crops) = crops {
            all.insert("crops".to_owned(), crops.key_fields().into());
        }
        all
    }

    fn estimated_memory(&self, _: u64) -> u64 {
        256_000_000
    }

    /// Decoding counts the pixels of the source, resizing and encoding those of the result.
    fn workload(&self, inputs: &InputSizes) -> Workload {
        let Some(source) = inputs.first_images("input") else { return Workload::unknown() };
        let positions = self.size.map_or(source.positions, |(height, width)| (height * width) as f64);
        let an_image =
            IMAGE_SECONDS + source.positions * DECODED_PIXEL_SECONDS + positions * ENCODED_PIXEL_SECONDS;
        let images = ImageCounts { positions, channels: 3.0, ..source.clone() };
        // How many crops there will be is unknown before the masks are read.
        Workload::of(source.total() * an_image, super::IMAGES, Size::of_images(images))
    }

    fn preflight(&self, _: &Variables) -> Result<(), StageError> {
        Ok(())
    }

    fn run(&self, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
        super::run(self, inputs, output, context)
    }
}

impl Preprocess {
    /// Returns the fields that determine the pixels and the mask of an image. `crops` is added only for images that
    /// have crops, and the resolved depth only for images with 16 bits per level.
    pub(super) fn pixel_fields(&self) -> Fields {
        let Self { reading: _, size, via, depth: _, resize, mask_resize, mask_threshold, crops: _ } = self;
        let mut all = fields([
            ("mask_resize", name_of(&MASK_RESIZES, mask_resize).into()),
            ("mask_threshold", i64::from(*mask_threshold).into()),
        ]);
        for (name, sides) in [("size", size), ("via", via)] {
            if let Some((height, width)) = sides {
                let sides = fields([("height", (*height).into()), ("width", (*width).into())]);
                all.insert(name.to_owned(), sides.into());
            }
        }
        if size.is_some() {
            all.insert("resize".to_owned(), name_of(&RESIZES, resize).into());
        }
        all
    }

    /// Returns how the pixels are computed, as the image set records it. `depth_bits` is the depth of its images with 16
    /// bits per level.
    pub fn preprocessing(&self, depth_bits: Option<u8>) -> Preprocessing {
        Preprocessing {
            height_px: self.size.map(|size| size.0),
            width_px: self.size.map(|size| size.1),
            resize: if self.size.is_some() { self.resize } else { Resize::Native },
            via_px: self.via,
            depth_bits,
        }
    }
}

fn read_depth(reader: &mut Reader<'_>) -> Depth {
    if reader.is_text("depth") {
        return reader.choice("depth", &[("auto", Depth::Auto)], Some("auto"));
    }
    match reader.optional_integer("depth", 8..=16) {
        None => Depth::Auto,
        Some(bits) if DEPTHS.contains(&(bits as u8)) => Depth::Bits(bits as u8),
        Some(bits) => {
            let message = format!("`depth` has no choice {bits}");
            let help = Some("use \"auto\", 8, 10, 12, 14 or 16".to_owned());
            reader.problem("depth", "unknown_choice", message, help);
            Depth::Auto
        }
    }
}

fn read_size(reader: &mut Reader<'_>) -> Option<(usize, usize)> {
    let height = reader.optional_integer("height", SIDES);
    let width = reader.optional_integer("width", SIDES);
    match (height, width) {
        (Some(height), Some(width)) => return Some((height as usize, width as usize)),
        (Some(_), None) => {
            reader
                .missing("width", "pixels; remove both `height` and `width` to keep the size of each image");
        }
        (None, Some(_)) => {
            reader
                .missing("height", "pixels; remove both `height` and `width` to keep the size of each image");
        }
        (None, None) if reader.has("resize") => {
            let message = "`resize` has no meaning without `height` and `width`".to_owned();
            reader.problem("resize", "unused_field", message, Some("add both, or remove it".to_owned()));
        }
        (None, None) => {}
    }
    None
}

fn read_via(reader: &mut Reader<'_>, size: Option<(usize, usize)>, resize: Resize) -> Option<(usize, usize)> {
    if !reader.has("via") {
        return None;
    }
    let via = reader.table("via", |inner| {
        (inner.integer("height", SIDES, None) as usize, inner.integer("width", SIDES, None) as usize)
    });
    if size.is_none() || resize == Resize::Fit {
        let message = "`via` needs `height`, `width` and `resize = \"stretch\"` or `\"crop\"`".to_owned();
        reader.problem("via", "unused_field", message, Some("remove it".to_owned()));
    }
    if resize == Resize::Crop && size.is_some_and(|size| via.0 < size.0 || via.1 < size.1) {
        let message = "`via` is smaller than `height` × `width`, which `crop` cuts out of it".to_owned();
        reader.too_small("via", message, "make it at least `height` × `width`".to_owned());
    }
    Some(via)
}
