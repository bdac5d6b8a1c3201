//! Why a task is in its state: one enum that `survey` sets, `explain` completes, and every output presents.
//!
//! As JSON a reason is an object with the tag `kind`: `{"kind": "evicted", "reader": "result"}`.

use std::fmt::{self, Write as _};

use serde::{Serialize, Serializer};

use super::survey::State;
use crate::cache::Change;
use crate::stages::fields::Value;
use crate::text::on_one_line;

/// Why a task is in its state.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// The cache has a record of the task's key.
    Recorded,
    /// The remote has a record of the task's key.
    RecordedRemotely,
    /// It is a local source, which is hashed in place and never runs.
    LocalSource,
    /// Another process is running it.
    InFlight {
        /// Its process id.
        pid: u32,
        /// Its host.
        host: String,
    },
    /// An earlier task of the plan has the same key and runs for both.
    EqualTo {
        /// Name of that task.
        task: String,
    },
    /// There is a record, but the objects that the run's folder shows are gone.
    ObjectsGone,
    /// There is a record, but objects that another task reads are gone.
    Evicted {
        /// Name of the task that reads them.
        reader: String,
    },
    /// Upstream outputs are not known yet.
    WaitsFor {
        /// Names of the tasks that make them.
        tasks: Vec<String>,
    },
    /// There is no record of the key.
    NoRecord,
    /// There is no record of any task of the kind.
    NeverRan,
    /// There is no record of the key; the nearest earlier one differs.
    Differs {
        /// Stage of the earlier task.
        stage: String,
        /// When the earlier task ended (RFC 3339).
        finished: String,
        /// What differs between the two tasks.
        differences: Vec<Difference>,
    },
}

/// One difference between a task and an earlier one.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "old and new values, named by the variant")]
pub enum Difference {
    /// `VERSION` of the kind differs.
    Version { old: u32, new: u32 },
    /// The seed differs; `None` if the stage is not random.
    Seed { old: Option<u64>, new: Option<u64> },
    /// A field differs. It is named by its path; `None` if it is absent.
    Field {
        path: String,
        #[serde(serialize_with = "plain")]
        old: Option<Value>,
        #[serde(serialize_with = "plain")]
        new: Option<Value>,
    },
    /// Files of an input differ; `None` if the tree of the earlier input is gone.
    Files { role: String, changes: Option<Vec<Change>> },
    /// An input that is new or gone.
    Input { role: String, is_new: bool },
}

impl Reason {
    /// Returns the state that follows.
    pub fn state(&self) -> State {
        match self {
            Self::Recorded | Self::LocalSource => State::Hit,
            Self::RecordedRemotely => State::RemoteHit,
            Self::InFlight { .. } => State::InFlight,
            Self::WaitsFor { .. } => State::Unknown,
            Self::EqualTo { .. }
            | Self::ObjectsGone
            | Self::Evicted { .. }
            | Self::NoRecord
            | Self::NeverRan
            | Self::Differs { .. } => State::Miss,
        }
    }

    /// Returns the full sentence that `explain` prints: what happens to the task, and why.
    pub fn sentence(&self) -> String {
        match self {
            Self::Recorded | Self::LocalSource => "would not run: its result is in the cache".to_owned(),
            Self::RecordedRemotely => "would not run: its result is in the remote".to_owned(),
            Self::InFlight { .. } => self.to_string(),
            Self::WaitsFor { tasks } => format!("waits for {}", tasks.join(", ")),
            Self::EqualTo { .. } => format!("does not run: {self}"),
            Self::ObjectsGone
            | Self::Evicted { .. }
            | Self::NoRecord
            | Self::NeverRan
            | Self::Differs { .. } => {
                format!("would run: {self}")
            }
        }
    }
}

/// Writes the reason in a few words, as `plan` prints it; nothing for a record in the cache.
impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recorded => Ok(()),
            Self::RecordedRemotely => formatter.write_str("a record of the remote"),
            Self::LocalSource => formatter.write_str("a local source, hashed in place"),
            Self::InFlight { pid, .. } => write!(formatter, "process {pid} is making it"),
            Self::EqualTo { task } => write!(formatter, "equal to `{task}`, which runs for both"),
            Self::ObjectsGone => formatter.write_str("its objects, which the run's folder shows, are gone"),
            Self::Evicted { reader } => {
                write!(formatter, "evicted: made again for `{reader}`, which reads it")
            }
            // The first is enough for one cell of a table; `sentence` and JSON name all of them.
            Self::WaitsFor { tasks } => match tasks.first() {
                None => formatter.write_str("waits"),
                Some(task) => write!(formatter, "waits for `{task}`"),
            },
            Self::NoRecord => formatter.write_str("no record of this key"),
            Self::NeverRan => formatter.write_str("no task of this kind has a record here"),
            Self::Differs { stage, finished, differences } => {
                // The fractions of its second identify no record.
                let finished = finished.get(..19).unwrap_or(finished);
                let [stage, finished] = [stage.as_str(), finished].map(on_one_line);
                write!(formatter, "differs from `{stage}` of {finished} in")?;
                differences.iter().try_for_each(|difference| write!(formatter, "\n    {difference}"))
            }
        }
    }
}

/// Largest number of files that are named; the others are counted.
const NAMED_FILES: usize = 10;

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| value.as_ref().map_or("absent".to_owned(), ToString::to_string);
        match self {
            Self::Version { old, new } => write!(formatter, "VERSION of the kind: {old} -> {new}"),
            Self::Seed { old, new } => {
                let seed = |seed: &Option<u64>| seed.map_or("none".to_owned(), |seed| seed.to_string());
                write!(formatter, "seed: {} -> {}", seed(old), seed(new))
            }
            Self::Field { path, old, new } => write!(formatter, "{path}: {} -> {}", shown(old), shown(new)),
            Self::Input { role, is_new } => {
                write!(formatter, "input `{role}`: {}", if *is_new { "new" } else { "gone" })
            }
            Self::Files { role, changes: None } => {
                write!(formatter, "input `{role}`: other content (the tree of the earlier input is gone)")
            }
            Self::Files { role, changes: Some(changes) } => {
                write!(formatter, "input `{role}`: {}", changed_files(changes))
            }
        }
    }
}

/// The number of changed files, and the first of them by name.
fn changed_files(changes: &[Change]) -> String {
    let files = if changes.len() == 1 { "file differs" } else { "files differ" };
    let mut text = format!("{} {files}", changes.len());
    for change in changes.iter().take(NAMED_FILES) {
        let word = match change {
            Change::Added { .. } => "added",
            Change::Changed { .. } => "changed",
            Change::Removed { .. } => "removed",
        };
        write!(text, "\n      {word} {}", change.path()).expect("a string takes any text");
    }
    if changes.len() > NAMED_FILES {
        write!(text, "\n      and {} more", changes.len() - NAMED_FILES).expect("a string takes any text");
    }
    text
}

/// Serialises a value as plain JSON, as it stands in a manifest.
#[expect(clippy::ref_option, reason = "the signature is that of serde")]
fn plain<S: Serializer>(value: &Option<Value>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(Value::to_json).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_an_object_with_old_and_new_values() {
        let field = Difference::Field {
            path: "ratio".to_owned(),
            old: Some(Value::Float(0.01)),
            new: Some(Value::List(vec![Value::Integer(1), "a".into()])),
        };
        let reason = Reason::Differs {
            stage: "bank".to_owned(),
            finished: "2026-11-28T10:00:00Z".to_owned(),
            differences: vec![field, Difference::Seed { old: None, new: Some(1) }],
        };
        insta::assert_snapshot!(serde_json::to_string(&reason).unwrap(), @r#"{"kind":"differs","stage":"bank","finished":"2026-11-28T10:00:00Z","differences":[{"kind":"field","path":"ratio","old":0.01,"new":[1,"a"]},{"kind":"seed","old":null,"new":1}]}"#);
        let waits = Reason::WaitsFor { tasks: vec!["a".to_owned(), "b".to_owned()] };
        assert_eq!((waits.state(), waits.sentence().as_str()), (State::Unknown, "waits for a, b"));
        assert_eq!(waits.to_string(), "waits for `a`");
    }
}
