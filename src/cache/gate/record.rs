//! Records at the gate.

use super::Flaw;
use crate::digest::Digest;
use crate::text;

/// Most bytes of a record: it holds a preimage, which names every input, and a short log.
pub(in crate::cache) const MOST_BYTES: u64 = 8 * 1024 * 1024;

/// Longest text that a record says of itself, in bytes.
const LONGEST_TEXT: usize = 1024;

/// Greatest number that a record may state: seconds, or bytes (an exabyte).
const GREATEST: f64 = 1e18;

/// A task's record, as the layer that writes records reads it. The cache itself needs only what it checks.
pub trait CachedRecord: Sized {
    /// Reads a record.
    fn decode(bytes: &[u8]) -> DecodedRecord<Self>;

    /// The key that its preimage gives; `None` if the preimage gives none.
    fn own_key(&self) -> Option<Digest>;

    /// Names and trees of the task's outputs, in a fixed order.
    fn outputs(&self) -> Vec<(&str, Digest)>;

    /// What it says of itself in words.
    fn texts(&self) -> Vec<&str>;

    /// What it says of itself in numbers.
    fn numbers(&self) -> Vec<f64>;
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodedRecord<R> {
    /// It could be read.
    Record(R),
    /// Another version of the program wrote it in a form that this one does not know.
    OtherVersion,
    /// It has no form at all.
    Malformed,
}

/// The outputs that a record must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedOutputs {
    /// Any, for a caller that does not know the stage. Their names are plain.
    Any,
    /// Exactly these.
    Named(Vec<String>),
}

/// Reads the record of a key, if it passes the gate; `None` if another version wrote it.
///
/// # Errors
/// [`Flaw`] says what is wrong with it.
pub fn check_record<R: CachedRecord>(
    key: &Digest,
    bytes: &[u8],
    expected: &ExpectedOutputs,
) -> Result<Option<R>, Flaw> {
    let record = match R::decode(bytes) {
        DecodedRecord::Record(record) => record,
        DecodedRecord::OtherVersion => return Ok(None),
        DecodedRecord::Malformed => return Err(Flaw::Malformed),
    };
    if record.own_key().as_ref() != Some(key) {
        return Err(Flaw::OtherKey);
    }
    check_outputs(&record, expected)?;
    let is_fit = |text: &&str| text.len() <= LONGEST_TEXT && !text.contains(text::steers);
    if !record.texts().iter().all(is_fit) {
        return Err(Flaw::Text);
    }
    if !record.numbers().iter().all(|number| (0.0..=GREATEST).contains(number)) {
        return Err(Flaw::Number);
    }
    Ok(Some(record))
}

fn check_outputs<R: CachedRecord>(record: &R, expected: &ExpectedOutputs) -> Result<(), Flaw> {
    let outputs = record.outputs();
    if outputs.is_empty() {
        return Err(Flaw::NoOutputs);
    }
    if let ExpectedOutputs::Named(expected) = expected {
        let mut found: Vec<String> = outputs.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut expected = expected.clone();
        found.sort_unstable();
        expected.sort_unstable();
        if found != expected {
            return Err(Flaw::OtherOutputs { found, expected });
        }
    }
    match outputs.iter().find(|(name, _)| !text::is_plain_name(name)) {
        Some((name, _)) => Err(Flaw::OutputName { name: (*name).to_owned() }),
        None => Ok(()),
    }
}
