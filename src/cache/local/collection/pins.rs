//! Pins: `v1/pins/<name>`, the roots of collection that outlive every process.
//!
//! A pin is a text file, one key a line. The outputs of a pinned record are never collected. Pins lie
//! in the cache and not in the projects, so that a collection of a shared cache sees those of every user.

use std::fs;
use std::io;

use crate::cache::error::{AtPath, CacheError};
use crate::cache::local::barrier::{Durability, rename_durably};
use crate::cache::local::leases::holds::keys_in;
use crate::cache::local::scratch::Temporary;
use crate::cache::local::{Area, Store};
use crate::digest::Digest;

/// A named set of records whose outputs stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Its name.
    pub name: String,
    /// Their keys.
    pub keys: Vec<Digest>,
}

impl Store {
    /// Pins the outputs of records under a name and replaces what was pinned under it. A key need not have a
    /// record yet. The name is that of a file: letters, digits, `-`, `_`, `.`, not starting with `.`.
    pub(in crate::cache) fn pin(&self, name: &str, keys: &[Digest]) -> Result<(), CacheError> {
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.chars().all(allowed) {
            return Err(CacheError::BadPin { name: name.to_owned() });
        }
        let _pause = self.pause()?;
        let lines: Vec<String> = keys.iter().map(Digest::to_string).collect();
        let text = lines.join("\n");
        let tmp = self.area(Area::Tmp);
        let temporary = Temporary::write(&tmp, &[text.as_bytes()], Durability::Immediate)?;
        rename_durably(temporary.path(), &self.area(Area::Pins).join(name))
    }

    /// Removes a pin; returns whether there was one.
    pub(in crate::cache) fn unpin(&self, name: &str) -> Result<bool, CacheError> {
        if !self.pins().iter().any(|pin| pin.name == name) {
            return Ok(false);
        }
        let path = self.area(Area::Pins).join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            outcome => outcome.writing(&path).map(|()| true),
        }
    }

    /// Every pin, in order of name.
    pub(in crate::cache) fn pins(&self) -> Vec<Pin> {
        let entries = fs::read_dir(self.area(Area::Pins)).into_iter().flatten().flatten();
        let pin = |entry: fs::DirEntry| {
            Some(Pin { name: entry.file_name().into_string().ok()?, keys: keys_in(&entry.path()) })
        };
        let mut pins: Vec<Pin> = entries.filter_map(pin).collect();
        pins.sort_by(|a, b| a.name.cmp(&b.name));
        pins
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::local::tests::fresh;

    #[test]
    fn pins_come_back_are_replaced_and_go() {
        let (_folder, store) = fresh();
        let keys = [1_u8, 2].map(|number| Digest::of_bytes(&[number]));
        assert!(store.pins().is_empty() && !store.unpin("paper").unwrap());
        store.pin("paper", &keys[..1]).unwrap();
        store.pin("paper", &keys).unwrap();
        store.pin("empty", &[]).unwrap();
        let expected = [("empty", vec![]), ("paper", keys.to_vec())];
        assert_eq!(store.pins(), expected.map(|(name, keys)| Pin { name: name.into(), keys }));
        assert!(store.unpin("paper").unwrap());
        assert_eq!(store.pins().len(), 1);
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let (_folder, store) = fresh();
        for name in ["", "../x", "a/b", ".hidden", "a b"] {
            assert!(matches!(store.pin(name, &[]), Err(CacheError::BadPin { .. })), "{name:?}");
            assert!(!store.unpin(name).unwrap());
        }
    }
}
