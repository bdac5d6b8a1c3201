//! Exit codes.

use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done = 0,
    /// 1: a stage failed.
    Failed = 1,
    /// 2: the manifest or the command line is wrong.
    Usage = 2,
    /// 3: verification differs.
    Differs = 3,
    /// 4: refused (budget, lock, another collection, unit of another build).
    Refused = 4,
    /// 130: interrupted.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
