//! The key of a task: the blake3 hash of everything that can change a byte of its outputs, and of nothing else.
//!
//! | input | download | preprocess | augment | extract | coreset | fit | evaluate | command |
//! |---|---|---|---|---|---|---|---|---|
//! | kind, `VERSION` | in | in | in | in | in | in | in | in |
//! | spec fields that are read | in | in | in | in | in | in | in | in |
//! | seed | – | – | in | – | in, unless ratio = 1 | – | in, if bootstrap > 0 | – (write `${seed}`) |
//! | inputs | – | whole source | selected pixels and masks | `pixels/`, weights | selected blocks; their masks if `min_overlap` > 0 or synthetic samples are filtered; the bank `normal` of a filter | banks, selected blocks | model, selected blocks and masks, pixels if `pictures` > 0 | whole inputs |
//! | URL, mirrors | out: the digest names the bytes | | | | | | | |
//! | names of stages, sets, axes, variants | out | out | out | out | out | out | out | out, except the names in `inputs` and `outputs` |
//! | paths, times, hosts | out | out | out | out | out | out | out | out |
//! | threads, jobs, batch, `search_device` | out: results do not depend on them | out | out, though last bits of `sdxl-inpaint` may | out | out | out | out | out |
//! | Python and packages of `sdxl-inpaint` | – | – | out: the log names them; the shipped program has a version | – | – | – | – | – |
//! | backend, device class, precision | – | – | in, for `ddpm` and `sdxl-inpaint` | in: they change bits | through the blocks | through the banks | through the blocks | – |
//! | output of `tools` | – | – | – | – | – | – | – | in |
//! | values of `env` | – | – | – | – | – | – | – | out: names only |
//!
//! Where the columns come from: kind, `VERSION` and seed from [`Stage::about`], the fields from
//! [`Stage::key_fields`], the inputs from [`Stage::port`], cut by [`super::view`].
//!
//! An input enters as the digest of the part that is read of an upstream **output**, never as the upstream key: if a
//! stage produces the same bytes as before, nothing downstream of it reruns.
//!
//! The encoding is injective: a value is a tag, a length if it has one, and its bytes; lists and tables are counted;
//! tables are sorted; a float is its bits, after NaN and infinities are refused and -0.0 is folded into 0.0. The
//! preimage itself is stored in the record, so that `explain` can compare two of them.
//!
//! [`Stage::about`]: crate::stages::Stage::about
//! [`Stage::key_fields`]: crate::stages::Stage::key_fields
//! [`Stage::port`]: crate::stages::Stage::port

use serde::{Deserialize, Serialize};

use crate::cache::Digest;
use crate::stages::fields::{Fields, Value};

/// Domain of task keys: text that is hashed before the preimage. A change invalidates every cache.
pub const TASK_DOMAIN: &str = "patchflow 2026-11-24 task key 1";
/// Domain of the keys of per-image records. A change invalidates these records.
pub const ITEM_DOMAIN: &str = "patchflow 2026-11-24 item key 1";

/// Domain of the families of per-image records. A change hides the lists of them that machines share.
pub const FAMILY_DOMAIN: &str = "patchflow 2026-11-29 item family 1";

/// The data that a key is the hash of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preimage {
    /// Name of the kind.
    pub kind: String,
    /// `VERSION` of the kind.
    pub version: u32,
    /// The key fields, and the output of `tools`.
    pub spec: Fields,
    /// The seed; `None` if the stage is not random.
    pub seed: Option<u64>,
    /// The inputs, in the order of their roles' text.
    pub inputs: Vec<InputDigest>,
}

/// One input of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputDigest {
    /// Text of the role, such as `features[0]`.
    pub role: String,
    /// Digest of the part of the artifact that is read.
    pub digest: Digest,
}

impl Preimage {
    /// Hashes the preimage.
    ///
    /// # Errors
    /// [`NotFinite`] names the field.
    pub fn key(&self) -> Result<Digest, NotFinite> {
        let Self { kind, version, spec, seed, inputs } = self;
        let mut encoder = Encoder::default();
        encoder.text(kind);
        encoder.integer(i64::from(*version));
        encoder.table(spec)?;
        match seed {
            None => encoder.tag(Tag::Nothing),
            Some(seed) => {
                encoder.tag(Tag::Seed);
                encoder.bytes.extend_from_slice(&seed.to_le_bytes());
            }
        }
        encoder.tag(Tag::List);
        encoder.length(inputs.len());
        for InputDigest { role, digest } in inputs {
            encoder.text(role);
            encoder.tag(Tag::Digest);
            encoder.bytes.extend_from_slice(digest.as_bytes());
        }
        Ok(encoder.hash(TASK_DOMAIN))
    }
}

/// A field that a key cannot hold: NaN or an infinity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is not a finite number")]
pub struct NotFinite {
    /// Name of the field.
    pub field: String,
}

/// Returns the key of one item of a kind, such as an image.
///
/// # Errors
/// [`NotFinite`] names the field.
pub fn item_key(kind: &str, version: u32, fields: &Fields) -> Result<Digest, NotFinite> {
    let mut encoder = Encoder::default();
    encoder.text(kind);
    encoder.integer(i64::from(version));
    encoder.table(fields)?;
    Ok(encoder.hash(ITEM_DOMAIN))
}

/// Returns the family of items of a kind: `shared` are the fields that all of them have, whatever the data.
///
/// # Errors
/// [`NotFinite`] names the field.
pub fn item_family(kind: &str, version: u32, shared: &Fields) -> Result<Digest, NotFinite> {
    let mut encoder = Encoder::default();
    encoder.text(kind);
    encoder.integer(i64::from(version));
    encoder.table(shared)?;
    Ok(encoder.hash(FAMILY_DOMAIN))
}

#[derive(Clone, Copy)]
enum Tag {
    Nothing = 0,
    Text = 1,
    Integer = 2,
    Float = 3,
    Bool = 4,
    List = 5,
    Table = 6,
    Digest = 7,
    Seed = 8,
}

#[derive(Default)]
struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    fn tag(&mut self, tag: Tag) {
        self.bytes.push(tag as u8);
    }

    fn length(&mut self, length: usize) {
        self.bytes.extend_from_slice(&(length as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.tag(Tag::Text);
        self.length(text.len());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn integer(&mut self, number: i64) {
        self.tag(Tag::Integer);
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn table(&mut self, fields: &Fields) -> Result<(), NotFinite> {
        self.tag(Tag::Table);
        self.length(fields.len());
        for (name, value) in fields {
            self.text(name);
            self.value(name, value)?;
        }
        Ok(())
    }

    fn value(&mut self, name: &str, value: &Value) -> Result<(), NotFinite> {
        match value {
            Value::Text(text) => self.text(text),
            Value::Integer(number) => self.integer(*number),
            Value::Float(number) if !number.is_finite() => return Err(NotFinite { field: name.to_owned() }),
            Value::Float(number) => {
                self.tag(Tag::Float);
                let folded = if *number == 0.0 { 0.0 } else { *number };
                self.bytes.extend_from_slice(&folded.to_bits().to_le_bytes());
            }
            Value::Bool(flag) => {
                self.tag(Tag::Bool);
                self.bytes.push(u8::from(*flag));
            }
            Value::List(items) => {
                self.tag(Tag::List);
                self.length(items.len());
                for item in items {
                    self.value(name, item)?;
                }
            }
            Value::Table(fields) => self.table(fields)?,
        }
        Ok(())
    }

    fn hash(self, domain: &str) -> Digest {
        Digest::from_bytes(blake3::Hasher::new_derive_key(domain).update(&self.bytes).finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::fields::fields;

    fn preimage() -> Preimage {
        Preimage {
            kind: "coreset".to_owned(),
            version: 1,
            spec: fields([("ratio", 0.01.into()), ("strategy", "k_center".into())]),
            seed: Some(42),
            inputs: vec![InputDigest {
                role: "features[0]".to_owned(),
                digest: Digest::of_bytes(b"features"),
            }],
        }
    }

    /// A change of these values invalidates every cache: change the domain as well, and announce it.
    #[test]
    fn the_key_is_pinned() {
        assert_eq!(preimage().key().unwrap().to_string(), PINNED);
        let fields = fields([("pixels", "ab".into())]);
        assert_eq!(item_key("extract", 1, &fields).unwrap().to_string(), PINNED_ITEM);
        assert_ne!(item_family("extract", 1, &fields), item_key("extract", 1, &fields));
        let families =
            [("extract", 2), ("preprocess", 1)].map(|(kind, version)| item_family(kind, version, &fields));
        assert!(families.iter().all(|family| *family != item_family("extract", 1, &fields)));
    }

    const PINNED: &str = "bf2202ed5f8c9a7179550c1814116ae09bcebbee0e112797e7c0fffda19fd9d4";
    const PINNED_ITEM: &str = "91479435d4c47f09586d4b27ada881f412c6d821ceb46b4aa3b2b229b5f331c4";

    #[test]
    fn every_part_matters() {
        let base = preimage().key().unwrap();
        let changes: [fn(&mut Preimage); 9] = [
            |p| p.kind = "fit".to_owned(),
            |p| p.version = 2,
            |p| p.seed = None,
            |p| p.seed = Some(0),
            |p| p.inputs[0].role = "features[1]".to_owned(),
            |p| p.inputs[0].digest = Digest::of_bytes(b"other"),
            |p| p.inputs.clear(),
            |p| drop(p.spec.insert("ratio".to_owned(), 0.02.into())),
            |p| drop(p.spec.remove("strategy")),
        ];
        for change in changes {
            let mut other = preimage();
            change(&mut other);
            assert_ne!(other.key().unwrap(), base, "{other:?}");
        }
    }

    #[test]
    fn values_of_other_types_or_shapes_do_not_collide() {
        let values = [
            Value::Text("1".into()),
            Value::Integer(1),
            Value::Float(1.0),
            Value::Bool(true),
            Value::List(vec![]),
            Value::List(vec![Value::List(vec![])]),
            Value::List(vec!["a".into(), "b".into()]),
            Value::List(vec!["ab".into()]),
            Value::Table(fields([])),
            Value::Table(fields([("a", "b".into())])),
        ];
        let mut keys: Vec<Digest> =
            values.into_iter().map(|value| item_key("x", 1, &fields([("v", value)])).unwrap()).collect();
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[test]
    fn zero_has_one_sign_and_nan_is_refused() {
        let key = |number: f64| item_key("x", 1, &fields([("v", number.into())]));
        assert_eq!(key(0.0).unwrap(), key(-0.0).unwrap());
        assert_eq!(key(f64::NAN), Err(NotFinite { field: "v".to_owned() }));
    }

    #[test]
    fn a_preimage_survives_its_json() {
        let json = serde_json::to_string(&preimage()).unwrap();
        assert_eq!(serde_json::from_str::<Preimage>(&json).unwrap(), preimage());
    }
}
