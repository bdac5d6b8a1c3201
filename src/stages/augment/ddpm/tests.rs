//! Trains a few steps on a set of tiny images and samples from the result.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use image::{GrayImage, Luma, Rgb, RgbImage};

use crate::artifacts::Files;
use crate::artifacts::image_set::{
    Label, Preprocessing, Resize, label_name, labelled, pixels, pixels_name, read_mask, read_rgb, write_mask,
    write_preprocessing, write_rgb,
};
use crate::digest::Digest;
use crate::kernels::backbone::Device;
use crate::stages::fields::{Fields, Reader, Value};
use crate::stages::{Context, Inputs, Item, ItemFile, Items, Make, Progress, Role, Spec, Stage, StageError};

/// A context with a cache of items that can cancel a training after some steps.
struct ItemCache {
    folder: tempfile::TempDir,
    kept: Mutex<Vec<(Fields, Item)>>,
    cancelled: AtomicBool,
    last_step: AtomicUsize,
    steps: AtomicUsize,
    log: Mutex<Vec<String>>,
}

impl ItemCache {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            kept: Mutex::default(),
            cancelled: AtomicBool::new(false),
            last_step: AtomicUsize::new(usize::MAX),
            steps: AtomicUsize::new(0),
            log: Mutex::default(),
        }
    }

    fn run(&self, count: usize, set: &Path) -> Result<Files, StageError> {
        let table: Fields = [
            ("images", Value::Text("images".to_owned())),
            ("method", Value::Text("ddpm".to_owned())),
            ("count", Value::Integer(count as i64)),
            ("side", Value::Integer(16)),
            ("channels", Value::Integer(8)),
            ("steps", Value::Integer(12)),
            ("batch", Value::Integer(6)),
            ("sampling_steps", Value::Integer(3)),
            ("guidance", Value::Float(2.0)),
            ("eta", Value::Float(0.5)),
            ("blend", Value::Integer(1)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        let (mut problems, mut ports) = (Vec::new(), Vec::new());
        let mut reader = Reader::new(&table, &mut problems, &mut ports);
        let spec = Spec::new(super::super::Augment::read(&mut reader));
        reader.finish();
        assert!(problems.is_empty(), "{problems:?}");
        let output = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        let (work, environment) = (output.join("no work"), std::collections::BTreeMap::new());
        let context = Context {
            seed: 5,
            threads: 2,
            progress: self,
            items: self,
            cancelled: &self.cancelled,
            is_offline: true,
            search_device: Device::Cpu,
            work: &work,
            project: self.folder.path(),
            environment: &environment,
        };
        let inputs = Inputs([(Role::only("images"), hashed(set))].into());
        spec.run(&inputs, &output, &context)?;
        Ok(Files::of_folder(&output.join("images")).unwrap())
    }
}

/// Returns the files of a folder with their digests, as the executor passes them.
fn hashed(folder: &Path) -> Files {
    let files = Files::of_folder(folder).unwrap();
    Files::new(files.iter().map(|(name, file)| {
        let digest = Some(Digest::of_bytes(&file.read().unwrap()));
        (name.to_owned(), crate::artifacts::File { digest, ..file.clone() })
    }))
}

impl Progress for ItemCache {
    fn report(&self, done: u64, _: u64, unit: &'static str) {
        if unit == "step" {
            self.steps.fetch_add(1, Ordering::Relaxed);
            if done as usize == self.last_step.load(Ordering::Relaxed) {
                self.cancelled.store(true, Ordering::Relaxed);
            }
        }
    }
    fn log(&self, line: &str) {
        self.log.lock().unwrap().push(line.to_owned());
    }
}

impl Items for ItemCache {
    fn recall(&self, fields: &Fields) -> Option<Item> {
        let kept = self.kept.lock().unwrap();
        kept.iter().find(|(known, _)| known == fields).map(|(_, item)| item.clone())
    }
    fn keep(&self, fields: &Fields, files: &[PathBuf], note: &str) -> Result<Item, StageError> {
        let kept = files.iter().map(|path| {
            let digest = Digest::of_file(path).unwrap();
            let to = self.folder.path().join(digest.to_string());
            std::fs::rename(path, &to).unwrap();
            let size_bytes = to.metadata().unwrap().len();
            ItemFile { path: to, digest, size_bytes }
        });
        let item = Item { files: kept.collect(), note: note.to_owned() };
        self.kept.lock().unwrap().push((fields.clone(), item.clone()));
        Ok(item)
    }
    fn once(&self, fields: &Fields, make: &mut Make<'_>) -> Result<Item, StageError> {
        if let Some(item) = self.recall(fields) {
            return Ok(item);
        }
        let (files, note) = make(&self.folder.path().join("once"))?;
        let item = self.keep(fields, &files, &note)?;
        std::fs::remove_dir_all(self.folder.path().join("once")).unwrap();
        Ok(item)
    }
    fn add_output(&self, file: &ItemFile, name: &str) {
        // The newest folder is the output of the current run.
        let outputs = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap());
        let newest = outputs
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(".tmp"))
            .max_by_key(|entry| entry.metadata().unwrap().created().unwrap())
            .unwrap();
        let to = newest.path().join(name);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(&file.path, to).unwrap();
    }
}

/// Writes three normal and two defective images of 40×24 px, and a defect in `test` that must not be read.
fn set() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let how = Preprocessing {
        height_px: None,
        width_px: None,
        resize: Resize::Native,
        via_px: None,
        depth_bits: None,
    };
    write_preprocessing(folder.path(), &how).unwrap();
    for index in 0..6_u32 {
        let (split, label) = match index {
            0..3 => ("train", Label::Normal),
            3..5 => ("train", Label::Defect),
            _ => ("test", Label::Defect),
        };
        let id = format!("{split}/{index}");
        let shade = |x: u32, y: u32| Rgb([120 + ((x * 7 + y * 13 + index * 5) % 17) as u8; 3]);
        let mut image = RgbImage::from_fn(24, 40, shade);
        let mut mask = GrayImage::new(24, 40);
        for column in 8..14 {
            if label == Label::Defect {
                image.put_pixel(column, 20, Rgb([20; 3]));
                mask.put_pixel(column, 20, Luma([255]));
            }
        }
        write_rgb(&folder.path().join(pixels_name(&id)), &image).unwrap();
        write_mask(&folder.path().join(label_name(split, label, "any", &id)), &mask).unwrap();
    }
    folder
}

fn digests(files: &Files) -> Vec<(String, String)> {
    let digest =
        |file: &crate::artifacts::File| blake3::hash(&file.read().unwrap()).to_hex()[..16].to_owned();
    files.iter().map(|(name, file)| (name.to_owned(), digest(file))).collect()
}

#[test]
fn a_resumed_training_gives_equal_bytes_and_more_samples_do_not_train_again() {
    let (set, cache, stopped) = (set(), ItemCache::new(), ItemCache::new());
    let whole = cache.run(3, set.path()).unwrap();
    assert_eq!(cache.steps.load(Ordering::Relaxed), 12);

    stopped.last_step.store(7, Ordering::Relaxed);
    assert!(matches!(stopped.run(3, set.path()), Err(StageError::Cancelled)));
    assert!(stopped.folder.path().join("once/checkpoint.safetensors").exists());
    stopped.cancelled.store(false, Ordering::Relaxed);
    let resumed = stopped.run(3, set.path()).unwrap();
    assert_eq!(stopped.steps.load(Ordering::Relaxed), 12, "no step is repeated");
    assert!(stopped.log.lock().unwrap().iter().any(|line| line == "resumed after step 7"));
    assert_eq!(digests(&whole), digests(&resumed));

    let more = cache.run(5, set.path()).unwrap();
    assert_eq!(cache.steps.load(Ordering::Relaxed), 12, "it is already trained");
    let first: Vec<_> = digests(&whole).into_iter().filter(|(name, _)| name.contains("/ddpm/")).collect();
    assert_eq!(first.len(), 6);
    assert!(first.iter().all(|one| digests(&more).contains(one)), "the first samples are the same");
}

#[test]
fn a_damaged_checkpoint_is_logged_and_ignored() {
    let (set, cache) = (set(), ItemCache::new());
    std::fs::create_dir_all(cache.folder.path().join("once")).unwrap();
    std::fs::write(cache.folder.path().join("once/checkpoint.safetensors"), b"half").unwrap();
    let files = cache.run(1, set.path()).unwrap();
    assert!(cache.log.lock().unwrap().iter().any(|line| line.starts_with("starting over: ")));
    assert_eq!(digests(&files), digests(&ItemCache::new().run(1, set.path()).unwrap()));
}

#[test]
fn a_sample_changes_only_its_hole_and_has_a_line_of_provenance() {
    let (set, cache) = (set(), ItemCache::new());
    let files = cache.run(6, set.path()).unwrap();
    let normals = Files::of_folder(set.path()).unwrap();
    let all = labelled(&files);
    assert_eq!(all.len(), 6);
    let table = String::from_utf8(files.get("provenance.csv").unwrap().read().unwrap()).unwrap();
    for (line, (id, one)) in table.lines().skip(1).zip(&all) {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!((cells[0], cells[1]), (*id, "ddpm"));
        assert!(cells[2].starts_with("train/") && cells[3].starts_with("train/"), "{line}");
        let (image, mask) = (read_rgb(pixels(&files)[id]).unwrap(), read_mask(one.mask).unwrap());
        let before = read_rgb(pixels(&normals)[cells[2]]).unwrap();
        let marked: usize = mask.iter().map(|&value| usize::from(value == 255)).sum();
        assert!(marked > 0 && marked < 200, "{id}: {marked}");
        let mask: Vec<bool> = mask.iter().map(|&value| value > 0).collect();
        let hole = crate::kernels::diffusion::dilate(&mask, 24, 1);
        let mut changed = 0;
        for (pixel, (a, b)) in image.pixels().zip(before.pixels()).enumerate() {
            assert!(hole[pixel] || a == b, "{id}: outside of the hole nothing changes");
            changed += usize::from(a != b);
        }
        assert!(changed > 0);
    }
    for name in
        ["training/loss.csv", "training/loss.svg", "training/samples.png", "training/network.safetensors"]
    {
        assert!(files.get(name).is_some(), "{name}");
    }
}

#[test]
fn images_smaller_than_a_patch_are_refused() {
    let (folder, cache) = (set(), ItemCache::new());
    write_rgb(&folder.path().join(pixels_name("train/3")), &RgbImage::new(12, 40)).unwrap();
    write_mask(
        &folder.path().join(label_name("train", Label::Defect, "any", "train/3")),
        &GrayImage::from_pixel(12, 40, Luma([255])),
    )
    .unwrap();
    let error = cache.run(1, folder.path()).unwrap_err();
    assert!(error.to_string().contains("`train/3` has 40×12 px"), "{error}");
    assert!(error.help().unwrap().contains("`side`"));
}
