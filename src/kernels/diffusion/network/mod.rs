//! The network in Rust: forwards, and backwards for training. Runs on every processor with the same bits.
//!
//! Each patch is run by one thread, and the gradients of a batch's patches are added in order, so the bits do not depend on
//! the number of threads. All sums have one order, by fused multiply-adds, so they do not depend on the processor either.
//!
//! | file | content |
//! |---|---|
//! | `map` | the feature map of a patch, channels last |
//! | `convolution` | convolutions and the gradients of their weights: the hot loops |
//! | `normalisation` | group norm and `SiLU` |
//! | `dense` | matrix products of the small parts |
//! | `layers` | layers with their parameters |

mod convolution;
mod dense;
mod layers;
mod map;
mod normalisation;

use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::dispatch::{LossInputs, Patch};
use super::{Architecture, IMAGE_CHANNELS, INPUT_CHANNELS, Parameters};
use layers::{
    Attention, AttentionTape, ConvolutionLayer, Linear, NormLayer, Pass, Residual, ResidualTape,
    TensorRanges, activate, activation_gradient,
};
use map::{Map, Memory};
use normalisation::Statistics;

/// Patches of a training batch whose gradients are held at once (chosen: they bound the memory).
const PATCHES: usize = 8;

/// Computes gradients.
#[derive(Debug)]
pub(super) struct Gradients {
    architecture: Architecture,
    /// Memory of passes that are not running.
    idle: Mutex<Vec<Memory>>,
}

impl Gradients {
    pub(super) fn new(architecture: &Architecture) -> Self {
        Self { architecture: architecture.clone(), idle: Mutex::default() }
    }

    /// Returns the loss and its gradient.
    pub(super) fn compute(&self, parameters: &[f32], inputs: &LossInputs<'_>) -> (f64, Parameters) {
        let network = UNet::new(&self.architecture, parameters, true);
        let (mut loss, mut sums) = (0.0, vec![0.0; parameters.len()]);
        let patches: Vec<usize> = (0..inputs.times.len()).collect();
        for patches in patches.chunks(PATCHES) {
            let computed: Vec<(f64, Parameters)> = patches
                .par_iter()
                .map(|&patch| self.compute_patch(&network, parameters, inputs, patch))
                .collect();
            for (of_patch, _) in &computed {
                loss += of_patch;
            }
            // The sum of each parameter has the order of the patches, on any thread.
            sums.par_chunks_mut(1 << 14).enumerate().for_each(|(chunk, sums)| {
                for (_, gradients) in &computed {
                    for (sum, gradient) in sums.iter_mut().zip(&gradients[chunk << 14..]) {
                        *sum += gradient;
                    }
                }
            });
        }
        (loss, sums)
    }

    fn compute_patch<'a>(
        &self,
        network: &UNet,
        parameters: &[f32],
        inputs: &LossInputs<'a>,
        patch: usize,
    ) -> (f64, Parameters) {
        let pixels = self.architecture.side.pow(2);
        let size = IMAGE_CHANNELS * pixels;
        let of = |values: &'a [f32], size: usize| &values[patch * size..][..size];
        let given = Patch {
            noisy: of(inputs.noisy, size),
            background: of(inputs.background, size),
            mask: of(inputs.masks, pixels),
            time: inputs.times[patch],
        };
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = idle().pop().unwrap_or_default();
        let mut pass = Pass { parameters, gradients: vec![0.0; parameters.len()], memory };
        let (output, tape) = network.forward(&mut pass, &given);
        let weights = of(inputs.weights, pixels);
        let mut loss = 0.0;
        let wanted = of(inputs.wanted, size);
        let gradient: Vec<f32> = (output.planes().iter().zip(wanted).enumerate())
            .map(|(index, (output, wanted))| {
                let (error, weight) = (output - wanted, weights[index % pixels]);
                loss += f64::from(error * error * weight);
                2.0 * error * weight
            })
            .collect();
        let mut of_output = pass.memory.map(self.architecture.side, IMAGE_CHANNELS);
        of_output.read_planes(0, &gradient);
        network.backward(&mut pass, tape, of_output);
        pass.memory.recycle([output]);
        idle().push(pass.memory);
        (loss, pass.gradients)
    }
}

/// A trained network.
#[derive(Debug)]
pub(super) struct Denoiser {
    network: Arc<UNet>,
    parameters: Arc<Parameters>,
    memory: Mutex<Memory>,
}

impl Denoiser {
    pub(super) fn new(architecture: &Architecture, parameters: &Parameters) -> Self {
        let network = Arc::new(UNet::new(architecture, parameters, false));
        Self { network, parameters: Arc::new(parameters.clone()), memory: Mutex::default() }
    }

    /// Returns another handle to the same network.
    pub(super) fn share(&self) -> Self {
        Self {
            network: Arc::clone(&self.network),
            parameters: Arc::clone(&self.parameters),
            memory: Mutex::default(),
        }
    }

    /// Returns the output for one patch. See [`super::Denoiser::predict`].
    pub(super) fn predict(&self, patch: &Patch<'_>) -> Vec<f32> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let held = std::mem::take(&mut *memory);
        let mut pass = Pass { parameters: &self.parameters, gradients: Vec::new(), memory: held };
        let (output, tape) = self.network.forward(&mut pass, patch);
        let planes = output.planes();
        tape.recycle(&mut pass.memory);
        pass.memory.recycle([output]);
        *memory = pass.memory;
        planes
    }
}

/// The network with packed weights.
#[derive(Debug)]
struct UNet {
    architecture: Architecture,
    times: [Linear; 2],
    stem: ConvolutionLayer,
    down: Vec<Residual>,
    shrink: Vec<ConvolutionLayer>,
    middle: [Residual; 2],
    attention: Attention,
    grow: Vec<ConvolutionLayer>,
    up: Vec<Residual>,
    norm: NormLayer,
    head: ConvolutionLayer,
}

/// What the gradient needs.
struct Tape {
    /// The embedding of the timestep, after the first linear layer, that activated, after the second, that activated.
    embedding: Vec<f32>,
    times: [Vec<f32>; 4],
    input: Map,
    down: Vec<ResidualTape>,
    /// Outputs of the levels that are joined to the way up.
    kept: Vec<Map>,
    middle: [ResidualTape; 2],
    attention: AttentionTape,
    /// From the deepest level up: the input of the convolution that grows, and the tape of the block.
    up: Vec<(Map, ResidualTape)>,
    last: Map,
    statistics: Statistics,
    activated: Map,
}

impl Tape {
    /// Gives the memory back without a gradient.
    fn recycle(self, memory: &mut Memory) {
        let [first, second] = self.middle;
        self.attention.recycle(memory);
        memory.recycle(self.kept);
        memory.recycle([self.input, self.last, self.activated]);
        let (grown, up): (Vec<_>, Vec<_>) = self.up.into_iter().unzip();
        memory.recycle(grown);
        for tape in self.down.into_iter().chain([first, second]).chain(up) {
            tape.recycle(memory);
        }
    }
}

impl UNet {
    fn new(architecture: &Architecture, parameters: &[f32], is_trained: bool) -> Self {
        assert_eq!(parameters.len(), architecture.count(), "parameters of another architecture");
        let ranges = TensorRanges::new(architecture);
        let convolution =
            |part: String, stride| ConvolutionLayer::new(&ranges, parameters, &part, stride, is_trained);
        let residual = |part: String| Residual::new(&ranges, parameters, &part, is_trained);
        let levels = architecture.levels.len();
        Self {
            times: ["time1", "time2"].map(|part| Linear::new(&ranges, part)),
            stem: convolution("stem".to_owned(), 1),
            down: (0..levels).map(|level| residual(format!("down.{level}"))).collect(),
            shrink: (0..levels - 1).map(|level| convolution(format!("shrink.{level}"), 2)).collect(),
            middle: ["middle1", "middle2"].map(|part| residual(part.to_owned())),
            attention: Attention::new(&ranges, parameters, architecture.widths()[levels - 1], is_trained),
            grow: (0..levels - 1).map(|level| convolution(format!("grow.{level}"), 1)).collect(),
            up: (0..levels - 1).map(|level| residual(format!("up.{level}"))).collect(),
            norm: NormLayer::new(&ranges, "norm", true),
            head: convolution("head".to_owned(), 1),
            architecture: architecture.clone(),
        }
    }

    fn forward(&self, pass: &mut Pass<'_>, patch: &Patch<'_>) -> (Map, Tape) {
        let embedding = self.embed(patch.time);
        let first = self.times[0].forward(pass, &embedding);
        let first_activated = activate(&first);
        let second = self.times[1].forward(pass, &first_activated);
        let time = activate(&second);
        let mut input = pass.memory.map(self.architecture.side, INPUT_CHANNELS);
        input.read_planes(0, patch.noisy);
        input.read_planes(IMAGE_CHANNELS, patch.background);
        input.read_planes(2 * IMAGE_CHANNELS, patch.mask);
        let mut x = self.stem.forward(pass, &input);
        let (mut down, mut kept, mut up) = (Vec::new(), Vec::new(), Vec::new());
        for (level, block) in self.down.iter().enumerate() {
            let (out, tape) = block.forward(pass, x, &time);
            down.push(tape);
            x = out;
            if let Some(shrink) = self.shrink.get(level) {
                let smaller = shrink.forward(pass, &x);
                kept.push(std::mem::replace(&mut x, smaller));
            }
        }
        let (x, first_middle) = self.middle[0].forward(pass, x, &time);
        let (x, attention) = self.attention.forward(pass, x);
        let (mut x, second_middle) = self.middle[1].forward(pass, x, &time);
        for (level, skip) in kept.iter().enumerate().rev() {
            let mut larger = pass.memory.map(skip.side, x.channels);
            x.upsample(&mut larger);
            let grown = self.grow[level].forward(pass, &larger);
            let mut joined = pass.memory.map(skip.side, grown.channels + skip.channels);
            grown.copy_into(&mut joined, 0);
            skip.copy_into(&mut joined, grown.channels);
            pass.memory.recycle([x, grown]);
            let (out, tape) = self.up[level].forward(pass, joined, &time);
            up.push((larger, tape));
            x = out;
        }
        let (activated, statistics) = self.norm.forward(pass, &x);
        let output = self.head.forward(pass, &activated);
        let tape = Tape {
            embedding,
            times: [first, first_activated, second, time],
            input,
            down,
            kept,
            middle: [first_middle, second_middle],
            attention,
            up,
            last: x,
            statistics,
            activated,
        };
        (output, tape)
    }

    /// Adds the gradients of all parameters.
    fn backward(&self, pass: &mut Pass<'_>, tape: Tape, of_output: Map) {
        let Tape { embedding, times, input, down, kept, middle, attention, up, last, statistics, activated } =
            tape;
        let [first, first_activated, second, time] = times;
        let mut of_time = vec![0.0; time.len()];
        let mut add_time = |gradient: Vec<f32>| {
            for (sum, value) in of_time.iter_mut().zip(gradient) {
                *sum += value;
            }
        };
        self.head.learn(pass, &activated, &of_output);
        let of_activated = self.head.backward(pass, &of_output);
        let mut gradient = self.norm.backward(pass, &last, &statistics, &of_activated);
        pass.memory.recycle([of_output, of_activated, last, activated]);
        let mut of_kept = Vec::new();
        for (level, (larger, tape)) in up.into_iter().rev().enumerate() {
            let (of_joined, of_block) = self.up[level].backward(pass, tape, &time, gradient);
            add_time(of_block);
            let width = self.architecture.widths()[level];
            let [mut of_grown, mut of_skip] = [(); 2].map(|()| pass.memory.map(of_joined.side, width));
            of_grown.copy_from(&of_joined, 0);
            of_skip.copy_from(&of_joined, width);
            of_kept.push(of_skip);
            self.grow[level].learn(pass, &larger, &of_grown);
            let of_larger = self.grow[level].backward(pass, &of_grown);
            gradient = pass.memory.map(of_larger.side / 2, of_larger.channels);
            gradient.sum_fours(&of_larger);
            pass.memory.recycle([of_joined, of_grown, of_larger, larger]);
        }
        let [first_middle, second_middle] = middle;
        let (of_attention, of_block) = self.middle[1].backward(pass, second_middle, &time, gradient);
        add_time(of_block);
        let of_middle = self.attention.backward(pass, attention, of_attention);
        let (mut gradient, of_block) = self.middle[0].backward(pass, first_middle, &time, of_middle);
        add_time(of_block);
        for (level, tape) in down.into_iter().enumerate().rev() {
            if let Some(shrink) = self.shrink.get(level) {
                shrink.learn(pass, &kept[level], &gradient);
                let mut of_level = shrink.backward(pass, &gradient);
                let of_skip = of_kept.pop().expect("one for each level above the deepest");
                of_level.add(&of_skip);
                pass.memory.recycle([of_skip, std::mem::replace(&mut gradient, of_level)]);
            }
            let (of_input, of_block) = self.down[level].backward(pass, tape, &time, gradient);
            add_time(of_block);
            gradient = of_input;
        }
        self.stem.learn(pass, &input, &gradient);
        pass.memory.recycle([input, gradient]);
        pass.memory.recycle(kept);
        let of_second = activation_gradient(&second, &of_time);
        let of_first = self.times[1].backward(pass, &first_activated, &of_second);
        self.times[0].backward(pass, &embedding, &activation_gradient(&first, &of_first));
    }

    /// Returns the sinusoidal embedding of a timestep (Vaswani et al. 2017, section 3.5), `[channels]`.
    fn embed(&self, time: usize) -> Vec<f32> {
        let half = self.architecture.channels / 2;
        let angle = |index: usize| time as f64 * libm::exp(-libm::log(10_000.0) * index as f64 / half as f64);
        let sines = (0..half).map(|index| libm::sin(angle(index)) as f32);
        sines.chain((0..half).map(|index| libm::cos(angle(index)) as f32)).collect()
    }
}
