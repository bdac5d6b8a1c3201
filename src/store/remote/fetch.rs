//! Taking results from the remote.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::pack::{Group, groups};
use super::push::LARGE;
use super::{Answer, REQUESTS, name};
use crate::store::error::AtPath;
use crate::store::{Digest, Published, Store, StoreError, Tree};

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
    /// A listing, from here or from the remote; nothing is written.
    pub fn tree_anywhere(&self, digest: &Digest) -> Result<Option<Arc<Tree>>, StoreError> {
        if let Some(tree) = self.tree(digest)? {
            return Ok(Some(tree));
        }
        let Some(remote) = self.remote() else { return Ok(None) };
        let answers = remote.get_all(&[name("trees", digest)], &AtomicBool::new(false));
        let Some(listing) = answers.into_iter().find_map(Answer::file) else { return Ok(None) };
        if Tree::digest_of_listing(&listing) != *digest {
            remote.warn(&format!("the listing {digest} there is damaged, and counts as absent"));
            return Ok(None);
        }
        Ok(Tree::from_bytes(&listing).ok().map(Arc::new))
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
    pub fn check_or_fetch(
        &self,
        tree: &Tree,
        whole: &Tree,
        cancelled: &AtomicBool,
    ) -> Result<bool, StoreError> {
        let damage = self.check(tree)?;
        if damage.is_empty() || self.remote().is_none() {
            return Ok(damage.is_empty());
        }
        let wanted =
            damage.iter().filter_map(|damage| tree.get(&damage.path)).map(|entry| entry.digest).collect();
        if self.fetch(whole, &wanted, cancelled)?.objects == 0 {
            return Ok(false);
        }
        Ok(self.check(tree)?.is_empty())
    }

    /// Fetches those of `wanted` that are objects of a listing, as far as the remote has them. `tree` must be the
    /// whole listing of an output: it names the packs.
    pub fn fetch(
        &self,
        tree: &Tree,
        wanted: &BTreeSet<Digest>,
        cancelled: &AtomicBool,
    ) -> Result<Fetched, StoreError> {
        let Some(remote) = self.remote() else { return Ok(Fetched::default()) };
        let (packed, alone) = groups(tree);
        let mut left: BTreeSet<Digest> = tree
            .entries()
            .iter()
            .map(|entry| entry.digest)
            .filter(|digest| wanted.contains(digest))
            .collect();
        if left.is_empty() {
            return Ok(Fetched::default());
        }
        let scratch = self.scratch("fetch")?;
        let place = |digest: &Digest| scratch.path().join(digest.to_string());
        let packed: Vec<Group> = packed
            .into_iter()
            .filter(|group| group.0.iter().any(|(digest, _)| left.contains(digest)))
            .collect();
        let mut fetched = Fetched::default();
        // A few packs at a time, each kept before the next come.
        for few in packed.chunks(4) {
            let names: Vec<String> = few.iter().map(|group| name("packs", &group.digest())).collect();
            let mut files = BTreeMap::new();
            for answer in remote.get_all(&names, cancelled).into_iter().filter_map(Answer::file) {
                let Some(contents) = Group::unpack(&answer) else {
                    remote.warn("a pack there is damaged, and counts as absent");
                    continue;
                };
                for (digest, content) in contents.into_iter().filter(|(digest, _)| left.contains(digest)) {
                    fs::write(place(&digest), content).writing(&place(&digest))?;
                    files.insert(digest, place(&digest));
                }
            }
            fetched.add(self.keep(&files, &mut left)?);
        }
        let sizes: BTreeMap<Digest, u64> = tree.entries().iter().map(|it| (it.digest, it.size)).collect();
        // What lies alone, and what should have been in a pack that is not there.
        let of_packs = packed.iter().flat_map(|group| group.0.iter());
        let rest: Vec<Digest> = (alone.iter().chain(of_packs).map(|(digest, _)| *digest))
            .filter(|digest| left.contains(digest))
            .collect();
        let (large, rest): (Vec<Digest>, Vec<Digest>) = rest.into_iter().partition(|it| sizes[it] > LARGE);
        let large = large.chunks(1).map(<[Digest]>::to_vec);
        for some in rest.chunks(REQUESTS).map(<[Digest]>::to_vec).chain(large) {
            let names: Vec<String> = some.iter().map(|digest| name("objects", digest)).collect();
            let mut files = BTreeMap::new();
            for (digest, answer) in some.iter().zip(remote.get_all(&names, cancelled)) {
                let Some(content) = answer.file() else { continue };
                fs::write(place(digest), content).writing(&place(digest))?;
                files.insert(*digest, place(digest));
            }
            fetched.add(self.keep(&files, &mut left)?);
        }
        Ok(fetched)
    }

    /// Publishes files that should have these digests; what has another counts as absent.
    fn keep(
        &self,
        files: &BTreeMap<Digest, PathBuf>,
        left: &mut BTreeSet<Digest>,
    ) -> Result<Fetched, StoreError> {
        let mut fetched = Fetched::default();
        let mut sound = Vec::new();
        for (digest, path) in files {
            if Digest::of_file(path)? == *digest {
                sound.push(path.clone());
                left.remove(digest);
                fetched.objects += 1;
                fetched.bytes += fs::metadata(path).reading(path)?.len();
            } else if let Some(remote) = self.remote() {
                remote.warn(&format!("the object {digest} there is damaged, and counts as absent"));
            }
        }
        self.publish_files(&sound)?;
        Ok(fetched)
    }
}
