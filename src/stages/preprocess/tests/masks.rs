//! Masks that say little, and images without any.

use super::*;
use crate::artifacts::image_set::{UNCOUNTED, read_padding, read_truth};

fn mvtec_with_empty_mask() -> Folder {
    Folder::new()
        .image("train/good/0.png")
        .sized_image("test/good/1.png", 21, 30)
        .sized_image("test/crack/2.png", 20, 30)
        .mask("ground_truth/crack/2_mask.png", &[])
        .sized_image("test/crack/3.png", 20, 30)
        .mask("ground_truth/crack/3_mask.png", &[(1, 1)])
}

#[test]
fn a_field_decides_on_a_mask_that_marks_nothing() {
    let run = |pairs: &[(&str, Value)]| {
        let context = TestContext::new();
        let files = run_on(&context, pairs, &mvtec_with_empty_mask(), IMAGES).unwrap();
        let truth =
            labelled(&files).get("test/crack/2").map(|one| read_truth(one.mask).unwrap().counted.is_some());
        let warnings: Vec<String> =
            context.notices().into_iter().filter(|line| line.contains("`empty_mask`")).collect();
        (listing(&files), truth, warnings)
    };
    let (listed, counted, warnings) = run(&[]);
    assert!(listed.contains(&"test/defect/crack/test/crack/2.png".to_owned()), "{listed:?}");
    assert_eq!(counted, Some(false), "no metric counts its pixels");
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("warning: no mask marks a defect in 1 image "), "{warnings:?}");
    let (listed, counted, warnings) = run(&[("empty_mask", "normal".into())]);
    assert!(listed.contains(&"test/normal/test/crack/2.png".to_owned()), "{listed:?}");
    assert_eq!((counted, warnings.len()), (Some(true), 1));
    let (listed, counted, _) = run(&[("empty_mask", "leave_out".into())]);
    assert_eq!((listed.len(), counted), (3, None));
    let error = failure(&[("empty_mask", "refuse".into())], &mvtec_with_empty_mask());
    assert!(error.contains("no pixel of its mask") && error.contains("2_mask.png"), "{error}");
}

#[test]
fn a_mark_on_a_normal_image_is_an_error() {
    let folder = mvtec_with_empty_mask().mask("ground_truth/good/1.png", &[(1, 1)]);
    std::fs::rename(folder.path("ground_truth/good/1.png"), folder.path("ground_truth/good/1_mask.png"))
        .unwrap();
    let folder = folder.sized_image("test/good/1.png", 20, 30);
    assert!(failure(&[], &folder).contains("labelled as normal, but its mask"));
}

#[test]
fn levels_transparency_and_inversion_are_warned_of_once() {
    let mask = |name: &str, levels: &[(u32, u32, u8)]| {
        let folder = Folder::new().ksdd2("").grey_mask("test/20000_GT.png", levels);
        let context = TestContext::new();
        let pairs: &[(&str, Value)] = if name == "threshold" { &[("mask_threshold", int(127))] } else { &[] };
        let files = run_on(&context, pairs, &folder, IMAGES).unwrap();
        let mask = read_mask(labelled(&files)["test/20000"].mask).unwrap();
        let warnings =
            context.notices().into_iter().filter(|line| line.starts_with("warning")).collect::<Vec<_>>();
        (mask.iter().map(|&level| usize::from(level == 255)).sum::<usize>(), warnings)
    };
    let soft = [(1, 1, 255), (1, 2, 130), (1, 3, 20)];
    let (marked, warnings) = mask("soft", &soft);
    assert_eq!((marked, warnings.len()), (3, 1), "{warnings:?}");
    assert!(warnings[0].contains("the levels 20, 130, 255") && warnings[0].contains("mask_threshold = 127"));
    assert_eq!(mask("threshold", &soft).0, 2);
    assert_eq!(mask("one level", &[(1, 1, 7)]), (1, Vec::new()), "{{0, v}} needs no words");
    let most: Vec<(u32, u32, u8)> =
        (0..20).flat_map(|row| (0..25).map(move |column| (row, column, 255))).collect();
    let folder = Folder::new()
        .image("train/1.png")
        .mask("train/1_GT.png", &[])
        .image("test/2.png")
        .grey_mask("test/2_GT.png", &most);
    let context = TestContext::new();
    run_on(&context, &[], &folder, IMAGES).unwrap();
    assert!(
        context.notices().iter().any(|line| line.contains("are they inverted?")),
        "{:?}",
        context.notices()
    );
}

#[test]
fn a_mask_in_the_transparency_is_read() {
    let folder = Folder::new().ksdd2("");
    let alone = image::RgbaImage::from_fn(30, 20, |x, y| {
        image::Rgba([255, 255, 255, if (x, y) == (3, 4) { 255 } else { 0 }])
    });
    alone.save(folder.path("test/20000_GT.png")).unwrap();
    let context = TestContext::new();
    let files = run_on(&context, &[], &folder, IMAGES).unwrap();
    let mask = read_mask(labelled(&files)["test/20000"].mask).unwrap();
    assert_eq!(
        (mask.get_pixel(3, 4).0[0], mask.iter().map(|&level| usize::from(level != 0)).sum::<usize>()),
        (255, 1)
    );
    assert!(context.notices().iter().any(|line| line.contains("transparency marks the defects")));
}

/// A PNG of 20×30 px with 1 in the given pixels and 0 elsewhere, and a palette of `colours`.
pub(super) fn palette_png(points: &[(u32, u32)], colours: &[[u8; 3]]) -> Vec<u8> {
    let chunk = |kind: &[u8], data: &[u8]| {
        let body = [kind, data].concat();
        [&(data.len() as u32).to_be_bytes()[..], &body, &crc32fast::hash(&body).to_be_bytes()].concat()
    };
    let row = |y: u32| {
        std::iter::once(0).chain((0..30).map(move |x| u8::from(points.contains(&(y, x))))).collect::<Vec<_>>()
    };
    let rows: Vec<u8> = (0..20).flat_map(row).collect();
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &rows).unwrap();
    let header = [&30_u32.to_be_bytes()[..], &20_u32.to_be_bytes(), &[8, 3, 0, 0, 0]].concat();
    let chunks = [
        chunk(b"IHDR", &header),
        chunk(b"PLTE", &colours.concat()),
        chunk(b"IDAT", &packed.finish().unwrap()),
        chunk(b"IEND", &[]),
    ];
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunks.concat()].concat()
}

#[test]
fn classes_in_the_indices_of_a_palette_are_read_or_warned_of() {
    let run = |colours: &[[u8; 3]]| {
        let folder = Folder::new().ksdd2("");
        std::fs::write(folder.path("test/20000_GT.png"), palette_png(&[(3, 4), (3, 5)], colours)).unwrap();
        let context = TestContext::new();
        let files = run_on(&context, &[("mask_threshold", int(127))], &folder, IMAGES).unwrap();
        let mask = read_mask(labelled(&files)["test/20000"].mask).unwrap();
        let warnings: Vec<String> =
            context.notices().into_iter().filter(|line| line.contains("palette")).collect();
        (mask.iter().map(|&level| usize::from(level == 255)).sum::<usize>(), warnings)
    };
    let (marked, warnings) = run(&[[0; 3], [0; 3], [0; 3]]);
    assert_eq!((marked, warnings.len()), (2, 1), "{warnings:?}");
    assert!(warnings[0].contains("all indices above 0"));
    assert_eq!(run(&[[0; 3], [128, 0, 0]]), (2, Vec::new()), "as VOC colours them");
    let (marked, warnings) = run(&[[255; 3], [0; 3]]);
    assert_eq!((marked, warnings.len()), (598, 1), "{warnings:?}");
    assert!(warnings[0].contains("the colours count; if the indices are classes, save them as grey levels"));
}

#[test]
fn images_without_masks_are_labelled_by_their_folder() {
    let folder = Folder::new().image("train/good/0.png").sized_image("test/good/1.png", 21, 30).sized_image(
        "test/scratch/2.png",
        22,
        30,
    );
    let context = TestContext::new();
    let files = run_on(&context, &[], &folder, IMAGES).unwrap();
    assert_eq!(
        listing(&files),
        [
            "test/defect/scratch/test/scratch/2.png",
            "test/normal/test/good/1.png",
            "train/normal/train/good/0.png"
        ]
    );
    let all = labelled(&files);
    assert_eq!(read_truth(all["test/scratch/2"].mask).unwrap().counted, None);
    assert!(read_truth(all["test/good/1"].mask).unwrap().counted.is_some());
    assert!(!context.notices().iter().any(|line| line.starts_with("warning")), "{:?}", context.notices());
    let table = "path,split,label\na.png,train,normal\nb.png,test,bad\nc.png,test,0\n";
    let folder = Folder::new()
        .image("a.png")
        .sized_image("b.png", 21, 30)
        .sized_image("c.png", 22, 30)
        .text("images.csv", table);
    let files = run_on(&TestContext::new(), &[], &folder, IMAGES).unwrap();
    assert_eq!(listing(&files), ["test/defect/any/b.png", "test/normal/c.png", "train/normal/a.png"]);
    let pairs = [("crops", Fields::new().into())];
    assert!(failure(&pairs, &folder).contains("no defect with a region"));
}

#[test]
fn padding_is_uncounted_and_its_box_is_kept() {
    let folder = Folder::new().ksdd2("");
    let pairs = [("height", int(30)), ("width", int(30)), ("resize", "fit".into())];
    let context = TestContext::new();
    let files = run_on(&context, &pairs, &folder, IMAGES).unwrap();
    assert_eq!(read_padding(&files).unwrap()["train/10000"], [5, 0, 20, 30]);
    let one = labelled(&files)["test/20000"].clone();
    let truth = read_truth(one.mask).unwrap();
    let region = truth.counted.unwrap();
    assert_eq!((region.top, region.left, region.height, region.width), (5, 0, 20, 30));
    assert_eq!(truth.mask.iter().map(|&level| usize::from(level != 0)).sum::<usize>(), 1);
    let raw = image::load_from_memory(&one.mask.read().unwrap()).unwrap().into_luma8();
    assert_eq!(raw.iter().map(|&level| usize::from(level == UNCOUNTED)).sum::<usize>(), 10 * 30);
    let exact = [("height", int(20)), ("width", int(30)), ("resize", "fit".into())];
    let files = run_on(&TestContext::new(), &exact, &folder, IMAGES).unwrap();
    assert!(files.get("pixels/padding.json").is_none(), "nothing is padded");
}

#[test]
fn uncounted_pixels_amid_counted_ones_are_refused() {
    let folder = Folder::new().grey_mask("a.png", &[(3, 4, UNCOUNTED)]);
    let error = read_truth(folder.files().get("a.png").unwrap()).unwrap_err().to_string();
    assert!(error.contains("a.png") && error.contains("level 128"), "{error}");
}
