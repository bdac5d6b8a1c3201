//! What a network is run on: backend, device, precision.

use std::fmt;

/// A way of running a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Without a native library: always there, on the CPU, in f32.
    Rust,
    /// On libtorch: in builds with the feature `torch`.
    Torch,
}

/// Where the numbers are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// The CUDA device of that number.
    Cuda(usize),
}

/// The numbers that a network is computed in; pixels and maps are f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// Single precision; never TF32.
    F32,
    /// bfloat16 weights and values, sums in f32.
    Bf16,
}

/// What a network is run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The backend.
    pub backend: Backend,
    /// The device.
    pub device: Device,
    /// The numbers.
    pub arithmetic: Arithmetic,
}

impl Target {
    /// What is always there.
    pub const DEFAULT: Self =
        Self { backend: Backend::Rust, device: Device::Cpu, arithmetic: Arithmetic::F32 };

    /// Says whether the backend knows the device and the numbers, on any machine.
    pub fn is_supported(self) -> bool {
        self.backend == Backend::Torch || self == Self::DEFAULT
    }
}

impl Backend {
    /// Returns its name in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Torch => "torch",
        }
    }

    /// Says whether this build has it.
    pub fn is_built(self) -> bool {
        self == Self::Rust || cfg!(feature = "torch")
    }

    /// Returns the fastest one of this build.
    pub fn fastest() -> Self {
        if Self::Torch.is_built() { Self::Torch } else { Self::Rust }
    }
}

impl Device {
    /// Returns the first CUDA device that this build can use, else the processor.
    pub fn fastest() -> Self {
        if cuda_devices() > 0 { Self::Cuda(0) } else { Self::Cpu }
    }

    /// Finds the device of that name: `cpu`, `cuda` (the first) or `cuda:N`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            // Exactly the number's own digits: no sign, no leading zero.
            _ => {
                let number: usize = name.strip_prefix("cuda:")?.parse().ok()?;
                (name == format!("cuda:{number}")).then_some(Self::Cuda(number))
            }
        }
    }

    /// Returns the kind of device, `cpu` or `cuda`: devices of one kind are interchangeable.
    pub fn class(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda(_) => "cuda",
        }
    }
}

impl Arithmetic {
    /// Returns its name in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// Returns the number of CUDA devices that this build can use; none without the feature `torch`.
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

/// Returns the version of libtorch that this build was made with.
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
