//! LabelMe: one JSON for each image.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::{Annotation, Classes, Outline, Point, Reading, Shape, unreadable, wrong};
use crate::artifacts::File;
use crate::kernels::polygon::PixelRule;
use crate::stages::StageError;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    shapes: Vec<Mark>,
    image_path: Option<String>,
    image_height: Option<u64>,
    image_width: Option<u64>,
}

#[derive(Deserialize)]
struct Mark {
    label: String,
    points: Vec<Point>,
    shape_type: Option<String>,
    mask: Option<String>,
}

/// Reads the annotation of an image, and the path of the image as it is written there.
///
/// # Errors
/// [`StageError::Data`] if the file is no annotation of LabelMe; problems of shapes are added to `problems`.
pub(in super::super) fn read<'a>(
    file: &'a File,
    reading: &Reading,
    classes: &mut Classes<'_>,
    problems: &mut Vec<StageError>,
) -> Result<(Annotation<'a>, Option<String>), StageError> {
    let document: Document = serde_json::from_slice(&file.read_unchanged()?)
        .map_err(|error| unreadable(file, "LabelMe", error))?;
    let mut annotation = Annotation::new(file, PixelRule::LabelMe, reading);
    annotation.stated = document.image_height.zip(document.image_width);
    for (index, mark) in document.shapes.iter().enumerate() {
        let name = format!("shape {} (`{}`)", index + 1, mark.label);
        match outline(mark, classes) {
            Ok(None) => {}
            Ok(Some(outline)) => {
                annotation.classes.insert(mark.label.clone());
                annotation.shapes.push(Shape { name, outline });
            }
            Err(what) => problems.push(wrong(file, &name, &what)),
        }
    }
    Ok((annotation, document.image_path))
}

/// Returns the outline of a shape; `None` if its class is no defect. The error describes the problem.
fn outline(mark: &Mark, classes: &mut Classes<'_>) -> Result<Option<Outline>, String> {
    if !classes.is_defect(&mark.label)? {
        return Ok(None);
    }
    if mark.points.iter().flatten().any(|coordinate| !coordinate.is_finite()) {
        return Err("a coordinate is not finite".to_owned());
    }
    let kind = mark.shape_type.as_deref().unwrap_or("polygon");
    let pair = || match mark.points[..] {
        [a, b] => Ok([a, b]),
        _ => Err(format!("a {kind} needs 2 points, and has {}", mark.points.len())),
    };
    Ok(Some(match kind {
        "polygon" if mark.points.len() < 3 => {
            return Err(format!("a polygon needs 3 points or more, and has {}", mark.points.len()));
        }
        "oriented_rectangle" if mark.points.len() != 4 => {
            return Err(format!("an oriented rectangle needs 4 points, and has {}", mark.points.len()));
        }
        "polygon" | "oriented_rectangle" => Outline::Rings(vec![mark.points.clone()]),
        "rectangle" => Outline::Rectangle(pair()?),
        "circle" => Outline::Circle(pair()?),
        "mask" => {
            let text = mark.mask.as_deref().ok_or("it has no mask")?;
            let encoded = BASE64_STANDARD.decode(text).map_err(|_| "its mask is no Base64")?;
            Outline::Bitmap { corners: pair()?, encoded }
        }
        "line" | "linestrip" | "point" | "points" => {
            return Err(format!("a {kind} has no area: draw a polygon around the defect"));
        }
        other => return Err(format!("shapes of the type `{other}` are not read")),
    }))
}
