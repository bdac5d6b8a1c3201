//! Weights of a network: named f32 tensors, checked against the network's description, folded, or randomly
//! initialised.
//!
//! Readers of weight files fill a [`Weights`]. Code that runs or exports a network gets [`FoldedConvolution`]s from
//! it.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::network::{Convolution, Network, ResidualBlock};
use crate::kernels::random::Rng;

/// Epsilon of a batch norm in torchvision.
const NORM_EPSILON: f64 = 1e-5;

/// An f32 tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// The tensors of a network by their names in torchvision. May hold tensors that the network does not need.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
    /// The kinds of tensors that were not read, by name.
    unread: BTreeMap<String, String>,
}

/// What comes before the names of a network's tensors in a weight file, such as `state_dict/module.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// Empty, or ends with `.` or `/`.
    pub text: String,
    /// Whether every tensor of the network has its name there.
    pub is_complete: bool,
}

/// A convolution with its batch norm folded in: `y = weight * x + bias`.
#[derive(Debug, Clone, PartialEq)]
pub struct FoldedConvolution {
    /// `[out, in, kernel, kernel]`, row-major.
    pub weight: Vec<f32>,
    /// `[out]`.
    pub bias: Vec<f32>,
}

/// Weights that do not fit a network, with all their faults.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the weights do not fit `{network}`: {}", list(.faults))]
pub struct WeightsError {
    /// The network that the weights were checked for.
    pub network: Network,
    /// At most one fault per tensor, in the network's order; never empty.
    pub faults: Vec<TensorFault>,
}

/// What is wrong with one tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message names them")]
pub enum TensorFault {
    #[error("`{name}` is missing")]
    Missing { name: String },
    #[error("`{name}` has shape {found:?} instead of {expected:?}")]
    Misshapen { name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("`{name}` is of a kind that is not read: {kind}")]
    Unread { name: String, kind: String },
    #[error("`{name}` holds a value that is not finite")]
    NotFinite { name: String },
    #[error("`{name}` holds a negative variance")]
    NegativeVariance { name: String },
}

impl Tensor {
    /// Creates a tensor from its shape and values.
    ///
    /// # Panics
    /// If the number of values is not the product of the shape.
    pub fn new(shape: Vec<usize>, values: Vec<f32>) -> Self {
        let expected: usize = shape.iter().product();
        assert_eq!(values.len(), expected, "{} values were given for shape {shape:?}", values.len());
        Self { shape, values }
    }

    /// Returns the dimensions, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

impl Weights {
    /// Adds a tensor, replacing one of the same name.
    pub fn insert(&mut self, name: String, tensor: Tensor) {
        self.tensors.insert(name, tensor);
    }

    /// Notes a tensor that was not read, and its kind.
    pub fn insert_unread(&mut self, name: String, kind: String) {
        self.unread.insert(name, kind);
    }

    /// Returns the tensor with that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Returns the tensors, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Initialises the weights of an untrained network from a seed, with the same bits on every machine.
    ///
    /// Convolutions are drawn as in torchvision: normal, mean 0, variance `2 / (out · kernel²)` (He et al.
    /// 2015, fan-out). Batch norms have scale 1, shift 0 and mean 0. Deviation from torchvision: the running
    /// variance is not 1 but the expected variance of the convolution's output (see `expected_variances`). With
    /// variance 1 the residual sums grow exponentially with depth: layer3 of ResNet-101 reached 122,000 on a
    /// photograph, beyond the range of f16; with the expected variance it reached 19.
    ///
    /// Cost: one normal random number per parameter, in parallel over tensors.
    pub fn seeded(network: Network, seed: u64) -> Self {
        let convolutions = network.convolutions();
        let variances = expected_variances(network);
        let drawn: Vec<[(String, Tensor); 5]> = convolutions
            .par_iter()
            .map(|convolution| {
                let variance = variances[&convolution.name];
                seeded_convolution(network, convolution, variance, seed)
            })
            .collect();
        drawn.into_iter().flatten().collect()
    }

    /// Returns the prefixes under which there are tensors with names of the network: those that have all of them, or, if
    /// there are none, the one that has most.
    pub fn prefixes(&self, network: Network) -> Vec<Prefix> {
        let wanted = network.tensors();
        let Some(first) = wanted.first() else { return Vec::new() };
        let names = || self.tensors.keys().chain(self.unread.keys());
        let ends = |text: &str| text.is_empty() || text.ends_with(['.', '/']);
        let texts =
            names().filter_map(|name| name.strip_suffix(first.name.as_str())).filter(|text| ends(text));
        let has = |name: &str| self.tensors.contains_key(name) || self.unread.contains_key(name);
        let counted = texts.map(|text| {
            let count = wanted.iter().filter(|tensor| has(&format!("{text}{}", tensor.name))).count();
            (count, text)
        });
        let mut counted: Vec<(usize, &str)> = counted.collect();
        counted.sort_by_key(|&(count, text)| (std::cmp::Reverse(count), text));
        let is_complete = counted.first().is_some_and(|&(count, _)| count == wanted.len());
        if is_complete {
            counted.retain(|&(count, _)| count == wanted.len());
        } else {
            counted.truncate(1);
        }
        counted.into_iter().map(|(_, text)| Prefix { text: text.to_owned(), is_complete }).collect()
    }

    /// Returns the tensors whose names begin with `prefix`, without it.
    #[must_use]
    pub fn under(self, prefix: &str) -> Self {
        fn under<T>(map: BTreeMap<String, T>, prefix: &str) -> BTreeMap<String, T> {
            let inside = |(name, value): (String, T)| Some((name.strip_prefix(prefix)?.to_owned(), value));
            map.into_iter().filter_map(inside).collect()
        }
        Self { tensors: under(self.tensors, prefix), unread: under(self.unread, prefix) }
    }

    /// Checks that every tensor of the network is present, has the right shape, is finite and, if it is a variance,
    /// is not negative. Other tensors (`fc`, `layer4`, `num_batches_tracked`) are ignored.
    ///
    /// # Errors
    /// With the faults of all tensors.
    pub fn check(&self, network: Network) -> Result<(), WeightsError> {
        let faults: Vec<TensorFault> = network
            .tensors()
            .into_iter()
            .filter_map(|expected| self.fault(expected.name, expected.shape))
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(WeightsError { network, faults }) }
    }

    /// Folds the batch norm of a convolution into it: `weight' = weight · γ / √(σ² + 1e-5)` and
    /// `bias' = β - μ · γ / √(σ² + 1e-5)` for each output channel, computed in f64 and rounded once to f32.
    ///
    /// # Panics
    /// If [`Weights::check`] fails for a network with that convolution.
    pub fn fold(&self, convolution: &Convolution) -> FoldedConvolution {
        let values = |name: &str| self.get(name).expect("the weights were checked").values();
        let [scale, shift, mean, variance] = convolution.norm_names();
        let [scale, shift] = [values(&scale), values(&shift)];
        let [mean, variance] = [values(&mean), values(&variance)];
        let weight = values(&convolution.weight_name());
        let filter_len = convolution.in_channels * convolution.kernel * convolution.kernel;
        let mut folded = FoldedConvolution {
            weight: Vec::with_capacity(weight.len()),
            bias: Vec::with_capacity(scale.len()),
        };
        for (channel, filter) in weight.chunks_exact(filter_len).enumerate() {
            let factor = f64::from(scale[channel]) / (f64::from(variance[channel]) + NORM_EPSILON).sqrt();
            folded.weight.extend(filter.iter().map(|&value| (f64::from(value) * factor) as f32));
            folded.bias.push((f64::from(shift[channel]) - f64::from(mean[channel]) * factor) as f32);
        }
        folded
    }

    fn fault(&self, name: String, expected: Vec<usize>) -> Option<TensorFault> {
        let Some(tensor) = self.get(&name) else {
            return Some(match self.unread.get(&name) {
                Some(kind) => TensorFault::Unread { kind: kind.clone(), name },
                None => TensorFault::Missing { name },
            });
        };
        if tensor.shape != expected {
            return Some(TensorFault::Misshapen { name, found: tensor.shape.clone(), expected });
        }
        if tensor.values.iter().any(|value| !value.is_finite()) {
            return Some(TensorFault::NotFinite { name });
        }
        if name.ends_with(".running_var") && tensor.values.iter().any(|&value| value < 0.0) {
            return Some(TensorFault::NegativeVariance { name });
        }
        None
    }
}

impl FromIterator<(String, Tensor)> for Weights {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> Self {
        Self { tensors: tensors.into_iter().collect(), unread: BTreeMap::new() }
    }
}

fn seeded_convolution(
    network: Network,
    convolution: &Convolution,
    variance: f64,
    seed: u64,
) -> [(String, Tensor); 5] {
    let name = convolution.weight_name();
    let mut rng = Rng::new(seed, &format!("backbone weights {network} {name}"));
    let deviation = kaiming_variance(convolution).sqrt();
    let shape = convolution.shape();
    let count = shape.iter().product();
    let weight = (0..count).map(|_| (rng.normal() * deviation) as f32).collect();
    let constant = |value: f64| {
        let channels = convolution.out_channels;
        Tensor::new(vec![channels], vec![value as f32; channels])
    };
    let [scale, shift, mean, running_variance] = convolution.norm_names();
    [
        (name, Tensor::new(shape.to_vec(), weight)),
        (scale, constant(1.0)),
        (shift, constant(0.0)),
        (mean, constant(0.0)),
        (running_variance, constant(variance)),
    ]
}

/// Returns the variance of a weight under torchvision's initialisation (He et al. 2015, fan-out, ReLU).
fn kaiming_variance(convolution: &Convolution) -> f64 {
    2.0 / (convolution.out_channels * convolution.kernel * convolution.kernel) as f64
}

/// Returns the expected variance of each convolution's output, by name, assuming that every batch norm normalises
/// its output to variance 1.
///
/// A convolution with independent weights of variance `v` and `fan_in` inputs of mean square `q` has an output of
/// variance `fan_in · v · q`. Assumed mean squares:
/// - the input image: 1
/// - the output of a batch norm: 1 before the ReLU, 1/2 after it
/// - the output of the 3×3 max pooling: twice its input
/// - the output of a block with a convolution as shortcut: 1
/// - the output of a block with an identity shortcut: that of the block's input, plus 3/4 for the branch. The ReLU
///   keeps between a half of the branch's 1 (if the shortcut is near 0) and all of it (if the shortcut is large and
///   positive).
///
/// This is an approximation: it only has to keep activations of order 1 at any depth.
fn expected_variances(network: Network) -> BTreeMap<String, f64> {
    let variance = |convolution: &Convolution, mean_square: f64| {
        let fan_in = convolution.in_channels * convolution.kernel * convolution.kernel;
        (convolution.name.clone(), fan_in as f64 * kaiming_variance(convolution) * mean_square)
    };
    let mut variances = BTreeMap::from([variance(&network.stem(), 1.0)]);
    let mut mean_square = 1.0;
    for ResidualBlock { branch, shortcut, .. } in network.blocks() {
        for (index, convolution) in branch.iter().enumerate() {
            variances.extend([variance(convolution, if index == 0 { mean_square } else { 0.5 })]);
        }
        variances.extend(shortcut.iter().map(|convolution| variance(convolution, mean_square)));
        mean_square = if shortcut.is_some() { 1.0 } else { mean_square + 0.75 };
    }
    variances
}

/// Largest number of faults that the message of a [`WeightsError`] lists.
const NAMED_FAULTS: usize = 10;

fn list(faults: &[TensorFault]) -> String {
    let mut named: Vec<String> = faults.iter().take(NAMED_FAULTS).map(ToString::to_string).collect();
    if faults.len() > NAMED_FAULTS {
        named.push(format!("and {} more", faults.len() - NAMED_FAULTS));
    }
    named.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeded_weights_fit_and_repeat() {
        let weights = Weights::seeded(Network::ResNet18, 3);
        weights.check(Network::ResNet18).unwrap();
        assert_eq!(weights, Weights::seeded(Network::ResNet18, 3));
        let other = Weights::seeded(Network::ResNet18, 4);
        assert_ne!(weights.get("conv1.weight"), other.get("conv1.weight"));
    }

    #[test]
    fn seeded_convolutions_have_the_fan_out_variance() {
        let weights = Weights::seeded(Network::ResNet18, 3);
        let values = weights.get("layer3.1.conv2.weight").unwrap().values();
        let mean_square = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len() as f64;
        let expected = 2.0 / (256.0 * 9.0);
        assert!((mean_square / expected - 1.0).abs() < 0.01, "{mean_square} {expected}");
    }

    #[test]
    fn all_faults_are_named_at_once() {
        let mut weights = Weights::seeded(Network::ResNet18, 1);
        weights.tensors.remove("layer1.0.bn1.bias");
        weights.insert("conv1.weight".to_owned(), Tensor::new(vec![1, 2], vec![0.0; 2]));
        weights.insert("bn1.running_var".to_owned(), Tensor::new(vec![64], vec![-1.0; 64]));
        weights.insert("bn1.bias".to_owned(), Tensor::new(vec![64], vec![f32::NAN; 64]));
        weights.insert("fc.weight".to_owned(), Tensor::new(vec![0], vec![]));
        let error = weights.check(Network::ResNet18).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the weights do not fit `resnet18`: `conv1.weight` has shape [1, 2] instead of [64, 3, 7, 7]; \
             `bn1.bias` holds a value that is not finite; `bn1.running_var` holds a negative variance; \
             `layer1.0.bn1.bias` is missing"
        );
    }

    #[test]
    fn empty_weights_miss_every_tensor() {
        let error = Weights::default().check(Network::ResNet50).unwrap_err();
        assert_eq!(error.faults.len(), Network::ResNet50.tensors().len());
    }

    #[test]
    fn a_folded_convolution_equals_convolution_and_norm() {
        let convolution = Network::ResNet18.blocks()[2].shortcut.clone().unwrap();
        let mut weights = Weights::seeded(Network::ResNet18, 5);
        let constant = |value: f32| Tensor::new(vec![128], vec![value; 128]);
        for (name, value) in convolution.norm_names().into_iter().zip([1.5, -0.25, 0.75, 4.0]) {
            weights.insert(name, constant(value));
        }
        let folded = weights.fold(&convolution);
        let weight = weights.get(&convolution.weight_name()).unwrap().values();
        let factor = 1.5 / 4.00001_f64.sqrt();
        for (folded, &value) in folded.weight.iter().zip(weight) {
            assert!((f64::from(*folded) - f64::from(value) * factor).abs() < 1e-7);
        }
        assert!(folded.bias.iter().all(|&bias| (f64::from(bias) - (-0.25 - 0.75 * factor)).abs() < 1e-6));
    }
}
