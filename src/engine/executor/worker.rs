//! What a worker process does with its unit, and what it reports.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Executed, Execution, LostInput, RunContext, Unit};
use crate::cache::{Cache, CacheError, Digest, Lease, Origin};
use crate::engine::{EngineError, Failure, Options};
use crate::error_chain::error_chain;
use crate::plan::{Output, Outputs, Record, wanted};
use crate::stages::StageError;

/// Interval at which a lease is polled that another process holds.
const POLL: Duration = Duration::from_millis(20);

/// How a unit ended in a worker process, as one line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum UnitReport {
    /// It ran.
    Executed {
        /// Digests of the outputs by name.
        outputs: BTreeMap<String, Digest>,
        /// Seconds that it ran.
        seconds: f64,
        /// Whether an earlier record of the key had other outputs.
        differs: bool,
    },
    /// Nothing ran, because the cache has a record of the key.
    Hit {
        /// Digests of the outputs by name.
        outputs: BTreeMap<String, Digest>,
    },
    /// Objects of inputs are lost, and must be restored first.
    InputsLost {
        /// The inputs, each with its first lost file.
        lost: Vec<LostInput>,
    },
    /// It failed.
    Failed {
        /// The error with its causes.
        error: String,
        /// The remedy, if known.
        help: Option<String>,
        /// Whether the user stopped it.
        is_cancelled: bool,
        /// Seconds that it ran.
        seconds: f64,
    },
}

/// Runs one unit: takes the lease of its key, executes it unless the key has a record, and publishes. `hint` returns
/// the advice for a failure, which the report carries.
///
/// # Errors
/// [`EngineError`] if the cache or the pool of threads fails.
pub fn work(
    unit: &Unit,
    cache: &Cache,
    options: &Options<'_>,
    hint: &dyn Fn(&Failure) -> Option<String>,
) -> Result<UnitReport, EngineError> {
    let context = RunContext::new(cache, options)?;
    cache.leases().hold(&unit.key);
    let Some(lease) = wait_for_lease(unit, &context).map_err(EngineError::Cache)? else {
        let failure = Failure::Stage(StageError::Cancelled);
        return Ok(UnitReport::of(Executed::Failed { failure, seconds: 0.0 }, hint));
    };
    if let Some(outputs) = recorded(unit, cache).map_err(EngineError::Cache)? {
        return Ok(UnitReport::Hit { outputs });
    }
    let executed = Execution::new(unit, &context).run();
    drop(lease);
    // Who reads the report takes the result as kept, and may run nothing here again.
    cache.flush().map_err(EngineError::Cache)?;
    Ok(UnitReport::of(executed, hint))
}

/// Waits for the lease of the unit's key; `None` if the user wants to stop.
fn wait_for_lease(unit: &Unit, context: &RunContext<'_>) -> Result<Option<Lease>, CacheError> {
    while !context.options.cancelled.load(Ordering::Relaxed) {
        if let Some(lease) = context.cache.leases().take(&unit.key)? {
            return Ok(Some(lease));
        }
        std::thread::sleep(POLL);
    }
    Ok(None)
}

/// Returns the outputs that the key's record names; `None` without a record, or if the unit is to replace it.
fn recorded(unit: &Unit, cache: &Cache) -> Result<Option<BTreeMap<String, Digest>>, CacheError> {
    if unit.is_replacing {
        return Ok(None);
    }
    let wanted = wanted(unit.key, &unit.spec);
    let Some(found) = cache.lookup::<Record>(&wanted)?.found() else { return Ok(None) };
    if found.origin == Origin::Remote {
        cache.publication()?.adopt(&wanted, &found)?;
    }
    Ok(Some(found.record.outputs))
}

impl UnitReport {
    fn of(executed: Executed, hint: &dyn Fn(&Failure) -> Option<String>) -> Self {
        let digests = |outputs: Outputs| {
            outputs.into_iter().map(|(name, output)| (name, output.tree.digest())).collect()
        };
        match executed {
            Executed::Done { outputs, seconds, differs } => {
                Self::Executed { outputs: digests(outputs), seconds, differs }
            }
            Executed::Recorded { outputs } => Self::Hit { outputs: digests(outputs) },
            Executed::InputsLost(lost) => Self::InputsLost { lost },
            Executed::Failed { failure, seconds } => Self::Failed {
                error: error_chain(&failure),
                help: hint(&failure),
                is_cancelled: failure.is_cancelled(),
                seconds,
            },
        }
    }
}

impl UnitReport {
    /// Converts the report to what the scheduler, which sent the unit, expects.
    pub(super) fn into_executed(self, cache: &Cache) -> Result<Executed, Failure> {
        Ok(match self {
            Self::Executed { outputs, seconds, differs } => {
                Executed::Done { outputs: trees(&outputs, cache)?, seconds, differs }
            }
            Self::Hit { outputs } => Executed::Recorded { outputs: trees(&outputs, cache)? },
            Self::InputsLost { lost } => Executed::InputsLost(lost),
            Self::Failed { is_cancelled: true, seconds, .. } => {
                Executed::Failed { failure: Failure::Stage(StageError::Cancelled), seconds }
            }
            Self::Failed { error, help, seconds, .. } => {
                Executed::Failed { failure: Failure::Worker { message: error, help }, seconds }
            }
        })
    }
}

fn trees(outputs: &BTreeMap<String, Digest>, cache: &Cache) -> Result<Outputs, Failure> {
    let output = |(name, digest): (&String, &Digest)| {
        let tree = cache.tree(digest).map_err(Failure::Cache)?;
        let missing = || Failure::Worker {
            message: format!("the worker published no tree of its output `{name}`"),
            help: None,
        };
        Ok((name.clone(), Output { tree: tree.ok_or_else(missing)?, source: None }))
    };
    outputs.iter().map(output).collect()
}
