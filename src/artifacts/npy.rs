//! NumPy files. Plain arrays are written with `ndarray-npy`. This module adds what that crate does not write:
//! structured arrays of one row, and arrays that are written piece by piece (format: NumPy Enhancement Proposal 1,
//! version 1.0).

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use ndarray::ArrayViewD;
use ndarray_npy::WriteNpyExt;

use super::ArtifactError;

/// Writes `data` as an f32 array of the given shape.
pub fn write_f32(path: &Path, shape: &[usize], data: &[f32]) -> Result<(), ArtifactError> {
    let array = ArrayViewD::from_shape(shape, data).map_err(|_| ArtifactError::Tensor {
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

/// Writes a structured array of one row, with one f64 per field. In Python: `np.load(f)["image_auroc"]`.
///
/// Field names must not contain quotes.
pub fn write_row(path: &Path, fields: &[(&str, f64)]) -> Result<(), ArtifactError> {
    let names: Vec<String> = fields.iter().map(|(name, _)| format!("('{name}', '<f8')")).collect();
    let mut bytes =
        header(&format!("{{'descr': [{}], 'fortran_order': False, 'shape': (1,), }}", names.join(", ")));
    bytes.extend(fields.iter().flat_map(|(_, value)| value.to_le_bytes()));
    super::files::write(path, &bytes)
}

/// Returns the header of a file, which precedes the data: magic, version, and the dictionary, padded to a multiple of
/// 64 bytes.
fn header(dictionary: &str) -> Vec<u8> {
    let mut header = dictionary.to_owned();
    let unpadded = 10 + header.len() + 1;
    header.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes
}

/// Writes an f32 array piece by piece.
pub struct Appender {
    path: PathBuf,
    file: BufWriter<File>,
    /// Number of values that are still to be written.
    missing: usize,
}

impl Appender {
    /// Creates the file of an array with the given shape.
    pub fn new(path: &Path, shape: &[usize]) -> Result<Self, ArtifactError> {
        let sides: Vec<String> = shape.iter().map(|side| format!("{side},")).collect();
        let dictionary =
            format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", sides.join(" "));
        super::files::write(path, &header(&dictionary))?;
        let file = File::options().append(true).open(path);
        let file =
            BufWriter::new(file.map_err(|source| ArtifactError::Io { path: path.to_owned(), source })?);
        Ok(Self { path: path.to_owned(), file, missing: shape.iter().product() })
    }

    /// Appends values.
    ///
    /// # Panics
    /// If there are then more values than the shape holds.
    pub fn append(&mut self, values: &[f32]) -> Result<(), ArtifactError> {
        assert!(values.len() <= self.missing, "{} values for {}", values.len(), self.missing);
        self.missing -= values.len();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.file.write_all(&bytes).map_err(|source| ArtifactError::Io { path: self.path.clone(), source })
    }

    /// Finishes the file.
    ///
    /// # Panics
    /// If there are fewer values than the shape holds.
    pub fn finish(mut self) -> Result<(), ArtifactError> {
        assert_eq!(self.missing, 0, "values are missing");
        self.file.flush().map_err(|source| ArtifactError::Io { path: self.path, source })
    }
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

    /// Guards against a release of `ndarray-npy` that writes other bytes.
    #[test]
    fn the_bytes_of_an_array_are_pinned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("array.npy");
        for (shape, text) in [(vec![2], "(2,)"), (vec![1, 2, 1], "(1, 2, 1)")] {
            write_f32(&path, &shape, &[1.5, -2.0]).unwrap();
            let dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {text}}}");
            let expected = format!("\x01\0v\0{dictionary:117}\n");
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(&bytes[..6], b"\x93NUMPY");
            assert_eq!(String::from_utf8_lossy(&bytes[6..128]), expected);
            assert_eq!(bytes[128..], [0, 0, 0xC0, 0x3F, 0, 0, 0, 0xC0]);
        }
    }

    #[test]
    fn a_shape_of_another_size_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write_f32(&folder.path().join("array.npy"), &[2, 2], &[0.0; 3]).is_err());
    }

    #[test]
    fn an_array_in_pieces_is_the_array_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, pieces) = (folder.path().join("whole.npy"), folder.path().join("pieces.npy"));
        let values: Vec<f32> = (0..24).map(|value| value as f32 / 7.0).collect();
        write_f32(&whole, &[4, 2, 3], &values).unwrap();
        let mut appender = Appender::new(&pieces, &[4, 2, 3]).unwrap();
        values.chunks(6).for_each(|some| appender.append(some).unwrap());
        appender.finish().unwrap();
        let data = |path| std::fs::read(path).unwrap()[128..].to_vec();
        assert_eq!(data(whole), data(pieces.clone()));
        let text = String::from_utf8_lossy(&std::fs::read(pieces).unwrap()[..128]).into_owned();
        assert!(text.contains("'shape': (4, 2, 3,), }"), "{text}");
    }
}
