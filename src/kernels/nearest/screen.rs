//! A cheap lower bound for every distance: short codes of rows and queries, and what they may err.
//!
//! With the principal axes `V: [p, d]`, `‖V·Vᵀ - I‖ <= ε`, and the centre `c`, a row `a` gets the code
//! `(V·a', ρ)`, where `a' = a - c` and `ρ` is the length of what the axes do not see of `a'`. In exact
//! arithmetic, with `P` the projection on the span of the axes,
//!
//! ```text
//! ‖q - b‖² = ‖P(q' - b')‖² + ‖(I - P)(q' - b')‖² >= ‖V(q' - b')‖²/(1 + ε) + (ρ(q) - ρ(b))²
//! ```
//!
//! because `‖V·x‖ = ‖V·P·x‖ <= √(1 + ε)·‖P·x‖`, and by the triangle inequality. The codes as computed lie
//! within `slack(a)` of these exact ones (scaled), so that again by the triangle inequality
//!
//! ```text
//! ‖code(q) - code(b)‖ <= ‖q - b‖ + slack(q) + slack(b)                                            (1)
//! ```
//!
//! **The slack.** Let `u = 2^-24` and `N = ‖a'‖ + 2^-76`, whose second part stands for all that underflows
//! (`p·d·2^-126` at most). Each code number is a product of `d` terms: `V·a'` errs by `1.1·√p·d·u·N` at
//! most (Higham 2002, section 3.1); the subtraction of the centre by `u·N`; the scale by `ε·N`; the rounding
//! of `ρ` by `u·N`. Their sum is below `κ·N`, `κ = 1.1·√p·d·u + ε + 4u`. As for `ρ² = ‖a'‖² - ‖P·a'‖²`, taken
//! as `‖a'‖² - ‖code‖²` in f64: `‖V·a'‖²` is within `ε` of `‖P·a'‖²`, and the code within `κ·N` of `V·a'`, so
//! it errs by `3κ·N²` at most. Since `|x - y| = |x² - y²|/(x + y)` and `(x - y)² <= |x² - y²|`, `ρ` errs by
//! `min(3κ·N²/ρ, √(3κ)·N)`. The derivation needs `ε <= 0.01` and `d·u <= 0.01`.

use rayon::prelude::*;

use super::View;
use super::axes::{Axes, ROUNDS};
use super::bytes::ByteBank;
use super::cells::Cells;
use super::pilot::coarse_width;
use crate::kernels::distance::{Margin, squared_norm};

/// Rows that the axes are found from (measured 2026-11-24: from 512, 1024 and 2048 of 20,000 rows, the first
/// 64 axes hold 81.3, 82.6 and 83.3 % of the variance).
const SAMPLE: usize = 2048;

/// Most axes: a longer second code costs more than the distances that it saves (chosen, of 127 and 255).
const MOST_AXES: usize = 255;

/// Below this length rows are measured as fast as codes (chosen, untested).
const SHORTEST_ROW: usize = 96;

/// Longest row for which the slack is derived: `d·u <= 0.01`.
const LONGEST_ROW: usize = 1 << 17;

/// Rows encoded by one task.
const ENCODE_BLOCK: usize = 256;

/// How far codes may lie from the exact ones: `slack` of the module's inequality (1).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slack {
    pub(super) coarse: f64,
    pub(super) fine: f64,
}

/// Rows as the screen sees them: a short code for the matrix product, a longer one for what it leaves.
pub(super) struct Codes {
    /// `[n, width]`: the first axes, then the length that they do not see.
    pub(super) coarse: Vec<f32>,
    /// Shares of the lower bound of the coarse codes' distances.
    pub(super) lower: Vec<f32>,
    /// `[n, fine width]`: the same of all axes.
    pub(super) fine: Vec<f32>,
    pub(super) slack: Vec<Slack>,
}

/// Codes of a bank's rows, and what makes those of queries.
pub(super) struct Screen {
    axes: Axes,
    width: usize,
    codes: Codes,
    cells: Cells,
    /// The largest of the rows.
    slack: Slack,
    /// The fine codes in eight bits, where these pay.
    bytes: Option<ByteBank>,
}

impl Screen {
    /// Multiplications, to first order, that [`Screen::prepare`] costs for a bank of `m` rows.
    pub(super) fn cost(m: usize, d: usize) -> usize {
        let axes = axes_for(d);
        (SAMPLE.min(m) * d + 2 * ROUNDS * axes * d + m * axes) * d
    }

    /// Encodes `rows: [m, d]`, if a trial of some `queries: [n, d]` says that it pays.
    ///
    /// `is_allowed` and `k` are those of the search. Whatever it says, results are the same.
    pub(super) fn prepare(
        rows: &[f32],
        queries: &[f32],
        d: usize,
        k: usize,
        is_allowed: impl Fn(usize, usize) -> bool,
    ) -> Option<Self> {
        if !(SHORTEST_ROW..LONGEST_ROW).contains(&d) || queries.is_empty() {
            return None;
        }
        let (_, sample) = spread(rows, d, SAMPLE);
        let axes = Axes::of(&sample, d, axes_for(d))?;
        let width = coarse_width(&axes, (rows, queries), d, k, is_allowed)?;
        Some(Self::new(axes, width, rows))
    }

    /// Encodes rows with codes of `width` and of all axes.
    pub(super) fn new(axes: Axes, width: usize, rows: &[f32]) -> Self {
        let codes = encode(&axes, width, rows);
        let slack = codes.slack.iter().fold(Slack::default(), |most, slack| Slack {
            coarse: most.coarse.max(slack.coarse),
            fine: most.fine.max(slack.fine),
        });
        let cells = Cells::of(&codes.coarse, width, &codes.lower);
        let bytes = ByteBank::of_codes(&codes.fine, axes.count() + 1, axes.dimension(), slack.fine);
        Self { axes, width, codes, cells, slack, bytes }
    }

    /// Codes with or without copies of eight bits, whatever the processor.
    #[cfg(test)]
    pub(super) fn with_bytes(mut self, has_bytes: bool) -> Self {
        let (length, d) = (self.axes.count() + 1, self.axes.dimension());
        let bytes = || ByteBank::of(&self.codes.fine, d, vec![0.0; length], self.slack.fine);
        self.bytes = has_bytes.then(bytes).flatten();
        self
    }

    /// The fine codes in eight bits, where these pay.
    pub(super) fn bytes(&self) -> Option<&ByteBank> {
        self.bytes.as_ref()
    }

    /// The bank, with its codes; `rows` are those that were encoded.
    pub(super) fn bank<'a>(&'a self, rows: &'a [f32]) -> View<'a> {
        View {
            slack: std::slice::from_ref(&self.slack),
            cells: Some(&self.cells),
            ..self.view(rows, &self.codes)
        }
    }

    /// Rows with their codes.
    pub(super) fn view<'a>(&self, rows: &'a [f32], codes: &'a Codes) -> View<'a> {
        View {
            rows,
            d: self.axes.dimension(),
            coarse: &codes.coarse,
            width: self.width,
            lower: &codes.lower,
            fine: &codes.fine,
            fine_width: self.axes.count() + 1,
            slack: &codes.slack,
            cells: None,
        }
    }

    /// Encodes queries.
    pub(super) fn encode(&self, queries: &[f32]) -> Codes {
        encode(&self.axes, self.width, queries)
    }
}

/// A third of the dimensions, such that codes of all axes fill vectors of 32.
pub(super) fn axes_for(d: usize) -> usize {
    (d / 3).next_multiple_of(32).saturating_sub(1).min(MOST_AXES)
}

/// At most `count` rows, evenly spread: their indices, and the rows.
pub(super) fn spread(rows: &[f32], d: usize, count: usize) -> (Vec<usize>, Vec<f32>) {
    let n = rows.len() / d;
    let count = count.min(n);
    let places: Vec<usize> = (0..count).map(|number| number * n / count).collect();
    let some = places.iter().flat_map(|&place| &rows[place * d..][..d]).copied().collect();
    (places, some)
}

fn encode(axes: &Axes, width: usize, rows: &[f32]) -> Codes {
    let (d, fine_width) = (axes.dimension(), axes.count() + 1);
    let n = rows.len() / d;
    let mut codes = Codes {
        coarse: vec![0.0; n * width],
        lower: vec![0.0; n],
        fine: vec![0.0; n * fine_width],
        slack: vec![Slack::default(); n],
    };
    let places =
        codes.coarse.par_chunks_mut(ENCODE_BLOCK * width).zip(codes.lower.par_chunks_mut(ENCODE_BLOCK));
    let places = places.zip(codes.fine.par_chunks_mut(ENCODE_BLOCK * fine_width));
    let places = places.zip(codes.slack.par_chunks_mut(ENCODE_BLOCK));
    places.zip(rows.par_chunks(ENCODE_BLOCK * d)).for_each(|((((coarse, lower), fine), slack), rows)| {
        let count = rows.len() / d;
        let (mut centred, mut along) = (vec![0.0; rows.len()], vec![0.0; count * (fine_width - 1)]);
        axes.apply(rows, &mut centred, &mut along);
        let (encoder, margin) = (Encoder::new(axes), Margin::new(width));
        for row in 0..count {
            let squared = squared_norm(&centred[row * d..][..d]);
            let along = &along[row * (fine_width - 1)..][..fine_width - 1];
            let code = &mut coarse[row * width..][..width];
            slack[row].coarse = encoder.write(squared, along, code);
            slack[row].fine = encoder.write(squared, along, &mut fine[row * fine_width..][..fine_width]);
            lower[row] = share(&margin, squared_norm(code));
        }
    });
    codes
}

/// The share of the lower bound of distances that a row of this squared norm has. NaN, which rules nothing out, where the sum of two
/// squared norms might overflow.
pub(super) fn share(margin: &Margin, squared: f64) -> f32 {
    if squared < 2.0_f64.powi(124) { margin.lower(squared as f32) } else { f32::NAN }
}

/// The module's `κ`.
struct Encoder {
    kappa: f64,
}

impl Encoder {
    fn new(axes: &Axes) -> Self {
        let rounding = 2.0_f64.powi(-24);
        let products = 1.1 * (axes.count() as f64).sqrt() * axes.dimension() as f64 * rounding;
        Self { kappa: products + axes.skew() + 4.0 * rounding }
    }

    /// Writes the code of a row of squared length `squared` about the centre whose products with the axes
    /// are `along`; gives its slack.
    fn write(&self, squared: f64, along: &[f32], code: &mut [f32]) -> f64 {
        let (seen, rest) = code.split_at_mut(code.len() - 1);
        seen.copy_from_slice(&along[..seen.len()]);
        let unseen = (squared - squared_norm(seen)).max(0.0).sqrt();
        rest[0] = unseen as f32;
        let length = squared.sqrt() + 2.0_f64.powi(-76);
        let doubt = 3.0 * self.kappa * length * length;
        self.kappa * length + (doubt / unseen).min(doubt.sqrt())
    }
}
