//! The safetensors format: a header of names, types, shapes and offsets, then the data.

use safetensors::{Dtype, SafeTensors};

use super::error::WeightsFault;
use super::storage::Element;
use crate::kernels::backbone::{Tensor, Weights};

/// Returns whether the bytes start like a safetensors file: the length of a header, which must be within the file, and
/// the opening brace of the header.
pub(super) fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return false;
    };
    u64::from_le_bytes(*length) <= rest.len() as u64 && rest.first() == Some(&b'{')
}

/// Reads all floating-point tensors. Keeps only names and kinds of the others.
pub(super) fn parse(bytes: &[u8]) -> Result<Weights, WeightsFault> {
    let file = SafeTensors::deserialize(bytes).map_err(|source| WeightsFault::Safetensors { source })?;
    let mut weights = Weights::default();
    for (name, view) in file.iter() {
        match element(view.dtype()) {
            Some(element) => {
                let values = element.decode(view.data());
                weights.insert(name.to_owned(), Tensor::new(view.shape().to_vec(), values));
            }
            None => weights.insert_unread(name.to_owned(), format!("{:?}", view.dtype())),
        }
    }
    Ok(weights)
}

fn element(kind: Dtype) -> Option<Element> {
    match kind {
        Dtype::F32 => Some(Element::F32),
        Dtype::F16 => Some(Element::F16),
        Dtype::BF16 => Some(Element::Bf16),
        Dtype::F64 => Some(Element::F64),
        _ => None,
    }
}
