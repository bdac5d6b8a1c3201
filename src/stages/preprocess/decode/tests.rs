//! Tests of decoding, on files and values that `tests/golden/images.py` made with Pillow.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::RgbImage;

use super::*;
use crate::kernels::mutation::{Mutation, mutated};
use crate::kernels::random::Rng;

/// How a file is to be read.
enum Right {
    /// With these levels, or levels that differ by at most the number from them.
    Read(DynamicImage, u16),
    /// Not, for a reason with these words.
    Refused(String),
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images")
}

/// Returns every file with its bytes and what is right for it.
fn golden() -> BTreeMap<String, (Vec<u8>, Right)> {
    let table = std::fs::read_to_string(folder().join("images.txt")).unwrap();
    let lines = table.lines().map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let levels = |name: &str| image::open(folder().join(name)).unwrap();
        let right = match words[1..] {
            ["refused", ..] => Right::Refused(words[2..].join(" ")),
            ["exact", name] => Right::Read(levels(name), 0),
            ["near", most, name] => Right::Read(levels(name), most.parse().unwrap()),
            _ => panic!("{line}"),
        };
        (words[0].to_owned(), (std::fs::read(folder().join(words[0])).unwrap(), right))
    });
    lines.collect()
}

/// Returns the files that are read.
fn read_files() -> impl Iterator<Item = (String, Vec<u8>)> {
    golden().into_iter().filter_map(|(name, (bytes, right))| match right {
        Right::Read(..) => Some((name, bytes)),
        Right::Refused(_) => None,
    })
}

fn worst(left: &[u16], right: &[u16]) -> u16 {
    left.iter().zip(right).map(|(left, right)| left.abs_diff(*right)).max().unwrap_or(0)
}

#[test]
fn every_format_is_read_as_pillow_reads_it_or_refused_by_name() {
    let files = golden();
    assert!(files.len() >= 60, "{}", files.len());
    let mut wrong = Vec::new();
    for (name, (bytes, right)) in files {
        match (decode_bytes(&bytes), right) {
            (Ok(decoded), Right::Read(right, most)) => {
                let is_deep = matches!(right, DynamicImage::ImageRgb16(_));
                let size = (decoded.image.width(), decoded.image.height());
                if decoded.is_deep != is_deep || size != (right.width(), right.height()) {
                    wrong.push(format!("{name}: deep {}, {size:?}", decoded.is_deep));
                    continue;
                }
                let difference = if is_deep {
                    worst(&decoded.image.into_rgb16(), &right.into_rgb16())
                } else {
                    let levels = |image: RgbImage| image.iter().copied().map(u16::from).collect::<Vec<_>>();
                    worst(&levels(decoded.image.into_rgb8()), &levels(right.into_rgb8()))
                };
                if difference > most {
                    wrong.push(format!("{name}: differs by {difference}"));
                }
            }
            (Err(error), Right::Refused(words)) if error.to_string().contains(&words) => {}
            (Err(error), _) => wrong.push(format!("{name}: {error}")),
            (Ok(_), Right::Refused(words)) => wrong.push(format!("{name}: read, not refused for {words}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_tiff_whose_structure_has_wrong_types_is_refused() {
    // `RowsPerStrip` (278) and `SamplesPerPixel` (277): the decoder would fill in what they stand for.
    for (name, tag) in [("tiff-rgb8-lzw-predictor.tif", 278_u16), ("tiff-rgb16.tif", 277)] {
        let whole = golden()[name].0.clone();
        let entry = [tag.to_le_bytes(), 3_u16.to_le_bytes()].concat();
        let long = [tag.to_le_bytes(), 4_u16.to_le_bytes()].concat();
        let at = whole.windows(4).position(|four| four == entry || four == long).unwrap();
        for kind in [2_u8, 7, 20] {
            let mut changed = whole.clone();
            changed[at + 2] = kind;
            let fault = decode_bytes(&changed).unwrap_err().to_string();
            assert!(fault.contains("cut off or damaged"), "{name} {kind}: {fault}");
        }
    }
}

#[test]
fn damaged_exif_data_and_headers_of_webp_are_refused() {
    let changed = |name: &str, find: &[u8], at: usize, byte: u8| {
        let mut bytes = golden()[name].0.clone();
        let start = bytes.windows(find.len()).position(|part| part == find).unwrap();
        bytes[start + at] = byte;
        decode_bytes(&bytes).unwrap_err().to_string()
    };
    // The header of the EXIF data.
    for (name, find) in [
        ("webp-turned.webp", b"II*\0"),
        ("webp-turned-prefix.webp", b"II*\0"),
        ("jpeg-orientation6.jpg", b"II*\0"),
    ] {
        let fault = changed(name, find, 1, b'Y');
        assert!(fault.contains("its EXIF data"), "{name}: {fault}");
    }
    // A frame that is not shown, one that needs another, a profile beyond 3, a start code, a first partition of 500 kB.
    let first = golden()["webp-lossy.webp"].0[20];
    for (at, byte) in [(8, first & !16), (8, first | 1), (8, first | 8), (11, 0), (10, 0xff)] {
        let fault = changed("webp-lossy.webp", b"VP8 ", at, byte);
        assert!(fault.contains("cut off or damaged"), "{at} {byte}: {fault}");
    }
    // Another width in the header of the file than in that of its image.
    let fault = changed("webp-turned.webp", b"VP8X", 12, 1);
    assert!(fault.contains("different sizes"), "{fault}");
}

/// The strips of a TIFF may be JPEGs, whose damage shows in their codes.
#[test]
fn a_tiff_of_damaged_jpeg_is_refused() {
    for name in ["tiff-grey8-jpeg.tif", "tiff-rgb8-jpeg.tif"] {
        let whole = golden()[name].0.clone();
        let start = whole.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
        for share in [20, 50, 80] {
            let mut zeroed = whole.clone();
            let end = start + 14 + 60 * share / 100;
            zeroed[end..end + 40].fill(0);
            assert!(decode_bytes(&zeroed).is_err(), "{name} with zeros from {end}");
        }
        // `ImageWidth` (256), which the decoder would fill with the levels of wider rows.
        let at = whole.windows(4).position(|entry| entry == [0, 1, 3, 0]).unwrap() + 8;
        let mut narrow = whole.clone();
        assert_eq!(narrow[at], 43);
        narrow[at] = 42;
        let fault = decode_bytes(&narrow).unwrap_err().to_string();
        assert!(fault.contains("of another size"), "{name}: {fault}");
    }
}

/// The decoder would go on with the bytes that follow.
#[test]
fn a_tiff_whose_strips_are_short_is_refused() {
    let mut bytes = golden()["tiff-grey8.tif"].0.clone();
    // `StripByteCounts` (279), one strip of 43×37 bytes, one less.
    let at = bytes.windows(2).position(|pair| pair == 279_u16.to_le_bytes()).unwrap() + 8;
    assert_eq!(u16::from_le_bytes([bytes[at], bytes[at + 1]]), 43 * 37);
    bytes[at] -= 1;
    let fault = decode_bytes(&bytes).unwrap_err().to_string();
    assert!(fault.contains("image data are missing"), "{fault}");
}

#[test]
fn indices_of_palettes_are_read_whatever_their_colours() {
    let files = golden();
    let of = |name: &str| palette::indices(&files[name].0).unwrap().map(DynamicImage::into_luma8);
    let index = |count: u32| image::GrayImage::from_fn(43, 37, |x, y| image::Luma([((x + y) % count) as u8]));
    // `tests/golden/images.py`: the index is the sum of row and column, modulo the number of colours.
    let many = of("png-palette8.png").unwrap();
    let count = u32::from(*many.iter().max().unwrap()) + 1;
    assert!(count > 20 && many == index(count), "{count}");
    assert_eq!(of("png-palette8-transparent.png").unwrap(), many);
    let colours = of("bmp-palette4.bmp").unwrap();
    assert_eq!((colours.iter().min(), colours.iter().max()), (Some(&2), Some(&13)));
    // Grey ramps: the indices are the levels, or their complements.
    let levels = |name: &str| decode_bytes(&files[name].0).unwrap().image.into_luma8();
    assert_eq!(of("bmp-grey8.bmp").unwrap(), levels("bmp-grey8.bmp"));
    let inverted = of("bmp-inverted-palette.bmp").unwrap();
    assert!(
        inverted
            .iter()
            .zip(levels("bmp-inverted-palette.bmp").iter())
            .all(|(index, level)| *index == 255 - level)
    );
    for name in ["png-grey8.png", "png-rgb8.png", "bmp-rgb24.bmp", "jpeg-grey.jpg", "pnm-p5.pgm"] {
        assert!(of(name).is_none(), "{name}");
    }
}

/// What a changed file was read as: the levels, if it was read.
fn levels(bytes: &[u8]) -> Option<DynamicImage> {
    decode_bytes(bytes).ok().map(|decoded| decoded.image)
}

#[test]
fn a_cut_file_is_never_another_image() {
    for (name, whole) in read_files() {
        let right = levels(&whole).unwrap();
        let step = (whole.len() / 150).max(1);
        let last = whole.len().saturating_sub(20)..whole.len();
        for length in (0..whole.len()).step_by(step).chain(last) {
            if let Some(read) = levels(&whole[..length]) {
                assert_eq!(read, right, "{name} cut to {length} of {} bytes", whole.len());
            }
        }
    }
}

#[test]
fn a_jpeg_or_png_with_a_tail_of_zeros_is_refused() {
    for (name, whole) in read_files().filter(|(name, _)| name.starts_with("jpeg") || name.starts_with("png"))
    {
        let right = levels(&whole).unwrap();
        for share in [10, 30, 50, 70, 90, 95, 99] {
            let from = whole.len() * share / 100;
            let mut zeroed = whole.clone();
            zeroed[from..].fill(0);
            if let Some(read) = levels(&zeroed) {
                // Zeros after the end marker are no part of the image.
                assert_eq!(read, right, "{name} with zeros from {share} %");
            }
        }
    }
}

/// A cut JPEG to which the end marker was added again, as some programs that rescue files do.
#[test]
fn a_cut_jpeg_with_a_new_end_is_refused() {
    let mut refused = 0;
    for (name, whole) in
        read_files().filter(|(name, _)| name.starts_with("jpeg") && !name.contains("one-pixel"))
    {
        let end = whole.windows(2).rposition(|pair| pair == [0xff, 0xd9]).unwrap();
        let from = whole.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap() + 20;
        for at in (from..end - 1).step_by(((end - from) / 40).max(1)) {
            let mut cut = whole[..at].to_vec();
            // A half of a marker or of a stuffed byte is no data.
            while cut.last() == Some(&0xff) {
                cut.pop();
            }
            cut.extend([0xff, 0xd9]);
            assert!(decode_bytes(&cut).is_err(), "{name} cut at {at}");
            refused += 1;
        }
    }
    assert!(refused > 500, "{refused}");
}

#[test]
fn a_small_file_that_claims_a_large_image_is_refused_before_memory_is_taken() {
    let claims: [(&str, &str, usize, &[u8]); 6] = [
        ("png-rgb8.png", "PNG", 16, &[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]),
        ("bmp-rgb24.bmp", "BMP", 18, &[0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0]),
        ("bmp-rle8.bmp", "BMP with run-length coding", 18, &[0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0]),
        ("jpeg-444.jpg", "JPEG", 0, &[0xff, 0xff, 0xff, 0xff]),
        ("jpeg-420-progressive.jpg", "progressive JPEG", 0, &[0xff, 0xff, 0xff, 0xff]),
        ("pnm-p6.ppm", "PNM", 3, b"65535 65535 255\n"),
    ];
    for (name, kind, at, claim) in claims {
        let mut bytes = std::fs::read(folder().join(name)).unwrap();
        let start = bytes.windows(2).position(|pair| matches!(pair, [0xff, 0xc0 | 0xc2]));
        let at = if at == 0 { start.unwrap() + 5 } else { at };
        bytes[at..at + claim.len()].copy_from_slice(claim);
        if kind == "PNG" {
            let sum = crc32fast::hash(&bytes[12..29]);
            bytes[29..33].copy_from_slice(&sum.to_be_bytes());
        }
        let error = decode_bytes(&bytes).unwrap_err();
        let is_named = matches!(error, ImageFault::TooLarge(Excess { height: 65535, width: 65535, .. }));
        assert!(is_named || kind == "PNM" && matches!(error, ImageFault::Damaged { .. }), "{kind}: {error}");
    }
}

/// Calls `each` for mutations of the files, in turn. The name of a file begins with its format.
fn mutations(count: usize, seed: u64, mut each: impl FnMut(usize, &str, &[u8], Mutation, &[u8])) {
    let files: Vec<(String, Vec<u8>)> = read_files().collect();
    let mut rng = Rng::new(seed, "mutations");
    for index in 0..count {
        let (name, whole) = &files[index % files.len()];
        let (mutation, bytes) = mutated(&mut rng, whole);
        each(index, name, whole, mutation, &bytes);
    }
}

/// Truncation never passes as another image. Whatever a PNG holds has a checksum, so it is read as it was or not at
/// all. Other formats have no checksums: there, the promise is an answer.
#[test]
fn mutated_images_are_answered() {
    let mut read = 0;
    mutations(2000, 1, |index, name, whole, mutation, bytes| {
        let Some(image) = levels(bytes) else { return };
        read += 1;
        if matches!(mutation, Mutation::Cut) || name.starts_with("png") {
            assert_eq!(Some(image), levels(whole), "{name}, {mutation:?}, number {index}");
        }
    });
    assert!((50..1500).contains(&read), "{read} of 2000 were read");
}

/// Writes 20,000 mutated images of two seeds and what is read of each into `target/mutations`, for
/// `benches/peers/mutations.py`, which compares with Pillow.
#[test]
#[ignore = "writes files for benches/peers/mutations.py"]
fn mutated_images_are_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/mutations");
    std::fs::create_dir_all(&folder).unwrap();
    let mut table = Vec::new();
    let mut index = 0;
    let mut write = |_, name: &str, _: &[u8], mutation, bytes: &[u8]| {
        std::fs::write(folder.join(format!("{index}.bin")), bytes).unwrap();
        let answer = match decode_bytes(bytes) {
            Ok(decoded) => {
                let is_deep = decoded.is_deep;
                let image = if is_deep {
                    DynamicImage::ImageRgb16(decoded.image.into_rgb16())
                } else {
                    DynamicImage::ImageRgb8(decoded.image.into_rgb8())
                };
                image.save(folder.join(format!("{index}.png"))).unwrap();
                "read".to_owned()
            }
            Err(error) => error.to_string(),
        };
        table.push(format!("{index}\t{name}\t{mutation:?}\t{answer}\n"));
        index += 1;
    };
    mutations(10_000, 2, &mut write);
    mutations(10_000, 3, &mut write);
    std::fs::write(folder.join("table.txt"), table.concat()).unwrap();
}
