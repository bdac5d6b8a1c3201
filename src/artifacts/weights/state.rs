//! Collects the tensors of the state dict in an interpreted pickle.

use super::error::WeightsFault;
use super::storage::Element;
use super::value::{LoadedPickle, PickleObject, PickleValue, TensorReference};
use crate::kernels::backbone::{Tensor, Weights};

/// Keys under which training programs nest a state dict in a checkpoint.
const NESTED: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// Reads the floating-point tensors of a pickled state dict.
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
    for (name, reference) in tensors(loaded).ok_or(WeightsFault::NotAStateDict)? {
        let Some(element) = reference.storage.class.element else { continue };
        let bytes = storage(&reference.storage.key)?;
        let tensor = gather(reference, element, bytes, &mut left)
            .ok_or_else(|| WeightsFault::OutOfBounds { tensor: name.to_owned() })?;
        weights.insert(name.to_owned(), tensor);
    }
    Ok(weights)
}

/// Returns the named tensors of the dictionary or of a dictionary nested in it; `None` if there are none.
fn tensors(loaded: &LoadedPickle) -> Option<Vec<(&str, &TensorReference)>> {
    let object = |value: &PickleValue| match value {
        PickleValue::Object(index) => loaded.objects.get(*index),
        _ => None,
    };
    let named = |value: &PickleValue| match object(value) {
        Some(PickleObject::Dictionary(items)) => Some(items.iter().filter_map(move |(name, value)| {
            let PickleValue::Text(name) = name else { return None };
            Some((&**name, value))
        })),
        _ => None,
    };
    let tensors_of = |value: &PickleValue| -> Option<Vec<(&str, &TensorReference)>> {
        let tensors: Vec<_> = named(value)?
            .filter_map(|(name, value)| match object(value) {
                Some(PickleObject::Tensor(tensor)) => Some((name, tensor)),
                _ => None,
            })
            .collect();
        (!tensors.is_empty()).then_some(tensors)
    };
    tensors_of(&loaded.value).or_else(|| {
        named(&loaded.value)?
            .filter(|(name, _)| NESTED.contains(name))
            .find_map(|(_, value)| tensors_of(value))
    })
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
