//! Fetching trees and objects from the remote.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path as FilePath;
use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use rayon::prelude::*;

use super::circuit_breaker::{RequestError, RequestKind};
use super::pack::{Group, groups};
use super::{Answer, LARGE, LONGEST, Question, REQUESTS, RemoteStore, lock, longest};
use crate::cache::error::{AtPath, CacheError};
use crate::cache::gate::body::BodyError;
use crate::cache::gate::{self, Entry, Flaw};
use crate::cache::local::Store;
use crate::cache::local::objects::publish::Sealed;
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
        let questions: Vec<Question> = new.iter().map(Question::tree).collect();
        for (digest, answer) in new.iter().zip(self.get_all(&questions, LONGEST)) {
            let tree = match answer {
                Answer::File(bytes) => gate::tree::read(digest, &bytes),
                Answer::Refused(flaw) => Err(flaw),
                Answer::Absent | Answer::None => continue,
            };
            match tree {
                Ok(tree) => {
                    lock(&self.trees).insert(*digest, Arc::new(tree));
                }
                Err(flaw) => self.refuse(Entry::Tree(*digest), flaw),
            }
        }
        Ok(())
    }

    /// A tree that [`Self::prefetch_trees`] has found.
    pub(in crate::cache) fn tree(&self, digest: &Digest) -> Option<Arc<Tree>> {
        lock(&self.trees).get(digest).cloned()
    }

    /// Whether [`Self::prefetch_trees`] was answered that the tree is not there, or damaged.
    pub(in crate::cache) fn lacks_tree(&self, digest: &Digest) -> bool {
        let (tree, names) = (Entry::Tree(*digest), lock(&self.names));
        names.absent.contains(&tree) || names.invalid.contains(&tree)
    }

    /// Fetches the wanted objects of some trees into the local store; those that the remote lacks or that are damaged
    /// are left out. The trees must be whole outputs: they name the packs. An object is searched in every pack that
    /// may hold it, then by itself.
    pub(in crate::cache) fn fetch(
        &self,
        store: &Store,
        wholes: &[&Tree],
        wanted: &BTreeSet<Digest>,
    ) -> Result<Fetched, CacheError> {
        let mut sources = Sources::new(wholes, wanted);
        if sources.left.is_empty() {
            return Ok(Fetched::default());
        }
        let scratch = store.scratch("fetch")?;
        let mut fetch =
            Fetch { store, remote: self, scratch: scratch.path(), wanted, fetched: Fetched::default() };
        loop {
            let packs = sources.next_packs();
            if packs.is_empty() {
                break;
            }
            for batch in batches(&packs, |(_, group)| group.size()) {
                let got = fetch.packs(batch)?;
                sources.left.retain(|digest, _| !got.contains(digest));
            }
        }
        let (large, singles): (Vec<_>, Vec<_>) =
            sources.left.into_iter().partition(|&(_, size)| size > LARGE);
        for batch in batches(&singles, |&(_, size)| size) {
            fetch.objects(batch)?;
        }
        for (digest, size) in large {
            fetch.large(&digest, size)?;
        }
        Ok(fetch.fetched)
    }
}

/// Where the wanted objects may be.
struct Sources {
    /// Packs by name that were not tried yet.
    packs: BTreeMap<Digest, Group>,
    /// Objects that were not found yet, with their sizes.
    left: BTreeMap<Digest, u64>,
}

impl Sources {
    fn new(wholes: &[&Tree], wanted: &BTreeSet<Digest>) -> Self {
        let (mut packs, mut left) = (BTreeMap::new(), BTreeMap::new());
        for whole in wholes {
            let (groups, single) = groups(whole);
            left.extend(single);
            for group in groups {
                left.extend(group.0.iter().copied());
                packs.insert(group.digest(), group);
            }
        }
        left.retain(|digest, _| wanted.contains(digest));
        Self { packs, left }
    }

    /// The next packs to try: together they may have every object that is left and in a pack, each once.
    fn next_packs(&mut self) -> Vec<(Digest, Group)> {
        let mut covered = BTreeSet::new();
        let is_left = |digest: &Digest, covered: &BTreeSet<Digest>| {
            self.left.contains_key(digest) && !covered.contains(digest)
        };
        let mut chosen = BTreeSet::new();
        for (name, group) in &self.packs {
            let new: Vec<Digest> = group
                .0
                .iter()
                .map(|(digest, _)| *digest)
                .filter(|digest| is_left(digest, &covered))
                .collect();
            if !new.is_empty() {
                covered.extend(new);
                chosen.insert(*name);
            }
        }
        let (next, others) =
            std::mem::take(&mut self.packs).into_iter().partition(|(name, _)| chosen.contains(name));
        self.packs = others;
        BTreeMap::into_iter(next).collect()
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
    /// Fetches packs; returns the wanted objects that were in them.
    fn packs(&mut self, packs: &[(Digest, Group)]) -> Result<BTreeSet<Digest>, CacheError> {
        let questions: Vec<Question> =
            packs.iter().map(|(name, group)| Question::pack(name, group.packed_size())).collect();
        let mut sealed = BTreeMap::new();
        for ((name, group), answer) in packs.iter().zip(self.remote.get_all(&questions, LONGEST)) {
            let entry = Entry::Pack(*name);
            let pack = match answer {
                Answer::File(pack) => pack,
                Answer::Refused(flaw) => {
                    self.remote.refuse(entry, flaw);
                    continue;
                }
                Answer::Absent | Answer::None => continue,
            };
            let Some(contents) = group.unpack(&pack) else {
                self.remote.refuse(entry, Flaw::Malformed);
                continue;
            };
            let contents = contents.into_par_iter().filter(|(digest, _)| self.wanted.contains(digest));
            let sound: Vec<_> =
                contents.map(|(digest, content)| (digest, self.write(digest, content))).collect();
            if sound.iter().any(|(_, one)| matches!(one, Ok(None))) {
                self.remote.refuse(entry, Flaw::OtherContent);
            }
            for (digest, one) in sound {
                sealed.extend(one?.map(|one| (digest, one)));
            }
        }
        let got = sealed.keys().copied().collect();
        self.keep(sealed.into_values().collect())?;
        Ok(got)
    }

    /// Fetches objects that are not packed.
    fn objects(&mut self, objects: &[(Digest, u64)]) -> Result<(), CacheError> {
        let questions: Vec<Question> =
            objects.iter().map(|(digest, size)| Question::object(digest, *size)).collect();
        let answers = self.remote.get_all(&questions, LONGEST);
        let written = objects.par_iter().zip(answers).map(|((digest, _), answer)| match answer {
            Answer::File(content) => {
                self.write(*digest, &content).map(|file| file.ok_or(Flaw::OtherContent)).map(Some)
            }
            Answer::Refused(flaw) => Ok(Some(Err(flaw))),
            Answer::Absent | Answer::None => Ok(None),
        });
        let mut sealed = Vec::new();
        for ((digest, _), one) in objects.iter().zip(written.collect::<Vec<_>>()) {
            match one? {
                Some(Ok(one)) => sealed.push(one),
                Some(Err(flaw)) => self.remote.refuse(Entry::Object(*digest), flaw),
                None => {}
            }
        }
        self.keep(sealed)
    }

    /// Fetches an object through a file.
    fn large(&mut self, digest: &Digest, size: u64) -> Result<(), CacheError> {
        let path = self.scratch.join(digest.to_string());
        let question = Question::object(digest, size);
        let Some(copied) = self.remote.copy_to(&question, &path) else { return Ok(()) };
        if let Err(flaw) = copied {
            self.remote.refuse(Entry::Object(*digest), flaw);
        } else if Digest::of_file(&path).reading(&path)? != *digest {
            self.remote.refuse(Entry::Object(*digest), Flaw::OtherContent);
        } else {
            let published = self.store.publish_files(&[path])?;
            self.fetched.objects += published.len();
            self.fetched.bytes += size;
        }
        Ok(())
    }

    /// Writes a content to a file; `None` if its digest is another.
    fn write(&self, digest: Digest, content: &[u8]) -> Result<Option<Sealed>, CacheError> {
        let is_sound = Digest::of_bytes(content) == digest;
        is_sound.then(|| self.store.seal_content(self.scratch, digest, content)).transpose()
    }

    /// Publishes contents that are sound.
    fn keep(&mut self, sealed: Vec<Sealed>) -> Result<(), CacheError> {
        self.fetched.objects += sealed.len();
        self.fetched.bytes += sealed.iter().map(Sealed::size).sum::<u64>();
        self.store.publish_sealed(sealed)
    }
}

impl RemoteStore {
    /// Downloads a file to `path`; `None` if it does not exist or there is no answer.
    pub(super) fn copy_to(&self, question: &Question, path: &FilePath) -> Option<Result<(), Flaw>> {
        let Question { entry, most } = question;
        let name = entry.name();
        let get = async {
            let found = match self.objects.get(&Path::from(name.as_str())).await {
                Ok(found) => found,
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let failed = |error| RequestError::of_body(error, path);
            let mut file = File::create(path).map_err(|error| failed(BodyError::Local(error)))?;
            gate::body::copy(found, *most, &mut file).await.map(Some).map_err(failed)
        };
        let copied =
            self.wait(self.request(RequestKind::Read, &name, longest(*most), get)).flatten().flatten()?;
        Some(if copied { Ok(()) } else { Err(Flaw::TooLong { most: *most }) })
    }
}
