//! Layouts that are recognised by their names and not read, so that an error can say what the input is.

use super::{Action, Row, View};
use crate::stages::preprocess::names::{extension, is_image, parts, without_extension};

const TABLE: &str = "describe the images in a table: `layout = \"csv\"`";
const MASKS: &str = "export masks as PNG, and describe them in a table: `layout = \"csv\"`";

const fn row(
    name: &'static str,
    shape: &'static str,
    fits: Fits,
    why: &'static str,
    help: &'static str,
) -> Row {
    Row { name, shape, fields: &[], fits, action: Action::Refuse(why, help) }
}

type Fits = for<'a> fn(&View<'a>, &crate::stages::preprocess::reading::Reading) -> Option<&'a str>;

fn find<'a>(view: &View<'a>, fits: impl Fn(&str) -> bool) -> Option<&'a str> {
    view.keys().copied().find(|name| fits(name))
}

pub(super) const MVTEC_3D: Row = row(
    "mvtec_3d",
    "train/good/rgb/*.png, train/good/xyz/*.tiff",
    |view, _| find(view, |name| name.starts_with("train/good/xyz/") || name.starts_with("train/good/rgb/")),
    "it holds points in space",
    "use the folder `rgb` of each split through a table: `layout = \"csv\"`",
);

pub(super) const KAPUTT: Row = row(
    "kaputt",
    "query-train.parquet, query-image/…",
    |view, _| find(view, |name| name.contains("query-") && extension(name) == "parquet"),
    "its lists are Parquet, and its masks are outlines of items, not of defects",
    TABLE,
);

pub(super) const BMAD: Row = row(
    "bmad",
    "{train,valid,test}/{good,Ungood}/img/*.png",
    |view, _| find(view, |name| name.contains("/Ungood/") || name.starts_with("train/good/img/")),
    "its folders of masks differ between copies",
    TABLE,
);

pub(super) const SEVERSTAL: Row = row(
    "severstal",
    "train_images/*.jpg, train.csv",
    |view, _| find(view, |name| name.starts_with("train_images/") && is_image(name)),
    "its masks are run lengths in a table",
    MASKS,
);

pub(super) const DAGM_COMPETITION: Row = row(
    "dagm_competition",
    "Class1/1.png, Class1_def/labels.txt",
    |view, _| find(view, |name| name.ends_with("_def/labels.txt")),
    "its masks are parameters of ellipses in a text",
    "use the form of the Zenodo archive, `Class1/Train/Label/Labels.txt`, or a table: `layout = \"csv\"`",
);

pub(super) const DEEP_PCB: Row = row(
    "deep_pcb",
    "group00041/00041/00041000_test.jpg, …_temp.jpg",
    |view, _| find(view, |name| name.ends_with("_temp.jpg") && name.contains("group")),
    "it has boxes and templates instead of masks and normal images",
    TABLE,
);

pub(super) const ELPV: Row = row(
    "elpv",
    "images/cell0001.png, labels.csv",
    |view, _| find(view, |name| name.starts_with("images/cell") && is_image(name)),
    "its labels are probabilities, and which of them are defects is a choice",
    TABLE,
);

pub(super) const NEU: Row = row(
    "neu",
    "Cr_1.bmp, or crazing_1.jpg with crazing_1.xml",
    |view, _| {
        let is_neu = |name: &str| {
            let stem = without_extension(name.rsplit('/').next().unwrap_or(name));
            let Some((kind, number)) = stem.rsplit_once('_') else { return false };
            let of_class = ["Cr", "In", "Pa", "PS", "RS", "Sc"].contains(&kind) && extension(name) == "bmp";
            let kinds = ["crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches"];
            is_image(name) && number.parse::<u32>().is_ok() && (of_class || kinds.contains(&kind))
        };
        find(view, is_neu)
    },
    "it has no normal images",
    "add normal images, and describe both in a table: `layout = \"csv\"`",
);

pub(super) const VOC: Row = row(
    "voc",
    "SegmentationClass/*.png with labelmap.txt, or Annotations/*.xml",
    |view, _| {
        let is_list = |name: &str| {
            parts(name).contains(&"SegmentationClass")
                || name.split('/').any(|part| part.eq_ignore_ascii_case("annotations"))
                    && extension(name) == "xml"
        };
        find(view, is_list)
    },
    "its regions are boxes, or colours of a label map",
    MASKS,
);

pub(super) const CVAT: Row = row(
    "cvat",
    "annotations.xml",
    |view, _| find(view, |name| name == "annotations.xml"),
    "its regions are polygons",
    MASKS,
);
