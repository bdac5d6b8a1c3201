//! Which pairs of a point and a pick must be measured: all others are proven to be no closer than the
//! point's bound.
//!
//! Two ways, one contract: [`Floats`] here, by a matrix product in f32, runs anywhere; `bytes` is faster
//! where the processor multiplies bytes. The search is the same for both, and so are its picks.

use std::ops::Range;

use crate::kernels::distance::{Margin, is_any_within};
use crate::kernels::product::{bytes::STRIP, inner_products};

/// A screen over the picks made so far.
pub(super) trait Screen: Sync {
    /// What a point's copy is made of.
    type Word: Copy + Send;
    /// A point, beside its copy.
    type Point: Copy + Send;

    /// Picks screened at a time, whole strips. More of them feed the product better, but a point goes on
    /// past the pick that rules it out to the end of the step.
    const STEP: usize;

    /// Adds a pick, `norm` its squared norm.
    fn add_pick(&mut self, row: &[f32], norm: f32);

    /// Copies points, `rows: [points, d]`; every copy has the same number of words.
    fn open(&self, rows: Vec<f32>, norms: &[f32]) -> (Vec<Self::Point>, Vec<Self::Word>);

    /// Fills `masks: [strips, points]`: bit `j` of `masks[s, i]` unless `squared_euclidean` of point `i` and
    /// pick `32·s + j` of the range is at least `bounds[i]`. The range starts with a strip; bits of picks
    /// beyond it mean nothing.
    fn fill(
        &self,
        points: &[Self::Point],
        words: &[Self::Word],
        bounds: &[f32],
        picks: Range<usize>,
        masks: &mut Vec<u32>,
    );
}

/// The estimate `‖a‖² + ‖b‖² - 2·a·b` in f32, less the margin by which it may err ([`Margin`]).
pub(super) struct Floats {
    d: usize,
    margin: Margin,
    rows: Vec<f32>,
    lower: Vec<f32>,
}

impl Floats {
    pub(super) fn new(d: usize) -> Self {
        Self { d, margin: Margin::new(d), rows: Vec::new(), lower: Vec::new() }
    }
}

impl Screen for Floats {
    type Word = f32;
    type Point = f32;

    const STEP: usize = 128;

    fn add_pick(&mut self, row: &[f32], norm: f32) {
        self.rows.extend_from_slice(row);
        self.lower.push(self.margin.lower(norm));
    }

    fn open(&self, rows: Vec<f32>, norms: &[f32]) -> (Vec<f32>, Vec<f32>) {
        (norms.iter().map(|&norm| self.margin.lower(norm)).collect(), rows)
    }

    fn fill(&self, points: &[f32], words: &[f32], bounds: &[f32], picks: Range<usize>, masks: &mut Vec<u32>) {
        let mut products = vec![0.0; points.len() * picks.len()];
        inner_products(words, &self.rows[picks.start * self.d..picks.end * self.d], self.d, &mut products);
        masks.clear();
        masks.resize(picks.len().div_ceil(STRIP) * points.len(), 0);
        for (strip, masks) in masks.chunks_mut(points.len()).enumerate() {
            let lower = self.lower[picks.clone()].chunks(STRIP).nth(strip).unwrap_or_default();
            let lines = products.chunks(picks.len()).zip(points.iter().zip(bounds));
            for (mask, (products, (own, bound))) in masks.iter_mut().zip(lines) {
                let products = &products[strip * STRIP..][..lower.len()];
                if is_any_within(products, lower, bound - own) {
                    *mask = within(products, lower, *own, *bound);
                }
            }
        }
    }
}

fn within(products: &[f32], lower: &[f32], own: f32, bound: f32) -> u32 {
    let mut mask = 0;
    for (lane, (product, lower)) in products.iter().zip(lower).enumerate() {
        let estimate = (own + lower) - 2.0 * product;
        mask |= u32::from(estimate <= bound || estimate.is_nan()) << lane;
    }
    mask
}
