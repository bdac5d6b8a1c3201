//! Exports a network as an ONNX graph, with folded batch norms and without the layers after the last requested one.

use super::network::{Convolution, INPUT_CHANNELS, Layer, Network, ResidualBlock};
use super::onnx::{Attribute, Dimension, Graph, OnnxNode};
use super::weights::{Weights, WeightsError};

/// Name of the graph's input, `[n, 3, h, w]`.
pub const INPUT: &str = "pixels";

/// Encodes the network up to the deepest of `layers` as an ONNX model. The input `pixels` is `[n, 3, h, w]` for any
/// `n`, `h` and `w`. The outputs have the names and the order of `layers`. Equal arguments give equal bytes.
///
/// # Errors
/// If the weights do not fit the network.
pub fn encode(network: Network, weights: &Weights, layers: &[Layer]) -> Result<Vec<u8>, WeightsError> {
    weights.check(network)?;
    let mut graph = Graph::default();
    graph.input(
        INPUT,
        &[
            Dimension::Named("n"),
            Dimension::Fixed(INPUT_CHANNELS),
            Dimension::Named("h"),
            Dimension::Named("w"),
        ],
    );
    append(&mut graph, network, weights, layers);
    for &layer in layers {
        let [height, width] = ["h", "w"].map(|axis| format!("{layer}_{axis}"));
        let channels = Dimension::Fixed(network.channels(layer));
        let shape = [Dimension::Named("n"), channels, Dimension::Named(&height), Dimension::Named(&width)];
        graph.output(layer.name(), &shape);
    }
    Ok(graph.encode(network.name()))
}

/// Appends the nodes and constants of the network, up to the deepest of `layers`, to a graph that has an input
/// `pixels`. The output of each layer is a value with the layer's name.
///
/// # Panics
/// If [`Weights::check`] fails for the network.
pub fn append(graph: &mut Graph, network: Network, weights: &Weights, layers: &[Layer]) {
    let deepest = layers.iter().max().copied();
    let stem = convolve(graph, weights, &network.stem(), INPUT);
    let stem = apply(graph, "Relu", "relu", &[&stem]);
    graph.node(&OnnxNode {
        operator: "MaxPool",
        name: "maxpool",
        inputs: &[&stem],
        outputs: &["maxpool"],
        attributes: &[
            ("kernel_shape", Attribute::Ints(&[3, 3])),
            ("pads", Attribute::Ints(&[1, 1, 1, 1])),
            ("strides", Attribute::Ints(&[2, 2])),
        ],
    });
    let mut value = "maxpool".to_owned();
    for block in network.blocks().iter().filter(|block| Some(block.layer) <= deepest) {
        value = append_block(graph, weights, block, &value);
    }
}

fn append_block(graph: &mut Graph, weights: &Weights, block: &ResidualBlock, input: &str) -> String {
    let shortcut = match &block.shortcut {
        Some(convolution) => convolve(graph, weights, convolution, input),
        None => input.to_owned(),
    };
    let mut value = input.to_owned();
    for (index, convolution) in block.branch.iter().enumerate() {
        value = convolve(graph, weights, convolution, &value);
        if index + 1 < block.branch.len() {
            value = apply(graph, "Relu", &format!("{}.relu{}", block.name, index + 1), &[&value]);
        }
    }
    let sum = apply(graph, "Add", &format!("{}.add", block.name), &[&value, &shortcut]);
    let output = if block.ends_layer { block.layer.name() } else { &block.name };
    apply(graph, "Relu", output, &[&sum])
}

/// Appends a folded convolution and returns the name of its output.
fn convolve(graph: &mut Graph, weights: &Weights, convolution: &Convolution, input: &str) -> String {
    let folded = weights.fold(convolution);
    let name = &convolution.name;
    let [weight, bias] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
    graph.constant(&weight, &convolution.shape(), &folded.weight);
    graph.constant(&bias, &[convolution.out_channels], &folded.bias);
    let [kernel, stride, padding] =
        [convolution.kernel, convolution.stride, convolution.padding].map(|number| number as i64);
    graph.node(&OnnxNode {
        operator: "Conv",
        name,
        inputs: &[input, &weight, &bias],
        outputs: &[name],
        attributes: &[
            ("kernel_shape", Attribute::Ints(&[kernel; 2])),
            ("pads", Attribute::Ints(&[padding; 4])),
            ("strides", Attribute::Ints(&[stride; 2])),
        ],
    });
    name.clone()
}

/// Appends an operator without attributes whose node and output have the given name, and returns that name.
fn apply(graph: &mut Graph, operator: &str, name: &str, inputs: &[&str]) -> String {
    graph.node(&OnnxNode { operator, name, inputs, outputs: &[name], attributes: &[] });
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_arguments_give_equal_bytes() {
        let weights = Weights::seeded(Network::ResNet18, 1);
        let layers = [Layer::Layer2, Layer::Layer3];
        let first = encode(Network::ResNet18, &weights, &layers).unwrap();
        assert_eq!(first, encode(Network::ResNet18, &weights, &layers).unwrap());
    }

    #[test]
    fn layers_below_the_deepest_are_cut() {
        let weights = Weights::seeded(Network::ResNet18, 1);
        let cut = encode(Network::ResNet18, &weights, &[Layer::Layer2]).unwrap();
        let whole = encode(Network::ResNet18, &weights, &Layer::ALL).unwrap();
        assert!(cut.len() * 3 < whole.len());
        assert!(!cut.windows(6).any(|part| part == b"layer3"));
    }
}
