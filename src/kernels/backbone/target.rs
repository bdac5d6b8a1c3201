//! Where and how a network is computed: backend, device, arithmetic.

use serde::{Deserialize, Serialize};

use std::fmt;

/// An implementation of the networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backend {
    /// Pure Rust: in every build; CPU and f32 only.
    Rust,
    /// libtorch: in builds with the feature `torch`.
    Torch,
}

/// The device that computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    /// The CPU.
    Cpu,
    /// The CUDA device with that index.
    Cuda(usize),
}

/// The number format that a network is computed in. Pixels and maps are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arithmetic {
    /// Single precision, never TF32.
    F32,
    /// bfloat16 weights and activations, with f32 accumulation.
    Bf16,
}

/// A backend, a device and an arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the types say it")]
pub struct Target {
    pub backend: Backend,
    pub device: Device,
    pub arithmetic: Arithmetic,
}

impl Target {
    /// The Rust backend on the CPU in f32, which every build has.
    pub const DEFAULT: Self =
        Self { backend: Backend::Rust, device: Device::Cpu, arithmetic: Arithmetic::F32 };

    /// Returns whether the backend supports this device and number format on any machine; not whether this machine
    /// has the device.
    pub fn is_supported(self) -> bool {
        self.backend == Backend::Torch || self == Self::DEFAULT
    }
}

impl Backend {
    /// Returns the name used in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Torch => "torch",
        }
    }

    /// Returns whether this build contains the backend.
    pub fn is_built(self) -> bool {
        self == Self::Rust || cfg!(feature = "torch")
    }

    /// Returns the fastest backend of this build.
    pub fn fastest() -> Self {
        if Self::Torch.is_built() { Self::Torch } else { Self::Rust }
    }
}

impl Device {
    /// Returns the first CUDA device if this build can use one, otherwise the CPU.
    pub fn fastest() -> Self {
        if cuda_devices() > 0 { Self::Cuda(0) } else { Self::Cpu }
    }

    /// Parses `cpu`, `cuda` (the first device) or `cuda:N`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            // Canonical digits only: no sign, no leading zero.
            _ => {
                let number: usize = name.strip_prefix("cuda:")?.parse().ok()?;
                (name == format!("cuda:{number}")).then_some(Self::Cuda(number))
            }
        }
    }

    /// Returns the device class, `cpu` or `cuda`. Devices of a class are interchangeable.
    pub fn class(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda(_) => "cuda",
        }
    }
}

impl Arithmetic {
    /// Returns the name used in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// Returns the number of CUDA devices that this build can use: 0 without the feature `torch`.
pub fn cuda_devices() -> usize {
    #[cfg(feature = "torch")]
    return if tch::Cuda::is_available() {
        usize::try_from(tch::Cuda::device_count()).unwrap_or(0)
    } else {
        0
    };
    #[cfg(not(feature = "torch"))]
    return 0;
}

/// Returns the version of libtorch that this build links; `None` without libtorch.
pub fn libtorch_version() -> Option<&'static str> {
    option_env!("PATCHFLOW_LIBTORCH")
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_parse_back() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(12)] {
            assert_eq!(Device::parse(&device.to_string()), Some(device));
        }
        assert_eq!(Device::parse("cuda"), Some(Device::Cuda(0)));
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cuda:+1", "cuda:01", "cuda:x", "cpu:0"] {
            assert_eq!(Device::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rust_supports_the_default_alone() {
        assert!(Target::DEFAULT.is_supported());
        assert!(!Target { device: Device::Cuda(0), ..Target::DEFAULT }.is_supported());
        assert!(!Target { arithmetic: Arithmetic::Bf16, ..Target::DEFAULT }.is_supported());
        assert!(Target { backend: Backend::Torch, ..Target::DEFAULT }.is_supported());
    }
}
