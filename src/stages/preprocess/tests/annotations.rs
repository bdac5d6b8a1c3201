//! Regions that annotation files outline.

use super::*;
use crate::artifacts::image_set::read_truth;

/// A COCO file: images with their sizes, and annotations as JSON.
fn coco(images: &[&str], annotations: &[String]) -> String {
    let images: Vec<String> = images
        .iter()
        .enumerate()
        .map(|(id, name)| format!(r#"{{"id": {id}, "file_name": "{name}", "height": 20, "width": 30}}"#))
        .collect();
    let categories = r#"[{"id": 0, "name": "parts", "supercategory": "none"}, {"id": 1, "name": "dent"}, {"id": 2, "name": "ok"}]"#;
    let (images, annotations) = (images.join(", "), annotations.join(", "));
    format!(r#"{{"images": [{images}], "annotations": [{annotations}], "categories": {categories}}}"#)
}

fn mark(id: u32, image: u32, class: u32, segmentation: &str) -> String {
    format!(
        r#"{{"id": {id}, "image_id": {image}, "category_id": {class}, "iscrowd": 0, "bbox": [1, 1, 5, 5], "segmentation": {segmentation}}}"#
    )
}

/// 10 × 8 px from (4, 5).
const SQUARE: &str = "[[4, 5, 14, 5, 14, 13, 4, 13]]";

fn labelme(shapes: &str) -> String {
    format!(
        r#"{{"shapes": [{shapes}], "imagePath": null, "imageData": null, "imageHeight": 20, "imageWidth": 30}}"#
    )
}

fn shape(label: &str, kind: &str, points: &str) -> String {
    format!(r#"{{"label": "{label}", "shape_type": "{kind}", "points": {points}, "flags": {{}}}}"#)
}

/// Runs on a folder. Returns its listing, the number of marked pixels of each image with a region, and the warnings.
fn marked(folder: &Folder, pairs: &[(&str, Value)]) -> (Vec<String>, Vec<(String, usize)>, Vec<String>) {
    let context = TestContext::new();
    let files = run_on(&context, pairs, folder, IMAGES).unwrap();
    let mut counts = Vec::new();
    for (id, one) in labelled(&files) {
        let truth = read_truth(one.mask).unwrap();
        let count = truth.mask.iter().filter(|&&level| level != 0).count();
        if truth.counted.is_some() && count > 0 {
            counts.push((id.to_owned(), count));
        }
    }
    let warnings = context.notices().into_iter().filter(|line| line.starts_with("warning")).collect();
    (listing(&files), counts, warnings)
}

#[test]
fn coco_lists_give_splits_labels_and_regions() {
    let folder = Folder::new()
        .image("set/train/a.png")
        .image("set/train/b.png")
        .image("set/test/a.png")
        .image("set/test/spare.png")
        .text("set/train/_annotations.coco.json", &coco(&["a.png", "b.png"], &[mark(7, 1, 1, SQUARE)]))
        .text(
            "set/test/_annotations.coco.json",
            &coco(&["a.png"], &[mark(8, 0, 1, "[[0.5, 0.5, 9, 0.5, 9, 3.5]]")]),
        );
    let (listed, counts, warnings) = marked(&folder, &[]);
    assert_eq!(
        listed,
        [
            "test/defect/dent/set/test/a.png",
            "train/defect/dent/set/train/b.png",
            "train/normal/set/train/a.png"
        ]
    );
    // 9 px by pycocotools 2.0.11.
    assert_eq!(counts, [("set/test/a".to_owned(), 9), ("set/train/b".to_owned(), 80)]);
    assert!(warnings.is_empty(), "{warnings:?}");
    let flat = Folder::new()
        .image("images/a.png")
        .image("images/b.png")
        .text("annotations/instances_train2017.json", &coco(&["a.png"], &[]))
        .text("annotations/instances_test2017.json", &coco(&["images/b.png"], &[mark(1, 0, 1, SQUARE)]));
    let (listed, counts, _) = marked(&flat, &[("polygon_rule", "opencv".into())]);
    assert_eq!(listed, ["test/defect/dent/images/b.png", "train/normal/images/a.png"]);
    assert_eq!(counts, [("images/b".to_owned(), 99)]);
}

#[test]
fn run_lengths_are_column_major_and_of_the_images_size() {
    // Column 1 from row 1 on, 19 px.
    let runs = r#"{"size": [20, 30], "counts": [21, 19, 560]}"#;
    // The same by pycocotools 2.0.11.
    let compressed = r#"{"size": [20, 30], "counts": "e0c0`a0"}"#;
    for runs in [runs, compressed] {
        let folder = Folder::new()
            .image("train/a.png")
            .image("test/b.png")
            .text("annotations.json", &coco(&["train/a.png", "test/b.png"], &[mark(1, 1, 1, runs)]));
        let context = TestContext::new();
        let files = run_on(&context, &[], &folder, IMAGES).unwrap();
        let mask = read_mask(labelled(&files)["test/b"].mask).unwrap();
        let marks: Vec<(u32, u32)> = mask
            .enumerate_pixels()
            .filter(|(_, _, level)| level.0[0] == 255)
            .map(|(x, y, _)| (x, y))
            .collect();
        assert_eq!(marks, (1..20).map(|y| (1, y)).collect::<Vec<_>>());
    }
}

#[test]
fn annotations_that_cannot_be_right_are_all_named() {
    let wrong = [
        mark(1, 0, 1, "[[1, 1, 5, 5]]"),
        mark(2, 9, 1, SQUARE),
        mark(3, 0, 9, SQUARE),
        mark(4, 0, 2, SQUARE),
        mark(5, 0, 1, r#"{"size": [20, 30], "counts": [21, 19]}"#),
        mark(6, 0, 1, "[[1, 1, 5, 5, 9]]"),
        mark(7, 0, 1, r#"{"size": [20, 30], "counts": "5~"}"#),
    ];
    let folder = Folder::new().image("train/a.png").image("test/b.png");
    let folder = folder.text("coco.json", &coco(&["train/a.png", "test/b.png", "c.png"], &wrong));
    let error = failure(&[], &folder);
    for wanted in [
        "annotation 1: a polygon needs 3 points",
        "annotation 2: no image has the id 9",
        "annotation 3: no category has the id 9",
        "annotation 4: it is of the class `ok`, which means normal",
        "annotation 5: its run lengths sum to 40 px, not to 20×30",
        "annotation 6: a polygon needs 3 points",
        "annotation 7: its run lengths are damaged",
        "lists `c.png`, which is not there",
    ] {
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
    let outside = coco(&["train/a.png", "test/b.png"], &[mark(1, 1, 1, "[[1, 1, 31.5, 5, 9, 9]]")]);
    let error = failure(&[], &folder.text("coco.json", &outside));
    assert!(
        error.contains("annotation 1: the point (31.5, 5) is outside of its image of 20×30 px"),
        "{error}"
    );
}

#[test]
fn classes_that_are_no_defects_are_passed_over_and_counted() {
    let list = coco(&["train/a.png", "test/b.png"], &[mark(1, 0, 2, SQUARE), mark(2, 1, 1, SQUARE)]);
    let folder = Folder::new().image("train/a.png").image("test/b.png").text("coco.json", &list);
    let context = TestContext::new();
    let files = run_on(&context, &[("defect_classes", "dent".into())], &folder, IMAGES).unwrap();
    assert_eq!(listing(&files), ["test/defect/dent/test/b.png", "train/normal/train/a.png"]);
    assert!(context.notices().iter().any(|line| line.starts_with("1 annotations are of classes")));
    let error = failure(&[("defect_classes", "dend".into())], &folder);
    assert!(
        error.contains("no annotation has the class `dend`; the classes are `dent`, `ok`, `parts`"),
        "{error}"
    );
}

#[test]
fn boxes_and_vanished_polygons_have_no_region_and_are_reported() {
    let list = coco(
        &["train/a.png", "test/b.png", "test/c.png", "test/d.png"],
        &[
            mark(1, 1, 1, "[]"),
            mark(2, 1, 1, SQUARE),
            mark(3, 2, 1, "[[3, 3, 27, 13, 3, 3]]"),
            mark(4, 3, 1, SQUARE),
            mark(5, 3, 1, "[[20.1, 2.1, 20.3, 2.1, 20.3, 2.3]]"),
        ],
    );
    let folder = Folder::new()
        .image("train/a.png")
        .image("test/b.png")
        .image("test/c.png")
        .image("test/d.png")
        .text("coco.json", &list);
    let (listed, counts, warnings) = marked(&folder, &[]);
    assert_eq!(listed.iter().filter(|name| name.starts_with("test/defect")).count(), 3);
    assert_eq!(counts, [("test/d".to_owned(), 80)], "b has a box, c a hairline");
    let has = |start: &str| warnings.iter().any(|line| line.starts_with(start));
    assert!(has("warning: 1 images, such as") && has("warning: 2 polygons cover no pixel"), "{warnings:?}");
    assert!(has("warning: no mask marks a defect in 2 images"), "{warnings:?}");
}

#[test]
fn labelme_files_are_found_beside_their_images() {
    let hairline = shape("scratch", "polygon", "[[3, 3], [27, 13], [3, 3.4]]");
    let folder = Folder::new()
        .image("set/good/1.png")
        .image("set/good/2.png")
        .image("set/3.png")
        .image("set/4.png")
        .image("set/5.png")
        .text("set/3.json", &labelme(&shape("dent", "polygon", "[[4, 5], [14, 5], [14, 13], [4, 13]]")))
        .text("set/4.json", &labelme(""))
        .text("set/5.json", &labelme(&hairline));
    let (listed, counts, warnings) = marked(&folder, &[("test_share", 0.6.into())]);
    let defects: Vec<&String> = listed.iter().filter(|name| name.contains("/defect/")).collect();
    assert_eq!(defects, ["test/defect/dent/3.png", "test/defect/scratch/5.png"]);
    assert_eq!(listed.len(), 5, "an annotation without shapes is normal: {listed:?}");
    assert_eq!(counts[0], ("3".to_owned(), 99));
    assert!(warnings.iter().any(|line| line.contains("fall apart into several regions")), "{warnings:?}");
    let error = failure(&[], &folder.image("set/6.png"));
    assert!(error.contains("6.png` has no annotation"), "{error}");
}

#[test]
fn labelme_shapes_are_drawn_or_refused_by_name() {
    let png = {
        let mut bytes = std::io::Cursor::new(Vec::new());
        GrayImage::from_pixel(3, 2, Luma([1])).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes.into_inner())
    };
    let bitmap =
        format!(r#"{{"label": "dent", "shape_type": "mask", "points": [[4, 5], [6, 6]], "mask": "{png}"}}"#);
    let tree = |shape: &str| {
        Folder::new().image("train/good/1.png").image("test/2.png").text("test/2.json", &labelme(shape))
    };
    for (shape, right) in [
        (shape("dent", "rectangle", "[[4, 5], [13.9, 7.2]]"), 30),
        (shape("dent", "oriented_rectangle", "[[4, 5], [13, 5], [13, 7], [4, 7]]"), 30),
        (shape("dent", "circle", "[[10, 10], [10, 13]]"), 37),
        (bitmap, 6),
    ] {
        let (_, counts, _) = marked(&tree(&shape), &[]);
        assert_eq!(counts, [("test/2".to_owned(), right)], "{shape}");
    }
    for (kind, points, wanted) in [
        ("line", "[[1, 1], [5, 5]]", "a line has no area"),
        ("point", "[[1, 1]]", "a point has no area"),
        ("polygon", "[[1, 1], [5, 5]]", "needs 3 points or more, and has 2"),
        ("circle", "[[1, 1]]", "a circle needs 2 points"),
        ("circle", "[[9, 9], [9, 1e300]]", "outside of its image"),
        ("rectangle", "[[-5, 9], [9, 9]]", "outside of its image"),
        ("spline", "[[1, 1]]", "of the type `spline`"),
        ("mask", "[[1, 1], [2, 2]]", "it has no mask"),
        ("polygon", "[[1, 1], [50, 5], [3, 9]]", "outside of its image"),
    ] {
        let error = failure(&[], &tree(&shape("dent", kind, points)));
        assert!(error.contains("shape 1 (`dent`)") && error.contains(wanted), "{kind}: {error}");
    }
    let error = failure(&[], &tree("").text("test/2.json", "{\"exposure\": 7}"));
    assert!(error.contains("as an annotation of LabelMe"), "{error}");
    let other = labelme("").replace("\"imageWidth\": 30", "\"imageWidth\": 31");
    let error = failure(&[], &tree("").text("test/2.json", &other));
    assert!(error.contains("describes an image of 20×31 px") && error.contains("has 20×30 px"), "{error}");
    let contradiction =
        tree("").text("train/good/1.json", &labelme(&shape("dent", "rectangle", "[[4, 5], [9, 9]]")));
    assert!(
        failure(&[], &contradiction).contains("labelled as normal, but its mask"),
        "{contradiction:?}",
        contradiction = failure(&[], &contradiction)
    );
}

#[test]
fn yolo_lines_are_polygons_or_boxes_and_no_file_is_normal() {
    let folder = Folder::new()
        .image("images/train/a.png")
        .image("images/train/b.png")
        .image("images/test/c.png")
        .image("images/test/d.png")
        .text("labels/train/b.txt", "")
        .text("labels/test/c.txt", "0 0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6\r\n")
        .text("labels/test/d.txt", "3 0.5 0.5 0.1 0.1\n")
        .text("labels/classes.txt", "dent\n")
        .text("hyper.yaml", "lr0: 0.01\n");
    let (listed, counts, warnings) = marked(&folder, &[]);
    assert_eq!(
        listed,
        [
            "test/defect/0/images/test/c.png",
            "test/defect/3/images/test/d.png",
            "train/normal/images/train/a.png",
            "train/normal/images/train/b.png"
        ]
    );
    // 12 × 10 px.
    assert_eq!(counts, [("images/test/c".to_owned(), 120)]);
    let has = |part: &str| warnings.iter().any(|line| line.contains(part));
    assert!(has("1 images have no annotation file") && has("1 images, such as"), "{warnings:?}");
    for (line, wanted) in [
        ("0 0.1 0.1 0.5", "this one has 3"),
        ("dent 0.1 0.1 0.5 0.5", "`dent` is no number of a class"),
        ("0 0.1 nan 0.5 0.5", "`nan` is no number"),
        ("0 0.1 0.1 5 0.1 0.5 0.6", "outside of its image"),
    ] {
        let folder = Folder::new().image("images/train/a.png").image("images/test/c.png");
        let error = failure(&[], &folder.text("labels/test/c.txt", line));
        assert!(error.contains("line 1") && error.contains(wanted), "{line}: {error}");
    }
    let error = failure(&[], &folder.text("labels/test/x.txt", ""));
    assert!(error.contains("x.txt` has no image"), "{error}");
}

#[test]
fn classes_of_yolo_have_the_names_of_its_yaml_file() {
    let folder = |names: &str| {
        Folder::new()
            .image("images/train/a.png")
            .image("images/test/c.png")
            .image("images/test/d.png")
            .text("labels/test/c.txt", "0 0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6")
            .text("labels/test/d.txt", "1 0.5 0.5 0.1 0.1\n")
            .text("data.yaml", &format!("train: images/train\nnc: 2\nnames:\n{names}"))
    };
    let classes = |names: &str, pairs: &[(&str, Value)]| marked(&folder(names), pairs).0[..2].to_vec();
    let both = ["test/defect/dent/images/test/c.png", "test/defect/deep scratch/images/test/d.png"];
    let both: Vec<&str> = both.into_iter().rev().collect();
    assert_eq!(classes("- dent\n- deep scratch\n", &[]), both);
    assert_eq!(classes("  0: dent\n  1: deep scratch\n", &[]), both);
    // A class that is no defect is named by its name or its number.
    for wanted in ["deep scratch", "1"] {
        let listed = classes("- ok\n- deep scratch\n", &[("defect_classes", wanted.into())]);
        assert_eq!(listed[0], "test/defect/deep scratch/images/test/d.png");
        assert_eq!(listed[1], "test/normal/images/test/c.png");
    }
    let error = failure(&[], &folder("- ok\n- deep scratch\n"));
    assert!(error.contains("`ok`, which means normal"), "{error}");
    let error = failure(&[], &folder("  0: dent\n  2: deep scratch\n"));
    assert!(error.contains("d.txt`, line 1: `names` of") && error.contains("has no class 1"), "{error}");
    let error = failure(&[], &folder("- dent\n"));
    assert!(error.contains("data.yaml` as an annotation of YOLO: `nc` is 2, but `names` has 1"), "{error}");
    let error = failure(&[], &folder("- a\n- b\n").text("other/data.yml", "names: [b, a]"));
    assert!(error.contains("have different `names`"), "{error}");
}

#[test]
fn a_column_of_a_table_names_annotations() {
    let table = "path,split,annotation\n\
                 a.png,train,list.json\n\
                 b.png,test,list.json\n\
                 sub/c.png,test,notes/c.json\n\
                 d.png,test,d.txt\n";
    let folder = Folder::new()
        .image("a.png")
        .image("b.png")
        .image("sub/c.png")
        .image("d.png")
        .text("images.csv", table)
        .text("list.json", &coco(&["a.png", "b.png"], &[mark(1, 1, 1, SQUARE)]))
        .text("notes/c.json", &labelme(&shape("dent", "polygon", "[[4, 5], [14, 5], [14, 13], [4, 13]]")))
        .text("d.txt", "0 0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6");
    let pairs = [("layout", "csv".into())];
    let (listed, counts, _) = marked(&folder, &pairs);
    assert_eq!(
        listed,
        ["test/defect/0/d.png", "test/defect/dent/b.png", "test/defect/dent/sub/c.png", "train/normal/a.png"]
    );
    let counts: Vec<usize> = counts.into_iter().map(|(_, count)| count).collect();
    assert_eq!(counts, [80, 120, 99], "each by the rule of its tool");
    let (_, counts, _) = marked(&folder, &[("layout", "csv".into()), ("polygon_rule", "centre".into())]);
    assert_eq!(counts.into_iter().map(|(_, count)| count).collect::<Vec<_>>(), [80, 120, 80]);
    let folder = folder.mask("m.png", &[(1, 1)]).text(
        "images.csv",
        "path,split,mask,annotation\na.png,train,,other.json\nb.png,test,m.png,list.json\nd.png,test,,list.json\n",
    );
    let error = failure(&pairs, &folder);
    for wanted in ["no file `other.json`", "a mask and an annotation", "`list.json` does not list `d.png`"] {
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
}

#[test]
fn a_changed_polygon_recomputes_its_image_alone() {
    let cache = ItemCache::default();
    let list = |annotations: &[String]| coco(&["train/a.png", "test/b.png", "test/c.png"], annotations);
    let folder = Folder::new().image("train/a.png").image("test/b.png").image("test/c.png");
    let folder = folder.text("coco.json", &list(&[mark(1, 1, 1, SQUARE), mark(2, 2, 1, SQUARE)]));
    let auto = spec(&[]);
    assert_eq!(cache.count_new_items(&auto, &folder), 3);
    let folder = folder.text("coco.json", &list(&[mark(2, 2, 1, SQUARE), mark(9, 1, 1, SQUARE)]));
    assert_eq!(cache.count_new_items(&auto, &folder), 0, "order and ids do not count");
    let moved = mark(9, 1, 1, "[[4, 5, 14, 5, 14, 13, 4, 12.5]]");
    let folder = folder.text("coco.json", &list(&[mark(2, 2, 1, SQUARE), moved]));
    assert_eq!(cache.count_new_items(&auto, &folder), 1);
    assert_eq!(cache.count_new_items(&spec(&[("polygon_rule", "centre".into())]), &folder), 3);
}

#[test]
fn fields_of_annotations_enter_the_key_if_they_are_given() {
    let (given, problems) = read(&[
        ("layout", "labelme".into()),
        ("polygon_rule", "centre".into()),
        ("defect_classes", "dent".into()),
    ]);
    assert!(problems.is_empty(), "{problems:?}");
    let keys = given.key_fields();
    assert!(keys.contains_key("polygon_rule") && keys.contains_key("defect_classes"));
    let code = |pairs: &[(&str, Value)]| read(pairs).1.first().map(Problem::code);
    assert_eq!(code(&[("layout", "mvtec".into()), ("polygon_rule", "centre".into())]), Some("unused_field"));
    assert_eq!(code(&[("polygon_rule", "pillow".into())]), Some("unknown_choice"));
}
