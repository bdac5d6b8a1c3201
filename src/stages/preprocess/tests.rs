mod annotations;
mod counts;
mod images;
mod large;
mod layouts;
mod masks;
mod mutations;

use std::path::PathBuf;

use image::{GrayImage, Luma, Rgb, RgbImage};

use super::*;
use crate::artifacts::Files;
use crate::artifacts::image_set::Resize;
use crate::artifacts::image_set::{labelled, parse_label, pixels, read_mask, read_preprocessing, read_rgb};
use crate::artifacts::image_set::{write_mask, write_rgb};
use crate::digest::Digest;
use crate::stages::context::testing::TestContext;
use crate::stages::fields::{Fields, Problem, Reader, Value, fields};
use crate::stages::{Role, Stage};

/// An input folder that a test fills.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Adds an image of 20×30 px that no other name has.
    fn image(self, name: &str) -> Self {
        let blue = Digest::of_bytes(name.as_bytes()).as_bytes()[0];
        self.coloured_image(name, 20, 30, blue)
    }

    /// Adds an image; those of one size are equal.
    fn sized_image(self, name: &str, height: u32, width: u32) -> Self {
        self.coloured_image(name, height, width, 99)
    }

    fn coloured_image(self, name: &str, height: u32, width: u32, blue: u8) -> Self {
        let image = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, blue]));
        write_rgb(&self.path(name), &image).unwrap();
        self
    }

    /// Adds a mask of 20×30 px in which the given pixels (row, column) are marked with 255.
    fn mask(self, name: &str, points: &[(u32, u32)]) -> Self {
        let mut mask = GrayImage::new(30, 20);
        for &(row, column) in points {
            mask.put_pixel(column, row, Luma([255]));
        }
        write_mask(&self.path(name), &mask).unwrap();
        self
    }

    /// Adds a mask of 20×30 px with the given pixels (row, column, level).
    fn grey_mask(self, name: &str, points: &[(u32, u32, u8)]) -> Self {
        let mut mask = GrayImage::new(30, 20);
        for &(row, column, level) in points {
            mask.put_pixel(column, row, Luma([level]));
        }
        write_mask(&self.path(name), &mask).unwrap();
        self
    }

    /// Adds a mask that marks nothing.
    fn sized_mask(self, name: &str, height: u32, width: u32) -> Self {
        write_mask(&self.path(name), &GrayImage::new(width, height)).unwrap();
        self
    }

    fn text(self, name: &str, text: &str) -> Self {
        crate::artifacts::files::write(&self.path(name), text.as_bytes()).unwrap();
        self
    }

    /// Adds a small KSDD2 data set below `top`.
    fn ksdd2(self, top: &str) -> Self {
        self.image(&format!("{top}train/10000.png"))
            .mask(&format!("{top}train/10000_GT.png"), &[])
            .image(&format!("{top}train/10001.png"))
            .mask(&format!("{top}train/10001_GT.png"), &[(4, 5), (4, 6), (15, 20)])
            .image(&format!("{top}test/20000.png"))
            .mask(&format!("{top}test/20000_GT.png"), &[(0, 0)])
    }

    fn files(&self) -> Files {
        Files::of_folder(self.0.path()).unwrap()
    }
}

fn read(pairs: &[(&str, Value)]) -> (Preprocess, Vec<Problem>) {
    let mut table: Fields = pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    table.insert("input".to_owned(), "dataset".into());
    let (mut problems, mut ports) = (Vec::new(), Vec::new());
    let mut reader = Reader::new(&table, &mut problems, &mut ports);
    let spec = Preprocess::read(&mut reader);
    reader.finish();
    (spec, problems)
}

fn spec(pairs: &[(&str, Value)]) -> crate::stages::Spec {
    let (spec, problems) = read(pairs);
    assert!(problems.is_empty(), "{problems:?}");
    crate::stages::Spec::new(spec)
}

fn run_on(
    context: &TestContext,
    pairs: &[(&str, Value)],
    folder: &Folder,
    output: &str,
) -> Result<Files, StageError> {
    let inputs = Inputs([(Role::only("input"), folder.files())].into());
    context.run(&spec(pairs), &inputs, 0, output)
}

fn failure(pairs: &[(&str, Value)], folder: &Folder) -> String {
    run_on(&TestContext::new(), pairs, folder, IMAGES).unwrap_err().to_string()
}

fn int(number: i64) -> Value {
    Value::Integer(number)
}

/// Returns split, label, kind and id of each image.
fn listing(files: &Files) -> Vec<String> {
    files
        .iter()
        .filter_map(|(name, _)| parse_label(name).map(|_| name.trim_start_matches("labels/").to_owned()))
        .collect()
}

#[test]
fn ksdd2_is_found_below_a_top_folder_and_labelled_by_its_masks() {
    for top in ["", "KSDD2/", "a/b/"] {
        let folder = Folder::new().ksdd2(top).text("README.txt", "hello").text("__MACOSX/._x.png", "");
        let context = TestContext::new();
        let files = run_on(&context, &[], &folder, IMAGES).unwrap();
        assert_eq!(
            listing(&files),
            [
                "test/defect/any/test/20000.png",
                "train/defect/any/train/10001.png",
                "train/normal/train/10000.png"
            ]
        );
        let set = pixels(&files);
        assert_eq!(set.keys().copied().collect::<Vec<_>>(), ["test/20000", "train/10000", "train/10001"]);
        assert_eq!(read_rgb(set["train/10000"]).unwrap().dimensions(), (30, 20));
        assert_eq!(read_preprocessing(&files).unwrap().resize, Resize::Native);
    }
}

#[test]
fn images_and_masks_are_resized_and_keep_their_defects() {
    let folder = Folder::new().ksdd2("");
    let context = TestContext::new();
    let files = run_on(&context, &[("height", int(5)), ("width", int(4))], &folder, IMAGES).unwrap();
    for (id, labelled) in labelled(&files) {
        let mask = read_mask(labelled.mask).unwrap();
        assert_eq!(mask.dimensions(), (4, 5), "{id}");
        assert!(mask.iter().all(|value| [0, 255].contains(value)));
    }
    let mask = read_mask(labelled(&files)["test/20000"].mask).unwrap();
    assert_eq!(mask.iter().map(|&value| usize::from(value == 255)).sum::<usize>(), 1);
    let how = read_preprocessing(&files).unwrap();
    assert_eq!((how.height_px, how.width_px, how.resize), (Some(5), Some(4), Resize::Stretch));
}

#[test]
fn the_reference_loses_thin_defects_and_their_labels() {
    let folder = Folder::new().ksdd2("").image("test/20001.png").mask("test/20001_GT.png", &[]);
    let pairs = [("height", int(5)), ("width", int(4)), ("mask_resize", "reference".into())];
    let context = TestContext::new();
    let files = run_on(&context, &pairs, &folder, IMAGES).unwrap();
    assert!(listing(&files).iter().all(|name| name.contains("/normal/")), "{:?}", listing(&files));
}

#[test]
fn every_defect_of_a_training_image_becomes_a_crop() {
    let folder = Folder::new().ksdd2("");
    let context = TestContext::new();
    let crops = fields([("size", int(16)), ("padding", int(2))]);
    let files = run_on(&context, &[("crops", crops.into())], &folder, CROPS).unwrap();
    assert_eq!(listing(&files), ["train/defect/any/train/10001_0.png", "train/defect/any/train/10001_1.png"]);
    for (id, labelled) in labelled(&files) {
        let mask = read_mask(labelled.mask).unwrap();
        assert!(mask.dimensions() == (16, 16) && mask.contains(&255), "{id}");
        assert_eq!(read_rgb(pixels(&files)[id]).unwrap().dimensions(), (16, 16));
    }
    assert_eq!(read_preprocessing(&files).unwrap().height_px, Some(16));
}

#[test]
fn copies_are_dropped_and_missing_masks_are_all_named() {
    let mut folder =
        Folder::new().ksdd2("").image("train/10301 (copy).png").mask("train/10301_GT (copy).png", &[]);
    assert_eq!(run_on(&TestContext::new(), &[], &folder, IMAGES).unwrap().len(), 7);
    for number in 30000..30012 {
        folder = folder.image(&format!("test/{number}.png"));
    }
    let error = failure(&[], &folder.mask("train/9_GT.png", &[]));
    assert!(error.starts_with("13 files do not fit") && error.contains("and 3 more"), "{error}");
    assert!(error.contains("test/30000.png` has no mask `30000_GT.png`"), "{error}");
}

#[test]
fn broken_images_and_wrong_sizes_are_all_named_as_the_user_knows_them() {
    let folder = Folder::new().ksdd2("").image("test/1.png").mask("test/1_GT.png", &[]);
    let whole = std::fs::read(folder.path("test/1.png")).unwrap();
    std::fs::write(folder.path("test/1.png"), &whole[..whole.len() / 2]).unwrap();
    let error = run_on(&TestContext::new(), &[], &folder, IMAGES).unwrap_err();
    let StageError::Image { path, .. } = &error else { panic!("{error}") };
    assert_eq!(*path, folder.path("test/1.png"));
    let folder = folder.sized_image("test/2.png", 20, 31).mask("test/2_GT.png", &[]);
    let error = failure(&[], &folder);
    assert!(error.contains("2 images cannot be used"), "{error}");
    assert!(
        error.contains("test/1.png") && error.contains("20×30 px") && error.contains("20×31 px"),
        "{error}"
    );
}

#[test]
fn mvtec_gives_kinds_and_needs_a_mask_for_each_defect() {
    let folder = Folder::new()
        .image("bottle/train/good/000.png")
        .image("bottle/test/good/000.png")
        .image("bottle/test/crack/000.png")
        .mask("bottle/ground_truth/crack/000_mask.png", &[(1, 1)])
        .text("bottle/license.txt", "");
    let context = TestContext::new();
    let files = run_on(&context, &[], &folder, IMAGES).unwrap();
    assert_eq!(
        listing(&files),
        [
            "test/defect/crack/test/crack/000.png",
            "test/normal/test/good/000.png",
            "train/normal/train/good/000.png"
        ]
    );
    let error = failure(&[], &folder.image("bottle/test/hole/003.png"));
    assert!(error.contains("ground_truth/hole/003_mask.png"), "{error}");
}

#[test]
fn ksdd_is_split_by_item() {
    let mut folder = Folder::new();
    for item in 1..=6 {
        let points: &[(u32, u32)] = if item % 2 == 0 { &[(3, 3)] } else { &[] };
        folder = folder
            .image(&format!("kos0{item}/Part0.png"))
            .mask(&format!("kos0{item}/Part0_label.png"), points);
    }
    let context = TestContext::new();
    let files = run_on(&context, &[("fold", int(1))], &folder, IMAGES).unwrap();
    let tested: Vec<String> = listing(&files).into_iter().filter(|name| name.starts_with("test/")).collect();
    assert_eq!(tested, ["test/defect/any/kos02/Part0.png", "test/normal/kos05/Part0.png"]);
}

#[test]
fn a_table_serves_any_folder() {
    let table = "path,mask,split,label,kind\n\
                 a/one.png,,train,normal,\n\
                 ./b/two.png,m/two.png,test,defect,dent\n\
                 b\\three.png,m/three.png,test,,\n";
    let folder = Folder::new()
        .image("a/one.png")
        .image("b/two.png")
        .image("b/three.png")
        .mask("m/two.png", &[(1, 1)])
        .mask("m/three.png", &[])
        .text("images.csv", table);
    let context = TestContext::new();
    let files = run_on(&context, &[], &folder, IMAGES).unwrap();
    assert_eq!(
        listing(&files),
        ["test/defect/dent/b/two.png", "test/normal/b/three.png", "train/normal/a/one.png"]
    );
    let wrong = "path,mask,split,label\n\
                 a/one.png,,train,fine\n\
                 b/two.png,m/nine.png,test,defect\n\
                 b/two.png,,test,\n\
                 b/four.png,,test,normal\n\
                 b/two.png,m/two.png,x/y,\n";
    let error = failure(&[], &folder.text("images.csv", wrong));
    for wanted in [
        "line 2: `label`",
        "line 3: there is no file `m/nine.png`",
        "line 4: `b/two.png` has neither",
        "b/four.png",
        "line 6: `split`",
    ] {
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
    let error = failure(&[], &Folder::new().text("images.csv", "photo,split\na,train\n"));
    assert!(error.contains("no column `path`, only `photo`, `split`"), "{error}");
}

#[test]
fn errors_of_unknown_and_ambiguous_inputs_list_what_was_found() {
    let error = failure(&[], &Folder::new().image("photos/a.png").image("more/b.png").text("notes.txt", ""));
    assert!(error.contains("no known layout") && error.contains("`photos/*.png` (1)"), "{error}");
    assert!(failure(&[], &Folder::new()).contains("no file at all"));
    let both = Folder::new().ksdd2("").text("images.csv", "path,split\n");
    let wanted = "several layouts: `csv` (`images.csv`), `ksdd2` (`test/20000_GT.png`)";
    assert!(failure(&[], &both).contains(wanted), "{}", failure(&[], &both));
    run_on(&TestContext::new(), &[("layout", "ksdd2".into())], &both, IMAGES).unwrap();
    assert!(failure(&[("layout", "mvtec".into())], &both).contains("not the layout `mvtec`"));
    let many = Folder::new().image("bottle/train/good/0.png").image("cable/train/good/0.png");
    let inputs = Inputs([(Role::only("input"), many.files())].into());
    let error = TestContext::new().run(&spec(&[]), &inputs, 0, IMAGES).unwrap_err();
    assert!(error.help().unwrap().contains("`category = \"bottle\"`"), "{error}");
    let files = run_on(
        &TestContext::new(),
        &[("category", "cable".into())],
        &many.image("cable/test/good/1.png"),
        IMAGES,
    );
    assert_eq!(listing(&files.unwrap()), ["test/normal/test/good/1.png", "train/normal/train/good/0.png"]);
}

#[test]
fn an_empty_split_and_a_doubled_id_are_refused() {
    let folder = Folder::new().image("train/1.png").mask("train/1_GT.png", &[]);
    let error = failure(&[], &folder);
    assert!(error.contains("split `test`; found `train` with 1 normal and 0 defective"), "{error}");
    let folder = folder.image("test/2.png").mask("test/2_GT.png", &[]);
    assert!(failure(&[("crops", Fields::new().into())], &folder).contains("`crops` would be empty"));
    std::fs::copy(folder.path("train/1.png"), folder.path("train/1.jpg")).unwrap();
    // The second image uses the mask, so the first has none.
    assert!(failure(&[], &folder).contains("has no mask"));
    let table = "path,split,label\na.png,train,normal\na.png,test,normal\n";
    assert!(failure(&[], &Folder::new().image("a.png").text("images.csv", table)).contains("same id `a`"));
}

#[test]
fn fields_that_have_no_meaning_are_refused() {
    let code = |pairs: &[(&str, Value)]| read(pairs).1.first().map(Problem::code);
    assert_eq!(code(&[("height", int(5))]), Some("missing_field"));
    assert_eq!(code(&[("resize", "fit".into())]), Some("unused_field"));
    assert_eq!(code(&[("layout", "mvtec".into()), ("fold", int(1))]), Some("unused_field"));
    assert_eq!(code(&[("segmented", int(16))]), Some("unknown_field"));
    assert_eq!(code(&[("height", int(0)), ("width", int(4))]), Some("out_of_range"));
    let via = fields([("height", int(632)), ("width", int(224))]);
    assert_eq!(code(&[("via", via.clone().into())]), Some("unused_field"));
    assert_eq!(code(&[("via", via.into()), ("height", int(316)), ("width", int(112))]), None);
}

#[test]
fn outputs_and_key_follow_the_fields() {
    let (plain, _) = read(&[]);
    let (cropped, _) = read(&[("crops", Fields::new().into())]);
    assert_eq!((plain.outputs().len(), cropped.outputs().len()), (1, 2));
    assert_ne!(plain.key_fields(), cropped.key_fields());
    assert_eq!(
        plain.key_fields().keys().collect::<Vec<_>>(),
        ["csv", "depth", "fold", "layout", "mask_resize", "mask_threshold"]
    );
    let (known, _) = read(&[("layout", "mvtec".into())]);
    assert!(!known.key_fields().contains_key("csv"));
}

/// A cache of items that also stores the names of added files and the lines of the log.
#[derive(Default)]
struct ItemCache {
    lines: std::sync::Mutex<Vec<String>>,
    kept: std::sync::Mutex<Vec<(Fields, crate::stages::Item)>>,
    added: std::sync::Mutex<Vec<String>>,
}

impl crate::stages::Items for ItemCache {
    fn recall(&self, fields: &Fields) -> Option<crate::stages::Item> {
        let kept = self.kept.lock().unwrap();
        kept.iter().find(|(known, _)| known == fields).map(|(_, item)| item.clone())
    }
    fn keep(
        &self,
        fields: &Fields,
        files: &[PathBuf],
        note: &str,
    ) -> Result<crate::stages::Item, StageError> {
        let file = |path: &PathBuf| {
            assert!(path.is_file());
            crate::stages::ItemFile { path: path.clone(), digest: Digest::of_bytes(b""), size_bytes: 0 }
        };
        let item = crate::stages::Item { files: files.iter().map(file).collect(), note: note.to_owned() };
        self.kept.lock().unwrap().push((fields.clone(), item.clone()));
        Ok(item)
    }
    fn once(&self, _: &Fields, _: &mut crate::stages::Make<'_>) -> Result<crate::stages::Item, StageError> {
        unreachable!("images are kept one by one")
    }
    fn add_output(&self, _: &crate::stages::ItemFile, name: &str) {
        self.added.lock().unwrap().push(name.to_owned());
    }
}

impl crate::stages::Progress for ItemCache {
    fn report(&self, _: u64, _: u64, _: &'static str) {}
    fn log(&self, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
    }
}

impl ItemCache {
    /// Runs the stage on a folder. Returns the number of items that were not cached.
    fn count_new_items(&self, spec: &crate::stages::Spec, folder: &Folder) -> usize {
        let output = tempfile::tempdir().unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let environment = std::collections::BTreeMap::new();
        let context = Context {
            seed: 0,
            threads: 1,
            progress: self,
            items: self,
            cancelled: &stop,
            is_offline: true,
            search_device: crate::kernels::backbone::Device::Cpu,
            work: output.path(),
            project: output.path(),
            environment: &environment,
        };
        let before = self.kept.lock().unwrap().len();
        self.added.lock().unwrap().clear();
        self.lines.lock().unwrap().clear();
        let inputs = Inputs([(Role::only("input"), digested(folder))].into());
        spec.run(&inputs, output.path(), &context).unwrap();
        assert!(!output.path().join("scratch").exists());
        self.kept.lock().unwrap().len() - before
    }
}

/// Returns the files of the folder with their digests, as the executor passes them.
fn digested(folder: &Folder) -> Files {
    Files::new(folder.files().iter().map(|(name, file)| {
        let digest = Some(Digest::of_bytes(&file.read().unwrap()));
        (name.to_owned(), crate::artifacts::File { digest, ..file.clone() })
    }))
}

#[test]
fn a_changed_image_is_recomputed_and_a_moved_image_is_not() {
    let cache = ItemCache::default();
    let crops = fields([("size", int(16))]);
    let spec = spec(&[("crops", crops.into()), ("height", int(10)), ("width", int(15))]);
    let count_new_items = |folder: &Folder| cache.count_new_items(&spec, folder);
    let folder = Folder::new().ksdd2("");
    assert_eq!(count_new_items(&folder), 3);
    let added = cache.added.lock().unwrap().clone();
    assert_eq!(added.len(), 3 * 2 + 2 * 2);
    assert_eq!(count_new_items(&folder), 0);
    assert_eq!(*cache.added.lock().unwrap(), added, "cached items are added under the same names");
    let folder = folder.sized_image("test/20000.png", 20, 31).image("test/20000.png");
    assert_eq!(count_new_items(&folder), 0, "equal bytes");
    let folder = folder.mask("test/20000_GT.png", &[(1, 1), (2, 2)]);
    assert_eq!(count_new_items(&folder), 1);
    std::fs::rename(folder.path("test/20000.png"), folder.path("test/20009.png")).unwrap();
    std::fs::rename(folder.path("test/20000_GT.png"), folder.path("test/20009_GT.png")).unwrap();
    assert_eq!(count_new_items(&folder), 0, "the fields of an item do not contain its name");
}
