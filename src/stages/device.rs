//! The field `device` of the stages that run a network.

use super::fields::Reader;
use crate::kernels::backbone::{Backend, Device};

/// Reads the device. `auto` is the fastest one of the backend; the default is the CPU.
pub(super) fn read_device(reader: &mut Reader<'_>, backend: Backend) -> Device {
    match reader.text("device").as_deref() {
        None => Device::Cpu,
        Some("auto") if backend == Backend::Rust => Device::Cpu,
        Some("auto") => Device::fastest(),
        Some(name) => Device::parse(name).unwrap_or_else(|| {
            reader.unknown_choice("device", name, &["cpu", "cuda", "cuda:1", "auto"]);
            Device::Cpu
        }),
    }
}
