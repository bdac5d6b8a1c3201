//! Taking per-image records that other machines have shared, with their objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::gate::{self, CachedItem, DecodedRecord, Entry, WantedItems};
use super::item_list::ItemList;
use super::{Cache, CacheError, Digest, Publication, RemoteStore, Tree, TreeEntry};

/// Lists that are read for one task (chosen).
const MOST_LISTS: usize = 8;

/// Bytes of lists that are read for each image that is missing (chosen: they take less time than the image, so that a
/// machine that lacks one image of thousands reads no long list for it).
const BYTES_PER_ITEM: u64 = 256 * 1024;

/// The records that were found, and the outputs whose packs hold their objects.
struct FoundItems<I> {
    items: BTreeMap<Digest, (I, Vec<u8>)>,
    trees: BTreeMap<Digest, Arc<Tree>>,
}

impl Cache {
    /// Takes the wanted per-image records that are not here from the lists of other machines, newest first, with their
    /// objects in packs. Returns how many. Those that are not found, or whose objects cannot be fetched, stay absent.
    /// A remote that does not list its files is of no help, and no request is made if every record is here.
    pub fn fetch_items<I: CachedItem>(&self, wanted: &WantedItems) -> Result<usize, CacheError> {
        let Some(remote) = &self.remote else { return Ok(0) };
        let mut left = self.absent_items::<I>(&wanted.keys)?;
        if left.is_empty() {
            return Ok(0);
        }
        let mut allowance = BYTES_PER_ITEM.saturating_mul(left.len() as u64).min(ItemList::MOST_BYTES);
        let mut found = FoundItems { items: BTreeMap::new(), trees: BTreeMap::new() };
        let mut lists = 0;
        for (name, size) in remote.item_lists(&wanted.family) {
            if left.is_empty() || lists == MOST_LISTS {
                break;
            }
            if size <= allowance {
                (allowance, lists) = (allowance - size, lists + 1);
                self.search::<I>(remote, (&name, size), wanted, &mut left, &mut found)?;
            }
        }
        self.keep_items(remote, &found)
    }

    /// The keys without a record here whose objects are all here.
    fn absent_items<I: CachedItem>(&self, keys: &BTreeSet<Digest>) -> Result<BTreeSet<Digest>, CacheError> {
        let mut absent = BTreeSet::new();
        for key in keys {
            let item = self.local.item(key)?.map(|bytes| I::decode(&bytes));
            let is_here = match item {
                Some(DecodedRecord::Record(item)) => self.local.missing(&tree_of(item.files())?)?.is_empty(),
                _ => false,
            };
            if !is_here {
                absent.insert(*key);
            }
        }
        Ok(absent)
    }

    /// Reads one list and moves what is wanted of it from `left` to `found`.
    fn search<I: CachedItem>(
        &self,
        remote: &RemoteStore,
        (name, size): (&Digest, u64),
        wanted: &WantedItems,
        left: &mut BTreeSet<Digest>,
        found: &mut FoundItems<I>,
    ) -> Result<(), CacheError> {
        let entry = Entry::Items { family: wanted.family, list: *name };
        let Some(bytes) = remote.item_list(entry, size) else { return Ok(()) };
        let mut checked = match gate::items::read::<I>(name, wanted, &bytes) {
            Ok(checked) => checked,
            Err(flaw) => {
                remote.refuse(entry, flaw);
                return Ok(());
            }
        };
        if !checked.items.keys().any(|key| left.contains(key)) {
            return Ok(());
        }
        let Some(trees) = self.trees_of(remote, &checked.list.trees)? else { return Ok(()) };
        if let Err(flaw) = gate::items::check_files(&checked.items, &trees) {
            remote.refuse(entry, flaw);
            return Ok(());
        }
        for (key, item) in checked.items {
            if left.remove(&key) {
                found.items.insert(key, (item, checked.list.items.remove(&key).unwrap_or_default()));
            }
        }
        found.trees.extend(checked.list.trees.into_iter().zip(trees));
        Ok(())
    }

    /// The trees of these digests, from here or from the remote; `None` if one is in neither.
    fn trees_of(
        &self,
        remote: &RemoteStore,
        digests: &[Digest],
    ) -> Result<Option<Vec<Arc<Tree>>>, CacheError> {
        remote.prefetch_trees(&self.local, &digests.iter().copied().collect())?;
        let mut trees = Vec::new();
        for digest in digests {
            let here = self.local.tree(digest)?;
            let Some(tree) = here.or_else(|| remote.tree(digest)) else { return Ok(None) };
            trees.push(tree);
        }
        Ok(Some(trees))
    }

    /// Fetches the objects of the records and keeps those records whose objects are all here then.
    fn keep_items<I: CachedItem>(
        &self,
        remote: &RemoteStore,
        found: &FoundItems<I>,
    ) -> Result<usize, CacheError> {
        let files: Vec<(Digest, u64)> =
            found.items.values().flat_map(|(item, _)| item.files()).copied().collect();
        let missing = self.local.missing(&tree_of(&files)?)?.into_iter().collect();
        let wholes: Vec<&Tree> = found.trees.values().map(|tree| &**tree).collect();
        // In use before they are here, so that nothing is collected in between.
        found.items.keys().for_each(|key| self.local.hold(key));
        remote.fetch(&self.local, &wholes, &missing)?;
        let publication = Publication::begin(&self.local)?;
        let mut kept = 0;
        for (key, (item, bytes)) in &found.items {
            if self.local.missing(&tree_of(item.files())?)?.is_empty() {
                publication.publish_item(key, bytes)?;
                kept += 1;
            }
        }
        Ok(kept)
    }
}

/// A tree of some files, to ask for them.
fn tree_of(files: &[(Digest, u64)]) -> Result<Tree, CacheError> {
    let entry = |(index, &(digest, size)): (usize, &(Digest, u64))| TreeEntry {
        path: index.to_string(),
        digest,
        size,
        executable: false,
    };
    Tree::new(files.iter().enumerate().map(entry).collect())
}
