//! YOLO: a text for each image, a line for each object: the number of its class, then a box or a polygon, as fractions of the
//! image's sides.

use super::{Annotation, Classes, Outline, Reading, Shape, points, unreadable, wrong};
use crate::artifacts::File;
use crate::kernels::polygon::PixelRule;
use crate::stages::StageError;

/// Reads the annotation of an image.
///
/// # Errors
/// [`StageError::Data`] if the file is no text; problems of lines are added to `problems`.
pub(in super::super) fn read<'a>(
    file: &'a File,
    reading: &Reading,
    classes: &mut Classes<'_>,
    problems: &mut Vec<StageError>,
) -> Result<Annotation<'a>, StageError> {
    let bytes = file.read_unchanged()?;
    let text = std::str::from_utf8(&bytes).map_err(|error| unreadable(file, "YOLO", error))?;
    let mut annotation = Annotation::new(file, PixelRule::Centre, reading);
    annotation.is_relative = true;
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let name = format!("line {}", index + 1);
        match object(line, classes) {
            Ok(None) => {}
            Ok(Some((class, outline))) => {
                annotation.classes.insert(class);
                match outline {
                    Some(outline) => annotation.shapes.push(Shape { name, outline }),
                    None => annotation.box_count += 1,
                }
            }
            Err(what) => problems.push(wrong(file, &name, &what)),
        }
    }
    Ok(annotation)
}

/// The class of an object, and its outline if it is no box.
type Object = (String, Option<Outline>);

/// Reads a line; `None` if its class is no defect. The error describes the problem.
fn object(line: &str, classes: &mut Classes<'_>) -> Result<Option<Object>, String> {
    let mut words = line.split_whitespace();
    let class = words.next().unwrap_or_default();
    let number: u64 = class.parse().map_err(|_| format!("`{class}` is no number of a class"))?;
    let (class, number) = (classes.name_of(number)?, number.to_string());
    let numbers = words.map(|word| {
        let number: Option<f64> = word.parse().ok().filter(|number: &f64| number.is_finite());
        number.ok_or_else(|| format!("`{word}` is no number"))
    });
    let numbers: Vec<f64> = numbers.collect::<Result<_, _>>()?;
    if !classes.is_any_defect(&[&class, &number])? {
        return Ok(None);
    }
    let outline = match numbers.len() {
        4 => None,
        length if length >= 6 && length % 2 == 0 => Some(Outline::Rings(vec![points(&numbers)?])),
        length => {
            let what = "a line has a class and 4 numbers (a box), or 6 or more in pairs (a polygon)";
            return Err(format!("{what}; this one has {length}"));
        }
    };
    Ok(Some((class, outline)))
}
