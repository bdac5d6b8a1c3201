//! What the cache keeps of a finished task: its outputs, its preimage, and how it was made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Preimage;
use crate::cache::{Cache, CachedRecord, Digest};

/// The version of the record's form; a record of another is a miss.
const SCHEMA: u32 = 1;

/// A finished task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    schema: u32,
    /// What its key is the hash of.
    pub preimage: Preimage,
    /// Digest of each output's listing.
    pub outputs: BTreeMap<String, Digest>,
    /// Other outputs seen for the same key: the stage is not deterministic.
    #[serde(default)]
    pub others: Vec<BTreeMap<String, Digest>>,
    /// How it was made; never in a key.
    pub provenance: Provenance,
}

/// How a task's outputs were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The stage's name in the manifest that ran it.
    pub stage: String,
    /// The experiment's name there; empty in records of versions that did not note it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub experiment: String,
    /// Wall-clock seconds. Where it was made again with equal outputs, of the longest time: the others found
    /// single items and tell little of what making everything costs.
    pub seconds: f64,
    /// Processor seconds of the process and its children meanwhile; none where other tasks ran at the same
    /// time, as they cannot be told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
    /// Most memory of the process meanwhile: that of tasks that ran at the same time included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// Bytes of its inputs.
    #[serde(default)]
    pub input_bytes: u64,
    /// Bytes of its outputs.
    #[serde(default)]
    pub output_bytes: u64,
    /// Share of its items that it made; the others were found again. 1 for what is made as a whole.
    #[serde(default = "whole")]
    pub fresh_share: f64,
    /// When it ended (RFC 3339).
    pub finished: String,
    /// The machine.
    pub host: String,
    /// The processor's widest vector instructions: features may differ in the last bits between levels.
    pub simd: String,
    /// The program's version.
    pub patchflow: String,
    /// What a network ran on, where the task runs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backbone: Option<BackboneProvenance>,
    /// What the task said; none where it said nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<KeptLog>,
}

/// What the cache keeps of a task's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptLog {
    /// A short one, in the record itself.
    Text(String),
    /// A long one: the object that holds it. It belongs to no listing: where it was collected, the log is
    /// lost and nothing else.
    Object(Digest),
}

impl KeptLog {
    /// Bytes up to which a log stands in the record: most have a few lines, and an object of its own costs a
    /// sync (chosen).
    const SHORT_BYTES: usize = 2048;

    /// Keeps a log; none where it is empty, or is long and cannot be written.
    pub fn keep(text: String, store: &Cache) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        if text.len() <= Self::SHORT_BYTES {
            return Some(Self::Text(text));
        }
        store.publication().ok()?.publish_bytes(text.as_bytes()).ok().map(Self::Object)
    }

    /// The text; none where its object is gone.
    pub fn read(&self, store: &Cache) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Object(digest) => {
                store.objects().read(digest).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            }
        }
    }
}

/// What a network ran on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackboneProvenance {
    /// `rust` or `torch`.
    pub backend: String,
    /// `cpu`, or `cuda:1` with its number.
    pub device: String,
    /// What the device calls itself; empty where the system does not say.
    pub device_name: String,
    /// The numbers: `f32` or `bf16`.
    pub precision: String,
    /// libtorch's version, where it ran there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libtorch: Option<String>,
}

fn whole() -> f64 {
    1.0
}

impl Record {
    /// Makes a record.
    pub fn new(preimage: Preimage, outputs: BTreeMap<String, Digest>, provenance: Provenance) -> Self {
        Self { schema: SCHEMA, preimage, outputs, others: Vec::new(), provenance }
    }

    /// Encodes it for the store.
    ///
    /// # Panics
    /// Never: a record holds only strings, finite numbers and lists.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record holds only strings, finite numbers and lists")
    }

    /// Reads what the cache kept; `None` for a form that this version does not know.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|record: &Self| record.schema == SCHEMA)
    }
}

impl CachedRecord for Record {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_bytes(bytes)
    }

    fn trees(&self) -> Vec<Digest> {
        self.outputs.values().copied().collect()
    }
}
