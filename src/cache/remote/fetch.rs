//! Fetching trees and objects from the remote.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{GetResultPayload, ObjectStoreExt};
use rayon::prelude::*;

use super::circuit_breaker::{RequestError, RequestKind};
use super::pack::{Group, groups};
use super::{Answer, Damaged, LARGE, LONGEST, REQUESTS, RemoteStore, lock, longest, name};
use crate::cache::error::{AtPath, CacheError};
use crate::cache::local::Store;
use crate::cache::tree::Tree;
use crate::digest::Digest;

/// Files of one batch, which is stored before the next is fetched: memory holds at most [`BATCH_BYTES`] and one file.
const BATCH: usize = 4 * REQUESTS;

/// Bytes of one batch.
const BATCH_BYTES: u64 = 128 * 1024 * 1024;

/// What was fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetched {
    /// How many objects.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Fetched {
    /// Adds another.
    pub fn add(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

impl RemoteStore {
    /// Asks for trees that are not here, many at once; [`Self::tree`] then has them.
    pub(in crate::cache) fn prefetch_trees(
        &self,
        store: &Store,
        digests: &BTreeSet<Digest>,
    ) -> Result<(), CacheError> {
        let mut new = Vec::new();
        for digest in digests {
            if !lock(&self.trees).contains_key(digest) && store.tree(digest)?.is_none() {
                new.push(*digest);
            }
        }
        let names: Vec<String> = new.iter().map(|digest| name("trees", digest)).collect();
        for ((digest, name), answer) in new.iter().zip(&names).zip(self.get_all(&names, LONGEST)) {
            let Some(bytes) = answer.file() else { continue };
            let sound = (Tree::digest_of_bytes(&bytes) == *digest).then(|| Tree::from_bytes(&bytes));
            if let Some(Ok(tree)) = sound {
                lock(&self.trees).insert(*digest, Arc::new(tree));
            } else {
                self.mark_invalid(name.clone(), Damaged::Tree(*digest));
            }
        }
        Ok(())
    }

    /// A tree that [`Self::prefetch_trees`] has found.
    pub(in crate::cache) fn tree(&self, digest: &Digest) -> Option<Arc<Tree>> {
        lock(&self.trees).get(digest).cloned()
    }

    /// Fetches the wanted objects of some trees into the local store; those that the remote lacks or that are damaged
    /// are left out. The trees must be whole outputs: they name the packs.
    pub(in crate::cache) fn fetch(
        &self,
        store: &Store,
        wholes: &[&Tree],
        wanted: &BTreeSet<Digest>,
    ) -> Result<Fetched, CacheError> {
        let FetchPlan { packs, mut singles } = FetchPlan::new(wholes, wanted);
        if packs.is_empty() && singles.is_empty() {
            return Ok(Fetched::default());
        }
        let scratch = store.scratch("fetch")?;
        let mut fetch =
            Fetch { store, remote: self, scratch: scratch.path(), wanted, fetched: Fetched::default() };
        for batch in batches(&packs, |(_, group)| group.size()) {
            // An object whose pack is missing or damaged may exist by itself.
            let got = fetch.packs(batch)?;
            let members = batch.iter().flat_map(|(_, group)| group.0.iter().copied());
            singles.extend(members.filter(|(digest, _)| wanted.contains(digest) && !got.contains(digest)));
        }
        let (large, singles): (Vec<_>, Vec<_>) = singles.into_iter().partition(|&(_, size)| size > LARGE);
        for batch in batches(&singles, |&(_, size)| size) {
            fetch.objects(batch)?;
        }
        for (digest, size) in large {
            fetch.large(&digest, size)?;
        }
        Ok(fetch.fetched)
    }
}

/// The files to fetch.
struct FetchPlan {
    /// Packs by name; each object is wanted from at most one of them.
    packs: Vec<(Digest, Group)>,
    /// Objects that are not packed, with their sizes.
    singles: BTreeMap<Digest, u64>,
}

impl FetchPlan {
    fn new(wholes: &[&Tree], wanted: &BTreeSet<Digest>) -> Self {
        let mut packs = BTreeMap::new();
        let (mut singles, mut packed) = (BTreeMap::new(), BTreeSet::new());
        for whole in wholes {
            let (groups, single) = groups(whole);
            singles.extend(single.into_iter().filter(|(digest, _)| wanted.contains(digest)));
            for group in groups {
                let new = group.0.iter().map(|(digest, _)| *digest).filter(|digest| wanted.contains(digest));
                let new: Vec<Digest> = new.filter(|digest| !packed.contains(digest)).collect();
                if !new.is_empty() {
                    packed.extend(new);
                    packs.insert(group.digest(), group);
                }
            }
        }
        singles.retain(|digest, _| !packed.contains(digest));
        Self { packs: packs.into_iter().collect(), singles }
    }
}

/// Splits into batches of at most [`BATCH`] files and [`BATCH_BYTES`] bytes, each with at least one file.
fn batches<T>(all: &[T], size: impl Fn(&T) -> u64) -> Vec<&[T]> {
    let (mut batches, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (index, one) in all.iter().enumerate() {
        if index > from && (index - from == BATCH || bytes + size(one) > BATCH_BYTES) {
            batches.push(&all[from..index]);
            (from, bytes) = (index, 0);
        }
        bytes += size(one);
    }
    if from < all.len() {
        batches.push(&all[from..]);
    }
    batches
}

/// One fetch under way.
struct Fetch<'a> {
    store: &'a Store,
    remote: &'a RemoteStore,
    scratch: &'a FilePath,
    wanted: &'a BTreeSet<Digest>,
    fetched: Fetched,
}

impl Fetch<'_> {
    /// Fetches packs; returns the objects that were in them.
    fn packs(&mut self, packs: &[(Digest, Group)]) -> Result<BTreeSet<Digest>, CacheError> {
        let names: Vec<String> = packs.iter().map(|(digest, _)| name("packs", digest)).collect();
        let mut files = BTreeMap::new();
        for (name, answer) in names.iter().zip(self.remote.get_all(&names, LONGEST)) {
            let Some(pack) = answer.file() else { continue };
            let contents = Group::unpack(&pack).unwrap_or_default();
            let contents = contents.into_par_iter().filter(|(digest, _)| self.wanted.contains(digest));
            let sound: Vec<_> = contents.map(|(digest, content)| self.write(digest, content)).collect();
            if sound.is_empty() || sound.iter().any(|one| matches!(one, Ok(None))) {
                self.remote.mark_invalid(name.clone(), Damaged::Pack(name.clone()));
            }
            for one in sound {
                files.extend(one?);
            }
        }
        let got = files.keys().copied().collect();
        self.keep(files)?;
        Ok(got)
    }

    /// Fetches objects that are not packed.
    fn objects(&mut self, objects: &[(Digest, u64)]) -> Result<(), CacheError> {
        let names: Vec<String> = objects.iter().map(|(digest, _)| name("objects", digest)).collect();
        let answers = self.remote.get_all(&names, LONGEST).into_iter().map(Answer::file);
        let came: Vec<_> =
            objects.iter().zip(answers).filter_map(|((digest, _), file)| Some((*digest, file?))).collect();
        let written = came.par_iter().map(|(digest, content)| (*digest, self.write(*digest, content)));
        let mut files = BTreeMap::new();
        for (digest, one) in written.collect::<Vec<_>>() {
            match one? {
                Some((digest, path)) => {
                    files.insert(digest, path);
                }
                None => self.mark_invalid(&digest),
            }
        }
        self.keep(files)
    }

    /// Fetches an object through a file.
    fn large(&mut self, digest: &Digest, size: u64) -> Result<(), CacheError> {
        let (name, path) = (name("objects", digest), self.scratch.join(digest.to_string()));
        let request =
            self.remote.request(RequestKind::Read, &name, longest(size), get_to(self.remote, &name, &path));
        if self.remote.wait(request).flatten() != Some(true) {
            return Ok(());
        }
        if Digest::of_file(&path).reading(&path)? != *digest {
            self.mark_invalid(digest);
            return Ok(());
        }
        self.keep(BTreeMap::from([(*digest, path)]))
    }

    /// Writes a content to a file; `None` if its digest is another.
    fn write(&self, digest: Digest, content: &[u8]) -> Result<Option<(Digest, PathBuf)>, CacheError> {
        if Digest::of_bytes(content) != digest {
            return Ok(None);
        }
        let path = self.scratch.join(digest.to_string());
        fs::write(&path, content).writing(&path)?;
        Ok(Some((digest, path)))
    }

    /// Publishes files that are sound.
    fn keep(&mut self, files: BTreeMap<Digest, PathBuf>) -> Result<(), CacheError> {
        let paths: Vec<PathBuf> = files.into_values().collect();
        for (_, size) in self.store.publish_files(&paths)? {
            self.fetched.objects += 1;
            self.fetched.bytes += size;
        }
        Ok(())
    }

    fn mark_invalid(&self, digest: &Digest) {
        self.remote.mark_invalid(name("objects", digest), Damaged::Object(*digest));
    }
}

/// Downloads a file to `path`; returns whether it exists.
async fn get_to(remote: &RemoteStore, name: &str, path: &FilePath) -> Result<bool, RequestError> {
    let unwritten = |source: io::Error| RequestError::WriteFile { path: path.to_owned(), source };
    let found = match remote.objects.get(&Path::from(name)).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut file = File::create(path).map_err(unwritten)?;
    match found.payload {
        GetResultPayload::File(mut from, _) => {
            io::copy(&mut from, &mut file).map_err(unwritten)?;
        }
        GetResultPayload::Stream(mut body) => {
            while let Some(bytes) = body.next().await {
                file.write_all(&bytes?).map_err(unwritten)?;
            }
        }
    }
    Ok(true)
}
