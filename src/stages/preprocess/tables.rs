//! Reads the table of a `csv` layout.
//!
//! Each row describes one image. `path` and `mask` are relative to the folder of the table; `split` is `train`, `test`
//! or any other name; `label` is `normal` or `defect` and may be empty if there is a mask; `kind` is the kind of
//! defect. A normal image needs no mask.

use super::Problems;
use super::layout::{Source, View, without_extension};
use crate::artifacts::File;
use crate::artifacts::image_set::Label;
use crate::stages::StageError;

/// The indices of the columns.
struct Columns {
    path: usize,
    split: usize,
    mask: Option<usize>,
    label: Option<usize>,
    kind: Option<usize>,
}

/// Lists the rows of the table `name`.
pub(super) fn read<'a>(
    view: &View<'a>,
    name: &str,
    problems: &mut Problems,
) -> Result<Vec<Source<'a>>, StageError> {
    let table = view.get(name).expect("a csv layout is recognised by its table");
    let broken = |error: &csv::Error| {
        let message = format!("cannot read the table `{}`: {error}", table.path.display());
        StageError::data(message, "a table needs a header, commas, and the same number of fields in each row")
    };
    let bytes = table.read()?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let columns = columns(reader.headers().map_err(|error| broken(&error))?, table)?;
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut sources = Vec::new();
    for row in reader.records() {
        let row = row.map_err(|error| broken(&error))?;
        match source(&row, &columns, folder, view) {
            Ok(source) => sources.push(source),
            Err(what) => {
                let line = row.position().map_or(0, csv::Position::line);
                let message = format!("`{}`, line {line}: {what}", table.path.display());
                problems.push(StageError::Data { message, help: None });
            }
        }
    }
    Ok(sources)
}

fn columns(header: &csv::StringRecord, table: &File) -> Result<Columns, StageError> {
    let index_of = |name: &str| header.iter().position(|column| column.eq_ignore_ascii_case(name));
    let require = |name: &str| {
        index_of(name).ok_or_else(|| {
            let found: Vec<String> = header.iter().map(|column| format!("`{column}`")).collect();
            StageError::data(
                format!(
                    "the table `{}` has no column `{name}`, only {}",
                    table.path.display(),
                    found.join(", ")
                ),
                "the first line must name the columns: path,mask,split,label[,kind]",
            )
        })
    };
    Ok(Columns {
        path: require("path")?,
        split: require("split")?,
        mask: index_of("mask"),
        label: index_of("label"),
        kind: index_of("kind"),
    })
}

/// Reads a row. The error describes the problem of the row.
fn source<'a>(
    row: &csv::StringRecord,
    columns: &Columns,
    folder: &str,
    view: &View<'a>,
) -> Result<Source<'a>, String> {
    let field =
        |column: Option<usize>| column.and_then(|column| row.get(column)).filter(|text| !text.is_empty());
    let find = |written: &str| {
        let name = within(folder, written);
        view.get(name.as_str()).copied().ok_or_else(|| format!("there is no file `{written}`"))
    };
    let path = field(Some(columns.path)).ok_or("`path` is empty")?;
    let split = field(Some(columns.split)).ok_or("`split` is empty")?;
    if let Some(meant) = ["train", "test", "validation"].into_iter().find(|known| is_misspelt(split, known)) {
        return Err(format!("`split` is `{split}`: write `{meant}`, or a name that is less similar to it"));
    }
    let mask = field(columns.mask).map(find).transpose()?;
    let kind = field(columns.kind);
    for (name, word) in [("split", Some(split)), ("kind", kind)] {
        if word.is_some_and(|word| word.contains('/') || word.contains('\\') || word.starts_with('.')) {
            return Err(format!("`{name}` must be a single word, not `{}`", word.unwrap_or_default()));
        }
    }
    let label = match field(columns.label) {
        Some("normal") => Some(Label::Normal),
        Some("defect") => Some(Label::Defect),
        Some(other) => return Err(format!("`label` must be `normal` or `defect`, not `{other}`")),
        None => None,
    };
    match (label, mask) {
        (Some(Label::Defect), None) => return Err(format!("the defect `{path}` has no mask")),
        (None, None) => return Err(format!("`{path}` has neither a label nor a mask")),
        _ => {}
    }
    let name = within("", path);
    Ok(Source {
        id: without_extension(&name).to_owned(),
        split: split.to_owned(),
        label,
        kind: kind.map(str::to_owned),
        image: find(path)?,
        mask,
    })
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
