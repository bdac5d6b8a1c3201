//! Finds the images of an input folder, with their masks, labels and splits.
//!
//! A layout is a row of [`ROWS`]: a name, a test that fits or not by the names of the files alone, and a reader. The file
//! of each row describes how the files lie on disk. A row that is not read is still recognised, and refused by its name.
//!
//! Enclosing folders (an archive with one top folder, a category) are skipped. Files that do not fit the layout are an
//! error, or counted in a warning. Nothing is guessed.

mod annotated;
mod folders;
mod graded;
mod inspection;
mod kolektor;
mod refused;
mod side_files;
mod table;
mod visa;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::annotation::Annotation;
use super::names::{FileKind, extension, file_kind, is_image, parts};
use super::reading::Reading;
use super::{Problems, left_out};
use crate::artifacts::image_set::Label;
use crate::artifacts::{File, Files};
use crate::stages::{Progress, StageError};

/// The split that models are trained on.
pub(super) const TRAIN: &str = "train";
/// The split that models are evaluated on.
pub(super) const TEST: &str = "test";
/// The split of normal images for calibration.
const VALIDATION: &str = "validation";

/// Every layout. Messages list them in this order. A row that is missing here is unused code, which does not compile
/// without a warning.
const ROWS: &[&Row] = &[
    &table::CSV,
    &kolektor::KSDD2,
    &kolektor::KSDD,
    &graded::MVTEC,
    &graded::MVTEC_AD_2,
    &graded::MVTEC_LOCO,
    &graded::AUTOVI,
    &visa::VISA,
    &inspection::REAL_IAD,
    &inspection::DAGM,
    &inspection::MAGNETIC_TILE,
    &inspection::AITEX,
    &folders::FOLDERS,
    &annotated::COCO,
    &annotated::LABELME,
    &annotated::YOLO,
    &refused::MVTEC_3D,
    &refused::KAPUTT,
    &refused::BMAD,
    &refused::SEVERSTAL,
    &refused::DAGM_COMPETITION,
    &refused::DEEP_PCB,
    &refused::ELPV,
    &refused::NEU,
    &refused::VOC,
    &refused::CVAT,
];

/// The files of the layout, by their path relative to its folder.
pub(super) type View<'a> = BTreeMap<&'a str, &'a File>;

/// A layout.
struct Row {
    /// The name in a manifest.
    name: &'static str,
    /// How its files lie on disk, for messages.
    shape: &'static str,
    /// The fields that only some layouts read, and that this one does.
    fields: &'static [&'static str],
    /// Returns a file that speaks for the layout; `None` if the names do not fit.
    fits: for<'a> fn(&View<'a>, &Reading) -> Option<&'a str>,
    /// What happens with an input that fits.
    action: Action,
}

enum Action {
    /// It is read.
    Read(for<'a> fn(&View<'a>, &Reading, &mut Listing<'a>) -> Result<(), StageError>),
    /// It is refused: the reason, and what to do instead.
    Refuse(&'static str, &'static str),
}

/// A layout of data sets: a row of the table.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Layout(&'static Row);

impl Layout {
    /// Returns all layouts, including those that are recognised and refused.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|&row| Self(row))
    }

    /// Returns the choices of the field `layout`; `None` stands for `auto`.
    pub(super) fn choices() -> Vec<(&'static str, Option<Self>)> {
        let read = Self::all().filter(|layout| layout.is_read());
        std::iter::once(("auto", None)).chain(read.map(|layout| (layout.name(), Some(layout)))).collect()
    }

    /// Returns the name in a manifest.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Returns whether data of this layout are read, and not only recognised.
    pub fn is_read(self) -> bool {
        matches!(self.0.action, Action::Read(_))
    }

    /// Returns whether the layout reads a field that not all layouts read.
    pub(super) fn reads(self, field: &str) -> bool {
        self.0.fields.contains(&field)
    }
}

impl PartialEq for Layout {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl From<Layout> for String {
    fn from(layout: Layout) -> Self {
        layout.name().to_owned()
    }
}

impl TryFrom<String> for Layout {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::all().find(|layout| layout.name() == name).ok_or_else(|| format!("`{name}` is no layout"))
    }
}

/// An image of the input with the information from its layout.
#[derive(Debug)]
pub(super) struct Source<'a> {
    /// Unique within the set. May contain `/`.
    pub(super) id: String,
    pub(super) split: String,
    /// Label from the folder or the table. `None` if the mask decides.
    pub(super) label: Option<Label>,
    /// Kind of the defect. `None` if unknown.
    pub(super) kind: Option<String>,
    pub(super) image: &'a File,
    /// The masks, whose marks are united. None of them: nothing is marked.
    pub(super) masks: Vec<&'a File>,
    /// The outlines of defects, if an annotation file has them.
    pub(super) annotation: Option<Annotation<'a>>,
}

impl Source<'_> {
    /// Returns whether masks or outlines say where the defects are.
    pub(super) fn has_marks(&self) -> bool {
        !self.masks.is_empty() || self.annotation.is_some()
    }
}

/// What a reader finds.
#[derive(Default)]
pub(super) struct Listing<'a> {
    /// The images.
    pub(super) sources: Vec<Source<'a>>,
    /// Files that do not fit.
    pub(super) problems: Problems,
    /// Lists and tables that were read.
    pub(super) lists: Vec<&'a File>,
    /// Files that are left out on purpose, by path relative to the layout's folder, with the reason.
    pub(super) left_out: BTreeMap<&'a str, &'static str>,
    /// The grey levels of masks that have a meaning, as a file of the data set says. `None` without such a file.
    pub(super) codes: Option<BTreeSet<u8>>,
    /// Remarks for the record.
    pub(super) notes: Vec<String>,
    /// Remarks that need attention.
    pub(super) warnings: Vec<String>,
}

impl<'a> Listing<'a> {
    /// Adds a problem with a hint how to fix it.
    fn problem(&mut self, message: String, help: impl Into<String>) {
        self.problems.push(StageError::data(message, help));
    }

    /// Adds an image whose folder or list gives no kind.
    fn add(&mut self, id: String, split: &str, label: Option<Label>, image: &'a File, masks: Vec<&'a File>) {
        self.sources.push(Source {
            id,
            split: split.to_owned(),
            label,
            kind: None,
            image,
            masks,
            annotation: None,
        });
    }
}

/// Lists the images, sorted by id. Reports the layout and the files that are left out.
pub(super) fn find<'a>(
    reading: &Reading,
    input: &'a Files,
    progress: &dyn Progress,
) -> Result<Listing<'a>, StageError> {
    let (layout, prefix, view) = recognise(reading, input)?;
    progress.note(&format!("layout: {}", layout.name()));
    let read = match layout.0.action {
        Action::Read(read) => read,
        Action::Refuse(why, help) => {
            let what = format!("the input has the layout `{}`, which is not read: {why}", layout.name());
            return Err(StageError::data(what, help));
        }
    };
    let mut listing = Listing::default();
    read(&view, reading, &mut listing)?;
    listing.sources.sort_by(|a, b| a.id.cmp(&b.id));
    check_ids(&mut listing);
    // Reported before the problems: an image that is not read may be why its mask has no image.
    left_out::report(input, &prefix, &listing, progress);
    left_out::report_kinds(input, &listing, progress);
    std::mem::take(&mut listing.problems).finish("files do not fit the layout")?;
    if listing.sources.is_empty() {
        return Err(unknown(reading, input));
    }
    listing.notes.iter().for_each(|note| progress.note(note));
    listing.warnings.iter().for_each(|warning| progress.warn(warning));
    Ok(listing)
}

/// Refuses ids that occur twice, also if they differ only in case: not every disk can hold both.
fn check_ids(listing: &mut Listing<'_>) {
    let mut known: BTreeMap<String, (&str, &File)> = BTreeMap::new();
    let mut problems = Vec::new();
    for source in &listing.sources {
        let Some((id, other)) = known.insert(source.id.to_lowercase(), (&source.id, source.image)) else {
            continue;
        };
        let [first, second] = [other, source.image].map(|image| image.path.display().to_string());
        let what = if id == source.id {
            format!("`{first}` and `{second}` have the same id `{id}`")
        } else {
            format!("the ids of `{first}` and `{second}` differ only in case: `{id}`, `{}`", source.id)
        };
        problems.push(StageError::data(what, "the id is the path without its extension: rename one of them"));
    }
    listing.problems.extend(problems);
}

/// Finds the layout and its folder: the outermost folder that fits. Returns the prefix of the folder too.
fn recognise<'a>(reading: &Reading, input: &'a Files) -> Result<(Layout, String, View<'a>), StageError> {
    let whole: View<'a> = input.iter().filter(|(name, _)| file_kind(name) != FileKind::Leftover).collect();
    let mut prefix = String::new();
    loop {
        let view = below(&whole, &prefix);
        let fitting: Vec<(Layout, &str)> = fitting(reading, &view);
        match fitting[..] {
            [(layout, _)] => return Ok((layout, prefix, view)),
            [] => {}
            _ => return Err(ambiguous(&fitting)),
        }
        let category = reading.category.as_deref();
        let category = category.filter(|name| view.keys().any(|file| is_in(file, name)));
        let Some(folder) = category.or_else(|| only_folder(&view)) else {
            return Err(unknown(reading, input));
        };
        prefix = format!("{prefix}{folder}/");
    }
}

fn below<'a>(whole: &View<'a>, prefix: &str) -> View<'a> {
    whole.iter().filter_map(|(name, file)| Some((name.strip_prefix(prefix)?, *file))).collect()
}

fn is_in(file: &str, folder: &str) -> bool {
    file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

fn fitting<'a>(reading: &Reading, view: &View<'a>) -> Vec<(Layout, &'a str)> {
    let candidates = Layout::all().filter(|layout| reading.layout.is_none_or(|wanted| wanted == *layout));
    candidates.filter_map(|layout| Some((layout, (layout.0.fits)(view, reading)?))).collect()
}

/// Returns the folder that contains all images and tables, if there is only one.
fn only_folder<'a>(view: &View<'a>) -> Option<&'a str> {
    let mut folders = view
        .keys()
        .filter(|name| is_image(name) || extension(name) == "csv")
        .map(|name| name.split_once('/').map(|(folder, _)| folder));
    let first = folders.next()??;
    folders.all(|folder| folder == Some(first)).then_some(first)
}

fn ambiguous(fitting: &[(Layout, &str)]) -> StageError {
    let names: Vec<String> =
        fitting.iter().map(|(layout, file)| format!("`{}` (`{file}`)", layout.name())).collect();
    let first = fitting.iter().map(|(layout, _)| *layout).find(|layout| layout.is_read());
    StageError::data(
        format!("the input fits several layouts: {}", names.join(", ")),
        format!("choose one, such as `layout = \"{}\"`", first.map_or("csv", Layout::name)),
    )
}

/// Returns the error of an input without a known layout. It lists what was found and suggests a folder if possible.
fn unknown(reading: &Reading, input: &Files) -> StageError {
    let wanted = match reading.layout {
        None => "no known layout".to_owned(),
        Some(layout) => format!("not the layout `{}` ({})", layout.name(), layout.0.shape),
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (name, _) in input.iter().filter(|(name, _)| file_kind(name) != FileKind::Leftover) {
        *counts.entry(left_out::pattern(name)).or_default() += 1;
    }
    let mut seen: Vec<String> =
        counts.iter().take(8).map(|(name, count)| format!("`{name}` ({count})")).collect();
    if counts.len() > seen.len() {
        seen.push("…".to_owned());
    }
    let seen = if seen.is_empty() { "no file at all".to_owned() } else { seen.join(", ") };
    StageError::data(format!("the input has {wanted}; it holds {seen}"), remedy(reading, input))
}

fn remedy(reading: &Reading, input: &Files) -> String {
    let whole: View<'_> = input.iter().collect();
    if let Some(category) = &reading.category
        && !whole.keys().any(|name| parts(name).contains(&category.as_str()))
    {
        return format!("there is no folder `{category}`: correct `category`");
    }
    let folders: BTreeSet<&str> = whole.keys().filter_map(|name| Some(name.split_once('/')?.0)).collect();
    let fits = |folder: &&&str| !fitting(reading, &below(&whole, &format!("{folder}/"))).is_empty();
    let categories: Vec<&str> = folders.iter().filter(fits).take(3).copied().collect();
    if let [first, ..] = categories[..] {
        let names: Vec<String> = categories.iter().map(|name| format!("`{name}`")).collect();
        return format!(
            "the input holds several sets ({} …): choose one, such as `category = \"{first}\"`",
            names.join(", ")
        );
    }
    let shapes = Layout::all().filter(|layout| layout.is_read());
    let shapes: Vec<String> =
        shapes.map(|layout| format!("\n  `{}`: {}", layout.name(), layout.0.shape)).collect();
    format!(
        "`normal_folders = [\"…\"]` names the folder of normal images if it is none of {}; a table `images.csv` \
         (path, split, label, mask) describes any folder. The layouts:{}",
        super::names::normal_words(),
        shapes.concat()
    )
}

/// Returns up to three names that are nearest to `wanted`, for a message.
fn nearest<'n>(wanted: &str, names: impl Iterator<Item = &'n str>) -> String {
    let mut names: Vec<(usize, &str)> =
        names.map(|name| (strsim::damerau_levenshtein(wanted, name), name)).collect();
    names.sort_unstable();
    let nearest: Vec<String> = names.iter().take(3).map(|(_, name)| format!("`{name}`")).collect();
    if nearest.is_empty() { String::new() } else { format!("; the nearest names: {}", nearest.join(", ")) }
}

fn no_image(mask: &File) -> StageError {
    StageError::data(
        format!("the mask `{}` has no image", mask.path.display()),
        "remove it, or add its image",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_come_back() {
        let names: BTreeSet<&str> = Layout::all().map(Layout::name).collect();
        assert_eq!(names.len(), ROWS.len());
        for layout in Layout::all() {
            let json = serde_json::to_string(&layout).unwrap();
            assert_eq!(serde_json::from_str::<Layout>(&json).unwrap(), layout);
        }
        assert!(serde_json::from_str::<Layout>("\"nothing\"").is_err());
    }
}
