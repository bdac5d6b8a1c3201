//! COCO: one JSON with the polygons or run lengths of many images.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Annotation, Classes, Outline, Reading, Shape, points, unreadable, wrong};
use crate::artifacts::File;
use crate::kernels::polygon::PixelRule;
use crate::stages::StageError;

/// An id: a number, and in some exports a text.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(untagged)]
enum Id {
    Number(i64),
    Text(String),
}

impl std::fmt::Display for Id {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(formatter),
            Self::Text(text) => text.fmt(formatter),
        }
    }
}

#[derive(Deserialize)]
struct Document {
    images: Vec<Image>,
    annotations: Vec<Mark>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: Id,
    file_name: String,
    height: Option<u64>,
    width: Option<u64>,
}

#[derive(Deserialize)]
struct Category {
    id: Id,
    name: String,
}

#[derive(Deserialize)]
struct Mark {
    id: Option<Id>,
    image_id: Id,
    category_id: Id,
    segmentation: Option<Segmentation>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Segmentation {
    Polygons(Vec<Vec<f64>>),
    Runs { counts: Counts, size: [u64; 2] },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counts {
    Plain(Vec<u32>),
    Compressed(String),
}

/// The images of a file, by name as it is written there.
pub(in super::super) struct CocoFile<'a>(pub(in super::super) BTreeMap<String, Annotation<'a>>);

impl<'a> CocoFile<'a> {
    /// Reads a file. Problems of single annotations are added to `problems`.
    ///
    /// # Errors
    /// [`StageError::Data`] if the file is no COCO file.
    pub(in super::super) fn read(
        file: &'a File,
        reading: &Reading,
        classes: &mut Classes<'_>,
        problems: &mut Vec<StageError>,
    ) -> Result<Self, StageError> {
        let document: Document = serde_json::from_slice(&file.read_unchanged()?)
            .map_err(|error| unreadable(file, "COCO", error))?;
        let names: BTreeMap<&Id, &str> =
            document.categories.iter().map(|category| (&category.id, category.name.as_str())).collect();
        for name in names.values() {
            classes.see(name);
        }
        let mut images = BTreeMap::new();
        for image in &document.images {
            let mut annotation = Annotation::new(file, PixelRule::Coco, reading);
            annotation.stated = image.height.zip(image.width);
            if images.insert(&image.id, (image.file_name.as_str(), annotation)).is_some() {
                problems.push(wrong(file, &format!("image {}", image.id), "the id occurs twice"));
            }
        }
        for (index, mark) in document.annotations.iter().enumerate() {
            let name = match &mark.id {
                Some(id) => format!("annotation {id}"),
                None => format!("annotation at index {index}"),
            };
            let class = names.get(&mark.category_id).copied();
            let image = images.get_mut(&mark.image_id).map(|(_, annotation)| annotation);
            if let Err(what) = add(&name, mark, class, image, classes) {
                problems.push(wrong(file, &name, &what));
            }
        }
        let mut named = BTreeMap::new();
        for (id, (name, annotation)) in images {
            if named.insert(name.to_owned(), annotation).is_some() {
                problems.push(wrong(file, &format!("image {id}"), &format!("`{name}` is listed twice")));
            }
        }
        Ok(Self(named))
    }
}

/// Adds a mark to its image. The error describes the problem.
fn add(
    name: &str,
    mark: &Mark,
    class: Option<&str>,
    image: Option<&mut Annotation<'_>>,
    classes: &mut Classes<'_>,
) -> Result<(), String> {
    let class = class.ok_or_else(|| format!("no category has the id {}", mark.category_id))?;
    let image = image.ok_or_else(|| format!("no image has the id {}", mark.image_id))?;
    if !classes.is_defect(class)? {
        return Ok(());
    }
    image.classes.insert(class.to_owned());
    let outline = match &mark.segmentation {
        None => None,
        Some(Segmentation::Polygons(rings)) if rings.is_empty() => None,
        Some(Segmentation::Polygons(rings)) => {
            Some(Outline::Rings(rings.iter().map(|ring| points(ring)).collect::<Result<_, _>>()?))
        }
        Some(Segmentation::Runs { counts, size: [height, width] }) => {
            let lengths = match counts {
                Counts::Plain(lengths) => lengths.clone(),
                Counts::Compressed(text) => decompressed(text)?,
            };
            let sum: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
            if height.checked_mul(*width) != Some(sum) {
                return Err(format!("its run lengths sum to {sum} px, not to {height}×{width}"));
            }
            Some(Outline::Runs { height: *height, width: *width, lengths })
        }
    };
    match outline {
        Some(outline) => image.shapes.push(Shape { name: name.to_owned(), outline }),
        None => image.box_count += 1,
    }
    Ok(())
}

/// Decodes compressed run lengths: groups of 5 bits in the letters from `0` to `o`, the sixth bit says that another group
/// follows, and from the fourth length on each is the difference to the last but one.
fn decompressed(text: &str) -> Result<Vec<u32>, String> {
    let broken = || "its run lengths are damaged".to_owned();
    let mut lengths: Vec<u32> = Vec::new();
    let (mut value, mut shift) = (0_i64, 0_u32);
    for letter in text.bytes() {
        let bits = letter.checked_sub(48).filter(|&bits| bits < 64 && shift < 40).ok_or_else(broken)?;
        value |= i64::from(bits & 31) << shift;
        shift += 5;
        if bits & 32 != 0 {
            continue;
        }
        if bits & 16 != 0 {
            value |= -1 << shift;
        }
        if lengths.len() > 2 {
            value += i64::from(lengths[lengths.len() - 2]);
        }
        lengths.push(u32::try_from(value).map_err(|_| broken())?);
        (value, shift) = (0, 0);
    }
    if shift > 0 { Err(broken()) } else { Ok(lengths) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::polygon::{Raster, fill_runs};

    #[test]
    fn compressed_run_lengths_are_those_of_pycocotools() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/polygons.txt");
        let table = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = table.lines().filter(|line| line.starts_with("coco runs")).collect();
        assert!(lines.len() >= 6, "{}", lines.len());
        for line in lines {
            let [head, text, runs] = line.split(" : ").collect::<Vec<_>>()[..] else { panic!("{line}") };
            let sides: Vec<usize> = head.split(' ').skip(2).map(|word| word.parse().unwrap()).collect();
            let mut drawn = Raster::new(sides[0], sides[1]);
            fill_runs(&decompressed(text).unwrap(), &mut drawn);
            let right = runs.split(' ').zip([0, 255].into_iter().cycle());
            let right = right.flat_map(|(length, level)| vec![level; length.parse().unwrap()]);
            assert!(drawn.marks.iter().copied().eq(right), "{line}");
        }
    }

    #[test]
    fn damaged_run_lengths_are_refused() {
        for text in ["5~", "P", "ooooooooo0", "0\u{7f}", "5 5", "O"] {
            assert!(decompressed(text).is_err(), "{text}: {:?}", decompressed(text));
        }
    }
}
