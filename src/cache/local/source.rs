//! Hashing what an experiment reads from outside: a folder of images, a file of weights.
//!
//! What is hashed is what a reader of the folder would read:
//! - links to files and folders are followed, wherever they lead, since data sets are often made of
//!   links; their targets' contents and stats count. A link in a circle or to nowhere is an error;
//! - folders whose names start with `.` (`.git`, `.ipynb_checkpoints`) are left out, unless the root is
//!   one; files whose names start with `.` are not;
//! - a pipe, socket or device, a name that is not UTF-8, and whatever may not be read, is an error that
//!   names it. Empty folders are ignored.
//!
//! The stat index is the only thing that is written.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rayon::prelude::*;

use crate::cache::error::{AtPath, CacheError, walk_error};
use crate::cache::local::objects::publish::{is_executable, kind_name, relative_path};
use crate::cache::local::stat_index::{FileStat, StatIndex};
use crate::cache::tree::{Tree, TreeEntry};
use crate::digest::Digest;

/// Whether the stat index is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rehash {
    /// A file is hashed only if its stat has changed since it was last hashed.
    #[default]
    Trust,
    /// Every file is hashed (`--paranoid`).
    Always,
}

/// How much was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceStats {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were hashed now.
    pub hashed_files: u64,
    /// Their bytes.
    pub hashed_bytes: u64,
}

/// A hashed source, still in its path.
#[derive(Debug, Clone)]
pub struct SourceTree {
    /// The folder or file that was hashed.
    pub path: PathBuf,
    /// Its files; a source that is one file has one entry, under the file's name.
    pub tree: Tree,
    /// The folder that the tree's paths start from.
    pub root: PathBuf,
    /// How much was read.
    pub stats: SourceStats,
    /// The stats from before the hashing, in the order of the tree.
    seen: Vec<FileStat>,
}

/// A file of a source, before it is hashed.
struct Found {
    relative: String,
    path: PathBuf,
    stat: FileStat,
    executable: bool,
}

/// Hashes a folder or file in place and in parallel; skips files that the stat index knows.
pub fn hash_source(source: &Path, index: &StatIndex, rehash: Rehash) -> Result<SourceTree, CacheError> {
    // Before the first stat, so that the rule for fresh files holds for each.
    let began = SystemTime::now();
    let metadata = fs::metadata(source).reading(source)?;
    let (root, files) = if metadata.is_dir() {
        (source.to_path_buf(), files_of(source)?)
    } else {
        single_file(source, &metadata)?
    };
    let known = match rehash {
        Rehash::Trust => index.lookup(&files.iter().map(|file| file.stat).collect::<Vec<_>>()),
        Rehash::Always => vec![None; files.len()],
    };
    let unknown: Vec<&Found> = files.iter().zip(&known).filter(|it| it.1.is_none()).map(|it| it.0).collect();
    let hashed =
        unknown.par_iter().map(|file| Ok((file.stat, Digest::of_file(&file.path).reading(&file.path)?)));
    let hashed: Vec<(FileStat, Digest)> = hashed.collect::<Result<_, CacheError>>()?;
    index.remember_hashed(&hashed, began);
    let stats = SourceStats {
        files: files.len() as u64,
        bytes: files.iter().map(|file| file.stat.size).sum(),
        hashed_files: hashed.len() as u64,
        hashed_bytes: hashed.iter().map(|(stat, _)| stat.size).sum(),
    };
    let mut fresh = hashed.into_iter().map(|(_, digest)| digest);
    let digests = known.into_iter().map(|known| known.or_else(|| fresh.next()));
    let (tree, seen) = assemble(&files, digests)?;
    Ok(SourceTree { path: source.to_path_buf(), tree, root, stats, seen })
}

fn assemble(
    files: &[Found],
    digests: impl Iterator<Item = Option<Digest>>,
) -> Result<(Tree, Vec<FileStat>), CacheError> {
    let mut entries = Vec::with_capacity(files.len());
    for (file, digest) in files.iter().zip(digests) {
        let digest = digest.expect("each file is known or was hashed");
        let (size, executable) = (file.stat.size, file.executable);
        entries.push(TreeEntry { path: file.relative.clone(), digest, size, executable });
    }
    Ok((Tree::new(entries)?, files.iter().map(|file| file.stat).collect()))
}

impl SourceTree {
    /// Where a file of the tree is.
    pub fn path_of(&self, entry: &TreeEntry) -> PathBuf {
        self.root.join(&entry.path)
    }

    /// The files whose stat is no longer the one from before the hashing, in order of path: edited,
    /// replaced or gone. Ask after a stage has read them: if there are any, its result is not to be kept.
    pub fn changed_since(&self) -> Result<Vec<String>, CacheError> {
        let entries: Vec<_> = self.tree.entries().iter().zip(&self.seen).collect();
        let changed = entries.par_iter().with_min_len(256).map(|(entry, seen)| {
            let path = self.path_of(entry);
            match fs::metadata(&path) {
                Ok(metadata) if FileStat::of(&metadata) == **seen => Ok(None),
                Ok(_) => Ok(Some(entry.path.clone())),
                Err(error) if is_gone(&error) => Ok(Some(entry.path.clone())),
                Err(error) => Err(error).reading(&path),
            }
        });
        let changed: Vec<Option<String>> = changed.collect::<Result<_, _>>()?;
        Ok(changed.into_iter().flatten().collect())
    }
}

fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

fn single_file(path: &Path, metadata: &Metadata) -> Result<(PathBuf, Vec<Found>), CacheError> {
    let root = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let file = found(&root, path.to_path_buf(), metadata)?;
    Ok((root, vec![file]))
}

fn files_of(root: &Path) -> Result<Vec<Found>, CacheError> {
    let walk = walkdir::WalkDir::new(root).min_depth(1).follow_links(true).into_iter();
    let mut paths = Vec::new();
    for entry in walk.filter_entry(|entry| !is_dot_folder(entry)) {
        let entry = entry.map_err(|error| walk_error(error, root))?;
        if !entry.file_type().is_dir() {
            paths.push(entry.into_path());
        }
    }
    // The tree's order: by bytes, not by parts of the path.
    paths.sort_unstable_by(|left, right| left.as_os_str().cmp(right.as_os_str()));
    let files = paths.into_par_iter().with_min_len(256).map(|path| {
        let metadata = fs::metadata(&path).reading(&path)?;
        found(root, path, &metadata)
    });
    files.collect()
}

fn is_dot_folder(entry: &walkdir::DirEntry) -> bool {
    entry.file_type().is_dir() && entry.file_name().as_encoded_bytes().starts_with(b".")
}

fn found(root: &Path, path: PathBuf, metadata: &Metadata) -> Result<Found, CacheError> {
    if !metadata.is_file() {
        return Err(CacheError::NotRegular { path, kind: kind_name(metadata.file_type()) });
    }
    let relative = relative_path(root, &path)?;
    Ok(Found { relative, path, stat: FileStat::of(metadata), executable: is_executable(metadata) })
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Duration;

    use super::*;

    /// Writes a file as if a minute ago; its ctime is that of now.
    fn write(path: &Path, content: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_mins(1)).unwrap();
    }

    fn paths(source: &SourceTree) -> Vec<&str> {
        source.tree.entries().iter().map(|entry| entry.path.as_str()).collect()
    }

    fn hash(path: &Path) -> Result<SourceTree, CacheError> {
        hash_source(path, &StatIndex::in_memory(), Rehash::Trust)
    }

    #[test]
    fn a_folder_is_hashed_by_content_and_in_the_trees_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b/x", "b-c", "a", "b/.hidden", ".git/config", "b/.cache/y"] {
            write(&folder.path().join(name), name);
        }
        let source = hash(folder.path()).unwrap();
        assert_eq!(paths(&source), ["a", "b-c", "b/.hidden", "b/x"]);
        assert_eq!(source.tree.get("b/x").unwrap().digest, Digest::of_bytes(b"b/x"));
        assert_eq!(fs::read(source.path_of(source.tree.get("b-c").unwrap())).unwrap(), b"b-c");
        let stats = SourceStats { files: 4, bytes: 16, hashed_files: 4, hashed_bytes: 16 };
        assert_eq!(source.stats, stats);
        assert!(source.changed_since().unwrap().is_empty());
    }

    #[test]
    fn one_file_is_a_tree_of_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.bin");
        write(&path, "w");
        let source = hash(&path).unwrap();
        assert_eq!(paths(&source), ["weights.bin"]);
        assert_eq!(source.path_of(&source.tree.entries()[0]), path);
    }

    #[test]
    fn links_are_followed_and_circles_and_dead_ends_are_named() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("elsewhere/x"), "x");
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        symlink("../elsewhere", root.join("linked")).unwrap();
        symlink("../elsewhere/x", root.join("file")).unwrap();
        symlink(&root, folder.path().join("data")).unwrap();
        let source = hash(&folder.path().join("data")).unwrap();
        assert_eq!(paths(&source), ["file", "linked/x"]);
        assert_eq!(source.tree.get("file").unwrap().digest, Digest::of_bytes(b"x"));
        symlink("nowhere", root.join("dead")).unwrap();
        let error = hash(&root).unwrap_err();
        assert!(error.to_string().contains("dead"));
        fs::remove_file(root.join("dead")).unwrap();
        symlink("..", root.join("up")).unwrap();
        assert!(matches!(hash(&root), Err(CacheError::SymlinkLoop { .. })));
    }

    #[test]
    fn what_cannot_be_hashed_is_named_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let error = hash(&folder.path().join("absent")).unwrap_err();
        assert!(error.to_string().contains("absent"));
        let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"a\xff");
        fs::write(folder.path().join(name), "x").unwrap();
        assert!(matches!(hash(folder.path()), Err(CacheError::NotUtf8 { .. })));
        fs::remove_file(folder.path().join(name)).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        let error = hash(folder.path()).unwrap_err();
        assert!(matches!(error, CacheError::NotRegular { kind: "socket", .. }));
        fs::remove_file(folder.path().join("socket")).unwrap();
        let closed = folder.path().join("closed");
        write(&closed, "x");
        fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
        // The superuser reads everything.
        if File::open(&closed).is_err() {
            let error = hash(folder.path()).unwrap_err();
            assert!(error.to_string().contains("closed"));
        }
    }

    #[test]
    fn a_known_file_is_not_read_and_every_change_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let (root, index) = (folder.path().join("data"), StatIndex::in_memory());
        for name in ["a", "b", "c"] {
            write(&root.join(name), name);
        }
        let first = hash_source(&root, &index, Rehash::Trust).unwrap();
        let fresh = hash_source(&root, &index, Rehash::Trust).unwrap();
        assert_eq!(fresh.stats.hashed_files, 3, "files of this very moment are not trusted");
        let rows: Vec<_> =
            fresh.seen.iter().zip(fresh.tree.entries()).map(|it| (*it.0, it.1.digest)).collect();
        index.remember_hashed(&rows, SystemTime::now() + Duration::from_secs(1));
        let known = hash_source(&root, &index, Rehash::Trust).unwrap();
        assert_eq!((known.stats.hashed_files, &known.tree), (0, &first.tree));
        assert_eq!(hash_source(&root, &index, Rehash::Always).unwrap().stats.hashed_files, 3);

        let modified = fs::metadata(root.join("b")).unwrap().modified().unwrap();
        while FileStat::of(&fs::metadata(root.join("b")).unwrap()).changed_ns == known.seen[1].changed_ns {
            fs::write(root.join("b"), "B").unwrap();
        }
        File::options().write(true).open(root.join("b")).unwrap().set_modified(modified).unwrap();
        fs::remove_file(root.join("c")).unwrap();
        assert_eq!(known.changed_since().unwrap(), ["b", "c"], "same size, same mtime, another ctime");
        let changed = hash_source(&root, &index, Rehash::Trust).unwrap();
        assert_eq!(changed.stats.hashed_files, 1);
        assert_eq!(changed.tree.get("b").unwrap().digest, Digest::of_bytes(b"B"));
    }
}
