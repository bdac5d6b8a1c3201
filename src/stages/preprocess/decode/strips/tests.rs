//! Strips against whole images, on the files of `tests/golden/images.py` and mutations of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use image::DynamicImage;

use super::*;
use crate::digest::Digest;
use crate::kernels::mutation::mutated;
use crate::kernels::random::Rng;

/// Everything is large, and a strip has a few rows.
const TINY: DecodeLimits = DecodeLimits { small_bytes: 0, whole_bytes: 0, strip_bytes: 700 };

fn golden() -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images");
    let table = fs::read_to_string(folder.join("images.txt")).unwrap();
    let names = table.lines().map(|line| line.split(' ').next().unwrap());
    names.map(|name| (name.to_owned(), fs::read(folder.join(name)).unwrap())).collect()
}

fn file(path: PathBuf, bytes: &[u8]) -> File {
    fs::write(&path, bytes).unwrap();
    let digest = Some(Digest::of_bytes(bytes));
    File { path, digest, size_bytes: bytes.len() as u64, is_executable: false }
}

/// An image as its levels: colour type, width, bytes of all rows, and those of the indices of its palette.
#[derive(Debug, PartialEq)]
struct Levels {
    color: image::ColorType,
    width: u32,
    is_deep: bool,
    bytes: Vec<u8>,
    indices: Vec<u8>,
}

fn levels(strips: &mut Strips<'_>) -> Result<(Levels, usize), StageError> {
    let (mut all, mut count) = (None::<Levels>, 0);
    while let Some(strip) = strips.next()? {
        let indices = strip.indices().unwrap().map(DynamicImage::into_bytes).unwrap_or_default();
        let Decoded { image, is_deep, .. } = strip.decoded;
        let (color, width) = (image.color(), image.width());
        let all = all.get_or_insert_with(|| Levels {
            color,
            width,
            is_deep,
            bytes: Vec::new(),
            indices: Vec::new(),
        });
        assert_eq!((all.color, all.width, all.is_deep), (color, width, is_deep));
        all.bytes.extend(image.into_bytes());
        all.indices.extend(indices);
        count += 1;
    }
    let all = all.unwrap();
    let rows = all.bytes.len() / (all.width as usize * usize::from(all.color.bytes_per_pixel()));
    assert_eq!(strips.size(), (all.width, rows as u32));
    Ok((all, count))
}

fn whole(file: &File) -> Result<Levels, StageError> {
    levels(&mut Strips::whole(file)?).map(|(levels, _)| levels)
}

fn in_strips(file: &File, limits: DecodeLimits) -> Result<(Levels, usize), StageError> {
    levels(&mut Strips::open(file, limits)?)
}

fn is_too_large(error: &StageError) -> bool {
    matches!(error, StageError::Image { source: ImageFault::TooLarge(_), .. })
}

#[test]
fn strips_have_the_levels_of_the_whole_image() {
    let folder = tempfile::tempdir().unwrap();
    let (mut read, mut undivided) = (0, Vec::new());
    for (name, bytes) in golden() {
        let file = file(folder.path().join(&name), &bytes);
        for strip_bytes in [1, 300, 700, 1 << 20] {
            match (whole(&file), in_strips(&file, DecodeLimits { strip_bytes, ..TINY })) {
                (Ok(whole), Ok((strips, count))) => {
                    assert!(strips == whole, "{name} differs with strips of {strip_bytes} bytes");
                    read += usize::from(strip_bytes == 300 && count > 1);
                }
                (Ok(_), Err(error)) => {
                    assert!(is_too_large(&error), "{name}: {error:?}");
                    undivided.push(name.clone());
                }
                (Err(_), Err(_)) => {}
                (Err(error), Ok(_)) => panic!("{name} is refused at once, but not by strips: {error:?}"),
            }
        }
    }
    undivided.dedup();
    assert!(read >= 40, "{read} were read by more than one strip");
    let expected = [
        "bmp-rle8.bmp",
        "png-interlaced-grey1.png",
        "png-interlaced.png",
        "png-turned.png",
        "pnm-p1.pbm",
        "pnm-p2.pgm",
        "pnm-p3.ppm",
        "tiff-orientation6.tif",
    ];
    assert_eq!(undivided, expected);
}

/// Answers mutations by strips as at once. Returns how many were read.
fn answer(count: usize, seed: u64) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let is_divided = |name: &str| ["png", "tiff", "bmp", "pnm"].iter().any(|format| name.starts_with(format));
    let files: Vec<(String, Vec<u8>)> = golden().into_iter().filter(|(name, _)| is_divided(name)).collect();
    let (mut rng, mut read) = (Rng::new(seed, "strips"), 0);
    for index in 0..count {
        let (name, bytes) = &files[index % files.len()];
        let (mutation, bytes) = mutated(&mut rng, bytes);
        let file = file(folder.path().join("image"), &bytes);
        match (whole(&file), in_strips(&file, TINY)) {
            (Ok(whole), Ok((strips, _))) => {
                assert!(whole == strips, "{name}, {mutation:?}, number {index} of seed {seed}");
                read += 1;
            }
            (Ok(_), Err(error)) => {
                assert!(
                    is_too_large(&error),
                    "{name}, {mutation:?}, number {index} of seed {seed}: {error:?}"
                );
            }
            (Err(_), Err(_)) => {}
            (Err(error), Ok(_)) => {
                panic!("{name}, {mutation:?}, number {index} of seed {seed}: read by strips only: {error:?}");
            }
        }
    }
    read
}

#[test]
fn mutated_images_are_answered_by_strips_as_at_once() {
    let read = answer(1000, 1);
    assert!((30..700).contains(&read), "{read} of 1000 were read");
}

#[test]
#[ignore = "the long form of the test above"]
fn many_mutated_images_are_answered_by_strips_as_at_once() {
    for seed in [2, 3] {
        let read = answer(10_000, seed);
        assert!((300..7000).contains(&read), "{read} of 10,000 were read, seed {seed}");
    }
}

#[test]
fn a_file_that_is_edited_meanwhile_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = &golden()["bmp-grey8.bmp"];
    let file = file(folder.path().join("image"), bytes);
    let mut strips = Strips::open(&file, TINY).unwrap();
    assert!(strips.next().unwrap().is_some());
    let mut edited = bytes.clone();
    *edited.last_mut().unwrap() ^= 1;
    fs::write(&file.path, edited).unwrap();
    let error = levels(&mut strips).unwrap_err();
    assert!(error.to_string().contains("changed"), "{error}");
}

#[test]
fn what_is_decoded_at_once_is_refused_by_its_kind_and_limit() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = |name: &str| {
        let file = file(folder.path().join(name), &golden()[name]);
        let error = in_strips(&file, TINY).unwrap_err();
        std::error::Error::source(&error).unwrap().to_string()
    };
    assert!(refusal("png-interlaced.png").ends_with("the limit is 512 MiB for an interlaced PNG"));
    assert!(refusal("bmp-rle8.bmp").ends_with("for a BMP with run-length coding"));
    assert!(refusal("pnm-p2.pgm").ends_with("for a PNM with its levels as text"));
    assert!(refusal("png-turned.png").ends_with("for an image that its metadata turn"));
}

#[test]
fn what_cannot_be_divided_is_decoded_at_once_up_to_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(folder.path().join("image"), &golden()["png-interlaced.png"]);
    // 43×37 px in RGB: 4773 bytes.
    let limits = |whole_bytes| DecodeLimits { whole_bytes, ..TINY };
    assert_eq!(in_strips(&file, limits(4773)).unwrap().1, 1);
    assert!(is_too_large(&in_strips(&file, limits(4772)).unwrap_err()));
}

/// A file of 65535×65535 px without its data is refused before memory is taken, whatever its strips.
#[test]
fn a_claim_of_a_large_image_takes_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut png = golden()["png-grey8.png"].clone();
    png[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    let sum = crc32fast::hash(&png[12..29]);
    png[29..33].copy_from_slice(&sum.to_be_bytes());
    let mut bmp = golden()["bmp-grey8.bmp"].clone();
    bmp[18..26].copy_from_slice(&[0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0]);
    for (bytes, words) in [(png, "compressed data cannot be read"), (bmp, "reach beyond its end")] {
        let file = file(folder.path().join("image"), &bytes);
        let mut strips = Strips::open(&file, DecodeLimits::default()).unwrap();
        assert_eq!(strips.size(), (65535, 65535));
        let error = levels(&mut strips).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(words), "{source}");
    }
    let wide = [b"P5 4000000000 4000000000 255\n".as_slice(), &[7; 100]].concat();
    let error = in_strips(&file(folder.path().join("wide"), &wide), DecodeLimits::default()).unwrap_err();
    assert!(is_too_large(&error), "{error:?}");
}
