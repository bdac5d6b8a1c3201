//! The search of one block of queries: products of codes, then codes one by one, then rows.
//!
//! Every step rules out only rows that are certainly farther than `k` rows already measured, and what is left
//! is measured by `squared_euclidean`, which alone decides. Bank rows are seen in ascending order.

use super::bytes::{Asked, ByteBank};
use super::cells::{Cells, nearest_anchor};
use super::screen::Slack;
use super::{NO_ROW, View};
use crate::kernels::distance::squared_simd;
use crate::kernels::product::inner_products;

/// Bank rows in one matrix product (measured 2026-11-24 on 2 Zen 4 cores: 256 to 2048 within 10 %).
const BANK_BLOCK: usize = 512;

/// Products that are compared together before any of them is looked at alone.
const STRIP: usize = 32;

/// Finds the `k` nearest bank rows of each query of a block: `index` and `distance` are `[n, k]`.
///
/// By the copies `bytes`, of the fine codes or else of the rows themselves, where there are any that can take the
/// queries; else by products of the coarse codes.
pub(super) fn search_block(
    bytes: Option<&ByteBank>,
    bank: View<'_>,
    queries: View<'_>,
    k: usize,
    is_allowed: impl Fn(usize, usize) -> bool,
    index: &mut [u32],
    distance: &mut [f32],
) {
    let mut lists: Vec<List> =
        (0..queries.lower.len()).map(|query| List::new(bank, queries, query, k)).collect();
    seed_all(bank, queries, &mut lists, &is_allowed);
    let codes = if bank.fine_width > 0 { queries.fine } else { queries.rows };
    if let Some(bytes) = bytes.filter(|bytes| bytes.takes(codes)) {
        let asked = Asked { rows: queries.rows, codes };
        let slack = |query: usize| queries.slack.get(query).map_or(0.0, |slack| slack.fine);
        bytes.search(bank.rows, bank.d, asked, slack, &mut lists, is_allowed);
    } else {
        scan_products(bank, queries, &mut lists, &is_allowed);
    }
    write(&lists, k, index, distance);
}

/// Looks at the products of the coarse codes, block by block of the bank.
fn scan_products(
    bank: View<'_>,
    queries: View<'_>,
    lists: &mut [List],
    is_allowed: &impl Fn(usize, usize) -> bool,
) {
    let n = lists.len();
    let mut products = vec![0.0; n * BANK_BLOCK.min(bank.lower.len())];
    for (number, coarse) in bank.coarse.chunks(BANK_BLOCK * bank.width).enumerate() {
        let products = &mut products[..n * (coarse.len() / bank.width)];
        inner_products(queries.coarse, coarse, bank.width, products);
        let first = number * BANK_BLOCK;
        pulp::Arch::new().dispatch(Scan { bank, queries, first, products, lists, is_allowed });
    }
}

fn write(lists: &[List], k: usize, index: &mut [u32], distance: &mut [f32]) {
    for ((list, index), distance) in lists.iter().zip(index.chunks_mut(k)).zip(distance.chunks_mut(k)) {
        index.copy_from_slice(&list.rows);
        distance.iter_mut().zip(&list.squared).for_each(|(distance, squared)| *distance = squared.sqrt());
    }
}

/// Gives every query of a bank with cells a first limit.
fn seed_all(
    bank: View<'_>,
    queries: View<'_>,
    lists: &mut [List],
    is_allowed: impl Fn(usize, usize) -> bool,
) {
    let Some(cells) = bank.cells else { return };
    let anchors = cells.count();
    let mut products = vec![0.0; lists.len() * anchors];
    inner_products(queries.coarse, &bank.coarse[..anchors * bank.width], bank.width, &mut products);
    pulp::Arch::new().dispatch(Seed {
        bank,
        queries,
        cells,
        products: &products,
        lists,
        is_allowed: &is_allowed,
    });
}

struct Seed<'a, F> {
    bank: View<'a>,
    queries: View<'a>,
    cells: &'a Cells,
    products: &'a [f32],
    lists: &'a mut [List],
    is_allowed: &'a F,
}

impl<F: Fn(usize, usize) -> bool> pulp::WithSimd for Seed<'_, F> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let Self { bank, queries, cells, products, lists, is_allowed } = self;
        let lower = &bank.lower[..cells.count()];
        for (query, (list, products)) in lists.iter_mut().zip(products.chunks(cells.count())).enumerate() {
            let row = &queries.rows[query * bank.d..][..bank.d];
            let code = &queries.fine[query * bank.fine_width..][..bank.fine_width];
            let members = cells.members(nearest_anchor(products, lower));
            seed(simd, bank, (row, code), members, list, |row| is_allowed(query, row));
        }
    }
}

/// The nearest rows of one query so far.
pub(super) struct List {
    squared: Vec<f32>,
    rows: Vec<u32>,
    /// A measured squared distance that `k` rows do not exceed.
    limit: f32,
    slack: Slack,
    d: usize,
    /// The query's share of its lower bounds.
    lower: f32,
    /// `lower - 2·product` above which a row is out.
    coarse_cut: f32,
    /// Squared distance of fine codes above which a row is out.
    fine_cut: f32,
}

impl List {
    fn new(bank: View<'_>, queries: View<'_>, query: usize, k: usize) -> Self {
        let own = queries.slack.get(query).copied().unwrap_or_default();
        let most = bank.slack.first().copied().unwrap_or_default();
        Self {
            squared: vec![f32::INFINITY; k],
            rows: vec![NO_ROW; k],
            limit: f32::INFINITY,
            slack: Slack { coarse: own.coarse + most.coarse, fine: own.fine + most.fine },
            d: bank.d,
            lower: queries.lower[query],
            coarse_cut: f32::INFINITY,
            fine_cut: f32::INFINITY,
        }
    }

    fn tighten(&mut self, limit: f32) {
        if limit < self.limit {
            self.limit = limit;
            let cut = threshold(limit, self.slack.coarse, self.d) - self.lower;
            self.coarse_cut = if cut.is_nan() { f32::INFINITY } else { cut };
            self.fine_cut = threshold(limit, self.slack.fine, self.d);
        }
    }

    /// A measured squared distance that `k` rows do not exceed.
    pub(super) fn limit(&self) -> f32 {
        self.limit
    }

    /// Takes a row in if it is nearer than the last, or as near with a lower index.
    pub(super) fn insert(&mut self, squared: f32, row: u32) {
        let is_before = |(x, of): (&f32, &u32)| (*x, *of) < (squared, row);
        let place = self.squared.iter().zip(&self.rows).take_while(|&pair| is_before(pair)).count();
        let k = self.rows.len();
        if place < k {
            self.squared[place..].rotate_right(1);
            self.rows[place..].rotate_right(1);
            (self.squared[place], self.rows[place]) = (squared, row);
            self.tighten(self.squared[k - 1]);
        }
    }
}

/// The largest squared distance of codes that a row at the computed squared distance `limit` can have.
///
/// The computed distance errs by `(d/32 + 8)·u` and `d·2^-126` (`squared_euclidean`), that of two codes by no
/// more, since codes are no longer than rows; `slack` is that of both codes. Rows beyond are farther than `limit`
/// even as computed, so no tie is lost. `8·u` more cover the subtraction of the query's share.
fn threshold(limit: f32, slack: f64, d: usize) -> f32 {
    let error = (d as f64 / 32.0 + 16.0) * 2.0_f64.powi(-24);
    let underflow = d as f64 * 2.0_f64.powi(-126);
    let reach = ((f64::from(limit) + underflow) / (1.0 - error)).sqrt() + slack;
    let most = reach * reach * (1.0 + error) + underflow;
    if most.is_nan() { f32::INFINITY } else { (most as f32).next_up() }
}

/// One block of products, for all queries.
struct Scan<'a, F> {
    bank: View<'a>,
    queries: View<'a>,
    first: usize,
    products: &'a [f32],
    lists: &'a mut [List],
    is_allowed: &'a F,
}

impl<F: Fn(usize, usize) -> bool> pulp::WithSimd for Scan<'_, F> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let Self { bank, queries, first, products, lists, is_allowed } = self;
        let count = products.len() / lists.len();
        let lower = &bank.lower[first..][..count];
        for (query, (list, products)) in lists.iter_mut().zip(products.chunks(count)).enumerate() {
            let row_of_query = &queries.rows[query * bank.d..][..bank.d];
            let code = &queries.fine[query * bank.fine_width..][..bank.fine_width];
            for (number, (products, lower)) in products.chunks(STRIP).zip(lower.chunks(STRIP)).enumerate() {
                let mut left = within(products, lower, list.coarse_cut);
                while left != 0 {
                    let row = first + number * STRIP + left.trailing_zeros() as usize;
                    left &= left - 1;
                    let seen =
                        squared_simd(simd, code, &bank.fine[row * bank.fine_width..][..bank.fine_width]);
                    if seen > list.fine_cut || !is_allowed(query, row) {
                        continue;
                    }
                    let squared = squared_simd(simd, row_of_query, &bank.rows[row * bank.d..][..bank.d]);
                    if squared <= list.limit {
                        list.insert(squared, row as u32);
                    }
                }
            }
        }
    }
}

/// Finds a first limit in the cell of the query's nearest anchor: the distances of the `k` rows there whose fine
/// codes are nearest. None where there are fewer.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of `Scan`")]
fn seed<S: pulp::Simd>(
    simd: S,
    bank: View<'_>,
    (query, code): (&[f32], &[f32]),
    members: &[u32],
    list: &mut List,
    is_allowed: impl Fn(usize) -> bool,
) {
    let k = list.rows.len();
    let mut near = Vec::with_capacity(members.len());
    // Loops, because a closure would not take the instruction set of its caller.
    for row in members.iter().map(|&row| row as usize) {
        if is_allowed(row) {
            let seen = squared_simd(simd, code, &bank.fine[row * bank.fine_width..][..bank.fine_width]);
            near.push((seen, row));
        }
    }
    if near.len() < k {
        return;
    }
    near.select_nth_unstable_by(k - 1, |a, b| a.0.total_cmp(&b.0));
    let mut limit = 0.0_f32;
    for &(_, row) in &near[..k] {
        limit = limit.max(squared_simd(simd, query, &bank.rows[row * bank.d..][..bank.d]));
    }
    list.tighten(limit);
}

/// The places of a strip where `lower - 2·product` does not exceed `cut`, as bits; NaN does not.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of `Scan`")]
fn within(products: &[f32], lower: &[f32], cut: f32) -> u32 {
    let mut is_any = false;
    for (product, lower) in products.iter().zip(lower) {
        let is_out = lower - 2.0 * product > cut;
        is_any |= !is_out;
    }
    if !is_any {
        return 0;
    }
    let mut bits = 0;
    for (place, (product, lower)) in products.iter().zip(lower).enumerate() {
        let is_out = lower - 2.0 * product > cut;
        bits |= u32::from(!is_out) << place;
    }
    bits
}
