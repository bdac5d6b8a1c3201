//! The zip format of `torch.save`: `<name>/data.pkl`, and one uncompressed entry `<name>/data/<key>` per storage.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use zip::ZipArchive;
use zip::result::ZipError;

use super::error::WeightsFault;
use super::value::{LoadedPickle, PickleObject};
use super::{pickle, state};
use crate::kernels::backbone::Weights;

/// The suffix of the name of the pickle.
const PICKLE: &str = "/data.pkl";

type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// Reads the floating-point tensors of the state dict.
pub(super) fn parse(bytes: &[u8]) -> Result<Weights, WeightsFault> {
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|source| WeightsFault::Archive { source })?;
    let pickle = archive.file_names().flatten().find(|name| name.ends_with(PICKLE)).map(Cow::into_owned);
    let pickle = pickle.ok_or_else(|| WeightsFault::NoEntry { entry: PICKLE[1..].to_owned() })?;
    let folder = pickle[..pickle.len() - PICKLE.len()].to_owned();
    check_byte_order(&mut archive, &folder)?;
    let loaded = pickle::load(&mut read(&mut archive, &pickle, bytes.len())?.as_slice())?;
    let storages = read_storages(&mut archive, &folder, &loaded, bytes.len())?;
    let storage = |key: &str| storages.get(key).map(Vec::as_slice);
    state::collect(&loaded, bytes.len(), |key| {
        storage(key).ok_or_else(|| WeightsFault::NoEntry { entry: format!("{folder}/data/{key}") })
    })
}

/// Reads each floating-point storage that the pickle refers to, once.
fn read_storages(
    archive: &mut Archive<'_>,
    folder: &str,
    loaded: &LoadedPickle,
    limit: usize,
) -> Result<BTreeMap<String, Vec<u8>>, WeightsFault> {
    let mut storages = BTreeMap::new();
    let mut left = limit;
    for object in &loaded.objects {
        let PickleObject::Storage(storage) = object else { continue };
        if storage.class.element.is_none() || storages.contains_key(&*storage.key) {
            continue;
        }
        let bytes = read(archive, &format!("{folder}/data/{}", storage.key), left)?;
        left -= bytes.len();
        storages.insert(storage.key.to_string(), bytes);
    }
    Ok(storages)
}

fn check_byte_order(archive: &mut Archive<'_>, folder: &str) -> Result<(), WeightsFault> {
    let entry = format!("{folder}/byteorder");
    if archive.index_for_name(&entry).is_none() {
        return Ok(());
    }
    match read(archive, &entry, 16)?.as_slice() {
        b"little" => Ok(()),
        _ => Err(WeightsFault::BigEndian),
    }
}

/// Reads an entry of at most `limit` bytes. Entries are not compressed, so together they cannot be longer than the
/// archive.
fn read(archive: &mut Archive<'_>, entry: &str, limit: usize) -> Result<Vec<u8>, WeightsFault> {
    let file = match archive.by_name(entry) {
        Ok(file) => file,
        Err(ZipError::FileNotFound) => return Err(WeightsFault::NoEntry { entry: entry.to_owned() }),
        Err(source) => return Err(WeightsFault::Archive { source }),
    };
    if file.size() > limit as u64 {
        return Err(WeightsFault::Damaged { part: "table of zip entries" });
    }
    let mut bytes = Vec::new();
    file.take(limit as u64)
        .read_to_end(&mut bytes)
        .map_err(|source| WeightsFault::Entry { entry: entry.to_owned(), source })?;
    Ok(bytes)
}
