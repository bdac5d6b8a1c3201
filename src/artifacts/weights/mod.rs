//! Weight files: torchvision's `.pth` and `.safetensors`, read into a [`Weights`].
//!
//! The format is recognised by the file's first bytes, never by its name:
//!
//! | bytes | format | read by |
//! |---|---|---|
//! | `PK\x03\x04` | zip archive of `torch.save` (1.6 and later): `<name>/data.pkl`, `<name>/data/<key>` | `archive.rs` |
//! | a pickle of torch's magic number | stream of `torch.save` before 1.6 | `stream.rs` |
//! | a length and `{` | safetensors | `tensors.rs` |
//!
//! Nothing in a file is ever executed: `pickle.rs` interprets the opcodes of a state dict and refuses any
//! other, with its name. Memory is bounded by the file's length. Tensors that are not of a floating type
//! (`num_batches_tracked`) are left out; f16, bf16 and f64 become f32.

mod archive;
mod error;
mod pickle;
mod state;
mod storage;
mod stream;
mod tensors;
mod value;

pub use error::WeightsFault;

use crate::kernels::backbone::Weights;

/// Reads the floating tensors of a weight file's bytes.
///
/// # Errors
/// If the bytes are of no known format, are damaged, or ask for anything but tensors.
pub fn parse_weights(bytes: &[u8]) -> Result<Weights, WeightsFault> {
    if bytes.starts_with(b"PK\x03\x04") {
        archive::parse(bytes)
    } else if bytes.starts_with(stream::MAGIC) {
        stream::parse(bytes)
    } else if tensors::is_safetensors(bytes) {
        tensors::parse(bytes)
    } else {
        Err(WeightsFault::UnknownFormat)
    }
}

#[cfg(test)]
mod tests;
