//! Names, memory and processors of the machine, and how much of them this process may use; for records, the scheduler
//! and `patchflow doctor`, never for keys.

use std::num::NonZero;
use std::path::Path;

use super::cgroup;

/// Returns the name of the processor; empty if the system does not say.
pub fn processor() -> String {
    value_of(Path::new("/proc/cpuinfo"), "model name").unwrap_or_default()
}

/// Returns the names of the graphics cards that NVIDIA's driver lists, in the order of their bus addresses.
pub fn graphics_cards() -> Vec<String> {
    let Ok(cards) = std::fs::read_dir("/proc/driver/nvidia/gpus") else { return Vec::new() };
    let mut folders: Vec<_> = cards.filter_map(|card| Some(card.ok()?.path())).collect();
    folders.sort();
    folders.iter().filter_map(|folder| value_of(&folder.join("information"), "Model")).collect()
}

/// Returns the bytes of memory that this process may still use: what is available on the machine, or less if a control
/// group leaves less. `None` if the system does not say.
pub fn available_memory() -> Option<u64> {
    let of_group = cgroup::memory_limit().map(|limit| limit.free_bytes);
    machine_memory().into_iter().chain(of_group).min()
}

/// Returns the bytes of available memory of the whole machine; `None` if the system does not say.
pub fn machine_memory() -> Option<u64> {
    let kib = value_of(Path::new("/proc/meminfo"), "MemAvailable")?;
    kib.strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Returns the number of cores that this process may use: those that it is bound to, or fewer if a control group gives less
/// processor time. At least 1.
pub fn cores() -> usize {
    let bound = std::thread::available_parallelism().map_or(1, NonZero::get);
    cgroup::processor_limit().map_or(bound, |limit| bound.min((limit.processors as usize).max(1)))
}

/// Returns the value of the first line `name : value` of a text file.
fn value_of(file: &Path, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_the_first_line_of_that_name_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("information");
        std::fs::write(&file, "Model: \t\t NVIDIA H100\nIRQ: 12\nModel: other\n").unwrap();
        assert_eq!(value_of(&file, "Model").as_deref(), Some("NVIDIA H100"));
        assert_eq!(value_of(&file, "UUID"), None);
        assert_eq!(value_of(&folder.path().join("none"), "Model"), None);
    }
}
