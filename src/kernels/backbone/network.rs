//! Descriptions of the networks: torchvision's residual networks, truncated after layer3.
//!
//! All code that runs or exports a network, or checks or initialises its weights, takes tensor names, shapes and
//! strides from here, so that the backends cannot disagree.
//!
//! Sources: He et al. 2016 ("Deep Residual Learning for Image Recognition"), Zagoruyko and Komodakis 2016
//! ("Wide Residual Networks"). Names and shapes are those of torchvision's `resnet.py`, which puts the stride of a
//! bottleneck on its 3×3 convolution.

use serde::{Deserialize, Serialize};

use std::fmt;

/// Channels of an input image.
pub const INPUT_CHANNELS: usize = 3;

/// Output channels of the stem; `inplanes` in torchvision.
const STEM_CHANNELS: usize = 64;

/// Stride of the max pooling after the stem.
const POOLING_STRIDE: usize = 2;

/// A residual network of torchvision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Network {
    /// ResNet-18: basic blocks (2, 2, 2).
    ResNet18,
    /// ResNet-50: bottlenecks (3, 4, 6).
    ResNet50,
    /// ResNet-101: bottlenecks (3, 4, 23).
    ResNet101,
    /// Wide ResNet-50-2: ResNet-50 whose bottlenecks have twice as many inner channels.
    WideResNet50,
    /// Wide ResNet-101-2: ResNet-101 whose bottlenecks have twice as many inner channels.
    WideResNet101,
}

/// A layer of the network whose feature map can be requested (a "stage" in He et al.).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Layer {
    /// Stride 4.
    Layer1,
    /// Stride 8.
    Layer2,
    /// Stride 16.
    Layer3,
}

/// A convolution without bias, followed by a batch norm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Convolution {
    /// Name of the convolution's module; its tensor is `<name>.weight`.
    pub name: String,
    /// Name of the batch norm's module.
    pub norm: String,
    /// Output channels.
    pub out_channels: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Side of the square kernel.
    pub kernel: usize,
    /// Stride in both directions.
    pub stride: usize,
    /// Zero padding on each side.
    pub padding: usize,
}

/// A residual block: `relu(branch(x) + shortcut(x))`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResidualBlock {
    /// Name of the block's module, such as `layer2.0`.
    pub name: String,
    /// The layer that the block belongs to.
    pub layer: Layer,
    /// Whether the block is the last one of its layer, so that its output is the layer's map.
    pub ends_layer: bool,
    /// The convolutions of the branch, in order, with a ReLU after each but the last.
    pub branch: Vec<Convolution>,
    /// The convolution of the shortcut; `None` if the shortcut is the identity.
    pub shortcut: Option<Convolution>,
}

/// The name and shape of a tensor of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorShape {
    /// Its name in torchvision.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl Network {
    /// Every network, smallest first.
    pub const ALL: [Self; 5] =
        [Self::ResNet18, Self::ResNet50, Self::ResNet101, Self::WideResNet50, Self::WideResNet101];

    /// Returns the name of the network in torchvision.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResNet18 => "resnet18",
            Self::ResNet50 => "resnet50",
            Self::ResNet101 => "resnet101",
            Self::WideResNet50 => "wide_resnet50_2",
            Self::WideResNet101 => "wide_resnet101_2",
        }
    }

    /// Returns the network with that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|network| network.name() == name)
    }

    /// Returns the number of channels of a layer's map.
    pub fn channels(self, layer: Layer) -> usize {
        layer.planes() * self.expansion()
    }

    /// Returns the first convolution: 7×7, stride 2. It is followed by a ReLU and a 3×3 max pooling of stride 2
    /// with padding 1.
    pub fn stem(self) -> Convolution {
        Convolution {
            name: "conv1".to_owned(),
            norm: "bn1".to_owned(),
            out_channels: STEM_CHANNELS,
            in_channels: INPUT_CHANNELS,
            kernel: 7,
            stride: 2,
            padding: 3,
        }
    }

    /// Returns the residual blocks of layer1 to layer3, in order.
    pub fn blocks(self) -> Vec<ResidualBlock> {
        let mut blocks = Vec::new();
        let mut in_channels = STEM_CHANNELS;
        for (layer, count) in Layer::ALL.into_iter().zip(self.block_counts()) {
            for index in 0..count {
                blocks.push(self.block(layer, index, in_channels, index + 1 == count));
                in_channels = self.channels(layer);
            }
        }
        blocks
    }

    /// Returns every convolution: the stem, then each block's branch and shortcut.
    pub fn convolutions(self) -> Vec<Convolution> {
        let mut all = vec![self.stem()];
        for block in self.blocks() {
            all.extend(block.branch);
            all.extend(block.shortcut);
        }
        all
    }

    /// Returns the tensors that the network needs, in the order of [`Network::convolutions`].
    pub fn tensors(self) -> Vec<TensorShape> {
        self.convolutions().iter().flat_map(Convolution::tensors).collect()
    }

    /// Returns the number of weights of the convolutions.
    pub fn parameters(self) -> usize {
        self.convolutions().iter().map(|convolution| convolution.shape().iter().product::<usize>()).sum()
    }

    /// Returns the multiplications and additions of the convolutions for one pixel of an image, up to a layer.
    pub fn multiply_adds(self, deepest: Layer) -> f64 {
        let a_position = |convolution: &Convolution| convolution.shape().iter().product::<usize>() as f64;
        let stem = self.stem();
        let mut stride = stem.stride;
        let mut sum = a_position(&stem) / stride.pow(2) as f64;
        stride *= POOLING_STRIDE;
        for block in self.blocks().iter().take_while(|block| block.layer <= deepest) {
            for convolution in &block.branch {
                stride *= convolution.stride;
                sum += a_position(convolution) / stride.pow(2) as f64;
            }
            sum += block.shortcut.iter().map(a_position).sum::<f64>() / stride.pow(2) as f64;
        }
        sum
    }

    fn block(self, layer: Layer, index: usize, in_channels: usize, ends_layer: bool) -> ResidualBlock {
        let name = format!("{}.{index}", layer.name());
        let stride = if index == 0 && layer != Layer::Layer1 { 2 } else { 1 };
        let out_channels = self.channels(layer);
        let changes_shape = stride != 1 || in_channels != out_channels;
        let shortcut = changes_shape.then(|| Convolution {
            name: format!("{name}.downsample.0"),
            norm: format!("{name}.downsample.1"),
            out_channels,
            in_channels,
            kernel: 1,
            stride,
            padding: 0,
        });
        let branch = self.branch(layer, &name, in_channels, stride);
        ResidualBlock { name, layer, ends_layer, branch, shortcut }
    }

    fn branch(self, layer: Layer, block: &str, in_channels: usize, stride: usize) -> Vec<Convolution> {
        let inner = layer.planes() * self.width_factor();
        let outer = self.channels(layer);
        let plan: &[(usize, usize, usize, usize)] = if self.expansion() == 1 {
            &[(outer, in_channels, 3, stride), (outer, outer, 3, 1)]
        } else {
            &[(inner, in_channels, 1, 1), (inner, inner, 3, stride), (outer, inner, 1, 1)]
        };
        plan.iter()
            .enumerate()
            .map(|(index, &(out_channels, in_channels, kernel, stride))| Convolution {
                name: format!("{block}.conv{}", index + 1),
                norm: format!("{block}.bn{}", index + 1),
                out_channels,
                in_channels,
                kernel,
                stride,
                padding: kernel / 2,
            })
            .collect()
    }

    fn block_counts(self) -> [usize; 3] {
        match self {
            Self::ResNet18 => [2, 2, 2],
            Self::ResNet50 | Self::WideResNet50 => [3, 4, 6],
            Self::ResNet101 | Self::WideResNet101 => [3, 4, 23],
        }
    }

    /// Returns a block's output channels as a multiple of its planes: 1 for a basic block, 4 for a bottleneck.
    fn expansion(self) -> usize {
        match self {
            Self::ResNet18 => 1,
            Self::ResNet50 | Self::ResNet101 | Self::WideResNet50 | Self::WideResNet101 => 4,
        }
    }

    /// Returns a bottleneck's inner channels as a multiple of its planes.
    fn width_factor(self) -> usize {
        match self {
            Self::ResNet18 | Self::ResNet50 | Self::ResNet101 => 1,
            Self::WideResNet50 | Self::WideResNet101 => 2,
        }
    }
}

impl Layer {
    /// Every layer, shallowest first.
    pub const ALL: [Self; 3] = [Self::Layer1, Self::Layer2, Self::Layer3];

    /// Returns the name of the layer in torchvision.
    pub fn name(self) -> &'static str {
        match self {
            Self::Layer1 => "layer1",
            Self::Layer2 => "layer2",
            Self::Layer3 => "layer3",
        }
    }

    /// Returns the layer with that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layer| layer.name() == name)
    }

    /// Returns the total stride: how many image pixels, in each direction, there are per map position.
    pub fn stride(self) -> usize {
        match self {
            Self::Layer1 => 4,
            Self::Layer2 => 8,
            Self::Layer3 => 16,
        }
    }

    /// Returns the side of the map for an image side. Each halving rounds up.
    pub fn side(self, image_side: usize) -> usize {
        image_side.div_ceil(self.stride())
    }

    fn planes(self) -> usize {
        match self {
            Self::Layer1 => 64,
            Self::Layer2 => 128,
            Self::Layer3 => 256,
        }
    }
}

impl Convolution {
    /// Returns the name of the weight tensor, of shape `[out, in, kernel, kernel]`.
    pub fn weight_name(&self) -> String {
        format!("{}.weight", self.name)
    }

    /// Returns the shape of the weight tensor, `[out, in, kernel, kernel]`.
    pub fn shape(&self) -> [usize; 4] {
        [self.out_channels, self.in_channels, self.kernel, self.kernel]
    }

    /// Returns the names of the batch norm's tensors, each of shape `[out]`: scale, shift, mean, variance.
    pub fn norm_names(&self) -> [String; 4] {
        ["weight", "bias", "running_mean", "running_var"].map(|part| format!("{}.{part}", self.norm))
    }

    /// Returns the five tensors of the convolution and its batch norm.
    pub fn tensors(&self) -> Vec<TensorShape> {
        let mut tensors = vec![TensorShape { name: self.weight_name(), shape: self.shape().to_vec() }];
        let norms = self.norm_names();
        tensors.extend(norms.map(|name| TensorShape { name, shape: vec![self.out_channels] }));
        tensors
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parameters up to layer3 without running statistics, counted with torchvision 0.29.2 by
    /// `sum(p.numel() for n, p in model.named_parameters() if not n.startswith(("layer4", "fc")))`.
    const PARAMETERS: [(Network, usize); 5] = [
        (Network::ResNet18, 2_782_784),
        (Network::ResNet50, 8_543_296),
        (Network::ResNet101, 27_535_424),
        (Network::WideResNet50, 24_862_528),
        (Network::WideResNet101, 82_865_984),
    ];

    #[test]
    fn parameter_counts_are_torchvisions() {
        for (network, expected) in PARAMETERS {
            let count: usize = network
                .tensors()
                .iter()
                .filter(|tensor| !tensor.name.contains("running"))
                .map(|tensor| tensor.shape.iter().product::<usize>())
                .sum();
            assert_eq!(count, expected, "{network}");
        }
    }

    /// Multiplications and additions for 224 × 224 pixels as torchvision 0.29 publishes them (`_ops`: 1.814, 4.089 and
    /// 11.398 billion), without layer4 and the last layer, whose shapes are those of He et al., table 1.
    #[test]
    fn multiplications_are_those_that_torchvision_publishes() {
        let basic = 9.0 * (256.0 * 512.0 + 3.0 * 512.0 * 512.0) + 256.0 * 512.0;
        let bottleneck = |inner: f64| {
            let first = 4.0 * 1024.0 * inner + 1024.0 * 2048.0;
            first + 2.0 * 2048.0 * inner + 3.0 * (9.0 * inner * inner + 2048.0 * inner)
        };
        let cases = [
            (Network::ResNet18, 1.814e9, basic, 512.0),
            (Network::ResNet50, 4.089e9, bottleneck(512.0), 2048.0),
            (Network::WideResNet50, 11.398e9, bottleneck(1024.0), 2048.0),
        ];
        for (network, published, layer4, last) in cases {
            let expected = published - 49.0 * layer4 - 1000.0 * last;
            let counted = network.multiply_adds(Layer::Layer3) * 224.0 * 224.0;
            assert!((counted / expected - 1.0).abs() < 2e-3, "{network}: {counted} instead of {expected}");
            assert!(network.multiply_adds(Layer::Layer2) < network.multiply_adds(Layer::Layer3));
        }
    }

    #[test]
    fn names_parse_back() {
        for network in Network::ALL {
            assert_eq!(Network::parse(network.name()), Some(network));
        }
        for layer in Layer::ALL {
            assert_eq!(Layer::parse(layer.name()), Some(layer));
        }
        assert_eq!(Network::parse("resnet34"), None);
    }

    #[test]
    fn a_wide_bottleneck_is_wide_inside_only() {
        let blocks = Network::WideResNet50.blocks();
        let block = blocks.iter().find(|block| block.name == "layer2.0").unwrap();
        let shapes: Vec<[usize; 4]> = block.branch.iter().map(Convolution::shape).collect();
        assert_eq!(shapes, [[256, 256, 1, 1], [256, 256, 3, 3], [512, 256, 1, 1]]);
        assert_eq!(block.branch.iter().map(|part| part.stride).collect::<Vec<_>>(), [1, 2, 1]);
        assert_eq!(block.shortcut.as_ref().map(Convolution::shape), Some([512, 256, 1, 1]));
    }

    #[test]
    fn one_block_ends_each_layer() {
        for network in Network::ALL {
            let ends: Vec<Layer> =
                network.blocks().iter().filter(|block| block.ends_layer).map(|block| block.layer).collect();
            assert_eq!(ends, Layer::ALL);
        }
    }

    #[test]
    fn sides_round_up_at_each_halving() {
        for side in 1..=200_usize {
            let halved = |times: u32| (0..times).fold(side, |side, _| (side - 1) / 2 + 1);
            assert_eq!(Layer::Layer1.side(side), halved(2));
            assert_eq!(Layer::Layer2.side(side), halved(3));
            assert_eq!(Layer::Layer3.side(side), halved(4));
        }
    }
}
