//! Checks what a program has written into an output of a declared type, as `docs/artifacts.md` describes it. Messages
//! name the file as the program knows it: `outputs/<name>/<file>`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::Path;

use crate::artifacts::feature_set::{self, BlockForm, DESCRIPTION, DraftExtraction, block_name};
use crate::artifacts::image_set::{self, Preprocessing};
use crate::artifacts::{Artifact, ArtifactError, File, Files, bank, model, scores};
use crate::stages::{Inputs, StageError};

/// Where the layouts are described.
const LAYOUT: &str = "docs/artifacts.md describes the layout";

/// Checks the output `name` of a program, which is in `folder`, and completes its description if it is a feature set.
///
/// # Errors
/// [`StageError::Data`] with the file and the place in it.
pub(super) fn check(
    name: &str,
    artifact: Artifact,
    folder: &Path,
    inputs: &Inputs,
) -> Result<(), StageError> {
    let files = Files::of_folder(folder)?;
    if files.is_empty() {
        return Err(StageError::data(
            format!("the program wrote nothing into `outputs/{name}`"),
            format!("write the result into `outputs/{name}/`, relative to the working directory"),
        ));
    }
    let output = Output { name, files: &files };
    match artifact {
        Artifact::ImageSet => output.check_image_set(),
        Artifact::FeatureSet => output.check_feature_set(folder, inputs),
        Artifact::Bank => bank::Bank::read(&files)
            .map_err(|error| output.unread(error))
            .and_then(|bank| output.check_bank("rows.safetensors", &bank)),
        Artifact::Model => output.check_model(),
        Artifact::Scores => {
            let metrics =
                files.require("Scores", "metrics.json").and_then(File::read_json::<scores::Metrics>);
            metrics.map(drop).map_err(|error| output.unread(error))
        }
        Artifact::Files | Artifact::Any => Ok(()),
    }
}

/// What to do about numbers that are not finite: half precision ends at 65504.
const FINITE: &str = "write finite numbers, in single precision if they are large";

/// An output of a program.
struct Output<'a> {
    name: &'a str,
    files: &'a Files,
}

impl Output<'_> {
    /// An error about a file of the output, with what the program should do.
    fn fault(&self, file: &str, problem: impl Display, remedy: &str) -> StageError {
        StageError::data(format!("`outputs/{}/{file}` {problem}", self.name), format!("{remedy}; {LAYOUT}"))
    }

    /// An error of a reader, with the path of the file as the program knows it.
    fn unread(&self, error: ArtifactError) -> StageError {
        let name_of = |path: &Path| {
            let found = self.files.iter().find(|(_, file)| file.path == path);
            found.map_or_else(|| path.display().to_string(), |(name, _)| name.to_owned())
        };
        match error {
            ArtifactError::MissingFile { file, .. } => self.fault(&file, "is missing", "write it"),
            ArtifactError::Json { path, source } => self.fault(
                &name_of(&path),
                format!("is not as described: {source}"),
                "write these fields and no others",
            ),
            ArtifactError::Image { path, source } => {
                self.fault(&name_of(&path), format!("cannot be decoded: {source}"), "write PNG of 8 bits")
            }
            ArtifactError::SafeTensors { path, source } => self.fault(
                &name_of(&path),
                format!("is not a safetensors file: {source}"),
                "write it with a library for safetensors",
            ),
            ArtifactError::Tensor { path, tensor, expected } => self.fault(
                &name_of(&path),
                format!("does not hold the tensor `{tensor}` as {expected}"),
                "write it in this form",
            ),
            other => other.into(),
        }
    }

    fn check_image_set(&self) -> Result<(), StageError> {
        image_set::read_preprocessing(self.files).map_err(|error| self.unread(error))?;
        let (pixels, labels) = (image_set::pixels(self.files), image_set::labelled(self.files));
        let unpaired = pixels.keys().find(|id| !labels.contains_key(*id));
        let unpaired = unpaired.or_else(|| labels.keys().find(|id| !pixels.contains_key(*id)));
        if let Some(id) = unpaired {
            return Err(StageError::data(
                format!("in `outputs/{}` the image `{id}` has pixels or a mask, but not both", self.name),
                "write pixels/images/<id>.png and labels/<split>/normal|defect/<kind>/<id>.png for each image",
            ));
        }
        for (id, file) in pixels {
            let labelled = &labels[id];
            let image = image_set::read_rgb(file).map_err(|error| self.unread(error))?;
            let mask = image_set::read_mask(labelled.mask).map_err(|error| self.unread(error))?;
            let name = image_set::label_name(
                labelled.entry.split,
                labelled.entry.label,
                labelled.entry.kind.unwrap_or_default(),
                id,
            );
            if image.dimensions() != mask.dimensions() {
                let sides = |(width, height): (u32, u32)| format!("{height}x{width}");
                let (mask, image) = (sides(mask.dimensions()), sides(image.dimensions()));
                return Err(self.fault(
                    &name,
                    format!("is a mask of {mask} px, but its image has {image} px"),
                    "resize both alike",
                ));
            }
            let is_other = |level: u8| !matches!(level, 0 | image_set::UNCOUNTED | 255);
            let other = mask.enumerate_pixels().find(|(_, _, pixel)| is_other(pixel.0[0]));
            if let Some((column, row, pixel)) = other {
                let at = format!("at row {row}, column {column}");
                return Err(self.fault(
                    &name,
                    format!("is {} {at}: a mask is 0, 128 or 255", pixel.0[0]),
                    "write one of these levels",
                ));
            }
        }
        Ok(())
    }

    fn check_bank(&self, file: &str, bank: &bank::Bank) -> Result<(), StageError> {
        let images = bank.description.images.len();
        if bank.is_empty() {
            return Err(self.fault(file, "has no rows", "write one row or more"));
        }
        if let Some(row) = bank.image.iter().position(|&image| image as usize >= images) {
            let image = bank.image[row];
            return Err(self.fault(
                file,
                format!("row {row} is of the image {image}, of {images} in the description"),
                "write indices into `images`, from 0",
            ));
        }
        match bank.rows.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(self.fault(
                file,
                format!("is not finite in row {}, column {}", at / bank.d(), at % bank.d()),
                FINITE,
            )),
            None => Ok(()),
        }
    }

    fn check_model(&self) -> Result<(), StageError> {
        let model = model::Model::read(self.files).map_err(|error| self.unread(error))?;
        self.check_bank("normal.safetensors", &model.normal)?;
        model.defect.map_or(Ok(()), |bank| self.check_bank("defect.safetensors", &bank))
    }

    /// Checks the blocks, and writes what the program has left out of the description.
    fn check_feature_set(&self, folder: &Path, inputs: &Inputs) -> Result<(), StageError> {
        let description =
            self.files.require("FeatureSet", DESCRIPTION).map_err(|error| self.unread(error))?;
        let draft: DraftExtraction = description.read_json().map_err(|error| self.unread(error))?;
        let sets: Vec<&Files> =
            inputs.0.values().filter(|files| files.get(image_set::SET).is_some()).collect();
        let form = self.check_blocks(&sets)?;
        if let Some(dimension) = draft.dimension.filter(|&dimension| dimension != form.d) {
            return Err(self.fault(
                DESCRIPTION,
                format!("says `dimension` {dimension}, but the blocks have {}", form.d),
                "correct it, or leave it out",
            ));
        }
        if let Some(storage) = draft.storage.filter(|&storage| storage != form.storage) {
            let (said, found) = (storage.name(), form.storage.name());
            return Err(self.fault(
                DESCRIPTION,
                format!("says `storage` {said}, but the blocks are {found}"),
                "correct it, or leave it out",
            ));
        }
        let preprocessing = self.preprocessing(&draft, &sets)?;
        let extraction = draft.complete(preprocessing, form.storage, form.d);
        crate::artifacts::files::write_json(&folder.join(DESCRIPTION), &extraction)?;
        Ok(())
    }

    /// Checks that there is one block for each image, all of one form.
    fn check_blocks(&self, sets: &[&Files]) -> Result<BlockForm, StageError> {
        let images: BTreeSet<&str> = sets.iter().flat_map(|set| image_set::pixels(set).into_keys()).collect();
        let blocks: BTreeMap<&str, &File> = feature_set::blocks(self.files).collect();
        let missing: Vec<&&str> = images.iter().filter(|id| !blocks.contains_key(*id)).collect();
        if let Some(id) = missing.first() {
            let count = format!("{} of {} images have no block", missing.len(), images.len());
            return Err(self.fault(
                &block_name(id),
                format!("is missing: {count}"),
                "write one block for each image of the inputs",
            ));
        }
        let mut first: Option<(&str, BlockForm)> = None;
        for (id, file) in blocks {
            let name = block_name(id);
            if !images.contains(id) {
                return Err(self.fault(
                    &name,
                    "is of no image of the inputs",
                    "name each block after pixels/images/<id>.png",
                ));
            }
            let form = feature_set::check_block(file).map_err(|error| match error {
                feature_set::BlockFault::Unread(error) => self.unread(error),
                feature_set::BlockFault::NotFinite { .. } => self.fault(&name, error, FINITE),
                _ => self.fault(
                    &name,
                    error,
                    "write one tensor `features` [h, w, d] of half or single precision",
                ),
            })?;
            let (of, known) = first.get_or_insert((id, form));
            if (known.d, known.storage) != (form.d, form.storage) {
                let forms =
                    [form, *known].map(|form| format!("{} numbers of {}", form.d, form.storage.name()));
                let [here, there] = forms;
                return Err(self.fault(
                    &name,
                    format!("has vectors of {here}, but `{}` of {there}", block_name(of)),
                    "write the same in each",
                ));
            }
        }
        first.map(|(_, form)| form).ok_or_else(|| {
            StageError::data(
                format!("the images of the inputs have no features in `outputs/{}`", self.name),
                "connect an image set: inputs = { images = \"images\" }",
            )
        })
    }

    /// Returns the preprocessing that the program has described, else that of the image sets.
    fn preprocessing(&self, draft: &DraftExtraction, sets: &[&Files]) -> Result<Preprocessing, StageError> {
        if let Some(preprocessing) = &draft.preprocessing {
            return Ok(preprocessing.clone());
        }
        let mut all = Vec::new();
        for set in sets {
            all.push(image_set::read_preprocessing(set)?);
        }
        all.dedup();
        let [one] = &all[..] else {
            return Err(self.fault(
                DESCRIPTION,
                "lacks `preprocessing`, and the image sets differ in theirs",
                "add it as in set.json",
            ));
        };
        Ok(one.clone())
    }
}
