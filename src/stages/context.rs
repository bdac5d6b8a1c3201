//! The inputs of a running stage, and its context: progress, items, cancellation and settings.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::fields::Fields;
use super::{Member, Role, StageError};
use crate::artifacts::{File, Files};
use crate::digest::Digest;
use crate::kernels::backbone::Device;

/// A stage's inputs by role.
#[derive(Clone, Debug, Default)]
pub struct Inputs(pub BTreeMap<Role, Files>);

impl Inputs {
    /// Returns the only input of a port that is always connected.
    ///
    /// # Errors
    /// [`StageError::MissingInput`] if the port is not connected, which is a bug in the planner.
    pub fn require(&self, port: &str) -> Result<&Files, StageError> {
        self.0.get(&Role::only(port)).ok_or_else(|| StageError::MissingInput { role: port.to_owned() })
    }

    /// Returns the input of a role, or `None` if the role is not connected.
    pub fn get(&self, role: &Role) -> Option<&Files> {
        self.0.get(role)
    }

    /// Iterates over the inputs of a port, in the order of its members.
    pub fn of_port<'a>(&'a self, port: &'a str) -> impl Iterator<Item = (&'a Member, &'a Files)> {
        let of_port = self.0.iter().filter(move |(role, _)| role.port == port);
        of_port.map(|(role, files)| (&role.member, files))
    }

    /// Iterates over the members of a list or group in order, each with its index.
    pub fn members<'a>(&'a self, port: &'a str) -> impl Iterator<Item = (usize, &'a Files)> {
        self.of_port(port).filter_map(|(member, files)| match member {
            Member::Index(index) => Some((*index, files)),
            Member::Only | Member::Named(_) => None,
        })
    }
}

/// Receives the progress and the log lines of a stage.
pub trait Progress: Sync {
    /// Reports that `done` of `total` steps are finished. `step_name` says what one step is: `image`, `pick`, `byte`,
    /// or `step` of a training.
    fn report(&self, done: u64, total: u64, step_name: &'static str);
    /// Writes a line to the task's log.
    fn log(&self, line: &str);
    /// Writes a line to the task's log and record: what the stage has read, in numbers.
    fn note(&self, line: &str) {
        self.log(line);
    }
    /// Shows a line to the user as a warning, now and in every run that reuses the result. It is in the log and in the
    /// record too.
    fn warn(&self, line: &str) {
        self.log(&format!("warning: {line}"));
    }
}

/// One file of an item in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemFile {
    /// Where its bytes can be read.
    pub path: PathBuf,
    /// Digest of its content.
    pub digest: Digest,
    /// Size in bytes.
    pub size_bytes: u64,
}

impl ItemFile {
    /// Converts the item's file to a file of an artifact.
    pub fn file(&self) -> File {
        let Self { path, digest, size_bytes } = self.clone();
        File { path, digest: Some(digest), size_bytes, is_executable: false }
    }
}

/// One unit of an item-wise stage, such as an image: its files and a note by the stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its files, in the order in which the stage passed them to [`Items::keep`].
    pub files: Vec<ItemFile>,
    /// A note by the stage, such as the label.
    pub note: String,
}

/// Makes an item in the given folder. Returns the paths of the files to keep, and a note.
pub type Make<'a> = dyn FnMut(&Path) -> Result<(Vec<PathBuf>, String), StageError> + 'a;

/// The cache of single items. An item is found again by its fields, so that a stage makes it only once.
pub trait Items: Sync {
    /// Announces the fields of all items of the task before the first is recalled, so that those that other machines
    /// have made can be fetched together. `shared` are the fields that every item of such a stage has with equal values,
    /// whatever the data. Items of a stage that does not call it are not shared.
    fn announce(&self, _shared: &Fields, _items: &[Fields]) {}
    /// Returns the cached item with equal `fields`, or `None` if it is missing or one of its files is damaged.
    fn recall(&self, fields: &Fields) -> Option<Item>;
    /// Stores an item and moves its files from the scratch folder into the cache.
    fn keep(&self, fields: &Fields, files: &[PathBuf], note: &str) -> Result<Item, StageError>;
    /// Returns the item with equal `fields`. Calls `make` if the item is not cached yet, only once even if several
    /// tasks need the item at the same time. The folder passed to `make` belongs to the item, and its files survive a
    /// stopped run.
    fn once(&self, fields: &Fields, make: &mut Make<'_>) -> Result<Item, StageError>;
    /// Adds an item's file to the output as `<output name>/<path>`.
    fn add_output(&self, file: &ItemFile, name: &str);
}

/// Environment variables by name. A value is passed on as it is, UTF-8 or not.
pub type Variables = BTreeMap<String, OsString>;

/// The context of a running stage.
pub struct Context<'a> {
    /// Seed of the experiment or of the repeat. Only random kinds read it.
    pub seed: u64,
    /// Number of threads in the pool that the stage runs in.
    pub threads: usize,
    /// Receives progress and log lines.
    pub progress: &'a dyn Progress,
    /// The cache of single items.
    pub items: &'a dyn Items,
    /// Set when the run is cancelled.
    pub cancelled: &'a AtomicBool,
    /// Whether the network must not be used.
    pub is_offline: bool,
    /// Device for coresets and nearest neighbours. Their results are bit-identical on all devices.
    pub search_device: Device,
    /// Folder for files that survive a stopped run, such as a partial download. Named by the task's key, so no other
    /// task uses it. A stage that needs the folder creates it.
    pub work: &'a Path,
    /// Root of the project. Paths in the manifest are relative to it.
    pub project: &'a Path,
    /// The environment variables that the stage may read.
    pub environment: &'a Variables,
}

/// Time between two checks for cancellation while a stage sleeps.
const POLL: Duration = Duration::from_millis(10);

impl Context<'_> {
    /// Fails if the run is cancelled.
    ///
    /// # Errors
    /// [`StageError::Cancelled`] if the run is cancelled.
    pub fn check(&self) -> Result<(), StageError> {
        if self.cancelled.load(Ordering::Relaxed) { Err(StageError::Cancelled) } else { Ok(()) }
    }

    /// Sleeps for `duration`, or until the run is cancelled.
    ///
    /// # Errors
    /// [`StageError::Cancelled`] if the run is cancelled.
    pub fn sleep(&self, duration: Duration) -> Result<(), StageError> {
        let until = Instant::now() + duration;
        loop {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(POLL));
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A context for unit tests of stages. It caches no items, and copies added files into the output.

    use std::sync::Mutex;

    use super::*;

    /// A temporary project in which stages run.
    pub(crate) struct TestContext {
        folder: tempfile::TempDir,
        added: Mutex<Vec<(ItemFile, String)>>,
        cancelled: AtomicBool,
        environment: Variables,
        project: PathBuf,
        /// Notes, and warnings after `warning: `.
        notices: Mutex<Vec<String>>,
    }

    impl TestContext {
        /// Creates an empty project.
        pub(crate) fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(folder.path().join("output")).unwrap();
            std::fs::create_dir_all(folder.path().join("work")).unwrap();
            Self {
                project: folder.path().to_owned(),
                folder,
                added: Mutex::default(),
                cancelled: AtomicBool::new(false),
                environment: Variables::new(),
                notices: Mutex::default(),
            }
        }

        /// Returns the notes of the stages that ran, and their warnings after `warning: `.
        pub(crate) fn notices(&self) -> Vec<String> {
            self.notices.lock().unwrap().clone()
        }

        /// Sets an environment variable.
        pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Self {
            self.environment.insert(name.to_owned(), value.into());
            self
        }

        /// Returns the folder of files that survive a stopped run.
        pub(crate) fn work(&self) -> PathBuf {
            self.folder.path().join("work")
        }

        /// Runs `spec` and returns the files of its output `name`.
        pub(crate) fn run(
            &self,
            spec: &crate::stages::Spec,
            inputs: &Inputs,
            seed: u64,
            name: &str,
        ) -> Result<Files, StageError> {
            let output = self.folder.path().join("output");
            let work = self.work();
            let context = Context {
                seed,
                threads: 2,
                progress: self,
                items: self,
                cancelled: &self.cancelled,
                is_offline: false,
                search_device: Device::Cpu,
                work: &work,
                project: &self.project,
                environment: &self.environment,
            };
            spec.run(inputs, &output, &context)?;
            for (file, name) in self.added.lock().unwrap().drain(..) {
                let to = output.join(name);
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::copy(file.path, to).unwrap();
            }
            Ok(Files::of_folder(&output.join(name)).unwrap())
        }
    }

    impl Progress for TestContext {
        fn report(&self, _: u64, _: u64, _: &'static str) {}
        fn log(&self, _: &str) {}
        fn note(&self, line: &str) {
            self.notices.lock().unwrap().push(line.to_owned());
        }
        fn warn(&self, line: &str) {
            self.notices.lock().unwrap().push(format!("warning: {line}"));
        }
    }

    impl Items for TestContext {
        fn recall(&self, _: &Fields) -> Option<Item> {
            None
        }
        fn keep(&self, _: &Fields, files: &[PathBuf], note: &str) -> Result<Item, StageError> {
            let kept = files.iter().map(|path| {
                let digest = Digest::of_file(path).unwrap();
                let to = self.folder.path().join(digest.to_string());
                std::fs::rename(path, &to).unwrap();
                let size_bytes = to.metadata().unwrap().len();
                ItemFile { path: to, digest, size_bytes }
            });
            Ok(Item { files: kept.collect(), note: note.to_owned() })
        }
        fn once(&self, fields: &Fields, make: &mut Make<'_>) -> Result<Item, StageError> {
            let (files, note) = make(&self.folder.path().join("once"))?;
            self.keep(fields, &files, &note)
        }
        fn add_output(&self, file: &ItemFile, name: &str) {
            self.added.lock().unwrap().push((file.clone(), name.to_owned()));
        }
    }
}
