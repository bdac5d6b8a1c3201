//! The table `select` of `coreset` and `fit`: which images of a set a stage reads.

use super::fields::Reader;
use super::role::Shape;
use crate::artifacts::Artifact;
use crate::artifacts::image_set::{Label, Selection};

/// The field that names the image set, as a port.
const SET: &str = "select.set";

/// The choices of `select.label`.
pub const LABELS: [(&str, Option<Label>); 3] =
    [("normal", Some(Label::Normal)), ("defect", Some(Label::Defect)), ("any", None)];

/// Reads `set`, `split` and `label` from the table `select`. Returns the selection, and whether `set` is given. The set
/// itself becomes a port, since it names a stage.
pub fn read_selection(reader: &mut Reader<'_>) -> (Selection, bool) {
    let has_set = reader.named_port("set", Artifact::ImageSet);
    let split = Some(reader.text("split").unwrap_or_else(|| "train".to_owned()));
    let label = reader.choice("label", &LABELS, Some("normal"));
    (Selection { split, label }, has_set)
}

/// Returns the shape of a port of features: the features of the set that `select.set` names, or of all sets.
pub fn features_shape(has_set: bool) -> Shape {
    Shape::Group { set: has_set.then_some(SET) }
}
