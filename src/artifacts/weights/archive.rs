//! The zip format of `torch.save`: `<name>/data.pkl`, and one uncompressed entry `<name>/data/<key>` per storage.
//!
//! PyTorch can save without checksums (`torch.serialization.set_crc32_options(False)`), which leaves 0 in their place. Who
//! packs a file again often compresses its entries.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use zip::read::ZipFile;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::error::WeightsFault;
use super::value::{LoadedPickle, PickleObject};
use super::{pickle, state};
use crate::kernels::backbone::Weights;

/// The suffix of the name of the pickle.
const PICKLE: &str = "/data.pkl";

/// Largest size of all entries that are read, in lengths of the file. Only compressed entries can be larger than the
/// file (chosen: trained weights compress to nine tenths, pruned ones to a tenth).
const MOST_INFLATED: usize = 16;

type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// Reads the floating-point tensors of the state dict.
pub(super) fn parse(bytes: &[u8]) -> Result<Weights, WeightsFault> {
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|source| WeightsFault::Archive { source })?;
    let pickle = archive.file_names().flatten().find(|name| name.ends_with(PICKLE)).map(Cow::into_owned);
    let pickle = pickle.ok_or_else(|| WeightsFault::NoEntry { entry: PICKLE[1..].to_owned() })?;
    let folder = pickle[..pickle.len() - PICKLE.len()].to_owned();
    check_byte_order(&mut archive, &folder)?;
    let limit = bytes.len().saturating_mul(MOST_INFLATED);
    let loaded = pickle::load(&mut read(&mut archive, &pickle, limit)?.as_slice())?;
    let storages = read_storages(&mut archive, &folder, &loaded, limit)?;
    let size = storages.values().map(Vec::len).sum::<usize>().max(bytes.len());
    let storage = |key: &str| storages.get(key).map(Vec::as_slice);
    state::collect(&loaded, size, |key| {
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

/// Reads an entry of at most `limit` bytes.
fn read(archive: &mut Archive<'_>, entry: &str, limit: usize) -> Result<Vec<u8>, WeightsFault> {
    let missing = || WeightsFault::NoEntry { entry: entry.to_owned() };
    let index = archive.index_for_name(entry).ok_or_else(missing)?;
    let raw = archive.by_index_raw(index).map_err(fault)?;
    // Without a checksum the decoder would find a wrong one.
    let is_unchecked = raw.crc32() == 0 && raw.compression() == CompressionMethod::Stored;
    if is_unchecked {
        return take(raw, entry, limit);
    }
    drop(raw);
    take(archive.by_index(index).map_err(fault)?, entry, limit)
}

fn take<R: Read>(file: ZipFile<'_, R>, entry: &str, limit: usize) -> Result<Vec<u8>, WeightsFault> {
    let expected = file.size();
    if expected > limit as u64 {
        return Err(WeightsFault::Inflated { entry: entry.to_owned(), factor: MOST_INFLATED });
    }
    let mut bytes = Vec::new();
    file.take(limit as u64)
        .read_to_end(&mut bytes)
        .map_err(|source| WeightsFault::Entry { entry: entry.to_owned(), source })?;
    if bytes.len() as u64 != expected {
        return Err(WeightsFault::Damaged { part: "table of zip entries" });
    }
    Ok(bytes)
}

fn fault(source: ZipError) -> WeightsFault {
    WeightsFault::Archive { source }
}
