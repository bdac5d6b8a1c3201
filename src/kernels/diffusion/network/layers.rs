//! The layers of the network with their parameters: convolutions, linear layers, norms, residual blocks, attention.

use std::collections::HashMap;
use std::ops::Range;

use super::super::Architecture;
use super::convolution::{KernelShape, Packed, Start, convolve, weight_gradient};
use super::dense::{add_product, pixels, softmax, softmax_gradient, transpose, write_pixels};
use super::map::{Map, Memory};
use super::normalisation::{Norm, Statistics, silu, silu_derivative};

/// Where each tensor is among the parameters.
pub(super) struct TensorRanges {
    tensors: HashMap<String, (Range<usize>, Vec<usize>)>,
    groups: usize,
}

impl TensorRanges {
    pub(super) fn new(architecture: &Architecture) -> Self {
        let mut at = 0;
        let range = |(name, shape): (String, Vec<usize>)| {
            let start = at;
            at += shape.iter().product::<usize>();
            (name, (start..at, shape))
        };
        Self { tensors: architecture.tensors().into_iter().map(range).collect(), groups: architecture.groups }
    }

    fn has(&self, part: &str) -> bool {
        self.tensors.contains_key(&format!("{part}.weight"))
    }

    /// The ranges of weight and bias, and the weight's shape.
    fn part(&self, part: &str) -> ([Range<usize>; 2], &[usize]) {
        let (weight, shape) = &self.tensors[&format!("{part}.weight")];
        ([weight.clone(), self.tensors[&format!("{part}.bias")].0.clone()], shape)
    }
}

/// What a pass over the network works with.
pub(super) struct Pass<'a> {
    pub(super) parameters: &'a [f32],
    /// Gradients of the parameters; empty if none are wanted.
    pub(super) gradients: Vec<f32>,
    pub(super) memory: Memory,
}

impl Pass<'_> {
    fn add(&mut self, range: &Range<usize>, gradient: &[f32]) {
        for (sum, value) in self.gradients[range.clone()].iter_mut().zip(gradient) {
            *sum += value;
        }
    }
}

#[derive(Debug)]
pub(super) struct ConvolutionLayer {
    shape: KernelShape,
    stride: usize,
    weight: Range<usize>,
    bias: Range<usize>,
    packed: Packed,
    /// For gradients; `None` if none are wanted.
    transposed: Option<Packed>,
}

impl ConvolutionLayer {
    pub(super) fn new(
        ranges: &TensorRanges,
        parameters: &[f32],
        part: &str,
        stride: usize,
        is_trained: bool,
    ) -> Self {
        let ([weight, bias], shape) = ranges.part(part);
        let shape = KernelShape { out: shape[0], inside: shape[1], kernel: shape[2] };
        let weights = &parameters[weight.clone()];
        let packed = Packed::new(shape, weights);
        let transposed = is_trained.then(|| Packed::transposed(shape, weights));
        Self { shape, stride, weight, bias, packed, transposed }
    }

    pub(super) fn forward(&self, pass: &mut Pass<'_>, input: &Map) -> Map {
        let mut out = pass.memory.map(input.side / self.stride, self.shape.out);
        let bias = &pass.parameters[self.bias.clone()];
        convolve(input, &self.packed, self.stride, Start::Bias(bias), &mut out);
        out
    }

    /// Adds the convolution of `input` to `out`.
    fn add(&self, pass: &Pass<'_>, input: &Map, out: &mut Map) {
        convolve(input, &self.packed, self.stride, Start::Held, out);
        out.shift(&pass.parameters[self.bias.clone()]);
    }

    /// Adds the gradients of weights and bias.
    pub(super) fn learn(&self, pass: &mut Pass<'_>, input: &Map, gradient: &Map) {
        pass.add(&self.weight, &weight_gradient(input, gradient, self.shape, self.stride));
        pass.add(&self.bias, &gradient.sums());
    }

    /// Returns the gradient of the input.
    pub(super) fn backward(&self, pass: &mut Pass<'_>, gradient: &Map) -> Map {
        let mut of_input = pass.memory.map(gradient.side * self.stride, self.shape.inside);
        self.backward_into(pass, gradient, Start::Zero, &mut of_input);
        of_input
    }

    fn backward_into(&self, pass: &mut Pass<'_>, gradient: &Map, start: Start<'_>, of_input: &mut Map) {
        let transposed = self.transposed.as_ref().expect("a network in training");
        if self.stride == 1 {
            return convolve(gradient, transposed, 1, start, of_input);
        }
        let mut spread = pass.memory.zeros(of_input.side, gradient.channels);
        gradient.spread(&mut spread);
        convolve(&spread, transposed, 1, start, of_input);
        pass.memory.recycle([spread]);
    }
}

#[derive(Debug)]
pub(super) struct Linear {
    inside: usize,
    weight: Range<usize>,
    bias: Range<usize>,
}

impl Linear {
    pub(super) fn new(ranges: &TensorRanges, part: &str) -> Self {
        let ([weight, bias], shape) = ranges.part(part);
        Self { inside: shape[1], weight, bias }
    }

    pub(super) fn forward(&self, pass: &Pass<'_>, input: &[f32]) -> Vec<f32> {
        let mut out = pass.parameters[self.bias.clone()].to_vec();
        add_product(&pass.parameters[self.weight.clone()], input, self.inside, &mut out);
        out
    }

    /// Adds the gradients of weights and bias, and returns that of the input.
    pub(super) fn backward(&self, pass: &mut Pass<'_>, input: &[f32], gradient: &[f32]) -> Vec<f32> {
        let mut of_weight = vec![0.0; gradient.len() * self.inside];
        add_product(gradient, input, 1, &mut of_weight);
        pass.add(&self.weight, &of_weight);
        pass.add(&self.bias, gradient);
        let mut of_input = vec![0.0; self.inside];
        add_product(gradient, &pass.parameters[self.weight.clone()], gradient.len(), &mut of_input);
        of_input
    }
}

#[derive(Debug)]
pub(super) struct NormLayer {
    groups: usize,
    scale: Range<usize>,
    shift: Range<usize>,
    is_activated: bool,
}

impl NormLayer {
    pub(super) fn new(ranges: &TensorRanges, part: &str, is_activated: bool) -> Self {
        let ([scale, shift], _) = ranges.part(part);
        Self { groups: ranges.groups, scale, shift, is_activated }
    }

    fn norm<'a>(&self, parameters: &'a [f32]) -> Norm<'a> {
        let [scale, shift] = [&self.scale, &self.shift].map(|range| &parameters[range.clone()]);
        Norm { groups: self.groups, scale, shift, is_activated: self.is_activated }
    }

    pub(super) fn forward(&self, pass: &mut Pass<'_>, input: &Map) -> (Map, Statistics) {
        let mut out = pass.memory.map(input.side, input.channels);
        let statistics = self.norm(pass.parameters).apply(input, &mut out);
        (out, statistics)
    }

    /// Adds the gradients of scale and shift, and returns that of the input.
    pub(super) fn backward(
        &self,
        pass: &mut Pass<'_>,
        input: &Map,
        statistics: &Statistics,
        gradient: &Map,
    ) -> Map {
        let mut of_input = pass.memory.map(input.side, input.channels);
        let [scales, shifts] =
            self.norm(pass.parameters).gradient(input, statistics, gradient, &mut of_input);
        pass.add(&self.scale, &scales);
        pass.add(&self.shift, &shifts);
        of_input
    }
}

/// Two convolutions, each after a norm and `SiLU`, with the timestep added between them, and the input added at the end.
#[derive(Debug)]
pub(super) struct Residual {
    norms: [NormLayer; 2],
    convolutions: [ConvolutionLayer; 2],
    time: Linear,
    skip: Option<ConvolutionLayer>,
}

/// What the gradient of a residual block needs.
#[derive(Debug)]
pub(super) struct ResidualTape {
    /// Inputs of the norms.
    inputs: [Map; 2],
    statistics: [Statistics; 2],
    /// Inputs of the convolutions.
    activated: [Map; 2],
}

impl Residual {
    pub(super) fn new(ranges: &TensorRanges, parameters: &[f32], part: &str, is_trained: bool) -> Self {
        let inner = |name: &str| format!("{part}.{name}");
        let convolution = |name: &str| ConvolutionLayer::new(ranges, parameters, &inner(name), 1, is_trained);
        Self {
            norms: ["norm1", "norm2"].map(|name| NormLayer::new(ranges, &inner(name), true)),
            convolutions: ["conv1", "conv2"].map(convolution),
            time: Linear::new(ranges, &inner("time")),
            skip: ranges.has(&inner("skip")).then(|| convolution("skip")),
        }
    }

    /// `time` is the activated embedding of the timestep.
    pub(super) fn forward(&self, pass: &mut Pass<'_>, input: Map, time: &[f32]) -> (Map, ResidualTape) {
        let (first, first_statistics) = self.norms[0].forward(pass, &input);
        let mut middle = self.convolutions[0].forward(pass, &first);
        middle.shift(&self.time.forward(pass, time));
        let (second, second_statistics) = self.norms[1].forward(pass, &middle);
        let mut out = self.convolutions[1].forward(pass, &second);
        match &self.skip {
            Some(skip) => skip.add(pass, &input, &mut out),
            None => out.add(&input),
        }
        let tape = ResidualTape {
            inputs: [input, middle],
            statistics: [first_statistics, second_statistics],
            activated: [first, second],
        };
        (out, tape)
    }

    /// Returns the gradients of the input and of the timestep's embedding.
    pub(super) fn backward(
        &self,
        pass: &mut Pass<'_>,
        tape: ResidualTape,
        time: &[f32],
        gradient: Map,
    ) -> (Map, Vec<f32>) {
        let ResidualTape { inputs: [input, middle], statistics, activated } = tape;
        self.convolutions[1].learn(pass, &activated[1], &gradient);
        let of_second = self.convolutions[1].backward(pass, &gradient);
        let of_middle = self.norms[1].backward(pass, &middle, &statistics[1], &of_second);
        let of_time = self.time.backward(pass, time, &of_middle.sums());
        self.convolutions[0].learn(pass, &activated[0], &of_middle);
        let of_first = self.convolutions[0].backward(pass, &of_middle);
        let mut of_input = self.norms[0].backward(pass, &input, &statistics[0], &of_first);
        match &self.skip {
            Some(skip) => {
                skip.learn(pass, &input, &gradient);
                skip.backward_into(pass, &gradient, Start::Held, &mut of_input);
            }
            None => of_input.add(&gradient),
        }
        pass.memory.recycle([input, middle, of_second, of_middle, of_first, gradient]);
        pass.memory.recycle(activated);
        (of_input, of_time)
    }
}

impl ResidualTape {
    /// Gives the memory back without a gradient.
    pub(super) fn recycle(self, memory: &mut Memory) {
        memory.recycle(self.inputs);
        memory.recycle(self.activated);
    }
}

/// Self-attention with one head over all positions, added to its input (Vaswani et al. 2017, equation 1).
#[derive(Debug)]
pub(super) struct Attention {
    channels: usize,
    norm: NormLayer,
    qkv: ConvolutionLayer,
    out: ConvolutionLayer,
}

/// What the gradient of the attention needs.
#[derive(Debug)]
pub(super) struct AttentionTape {
    input: Map,
    statistics: Statistics,
    normed: Map,
    /// Queries, keys and values: `[position, channel]`.
    parts: [Vec<f32>; 3],
    /// `[position, position]`.
    shares: Vec<f32>,
    mixed: Map,
}

impl Attention {
    pub(super) fn new(ranges: &TensorRanges, parameters: &[f32], channels: usize, is_trained: bool) -> Self {
        let convolution = |name: &str| {
            ConvolutionLayer::new(ranges, parameters, &format!("attention.{name}"), 1, is_trained)
        };
        Self {
            channels,
            norm: NormLayer::new(ranges, "attention.norm", false),
            qkv: convolution("qkv"),
            out: convolution("out"),
        }
    }

    pub(super) fn forward(&self, pass: &mut Pass<'_>, input: Map) -> (Map, AttentionTape) {
        let (channels, positions) = (self.channels, input.side.pow(2));
        let (normed, statistics) = self.norm.forward(pass, &input);
        let all = self.qkv.forward(pass, &normed);
        let parts: [Vec<f32>; 3] = std::array::from_fn(|part| pixels(&all, part * channels, channels));
        let [queries, keys, values] = &parts;
        let mut shares = vec![0.0; positions * positions];
        add_product(queries, &transpose(keys, channels), channels, &mut shares);
        let scale = 1.0 / (channels as f32).sqrt();
        for score in &mut shares {
            *score *= scale;
        }
        softmax(&mut shares, positions);
        let mut sums = vec![0.0; positions * channels];
        add_product(&shares, values, positions, &mut sums);
        let mut mixed = pass.memory.map(input.side, channels);
        write_pixels(&mut mixed, 0, &sums);
        let mut out = self.out.forward(pass, &mixed);
        out.add(&input);
        pass.memory.recycle([all]);
        (out, AttentionTape { input, statistics, normed, parts, shares, mixed })
    }

    /// Returns the gradient of the input.
    pub(super) fn backward(&self, pass: &mut Pass<'_>, tape: AttentionTape, gradient: Map) -> Map {
        let AttentionTape { input, statistics, normed, parts: [queries, keys, values], shares, mixed } = tape;
        let (channels, positions) = (self.channels, input.side.pow(2));
        self.out.learn(pass, &mixed, &gradient);
        let of_mixed = self.out.backward(pass, &gradient);
        let of_sums = pixels(&of_mixed, 0, channels);
        let mut of_values = vec![0.0; positions * channels];
        add_product(&transpose(&shares, positions), &of_sums, positions, &mut of_values);
        let mut of_scores = vec![0.0; positions * positions];
        add_product(&of_sums, &transpose(&values, channels), channels, &mut of_scores);
        softmax_gradient(&shares, &mut of_scores, positions);
        let scale = 1.0 / (channels as f32).sqrt();
        for score in &mut of_scores {
            *score *= scale;
        }
        let (mut of_queries, mut of_keys) =
            (vec![0.0; positions * channels], vec![0.0; positions * channels]);
        add_product(&of_scores, &keys, positions, &mut of_queries);
        add_product(&transpose(&of_scores, positions), &queries, positions, &mut of_keys);
        let mut of_all = pass.memory.map(input.side, 3 * channels);
        for (part, values) in [of_queries, of_keys, of_values].iter().enumerate() {
            write_pixels(&mut of_all, part * channels, values);
        }
        self.qkv.learn(pass, &normed, &of_all);
        let of_normed = self.qkv.backward(pass, &of_all);
        let mut of_input = self.norm.backward(pass, &input, &statistics, &of_normed);
        of_input.add(&gradient);
        pass.memory.recycle([input, normed, mixed, of_mixed, of_all, of_normed, gradient]);
        of_input
    }
}

impl AttentionTape {
    /// Gives the memory back without a gradient.
    pub(super) fn recycle(self, memory: &mut Memory) {
        memory.recycle([self.input, self.normed, self.mixed]);
    }
}

/// `SiLU` of each value.
pub(super) fn activate(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&value| silu(value)).collect()
}

/// Takes the gradient of [`activate`] to that of its input.
pub(super) fn activation_gradient(values: &[f32], gradient: &[f32]) -> Vec<f32> {
    values.iter().zip(gradient).map(|(&value, &gradient)| gradient * silu_derivative(value)).collect()
}
