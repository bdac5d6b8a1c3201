//! Damaged masks, tables and annotations: each is answered, and none of them panics or hangs.

use super::*;
use crate::kernels::mutation::{Mutation, mutated};
use crate::kernels::random::Rng;

const TABLE: &str = "path,split,label,mask,annotation\n\
                     a.png,train,good,,\n\
                     b.png,test,,m.png,\n\
                     c.png,test,bad,,c.json\n\
                     d.png,test,,,list.json\n";
const LABELME: &str = r#"{"version": "6.3.1", "flags": {}, "shapes": [
  {"label": "dent", "points": [[4.5, 5], [14, 5], [14, 13]], "shape_type": "polygon", "flags": {}},
  {"label": "dent", "points": [[4, 5], [6, 9]], "shape_type": "rectangle"},
  {"label": "dent", "points": [[9, 9], [9, 11]], "shape_type": "circle"}],
  "imagePath": "c.png", "imageData": null, "imageHeight": 20, "imageWidth": 30}"#;
const COCO: &str = r#"{"images": [{"id": 1, "file_name": "d.png", "height": 20, "width": 30}],
  "annotations": [
   {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[4, 5, 14, 5, 14, 13, 4, 13]], "iscrowd": 0},
   {"id": 2, "image_id": 1, "category_id": 1, "segmentation": {"size": [20, 30], "counts": "e0c0`a0"}, "iscrowd": 1},
   {"id": 3, "image_id": 1, "category_id": 1, "segmentation": {"size": [20, 30], "counts": [21, 19, 560]}}],
  "categories": [{"id": 1, "name": "dent"}]}"#;

/// A set whose table names a mask and annotations.
fn set() -> Folder {
    ["a.png", "b.png", "c.png", "d.png"]
        .into_iter()
        .fold(Folder::new(), Folder::image)
        .mask("m.png", &[(1, 1)])
        .text("images.csv", TABLE)
        .text("c.json", LABELME)
        .text("list.json", COCO)
}

/// Damages the table and the annotations in turn. Returns the number of sets that were read.
fn answer_texts(count: usize, seed: u64) -> usize {
    let (folder, pairs) = (set(), [("layout", "csv".into())]);
    run_on(&TestContext::new(), &pairs, &folder, IMAGES).unwrap();
    let texts = [("images.csv", TABLE), ("c.json", LABELME), ("list.json", COCO)];
    let mut rng = Rng::new(seed, "mutations");
    let mut read = 0;
    for index in 0..count {
        let (name, whole) = texts[index % texts.len()];
        let (mutation, bytes) = mutated(&mut rng, whole.as_bytes());
        std::fs::write(folder.path(name), &bytes).unwrap();
        let answer = run_on(&TestContext::new(), &pairs, &folder, IMAGES);
        read += usize::from(answer.is_ok());
        let is_json = name.ends_with("json");
        let passes = answer.is_ok() && is_json && matches!(mutation, Mutation::Cut | Mutation::Zeros);
        assert!(!passes || bytes == whole.as_bytes(), "{name}, {mutation:?}, number {index} of seed {seed}");
        std::fs::write(folder.path(name), whole).unwrap();
    }
    read
}

/// Damages a mask of every format. Returns the number of sets that were read.
fn answer_masks(count: usize, seed: u64) -> usize {
    let mut masks = Vec::new();
    for end in ["png", "bmp", "tiff", "pgm", "webp", "jpg"] {
        let mask = GrayImage::from_fn(30, 20, |x, y| Luma([if x > 3 && x < 9 && y == 7 { 255 } else { 0 }]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        let format = image::ImageFormat::from_extension(end).unwrap();
        if end == "webp" {
            image::DynamicImage::ImageLuma8(mask).to_rgb8().write_to(&mut bytes, format).unwrap();
        } else {
            mask.write_to(&mut bytes, format).unwrap();
        }
        masks.push(bytes.into_inner());
    }
    masks.push(super::masks::palette_png(&[(3, 4), (3, 5)], &[[0; 3], [0; 3]]));
    let (folder, pairs) = (set(), [("layout", "csv".into()), ("mask_threshold", int(127))]);
    let right: Vec<Vec<u8>> = masks.iter().map(|mask| marks_of(&folder, &pairs, mask).unwrap()).collect();
    let mut rng = Rng::new(seed, "mutations");
    let mut read = 0;
    for index in 0..count {
        let number = index % masks.len();
        let (mutation, bytes) = mutated(&mut rng, &masks[number]);
        let Ok(marks) = marks_of(&folder, &pairs, &bytes) else { continue };
        read += 1;
        let is_checked = masks[number].starts_with(b"\x89PNG") || matches!(mutation, Mutation::Cut);
        assert!(!is_checked || marks == right[number], "{mutation:?}, number {index} of seed {seed}");
    }
    read
}

/// Returns the mask that the stage writes for an encoded mask.
fn marks_of(folder: &Folder, pairs: &[(&str, Value)], encoded: &[u8]) -> Result<Vec<u8>, StageError> {
    std::fs::write(folder.path("m.png"), encoded).unwrap();
    let context = TestContext::new();
    let files = run_on(&context, pairs, folder, IMAGES)?;
    Ok(read_mask(labelled(&files)["b"].mask).unwrap().into_raw())
}

#[test]
fn mutated_tables_and_masks_are_answered() {
    let (texts, masks) = (answer_texts(300, 1), answer_masks(280, 1));
    assert!(
        (3..250).contains(&texts) && (10..250).contains(&masks),
        "{texts} of 300, {masks} of 280 were read"
    );
}

#[test]
#[ignore = "the long form of the test above"]
fn many_mutated_tables_and_masks_are_answered() {
    for seed in [2, 3] {
        let (texts, masks) = (answer_texts(5000, seed), answer_masks(5000, seed));
        assert!(
            (50..4500).contains(&texts) && (100..4500).contains(&masks),
            "{texts}, {masks} of 5000 were read, seed {seed}"
        );
    }
}
