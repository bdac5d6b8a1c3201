//! From the facts of an error to advice: commands to type, settings to change, files to look at.

use std::error::Error;
use std::io;
use std::path::Path;

use super::disk::free_bytes;
use crate::cache::{RemoteWarning, StoreError};
use crate::engine::Failure;
use crate::kernels::KernelError;
use crate::kernels::backbone::RuntimeError;
use crate::kernels::diffusion::DiffusionError;

/// What to do about an error of the cache.
pub(super) fn store_error(error: &StoreError) -> Option<String> {
    match error {
        StoreError::Remote { .. } => Some(
            "name a folder, s3://bucket/prefix, gs://, az:// or http(s):// as `remote` in patchflow.toml, or run with \
             --remote off (docs/sharing.md)"
                .to_owned(),
        ),
        StoreError::Read { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
            Some(format!("give yourself read permission: `chmod -R u+rX {}`", path.display()))
        }
        StoreError::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
            if path.is_symlink() {
                Some(format!("`{}` is a link to a file that does not exist; repair or remove it", path.display()))
            } else {
                Some("check the spelling of the path; relative paths start at the project root".into())
            }
        }
        StoreError::Write { path, source } => match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Some(format!("`{}` must be writable, or choose another cache folder", path.display()))
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(full_disk(path)),
            _ => None,
        },
        StoreError::NotUtf8 { .. } => Some("rename the file".into()),
        StoreError::BadPin { .. } => Some("use letters, digits, `-`, `_` and `.`".into()),
        StoreError::Collecting { .. } => Some("wait until it has ended".into()),
        StoreError::NotRegular { kind: "symlink", .. } => {
            Some("copy the file that the link leads to instead of linking it".into())
        }
        StoreError::SymlinkLoop { path, .. } => Some(format!("remove the link `{}`", path.display())),
        StoreError::ChangedWhilePublished { .. } => {
            Some("the stage left a process behind that still writes; let it wait for its children".into())
        }
        _ => None,
    }
}

/// What to do about a failed task, beyond what the failure itself says.
pub(super) fn failure(failure: &Failure) -> Option<String> {
    if let Some(path) = failure.full_disk() {
        return Some(full_disk(&path));
    }
    match failure {
        Failure::Store(error) => store_error(error),
        _ => failure.help().or_else(|| of_causes(failure)),
    }
}

/// What to do about the first error of the cache among the causes of an error.
pub(super) fn of_causes(error: &dyn Error) -> Option<String> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return store_error(error);
        }
        cause = error.source();
    }
    None
}

/// What to do about a warning of the remote.
pub(super) fn remote_warning(warning: &RemoteWarning) -> Option<String> {
    let check = match warning.address().split_once("://").map(|(scheme, _)| scheme) {
        None | Some("file") => "check that the folder is mounted and that you may read and write it",
        Some("http" | "https") => "check that the address is right and that its server runs",
        Some(_) => "check that the address and the credentials in the environment are right",
    };
    match warning {
        RemoteWarning::Unreachable { .. } => Some(format!("{check}, or run without it: `--remote off`")),
        RemoteWarning::NotWritable { .. } => {
            Some(format!("{check}, or set `remote_mode = \"read-only\"` in patchflow.toml"))
        }
        RemoteWarning::NoFolder { .. } | RemoteWarning::FailedRequests { .. } => Some(check.to_owned()),
        RemoteWarning::Damaged { .. } => None,
    }
}

/// What to do about a full file system.
fn full_disk(path: &Path) -> String {
    let free = free_bytes(path).map_or_else(String::new, |free| format!("{free} bytes free there: "));
    format!(
        "{free}free some space, for example with `patchflow cache gc --max-size 20GB`, or name a `cache` on another \
         disk in patchflow.toml"
    )
}

/// Returns a hint for an error of the exact search.
#[cfg_attr(not(test), expect(dead_code, reason = "stages still ask the error itself for help"))]
pub(super) fn kernel_error(error: &KernelError) -> Option<String> {
    let hint = match error {
        KernelError::NotBuilt { .. } => {
            "on a GPU machine, build with `LIBTORCH_USE_PYTORCH=1 cargo build --release --features torch` \
             (docs/backends.md); or set search_device = \"cpu\" in patchflow.toml"
        }
        KernelError::NoDevice { .. } => {
            "see `patchflow doctor`; on a GPU machine, build with LIBTORCH_USE_PYTORCH=1 (docs/backends.md); \
             or set search_device = \"cpu\" in patchflow.toml"
        }
        KernelError::Device { .. } => {
            "if the device is out of memory, use fewer `jobs`; if its products are rounded, unset \
             TORCH_ALLOW_TF32_CUBLAS_OVERRIDE; or set search_device = \"cpu\" in patchflow.toml"
        }
        KernelError::EmptyBank
        | KernelError::NoValues
        | KernelError::NotFinite { .. }
        | KernelError::CalibrationMissing
        | KernelError::Cancelled => return None,
    };
    Some(hint.to_owned())
}

/// Returns a hint for an error of a backbone.
#[cfg_attr(not(test), expect(dead_code, reason = "stages still ask the error itself for help"))]
pub(super) fn runtime_error(error: &RuntimeError) -> Option<String> {
    let hint = match error {
        RuntimeError::NotBuilt(_) => {
            "run `scripts/libtorch.sh`, then build with `cargo build --release --features torch`; \
             or set backend = \"rust\""
        }
        RuntimeError::NoDevice { .. } => {
            "see `patchflow doctor`; on a GPU machine, build with LIBTORCH_USE_PYTORCH=1 (docs/backends.md); \
             or set device = \"cpu\""
        }
        RuntimeError::Unsupported(_) => "set backend = \"torch\"",
        RuntimeError::Backbone(_) | RuntimeError::Torch { .. } => return None,
    };
    Some(hint.to_owned())
}

/// Returns a hint for an error of a diffusion model.
#[cfg_attr(not(test), expect(dead_code, reason = "stages still ask the error itself for help"))]
pub(super) fn diffusion_error(error: &DiffusionError) -> Option<String> {
    let hint = match error {
        DiffusionError::NotBuilt => {
            "run `scripts/libtorch.sh` once (540 MB), then build with `cargo build --release --features torch` \
             (docs/backends.md)"
        }
        DiffusionError::NoDevice { .. } => "see `patchflow doctor`; or set device = \"cpu\" in the stage",
        DiffusionError::Torch { .. } => "if memory is short, use a smaller `batch` or fewer `channels`",
        DiffusionError::Diverged { .. } => "lower `learning_rate`",
        DiffusionError::Checkpoint { .. } => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::backbone::{Backend, Device};

    #[test]
    fn a_warning_of_the_remote_names_the_check_and_the_way_out() {
        let hint = |address: &str| {
            let (address, failure) = (address.to_owned(), "it broke".to_owned());
            remote_warning(&RemoteWarning::Unreachable { address, failure }).unwrap()
        };
        assert!(hint("http://host/cache").contains("its server runs"));
        assert!(hint("/mnt/team").contains("is mounted"));
        assert!(hint("s3://bucket").contains("credentials"));
        assert!(hint("s3://bucket").contains("--remote off"));
        let (address, failure) = ("/mnt/team".to_owned(), "it broke".to_owned());
        let hint = remote_warning(&RemoteWarning::NotWritable { address, failure }).unwrap();
        assert!(hint.contains("read-only"));
    }

    #[test]
    fn an_unreadable_file_is_named_with_the_command_that_helps() {
        let read =
            |path: &str, kind: io::ErrorKind| StoreError::Read { path: path.into(), source: kind.into() };
        let hint = store_error(&read("/a/closed", io::ErrorKind::PermissionDenied)).unwrap();
        assert!(hint.contains("chmod") && hint.contains("/a/closed"));
        assert!(store_error(&read("/nowhere", io::ErrorKind::NotFound)).unwrap().contains("spelling"));
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("dead");
        std::os::unix::fs::symlink("gone", &link).unwrap();
        let hint = store_error(&read(link.to_str().unwrap(), io::ErrorKind::NotFound)).unwrap();
        assert!(hint.contains("link"));
    }

    #[test]
    fn missing_devices_and_backends_have_a_hint() {
        let device = Device::Cuda(1);
        assert!(
            kernel_error(&KernelError::NoDevice { device, count: 0 }).unwrap().contains("patchflow doctor")
        );
        assert!(runtime_error(&RuntimeError::NotBuilt(Backend::Torch)).unwrap().contains("--features torch"));
        assert!(diffusion_error(&DiffusionError::NotBuilt).unwrap().contains("scripts/libtorch.sh"));
        assert_eq!(kernel_error(&KernelError::EmptyBank), None);
    }
}
