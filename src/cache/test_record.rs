//! A record for the tests of the cache, which know no stage: its key, and its outputs by name.

use crate::cache::{CachedRecord, DecodedRecord, Digest, Tree};

/// A record as lines of text: `key KEY`, then `output NAME TREE` for each output, then further words.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cache) struct TestRecord {
    pub(in crate::cache) key: Digest,
    pub(in crate::cache) outputs: Vec<(String, Digest)>,
    /// What it says of itself.
    pub(in crate::cache) text: String,
    pub(in crate::cache) seconds: f64,
}

impl TestRecord {
    /// The record of a task with one output.
    pub(in crate::cache) fn of(key: Digest, tree: &Tree) -> Self {
        let outputs = vec![("files".to_owned(), tree.digest())];
        Self { key, outputs, text: "a test".to_owned(), seconds: 1.5 }
    }

    pub(in crate::cache) fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\n{}\n{}", self.key, self.seconds, self.text);
        for (name, digest) in &self.outputs {
            let line = format!("\n{digest} {name}");
            text += &line;
        }
        text.into_bytes()
    }
}

impl CachedRecord for TestRecord {
    fn decode(bytes: &[u8]) -> DecodedRecord<Self> {
        if bytes.starts_with(b"later version") {
            return DecodedRecord::OtherVersion;
        }
        let read = || {
            let mut lines = str::from_utf8(bytes).ok()?.split('\n');
            let key = lines.next()?.parse().ok()?;
            let seconds = lines.next()?.parse().ok()?;
            let text = lines.next()?.to_owned();
            let output = |line: &str| {
                let (digest, name) = line.split_once(' ')?;
                Some((name.to_owned(), digest.parse().ok()?))
            };
            Some(Self { key, outputs: lines.map(output).collect::<Option<_>>()?, text, seconds })
        };
        read().map_or(DecodedRecord::Malformed, DecodedRecord::Record)
    }

    fn own_key(&self) -> Option<Digest> {
        Some(self.key)
    }

    fn outputs(&self) -> Vec<(&str, Digest)> {
        self.outputs.iter().map(|(name, tree)| (name.as_str(), *tree)).collect()
    }

    fn texts(&self) -> Vec<&str> {
        vec![&self.text]
    }

    fn numbers(&self) -> Vec<f64> {
        vec![self.seconds]
    }
}
