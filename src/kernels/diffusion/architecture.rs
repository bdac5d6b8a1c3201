//! The tensors of the network: names, shapes and initial values. The network is a U-Net as in Ho et al. 2020, appendix
//! B: residual blocks with group norms, a timestep embedding added in each block, and self-attention at the lowest
//! resolution.
//!
//! It is smaller than theirs, with one block per level on each side, so that a step takes a fraction of a second on two
//! cores.

use serde::{Deserialize, Serialize};

use super::{IMAGE_CHANNELS, INPUT_CHANNELS};
use crate::kernels::random::Rng;

/// The size parameters of a U-Net.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Architecture {
    /// Side of a patch in px; a multiple of `2^(levels - 1)`.
    pub side: usize,
    /// Channels of the first level; even, and a multiple of `groups`.
    pub channels: usize,
    /// Channels of each level, as multiples of `channels`.
    pub levels: Vec<usize>,
    /// Number of groups of each group norm.
    pub groups: usize,
}

/// All parameters of a network, tensor by tensor in the order of [`Architecture::tensors`].
pub type Parameters = Vec<f32>;

impl Architecture {
    /// Returns the number of channels of each level.
    pub fn widths(&self) -> Vec<usize> {
        self.levels.iter().map(|level| level * self.channels).collect()
    }

    /// Returns the length of the timestep embedding inside the network.
    pub fn time(&self) -> usize {
        4 * self.channels
    }

    /// Returns the name and shape of every tensor.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut list = TensorList(Vec::new());
        let (widths, time) = (self.widths(), self.time());
        list.linear("time1", self.channels, time);
        list.linear("time2", time, time);
        list.convolution("stem", INPUT_CHANNELS, widths[0], 3);
        for (level, &width) in widths.iter().enumerate() {
            let above = widths[level.saturating_sub(1)];
            list.residual(&format!("down.{level}"), above, width, time);
        }
        for (level, &width) in widths.iter().enumerate().take(widths.len() - 1) {
            list.convolution(&format!("shrink.{level}"), width, width, 3);
        }
        let deep = widths[widths.len() - 1];
        list.residual("middle1", deep, deep, time);
        list.residual("middle2", deep, deep, time);
        list.norm("attention.norm", deep);
        list.convolution("attention.qkv", deep, 3 * deep, 1);
        list.convolution("attention.out", deep, deep, 1);
        for (level, pair) in widths.windows(2).enumerate() {
            list.convolution(&format!("grow.{level}"), pair[1], pair[0], 3);
        }
        for (level, &width) in widths.iter().enumerate().take(widths.len() - 1) {
            list.residual(&format!("up.{level}"), 2 * width, width, time);
        }
        list.norm("norm", widths[0]);
        list.convolution("head", widths[0], IMAGE_CHANNELS, 3);
        list.0
    }

    /// Returns the number of parameters.
    pub fn count(&self) -> usize {
        self.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Returns the initial parameters: uniform in `±1/√fan_in`; scale 1 and shift 0 for norms. The last convolution of
    /// each block, of the attention and of the network is 0, so that each block starts as the identity (as in the code
    /// of Ho et al.).
    pub fn initial(&self, seed: u64) -> Parameters {
        let mut parameters = Vec::with_capacity(self.count());
        let tensors = self.tensors();
        let mut fan_in = 1;
        for (name, shape) in &tensors {
            let count = shape.iter().product();
            let (part, which) = name.rsplit_once('.').unwrap_or((name, ""));
            if part.ends_with("norm") || part.ends_with("norm1") || part.ends_with("norm2") {
                parameters.extend(vec![if which == "weight" { 1.0 } else { 0.0 }; count]);
            } else if part.ends_with("conv2") || part.ends_with("out") || part == "head" {
                parameters.extend(vec![0.0; count]);
            } else {
                // A bias follows its weight and has the same bound.
                if which == "weight" {
                    fan_in = shape[1..].iter().product::<usize>();
                }
                let bound = 1.0 / (fan_in as f64).sqrt();
                let mut rng = Rng::new(seed, &format!("diffusion {name}"));
                parameters.extend((0..count).map(|_| rng.between(-bound, bound) as f32));
            }
        }
        parameters
    }
}

struct TensorList(Vec<(String, Vec<usize>)>);

impl TensorList {
    fn add(&mut self, part: &str, weight: Vec<usize>) {
        let bias = vec![weight[0]];
        self.0.push((format!("{part}.weight"), weight));
        self.0.push((format!("{part}.bias"), bias));
    }

    fn linear(&mut self, part: &str, inside: usize, outside: usize) {
        self.add(part, vec![outside, inside]);
    }

    fn convolution(&mut self, part: &str, inside: usize, outside: usize, kernel: usize) {
        self.add(part, vec![outside, inside, kernel, kernel]);
    }

    fn norm(&mut self, part: &str, channels: usize) {
        self.add(part, vec![channels]);
    }

    fn residual(&mut self, part: &str, inside: usize, outside: usize, time: usize) {
        self.norm(&format!("{part}.norm1"), inside);
        self.convolution(&format!("{part}.conv1"), inside, outside, 3);
        self.linear(&format!("{part}.time"), time, outside);
        self.norm(&format!("{part}.norm2"), outside);
        self.convolution(&format!("{part}.conv2"), outside, outside, 3);
        if inside != outside {
            self.convolution(&format!("{part}.skip"), inside, outside, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Architecture {
        Architecture { side: 64, channels: 32, levels: vec![1, 2, 2, 4], groups: 8 }
    }

    #[test]
    fn a_network_has_as_many_numbers_as_pytorch_counts() {
        assert_eq!(
            small().count(),
            1_633_795,
            "counted by tests/golden/diffusion.py's Unet(32, [1, 2, 2, 4])"
        );
    }

    #[test]
    fn initial_numbers_are_those_of_the_seed_and_blocks_start_at_nothing() {
        let network = small();
        let (one, two) = (network.initial(1), network.initial(2));
        assert_eq!(one.len(), network.count());
        assert!(one == network.initial(1) && one != two);
        let mut at = 0;
        for (name, shape) in network.tensors() {
            let count: usize = shape.iter().product();
            let numbers = &one[at..at + count];
            at += count;
            let is_zero = numbers.iter().all(|&number| number == 0.0);
            let wanted = name.contains("conv2") || name.starts_with("head") || name.contains("attention.out");
            assert!(is_zero == (wanted || name.contains("norm") && name.ends_with("bias")), "{name}");
            if name == "stem.weight" {
                let bound = 1.0 / (7.0 * 9.0_f32).sqrt();
                assert!(numbers.iter().all(|number| number.abs() <= bound));
            }
        }
    }
}
