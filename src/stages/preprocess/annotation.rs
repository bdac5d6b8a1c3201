//! Regions that an annotation file outlines, instead of a mask that shows them: COCO, LabelMe, YOLO.
//!
//! | format | file | drawn as | without a shape |
//! |---|---|---|---|
//! | COCO | one for many images, `images` and `annotations` | pycocotools; run lengths as they are | normal, if it is in `images` |
//! | LabelMe | one for each image, `shapes` | LabelMe (Pillow) | normal |
//! | YOLO | one `.txt` for each image | centres of pixels | normal, also without a file |
//!
//! A box is no region: an image with one is defective, and no pixel metric counts its pixels. Nothing is clipped or
//! repaired: a point more than 1 px outside of its image is an error.

mod class_names;
mod classes;
mod coco;
mod encoding;
mod labelme;
mod yolo;

use std::collections::BTreeSet;

use image::GrayImage;
use serde::{Deserialize, Serialize};

use super::decode::decode_bytes;
use super::marks::Canvas;
use super::reading::Reading;
use crate::artifacts::File;
use crate::artifacts::image_set::Label;
use crate::kernels::components::components;
use crate::kernels::polygon::{
    PixelRule, Point, Raster, fill_circle, fill_disc, fill_rectangle, fill_ring, fill_runs,
};
use crate::stages::StageError;

pub(super) use class_names::{ClassNames, read_class_names};
pub(super) use classes::Classes;
pub(super) use coco::CocoFile;
pub(super) use labelme::read as read_labelme;
pub(super) use yolo::read as read_yolo;

/// Distance in px by which a point may lie outside of its image: annotators click on the border.
const TOLERANCE: f64 = 1.0;

/// Pixels of the largest mask that is drawn: 512 MiB (chosen as for images that are decoded at once).
const MOST_DRAWN: usize = 512 << 20;

/// The choices of the field `polygon_rule`; `None` stands for the rule of the format.
pub(super) const RULES: [(&str, Option<PixelRule>); 5] = [
    ("auto", None),
    ("coco", Some(PixelRule::Coco)),
    ("labelme", Some(PixelRule::LabelMe)),
    ("opencv", Some(PixelRule::OpenCv)),
    ("centre", Some(PixelRule::Centre)),
];

/// What an annotation file says of one image.
#[derive(Clone, Debug)]
pub(super) struct Annotation<'a> {
    /// The file.
    pub(super) file: &'a File,
    /// How polygons are drawn.
    rule: PixelRule,
    /// Height and width of the image, as the file states them.
    stated: Option<(u64, u64)>,
    /// Whether coordinates are fractions of the image's sides.
    is_relative: bool,
    /// The outlined regions.
    shapes: Vec<Shape>,
    /// Number of boxes and of other marks that are no region.
    pub(super) box_count: usize,
    /// The classes of shapes and boxes.
    classes: BTreeSet<String>,
}

/// An outlined region.
#[derive(Clone, Debug)]
struct Shape {
    /// Such as `annotation 17`.
    name: String,
    outline: Outline,
}

#[derive(Clone, Debug)]
enum Outline {
    /// United rings.
    Rings(Vec<Vec<Point>>),
    /// Two opposite corners.
    Rectangle([Point; 2]),
    /// The centre, and a point on the rim.
    Circle([Point; 2]),
    /// Run lengths of an image of this height and width, in column-major order.
    Runs { height: u64, width: u64, lengths: Vec<u32> },
    /// The encoded image of a mask, and the corners of its box, both included.
    Bitmap { corners: [Point; 2], encoded: Vec<u8> },
}

/// What is known of the outlines of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OutlineFacts {
    /// Outlines that cover no pixel.
    pub(super) empty_count: usize,
    /// Rings that cover several regions, because they are thinner than a pixel.
    pub(super) torn_count: usize,
}

impl OutlineFacts {
    /// Returns whether there is nothing to report.
    pub(super) fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// Returns the error of a mark in an annotation file.
fn wrong(file: &File, name: &str, what: &str) -> StageError {
    let help = if what.contains("means normal") {
        "`defect_classes = [\"…\"]` lists the classes that are defects"
    } else {
        "correct the annotation, or remove it"
    };
    StageError::data(format!("`{}`, {name}: {what}", file.path.display()), help)
}

/// Returns the error of a file that is no annotation of the expected format.
fn unreadable(file: &File, format: &str, what: impl std::fmt::Display) -> StageError {
    StageError::data(
        format!("cannot read `{}` as an annotation of {format}: {what}", file.path.display()),
        "export it again, or choose another `layout`",
    )
}

impl<'a> Annotation<'a> {
    /// Creates an annotation without a shape.
    fn new(file: &'a File, rule: PixelRule, reading: &Reading) -> Self {
        Self {
            file,
            rule: reading.polygon_rule.unwrap_or(rule),
            stated: None,
            is_relative: false,
            shapes: Vec::new(),
            box_count: 0,
            classes: BTreeSet::new(),
        }
    }

    /// Returns the label that the annotation gives to its image.
    pub(super) fn label(&self) -> Label {
        if self.shapes.is_empty() && self.box_count == 0 { Label::Normal } else { Label::Defect }
    }

    /// Returns the kind of the defects, if they are of one kind.
    pub(super) fn kind(&self) -> Option<String> {
        let class = self.classes.first().filter(|_| self.classes.len() == 1)?;
        // Classes become folders.
        let is_fit = |letter: char| !letter.is_control() && !['/', '\\'].contains(&letter);
        let is_plain = !class.is_empty() && !class.starts_with('.') && class.chars().all(is_fit);
        is_plain.then(|| class.clone())
    }

    /// Draws the regions into a mask of the image's size (width, height), whose defects are 255. A box has no region, so
    /// that an image with one has none: its mask would be incomplete.
    pub(super) fn draw(
        &self,
        Canvas { size, is_turned }: Canvas,
        image: &File,
    ) -> Result<(GrayImage, OutlineFacts), StageError> {
        let (height, width) = (size.1 as usize, size.0 as usize);
        self.check_size((height as u64, width as u64), image, is_turned)?;
        check_extent(height, width, image)?;
        let mut united = Raster::new(height, width);
        let mut facts = OutlineFacts::default();
        for shape in self.shapes.iter().filter(|_| self.box_count == 0) {
            let mut drawn = Raster::new(height, width);
            self.draw_shape(shape, &mut drawn, &mut facts)
                .map_err(|what| wrong(self.file, &shape.name, &what))?;
            facts.empty_count += usize::from(!drawn.marks.contains(&255));
            united.marks.iter_mut().zip(&drawn.marks).for_each(|(all, one)| *all |= one);
        }
        let mask = GrayImage::from_raw(size.0, size.1, united.marks).expect("one level per pixel");
        Ok((mask, facts))
    }

    fn check_size(&self, size: (u64, u64), image: &File, is_turned: bool) -> Result<(), StageError> {
        let Some(stated) = self.stated.filter(|stated| *stated != size) else { return Ok(()) };
        let message = format!(
            "`{}` describes an image of {}×{} px, but `{}` has {}×{} px (height × width)",
            self.file.path.display(),
            stated.0,
            stated.1,
            image.path.display(),
            size.0,
            size.1,
        );
        let help = if is_turned && (stated.1, stated.0) == size {
            "the image is turned as its EXIF orientation says, and the annotation is not: remove the tag from the image \
             with its pixels as they are, or annotate the turned image"
        } else {
            "annotate this image, or restore the one that was annotated"
        };
        Err(StageError::data(message, help))
    }

    /// Draws one shape. The error describes the problem.
    fn draw_shape(&self, shape: &Shape, drawn: &mut Raster, facts: &mut OutlineFacts) -> Result<(), String> {
        match &shape.outline {
            Outline::Rings(rings) => {
                for ring in rings {
                    let ring = self.in_pixels(ring, drawn)?;
                    facts.torn_count += usize::from(draw_ring(self.rule, &ring, drawn) > 1);
                }
            }
            Outline::Rectangle(corners) => {
                let [a, b] = self.in_pixels(corners, drawn)?[..] else { return Ok(()) };
                if self.rule == PixelRule::LabelMe {
                    fill_rectangle([a, b], drawn);
                } else {
                    fill_ring(self.rule, &[a, [b[0], a[1]], b, [a[0], b[1]]], drawn);
                }
            }
            Outline::Circle(points) => {
                let [centre, rim] = self.in_pixels(points, drawn)?[..] else { return Ok(()) };
                match self.rule {
                    PixelRule::LabelMe => fill_circle(centre, rim, drawn),
                    PixelRule::Centre => {
                        let radius = (centre[0] - rim[0]).hypot(centre[1] - rim[1]);
                        fill_disc(centre, radius, drawn);
                    }
                    PixelRule::Coco | PixelRule::OpenCv => {
                        return Err("a circle has no pixels by this `polygon_rule`".to_owned());
                    }
                }
            }
            Outline::Runs { height, width, lengths } => {
                if (*height, *width) != (drawn.height as u64, drawn.width as u64) {
                    return Err(format!("its run lengths are of an image of {height}×{width} px"));
                }
                fill_runs(lengths, drawn);
            }
            Outline::Bitmap { corners, encoded } => draw_bitmap(*corners, encoded, drawn)?,
        }
        Ok(())
    }

    /// Returns points in pixels. The error names one that is outside of the image.
    fn in_pixels(&self, points: &[Point], raster: &Raster) -> Result<Vec<Point>, String> {
        let sides = [raster.width as f64, raster.height as f64];
        let scale = if self.is_relative { sides } else { [1.0, 1.0] };
        let scaled: Vec<Point> =
            points.iter().map(|point| [point[0] * scale[0], point[1] * scale[1]]).collect();
        let is_inside =
            |point: &Point| (0..2).all(|axis| (-TOLERANCE..=sides[axis] + TOLERANCE).contains(&point[axis]));
        match scaled.iter().find(|point| !is_inside(point)) {
            None => Ok(scaled),
            Some([x, y]) => Err(format!(
                "the point ({x}, {y}) is outside of its image of {}×{} px (height × width)",
                raster.height, raster.width
            )),
        }
    }
}

/// Checks that a mask is not too large to be drawn: outlines are drawn at once.
fn check_extent(height: usize, width: usize, image: &File) -> Result<(), StageError> {
    if height * width <= MOST_DRAWN {
        return Ok(());
    }
    let path = image.path.display();
    Err(StageError::data(
        format!(
            "`{path}` has {height}×{width} px (height × width), and outlines are drawn into 512 Mi px at most"
        ),
        "cut the image and its annotation into tiles, or export masks in place of outlines",
    ))
}

/// Draws a ring. Returns the number of regions that it covers.
fn draw_ring(rule: PixelRule, ring: &[Point], drawn: &mut Raster) -> usize {
    // Only rows and columns that the ring can reach are looked at.
    let range = |axis: usize, side: usize| {
        let values = ring.iter().map(|point| point[axis]);
        let first = values.clone().fold(f64::INFINITY, f64::min).floor() - 1.0;
        let last = values.fold(f64::NEG_INFINITY, f64::max).ceil() + 2.0;
        (first.max(0.0) as usize).min(side)..(last.max(0.0) as usize).min(side)
    };
    let (columns, rows) = (range(0, drawn.width), range(1, drawn.height));
    let mut alone = Raster::new(drawn.height, drawn.width);
    fill_ring(rule, ring, &mut alone);
    let mut part = Vec::with_capacity(rows.len() * columns.len());
    for row in rows.clone() {
        part.extend_from_slice(&alone.marks[row * alone.width..][columns.clone()]);
    }
    for (row, marks) in rows.clone().zip(part.chunks_exact(columns.len().max(1))) {
        let to = &mut drawn.marks[row * alone.width..][columns.clone()];
        to.iter_mut().zip(marks).for_each(|(all, one)| *all |= one);
    }
    components(&part, rows.len(), columns.len()).len()
}

/// Draws a mask within its box.
fn draw_bitmap(corners: [Point; 2], encoded: &[u8], drawn: &mut Raster) -> Result<(), String> {
    let mask = decode_bytes(encoded).map_err(|fault| format!("its mask cannot be read: {fault}"))?.image;
    let [left, top, right, bottom] =
        [corners[0][0], corners[0][1], corners[1][0], corners[1][1]].map(|value| value as i64);
    let (width, height) = (i64::from(mask.width()), i64::from(mask.height()));
    let is_within = left >= 0 && top >= 0 && right < drawn.width as i64 && bottom < drawn.height as i64;
    if !is_within || (right - left + 1, bottom - top + 1) != (width, height) {
        return Err(format!("its mask of {height}×{width} px does not fit into its box or image"));
    }
    for (x, y, level) in mask.to_luma8().enumerate_pixels() {
        if level.0[0] > 0 {
            drawn.marks[(top as usize + y as usize) * drawn.width + left as usize + x as usize] = 255;
        }
    }
    Ok(())
}

/// Returns the points of a list x, y, x, y …
fn points(numbers: &[f64]) -> Result<Vec<Point>, String> {
    if numbers.len() < 6 || numbers.len() % 2 == 1 {
        return Err(format!("a polygon needs 3 points or more, and has {} numbers", numbers.len()));
    }
    if numbers.iter().any(|number| !number.is_finite()) {
        return Err("a coordinate is not finite".to_owned());
    }
    Ok(numbers.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect())
}

/// Returns the path of a file within the input that another file names, relative to the folder of that file.
pub(super) fn resolved(folder: &str, written: &str) -> Option<String> {
    let written = written.replace('\\', "/");
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in written.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop()?;
        } else {
            parts.push(part);
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests;
