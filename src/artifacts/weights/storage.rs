//! Floating-point formats of weight files.

use half::{bf16, f16};

/// A floating-point format, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F16,
    Bf16,
    F32,
    F64,
}

impl Element {
    /// Returns the size of one number.
    pub(super) fn size_bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Decodes numbers to f32 and ignores an incomplete number at the end. f64 is rounded, the others are exact.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F16 => numbers(bytes, |number| f16::from_le_bytes(number).to_f32()),
            Self::Bf16 => numbers(bytes, |number| bf16::from_le_bytes(number).to_f32()),
            Self::F32 => numbers(bytes, f32::from_le_bytes),
            Self::F64 => numbers(bytes, |number| f64::from_le_bytes(number) as f32),
        }
    }
}

fn numbers<const SIZE: usize>(bytes: &[u8], decode: impl Fn([u8; SIZE]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&number| decode(number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_decodes_a_half() {
        let half: [(Element, &[u8]); 4] = [
            (Element::F16, &[0x00, 0x38]),
            (Element::Bf16, &[0x00, 0x3f]),
            (Element::F32, &[0, 0, 0, 0x3f]),
            (Element::F64, &[0, 0, 0, 0, 0, 0, 0xe0, 0x3f]),
        ];
        for (element, bytes) in half {
            assert_eq!(element.size_bytes(), bytes.len());
            assert_eq!(element.decode(bytes), [0.5]);
        }
    }
}
