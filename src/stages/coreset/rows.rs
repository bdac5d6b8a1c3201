//! How many rows a bank has, and whether `ratio` decides it or a bound does.

use crate::kernels::coreset::bank_size;

/// The number of rows of a bank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rows {
    /// The number of candidates.
    pub(super) candidates: usize,
    /// The number of rows that are kept.
    pub(super) kept: usize,
    ratio: f64,
    min_size: usize,
}

impl Rows {
    /// Decides how many of the candidates are kept.
    pub(super) fn of(candidates: usize, ratio: f64, min_size: usize) -> Self {
        Self { candidates, kept: bank_size(candidates, ratio, min_size), ratio, min_size }
    }

    /// Returns a warning if a bound decides the number of rows, and not `ratio`.
    pub(super) fn warning(&self) -> Option<String> {
        let Self { candidates, kept, ratio, min_size } = *self;
        let asked = bank_size(candidates, ratio, 0);
        let floor = (candidates as f64 * ratio).floor() as usize;
        if kept == floor || candidates == 0 {
            return None;
        }
        let bound =
            if kept == asked { "the least size of 1".to_owned() } else { format!("`min_size` = {min_size}") };
        let all = if kept == candidates { "all " } else { "" };
        Some(format!(
            "{bound} decides the size of the bank, not `ratio` = {ratio}: {all}{kept} of {candidates} rows are kept, \
             {floor} by the ratio alone"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(candidates: usize, ratio: f64, min_size: usize) -> String {
        Rows::of(candidates, ratio, min_size).warning().unwrap_or_default()
    }

    #[test]
    fn a_bound_that_decides_the_size_is_named_with_what_the_ratio_gives() {
        insta::assert_snapshot!(warning(12_800, 0.01, 1000), @"`min_size` = 1000 decides the size of the bank, not `ratio` = 0.01: 1000 of 12800 rows are kept, 128 by the ratio alone");
        insta::assert_snapshot!(warning(640, 0.01, 1000), @"`min_size` = 1000 decides the size of the bank, not `ratio` = 0.01: all 640 of 640 rows are kept, 6 by the ratio alone");
        insta::assert_snapshot!(warning(640, 0.001, 0), @"the least size of 1 decides the size of the bank, not `ratio` = 0.001: 1 of 640 rows are kept, 0 by the ratio alone");
    }

    #[test]
    fn a_ratio_that_decides_is_no_reason_to_warn() {
        for (candidates, ratio, min_size) in
            [(1000, 0.01, 10), (1000, 0.5, 10), (5, 1.0, 10), (5, 1.0, 0), (999, 1.0, 999)]
        {
            assert_eq!(warning(candidates, ratio, min_size), "", "{candidates} {ratio} {min_size}");
        }
        assert_eq!(warning(999, 0.01, 10), Rows::of(999, 0.01, 10).warning().unwrap());
        assert!(!warning(999, 0.01, 10).is_empty(), "9 rows by the ratio are less than 10");
    }
}
