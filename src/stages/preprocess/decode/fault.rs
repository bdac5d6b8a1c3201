//! Why an image file cannot be used.

/// The largest decoded image, in bytes (chosen: four of them fit beside a network into 4 GB).
pub(super) const LARGEST_BYTES: u64 = 512 << 20;

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
    #[error(
        "it has {height}×{width} px (height × width), which take {} MiB when decoded; the limit is {} MiB",
        size_bytes >> 20, LARGEST_BYTES >> 20
    )]
    TooLarge {
        /// Height in pixels.
        height: u64,
        /// Width in pixels.
        width: u64,
        /// Size of the decoded image.
        size_bytes: u64,
    },
    /// Height or width is 0.
    #[error("it has no pixels")]
    NoPixels,
    /// The decoder failed.
    #[error(transparent)]
    Decoder(#[from] image::ImageError),
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

/// Checks the size of a decoded image before memory is taken for it.
pub(super) fn check_size(height: u64, width: u64, bytes_a_pixel: u64) -> Result<(), ImageFault> {
    if height == 0 || width == 0 {
        return Err(ImageFault::NoPixels);
    }
    let size_bytes = height.saturating_mul(width).saturating_mul(bytes_a_pixel);
    if size_bytes > LARGEST_BYTES {
        return Err(ImageFault::TooLarge { height, width, size_bytes });
    }
    Ok(())
}
