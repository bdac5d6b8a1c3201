//! Orientation and depth of images.

use image::{ImageBuffer, Luma};

use super::*;

fn golden(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images");
    std::fs::read(folder.join(name)).unwrap()
}

impl Folder {
    fn bytes(self, name: &str, bytes: &[u8]) -> Self {
        crate::artifacts::files::write(&self.path(name), bytes).unwrap();
        self
    }

    /// Adds an image with 16 bits per level, all of which have the value `level`, and its empty mask.
    fn deep(self, split: &str, number: u32, level: u16) -> Self {
        let image: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_pixel(30, 20, Luma([level]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        self.bytes(&format!("{split}/{number}.png"), bytes.get_ref())
            .mask(&format!("{split}/{number}_GT.png"), &[])
    }
}

/// Returns the level of the grey images by id.
fn greys(files: &Files) -> Vec<(String, u8)> {
    let levels =
        pixels(files).into_iter().map(|(id, file)| (id.to_owned(), read_rgb(file).unwrap()[(0, 0)].0[0]));
    levels.collect()
}

#[test]
fn image_and_mask_are_turned_as_their_exif_orientation_says() {
    let turned = || Folder::new().ksdd2("").bytes("test/1.jpg", &golden("jpeg-orientation6.jpg"));
    // Stored as 37×43 px (height × width), shown as 43×37 px.
    let with_tag = turned().bytes("test/1_GT.jpg", &golden("jpeg-orientation6.jpg"));
    let mut upright = GrayImage::new(37, 43);
    upright.put_pixel(3, 40, Luma([255]));
    let without_tag = turned();
    write_mask(&without_tag.path("test/1_GT.png"), &upright).unwrap();
    let context = TestContext::new();
    for folder in [with_tag, without_tag] {
        let files = run_on(&context, &[], &folder, IMAGES).unwrap();
        assert_eq!(read_rgb(pixels(&files)["test/1"]).unwrap().dimensions(), (37, 43));
        assert_eq!(read_mask(labelled(&files)["test/1"].mask).unwrap().dimensions(), (37, 43));
    }
    let folder = turned();
    write_mask(&folder.path("test/1_GT.png"), &GrayImage::new(43, 37)).unwrap();
    let error = run_on(&TestContext::new(), &[], &folder, IMAGES).unwrap_err();
    assert!(error.to_string().contains("test/1_GT.png` has 37×43 px"), "{error}");
    assert!(error.help().unwrap().contains("EXIF"), "{:?}", error.help());
}

#[test]
fn the_depth_is_decided_by_the_training_split() {
    let folder = Folder::new().deep("train", 1, 4095).deep("train", 2, 2048).deep("test", 3, 1000);
    let context = TestContext::new();
    let files = run_on(&context, &[], &folder, IMAGES).unwrap();
    assert_eq!(read_preprocessing(&files).unwrap().depth_bits, Some(12));
    // 2048 · 255 / 4095 = 127.53, 1000 · 255 / 4095 = 62.27.
    let expected = [("test/3", 62), ("train/1", 255), ("train/2", 128)];
    assert_eq!(greys(&files), expected.map(|(id, level)| (id.to_owned(), level)));
    let files = run_on(&context, &[("depth", int(16))], &folder, IMAGES).unwrap();
    assert_eq!(greys(&files)[1].1, 16, "4095 / 257 = 15.93");
    let eight = Folder::new().ksdd2("");
    let files = run_on(&context, &[("depth", int(12))], &eight, IMAGES).unwrap();
    assert_eq!(read_preprocessing(&files).unwrap().depth_bits, None);
}

#[test]
fn an_image_brighter_than_its_depth_is_named() {
    let folder = Folder::new().deep("train", 1, 4095).deep("test", 3, 5000);
    let error = run_on(&TestContext::new(), &[], &folder, IMAGES).unwrap_err();
    assert!(error.to_string().contains("test/3.png` has the level 5000"), "{error}");
    assert!(error.help().unwrap().contains("`depth = 14`"), "{:?}", error.help());
    let folder = Folder::new().ksdd2("").deep("test", 3, 5000);
    let error = failure(&[], &folder);
    assert!(error.contains("test/3.png` has 16 bits per level, but no training image"), "{error}");
    assert!(run_on(&TestContext::new(), &[("depth", int(14))], &folder, IMAGES).is_ok());
}

/// The largest level of a training image is an item too, so that the images that decided the depth are not decoded again.
#[test]
fn a_new_image_is_the_only_one_that_is_computed_unless_it_changes_the_depth() {
    let (cache, spec) = (ItemCache::default(), spec(&[]));
    let lines = || cache.lines.lock().unwrap().join("\n");
    let folder = Folder::new().deep("train", 1, 4095).deep("train", 2, 300).deep("test", 3, 1000);
    assert_eq!(cache.count_new_items(&spec, &folder), 5, "three images, two largest levels");
    assert!(lines().contains("warning: depth:") && lines().contains("12-bit"), "{}", lines());
    let folder = folder.deep("test", 4, 2000);
    assert_eq!(cache.count_new_items(&spec, &folder), 1);
    let folder = folder.deep("train", 5, 3000);
    assert_eq!(cache.count_new_items(&spec, &folder), 2);
    let folder = folder.image("test/6.png").mask("test/6_GT.png", &[]);
    assert_eq!(cache.count_new_items(&spec, &folder), 1, "8 bits");
    assert!(lines().contains("warning: 5 images with 16 bits per level and 1 with 8"), "{}", lines());
    let folder = folder.deep("train", 7, 65535);
    assert_eq!(cache.count_new_items(&spec, &folder), 1 + 6, "the depth is now 16 bits");
    assert!(!lines().contains("warning: depth:"), "{}", lines());
}

#[test]
fn a_depth_is_a_number_of_bits_or_auto() {
    let codes =
        |value: Value| -> Vec<&str> { read(&[("depth", value)]).1.iter().map(Problem::code).collect() };
    assert!(codes("auto".into()).is_empty() && codes(int(12)).is_empty());
    assert_eq!(codes(int(11)), ["unknown_choice"]);
    assert_eq!(codes(int(17)), ["out_of_range"]);
    assert_eq!(codes("twelve".into()), ["unknown_choice"]);
    assert_eq!(codes(Value::Bool(true)), ["wrong_type"]);
}

#[test]
fn every_damaged_image_and_mask_is_named() {
    let whole = golden("jpeg-420.jpg");
    let half = &whole[..whole.len() / 2];
    let folder = Folder::new().ksdd2("").bytes("test/1.jpg", half).mask("test/1_GT.png", &[]);
    let folder = folder.image("test/2.png").bytes("test/2_GT.jpg", half);
    let error = failure(&[], &folder);
    assert!(error.starts_with("2 images cannot be used"), "{error}");
    assert!(error.contains("test/1.jpg`: it is cut off or damaged"), "{error}");
    assert!(error.contains("test/2_GT.jpg`: it is cut off or damaged"), "{error}");
}
