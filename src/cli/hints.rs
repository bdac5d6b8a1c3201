//! From the facts of an error to advice: commands to type, settings to change, files to look at.

mod remote;

use std::error::Error;
use std::io;
use std::path::Path;

use super::disk::free_bytes;
use crate::artifacts::ArtifactError;
use crate::cache::{CacheError, REMOTE_ADDRESSES};
use crate::engine::{EngineError, Failure, full_disk as full_disk_in};
use crate::kernels::KernelError;
use crate::kernels::backbone::RuntimeError;
use crate::kernels::diffusion::DiffusionError;
use crate::manifest::Unneeded;
use crate::plan::{EqualValues, LockError, PlanError};
use crate::report::HistoryError;
use crate::stages::StageError;
use crate::stages::download::{ArchiveProblem, DownloadCause};
use crate::stages::preprocess::ImageFault;

/// Advice for a run whose cost is unknown.
pub(super) const UNKNOWN_COST: &str = "run one variant first, with `--only AXIS=VALUE`, so that the others can be estimated; or compare only what can be \
     estimated: `--budget-guess`";

/// The hint for a lock whose objects could not be pinned.
pub(super) const UNPINNED: &str = "the lock is complete; run `patchflow cache pin` as a user who may write to the cache, or `cache gc` may evict them";

/// The hint for results that are not known to be on disk.
pub(super) const UNFLUSHED: &str = "check the disk; what a power cut takes is made again, and what the disk damages is found by `patchflow cache verify`";
pub(super) use remote::warning as remote_warning;

/// Returns a hint for an error of the cache.
fn store_error(error: &CacheError) -> Option<String> {
    match error {
        CacheError::Remote { .. } => Some(format!(
            "name {REMOTE_ADDRESSES} as `remote` in patchflow.toml, or run with --remote off (docs/sharing.md)"
        )),
        CacheError::Read { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
            Some(format!("give yourself read permission: `chmod -R u+rX {}`", path.display()))
        }
        CacheError::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
            if path.components().any(|part| part.as_os_str() == "~") {
                Some("write the path of your home folder in full: only shells know `~`".into())
            } else if path.is_symlink() {
                Some(format!(
                    "`{}` is a link to a file that does not exist; repair or remove it",
                    path.display()
                ))
            } else {
                Some("check the spelling of the path; relative paths start at the project root".into())
            }
        }
        CacheError::Write { path, source } => match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Some(format!("`{}` must be writable, or choose another cache folder", path.display()))
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(full_disk(path)),
            _ => None,
        },
        CacheError::NotUtf8 { .. } => Some("rename the file".into()),
        CacheError::BadPin { .. } => Some("use letters, digits, `-`, `_` and `.`".into()),
        CacheError::Collecting { .. } => Some("wait until it has ended".into()),
        CacheError::NotRegular { kind: "symlink", .. } => {
            Some("copy the file that the link leads to instead of linking it".into())
        }
        CacheError::SymlinkLoop { path, .. } => Some(format!("remove the link `{}`", path.display())),
        CacheError::ChangedWhilePublished { .. } => {
            Some("the stage left a process behind that still writes; let it wait for its children".into())
        }
        _ => None,
    }
}

/// Returns the hint for an error: the first that is known for the error or one of its causes.
pub(super) fn of(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(path) = full_disk_in(error) {
        return Some(full_disk(&path));
    }
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(advice) = of_one(error) {
            return Some(advice);
        }
        next = error.source();
    }
    None
}

/// Returns the hint for one error, ignoring its causes. Transparent variants are opened here, since their inner error
/// is not among the causes.
fn of_one(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref() {
        return failure(error);
    }
    if let Some(error) = error.downcast_ref() {
        return engine_error(error);
    }
    if let Some(error) = error.downcast_ref() {
        return plan_error(error);
    }
    if let Some(error) = error.downcast_ref() {
        return stage_error(error);
    }
    if let Some(error) = error.downcast_ref() {
        return artifact_error(error);
    }
    if let Some(error) = error.downcast_ref() {
        return store_error(error);
    }
    if let Some(error) = error.downcast_ref() {
        return kernel_error(error);
    }
    if let Some(error) = error.downcast_ref() {
        return runtime_error(error);
    }
    error.downcast_ref().and_then(diffusion_error)
}

fn failure(failure: &Failure) -> Option<String> {
    match failure {
        Failure::Plan(error) => plan_error(error),
        Failure::SourceChanged { .. } | Failure::SourceDiffers { .. } => {
            Some("run again when nothing writes to the source".to_owned())
        }
        Failure::Worker { help, .. } => help.clone(),
        Failure::Panic { .. } => Some("please report it with the task's log".to_owned()),
        Failure::Log { .. } => Some("check the folder's permissions and free space".to_owned()),
        Failure::LockedKey { .. } | Failure::LockedOutput { .. } => {
            Some("`patchflow explain` shows what differs; without `--locked` it runs".to_owned())
        }
        Failure::Nondeterministic { .. } => Some("run again: the new bytes are recorded now".to_owned()),
        Failure::CacheRemoved { .. } => {
            Some("run again, and leave the cache where it is meanwhile".to_owned())
        }
        Failure::Stage(_)
        | Failure::Cache(_)
        | Failure::NoTree { .. }
        | Failure::Remake { .. }
        | Failure::WorkerProcess { .. } => None,
    }
}

fn engine_error(error: &EngineError) -> Option<String> {
    match error {
        EngineError::Plan(error) => plan_error(error),
        EngineError::Threads { .. } => Some("use fewer `--threads`".to_owned()),
        EngineError::Cache(_) => None,
    }
}

fn plan_error(error: &PlanError) -> Option<String> {
    match error {
        PlanError::NoFeatures { images, .. } => {
            Some(format!("add `{images}` to the `images` of the extract stage"))
        }
        PlanError::NotExtract { .. } => {
            Some("wire it to a stage of kind `extract`, or to a command that reads the image sets".to_owned())
        }
        PlanError::Tool { tool, .. } => Some(format!("install `{tool}`, or remove it from `tools`")),
        PlanError::Source { .. }
        | PlanError::Cache(_)
        | PlanError::NoOutput { .. }
        | PlanError::NotFinite { .. } => None,
    }
}

fn stage_error(error: &StageError) -> Option<String> {
    match error {
        StageError::Data { .. } | StageError::Program { .. } => error.help().map(str::to_owned),
        StageError::Download { cause, .. } => Some(download(*cause).to_owned()),
        StageError::Artifact(error) => artifact_error(error),
        StageError::Unavailable(error) => runtime_error(error),
        StageError::Image { source, .. } => Some(image_fault(source).to_owned()),
        StageError::Several { errors, .. } => errors.iter().find_map(stage_error),
        StageError::Io { source, action: "start", .. } if source.kind() == io::ErrorKind::NotFound => Some(
            "install the program, or make your script an input: the program sees nothing else of the project"
                .to_owned(),
        ),
        StageError::Archive { problem, .. } => Some(archive(problem).to_owned()),
        StageError::Cancelled
        | StageError::MissingInput { .. }
        | StageError::Io { .. }
        | StageError::Kernel { .. } => None,
    }
}

/// Returns a hint for an image that is not read.
fn image_fault(fault: &ImageFault) -> &'static str {
    match fault {
        ImageFault::Empty | ImageFault::Damaged { .. } | ImageFault::NoPixels | ImageFault::Decoder(_) => {
            "copy it again from where it came, or remove it from the data"
        }
        ImageFault::LfsPointer => "fetch the files with `git lfs pull`",
        ImageFault::Foreign { .. } | ImageFault::Unread { .. } => {
            "convert it to PNG, for example `magick IN OUT.png`, or remove it from the data"
        }
        ImageFault::TooLarge { .. } => {
            "save it as a plain PNG (`magick IN -interlace none OUT.png`) and set `height` and `width`: then it is decoded by \
             strips; or cut it into tiles: `magick IN -crop 4096x4096 OUT-%d.png`"
        }
    }
}
/// Returns a hint for a download that failed.
fn download(cause: DownloadCause) -> &'static str {
    match cause {
        DownloadCause::Offline => {
            "run once without `--offline`, or use a local copy: a `download` stage with `path = \"…\"`. Published weights \
             become your own by `weights = \"NAME_OF_THAT_STAGE\"` in the stage that reads them"
        }
        DownloadCause::Unreachable => {
            "check the address, or download the file by other means and use it in a `download` stage with \
             `path = \"…\"`. Published weights become your own by `weights = \"NAME_OF_THAT_STAGE\"` in the stage that \
             reads them"
        }
        DownloadCause::OtherFile => {
            "the server has a different file: check `digest`, or whether the publisher has changed the file"
        }
        DownloadCause::WebPage => {
            "open the address in a browser: the page may ask to sign in, to accept terms or to confirm. Write the \
             address of the file itself, or download it there and use it with `path = \"…\"`"
        }
        DownloadCause::LfsPointer => {
            "the address leads to the pointer in a Git repository: write the address of the file itself (often \
             `resolve` or `media` instead of `raw`), or run `git lfs pull` in a clone and use it with `path = \"…\"`"
        }
    }
}

/// Returns a hint for an archive that was not unpacked.
fn archive(problem: &ArchiveProblem) -> &'static str {
    match problem {
        ArchiveProblem::Method { .. } => {
            "pack it again with Deflate (`7z x OLD.zip -oDATA`, then `7z a -tzip -mm=Deflate NEW.zip ./DATA/*`), or \
             unpack it yourself and name the folder with `path = \"…\"`"
        }
        ArchiveProblem::Encrypted { .. } => {
            "unpack it yourself with its password and name the folder with `path = \"…\"`"
        }
        ArchiveProblem::Format { .. } => {
            "`unpack = false` keeps the file as it is; or unpack it yourself and name the folder with `path = \"…\"`, \
             or pack it again as a zip archive"
        }
        ArchiveProblem::Refused { .. } => {
            "take the archive from its publisher, or unpack it yourself and name the folder with `path = \"…\"`"
        }
    }
}

fn artifact_error(error: &ArtifactError) -> Option<String> {
    match error {
        ArtifactError::Image { .. } => Some("it is cut off, or not a PNG: make it again".to_owned()),
        ArtifactError::Mask { .. } => {
            Some("use the level 128 only around an image, or for all of its pixels".to_owned())
        }
        ArtifactError::Changed { .. } => Some("run again when nothing writes to it".to_owned()),
        _ => None,
    }
}

/// Returns a hint for an error of a lock file.
pub(super) fn lock_error(error: &LockError) -> String {
    match error {
        LockError::Absent { .. } => {
            "`patchflow lock MANIFEST` writes it once every task is cached".to_owned()
        }
        LockError::File { .. } => "check the permissions of the file and its folder".to_owned(),
        LockError::Malformed { .. } | LockError::Version { .. } => {
            "restore it from version control, or lock again".to_owned()
        }
        LockError::Incomplete { .. } => "`patchflow run` makes them; then lock again".to_owned(),
        LockError::Differs { .. } => "undo the change, or run without `--locked` and lock again".to_owned(),
    }
}

/// Returns a hint for a past run that cannot be found or read.
pub(super) fn history_error(error: &HistoryError) -> String {
    match error {
        HistoryError::Unknown { runs, .. } => {
            format!("`patchflow runs` lists the runs in `{}`", runs.display())
        }
        HistoryError::UnknownExperiment { known, .. } if known.is_empty() => {
            "`patchflow run MANIFEST` runs one".to_owned()
        }
        HistoryError::UnknownExperiment { name, known, .. } => {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            crate::stages::fields::suggestion(name, &known)
        }
        HistoryError::Ambiguous { .. } => "type more of the name".to_owned(),
        HistoryError::NoSummary { .. } => "run the manifest again: what was finished is kept".to_owned(),
        HistoryError::Damaged { .. } => "name another run".to_owned(),
    }
}

/// Returns a hint for stages that no target needs.
pub(super) fn unneeded(Unneeded { stages, ends, targets }: &Unneeded) -> String {
    let names: Vec<String> = targets.iter().chain(ends).map(|name| format!("\"{name}\"")).collect();
    format!(
        "to run {} too, write `targets = [{}]` below `[experiment]`; else remove {0}",
        if stages.len() == 1 { "it" } else { "them" },
        names.join(", ")
    )
}

/// Returns a hint for axis values that make no difference.
pub(super) fn equal_values(equal: &EqualValues) -> String {
    format!(
        "keep one of them; or find what decides instead where `${{{}}}` is used: a bound such as `min_size`, or a field that \
         another one switches off",
        equal.axis
    )
}

/// Returns a hint for a full file system.
fn full_disk(path: &Path) -> String {
    let free = free_bytes(path).map_or_else(String::new, |free| format!("{free} bytes free there: "));
    format!(
        "{free}free some space, for example with `patchflow cache gc --max-size 20GB`, or name a `cache` on another \
         disk in patchflow.toml"
    )
}

/// Returns a hint for an error of the exact search.
fn kernel_error(error: &KernelError) -> Option<String> {
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
fn runtime_error(error: &RuntimeError) -> Option<String> {
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
fn diffusion_error(error: &DiffusionError) -> Option<String> {
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
    fn an_unreadable_file_is_named_with_the_command_that_helps() {
        let read =
            |path: &str, kind: io::ErrorKind| CacheError::Read { path: path.into(), source: kind.into() };
        let hint = store_error(&read("/a/closed", io::ErrorKind::PermissionDenied)).unwrap();
        assert!(hint.contains("chmod") && hint.contains("/a/closed"));
        assert!(store_error(&read("/nowhere", io::ErrorKind::NotFound)).unwrap().contains("spelling"));
        assert!(
            store_error(&read("/p/~/data", io::ErrorKind::NotFound))
                .unwrap()
                .contains("only shells know `~`")
        );
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("dead");
        std::os::unix::fs::symlink("gone", &link).unwrap();
        let hint = store_error(&read(link.to_str().unwrap(), io::ErrorKind::NotFound)).unwrap();
        assert!(hint.contains("link"));
    }

    #[test]
    fn a_download_that_fails_has_another_way() {
        use DownloadCause::{LfsPointer, Offline, OtherFile, Unreachable, WebPage};
        for cause in [LfsPointer, Offline, Unreachable, WebPage] {
            assert!(download(cause).contains("`path = "), "{cause:?}");
        }
        assert!(download(Offline).contains("`weights = ") && download(Unreachable).contains("`weights = "));
        assert!(download(OtherFile).contains("`digest`"));
        let entry = || "a.png".to_owned();
        for problem in [
            ArchiveProblem::Method { entry: entry(), method: "Deflate64".to_owned() },
            ArchiveProblem::Encrypted { entry: entry() },
            ArchiveProblem::Format { found: "a gzip file".to_owned() },
            ArchiveProblem::Refused { message: "it is damaged".to_owned() },
        ] {
            assert!(archive(&problem).contains("unpack it yourself"), "{problem:?}");
        }
    }

    #[test]
    fn unneeded_stages_run_with_the_last_of_them_as_a_target() {
        let [notes, script, result] = ["notes", "script", "result"].map(str::to_owned);
        let of = Unneeded { stages: vec![notes.clone(), script], ends: vec![notes], targets: vec![result] };
        assert!(unneeded(&of).contains("write `targets = [\"result\", \"notes\"]`"), "{}", unneeded(&of));
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
