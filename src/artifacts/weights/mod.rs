//! Weight files: torchvision's `.pth` and `.safetensors`, read into a [`Weights`].
//!
//! The format is recognised by the file's first bytes, never by its name:
//!
//! | first bytes | format | read by |
//! |---|---|---|
//! | `PK\x03\x04` | zip archive of `torch.save` (1.6 and later): `<name>/data.pkl`, `<name>/data/<key>` | `archive.rs` |
//! | a pickle of the magic number of torch | stream of `torch.save` before 1.6 | `stream.rs` |
//! | a length and `{` | safetensors | `tensors.rs` |
//!
//! Nothing in a file is ever executed: `pickle.rs` interprets the opcodes of a state dict and refuses any other opcode
//! by name. Memory is bounded by the length of the file, or by a multiple of it if zip entries are compressed. f16, bf16
//! and f64 are converted to f32. Tensors of other kinds (such as `num_batches_tracked`, int64) are kept by name and kind
//! only: they are an error if the network needs them.
//!
//! A tensor is named by its keys from the root of the file, so `{"state_dict": {"module.conv1.weight": …}}` holds
//! `state_dict/module.conv1.weight`. [`Weights::prefixes`] finds what comes before a network's own names.

mod archive;
mod error;
mod pickle;
mod state;
mod storage;
mod stream;
mod tensors;
mod value;

pub use error::WeightsFault;

use super::files::is_lfs_pointer;
use crate::kernels::backbone::Weights;

/// Reads the floating-point tensors from the bytes of a weight file. [`Weights::check`] checks whether they fit a
/// network.
///
/// # Errors
/// If the format is unknown, the file is damaged, or it requires anything else than tensors.
pub fn parse_weights(bytes: &[u8]) -> Result<Weights, WeightsFault> {
    if bytes.starts_with(b"PK\x03\x04") {
        archive::parse(bytes)
    } else if bytes.starts_with(stream::MAGIC) {
        stream::parse(bytes)
    } else if is_lfs_pointer(bytes) {
        Err(WeightsFault::LfsPointer)
    } else if tensors::is_safetensors(bytes) {
        tensors::parse(bytes)
    } else {
        Err(WeightsFault::UnknownFormat)
    }
}

#[cfg(test)]
mod tests;
