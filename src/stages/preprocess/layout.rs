//! Finds the images of an input folder, with their masks, labels and splits.
//!
//! ```text
//! ksdd2    train/NNNNN.png  train/NNNNN_GT.png                     the same in test/
//! ksdd     kosNN/PartM.jpg  kosNN/PartM_label.bmp
//! mvtec    train/good/NNN.png  test/KIND/NNN.png  ground_truth/KIND/NNN_mask.png
//! csv      images.csv with the columns path, split[, mask][, label][, kind]
//! ```
//! Enclosing folders (an archive with one top folder, a category) are skipped. Files that do not fit the layout cause
//! an error or a line in the log. Nothing is guessed.

use std::collections::{BTreeMap, BTreeSet};

use super::Problems;
use super::spec::{Layout, Preprocess};
use super::tables;
use crate::artifacts::image_set::Label;
use crate::artifacts::size::is_image_name;
use crate::artifacts::{File, Files};
use crate::stages::{Progress, StageError};

/// The split that models are trained on.
pub(super) const TRAIN: &str = "train";
const TEST: &str = "test";

/// Number of folds of `ksdd`, as its authors use.
const FOLDS: usize = 3;

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
    /// `None` if the layout marks the image as normal.
    pub(super) mask: Option<&'a File>,
}

/// The files of the layout, by their path relative to its folder.
pub(super) type View<'a> = BTreeMap<&'a str, &'a File>;

/// Lists the images, sorted by id.
pub(super) fn find<'a>(
    spec: &Preprocess,
    input: &'a Files,
    progress: &dyn Progress,
) -> Result<Vec<Source<'a>>, StageError> {
    let (layout, view) = recognise(spec, input)?;
    progress.log(&format!("layout: {}", layout.name()));
    let mut problems = Problems::default();
    let mut sources = match layout {
        Layout::Csv => tables::read(&view, &spec.csv, &mut problems)?,
        Layout::Mvtec => read_mvtec(&view, &mut problems),
        Layout::Ksdd => read_ksdd(&view, spec.fold, &mut problems),
        Layout::Ksdd2 | Layout::Auto => read_ksdd2(&view, progress, &mut problems),
    };
    sources.sort_by(|a, b| a.id.cmp(&b.id));
    for pair in sources.windows(2).filter(|pair| pair[0].id == pair[1].id) {
        let [first, second] = [&pair[0], &pair[1]].map(|source| source.image.path.display().to_string());
        problems.push(StageError::data(
            format!("`{first}` and `{second}` have the same id `{}`", pair[0].id),
            "the id is the path without its extension: rename one of them",
        ));
    }
    problems.finish("files do not fit the layout")?;
    if sources.is_empty() { Err(unknown(spec, input)) } else { Ok(sources) }
}

/// Finds the layout and its folder: the outermost folder that fits.
fn recognise<'a>(spec: &Preprocess, input: &'a Files) -> Result<(Layout, View<'a>), StageError> {
    let whole: View<'a> = input.iter().filter(|(name, _)| !is_debris(name)).collect();
    let mut prefix = String::new();
    loop {
        let inside = |name: &'a str| name.strip_prefix(prefix.as_str());
        let view: View<'a> = whole.iter().filter_map(|(name, file)| Some((inside(name)?, *file))).collect();
        let fitting: Vec<Layout> = [Layout::Csv, Layout::Mvtec, Layout::Ksdd, Layout::Ksdd2]
            .into_iter()
            .filter(|layout| spec.layout == Layout::Auto || spec.layout == *layout)
            .filter(|layout| fits(*layout, &view, spec))
            .collect();
        match fitting[..] {
            [layout] => return Ok((layout, view)),
            [] => {}
            _ => return Err(ambiguous(&fitting)),
        }
        let Some(folder) = only_folder(&view) else { return Err(unknown(spec, input)) };
        prefix = format!("{prefix}{folder}/");
    }
}

/// Returns whether a file is left over from an operating system or an archiver.
fn is_debris(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with('.') || part == "__MACOSX")
}

/// Returns the folder that contains all images and tables, if there is only one.
fn only_folder<'a>(view: &View<'a>) -> Option<&'a str> {
    let mut folders = view
        .keys()
        .filter(|name| is_image(name) || has_extension(name, &["csv"]))
        .map(|name| name.split_once('/').map(|(folder, _)| folder));
    let first = folders.next()??;
    folders.all(|folder| folder == Some(first)).then_some(first)
}

fn has_extension(name: &str, extensions: &[&str]) -> bool {
    let end = name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase());
    end.is_some_and(|end| extensions.contains(&end.as_str()))
}

pub(super) fn is_image(name: &str) -> bool {
    is_image_name(name)
}

pub(super) fn without_extension(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

fn fits(layout: Layout, view: &View<'_>, spec: &Preprocess) -> bool {
    let has = |test: &dyn Fn(&str) -> bool| view.keys().any(|name| test(name));
    match layout {
        Layout::Csv => view.contains_key(spec.csv.as_str()),
        Layout::Mvtec => has(&|name| name.starts_with("train/good/") && is_image(name)),
        Layout::Ksdd => has(&|name| part_of_kos(name).is_some()),
        Layout::Ksdd2 => has(&|name| flat(name).is_some_and(|(_, stem)| stem.ends_with("_GT"))),
        Layout::Auto => false,
    }
}

fn ambiguous(fitting: &[Layout]) -> StageError {
    let names: Vec<String> = fitting.iter().map(|layout| format!("`{}`", layout.name())).collect();
    StageError::data(
        format!("the input fits several layouts: {}", names.join(", ")),
        format!("choose one, such as `layout = \"{}\"`", fitting[0].name()),
    )
}

/// Returns the error of an input without a known layout. It lists what was found and suggests a folder if possible.
fn unknown(spec: &Preprocess, input: &Files) -> StageError {
    let wanted = match spec.layout {
        Layout::Auto => "no known layout".to_owned(),
        layout => format!("not the layout `{}`", layout.name()),
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (name, _) in input.iter().filter(|(name, _)| !is_debris(name)) {
        let parts: Vec<&str> = name.split('/').collect();
        let end = name.rsplit_once('.').map_or("", |(_, end)| end);
        let shown = match parts[..] {
            [_] => name.to_owned(),
            [folder, _] => format!("{folder}/*.{end}"),
            [folder, inner, ..] => format!("{folder}/{inner}/… .{end}"),
            [] => continue,
        };
        *counts.entry(shown).or_default() += 1;
    }
    let mut seen: Vec<String> =
        counts.iter().take(8).map(|(name, count)| format!("`{name}` ({count})")).collect();
    if counts.len() > seen.len() {
        seen.push("…".to_owned());
    }
    let seen = if seen.is_empty() { "no file at all".to_owned() } else { seen.join(", ") };
    let category =
        input.iter().find_map(|(name, _)| name.split_once("/train/good/").map(|(folder, _)| folder));
    let help = category.map_or_else(
        || {
            "the layouts are `ksdd2` (train/1.png with train/1_GT.png), `ksdd`, `mvtec` (train/good, test/KIND, \
             ground_truth/KIND) and `csv` (any folder, with a table `images.csv` of path, mask, split and label)"
                .to_owned()
        },
        |folder| format!("choose one category, such as `path = \"…/{folder}\"`"),
    );
    StageError::data(format!("the input has {wanted}; it holds {seen}"), help)
}

/// Splits `train/10000.png` into split and stem.
fn flat(name: &str) -> Option<(&str, &str)> {
    let (split, file) = name.split_once('/')?;
    let is_flat = [TRAIN, TEST].contains(&split) && !file.contains('/') && is_image(file);
    is_flat.then(|| (split, without_extension(file)))
}

fn read_ksdd2<'a>(view: &View<'a>, progress: &dyn Progress, problems: &mut Problems) -> Vec<Source<'a>> {
    let (mut images, mut masks) = (Vec::new(), BTreeMap::new());
    for (name, file) in view {
        let Some((split, stem)) = flat(name) else {
            if is_image(name) {
                progress.log(&format!("`{name}` is ignored: it is in neither `train` nor `test`"));
            }
            continue;
        };
        if stem.contains("(copy") {
            progress.log(&format!("`{name}` is ignored: it is a copy"));
        } else if let Some(stem) = stem.strip_suffix("_GT") {
            masks.insert((split, stem), *file);
        } else {
            images.push((split, stem, *file));
        }
    }
    let mut sources = Vec::new();
    for (split, stem, image) in images {
        match masks.remove(&(split, stem)) {
            Some(mask) => sources.push(by_mask(format!("{split}/{stem}"), split, image, mask)),
            None => problems.push(no_mask(image, &format!("{stem}_GT.png"))),
        }
    }
    problems.extend(masks.into_values().map(no_image));
    sources
}

fn by_mask<'a>(id: String, split: &str, image: &'a File, mask: &'a File) -> Source<'a> {
    Source { id, split: split.to_owned(), label: None, kind: None, image, mask: Some(mask) }
}

fn no_mask(image: &File, wanted: &str) -> StageError {
    StageError::data(
        format!("the image `{}` has no mask `{wanted}`", image.path.display()),
        "every image of this layout needs a mask; the mask of a normal image is all black",
    )
}

fn no_image(mask: &File) -> StageError {
    StageError::data(
        format!("the mask `{}` has no image", mask.path.display()),
        "remove it, or add its image",
    )
}

/// Splits `kos01/Part0.jpg` into folder and stem.
fn part_of_kos(name: &str) -> Option<(&str, &str)> {
    let (folder, file) = name.split_once('/')?;
    let is_part =
        folder.starts_with("kos") && file.starts_with("Part") && !file.contains('/') && is_image(file);
    is_part.then(|| (folder, without_extension(file)))
}

/// Reads KSDD. Each folder holds the images of one physical part, so all images of a part are in the same split: of the
/// sorted folders, every third is for testing, starting with number `fold`.
fn read_ksdd<'a>(view: &View<'a>, fold: usize, problems: &mut Problems) -> Vec<Source<'a>> {
    let parts: Vec<(&str, &str, &File)> = view
        .iter()
        .filter_map(|(name, file)| part_of_kos(name).map(|(kos, stem)| (kos, stem, *file)))
        .collect();
    let items: BTreeSet<&str> = parts.iter().map(|&(kos, ..)| kos).collect();
    let tested: BTreeSet<&str> = items.into_iter().skip(fold).step_by(FOLDS).collect();
    let (marks, images): (Vec<_>, Vec<_>) =
        parts.into_iter().partition(|(_, stem, _)| stem.ends_with("_label"));
    let mut masks: BTreeMap<(&str, &str), &File> =
        marks.into_iter().map(|(kos, stem, file)| ((kos, stem.trim_end_matches("_label")), file)).collect();
    let mut sources = Vec::new();
    for (kos, stem, image) in images {
        let split = if tested.contains(kos) { TEST } else { TRAIN };
        match masks.remove(&(kos, stem)) {
            Some(mask) => sources.push(by_mask(format!("{kos}/{stem}"), split, image, mask)),
            None => problems.push(no_mask(image, &format!("{stem}_label.bmp"))),
        }
    }
    problems.extend(masks.into_values().map(no_image));
    sources
}

/// Splits `test/scratch/000.png` into split, kind and stem.
fn of_kind(name: &str) -> Option<(&str, &str, &str)> {
    let mut parts = name.split('/');
    let (split, kind, file) = (parts.next()?, parts.next()?, parts.next()?);
    (parts.next().is_none() && is_image(file)).then(|| (split, kind, without_extension(file)))
}

/// Reads the layout of MVTec AD. All folders except `good` hold defects, also in `train` and `validation`.
fn read_mvtec<'a>(view: &View<'a>, problems: &mut Problems) -> Vec<Source<'a>> {
    let named: Vec<_> = view.iter().filter_map(|(name, file)| Some((of_kind(name)?, *file))).collect();
    let mut masks: BTreeMap<(&str, &str), &File> = named
        .iter()
        .filter(|((folder, ..), _)| *folder == "ground_truth")
        .map(|&((_, kind, stem), file)| ((kind, stem.trim_end_matches("_mask")), file))
        .collect();
    let mut sources = Vec::new();
    for ((split, kind, stem), image) in named {
        if ![TRAIN, TEST, "validation"].contains(&split) {
            continue;
        }
        let is_normal = kind == "good";
        let mask = masks.remove(&(kind, stem));
        if mask.is_none() && !is_normal {
            let wanted = format!("ground_truth/{kind}/{stem}_mask.png");
            let message = format!("the image `{}` has no mask `{wanted}`", image.path.display());
            problems.push(StageError::data(message, "every image outside `good` needs a mask"));
            continue;
        }
        sources.push(Source {
            id: format!("{split}/{kind}/{stem}"),
            split: split.to_owned(),
            label: Some(if is_normal { Label::Normal } else { Label::Defect }),
            kind: (!is_normal).then(|| kind.to_owned()),
            image,
            mask,
        });
    }
    problems.extend(masks.into_values().map(no_image));
    sources
}
