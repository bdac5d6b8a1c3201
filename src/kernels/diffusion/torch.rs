//! The network on libtorch. The only file of this folder that uses `tch`.
//!
//! On a CPU a batch is divided into parts of [`PART`] patches, and each part is run on one thread of the pool. The parts
//! and the order in which their gradients are added are fixed, so the bits do not depend on the number of threads. This
//! is also faster than one call with all threads, because small convolutions do not scale to several threads. On a GPU a
//! batch is one call.

use std::collections::HashMap;

use rayon::prelude::*;
use tch::{Kind, TchError, Tensor};

use super::dispatch::{LossInputs, Patch};
use super::{Architecture, DiffusionError, IMAGE_CHANNELS, Parameters};
use crate::kernels::backbone::{Device, cuda_devices};

/// Patches that are run together on one thread.
const PART: usize = 4;

/// Epsilon of a group norm; the default of PyTorch.
const NORM_EPSILON: f64 = 1e-5;

/// Computes gradients on a device.
#[derive(Debug)]
pub(super) struct Gradients {
    architecture: Architecture,
    device: tch::Device,
}

impl Gradients {
    pub(super) fn new(architecture: &Architecture, device: Device) -> Result<Self, DiffusionError> {
        Ok(Self { architecture: architecture.clone(), device: find(device)? })
    }

    /// Returns the loss and its gradient.
    pub(super) fn compute(
        &self,
        parameters: &[f32],
        loss_inputs: &LossInputs<'_>,
    ) -> Result<(f64, Parameters), DiffusionError> {
        let n = loss_inputs.times.len();
        let step = if self.device == tch::Device::Cpu { PART } else { n.max(1) };
        let starts: Vec<usize> = (0..n).step_by(step).collect();
        let parts: Result<Vec<(f64, Parameters)>, TchError> = (starts.par_iter())
            .map(|&from| {
                if self.device == tch::Device::Cpu {
                    tch::set_num_threads(1);
                }
                self.compute_part(parameters, loss_inputs, from, (from + step).min(n))
            })
            .collect();
        let parts = parts.map_err(|error| failed(&error))?;
        let (mut loss, mut sums) = (0.0, vec![0.0; parameters.len()]);
        for (of_part, gradients) in parts {
            loss += of_part;
            for (sum, gradient) in sums.iter_mut().zip(gradients) {
                *sum += gradient;
            }
        }
        Ok((loss, sums))
    }

    fn compute_part(
        &self,
        parameters: &[f32],
        loss_inputs: &LossInputs<'_>,
        from: usize,
        to: usize,
    ) -> Result<(f64, Parameters), TchError> {
        let side = self.architecture.side as i64;
        let pixels = (side * side) as usize;
        let upload = |values: &[f32], channels: usize| {
            let size = channels * pixels;
            let shape = [(to - from) as i64, channels as i64, side, side];
            Tensor::f_from_slice(&values[from * size..to * size])?.f_view(shape)?.f_to_device(self.device)
        };
        let network = UNet::new(&self.architecture, parameters, self.device, true)?;
        let output = network.forward(
            &upload(loss_inputs.noisy, IMAGE_CHANNELS)?,
            &upload(loss_inputs.background, IMAGE_CHANNELS)?,
            &upload(loss_inputs.masks, 1)?,
            &loss_inputs.times[from..to],
        )?;
        let error = output.f_sub(&upload(loss_inputs.wanted, IMAGE_CHANNELS)?)?;
        let loss = error.f_square()?.f_mul(&upload(loss_inputs.weights, 1)?)?.f_sum(Kind::Float)?;
        let leaves: Vec<&Tensor> = network.leaves.iter().collect();
        let gradients = Tensor::f_run_backward(&[&loss], &leaves, false, false)?;
        let flat =
            gradients.iter().map(|gradient| gradient.f_reshape([-1])).collect::<Result<Vec<_>, _>>()?;
        Ok((loss.f_double_value(&[])?, download(&Tensor::f_cat(&flat, 0)?)?))
    }
}

/// A trained network.
#[derive(Debug)]
pub(super) struct Denoiser {
    network: UNet,
}

impl Denoiser {
    /// Copies the parameters to a device.
    ///
    /// # Errors
    /// If the device does not exist, or libtorch fails.
    ///
    /// # Panics
    /// If the number of parameters is not that of the architecture.
    pub(super) fn new(
        architecture: &Architecture,
        parameters: &Parameters,
        device: Device,
    ) -> Result<Self, DiffusionError> {
        let device = find(device)?;
        let network = tch::no_grad(|| UNet::new(architecture, parameters, device, false));
        Ok(Self { network: network.map_err(|error| failed(&error))? })
    }

    /// Returns another handle to the same network, for another thread.
    pub(super) fn share(&self) -> Self {
        Self { network: self.network.shallow_clone() }
    }

    /// Returns the output for one patch.
    pub(super) fn predict(&self, patch: &Patch<'_>) -> Result<Vec<f32>, DiffusionError> {
        let &Patch { noisy, background, mask, time } = patch;
        let side = self.network.architecture.side;
        let device = self.network.device;
        if device == tch::Device::Cpu {
            tch::set_num_threads(1);
        }
        let upload = |values: &[f32], channels: usize| {
            let shape = [1, channels as i64, side as i64, side as i64];
            Tensor::f_from_slice(values)?.f_view(shape)?.f_to_device(device)
        };
        let run = || {
            let output = self.network.forward(
                &upload(noisy, IMAGE_CHANNELS)?,
                &upload(background, IMAGE_CHANNELS)?,
                &upload(mask, 1)?,
                &[time],
            )?;
            download(&output)
        };
        tch::no_grad(run).map_err(|error: TchError| failed(&error))
    }
}

/// The network with its parameters.
#[derive(Debug)]
struct UNet {
    architecture: Architecture,
    device: tch::Device,
    /// The parameters as tensors, in the order of [`Architecture::tensors`].
    leaves: Vec<Tensor>,
    indices: HashMap<String, usize>,
}

impl UNet {
    fn new(
        architecture: &Architecture,
        parameters: &[f32],
        device: tch::Device,
        is_trained: bool,
    ) -> Result<Self, TchError> {
        assert_eq!(parameters.len(), architecture.count(), "parameters of another architecture");
        let (mut leaves, mut indices, mut at) = (Vec::new(), HashMap::new(), 0);
        for (number, (name, shape)) in architecture.tensors().into_iter().enumerate() {
            let count: usize = shape.iter().product();
            let shape: Vec<i64> = shape.into_iter().map(|extent| extent as i64).collect();
            let leaf = Tensor::f_from_slice(&parameters[at..at + count])?.f_view(shape.as_slice())?;
            leaves.push(leaf.f_to_device(device)?.f_set_requires_grad(is_trained)?);
            indices.insert(name, number);
            at += count;
        }
        Ok(Self { architecture: architecture.clone(), device, leaves, indices })
    }

    fn shallow_clone(&self) -> Self {
        let Self { architecture, device, leaves, indices } = self;
        let leaves = leaves.iter().map(Tensor::shallow_clone).collect();
        Self { architecture: architecture.clone(), device: *device, leaves, indices: indices.clone() }
    }

    fn tensor(&self, part: &str, which: &str) -> &Tensor {
        &self.leaves[self.indices[&format!("{part}.{which}")]]
    }

    /// Returns the outputs for patches `[n, 3, side, side]`, masks `[n, 1, side, side]` and timesteps `[n]`.
    fn forward(
        &self,
        noisy: &Tensor,
        background: &Tensor,
        masks: &Tensor,
        times: &[usize],
    ) -> Result<Tensor, TchError> {
        let time = self.embed(times)?;
        let time = self.linear("time2", &self.linear("time1", &time)?.f_silu()?)?;
        let mut x = self.convolve("stem", &Tensor::f_cat(&[noisy, background, masks], 1)?, 1)?;
        let levels = self.architecture.levels.len();
        let mut kept = Vec::new();
        for level in 0..levels {
            x = self.residual(&format!("down.{level}"), &x, &time)?;
            if level + 1 < levels {
                kept.push(x.shallow_clone());
                x = self.convolve(&format!("shrink.{level}"), &x, 2)?;
            }
        }
        x = self.residual("middle1", &x, &time)?;
        x = self.attend("attention", &x)?;
        x = self.residual("middle2", &x, &time)?;
        for (level, skip) in kept.iter().enumerate().rev() {
            let (_, _, height, width) = skip.size4()?;
            x = self.convolve(
                &format!("grow.{level}"),
                &x.f_upsample_nearest2d([height, width], None, None)?,
                1,
            )?;
            x = self.residual(&format!("up.{level}"), &Tensor::f_cat(&[&x, skip], 1)?, &time)?;
        }
        self.convolve("head", &self.norm("norm", &x)?.f_silu()?, 1)
    }

    /// Returns the sinusoidal embedding of the timesteps (Vaswani et al. 2017, section 3.5), `[n, channels]`.
    fn embed(&self, times: &[usize]) -> Result<Tensor, TchError> {
        let half = self.architecture.channels / 2;
        let rate = |index: usize| libm::exp(-libm::log(10_000.0) * index as f64 / half as f64);
        let mut values = Vec::with_capacity(times.len() * 2 * half);
        for &time in times {
            values.extend((0..half).map(|index| libm::sin(time as f64 * rate(index)) as f32));
            values.extend((0..half).map(|index| libm::cos(time as f64 * rate(index)) as f32));
        }
        Tensor::f_from_slice(&values)?.f_view([times.len() as i64, 2 * half as i64])?.f_to_device(self.device)
    }

    fn linear(&self, part: &str, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_linear(self.tensor(part, "weight"), Some(self.tensor(part, "bias")))
    }

    /// Applies a convolution that keeps the size with stride 1 and halves it with stride 2.
    fn convolve(&self, part: &str, x: &Tensor, stride: i64) -> Result<Tensor, TchError> {
        let weight = self.tensor(part, "weight");
        let padding = weight.size()[2] / 2;
        x.f_conv2d(weight, Some(self.tensor(part, "bias")), [stride; 2], [padding; 2], [1, 1], 1)
    }

    fn norm(&self, part: &str, x: &Tensor) -> Result<Tensor, TchError> {
        let groups = self.architecture.groups as i64;
        let (weight, bias) = (self.tensor(part, "weight"), self.tensor(part, "bias"));
        x.f_group_norm(groups, Some(weight), Some(bias), NORM_EPSILON, false)
    }

    fn residual(&self, part: &str, x: &Tensor, time: &Tensor) -> Result<Tensor, TchError> {
        let inner = |name: &str| format!("{part}.{name}");
        let mut h = self.convolve(&inner("conv1"), &self.norm(&inner("norm1"), x)?.f_silu()?, 1)?;
        let shift = self.linear(&inner("time"), &time.f_silu()?)?;
        h = h.f_add(&shift.f_unsqueeze(2)?.f_unsqueeze(3)?)?;
        h = self.convolve(&inner("conv2"), &self.norm(&inner("norm2"), &h)?.f_silu()?, 1)?;
        if self.indices.contains_key(&inner("skip.weight")) {
            return h.f_add(&self.convolve(&inner("skip"), x, 1)?);
        }
        h.f_add(x)
    }

    /// Adds self-attention with one head over all positions to `x`.
    fn attend(&self, part: &str, x: &Tensor) -> Result<Tensor, TchError> {
        let inner = |name: &str| format!("{part}.{name}");
        let (n, channels, height, width) = x.size4()?;
        let all = self.convolve(&inner("qkv"), &self.norm(&inner("norm"), x)?, 1)?;
        let all = all.f_reshape([n, 3, channels, height * width])?.f_unbind(1)?;
        let scores = all[0].f_transpose(1, 2)?.f_matmul(&all[1])?.f_div_scalar((channels as f64).sqrt())?;
        let mixed = all[2].f_matmul(&scores.f_softmax(-1, None::<Kind>)?.f_transpose(1, 2)?)?;
        x.f_add(&self.convolve(&inner("out"), &mixed.f_reshape([n, channels, height, width])?, 1)?)
    }
}

fn find(device: Device) -> Result<tch::Device, DiffusionError> {
    let Device::Cuda(number) = device else { return Ok(tch::Device::Cpu) };
    let count = cuda_devices();
    if number < count {
        Ok(tch::Device::Cuda(number))
    } else {
        Err(DiffusionError::NoDevice { device, count })
    }
}

fn download(tensor: &Tensor) -> Result<Vec<f32>, TchError> {
    let tensor = tensor.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut values = vec![0.0; tensor.numel()];
    let count = values.len();
    tensor.f_copy_data(&mut values, count)?;
    Ok(values)
}

/// Converts an error of libtorch. Keeps the first line of its message; the rest is a stack trace of libtorch.
fn failed(error: &TchError) -> DiffusionError {
    let reason = error.to_string();
    DiffusionError::Torch { reason: reason.lines().next().unwrap_or_default().to_owned() }
}
