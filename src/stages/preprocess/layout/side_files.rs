//! The annotation files that a table names: of COCO, LabelMe or YOLO, recognised by their content.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Listing, View};
use crate::artifacts::File;
use crate::stages::StageError;
use crate::stages::preprocess::annotation::{Annotation, Classes, CocoFile, read_labelme, read_yolo};
use crate::stages::preprocess::names::extension;
use crate::stages::preprocess::reading::Reading;

/// The fields by which JSON files differ.
#[derive(Deserialize)]
struct Signature {
    shapes: Option<IgnoredAny>,
    images: Option<IgnoredAny>,
}

/// Reads each file once.
pub(super) struct SideFiles<'r, 'a> {
    reading: &'r Reading,
    classes: Classes<'r>,
    /// COCO files, which many rows name.
    lists: BTreeMap<String, CocoFile<'a>>,
    used: Vec<&'a File>,
    problems: Vec<StageError>,
}

impl<'r, 'a> SideFiles<'r, 'a> {
    pub(super) fn new(reading: &'r Reading) -> Self {
        let (lists, used, problems) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { reading, classes: Classes::new(reading), lists, used, problems }
    }

    /// Returns what the file `name` says of an image. The inner error describes the problem of the row.
    pub(super) fn annotation(
        &mut self,
        name: &str,
        image: &str,
        view: &View<'a>,
    ) -> Result<Result<Annotation<'a>, String>, StageError> {
        if let Some(list) = self.lists.get(name) {
            return Ok(of_list(list, name, image));
        }
        let Some(&file) = view.get(name) else { return Ok(Err(format!("there is no file `{name}`"))) };
        self.used.push(file);
        let Self { reading, classes, problems, .. } = self;
        if extension(name) == "txt" {
            return read_yolo(file, reading, classes, problems).map(Ok);
        }
        let signature: Result<Signature, _> = serde_json::from_slice(&file.read_unchanged()?);
        match signature {
            Ok(Signature { shapes: Some(_), .. }) => {
                Ok(Ok(read_labelme(file, reading, classes, problems)?.0))
            }
            Ok(Signature { images: Some(_), .. }) => {
                let list = CocoFile::read(file, reading, classes, problems)?;
                let found = of_list(&list, name, image);
                self.lists.insert(name.to_owned(), list);
                Ok(found)
            }
            Ok(_) => Ok(Err(format!("`{name}` is no annotation of COCO, LabelMe or YOLO"))),
            Err(error) => Ok(Err(format!("cannot read the annotation `{name}`: {error}"))),
        }
    }

    /// Adds the problems and the files to the listing.
    pub(super) fn finish(self, listing: &mut Listing<'a>) -> Result<(), StageError> {
        listing.lists.extend(self.used);
        listing.problems.extend(self.problems);
        listing.notes.extend(self.classes.finish()?);
        Ok(())
    }
}

/// Returns what a COCO file says of an image: that of the listed name which is a path or the end of it.
fn of_list<'a>(list: &CocoFile<'a>, name: &str, image: &str) -> Result<Annotation<'a>, String> {
    let is_end = |written: &str| {
        let written = written.replace('\\', "/");
        let ending = written.trim_start_matches(['.', '/']);
        image.strip_suffix(ending).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    };
    let mut fitting = list.0.iter().filter(|(written, _)| is_end(written));
    match (fitting.next(), fitting.next()) {
        (Some((_, annotation)), None) => Ok(annotation.clone()),
        (None, _) => Err(format!("`{name}` does not list `{image}`")),
        (Some((first, _)), Some((second, _))) => {
            Err(format!("`{name}` lists `{first}` and `{second}`, and both may be `{image}`"))
        }
    }
}
