//! The kinds of stages: one file each, with its `Spec`, `VERSION` and `run`.
//!
//! A stage reads [`Inputs`] and writes into the scratch folder that it is given, one subfolder for each of
//! its outputs. It sees neither the store, nor its key, nor another stage; progress, cancellation and the
//! reuse of single items reach it through [`Context`]. Only the executor commits.

pub mod augment;
pub mod command;
pub mod context;
pub mod coreset;
pub mod download;
pub mod error;
pub mod evaluate;
pub mod extract;
pub mod fields;
pub mod fit;
mod picture;
pub mod preprocess;
mod program;
pub mod scorer;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::artifacts::Artifact;
use crate::artifacts::image_set::Selection;
use crate::kernels::backbone::Target;

pub use context::{Context, Inputs, Item, ItemFile, Items, Make, Progress};
pub use error::StageError;
use fields::{Fields, Reader};

/// What a stage does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Brings files: a local path, an archive by URL, a data set by name, or synthetic surfaces.
    Download,
    /// Images and masks of one size, with labels and splits.
    Preprocess,
    /// Made defects.
    Augment,
    /// Patch features of a backbone.
    Extract,
    /// Rows chosen of patch features.
    Coreset,
    /// A model of one or two banks.
    Fit,
    /// Metrics, scores and maps.
    Evaluate,
    /// Any program.
    Command,
}

/// Every kind with its name in a manifest.
pub const KINDS: [(&str, Kind); 8] = [
    ("download", Kind::Download),
    ("preprocess", Kind::Preprocess),
    ("augment", Kind::Augment),
    ("extract", Kind::Extract),
    ("coreset", Kind::Coreset),
    ("fit", Kind::Fit),
    ("evaluate", Kind::Evaluate),
    ("command", Kind::Command),
];

impl Kind {
    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        KINDS.iter().find(|&&(known, _)| known == name).map(|&(_, kind)| kind)
    }

    /// Its name in a manifest.
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|&&(_, kind)| kind == self).map_or("", |&(name, _)| name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The checked fields of a stage.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// See [`download`].
    Download(download::Spec),
    /// See [`preprocess`].
    Preprocess(preprocess::Spec),
    /// See [`augment`].
    Augment(augment::Spec),
    /// See [`extract`].
    Extract(extract::Spec),
    /// See [`coreset`].
    Coreset(coreset::Spec),
    /// See [`fit`].
    Fit(fit::Spec),
    /// See [`evaluate`].
    Evaluate(evaluate::Spec),
    /// See [`command`].
    Command(command::Spec),
}

impl Spec {
    /// Reads the fields of a stage of `kind`; problems and ports go to the reader.
    pub fn read(kind: Kind, reader: &mut Reader<'_>) -> Self {
        match kind {
            Kind::Download => Self::Download(download::Spec::read(reader)),
            Kind::Preprocess => Self::Preprocess(preprocess::Spec::read(reader)),
            Kind::Augment => Self::Augment(augment::Spec::read(reader)),
            Kind::Extract => Self::Extract(extract::Spec::read(reader)),
            Kind::Coreset => Self::Coreset(coreset::Spec::read(reader)),
            Kind::Fit => Self::Fit(fit::Spec::read(reader)),
            Kind::Evaluate => Self::Evaluate(evaluate::Spec::read(reader)),
            Kind::Command => Self::Command(command::Spec::read(reader)),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Download(_) => Kind::Download,
            Self::Preprocess(_) => Kind::Preprocess,
            Self::Augment(_) => Kind::Augment,
            Self::Extract(_) => Kind::Extract,
            Self::Coreset(_) => Kind::Coreset,
            Self::Fit(_) => Kind::Fit,
            Self::Evaluate(_) => Kind::Evaluate,
            Self::Command(_) => Kind::Command,
        }
    }

    /// Bumped when the kind's outputs change for equal inputs; its history stands in the kind's file.
    pub fn version(&self) -> u32 {
        match self {
            Self::Download(_) => download::VERSION,
            Self::Preprocess(_) => preprocess::VERSION,
            Self::Augment(_) => augment::VERSION,
            Self::Extract(_) => extract::VERSION,
            Self::Coreset(_) => coreset::VERSION,
            Self::Fit(_) => fit::VERSION,
            Self::Evaluate(_) => evaluate::VERSION,
            Self::Command(_) => command::VERSION,
        }
    }

    /// The fields that enter the key: everything that can change a byte of the output, and nothing else.
    pub fn fields(&self) -> Fields {
        match self {
            Self::Download(spec) => spec.fields(),
            Self::Preprocess(spec) => spec.fields(),
            Self::Augment(spec) => spec.fields(),
            Self::Extract(spec) => spec.fields(),
            Self::Coreset(spec) => spec.fields(),
            Self::Fit(spec) => spec.fields(),
            Self::Evaluate(spec) => spec.fields(),
            Self::Command(spec) => spec.fields(),
        }
    }

    /// Bytes of memory that it will take for inputs of so many bytes, about: for a scheduler that has no
    /// record to judge by. Blocks of features are read one by one; what grows with them is named here.
    pub fn memory(&self, input_bytes: u64) -> u64 {
        const MEGABYTE: u64 = 1_000_000;
        match self {
            Self::Download(_) => 64 * MEGABYTE,
            Self::Preprocess(_) => 256 * MEGABYTE,
            Self::Augment(spec) => spec.memory(input_bytes),
            // Weights twice while they are folded, and a few batches.
            Self::Extract(_) => 1024 * MEGABYTE,
            // 128 numbers of four bytes for a row of 256 halves or more.
            Self::Coreset(_) => input_bytes + 128 * MEGABYTE,
            // The banks, and five bytes for each pixel of the test set.
            Self::Fit(_) | Self::Evaluate(_) => input_bytes / 2 + 256 * MEGABYTE,
            Self::Command(spec) => spec.memory_bytes,
        }
    }

    /// Whether it mostly waits, for a program or a server: it then must not hold one of the pool's few threads.
    pub fn waits(&self) -> bool {
        match self {
            Self::Command(_) | Self::Download(_) => true,
            Self::Augment(spec) => matches!(spec.method, augment::Method::SdxlInpaint(_)),
            _ => false,
        }
    }

    /// Threads that it keeps busy beside the pool that all kinds share.
    pub fn threads(&self) -> usize {
        if let Self::Command(spec) = self { spec.threads } else { 1 }
    }

    /// The relative difference `‖new - old‖ / ‖old‖` of a file's numbers up to which equal inputs may give other
    /// bytes; none where they must be the same.
    pub fn tolerance(&self) -> Option<f64> {
        match self {
            Self::Extract(spec) => spec.tolerance(),
            _ => None,
        }
    }

    /// Why this build or machine cannot run it, whatever its inputs. `environment` tells where programs are.
    pub fn preflight(&self, environment: &BTreeMap<String, String>) -> Option<StageError> {
        match self {
            Self::Augment(spec) => spec.preflight(environment),
            Self::Extract(spec) => spec.preflight(),
            _ => None,
        }
    }

    /// What is run on which device by a library whose last bits may differ elsewhere: it joins the record.
    pub fn target(&self) -> Option<Target> {
        match self {
            Self::Augment(spec) => spec.target(),
            Self::Extract(spec) => Some(spec.target),
            _ => None,
        }
    }

    /// Files of the outputs, or folders of them, that people look at: a run's folder shows those that are there.
    pub fn pictures(&self) -> &'static [&'static str] {
        match self {
            Self::Augment(_) => &augment::PICTURES,
            Self::Coreset(_) => &coreset::PICTURES,
            _ => &[],
        }
    }

    /// Whether the experiment's seed reaches the stage.
    pub fn is_random(&self) -> bool {
        match self {
            Self::Augment(_) => true,
            Self::Coreset(spec) => spec.is_random(),
            Self::Evaluate(spec) => spec.is_random(),
            _ => false,
        }
    }

    /// The outputs, by name, the first being the one that the stage's bare name means.
    pub fn outputs(&self) -> Vec<(String, Artifact)> {
        let one = |name: &str, artifact| vec![(name.to_owned(), artifact)];
        match self {
            Self::Download(_) => one("files", Artifact::Files),
            Self::Preprocess(spec) => spec.outputs(),
            Self::Augment(_) => one("images", Artifact::ImageSet),
            Self::Extract(_) => one("features", Artifact::FeatureSet),
            Self::Coreset(_) => one("bank", Artifact::Bank),
            Self::Fit(_) => one("model", Artifact::Model),
            Self::Evaluate(_) => one("scores", Artifact::Scores),
            Self::Command(spec) => spec.outputs(),
        }
    }

    /// What the stage reads of each artifact that is wired to `port`.
    pub fn reads(&self, port: &str) -> Reads {
        match self {
            Self::Extract(_) if port == "images" => Reads::Pixels,
            Self::Augment(spec) if port == "images" => Reads::Images(spec.selection()),
            Self::Coreset(spec) => spec.reads(port),
            Self::Fit(spec) => spec.reads(port),
            Self::Evaluate(spec) => spec.reads(port),
            _ => Reads::Everything,
        }
    }

    /// The name of the image set whose features alone are read, where the manifest names one.
    pub fn set_filter(&self) -> Option<&str> {
        match self {
            Self::Coreset(spec) => spec.select_set.as_deref(),
            Self::Fit(spec) => spec.select_set.as_deref(),
            _ => None,
        }
    }

    /// Runs the stage.
    pub fn run(&self, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
        match self {
            Self::Download(spec) => download::run(spec, output, context),
            Self::Preprocess(spec) => preprocess::run(spec, inputs, output, context),
            Self::Augment(spec) => augment::run(spec, inputs, output, context),
            Self::Extract(spec) => extract::run(spec, inputs, output, context),
            Self::Coreset(spec) => coreset::run(spec, inputs, output, context),
            Self::Fit(spec) => fit::run(spec, inputs, output, context),
            Self::Evaluate(spec) => evaluate::run(spec, inputs, output, context),
            Self::Command(spec) => command::run(spec, inputs, output, context),
        }
    }
}

/// The part of an input that a stage reads. Keys see this part and no more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reads {
    /// The whole artifact.
    Everything,
    /// Of an image set, the pixels without masks, labels and splits.
    Pixels,
    /// Of an image set, the selected images: pixels and masks.
    Images(Selection),
    /// Of an image set, the masks of the selected images.
    Masks(Selection),
    /// Of a feature set, the blocks of the selected images, and their masks where `with_masks`.
    Blocks {
        /// Which images.
        selection: Selection,
        /// Whether the masks are read too (role `masks`).
        with_masks: bool,
    },
}
