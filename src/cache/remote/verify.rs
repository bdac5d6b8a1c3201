//! Reading what the remote has of some results, as `cache push --verify` does: what is damaged is marked, so that the
//! push after it replaces it.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::pack::Group;
use super::presence::Part;
use super::push::{LocalResult, PushOrder};
use super::{Answer, LARGE, LONGEST, Question, RemoteStore};
use crate::cache::error::CacheError;
use crate::cache::gate::{self, Entry, Flaw};
use crate::cache::item_list::ItemList;
use crate::cache::local::Store;
use crate::digest::Digest;

/// Files that are read together; packs have 8 MiB on average.
const TOGETHER: usize = 16;

impl RemoteStore {
    /// Reads every tree, pack, object and list of some results in the remote and refuses those that are damaged. `report` is
    /// called with the number of files that were read. Records are read by [`Self::lookup_many`].
    pub(in crate::cache) fn verify(
        &self,
        store: &Store,
        orders: &[PushOrder],
        mut report: impl FnMut(usize),
    ) -> Result<(), CacheError> {
        let results = orders.iter().filter_map(|order| LocalResult::read(store, order).ok());
        let (mut trees, mut packs, mut objects) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        let mut lists = BTreeMap::new();
        let results = results.map(|result| {
            lists.extend(result.items.map(|part| (part.entry.digest(), part)));
            result.outputs
        });
        for output in results.flatten() {
            trees.insert(output.digest);
            packs.extend(output.packs.into_iter().map(|group| (group.digest(), group)));
            objects.extend(output.objects);
        }
        let (large, objects): (BTreeMap<Digest, u64>, BTreeMap<Digest, u64>) =
            objects.into_iter().partition(|&(_, size)| size > LARGE);
        self.verify_all(
            trees.into_iter().map(|digest| (digest, ())).collect(),
            |digest, ()| Question::tree(digest),
            |digest, (), bytes| gate::tree::read(digest, bytes).map(drop),
            &mut report,
        );
        self.verify_all(
            packs,
            |name, group: &Group| Question::pack(name, group.packed_size()),
            |_, group, bytes| check_pack(group, bytes),
            &mut report,
        );
        self.verify_all(
            objects,
            |digest, size| Question::object(digest, *size),
            |digest, _, bytes| check_object(digest, bytes),
            &mut report,
        );
        self.verify_all(
            lists,
            |_, part: &Part| Question { entry: part.entry, most: part.size.unwrap_or_default() },
            |name, _, bytes| if ItemList::name(bytes) == *name { Ok(()) } else { Err(Flaw::OtherContent) },
            &mut report,
        );
        let scratch = store.scratch("verify")?;
        for (digest, size) in large {
            let path = scratch.path().join("object");
            if let Some(Err(flaw)) = self.verify_large(&digest, size, &path) {
                self.refuse(Entry::Object(digest), flaw);
            }
            report(1);
        }
        Ok(())
    }

    /// Reads files and refuses those that `check` finds wrong.
    fn verify_all<T: Sync>(
        &self,
        files: BTreeMap<Digest, T>,
        question: impl Fn(&Digest, &T) -> Question,
        check: impl Fn(&Digest, &T, &[u8]) -> Result<(), Flaw> + Sync,
        report: &mut impl FnMut(usize),
    ) {
        let files: Vec<(Digest, T)> = files.into_iter().collect();
        for some in files.chunks(TOGETHER) {
            let questions: Vec<Question> = some.iter().map(|(digest, of)| question(digest, of)).collect();
            let answers = self.get_all(&questions, LONGEST);
            let checked = some.par_iter().zip(answers).map(|((digest, of), answer)| match answer {
                Answer::File(bytes) => check(digest, of, &bytes),
                Answer::Refused(flaw) => Err(flaw),
                Answer::Absent | Answer::None => Ok(()),
            });
            for (question, checked) in questions.iter().zip(checked.collect::<Vec<_>>()) {
                if let Err(flaw) = checked {
                    self.refuse(question.entry, flaw);
                }
            }
            report(some.len());
        }
    }

    fn verify_large(&self, digest: &Digest, size: u64, path: &std::path::Path) -> Option<Result<(), Flaw>> {
        let copied = self.copy_to(&Question::object(digest, size), path)?;
        Some(copied.and_then(|()| match Digest::of_file(path) {
            Ok(found) if found == *digest => Ok(()),
            _ => Err(Flaw::OtherContent),
        }))
    }
}

fn check_pack(group: &Group, pack: &[u8]) -> Result<(), Flaw> {
    let contents = group.unpack(pack).ok_or(Flaw::Malformed)?;
    contents.into_iter().try_for_each(|(digest, content)| check_object(&digest, content))
}

fn check_object(digest: &Digest, content: &[u8]) -> Result<(), Flaw> {
    if Digest::of_bytes(content) == *digest { Ok(()) } else { Err(Flaw::OtherContent) }
}
