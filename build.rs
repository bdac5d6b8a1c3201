//! Writes into the binaries where libtorch lies, so that they find it without `LD_LIBRARY_PATH`, and which
//! version it is, for `patchflow doctor` and the records.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Set by torch-sys, which is there with the feature `torch` only.
    let Some(folder) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") else { return };
    let folder = PathBuf::from(folder);
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", folder.display());
    if folder.join("libtorch_cuda.so").exists() {
        // Nothing names a symbol of it (it registers itself when loaded), so the linker would drop it.
        println!("cargo::rustc-link-arg=-Wl,--no-as-needed,-ltorch_cuda,--as-needed");
    }
    if let Some(version) = version(&folder) {
        println!("cargo::rustc-env=PATCHFLOW_LIBTORCH={version}");
    }
}

/// The version that the headers beside the libraries name.
fn version(libraries: &Path) -> Option<String> {
    let header = libraries.join("../include/torch/headeronly/version.h");
    println!("cargo::rerun-if-changed={}", header.display());
    let text = std::fs::read_to_string(header).ok()?;
    let part = |name: &str| {
        let define = format!("#define TORCH_VERSION_{name} ");
        text.lines().find_map(|line| line.strip_prefix(&define)).map(|value| value.trim().to_owned())
    };
    Some([part("MAJOR")?, part("MINOR")?, part("PATCH")?].join("."))
}
