//! Hashing the whole store, for `patchflow cache verify`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rayon::prelude::*;

use crate::cache::error::{AtPath, CacheError};
use crate::cache::local::objects::stat;
use crate::cache::local::records::RECORDED;
use crate::cache::local::stat_index::FileStat;
use crate::cache::local::{Area, Store};
use crate::digest::Digest;

/// The progress of a verification; objects only, since nothing else takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Objects hashed.
    pub objects: u64,
    /// Objects in all.
    pub objects_total: u64,
    /// Bytes hashed.
    pub bytes: u64,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Sound objects.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Sound trees.
    pub trees: u64,
    /// Sound records.
    pub records: u64,
    /// The former paths of damaged files, which are in the quarantine now. In order of path within each kind.
    pub damaged: Vec<PathBuf>,
    /// Files that the store did not write; they are not touched.
    pub foreign: Vec<PathBuf>,
}

impl Store {
    /// Hashes every object, tree and record regardless of their stats, and moves damaged ones to the quarantine.
    /// `progress` is called from several threads. Files that are removed meanwhile are skipped.
    pub(in crate::cache) fn verify(
        &self,
        progress: &(dyn Fn(VerifyProgress) + Sync),
    ) -> Result<VerifyReport, CacheError> {
        let mut report = VerifyReport::default();
        self.verify_objects(&mut report, progress)?;
        for (digest, path) in self.listed_for(Area::Trees, &mut report) {
            match self.read_tree_file(&digest)? {
                Some(_) => report.trees += 1,
                None => report.damaged.push(path),
            }
        }
        for area in RECORDED {
            for (key, path) in self.listed_for(area, &mut report) {
                if self.record_in(area, &key)?.is_some() {
                    report.records += 1;
                } else if self.discard_damaged(area, &key)? {
                    report.damaged.push(path);
                }
            }
        }
        Ok(report)
    }

    fn listed_for(&self, area: Area, report: &mut VerifyReport) -> Vec<(Digest, PathBuf)> {
        let (known, foreign) = self.listed(area);
        report.foreign.extend(foreign);
        known
    }

    fn verify_objects(
        &self,
        report: &mut VerifyReport,
        progress: &(dyn Fn(VerifyProgress) + Sync),
    ) -> Result<(), CacheError> {
        let objects = self.listed_for(Area::Objects, report);
        let (began, objects_total) = (SystemTime::now(), objects.len() as u64);
        let (done, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let hashed = objects.par_iter().map(|(digest, path)| {
            let outcome = rehash(path, digest)?;
            let size = outcome.map_or(0, |(stat, _)| stat.size);
            let bytes = bytes.fetch_add(size, Ordering::Relaxed) + size;
            let objects = done.fetch_add(1, Ordering::Relaxed) + 1;
            progress(VerifyProgress { objects, objects_total, bytes });
            Ok(outcome)
        });
        let hashed: Vec<Option<(FileStat, bool)>> = hashed.collect::<Result<_, CacheError>>()?;
        let mut verified = Vec::new();
        for ((digest, path), outcome) in objects.into_iter().zip(hashed) {
            let Some((stat, is_sound)) = outcome else { continue };
            if is_sound {
                report.objects += 1;
                report.object_bytes += stat.size;
                verified.push((stat, digest));
            } else {
                self.quarantine(&path, stat.inode);
                report.damaged.push(path);
            }
        }
        self.index.remember_hashed(&verified, self.trusted_from(began));
        Ok(())
    }
}

/// The stat of an object and whether it is sound; `None` if it has just been removed.
fn rehash(path: &Path, digest: &Digest) -> Result<Option<(FileStat, bool)>, CacheError> {
    let Some(metadata) = stat(path)? else { return Ok(None) };
    if !metadata.is_file() {
        return Ok(Some((FileStat::of(&metadata), false)));
    }
    match fs::File::open(path).and_then(|mut file| Digest::of_open_file(&mut file)) {
        Ok((found, _)) => Ok(Some((FileStat::of(&metadata), found == *digest))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).reading(path),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Mutex;

    use super::*;
    use crate::cache::local::tests::fresh;
    use crate::cache::{Tree, TreeEntry};

    #[test]
    fn everything_is_hashed_and_only_what_is_wrong_moves() {
        let (_folder, store) = fresh();
        let digests = [b"aaa", b"bbb", b"ccc"].map(|content| store.publish_bytes(content).unwrap());
        let entry = TreeEntry { path: "a".into(), digest: digests[0], size: 3, executable: false };
        let tree = store.put_tree(&Tree::new(vec![entry]).unwrap()).unwrap();
        store.put_tree(&Tree::default()).unwrap();
        store.publish_record(&digests[0], b"sound").unwrap();
        store.publish_record(&digests[1], b"record").unwrap();
        let seen = Mutex::new(Vec::new());
        let report = store.verify(&|progress| seen.lock().unwrap().push(progress)).unwrap();
        let sound = VerifyReport { objects: 3, object_bytes: 9, trees: 2, records: 2, ..Default::default() };
        assert_eq!(report, sound);
        let last = VerifyProgress { objects: 3, objects_total: 3, bytes: 9 };
        assert!(seen.lock().unwrap().contains(&last));

        let object = store.object_path(&digests[1]);
        fs::set_permissions(&object, Permissions::from_mode(0o644)).unwrap();
        let paths = [object, store.path(Area::Trees, &tree), store.path(Area::Records, &digests[1])];
        for path in &paths {
            fs::write(path, "wrong").unwrap();
        }
        let stranger = store.area(Area::Objects).join("readme");
        fs::write(&stranger, "x").unwrap();
        let report = store.verify(&|_| ()).unwrap();
        assert_eq!(report.damaged, paths);
        assert_eq!(report.foreign, [stranger]);
        assert_eq!((report.objects, report.trees, report.records), (2, 1, 1));
        assert_eq!(fs::read_dir(store.area(Area::Quarantine)).unwrap().count(), 3);
        assert_eq!(store.verify(&|_| ()).unwrap().damaged, Vec::<PathBuf>::new());
    }
}
