//! Reads the golden files of the tests, which the scripts in `tests/golden/` made.

use std::fmt::Debug;
use std::str::FromStr;

use safetensors::SafeTensors;

/// The numbers on the line of a text file that begins with `name`.
pub(super) fn line<T: FromStr<Err: Debug>>(text: &str, name: &str) -> Vec<T> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    line.split(' ').map(|number| number.parse().unwrap()).collect()
}

/// The f32 tensor `name` of a safetensors file.
pub(super) fn tensor(file: &[u8], name: &str) -> Vec<f32> {
    let file = SafeTensors::deserialize(file).unwrap();
    let tensor = file.tensor(name).unwrap();
    tensor.data().chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}
