//! Why a weight file cannot be read.

use std::io;

/// What is wrong with a weight file.
#[derive(Debug, thiserror::Error)]
pub enum WeightsFault {
    /// Neither zip, nor torch's old stream, nor safetensors.
    #[error(
        "it is neither a PyTorch `.pth` nor a `.safetensors` file; download it again, or convert it with \
         `torch.save(model.state_dict(), path)`"
    )]
    UnknownFormat,
    /// The safetensors header contradicts itself or the data.
    #[error("it is a damaged safetensors file; download it again")]
    Safetensors {
        /// The reader's reason.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// The zip archive is damaged or of an unknown kind.
    #[error("it is a damaged zip archive; download it again")]
    Archive {
        /// The reader's reason.
        #[source]
        source: zip::result::ZipError,
    },
    /// An entry of the archive cannot be read.
    #[error("entry `{entry}` of its zip archive is damaged; download it again")]
    Entry {
        /// The entry.
        entry: String,
        /// The reader's reason.
        #[source]
        source: io::Error,
    },
    /// The archive lacks an entry.
    #[error("its zip archive has no entry `{entry}`; save it with `torch.save(model.state_dict(), path)`")]
    NoEntry {
        /// The entry.
        entry: String,
    },
    /// The file ends too early, or what it says about itself cannot be.
    #[error("it is damaged at its {part}; download it again")]
    Damaged {
        /// The part that was being read.
        part: &'static str,
    },
    /// The pickle asks for something that a state dict does not need.
    #[error("it asks for {what}, which is not executed; save it with `torch.save(model.state_dict(), path)`")]
    Refused {
        /// The opcode or global, by name.
        what: String,
    },
    /// The pickle holds something else than named tensors.
    #[error("it holds no dictionary of tensors; save it with `torch.save(model.state_dict(), path)`")]
    NotAStateDict,
    /// A tensor reaches beyond its storage, or all of them hold more than the file.
    #[error("tensor `{tensor}` reaches beyond the data of the file; download it again")]
    OutOfBounds {
        /// The tensor.
        tensor: String,
    },
    /// Numbers in the byte order of another machine.
    #[error("its numbers are big-endian; save it on a little-endian machine")]
    BigEndian,
}
