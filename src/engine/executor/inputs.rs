//! Loads the inputs of a unit: the trees and local sources that its digests and paths name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{RunContext, UnitInput};
use crate::artifacts::{File, Files};
use crate::cache::{Cache, CacheError, Digest, SourceTree, Tree, TreeEntry, hash_source};
use crate::engine::failure::Failure;
use crate::plan::Resolution;
use crate::stages::Role;

/// Trees and hashed sources that the units of one process share. Others are read from the cache, or hashed.
#[derive(Default)]
pub(in crate::engine) struct SharedInputs {
    trees: Mutex<HashMap<Digest, Arc<Tree>>>,
    sources: Mutex<HashMap<PathBuf, Arc<SourceTree>>>,
}

/// One input whose tree and source are known.
#[derive(Clone, Debug)]
pub(in crate::engine) struct LoadedInput {
    pub(super) role: Role,
    /// The files that are read.
    pub(super) tree: Arc<Tree>,
    /// Digest of that tree, and of the whole output that it is a part of.
    digest: Digest,
    whole: Digest,
    /// The local source that holds the files; `None` if they are objects of the cache.
    pub(super) source: Option<Arc<SourceTree>>,
}

impl SharedInputs {
    /// Adds the trees and sources of a task's inputs, for its unit.
    pub(in crate::engine) fn add(&self, resolution: &Resolution) {
        for input in &resolution.inputs {
            self.add_tree(input.digest, &input.tree);
            if let Some(source) = &input.source {
                self.add_source(source);
            }
        }
    }

    fn add_tree(&self, digest: Digest, tree: &Arc<Tree>) {
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        trees.entry(digest).or_insert_with(|| tree.clone());
    }

    fn add_source(&self, source: &Arc<SourceTree>) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.entry(source.path.clone()).or_insert_with(|| source.clone());
    }

    /// Returns the tree with this digest, from memory or from the cache; `None` if neither has it.
    pub(super) fn tree(&self, digest: &Digest, cache: &Cache) -> Result<Option<Arc<Tree>>, CacheError> {
        let found = self.trees.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned();
        if found.is_some() {
            return Ok(found);
        }
        cache.tree(digest)
    }

    fn source(&self, path: &Path, context: &RunContext<'_>) -> Result<Arc<SourceTree>, Failure> {
        let found = self.sources.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        if let Some(found) = found {
            return Ok(found);
        }
        let hashed =
            hash_source(path, context.cache.index(), context.options.rehash).map_err(Failure::Cache)?;
        let source = Arc::new(hashed);
        self.add_source(&source);
        Ok(source)
    }
}

impl LoadedInput {
    /// Finds the tree and the source of an input. A source must have the bytes that the tree names.
    pub(super) fn load(input: &UnitInput, context: &RunContext<'_>) -> Result<Self, Failure> {
        let UnitInput { role, digest, whole, source } = input;
        let tree = context.inputs.tree(digest, context.cache).map_err(Failure::Cache)?;
        let tree = tree.ok_or_else(|| Failure::NoTree { role: role.clone() })?;
        let source = source.as_ref().map(|path| {
            let path = context.options.project.join(path);
            let source = context.inputs.source(&path, context)?;
            let is_same = |entry: &&TreeEntry| {
                source.tree.get(&entry.path).is_some_and(|now| now.digest == entry.digest)
            };
            match tree.entries().iter().find(|entry| !is_same(entry)) {
                None => Ok(source),
                Some(entry) => {
                    Err(Failure::SourceDiffers { file: source.path_of(entry).display().to_string() })
                }
            }
        });
        Ok(Self { role: role.clone(), tree, digest: *digest, whole: *whole, source: source.transpose()? })
    }

    /// Fetches missing objects if a remote has them. Returns the path of the first file that is still lost or
    /// damaged.
    pub(super) fn materialise(&self, cache: &Cache) -> Result<Option<String>, CacheError> {
        if self.source.is_some() {
            return Ok(None);
        }
        let whole =
            if self.whole == self.digest { Some(self.tree.clone()) } else { cache.tree(&self.whole)? };
        let damage = cache.materialise(&self.tree, whole.as_slice())?;
        Ok(damage.into_iter().next().map(|first| first.path))
    }

    /// Returns the path of the first file that is lost or damaged in the local cache.
    pub(super) fn lost(&self, cache: &Cache) -> Result<Option<String>, CacheError> {
        if self.source.is_some() {
            return Ok(None);
        }
        Ok(cache.objects().check(&self.tree)?.into_iter().next().map(|first| first.path))
    }

    /// Returns the files as the stage sees them.
    pub(super) fn files(&self, cache: &Cache) -> Files {
        Files::new(self.tree.entries().iter().map(|entry| {
            let path = match &self.source {
                Some(source) => source.path_of(entry),
                None => cache.objects().path(&entry.digest),
            };
            let (digest, is_executable) = (Some(entry.digest), entry.executable);
            let file = File { path, digest, size_bytes: entry.size, is_executable };
            (entry.path.clone(), file)
        }))
    }
}
