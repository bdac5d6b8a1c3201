//! Why an image file cannot be used.

use std::io;

/// The largest image that is decoded at once, in bytes (chosen: four of them fit beside a network into 4 GB).
pub(super) const LARGEST_BYTES: u64 = 512 << 20;

/// The images that have the limit of [`LARGEST_BYTES`], other than those of a whole format.
pub(super) const DECODED_AT_ONCE: &str = "an image that is decoded at once";

/// Why an image file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageFault {
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// A Git LFS pointer: the file itself was not fetched.
    #[error("it is a Git LFS pointer in the place of the file")]
    LfsPointer,
    /// `what` is what the file seems to be.
    #[error("it is {what}, not one of the images that are read: PNG, JPEG, TIFF, BMP, WebP, PNM")]
    Foreign {
        /// Such as `a GIF image`.
        what: &'static str,
    },
    /// The file is cut off, or contradicts itself.
    #[error("it is cut off or damaged: {what}")]
    Damaged {
        /// The part that is missing or wrong.
        what: &'static str,
    },
    /// A valid file with a feature that is not read.
    #[error("{what} is not read")]
    Unread {
        /// The kind of file, such as `a CMYK TIFF`.
        what: String,
    },
    /// The decoded image would be too large.
    #[error("it has {}", .0)]
    TooLarge(Excess),
    /// Height or width is 0.
    #[error("it has no pixels")]
    NoPixels,
    /// The decoder failed.
    #[error(transparent)]
    Decoder(#[from] image::ImageError),
}

/// The size of an image that is too large, and the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{height}×{width} px (height × width), which take {} MiB when decoded; the limit is {} MiB for {kind}",
    size_bytes >> 20, limit_bytes >> 20
)]
pub struct Excess {
    /// Height in pixels.
    pub height: u64,
    /// Width in pixels.
    pub width: u64,
    /// Size of the decoded image.
    pub size_bytes: u64,
    /// The largest size for the kind.
    pub limit_bytes: u64,
    /// The images that have this limit, such as `a JPEG`.
    pub kind: &'static str,
}

impl ImageFault {
    /// Returns the fault of a file with a feature that is not read.
    pub(super) fn unread(what: impl Into<String>) -> Self {
        Self::Unread { what: what.into() }
    }
}

/// Returns the fault of a damaged file.
pub(super) fn damaged(what: &'static str) -> ImageFault {
    ImageFault::Damaged { what }
}

/// Returns the fault of a file that could not be read: it ends too soon, for which `what` is the reason, or the disk fails.
pub(super) fn unreadable(error: io::Error, what: &'static str) -> ImageFault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(what),
        _ => ImageFault::Decoder(error.into()),
    }
}

/// Checks the size of an image that is decoded at once, before memory is taken for it. `kind` is what the limit is for.
pub(super) fn check_size(
    height: u64,
    width: u64,
    bytes_a_pixel: u64,
    kind: &'static str,
) -> Result<(), ImageFault> {
    if height == 0 || width == 0 {
        return Err(ImageFault::NoPixels);
    }
    let size_bytes = height.saturating_mul(width).saturating_mul(bytes_a_pixel);
    if size_bytes > LARGEST_BYTES {
        return Err(ImageFault::TooLarge(Excess {
            height,
            width,
            size_bytes,
            limit_bytes: LARGEST_BYTES,
            kind,
        }));
    }
    Ok(())
}
