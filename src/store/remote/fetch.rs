//! Taking results from the remote.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{GetResultPayload, ObjectStoreExt};
use rayon::prelude::*;

use super::health::{Trouble, Want};
use super::pack::{Group, groups};
use super::{Answer, LARGE, LONGEST, REQUESTS, Remote, lock, longest, name};
use crate::store::error::AtPath;
use crate::store::{Digest, Published, Store, StoreError, Tree};

/// Files of one batch, which is kept before the next comes: memory holds [`BATCH_BYTES`] and a file more at most.
const BATCH: usize = 4 * REQUESTS;

/// Bytes of one batch.
const BATCH_BYTES: u64 = 128 * 1024 * 1024;

/// What was fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Objects.
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

impl Store {
    /// Asks the remote for many listings at once, as far as they are not here; [`Self::tree_anywhere`] then has them.
    pub fn ask_trees(&self, digests: &BTreeSet<Digest>) -> Result<(), StoreError> {
        let Some(remote) = self.remote() else { return Ok(()) };
        let mut new = Vec::new();
        for digest in digests {
            if !lock(&remote.trees).contains_key(digest) && self.tree(digest)?.is_none() {
                new.push(*digest);
            }
        }
        let names: Vec<String> = new.iter().map(|digest| name("trees", digest)).collect();
        for ((digest, name), answer) in new.iter().zip(&names).zip(remote.get_all(&names, LONGEST)) {
            let Some(listing) = answer.file() else { continue };
            let sound = (Tree::digest_of_listing(&listing) == *digest).then(|| Tree::from_bytes(&listing));
            if let Some(Ok(tree)) = sound {
                lock(&remote.trees).insert(*digest, Arc::new(tree));
            } else {
                remote
                    .doubt(name.clone(), &format!("has a damaged listing {digest}, which counts as absent"));
            }
        }
        Ok(())
    }

    /// A listing, from here or from the remote; nothing is written.
    pub fn tree_anywhere(&self, digest: &Digest) -> Result<Option<Arc<Tree>>, StoreError> {
        if let Some(tree) = self.tree(digest)? {
            return Ok(Some(tree));
        }
        let Some(remote) = self.remote() else { return Ok(None) };
        self.ask_trees(&BTreeSet::from([*digest]))?;
        Ok(lock(&remote.trees).get(digest).cloned())
    }

    /// Publishes a record and the listings of its outputs that came from the remote; the first record of a key wins,
    /// and is given back where it is another.
    pub fn adopt(&self, key: &Digest, record: &[u8], trees: &[Arc<Tree>]) -> Result<Published, StoreError> {
        for tree in trees {
            self.put_tree(tree)?;
        }
        self.publish_record(key, record)
    }

    /// Whether all objects of a listing are here and sound; those that are not are fetched first, where the remote has
    /// them. `whole` is the output that `tree` is a part of.
    pub fn check_or_fetch(&self, tree: &Tree, whole: &Tree) -> Result<bool, StoreError> {
        let damage = self.check(tree)?;
        if damage.is_empty() || self.remote().is_none() {
            return Ok(damage.is_empty());
        }
        let wanted = damage.iter().map(|damage| damage.digest).collect();
        if self.fetch(&[whole], &wanted)?.objects == 0 {
            return Ok(false);
        }
        Ok(self.check(tree)?.is_empty())
    }

    /// Fetches the wanted objects of some listings, as far as the remote has them and they are sound. The listings must
    /// be whole outputs: they name the packs.
    pub fn fetch(&self, wholes: &[&Tree], wanted: &BTreeSet<Digest>) -> Result<Fetched, StoreError> {
        let Some(remote) = self.remote() else { return Ok(Fetched::default()) };
        let Wish { packs, mut alone } = Wish::new(wholes, wanted);
        if packs.is_empty() && alone.is_empty() {
            return Ok(Fetched::default());
        }
        let scratch = self.scratch("fetch")?;
        let mut fetch =
            Fetch { store: self, remote, scratch: scratch.path(), wanted, fetched: Fetched::default() };
        for batch in batches(&packs, |(_, group)| group.size()) {
            // What should have been in a pack that is not there, or not sound, may lie by itself.
            let got = fetch.packs(batch)?;
            let members = batch.iter().flat_map(|(_, group)| group.0.iter().copied());
            alone.extend(members.filter(|(digest, _)| wanted.contains(digest) && !got.contains(digest)));
        }
        let (large, alone): (Vec<_>, Vec<_>) = alone.into_iter().partition(|&(_, size)| size > LARGE);
        for batch in batches(&alone, |&(_, size)| size) {
            fetch.objects(batch)?;
        }
        for (digest, size) in large {
            fetch.large(&digest, size)?;
        }
        Ok(fetch.fetched)
    }
}

/// What is to be asked for.
struct Wish {
    /// Packs by name, each object in one of them at most.
    packs: Vec<(Digest, Group)>,
    /// Objects that lie alone, with their sizes.
    alone: BTreeMap<Digest, u64>,
}

impl Wish {
    fn new(wholes: &[&Tree], wanted: &BTreeSet<Digest>) -> Self {
        let mut packs = BTreeMap::new();
        let (mut alone, mut packed) = (BTreeMap::new(), BTreeSet::new());
        for whole in wholes {
            let (groups, single) = groups(whole);
            alone.extend(single.into_iter().filter(|(digest, _)| wanted.contains(digest)));
            for group in groups {
                let new = group.0.iter().map(|(digest, _)| *digest).filter(|digest| wanted.contains(digest));
                let new: Vec<Digest> = new.filter(|digest| !packed.contains(digest)).collect();
                if !new.is_empty() {
                    packed.extend(new);
                    packs.insert(group.digest(), group);
                }
            }
        }
        alone.retain(|digest, _| !packed.contains(digest));
        Self { packs: packs.into_iter().collect(), alone }
    }
}

/// Splits into runs of [`BATCH`] or [`BATCH_BYTES`] at most, but one at least.
fn batches<T>(all: &[T], size: impl Fn(&T) -> u64) -> Vec<&[T]> {
    let (mut batches, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (place, one) in all.iter().enumerate() {
        if place > from && (place - from == BATCH || bytes + size(one) > BATCH_BYTES) {
            batches.push(&all[from..place]);
            (from, bytes) = (place, 0);
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
    remote: &'a Remote,
    scratch: &'a FilePath,
    wanted: &'a BTreeSet<Digest>,
    fetched: Fetched,
}

impl Fetch<'_> {
    /// Fetches packs; gives the objects that they had.
    fn packs(&mut self, packs: &[(Digest, Group)]) -> Result<BTreeSet<Digest>, StoreError> {
        let names: Vec<String> = packs.iter().map(|(digest, _)| name("packs", digest)).collect();
        let mut files = BTreeMap::new();
        for (name, answer) in names.iter().zip(self.remote.get_all(&names, LONGEST)) {
            let Some(pack) = answer.file() else { continue };
            let contents = Group::unpack(&pack).unwrap_or_default();
            let contents = contents.into_par_iter().filter(|(digest, _)| self.wanted.contains(digest));
            let sound: Vec<_> = contents.map(|(digest, content)| self.write(digest, content)).collect();
            if sound.is_empty() || sound.iter().any(|one| matches!(one, Ok(None))) {
                self.remote.doubt(
                    name.clone(),
                    &format!("has a damaged pack `{name}`, whose lost files count as absent"),
                );
            }
            for one in sound {
                files.extend(one?);
            }
        }
        let got = files.keys().copied().collect();
        self.keep(files)?;
        Ok(got)
    }

    /// Fetches objects that lie alone.
    fn objects(&mut self, objects: &[(Digest, u64)]) -> Result<(), StoreError> {
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
                None => self.doubt(&digest),
            }
        }
        self.keep(files)
    }

    /// Fetches an object through a file.
    fn large(&mut self, digest: &Digest, size: u64) -> Result<(), StoreError> {
        let (name, path) = (name("objects", digest), self.scratch.join(digest.to_string()));
        let request =
            self.remote.request(Want::Read, &name, longest(size), get_to(self.remote, &name, &path));
        if self.remote.wait(request).flatten() != Some(true) {
            return Ok(());
        }
        if Digest::of_file(&path)? != *digest {
            self.doubt(digest);
            return Ok(());
        }
        self.keep(BTreeMap::from([(*digest, path)]))
    }

    /// Writes a content that should have that digest; none where it has another.
    fn write(&self, digest: Digest, content: &[u8]) -> Result<Option<(Digest, PathBuf)>, StoreError> {
        if Digest::of_bytes(content) != digest {
            return Ok(None);
        }
        let path = self.scratch.join(digest.to_string());
        fs::write(&path, content).writing(&path)?;
        Ok(Some((digest, path)))
    }

    /// Publishes files that are sound.
    fn keep(&mut self, files: BTreeMap<Digest, PathBuf>) -> Result<(), StoreError> {
        let paths: Vec<PathBuf> = files.into_values().collect();
        for (_, size) in self.store.publish_files(&paths)? {
            self.fetched.objects += 1;
            self.fetched.bytes += size;
        }
        Ok(())
    }

    fn doubt(&self, digest: &Digest) {
        let message = format!("has a damaged object {digest}, which counts as absent");
        self.remote.doubt(name("objects", digest), &message);
    }
}

/// Writes a file of the remote to `path`; whether it is there.
async fn get_to(remote: &Remote, name: &str, path: &FilePath) -> Result<bool, Trouble> {
    let unwritten = |error: io::Error| Trouble {
        reason: format!("cannot write `{}`: {error}", path.display()),
        is_refusal: false,
    };
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
