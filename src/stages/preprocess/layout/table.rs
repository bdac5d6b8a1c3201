//! `csv`: a table that describes any folder.
//!
//! Each row describes one image. `path` and `mask` are relative to the folder of the table; `split` is `train`, `test`
//! or any other name, and is drawn if the column is missing; `label` may be empty if there is a mask; `kind` is the kind
//! of defect. A normal image needs no mask. A defect without a mask has no region. `annotation` is a file of COCO, LabelMe
//! or YOLO that outlines the defects instead of a mask.

use super::folders::{drawn, drawn_note};
use super::side_files::SideFiles;
use super::{Action, Listing, Row, Source, View};
use crate::artifacts::File;
use crate::artifacts::image_set::Label;
use crate::stages::StageError;
use crate::stages::preprocess::annotation::Annotation;
use crate::stages::preprocess::names::{is_defect_word, is_normal_word, without_extension};
use crate::stages::preprocess::reading::Reading;

/// Other names of columns, as tables of other programs have them.
const PATHS: [&str; 5] = ["path", "image_path", "image", "filename", "file"];
const MASKS: [&str; 2] = ["mask", "mask_path"];
const ANNOTATIONS: [&str; 2] = ["annotation", "annotations"];

pub(super) const CSV: Row = Row {
    name: "csv",
    shape: "a table images.csv with path, split, label, mask or annotation, kind",
    fields: &["csv", "defect_classes", "polygon_rule", "split_seed", "test_share", "test_share_of_defects"],
    fits: |view, reading| view.keys().copied().find(|name| *name == reading.csv),
    action: Action::Read(read),
};

/// The indices of the columns.
struct Columns {
    path: usize,
    split: Option<usize>,
    mask: Option<usize>,
    label: Option<usize>,
    kind: Option<usize>,
    annotation: Option<usize>,
}

/// What the rows of a table have in common.
struct Table<'t, 'a> {
    columns: Columns,
    folder: &'t str,
    view: &'t View<'a>,
    reading: &'t Reading,
}

/// Lists the rows of the table.
fn read<'a>(view: &View<'a>, reading: &Reading, listing: &mut Listing<'a>) -> Result<(), StageError> {
    let name = reading.csv.as_str();
    let file = *view.get(name).expect("a csv layout is recognised by its table");
    listing.lists.push(file);
    let broken = |error: &csv::Error| {
        let message = format!("cannot read the table `{}`: {error}", file.path.display());
        StageError::data(message, "a table needs a header, commas, and the same number of fields in each row")
    };
    let bytes = file.read()?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let columns = columns(reader.headers().map_err(|error| broken(&error))?, file)?;
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let table = Table { columns, folder, view, reading };
    let mut side_files = SideFiles::new(reading);
    for row in reader.records() {
        let row = row.map_err(|error| broken(&error))?;
        match table.source(&row, &mut side_files)? {
            Ok(source) => listing.sources.push(source),
            Err(what) => {
                let line = row.position().map_or(0, csv::Position::line);
                let message = format!("`{}`, line {line}: {what}", file.path.display());
                listing.problems.push(StageError::Data { message, help: None });
            }
        }
    }
    if table.columns.split.is_none() {
        listing.notes.push(drawn_note(reading));
    }
    side_files.finish(listing)
}

fn columns(header: &csv::StringRecord, table: &File) -> Result<Columns, StageError> {
    let index_of = |name: &str| header.iter().position(|column| column.eq_ignore_ascii_case(name));
    let path = PATHS.iter().find_map(|name| index_of(name)).ok_or_else(|| {
        let found: Vec<String> = header.iter().map(|column| format!("`{column}`")).collect();
        StageError::data(
            format!("the table `{}` has no column `path`, only {}", table.path.display(), found.join(", ")),
            "the first line must name the columns: path,mask,split,label[,kind]",
        )
    })?;
    Ok(Columns {
        path,
        split: index_of("split"),
        mask: MASKS.iter().find_map(|name| index_of(name)),
        label: index_of("label"),
        kind: index_of("kind"),
        annotation: ANNOTATIONS.iter().find_map(|name| index_of(name)),
    })
}

/// The files and the label of a row.
struct Files<'r, 'a> {
    path: &'r str,
    image: &'a File,
    label: Option<Label>,
    masks: Vec<&'a File>,
    annotation: Option<Annotation<'a>>,
}

impl<'a> Table<'_, 'a> {
    /// Reads a row. The inner error describes the problem of the row.
    fn source(
        &self,
        row: &csv::StringRecord,
        side_files: &mut SideFiles<'_, 'a>,
    ) -> Result<Result<Source<'a>, String>, StageError> {
        let Self { columns, .. } = self;
        let Files { path, image, label, masks, annotation } = match self.files(row, side_files)? {
            Ok(found) => found,
            Err(what) => return Ok(Err(what)),
        };
        let (split, kind) = (field(row, columns.split), field(row, columns.kind));
        for (name, word) in [("split", split), ("kind", kind)] {
            if let Some(word) = word.filter(|word| word.contains(['/', '\\']) || word.starts_with('.')) {
                return Ok(Err(format!("`{name}` must be a single word, not `{word}`")));
            }
        }
        let known = ["train", "test", "validation"];
        let meant = split.and_then(|split| known.into_iter().find(|known| is_misspelt(split, known)));
        if let (Some(split), Some(meant)) = (split, meant) {
            let what = format!("`split` is `{split}`: write `{meant}`, or a name that is less similar to it");
            return Ok(Err(what));
        }
        let split = match (split, columns.split) {
            (Some(split), _) => split.to_owned(),
            (None, Some(_)) => return Ok(Err("`split` is empty".to_owned())),
            (None, None) => match label {
                Some(label) => drawn(self.reading, image, label)?.to_owned(),
                None => return Ok(Err(format!("`{path}` has neither a split nor a label"))),
            },
        };
        let name = within("", path);
        let id = without_extension(&name).to_owned();
        let kind = kind.map(str::to_owned);
        let kind = kind.or_else(|| annotation.as_ref().and_then(Annotation::kind));
        Ok(Ok(Source { id, split, label, kind, image, masks, annotation }))
    }

    /// Finds the files of a row.
    fn files<'r>(
        &self,
        row: &'r csv::StringRecord,
        side_files: &mut SideFiles<'_, 'a>,
    ) -> Result<Result<Files<'r, 'a>, String>, StageError> {
        let found = match self.named_files(row) {
            Ok(found) => found,
            Err(what) => return Ok(Err(what)),
        };
        let Some(written) = field(row, self.columns.annotation) else {
            let is_unknown = found.label.is_none() && found.masks.is_empty();
            let what = format!("`{}` has neither a label nor a mask", found.path);
            return Ok(if is_unknown { Err(what) } else { Ok(found) });
        };
        if !found.masks.is_empty() {
            return Ok(Err(format!("`{}` has a mask and an annotation: keep one of them", found.path)));
        }
        let (name, image) = (within(self.folder, written), within(self.folder, found.path));
        Ok(side_files.annotation(&name, &image, self.view)?.map(|annotation| {
            let label = found.label.or_else(|| Some(annotation.label()));
            Files { label, annotation: Some(annotation), ..found }
        }))
    }

    /// Finds the image and the mask of a row, and its label.
    fn named_files<'r>(&self, row: &'r csv::StringRecord) -> Result<Files<'r, 'a>, String> {
        let find = |written: &str| {
            let name = within(self.folder, written);
            self.view.get(name.as_str()).copied().ok_or_else(|| format!("there is no file `{written}`"))
        };
        let path = field(row, Some(self.columns.path)).ok_or("`path` is empty")?;
        let mask = field(row, self.columns.mask).map(find).transpose()?;
        let label = match field(row, self.columns.label) {
            Some(word) if word == "0" || is_normal_word(word) => Some(Label::Normal),
            Some(word) if word == "1" || is_defect_word(word) => Some(Label::Defect),
            Some(other) => return Err(format!("`label` must be `normal` or `defect`, not `{other}`")),
            None => None,
        };
        Ok(Files { path, image: find(path)?, label, masks: mask.into_iter().collect(), annotation: None })
    }
}

fn field(row: &csv::StringRecord, column: Option<usize>) -> Option<&str> {
    column.and_then(|column| row.get(column)).filter(|text| !text.is_empty())
}

/// Returns whether a word is probably a misspelling of `known`. No stage would read the images of a misspelt split.
fn is_misspelt(word: &str, known: &str) -> bool {
    word != known && strsim::damerau_levenshtein(&word.to_lowercase(), known) <= 2
}

/// Returns the path of a file within the input, given its path relative to the folder of the table.
fn within(folder: &str, written: &str) -> String {
    let written = written.replace('\\', "/");
    let parts = folder.split('/').chain(written.split('/')).filter(|part| !part.is_empty() && *part != ".");
    parts.collect::<Vec<_>>().join("/")
}
