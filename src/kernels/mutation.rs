//! Damage to files, for the tests of everything that reads files of other people.

use super::random::Rng;

/// How a file was damaged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mutation {
    /// The end is missing.
    Cut,
    /// The end is zeros.
    Zeros,
    /// Some bytes have another value.
    Flip,
    /// A part is missing.
    Hole,
}

/// Damages a file, which must not be empty.
pub(crate) fn mutated(rng: &mut Rng, whole: &[u8]) -> (Mutation, Vec<u8>) {
    let mut bytes = whole.to_vec();
    let at = rng.below(bytes.len());
    let mutation =
        [Mutation::Cut, Mutation::Zeros, Mutation::Flip, Mutation::Flip, Mutation::Hole][rng.below(5)];
    match mutation {
        Mutation::Cut => bytes.truncate(at),
        Mutation::Zeros => bytes[at..].fill(0),
        Mutation::Flip => {
            for _ in 0..=rng.below(3) {
                let at = rng.below(bytes.len());
                bytes[at] ^= 1 << rng.below(8);
            }
        }
        Mutation::Hole => {
            let end = (at + 1 + rng.below(40)).min(bytes.len());
            bytes.drain(at..end);
        }
    }
    (mutation, bytes)
}
