//! What a running stage is given beside its inputs.

use std::collections::BTreeMap;
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
    /// [`StageError::MissingInput`] if it is not connected, which is a fault of the plan.
    pub fn require(&self, port: &str) -> Result<&Files, StageError> {
        self.0.get(&Role::only(port)).ok_or_else(|| StageError::MissingInput { role: port.to_owned() })
    }

    /// Returns the input of a role, if there is one.
    pub fn get(&self, role: &Role) -> Option<&Files> {
        self.0.get(role)
    }

    /// Iterates over the inputs of a port, in the order of its members.
    pub fn of_port<'a>(&'a self, port: &'a str) -> impl Iterator<Item = (&'a Member, &'a Files)> {
        let of_port = self.0.iter().filter(move |(role, _)| role.port == port);
        of_port.map(|(role, files)| (&role.member, files))
    }

    /// Iterates over the members of a list or group, in order, each with its index.
    pub fn members<'a>(&'a self, port: &'a str) -> impl Iterator<Item = (usize, &'a Files)> {
        self.of_port(port).filter_map(|(member, files)| match member {
            Member::Index(index) => Some((*index, files)),
            Member::Only | Member::Named(_) => None,
        })
    }
}

/// Receives how far a stage has come.
pub trait Progress: Sync {
    /// `done` of `total` units (`image`, `pick`, `byte`).
    fn report(&self, done: u64, total: u64, unit: &'static str);
    /// A line for the task's log.
    fn log(&self, line: &str);
}

/// One file of an item that was found again or has just been kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemFile {
    /// Where its bytes can be read.
    pub path: PathBuf,
    /// Digest of its content.
    pub digest: Digest,
    /// Its length.
    pub size_bytes: u64,
}

impl ItemFile {
    /// It, as a file of an artifact.
    pub fn file(&self) -> File {
        let Self { path, digest, size_bytes } = self.clone();
        File { path, digest: Some(digest), size_bytes, is_executable: false }
    }
}

/// One unit of an item-wise stage, such as an image: its files and a note that the stage wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its files, in the order in which they were kept.
    pub files: Vec<ItemFile>,
    /// What the stage noted, such as the label.
    pub note: String,
}

/// Makes an item in the folder that it is given: the files to keep, and a note.
pub type Make<'a> = dyn FnMut(&Path) -> Result<(Vec<PathBuf>, String), StageError> + 'a;

/// The memory of single items: what a stage once made of equal fields, it need not make again.
pub trait Items: Sync {
    /// The item that was kept under equal `fields`, with all its files intact.
    fn recall(&self, fields: &Fields) -> Option<Item>;
    /// Keeps files that lie in the scratch folder, and takes them out of it.
    fn keep(&self, fields: &Fields, files: &[PathBuf], note: &str) -> Result<Item, StageError>;
    /// The item of equal `fields`, made by `make` where it is not kept yet: once, whoever asks at the same time.
    /// `make` is given the item's own folder of files that survive a stop, and gives the files to keep and a note.
    fn once(&self, fields: &Fields, make: &mut Make<'_>) -> Result<Item, StageError>;
    /// Adds an item's file to the output as `<output name>/<path>`.
    fn add_output(&self, file: &ItemFile, name: &str);
}

/// What a running stage may use.
pub struct Context<'a> {
    /// The experiment's seed or the repeat's; only random kinds read it.
    pub seed: u64,
    /// Threads of the pool in which the stage runs.
    pub threads: usize,
    /// How far it has come.
    pub progress: &'a dyn Progress,
    /// The memory of single items.
    pub items: &'a dyn Items,
    /// Set when the user wants to stop.
    pub cancelled: &'a AtomicBool,
    /// Whether the network may not be used.
    pub is_offline: bool,
    /// Where coresets and neighbours are searched; their bits are the same anywhere.
    pub search_device: Device,
    /// Folder for files that survive a stop, such as half a download; the stage's own, by key. Whoever needs it
    /// makes it.
    pub work: &'a Path,
    /// The project's root: paths of the manifest are relative to it.
    pub project: &'a Path,
    /// Values of the environment that were passed by name.
    pub environment: &'a BTreeMap<String, String>,
}

/// Time between two checks for cancellation while a stage sleeps.
const POLL: Duration = Duration::from_millis(10);

impl Context<'_> {
    /// Checks whether the user wants to stop.
    ///
    /// # Errors
    /// [`StageError::Cancelled`] if so.
    pub fn check(&self) -> Result<(), StageError> {
        if self.cancelled.load(Ordering::Relaxed) { Err(StageError::Cancelled) } else { Ok(()) }
    }

    /// Sleeps for `duration`, or until the user wants to stop.
    ///
    /// # Errors
    /// [`StageError::Cancelled`] in the latter case.
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
    //! A context for unit tests of stages: forgets every item, writes them where they belong.

    use std::sync::Mutex;

    use super::*;

    /// See the module.
    pub(crate) struct TestContext {
        folder: tempfile::TempDir,
        added: Mutex<Vec<(ItemFile, String)>>,
        cancelled: AtomicBool,
        environment: BTreeMap<String, String>,
        project: PathBuf,
    }

    impl TestContext {
        /// Makes an empty one.
        pub(crate) fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(folder.path().join("output")).unwrap();
            std::fs::create_dir_all(folder.path().join("work")).unwrap();
            Self {
                project: folder.path().to_owned(),
                folder,
                added: Mutex::default(),
                cancelled: AtomicBool::new(false),
                environment: BTreeMap::new(),
            }
        }

        /// Sets a variable of the environment.
        pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Self {
            self.environment.insert(name.to_owned(), value.to_owned());
            self
        }

        /// Where files that survive a stop lie.
        pub(crate) fn work(&self) -> PathBuf {
            self.folder.path().join("work")
        }

        /// Runs `spec` and gives the files of its output `name`.
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
