//! Collects the tensors of the state dict in an interpreted pickle.

use std::collections::BTreeSet;

use super::error::WeightsFault;
use super::storage::Element;
use super::value::{LoadedPickle, PickleObject, PickleValue, StorageReference, TensorReference};
use crate::kernels::backbone::{Tensor, Weights};

/// Depth of nested dictionaries that are searched (chosen: `{"model": {"state_dict": {"module": …}}}` and one more).
const DEEPEST: usize = 4;
/// Longest name that is kept, in bytes (chosen; longer ones are no tensor of a network, and repeat with every tensor
/// below them).
const LONGEST_NAME: usize = 512;

/// Reads the floating-point tensors of a pickled checkpoint, and the names and kinds of others.
///
/// `storage` returns the bytes of the storage with a key. `limit` bounds the total number of values, for tensors may
/// share a storage; it is the length of the file in bytes.
pub(super) fn collect<'a>(
    loaded: &LoadedPickle,
    limit: usize,
    storage: impl Fn(&str) -> Result<&'a [u8], WeightsFault>,
) -> Result<Weights, WeightsFault> {
    let mut left = limit;
    let mut weights = Weights::default();
    for (name, named) in Search::tensors(loaded) {
        match named {
            Named::Unread(kind) => weights.insert_unread(name, kind.to_owned()),
            Named::Tensor(TensorReference { storage: StorageReference { class, .. }, .. })
                if class.element.is_none() =>
            {
                weights.insert_unread(name, class.name.to_owned());
            }
            Named::Tensor(reference) => {
                let bytes = storage(&reference.storage.key)?;
                let element = reference.storage.class.element.ok_or(WeightsFault::NotAStateDict)?;
                let tensor = gather(reference, element, bytes, &mut left)
                    .ok_or_else(|| WeightsFault::OutOfBounds { tensor: name.clone() })?;
                weights.insert(name, tensor);
            }
        }
    }
    if weights.iter().next().is_none() { Err(WeightsFault::NotAStateDict) } else { Ok(weights) }
}

/// What a dictionary holds under a name.
enum Named<'a> {
    Tensor(&'a TensorReference),
    /// The kind of a tensor that is not read.
    Unread(&'a str),
}

/// Searches nested dictionaries for tensors.
struct Search<'a> {
    loaded: &'a LoadedPickle,
    /// The dictionaries that were searched, so that one that holds itself ends.
    searched: BTreeSet<usize>,
    found: Vec<(String, Named<'a>)>,
}

impl<'a> Search<'a> {
    /// Returns the tensors under their keys from the root, joined with `/`.
    fn tensors(loaded: &'a LoadedPickle) -> Vec<(String, Named<'a>)> {
        let mut search = Self { loaded, searched: BTreeSet::new(), found: Vec::new() };
        search.visit(&loaded.value, "", 0);
        search.found
    }

    fn visit(&mut self, value: &PickleValue, name: &str, depth: usize) {
        let &PickleValue::Object(index) = value else { return };
        match self.loaded.objects.get(index) {
            Some(PickleObject::Tensor(tensor)) => self.found.push((name.to_owned(), Named::Tensor(tensor))),
            Some(&PickleObject::Unread(kind)) => {
                let kind = self.loaded.unread.get(kind).map_or("", |kind| &**kind);
                self.found.push((name.to_owned(), Named::Unread(kind)));
            }
            Some(PickleObject::Dictionary(items)) if depth < DEEPEST && self.searched.insert(index) => {
                for (key, value) in items {
                    let PickleValue::Text(key) = key else { continue };
                    let inner = if depth == 0 { key.to_string() } else { format!("{name}/{key}") };
                    if inner.len() <= LONGEST_NAME {
                        self.visit(value, &inner, depth + 1);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Reads a tensor from its storage, row-major. Returns `None` if it reaches beyond the storage or has more than `left`
/// values. `left` is the number of values that the remaining tensors may have, and is decreased.
fn gather(reference: &TensorReference, element: Element, bytes: &[u8], left: &mut usize) -> Option<Tensor> {
    let TensorReference { storage, offset, shape, strides } = reference;
    if shape.len() != strides.len() {
        return None;
    }
    let length = shape.iter().try_fold(1_usize, |length, &extent| length.checked_mul(extent))?;
    if length == 0 {
        return Some(Tensor::new(shape.clone(), Vec::new()));
    }
    *left = left.checked_sub(length)?;
    let first = storage.start.checked_add(*offset)?;
    let mut last = first;
    for (extent, stride) in shape.iter().zip(strides) {
        last = last.checked_add((extent - 1).checked_mul(*stride)?)?;
    }
    let size = element.size_bytes();
    let end = last.checked_add(1)?.checked_mul(size)?;
    let values = element.decode(bytes.get(first * size..end)?);
    let values = if is_contiguous(shape, strides) { values } else { reorder(&values, shape, strides) };
    Some(Tensor::new(shape.clone(), values))
}

fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&extent, &stride)| {
        let fits = extent == 1 || stride == expected;
        expected *= extent;
        fits
    })
}

fn reorder(values: &[f32], shape: &[usize], strides: &[usize]) -> Vec<f32> {
    let length = shape.iter().product();
    let mut position = vec![0; shape.len()];
    let mut source = 0;
    let mut ordered = Vec::with_capacity(length);
    for _ in 0..length {
        ordered.push(values[source]);
        for axis in (0..shape.len()).rev() {
            position[axis] += 1;
            source += strides[axis];
            if position[axis] < shape[axis] {
                break;
            }
            source -= strides[axis] * shape[axis];
            position[axis] = 0;
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strided_tensors_are_read_row_major() {
        let values: Vec<f32> = (0..6_u8).map(f32::from).collect();
        assert_eq!(reorder(&values, &[3, 2], &[1, 3]), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert!(is_contiguous(&[2, 1, 3], &[3, 99, 1]));
        assert!(!is_contiguous(&[3, 2], &[1, 3]));
    }
}
