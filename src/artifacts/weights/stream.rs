//! The stream format of `torch.save` before PyTorch 1.6, which some weights of torchvision still have: pickles of a
//! magic number, the protocol version, facts about the machine, the state dict and the list of storage keys; then the
//! length and the values of each storage.

use std::collections::BTreeMap;

use super::error::WeightsFault;
use super::value::{LoadedPickle, PickleObject, PickleValue};
use super::{pickle, state};
use crate::kernels::backbone::Weights;

/// The pickle of the magic number of torch, 0x1950a86a20f9469cfc6c.
pub(super) const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

const DAMAGED: WeightsFault = WeightsFault::Damaged { part: "storages" };

/// Reads the floating-point tensors of the state dict.
pub(super) fn parse(bytes: &[u8]) -> Result<Weights, WeightsFault> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or(WeightsFault::UnknownFormat)?;
    let _protocol = pickle::load(&mut rest)?;
    let _machine = pickle::load(&mut rest)?;
    let loaded = pickle::load(&mut rest)?;
    let keys = pickle::load(&mut rest)?;
    let storages = split(&keys, &sizes(&loaded), rest)?;
    state::collect(&loaded, bytes.len(), |key| storages.get(key).copied().ok_or(DAMAGED))
}

/// Returns the size in bytes of the numbers of each storage, by key.
fn sizes(loaded: &LoadedPickle) -> BTreeMap<&str, usize> {
    let storages = loaded.objects.iter().filter_map(|object| match object {
        PickleObject::Storage(storage) => Some((&*storage.key, storage.class.size_bytes)),
        _ => None,
    });
    storages.collect()
}

/// Splits the rest of the file into the storages, which are in the order of `keys`.
fn split<'a>(
    keys: &'a LoadedPickle,
    sizes: &BTreeMap<&str, usize>,
    mut rest: &'a [u8],
) -> Result<BTreeMap<&'a str, &'a [u8]>, WeightsFault> {
    let PickleValue::Object(index) = keys.value else { return Err(DAMAGED) };
    let Some(PickleObject::List(keys)) = keys.objects.get(index) else { return Err(DAMAGED) };
    let mut storages = BTreeMap::new();
    for key in keys {
        let PickleValue::Text(key) = key else { return Err(DAMAGED) };
        let (length, after) = rest.split_first_chunk::<8>().ok_or(DAMAGED)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| DAMAGED)?;
        let size = length.checked_mul(*sizes.get(&**key).ok_or(DAMAGED)?).ok_or(DAMAGED)?;
        let (storage, after) = after.split_at_checked(size).ok_or(DAMAGED)?;
        storages.insert(&**key, storage);
        rest = after;
    }
    Ok(storages)
}
