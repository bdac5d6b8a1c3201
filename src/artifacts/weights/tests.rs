//! Tests of the readers on files made by `tests/golden/weights.py`.

use super::*;
use crate::kernels::backbone::{Network, Tensor};
use crate::kernels::random::Rng;

const ARCHIVE: &[u8] = include_bytes!("../../../tests/golden/weights/archive.pth");
const NESTED: &[u8] = include_bytes!("../../../tests/golden/weights/nested.pth");
const STREAM: &[u8] = include_bytes!("../../../tests/golden/weights/stream.pth");
const CALL: &[u8] = include_bytes!("../../../tests/golden/weights/call.pth");
const PLAIN: &[u8] = include_bytes!("../../../tests/golden/weights/plain.safetensors");

/// The tensors of the script: exact in every type.
fn expected() -> Weights {
    let ramp: Vec<f32> = (0..12_u8).map(|index| f32::from(index) / 4.0 - 1.0).collect();
    let transposed = (0..12).map(|index| ramp[index % 3 * 4 + index / 3]).collect();
    let tensors = [
        ("float", vec![3, 4], ramp.clone()),
        ("transposed", vec![4, 3], transposed),
        ("slice", vec![4], ramp[5..9].to_vec()),
        ("half", vec![12], ramp.clone()),
        ("bfloat16", vec![12], ramp.clone()),
        ("double", vec![12], ramp.clone()),
        ("parameter", vec![2, 6], ramp),
        ("scalar", vec![], vec![2.5]),
        ("empty", vec![0, 3], vec![]),
    ];
    tensors.map(|(name, shape, values)| (name.to_owned(), Tensor::new(shape, values))).into_iter().collect()
}

#[test]
fn every_format_gives_the_same_tensors() {
    for (name, bytes) in [("archive", ARCHIVE), ("nested", NESTED), ("stream", STREAM), ("plain", PLAIN)] {
        assert_eq!(parse_weights(bytes).unwrap(), expected(), "{name}");
    }
}

#[test]
fn a_call_is_refused_by_name() {
    let error = parse_weights(CALL).unwrap_err();
    assert_eq!(
        error.to_string(),
        "it asks for `__builtin__.print`, which is not executed; save it with `torch.save(model.state_dict(), path)`"
    );
}

#[test]
fn other_files_are_refused() {
    for bytes in [&b""[..], b"PK", b"<html>", b"version https://git-lfs.github.com/spec/v1", &[0; 64]] {
        assert!(matches!(parse_weights(bytes), Err(WeightsFault::UnknownFormat)));
    }
}

#[test]
fn weights_of_something_else_do_not_fit_a_network() {
    let error = parse_weights(ARCHIVE).unwrap().check(Network::ResNet18).unwrap_err();
    assert_eq!(error.faults.len(), Network::ResNet18.tensors().len());
}

#[test]
fn cut_files_are_errors() {
    for bytes in [ARCHIVE, NESTED, STREAM, PLAIN] {
        for length in (0..bytes.len()).step_by(7) {
            assert!(parse_weights(&bytes[..length]).is_err(), "{length}");
        }
    }
}

/// A flipped byte may change a value or a name unnoticed (only the archive has checksums): what is promised
/// is an answer, without a panic and within the memory of the file.
#[test]
fn damaged_files_are_answered() {
    let mut rng = Rng::new(1, "damage");
    for bytes in [ARCHIVE, NESTED, STREAM, PLAIN, CALL] {
        for _ in 0..2000 {
            let mut damaged = bytes.to_vec();
            for _ in 0..=rng.below(3) {
                let position = rng.below(damaged.len());
                damaged[position] = rng.next_u64() as u8;
            }
            if let Ok(weights) = parse_weights(&damaged) {
                let held: usize = weights.iter().map(|(_, tensor)| tensor.values().len()).sum();
                assert!(held <= damaged.len());
            }
        }
    }
}
