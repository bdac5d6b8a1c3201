//! The record of a finished task: its outputs, its preimage, and how it was made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Preimage;
use crate::cache::{Cache, CachedRecord, DecodedRecord, Digest, ExpectedOutputs, check_record};
use crate::stages::{Spec, Work};

/// The version of the record format; a record of another version is a miss.
const SCHEMA: u32 = 1;

/// The record of a finished task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    schema: u32,
    /// The preimage of its key.
    pub preimage: Preimage,
    /// Digest of each output's tree.
    pub outputs: BTreeMap<String, Digest>,
    /// Different outputs that the same key has also produced. If there are any, the stage is not deterministic.
    #[serde(default)]
    pub others: Vec<BTreeMap<String, Digest>>,
    /// How it was made; never part of a key.
    pub provenance: Provenance,
}

/// How a task's outputs were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The stage's name in the manifest that ran it.
    pub stage: String,
    /// The experiment's name in that manifest; empty in records of versions that did not store it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub experiment: String,
    /// Wall-clock seconds. If the task ran several times with equal outputs, the longest time: shorter runs reused
    /// per-image records and do not show what it costs to make everything.
    pub seconds: f64,
    /// Processor seconds of the process and its children while it ran; `None` if other tasks ran at the same time, as
    /// their seconds cannot be separated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
    /// Peak memory of the process while it ran, including that of tasks that ran at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// Bytes of the task's inputs.
    #[serde(default)]
    pub input_bytes: u64,
    /// Bytes of the task's outputs.
    #[serde(default)]
    pub output_bytes: u64,
    /// Share of the task's items (images) that it computed; the others were reused from per-image records. 1 for a
    /// stage that does not work item by item.
    #[serde(default = "whole")]
    pub fresh_share: f64,
    /// How much the task had to do, for estimates of other tasks; `None` if that is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// When the task ended (RFC 3339).
    pub finished: String,
    /// Name of the machine that ran the task.
    pub host: String,
    /// The processor's widest vector instructions: features may differ in the last bits between levels.
    pub simd: String,
    /// Version of the program that ran the task.
    pub patchflow: String,
    /// What the network ran on; `None` if the task runs no network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backbone: Option<BackboneProvenance>,
    /// The task's log; `None` if it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<KeptLog>,
    /// What the stage has noted and warned of, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
}

/// A line that a stage has written for the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Whether it is a warning.
    pub is_warning: bool,
    /// The line.
    pub text: String,
}

/// What the cache keeps of a task's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptLog {
    /// A short log, in the record itself.
    Text(String),
    /// The object that holds a long log. It belongs to no tree: if it is collected, the log is lost and nothing else.
    Object(Digest),
}

impl KeptLog {
    /// Bytes up to which a log is stored in the record: most have a few lines, and a separate object costs a sync
    /// (chosen).
    const SHORT_BYTES: usize = 2048;

    /// Stores a log; `None` if it is empty, or if it is long and cannot be written.
    pub fn keep(text: String, cache: &Cache) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        if text.len() <= Self::SHORT_BYTES {
            return Some(Self::Text(text));
        }
        cache.publication().ok()?.publish_bytes(text.as_bytes()).ok().map(Self::Object)
    }

    /// Returns the text; `None` if its object is gone.
    pub fn read(&self, cache: &Cache) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Object(digest) => {
                cache.objects().read(digest).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
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
    /// The device's model; empty if unknown.
    pub device_name: String,
    /// The number format: `f32` or `bf16`.
    pub precision: String,
    /// The version of libtorch; `None` for the backend `rust`.
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

    /// Encodes it for the cache.
    ///
    /// # Panics
    /// Never: a record holds only strings, finite numbers and lists.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record holds only strings, finite numbers and lists")
    }

    /// Decodes the record of a task with this key and these outputs; `None` if it is of another version or the gate
    /// of the cache refuses it.
    pub fn of_task(bytes: &[u8], key: &Digest, spec: &Spec) -> Option<Self> {
        let names = spec.outputs().into_iter().map(|(name, _)| name);
        check_record(key, bytes, &ExpectedOutputs::Named(names.collect())).ok().flatten()
    }

    /// Decodes a record without checking what it says; `None` if it is malformed or has another version.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|record: &Self| record.schema == SCHEMA)
    }
}

/// The part of a record that every version of its form has.
#[derive(Deserialize)]
struct RecordVersion {
    schema: u32,
}

impl CachedRecord for Record {
    fn decode(bytes: &[u8]) -> DecodedRecord<Self> {
        match serde_json::from_slice::<RecordVersion>(bytes) {
            Err(_) => DecodedRecord::Malformed,
            Ok(RecordVersion { schema }) if schema != SCHEMA => DecodedRecord::OtherVersion,
            Ok(_) => serde_json::from_slice(bytes).map_or(DecodedRecord::Malformed, DecodedRecord::Record),
        }
    }

    fn own_key(&self) -> Option<Digest> {
        self.preimage.key().ok()
    }

    fn outputs(&self) -> Vec<(&str, Digest)> {
        self.outputs.iter().map(|(name, tree)| (name.as_str(), *tree)).collect()
    }

    fn texts(&self) -> Vec<&str> {
        let Provenance { stage, experiment, finished, host, simd, patchflow, backbone, .. } =
            &self.provenance;
        let mut texts = vec![stage, experiment, finished, host, simd, patchflow];
        if let Some(BackboneProvenance { backend, device, device_name, precision, libtorch }) = backbone {
            texts.extend([backend, device, device_name, precision]);
            texts.extend(libtorch);
        }
        texts.into_iter().map(String::as_str).collect()
    }

    fn numbers(&self) -> Vec<f64> {
        let Provenance { seconds, cpu_seconds, peak_bytes, input_bytes, output_bytes, fresh_share, .. } =
            &self.provenance;
        let bytes = [*input_bytes, *output_bytes].into_iter().chain(*peak_bytes).map(|bytes| bytes as f64);
        [*seconds, *fresh_share].into_iter().chain(*cpu_seconds).chain(bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cache::Flaw;
    use crate::stages::fields::{Reader, fields};

    type Change = fn(&mut Value);

    /// The key and the record of a command with two outputs, as JSON.
    fn sound() -> (Digest, Value) {
        let preimage = Preimage {
            kind: "command".to_owned(),
            version: 1,
            spec: fields([("ratio", 0.1.into()), ("big", i64::MAX.into()), ("tiny", 5e-324.into())]),
            seed: Some(u64::MAX),
            inputs: Vec::new(),
        };
        let (key, tree) = (preimage.key().unwrap(), Digest::of_bytes(b"tree"));
        let provenance = json!({ "stage": "s", "seconds": 1.5, "finished": "2026-11-28T10:00:00Z", "host": "h",
            "simd": "avx2", "patchflow": "0.1.0" });
        let record = json!({ "schema": SCHEMA, "preimage": preimage, "outputs": { "a": tree, "b": tree },
            "provenance": provenance });
        (key, record)
    }

    /// A stage with these outputs.
    fn stage() -> Spec {
        let outputs = fields([("a", "files".into()), ("b", "files".into())]);
        let table = fields([("run", vec!["true".to_owned()].into()), ("outputs", outputs.into())]);
        let kind = crate::stages::KINDS.iter().find(|kind| kind.name() == "command").unwrap();
        kind.read(&mut Reader::new(&table, &mut Vec::new(), &mut Vec::new()))
    }

    fn refusal(change: impl FnOnce(&mut Value)) -> Option<Flaw> {
        let (key, mut record) = sound();
        change(&mut record);
        let expected = ExpectedOutputs::Named(vec!["a".to_owned(), "b".to_owned()]);
        check_record::<Record>(&key, record.to_string().as_bytes(), &expected).err()
    }

    #[test]
    fn a_sound_record_answers_its_key_and_its_stage() {
        let (key, record) = sound();
        assert!(Record::of_task(record.to_string().as_bytes(), &key, &stage()).is_some());
        let later = json!({ "schema": SCHEMA + 1, "something": "else" }).to_string();
        assert_eq!(check_record::<Record>(&key, later.as_bytes(), &ExpectedOutputs::Any), Ok(None));
    }

    #[test]
    fn crafted_records_are_refused() {
        let other = |found: &[&str]| Flaw::OtherOutputs {
            found: found.iter().map(|&name| name.to_owned()).collect(),
            expected: vec!["a".to_owned(), "b".to_owned()],
        };
        let table: [(Change, Flaw); 17] = [
            (|record| record["preimage"]["seed"] = json!(7), Flaw::OtherKey),
            (|record| record["preimage"]["version"] = json!(2), Flaw::OtherKey),
            (|record| record["preimage"]["kind"] = json!("fit"), Flaw::OtherKey),
            (|record| record["preimage"]["spec"]["ratio"] = json!({ "float": 0.2 }), Flaw::OtherKey),
            (|record| record["outputs"] = json!({}), Flaw::NoOutputs),
            (|record| drop(record["outputs"].as_object_mut().unwrap().remove("b")), other(&["a"])),
            (
                |record| record["outputs"]["/etc/x"] = record["outputs"]["a"].clone(),
                other(&["/etc/x", "a", "b"]),
            ),
            (|record| record["outputs"]["../x"] = record["outputs"]["a"].clone(), other(&["../x", "a", "b"])),
            (|record| record["provenance"]["stage"] = json!("\u{1b}[2J"), Flaw::Text),
            (|record| record["provenance"]["host"] = json!("a\nerror: b"), Flaw::Text),
            (|record| record["provenance"]["finished"] = json!("x".repeat(5000)), Flaw::Text),
            (|record| record["provenance"]["seconds"] = json!(-1), Flaw::Number),
            (|record| record["provenance"]["cpu_seconds"] = json!(1e200), Flaw::Number),
            (|record| record["provenance"]["output_bytes"] = json!(u64::MAX), Flaw::Number),
            (|record| record["outputs"]["a"] = json!("no digest"), Flaw::Malformed),
            (|record| drop(record.as_object_mut().unwrap().remove("provenance")), Flaw::Malformed),
            (|record| *record = json!([]), Flaw::Malformed),
        ];
        for (number, (change, flaw)) in table.into_iter().enumerate() {
            assert_eq!(refusal(change), Some(flaw), "record {number}");
        }
        let (key, _) = sound();
        let nested = "[".repeat(100_000);
        for malformed in ["", "null", "{\"schema\": 1", &nested] {
            let flaw = check_record::<Record>(&key, malformed.as_bytes(), &ExpectedOutputs::Any).err();
            assert_eq!(flaw, Some(Flaw::Malformed));
        }
    }
}
