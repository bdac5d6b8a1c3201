//! Synthetic surface images: a metal or cast texture under uneven light, with scratches, spots and cracks whose masks
//! are exact.
//!
//! Used for the quickstart and for tests: the data are small, free of any licence, and difficult enough to distinguish
//! methods apart. Harmless marks (stains and streaks) appear on normal and defective surfaces alike. The contrasts were
//! tuned by eye, and such that PatchCore with random weights neither fails nor reaches an AUROC of 1.

use serde::{Deserialize, Serialize};

use super::random::Rng;

/// The texture of a surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Texture {
    /// Brushed metal: fine horizontal lines.
    Brushed,
    /// Cast or plastered: isotropic grain.
    Cast,
}

/// The type of a defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SurfaceDefect {
    /// A thin, nearly straight line, brighter or darker.
    Scratch,
    /// A spot with an irregular outline, brighter or darker.
    Spot,
    /// A dark, jagged line, possibly branched.
    Crack,
}

/// An image and its mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surface {
    /// RGB, `[height, width, 3]`.
    pub pixels: Vec<u8>,
    /// `[height, width]`, 0 or 255; all 0 for a normal surface.
    pub mask: Vec<u8>,
}

/// Mean level of the three channels: a slightly warm grey.
const BASE: [f64; 3] = [138.0, 134.0, 127.0];

/// Octaves of the textures: height and width of a noise cell in px, and amplitude in grey levels.
const BRUSHED: [(f64, f64, f64); 4] =
    [(1.0, 40.0, 9.0), (2.0, 90.0, 6.0), (6.0, 140.0, 3.5), (40.0, 60.0, 2.0)];
const CAST: [(f64, f64, f64); 4] = [(2.0, 2.0, 7.0), (4.0, 4.0, 5.0), (9.0, 9.0, 3.5), (40.0, 40.0, 2.0)];

/// Standard deviation of the sensor noise, in grey levels.
const NOISE: f64 = 2.0;

/// Draws a surface of `height × width` px.
///
/// The same generator state gives the same bytes on every machine: only `+`, `*`, `√` and the `libm` crate are used.
/// A defect marks at least one pixel. Cost: O(height · width).
///
/// # Panics
/// If a side is 0.
pub fn surface(
    rng: &mut Rng,
    texture: Texture,
    defect: Option<SurfaceDefect>,
    height: usize,
    width: usize,
) -> Surface {
    assert!(height > 0 && width > 0, "a surface of no size");
    let mut levels = grain(rng, texture, height, width);
    light(rng, &mut levels, height, width);
    stain(rng, &mut levels, height, width);
    let mut mask = vec![0; height * width];
    if let Some(defect) = defect {
        let canvas = &mut Canvas { height, width, cover: vec![0.0; height * width] };
        match defect {
            SurfaceDefect::Scratch => scratch(rng, canvas),
            SurfaceDefect::Spot => spot(rng, canvas),
            SurfaceDefect::Crack => crack(rng, canvas),
        }
        let depth = depth(rng, defect);
        for ((level, pixel), &cover) in levels.iter_mut().zip(&mut mask).zip(&canvas.cover) {
            *level += depth * cover * (0.8 + 0.4 * rng.uniform());
            *pixel = if cover >= 0.5 { 255 } else { 0 };
        }
    }
    Surface { pixels: develop(rng, &levels), mask }
}

/// Draws the difference in grey levels between a defect and the surface.
fn depth(rng: &mut Rng, defect: SurfaceDefect) -> f64 {
    let size = match defect {
        SurfaceDefect::Scratch => rng.between(27.0, 66.0),
        SurfaceDefect::Spot => rng.between(20.0, 46.0),
        SurfaceDefect::Crack => rng.between(34.0, 72.0),
    };
    if defect == SurfaceDefect::Crack || rng.below(2) == 0 { -size } else { size }
}

/// Draws the texture as a sum of octaves of noise.
fn grain(rng: &mut Rng, texture: Texture, height: usize, width: usize) -> Vec<f64> {
    let mut levels = vec![0.0; height * width];
    let octaves = match texture {
        Texture::Brushed => BRUSHED,
        Texture::Cast => CAST,
    };
    for (cell_height, cell_width, amplitude) in octaves {
        let lattice = Lattice::draw(rng, height, width, cell_height, cell_width);
        for (index, level) in levels.iter_mut().enumerate() {
            *level += amplitude * lattice.at(index / width, index % width);
        }
    }
    levels
}

/// Value noise: random values at the corners of cells, with smooth interpolation between them.
struct Lattice {
    values: Vec<f64>,
    columns: usize,
    cell_height: f64,
    cell_width: f64,
    shift: (f64, f64),
}

impl Lattice {
    fn draw(rng: &mut Rng, height: usize, width: usize, cell_height: f64, cell_width: f64) -> Self {
        let rows = (height as f64 / cell_height) as usize + 3;
        let columns = (width as f64 / cell_width) as usize + 3;
        let values = (0..rows * columns).map(|_| rng.between(-1.0, 1.0)).collect();
        let shift = (rng.uniform(), rng.uniform());
        Self { values, columns, cell_height, cell_width, shift }
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        let (y, x) =
            (row as f64 / self.cell_height + self.shift.0, column as f64 / self.cell_width + self.shift.1);
        let (top, left) = (y as usize, x as usize);
        let (v, u) = (smooth(y - top as f64), smooth(x - left as f64));
        let corner = |row: usize, column: usize| self.values[row * self.columns + column];
        let upper = corner(top, left) * (1.0 - u) + corner(top, left + 1) * u;
        let lower = corner(top + 1, left) * (1.0 - u) + corner(top + 1, left + 1) * u;
        upper * (1.0 - v) + lower * v
    }
}

fn smooth(t: f64) -> f64 {
    t * t * (3.0 - 2.0 * t)
}

/// Adds uneven light: a gradient in a random direction, and a falloff towards the border.
fn light(rng: &mut Rng, levels: &mut [f64], height: usize, width: usize) {
    let angle = rng.between(0.0, std::f64::consts::TAU);
    let slope = rng.between(1.0, 6.0);
    let (down, right) = (slope * libm::sin(angle), slope * libm::cos(angle));
    let fall = rng.between(2.0, 5.0);
    let offset = rng.between(-1.5, 1.5);
    for (index, level) in levels.iter_mut().enumerate() {
        let y = 2.0 * ((index / width) as f64 + 0.5) / height as f64 - 1.0;
        let x = 2.0 * ((index % width) as f64 + 0.5) / width as f64 - 1.0;
        *level += offset + down * y + right * x - fall * (x * x + y * y);
    }
}

/// Adds up to three harmless stains: wide, soft and of low contrast.
fn stain(rng: &mut Rng, levels: &mut [f64], height: usize, width: usize) {
    for _ in 0..rng.below(4) {
        let centre = (rng.between(0.0, height as f64), rng.between(0.0, width as f64));
        let side = height.min(width) as f64;
        let radius = (rng.between(0.03, 0.12) * side, rng.between(0.06, 0.3) * side);
        let depth = rng.between(-5.0, 5.0);
        for (index, level) in levels.iter_mut().enumerate() {
            let y = ((index / width) as f64 - centre.0) / radius.0;
            let x = ((index % width) as f64 - centre.1) / radius.1;
            *level += depth * libm::exp(-(x * x + y * y) / 2.0);
        }
    }
}

/// The fraction of each pixel that a defect covers, in \[0, 1\].
struct Canvas {
    height: usize,
    width: usize,
    cover: Vec<f64>,
}

impl Canvas {
    /// Draws a random point at some distance from the border.
    fn point(&self, rng: &mut Rng) -> (f64, f64) {
        let coordinate = |rng: &mut Rng, side: usize| rng.between(0.12, 0.88) * (side - 1) as f64;
        (coordinate(rng, self.height), coordinate(rng, self.width))
    }

    fn short_side(&self) -> f64 {
        self.height.min(self.width) as f64
    }

    /// Draws a disc with a soft edge. The pixel at its centre is fully covered.
    fn dot(&mut self, y: f64, x: f64, radius: f64) {
        let reach = radius + 1.0;
        let range = |centre: f64, side: usize| {
            let first = (centre - reach).max(0.0) as usize;
            first..((centre + reach + 1.0).max(0.0) as usize).min(side)
        };
        for row in range(y, self.height) {
            for column in range(x, self.width) {
                let (down, right) = (row as f64 - y, column as f64 - x);
                let cover = (radius + 0.5 - (down * down + right * right).sqrt()).clamp(0.0, 1.0);
                let pixel = &mut self.cover[row * self.width + column];
                *pixel = pixel.max(cover);
            }
        }
    }

    /// Draws a line from `start` in half-pixel steps. The line has the given radius in the middle and is tapered at
    /// both ends; `turn` returns the change of direction at each step. Returns (y, x, direction) of each step.
    fn walk(
        &mut self,
        start: (f64, f64),
        mut angle: f64,
        steps: usize,
        radius: f64,
        mut turn: impl FnMut() -> f64,
    ) -> Vec<(f64, f64, f64)> {
        let (mut y, mut x) = start;
        let mut path = Vec::with_capacity(steps);
        for step in 0..steps {
            let along = 2.0 * step as f64 / steps as f64 - 1.0;
            let taper = 1.0 - along * along * along * along;
            self.dot(y, x, (radius * taper).max(THINNEST));
            path.push((y, x, angle));
            angle += turn();
            y += 0.5 * libm::sin(angle);
            x += 0.5 * libm::cos(angle);
        }
        path
    }
}

/// Radius at which a disc always marks a pixel, wherever its centre is: half the diagonal of a pixel.
const THINNEST: f64 = 0.708;

fn scratch(rng: &mut Rng, canvas: &mut Canvas) {
    let start = canvas.point(rng);
    let angle = rng.between(0.0, std::f64::consts::TAU);
    let steps = (2.0 * canvas.short_side() * rng.between(0.15, 0.5)) as usize + 4;
    let bend = rng.between(-0.012, 0.012);
    let radius = rng.between(0.7, 1.2);
    canvas.walk(start, angle, steps, radius, || bend);
}

fn crack(rng: &mut Rng, canvas: &mut Canvas) {
    let start = canvas.point(rng);
    let angle = rng.between(0.0, std::f64::consts::TAU);
    let steps = (2.0 * canvas.short_side() * rng.between(0.2, 0.55)) as usize + 4;
    let radius = rng.between(0.7, 1.3);
    let mut drift = 0.0;
    // The direction is pulled back to its mean: with a plain random walk, the line would curl up.
    let path = canvas.walk(start, angle, steps, radius, || {
        let turn = 0.3 * rng.normal() - 0.12 * drift;
        drift += turn;
        turn
    });
    for _ in 0..rng.below(3) {
        let (y, x, angle) = path[rng.below(path.len())];
        let aside = if rng.below(2) == 0 { -0.8 } else { 0.8 };
        canvas.walk((y, x), angle + aside, steps / 3 + 2, THINNEST, || 0.25 * rng.normal());
    }
}

/// Draws a spot whose radius varies with the angle in four waves of random amplitude and phase.
fn spot(rng: &mut Rng, canvas: &mut Canvas) {
    let (y, x) = canvas.point(rng);
    let radius = (canvas.short_side() * rng.between(0.02, 0.06)).max(1.2);
    let flat = rng.between(0.6, 1.0);
    let waves: [(f64, f64); 4] =
        std::array::from_fn(|_| (rng.between(0.0, 0.14), rng.between(0.0, std::f64::consts::TAU)));
    for row in 0..canvas.height {
        for column in 0..canvas.width {
            let (down, right) = ((row as f64 - y) / flat, column as f64 - x);
            let angle = libm::atan2(down, right);
            let swing: f64 = (1..)
                .zip(waves)
                .map(|(wave, (size, phase))| size * libm::sin(f64::from(wave) * angle + phase))
                .sum();
            let inside = radius * (1.0 + swing) - (down * down + right * right).sqrt();
            canvas.cover[row * canvas.width + column] = (0.5 + inside / 2.0).clamp(0.0, 1.0);
        }
    }
    canvas.dot(y, x, THINNEST);
}

/// Adds sensor noise and the base colour, and rounds to 8 bits.
fn develop(rng: &mut Rng, levels: &[f64]) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(levels.len() * 3);
    for level in levels {
        let shared = level + 0.7 * NOISE * rng.normal();
        for base in BASE {
            let value = base + shared + 0.7 * NOISE * rng.normal();
            pixels.push((value + 0.5).clamp(0.0, 255.0) as u8);
        }
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFECTS: [SurfaceDefect; 3] = [SurfaceDefect::Scratch, SurfaceDefect::Spot, SurfaceDefect::Crack];

    #[test]
    fn every_defect_marks_some_pixels_and_leaves_most() {
        for defect in DEFECTS {
            for seed in 0..40 {
                let mut rng = Rng::new(seed, "surface");
                let made = surface(&mut rng, Texture::Brushed, Some(defect), 96, 160);
                let marked: usize = made.mask.iter().map(|&pixel| usize::from(pixel == 255)).sum();
                assert!((1..96 * 16).contains(&marked), "{defect:?} {seed}: {marked}");
                assert!(made.mask.iter().all(|pixel| [0, 255].contains(pixel)));
            }
        }
    }

    #[test]
    fn every_size_works() {
        for side in 1..=20 {
            for defect in DEFECTS {
                let mut rng = Rng::new(side as u64, "sizes");
                let made = surface(&mut rng, Texture::Cast, Some(defect), side, 21 - side);
                assert_eq!(made.pixels.len(), made.mask.len() * 3);
                assert!(made.mask.contains(&255), "{defect:?} on {side}×{}", 21 - side);
            }
        }
    }

    #[test]
    fn a_normal_surface_has_an_empty_mask() {
        let made = surface(&mut Rng::new(1, "normal"), Texture::Cast, None, 32, 40);
        assert!(made.mask.iter().all(|&pixel| pixel == 0));
    }

    #[test]
    fn equal_streams_give_equal_bytes() {
        let make = |seed| {
            let made =
                surface(&mut Rng::new(seed, "same"), Texture::Brushed, Some(SurfaceDefect::Crack), 48, 64);
            blake3::hash(&[made.pixels, made.mask].concat()).to_hex()[..16].to_owned()
        };
        assert_eq!(make(7), make(7));
        assert_ne!(make(7), make(8));
        assert_eq!(make(7), GOLDEN, "outputs have changed: bump `VERSION` of `download`");
    }

    /// Digest of the output of the first version of this file.
    const GOLDEN: &str = "cf41b95ccaf0f1d0";
}
