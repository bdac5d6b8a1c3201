//! Large images: what is made of them by strips is what is made of them at once.

use image::{DynamicImage, ImageFormat, LumaA};

use super::super::decode::DecodeLimits;
use super::super::{item, layout};
use super::*;

/// Everything is large, and a strip has a few rows.
const TINY: DecodeLimits = DecodeLimits { small_bytes: 0, whole_bytes: 0, strip_bytes: 1000 };

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A line scan of 203×61 px (height × width) in the kinds of files that cameras write, each with a mask of some kind.
fn line_scans() -> Folder {
    let colour = |x: u32, y: u32| Rgb([(x * 4) as u8, (y % 251) as u8, (x * y % 253) as u8]);
    let rgb = DynamicImage::ImageRgb8(RgbImage::from_fn(61, 203, colour));
    let deep = image::ImageBuffer::from_fn(61, 203, |x, y| Luma([(x * 67 + y * 13) as u16 & 4095]));
    let deep = DynamicImage::ImageLuma16(deep);
    let is_marked = |x: u32, y: u32| (x, y) == (3, 200) || (20..40).contains(&x) && (50..120).contains(&y);
    let grey = GrayImage::from_fn(61, 203, |x, y| Luma([if is_marked(x, y) { 255 } else { 0 }]));
    let alpha =
        image::ImageBuffer::from_fn(61, 203, |x, y| LumaA([9_u8, if is_marked(x, y) { 255 } else { 0 }]));
    let (grey, alpha) = (DynamicImage::ImageLuma8(grey), DynamicImage::ImageLumaA8(alpha));
    let files = [
        (&rgb, ImageFormat::Png, "png", &grey, ImageFormat::Tiff, "tif"),
        (&rgb, ImageFormat::Tiff, "tif", &alpha, ImageFormat::Png, "png"),
        (&deep, ImageFormat::Png, "png", &grey, ImageFormat::Bmp, "bmp"),
        (&grey, ImageFormat::Pnm, "pgm", &grey, ImageFormat::Pnm, "pgm"),
        (&rgb, ImageFormat::Bmp, "bmp", &rgb, ImageFormat::Png, "png"),
    ];
    let mut table = vec!["path,split,label,mask\n".to_owned()];
    let folder = Folder::new();
    for (number, (image, format, end, mask, mask_format, mask_end)) in files.into_iter().enumerate() {
        let (name, mask_name) = (format!("{number}.{end}"), format!("{number}_mask.{mask_end}"));
        std::fs::write(folder.path(&name), encoded(image, format)).unwrap();
        std::fs::write(folder.path(&mask_name), encoded(mask, mask_format)).unwrap();
        table.push(format!("{name},train,bad,{mask_name}\n"));
    }
    folder.text("images.csv", &table.concat())
}

/// Returns the bytes of the files of every item, and the notes.
fn items(
    folder: &Folder,
    pairs: &[(&str, Value)],
    limits: DecodeLimits,
) -> Vec<(Vec<Vec<u8>>, item::ItemNote)> {
    let (spec, problems) = read(pairs);
    assert!(problems.is_empty(), "{problems:?}");
    let files = folder.files();
    let found = layout::find(&spec.reading, &files, &TestContext::new()).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let written = found.sources.iter().map(|source| {
        let (paths, note) =
            item::write(&spec, Some(12), source, (&scratch.path().join("0"), limits)).unwrap();
        (paths.iter().map(|path| std::fs::read(path).unwrap()).collect(), note)
    });
    written.collect()
}

#[test]
fn items_by_strips_are_those_of_whole_images() {
    let folder = line_scans();
    let size = |height: i64, width: i64| vec![("height", int(height)), ("width", int(width))];
    let with = |pairs: Vec<(&'static str, Value)>, more: Vec<(&'static str, Value)>| [pairs, more].concat();
    let crops = fields([("size", int(16)), ("padding", int(2))]);
    let via =
        |height: i64, width: i64| Value::Table(fields([("height", int(height)), ("width", int(width))]));
    let settings = [
        size(40, 30),
        size(500, 70),
        with(size(48, 48), vec![("resize", "fit".into())]),
        with(size(24, 24), vec![("resize", "crop".into()), ("via", via(32, 32))]),
        with(size(40, 30), vec![("mask_resize", "reference".into())]),
        with(size(40, 30), vec![("via", via(90, 50)), ("crops", crops.into())]),
        with(size(203, 61), vec![("mask_threshold", int(100))]),
    ];
    for pairs in settings {
        let pairs = with(pairs, vec![("layout", "csv".into())]);
        let whole = items(&folder, &pairs, DecodeLimits::default());
        assert_eq!(whole.len(), 5);
        assert!(whole == items(&folder, &pairs, TINY), "{pairs:?}");
    }
}

/// An image that keeps its size is decoded at once, whatever its size.
#[test]
fn images_that_keep_their_size_are_decoded_at_once() {
    let folder = line_scans();
    let pairs = [("layout", "csv".into())];
    assert!(items(&folder, &pairs, DecodeLimits::default()) == items(&folder, &pairs, TINY));
}
