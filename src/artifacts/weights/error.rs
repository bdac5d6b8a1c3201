//! Errors of reading a weight file.

use std::io;

/// What is wrong with a weight file.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message names them")]
pub enum WeightsFault {
    #[error(
        "it is neither a PyTorch `.pth` nor a `.safetensors` file; download it again, or convert it with \
         `torch.save(model.state_dict(), path)`"
    )]
    UnknownFormat,
    #[error("it is a Git LFS pointer in the place of the file; fetch it with `git lfs pull`")]
    LfsPointer,
    /// A compressed entry would take far more memory than the file.
    #[error(
        "entry `{entry}` of its zip archive inflates to more than {factor} times the file; save it again with PyTorch"
    )]
    Inflated { entry: String, factor: usize },
    /// The header contradicts itself or the data.
    #[error("it is a damaged safetensors file; download it again")]
    Safetensors { source: safetensors::SafeTensorError },
    /// The zip archive is damaged or uses an unsupported feature.
    #[error("it is a damaged zip archive; download it again")]
    Archive { source: zip::result::ZipError },
    #[error("entry `{entry}` of its zip archive is damaged; download it again")]
    Entry { entry: String, source: io::Error },
    #[error("its zip archive has no entry `{entry}`; save it with `torch.save(model.state_dict(), path)`")]
    NoEntry { entry: String },
    /// The file is too short, or contradicts itself; `part` is the part that was being read.
    #[error("it is damaged at its {part}; download it again")]
    Damaged { part: &'static str },
    /// The pickle uses an opcode or a global that a state dict does not need; `what` names it.
    #[error("it asks for {what}, which is not executed; save it with `torch.save(model.state_dict(), path)`")]
    Refused { what: String },
    #[error("it holds no dictionary of tensors; save it with `torch.save(model.state_dict(), path)`")]
    NotAStateDict,
    /// A tensor reaches beyond its storage, or the tensors together have more values than the file has bytes.
    #[error("tensor `{tensor}` reaches beyond the data of the file; download it again")]
    OutOfBounds { tensor: String },
    #[error("its numbers are big-endian; save it on a little-endian machine")]
    BigEndian,
}
