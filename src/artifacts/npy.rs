//! NumPy files: arrays through `ndarray-npy`, and the one-row structured array of a variant's metrics,
//! which that crate does not write.

use std::path::{Path, PathBuf};

use ndarray_npy::WriteNpyExt;

use super::ArtifactError;

/// Writes `data` as an f32 array of that shape.
pub fn write_f32(path: &Path, shape: &[usize], data: Vec<f32>) -> Result<(), ArtifactError> {
    let array = ndarray::ArrayD::from_shape_vec(shape, data).map_err(|_| ArtifactError::Tensor {
        path: PathBuf::from(path),
        tensor: "array".to_owned(),
        expected: format!("{shape:?} of f32"),
    })?;
    let mut bytes = Vec::new();
    array.write_npy(&mut bytes).map_err(|error| ArtifactError::Io {
        path: PathBuf::from(path),
        source: std::io::Error::other(error),
    })?;
    super::files::write(path, &bytes)
}

/// Writes a structured array of one row, an f64 for each field: `np.load(f)["image_auroc"]`.
///
/// Format: NumPy Enhancement Proposal 1, version 1.0. Field names hold no quote.
pub fn write_row(path: &Path, fields: &[(&str, f64)]) -> Result<(), ArtifactError> {
    let names: Vec<String> = fields.iter().map(|(name, _)| format!("('{name}', '<f8')")).collect();
    let mut header = format!("{{'descr': [{}], 'fortran_order': False, 'shape': (1,), }}", names.join(", "));
    let unpadded = 10 + header.len() + 1;
    header.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(fields.iter().flat_map(|(_, value)| value.to_le_bytes()));
    super::files::write(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_padded_to_64_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("row.npy");
        write_row(&path, &[("image_auroc", 0.5), ("aupro", f64::NAN)]).unwrap();
        let bytes = std::fs::read(path).unwrap();
        assert_eq!((bytes.len() - 16) % 64, 0);
        assert_eq!(&bytes[bytes.len() - 16..bytes.len() - 8], 0.5_f64.to_le_bytes());
    }
}
