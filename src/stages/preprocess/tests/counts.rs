//! Nothing is passed over without a word: counts, left-out files, equal pictures.

use super::*;

fn notices(folder: &Folder, pairs: &[(&str, Value)]) -> Vec<String> {
    let context = TestContext::new();
    run_on(&context, pairs, folder, IMAGES).unwrap();
    context.notices()
}

fn find<'n>(notices: &'n [String], start: &str) -> &'n str {
    notices.iter().find(|line| line.starts_with(start)).map_or("", String::as_str)
}

#[test]
fn what_is_read_is_counted_by_split_and_label() {
    let found = notices(&Folder::new().ksdd2(""), &[]);
    assert_eq!(find(&found, "layout"), "layout: ksdd2");
    assert_eq!(
        find(&found, "read:"),
        "read: `test` with 0 normal and 1 defective image, `train` with 1 normal and 1 defective image"
    );
    assert!(
        !found.iter().any(|line| line.starts_with("warning") || line.starts_with("left out")),
        "{found:?}"
    );
}

#[test]
fn what_is_left_out_is_counted_with_the_reason() {
    let folder = Folder::new()
        .image("set/train/good/0.png")
        .sized_image("set/test/good/1.png", 21, 30)
        .image("set/valid/good/2.png")
        .image("set/photo.png")
        .text("set/train/good/3.gif", "x")
        .text("set/train/good/4.dng", "x")
        .text("set/train/good/5.xyz", "x")
        .text("set/license.txt", "x")
        .text("set/.DS_Store", "x")
        .text("set/test/good/Thumbs.db", "x");
    let found = notices(&folder, &[]);
    let warning = find(&found, "warning: left out");
    for wanted in [
        "1 file `set/train/good/*.gif`: kind not read",
        "1 file `set/train/good/*.dng`: kind not read",
        "1 file `set/train/good/*.xyz`: kind not read",
        "1 file `set/valid/good/*.png`: `valid` is no folder of this layout",
        "1 file `set/*.png`",
    ] {
        assert!(warning.contains(wanted), "{wanted}: {warning}");
    }
    let note = find(&found, "left out");
    assert!(note.contains("1 file `set/*.txt`: no image"), "{note}");
    assert!(note.contains("a file of an operating system"), "{note}");
    let order: Vec<usize> = ["warning: left out", "read:"]
        .iter()
        .map(|start| found.iter().position(|line| line.starts_with(start)).unwrap())
        .collect();
    assert!(order[0] < order[1], "unknown folders are named before anything is preprocessed");
}

#[test]
fn images_of_several_kinds_of_files_are_counted() {
    let folder = Folder::new().ksdd2("").image("train/3.jfif").mask("train/3_GT.png", &[]);
    let found = notices(&folder, &[]);
    assert!(find(&found, "warning: the images are").contains("1 `.jfif`, 3 `.png`"), "{found:?}");
    let mut folder = Folder::new().image("bad/3.JPG");
    for number in 0..16 {
        folder = folder.image(&format!("good/{number}.{}", if number % 2 == 0 { "jpg" } else { "JPEG" }));
    }
    assert!(find(&notices(&folder, &[("test_share", 0.5.into())]), "warning: the images are").is_empty());
}

#[test]
fn the_same_picture_on_both_sides_is_named_and_can_be_refused() {
    let folder = Folder::new()
        .sized_image("train/1.png", 20, 30)
        .mask("train/1_GT.png", &[])
        .sized_image("test/2.png", 20, 30)
        .mask("test/2_GT.png", &[(1, 1)]);
    let found = notices(&folder, &[]);
    let warning = find(&found, "warning: 1 pictures of the test split");
    assert!(warning.contains("train/1.png") && warning.contains("test/2.png"), "{found:?}");
    let error = failure(&[("duplicates", "refuse".into())], &folder);
    assert!(error.contains("are in the training split too"), "{error}");
    // Other bytes, the same pixels: a comment in the file.
    let image = image::open(folder.path("test/2.png")).unwrap();
    image.save_with_format(folder.path("test/2.png"), image::ImageFormat::Bmp).unwrap();
    assert!(!find(&notices(&folder, &[]), "warning: 1 pictures of the test split").is_empty());
    // An image that is different is not named.
    let other = folder.sized_image("test/2.png", 20, 30);
    image::RgbImage::from_pixel(30, 20, Rgb([1, 2, 3])).save(other.path("test/2.png")).unwrap();
    assert!(find(&notices(&other, &[]), "warning").is_empty());
}

#[test]
fn copies_within_the_training_split_are_counted() {
    let mut folder = Folder::new().ksdd2("");
    for number in [10090, 10091, 10092] {
        let name = format!("train/{number}");
        folder = folder.sized_image(&format!("{name}.png"), 20, 30).mask(&format!("{name}_GT.png"), &[]);
    }
    let found = notices(&folder, &[]);
    let warning = find(&found, "warning: 2 pictures of the training split are copies");
    assert!(warning.contains("train/10090.png"), "{found:?}");
}

#[test]
fn later_fields_with_their_defaults_are_not_in_the_key() {
    let (plain, _) = read(&[]);
    let defaults: [(&str, Value); 6] = [
        ("empty_mask", "without_region".into()),
        ("duplicates", "warn".into()),
        ("test_share", 0.3.into()),
        ("test_share_of_defects", 1.0.into()),
        ("split_seed", int(0)),
        ("normal_folders", Vec::<String>::new().into()),
    ];
    let (written, problems) = read(&defaults);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(plain.key_fields(), written.key_fields());
    for (name, value) in [
        ("empty_mask", Value::from("normal")),
        ("duplicates", "refuse".into()),
        ("test_share", 0.5.into()),
        ("test_share_of_defects", 0.5.into()),
        ("split_seed", int(1)),
        ("normal_folders", "fine".into()),
        ("category", "bottle".into()),
        ("split_file", "a.csv".into()),
    ] {
        assert_ne!(plain.key_fields(), read(&[(name, value)]).0.key_fields(), "{name}");
    }
    let (spec, _) = read(&[("layout", "folders".into())]);
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<Preprocess>(&json).unwrap(), spec);
}
