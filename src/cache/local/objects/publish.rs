//! Publishing: moving finished files into the store so that a name appears only with its whole content.
//!
//! # How a file becomes an object
//! 1. It is sealed: read-only for all who may read by the umask, and its mtime set [`BACKDATED`] before now. From here on any write gives it
//!    a newer mtime, whatever the granularity of the file clock.
//! 2. It is hashed.
//! 3. If the object is already there and sound, that one stays (others may have it mapped) and the new
//!    file is left to be removed with its folder. A damaged one is replaced.
//! 4. It is renamed to the path of the object; a file that was written to since step 1 is an error. It is synced
//!    before, or with the next barrier ([`crate::cache::local::barrier`]).
//! 5. Its stat is remembered: it is not hashed again while that stat is unchanged, and in a later boot only if it
//!    was synced.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rayon::prelude::*;

use crate::cache::error::{AtPath, CacheError, walk_error};
use crate::cache::local::barrier::{Durability, on_waiting_threads};
use crate::cache::local::disk;
use crate::cache::local::objects::{Condition, stat};
use crate::cache::local::scratch::Temporary;
use crate::cache::local::stat_index::FileStat;
use crate::cache::local::{Area, Store, make_shard};
use crate::cache::tree::{Tree, TreeEntry};
use crate::digest::Digest;

/// How far a published file's mtime lies before its publication: far above any file clock's tick.
const BACKDATED: Duration = Duration::from_secs(1);

/// A regular file that is published.
struct RegularFile {
    path: PathBuf,
    metadata: fs::Metadata,
}

/// A regular file of a folder that is published.
struct FolderFile {
    /// Its `/`-separated path within the folder.
    relative: String,
    file: RegularFile,
}

/// A file that is ready to become an object.
pub(in crate::cache) struct Sealed {
    path: PathBuf,
    digest: Digest,
    stat: FileStat,
    /// Removes the copy, if the file could not be sealed in path.
    _copy: Option<Temporary>,
}

impl Sealed {
    /// Bytes of the content.
    pub(in crate::cache) fn size(&self) -> u64 {
        self.stat.size
    }
}

impl Store {
    /// Publishes every file of `folder` and the tree of them. The folder is given up: it comes from
    /// [`Store::scratch`], its files move away or stay behind read-only, and empty folders are not kept.
    ///
    /// Only regular files with UTF-8 names can be published. A file with further hard links, of another
    /// owner or on another file system is copied first.
    pub(in crate::cache) fn publish_folder(&self, folder: &Path) -> Result<Tree, CacheError> {
        self.prepare()?;
        let files = regular_files(folder)?;
        let sealed: Vec<Sealed> =
            files.par_iter().map(|found| self.seal(&found.file)).collect::<Result<_, _>>()?;
        let entry = |(found, sealed): (&FolderFile, &Sealed)| TreeEntry {
            path: found.relative.clone(),
            digest: sealed.digest,
            size: sealed.stat.size,
            executable: is_executable(&found.file.metadata),
        };
        let tree = Tree::new(files.iter().zip(&sealed).map(entry).collect())?;
        self.install(sealed)?;
        self.put_tree(&tree)?;
        Ok(tree)
    }

    /// Publishes single files, in order, without a tree; otherwise as [`Store::publish_folder`].
    pub(in crate::cache) fn publish_files(
        &self,
        paths: &[PathBuf],
    ) -> Result<Vec<(Digest, u64)>, CacheError> {
        self.prepare()?;
        let seal = |path: &PathBuf| {
            let metadata = fs::symlink_metadata(path).reading(path)?;
            if !metadata.is_file() {
                return Err(CacheError::NotRegular {
                    path: path.clone(),
                    kind: kind_name(metadata.file_type()),
                });
            }
            self.seal(&RegularFile { path: path.clone(), metadata })
        };
        let sealed: Vec<Sealed> = paths.par_iter().map(seal).collect::<Result<_, _>>()?;
        let published = sealed.iter().map(|file| (file.digest, file.stat.size)).collect();
        self.install(sealed)?;
        Ok(published)
    }

    /// Publishes one content.
    pub(in crate::cache) fn publish_bytes(&self, content: &[u8]) -> Result<Digest, CacheError> {
        self.prepare()?;
        let digest = Digest::of_bytes(content);
        let size = content.len() as u64;
        if matches!(self.examine(&[(digest, Some(size))])?[..], [Condition::Sound(_)]) {
            self.relied_on(Area::Objects, &digest);
            return Ok(digest);
        }
        // Synced when it is installed.
        let temporary = Temporary::write(&self.area(Area::Tmp), &[content], Durability::Grouped)?;
        let sealed = seal_file(temporary.path(), self.object_mode())?;
        self.install(vec![Sealed { _copy: Some(temporary), ..sealed }])?;
        Ok(digest)
    }

    /// Writes a content, whose digest the caller has verified, to a file of a folder that is [`Store::scratch`].
    pub(in crate::cache) fn seal_content(
        &self,
        scratch: &Path,
        digest: Digest,
        content: &[u8],
    ) -> Result<Sealed, CacheError> {
        let path = scratch.join(digest.to_string());
        let stat = seal_content(&path, content, self.object_mode()).writing(&path)?;
        if stat.size != content.len() as u64 {
            return Err(CacheError::ChangedWhilePublished { path });
        }
        Ok(Sealed { path, digest, stat, _copy: None })
    }

    /// Publishes files that are sealed.
    pub(in crate::cache) fn publish_sealed(&self, sealed: Vec<Sealed>) -> Result<(), CacheError> {
        self.prepare()?;
        self.install(sealed)
    }

    fn seal(&self, file: &RegularFile) -> Result<Sealed, CacheError> {
        let tmp = self.area(Area::Tmp);
        let device = fs::metadata(&tmp).reading(&tmp)?.dev();
        if file.metadata.nlink() == 1
            && file.metadata.dev() == device
            && let Ok(sealed) = seal_file(&file.path, self.object_mode())
        {
            return Ok(sealed);
        }
        let copy = Temporary::reserve(&tmp);
        disk::copy(&file.path, copy.path()).writing(copy.path())?;
        let sealed = seal_file(copy.path(), self.object_mode())?;
        Ok(Sealed { _copy: Some(copy), ..sealed })
    }

    /// Renames the files whose objects are missing, and remembers their stats.
    fn install(&self, mut sealed: Vec<Sealed>) -> Result<(), CacheError> {
        sealed.sort_by_key(|file| file.digest);
        sealed.dedup_by_key(|file| file.digest);
        let wanted: Vec<_> = sealed.iter().map(|file| (file.digest, Some(file.stat.size))).collect();
        let conditions = self.examine(&wanted)?;
        let (mut new, mut replaced) = (Vec::new(), Vec::new());
        for (file, condition) in sealed.into_iter().zip(conditions) {
            match condition {
                Condition::Sound(_) => self.relied_on(Area::Objects, &file.digest),
                Condition::Missing => new.push(file),
                Condition::Damaged(_, inode) => replaced.push((file, inode)),
            }
        }
        for (file, inode) in replaced {
            self.quarantine(&self.object_path(&file.digest), inode);
            new.push(file);
        }
        let rows = match self.durability() {
            Durability::Grouped => new.par_iter().map(|file| self.install_one(file)).collect(),
            Durability::Immediate => on_waiting_threads(&new, |file| self.install_one(file)),
        };
        let rows = rows.into_iter().collect::<Result<Vec<_>, _>>()?;
        let rows: Vec<_> = rows.into_iter().flatten().collect();
        self.index.remember(&rows);
        if self.durability() == Durability::Immediate {
            self.index.confirm(&rows);
        }
        Ok(())
    }

    fn install_one(&self, file: &Sealed) -> Result<Option<(FileStat, Digest)>, CacheError> {
        let path = self.object_path(&file.digest);
        make_shard(&path)?;
        if self.durability() == Durability::Immediate {
            File::open(&file.path).and_then(|open| disk::sync_data(&open, &file.path)).writing(&file.path)?;
        }
        disk::rename(&file.path, &path).writing(&path)?;
        self.named(Area::Objects, &file.digest)?;
        // Gone: another process has just quarantined it and restores a sound file; or someone wrote into ours,
        // and it is made again when needed.
        let Some(metadata) = stat(&path)? else { return Ok(None) };
        let stat = FileStat::of(&metadata);
        if stat.inode != file.stat.inode {
            // Another process has just published the same content over ours.
            return Ok(None);
        }
        if stat.size != file.stat.size || stat.modified_ns != file.stat.modified_ns {
            self.quarantine(&path, stat.inode);
            return Err(CacheError::ChangedWhilePublished { path: file.path.clone() });
        }
        Ok(Some((stat, file.digest)))
    }
}

/// Makes a file read-only, sets its mtime back and hashes it, in this order.
fn seal_file(path: &Path, mode: u32) -> Result<Sealed, CacheError> {
    disk::step(path).writing(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode)).writing(path)?;
    let mut file = File::open(path).reading(path)?;
    file.set_modified(SystemTime::now() - BACKDATED).writing(path)?;
    let stat = FileStat::of(&file.metadata().reading(path)?);
    let (digest, size) = Digest::of_open_file(&mut file).reading(path)?;
    if size != stat.size {
        return Err(CacheError::ChangedWhilePublished { path: path.into() });
    }
    Ok(Sealed { path: path.into(), digest, stat, _copy: None })
}

/// Writes a read-only file whose mtime is set back.
fn seal_content(path: &Path, content: &[u8], mode: u32) -> io::Result<FileStat> {
    let mut file = disk::create_new(path)?;
    disk::write_all(&mut file, path, content)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.set_modified(SystemTime::now() - BACKDATED)?;
    Ok(FileStat::of(&file.metadata()?))
}

/// Whether a file's owner may execute it.
pub(in crate::cache::local) fn is_executable(metadata: &fs::Metadata) -> bool {
    metadata.mode() & 0o100 != 0
}

/// The tree that `Store::publish_folder` would make of `folder`; nothing is published or moved.
pub fn read_tree(folder: &Path) -> Result<Tree, CacheError> {
    let files = regular_files(folder)?;
    let entry = |FolderFile { relative, file }: &FolderFile| {
        let (path, size) = (relative.clone(), file.metadata.len());
        Ok(TreeEntry {
            path,
            digest: Digest::of_file(&file.path).reading(&file.path)?,
            size,
            executable: is_executable(&file.metadata),
        })
    };
    Tree::new(files.par_iter().map(entry).collect::<Result<_, CacheError>>()?)
}

/// The files under a folder, in order of name. A symlink or anything else but a file or folder is an error.
fn regular_files(folder: &Path) -> Result<Vec<FolderFile>, CacheError> {
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(folder).min_depth(1).sort_by_file_name() {
        let entry = entry.map_err(|error| walk_error(error, folder))?;
        let kind = entry.file_type();
        if kind.is_dir() {
            continue;
        }
        if !kind.is_file() {
            return Err(CacheError::NotRegular { path: entry.into_path(), kind: kind_name(kind) });
        }
        let relative = relative_path(folder, entry.path())?;
        let metadata = entry.metadata().map_err(|error| walk_error(error, folder))?;
        files.push(FolderFile { relative, file: RegularFile { path: entry.into_path(), metadata } });
    }
    Ok(files)
}

/// The `/`-separated path from `folder`, which contains it, to `path`.
pub(in crate::cache::local) fn relative_path(folder: &Path, path: &Path) -> Result<String, CacheError> {
    let relative = path.strip_prefix(folder).unwrap_or(path);
    relative.to_str().map(str::to_owned).ok_or_else(|| CacheError::NotUtf8 { path: path.into() })
}

/// A word for what is no regular file.
pub(in crate::cache::local) fn kind_name(kind: fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    if kind.is_symlink() {
        "symlink"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_fifo() {
        "named pipe"
    } else {
        "device"
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Barrier;

    use super::*;
    use crate::cache::StatIndex;
    use crate::cache::local::tests::fresh;

    fn scratch_with(store: &Store, files: &[(&str, &str)]) -> crate::cache::Scratch {
        let scratch = store.scratch("test").unwrap();
        for (name, content) in files {
            let path = scratch.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        scratch
    }

    #[test]
    fn a_folder_becomes_objects_and_a_tree() {
        let (_folder, store) = fresh();
        let scratch = scratch_with(&store, &[("b/c", "2"), ("a", "1"), ("twice", "2"), ("empty", "")]);
        fs::set_permissions(scratch.path().join("a"), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(scratch.path().join("no files")).unwrap();
        let tree = store.publish_folder(scratch.path()).unwrap();
        let paths: Vec<_> = tree.entries().iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["a", "b/c", "empty", "twice"]);
        assert!(tree.get("a").unwrap().executable && !tree.get("b/c").unwrap().executable);
        for (path, content) in [("a", "1"), ("b/c", "2"), ("twice", "2"), ("empty", "")] {
            let digest = tree.get(path).unwrap().digest;
            assert_eq!(store.read(&digest).unwrap(), content.as_bytes());
            assert_eq!(fs::metadata(store.object_path(&digest)).unwrap().mode() & 0o777, 0o444);
        }
        let reopened = Store::open(store.root().into(), StatIndex::in_memory()).unwrap();
        assert_eq!(*reopened.tree(&tree.digest()).unwrap().unwrap(), tree);
        assert_eq!(store.listed(Area::Objects).0.len(), 3);
        drop(scratch);
        assert_eq!(fs::read_dir(store.area(Area::Tmp)).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_by_name() {
        let (_folder, store) = fresh();
        let scratch = scratch_with(&store, &[("a", "1")]);
        symlink("a", scratch.path().join("link")).unwrap();
        let error = store.publish_folder(scratch.path()).unwrap_err();
        assert!(error.to_string().contains("link` is a symlink"), "{error}");
        fs::remove_file(scratch.path().join("link")).unwrap();
        let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff");
        fs::write(scratch.path().join(name), "x").unwrap();
        assert!(matches!(store.publish_folder(scratch.path()), Err(CacheError::NotUtf8 { .. })));
        assert_eq!(store.listed(Area::Objects).0.len(), 0, "nothing is published by halves");
    }

    #[test]
    fn a_sound_object_stays_for_those_who_hold_it_and_a_damaged_one_is_replaced() {
        let (_folder, store) = fresh();
        let digest = store.publish_bytes(b"held").unwrap();
        let path = store.object_path(&digest);
        let held = File::open(&path).unwrap();
        for index in [StatIndex::in_memory(), StatIndex::in_memory()] {
            let other = Store::open(store.root().into(), index).unwrap();
            other.publish_folder(scratch_with(&other, &[("same", "held")]).path()).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().ino(), held.metadata().unwrap().ino());
        }
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, "DAMN").unwrap();
        store.publish_folder(scratch_with(&store, &[("same", "held")]).path()).unwrap();
        assert_eq!(store.read(&digest).unwrap(), b"held");
        assert_eq!(fs::read_dir(store.area(Area::Quarantine)).unwrap().count(), 1);
    }

    #[test]
    fn a_file_with_another_name_elsewhere_is_copied() {
        let (folder, store) = fresh();
        let scratch = scratch_with(&store, &[("a", "shared")]);
        let elsewhere = folder.path().join("elsewhere");
        fs::hard_link(scratch.path().join("a"), &elsewhere).unwrap();
        let tree = store.publish_folder(scratch.path()).unwrap();
        fs::write(&elsewhere, "SHARED").unwrap();
        assert_eq!(store.check(&tree).unwrap(), []);
        assert_eq!(store.read(&tree.entries()[0].digest).unwrap(), b"shared");
    }

    #[test]
    fn a_file_that_is_still_written_to_is_refused() {
        let (_folder, store) = fresh();
        let scratch = scratch_with(&store, &[("a", "first")]);
        let path = scratch.path().join("a");
        let straggler = File::options().write(true).open(&path).unwrap();
        let sealed = seal_file(&path, 0o444).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&straggler, b"F", 0).unwrap();
        let digest = sealed.digest;
        let refused = store.install(vec![sealed]);
        assert!(matches!(refused, Err(CacheError::ChangedWhilePublished { .. })));
        assert!(matches!(store.read(&digest), Err(CacheError::Missing { .. })));
        let digest = store.publish_folder(scratch_with(&store, &[("a", "second")]).path()).unwrap();
        let digest = digest.entries()[0].digest;
        std::os::unix::fs::FileExt::write_all_at(&straggler, b"F", 0).unwrap();
        assert_eq!(store.read(&digest).unwrap(), b"second");
    }

    #[test]
    fn publishers_of_the_same_files_at_once_all_succeed() {
        let (_folder, store) = fresh();
        let names: Vec<(String, String)> =
            (0..40).map(|n| (format!("f{n}"), format!("{}", n % 30))).collect();
        let files: Vec<_> = names.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect();
        let barrier = Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let other = Store::open(store.root().into(), StatIndex::in_memory()).unwrap();
                    let scratch = scratch_with(&other, &files);
                    barrier.wait();
                    let tree = other.publish_folder(scratch.path()).unwrap();
                    assert_eq!(other.check(&tree).unwrap(), []);
                });
            }
        });
        let report = store.verify(&|_| ()).unwrap();
        assert_eq!((report.objects, report.trees, report.damaged.len()), (30, 1, 0));
    }
}
