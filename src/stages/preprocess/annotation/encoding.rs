//! The part of an image's key that an annotation gives: everything that can change a pixel of its mask, or an error.

use super::{Annotation, Outline, Point};
use crate::digest::Digest;
use crate::kernels::polygon::PixelRule;

impl Annotation<'_> {
    /// Returns a digest of the outlines and of how they are drawn. Names and classes do not count.
    pub(in super::super) fn digest_text(&self) -> String {
        let Self { file: _, rule, stated, is_relative, shapes, box_count, classes: _ } = self;
        let mut bytes = Bytes::default();
        bytes.number(match rule {
            PixelRule::Coco => 0,
            PixelRule::LabelMe => 1,
            PixelRule::OpenCv => 2,
            PixelRule::Centre => 3,
        });
        bytes.number(u64::from(*is_relative));
        bytes.number(u64::from(*box_count > 0));
        bytes.numbers(&stated.map_or(Vec::new(), |(height, width)| vec![height, width]));
        bytes.number(shapes.len() as u64);
        for shape in shapes {
            bytes.outline(&shape.outline);
        }
        Digest::of_bytes(&bytes.0).to_string()
    }
}

/// Bytes of which every list begins with its length and every variant with its number.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    fn numbers(&mut self, numbers: &[u64]) {
        self.number(numbers.len() as u64);
        for &number in numbers {
            self.number(number);
        }
    }

    /// Adds finite coordinates; -0 is 0.
    fn points(&mut self, points: &[Point]) {
        self.number(points.len() as u64);
        for coordinate in points.iter().flatten() {
            self.number((coordinate + 0.0).to_bits());
        }
    }

    fn outline(&mut self, outline: &Outline) {
        match outline {
            Outline::Rings(rings) => {
                self.numbers(&[0, rings.len() as u64]);
                for ring in rings {
                    self.points(ring);
                }
            }
            Outline::Rectangle(corners) => {
                self.number(1);
                self.points(corners);
            }
            Outline::Circle(points) => {
                self.number(2);
                self.points(points);
            }
            Outline::Runs { height, width, lengths } => {
                self.numbers(&[3, *height, *width]);
                self.numbers(&lengths.iter().copied().map(u64::from).collect::<Vec<_>>());
            }
            Outline::Bitmap { corners, encoded } => {
                self.number(4);
                self.points(corners);
                self.number(encoded.len() as u64);
                self.0.extend_from_slice(encoded);
            }
        }
    }
}
