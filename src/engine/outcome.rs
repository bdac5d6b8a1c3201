//! How tasks end, and how many ended in each way.

use serde::{Deserialize, Serialize};

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It ran.
    Executed,
    /// A record gave its outputs, or another process made them meanwhile.
    Hit,
    /// A record of the remote gave its outputs.
    RemoteHit,
    /// Its inputs turned out equal to those of another task of this run.
    Merged,
    /// It failed.
    Failed,
    /// It could not run, because of another failure or a stop.
    Blocked,
}

impl Outcome {
    /// Returns whether a record gave the outputs.
    pub fn is_hit(self) -> bool {
        matches!(self, Self::Hit | Self::RemoteHit)
    }
}

/// How many tasks ended in each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutcomeCounts {
    /// Number of tasks that ran.
    pub executed: usize,
    /// Number of tasks with a record in the cache.
    pub hits: usize,
    /// Number of tasks with a record in the remote.
    pub remote_hits: usize,
    /// Number of tasks whose inputs turned out equal to those of another task of the run.
    pub merged: usize,
    /// Number of tasks that failed.
    pub failed: usize,
    /// Number of tasks that could not run.
    pub blocked: usize,
}

impl FromIterator<Outcome> for OutcomeCounts {
    fn from_iter<T: IntoIterator<Item = Outcome>>(outcomes: T) -> Self {
        let mut counts = Self::default();
        for outcome in outcomes {
            let count = match outcome {
                Outcome::Executed => &mut counts.executed,
                Outcome::Hit => &mut counts.hits,
                Outcome::RemoteHit => &mut counts.remote_hits,
                Outcome::Merged => &mut counts.merged,
                Outcome::Failed => &mut counts.failed,
                Outcome::Blocked => &mut counts.blocked,
            };
            *count += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted() {
        let counts: OutcomeCounts = [Outcome::Hit, Outcome::Failed, Outcome::Hit].into_iter().collect();
        assert_eq!(counts, OutcomeCounts { hits: 2, failed: 1, ..OutcomeCounts::default() });
    }
}
