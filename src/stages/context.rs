//! What a running stage is given beside its inputs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::StageError;
use super::fields::Fields;
use crate::artifacts::{File, Files};
use crate::kernels::backbone::Device;

/// A stage's inputs, by role: the port's name, with `[i]` for each member of a list or group, and
/// `masks[i]` for the masks that go with the blocks of `features[i]`.
#[derive(Clone, Debug, Default)]
pub struct Inputs(pub BTreeMap<String, Files>);

impl Inputs {
    /// The input of a role that is always connected.
    ///
    /// # Errors
    /// [`StageError::MissingInput`] where it is not, which is a fault of the plan.
    pub fn require(&self, role: &str) -> Result<&Files, StageError> {
        self.0.get(role).ok_or_else(|| StageError::MissingInput { role: role.to_owned() })
    }

    /// The input of a role that may be left open.
    pub fn get(&self, role: &str) -> Option<&Files> {
        self.0.get(role)
    }

    /// The members of a list or group, in order, each with the place that its role names.
    pub fn members(&self, port: &str) -> impl Iterator<Item = (usize, &Files)> {
        (0..).map_while(move |place| self.0.get(&format!("{port}[{place}]")).map(|files| (place, files)))
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
    /// Hexadecimal digest of its content.
    pub digest: String,
    /// Its length.
    pub size_bytes: u64,
}

impl ItemFile {
    /// It, as a file of an artifact.
    pub fn file(&self) -> File {
        let Self { path, digest, size_bytes } = self.clone();
        File { path, digest, size_bytes, is_executable: false }
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
    /// Puts an item's file into the output as `<output name>/<path>`.
    fn place(&self, file: &ItemFile, name: &str);
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

impl Context<'_> {
    /// Fails where the user wants to stop.
    pub fn check(&self) -> Result<(), StageError> {
        if self.cancelled.load(Ordering::Relaxed) { Err(StageError::Cancelled) } else { Ok(()) }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A context for unit tests of stages: forgets every item, writes them where they belong.

    use std::sync::Mutex;

    use super::*;

    /// See the module.
    pub(crate) struct Bench {
        folder: tempfile::TempDir,
        placed: Mutex<Vec<(ItemFile, String)>>,
        cancelled: AtomicBool,
        environment: BTreeMap<String, String>,
        project: PathBuf,
    }

    impl Bench {
        /// Makes an empty one.
        pub(crate) fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(folder.path().join("output")).unwrap();
            std::fs::create_dir_all(folder.path().join("work")).unwrap();
            Self {
                project: folder.path().to_owned(),
                folder,
                placed: Mutex::default(),
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
            spec: &super::super::Spec,
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
            for (file, name) in self.placed.lock().unwrap().drain(..) {
                let to = output.join(name);
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::copy(file.path, to).unwrap();
            }
            Ok(Files::of_folder(&output.join(name)).unwrap())
        }
    }

    impl Progress for Bench {
        fn report(&self, _: u64, _: u64, _: &'static str) {}
        fn log(&self, _: &str) {}
    }

    impl Items for Bench {
        fn recall(&self, _: &Fields) -> Option<Item> {
            None
        }
        fn keep(&self, _: &Fields, files: &[PathBuf], note: &str) -> Result<Item, StageError> {
            let kept = files.iter().map(|path| {
                let digest = blake3::hash(&std::fs::read(path).unwrap()).to_hex().to_string();
                let to = self.folder.path().join(&digest);
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
        fn place(&self, file: &ItemFile, name: &str) {
            self.placed.lock().unwrap().push((file.clone(), name.to_owned()));
        }
    }
}
