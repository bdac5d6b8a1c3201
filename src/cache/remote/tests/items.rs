//! Lists of per-image records between machines.

use std::fs::File;
use std::time::SystemTime;

use super::*;
use crate::cache::{CachedItem, DecodedRecord, ItemList, WantedItems};

/// A per-image record as `kind`, `note` and a line `DIGEST SIZE` for each file.
#[derive(Clone)]
struct TestItem {
    kind: String,
    note: String,
    files: Vec<(Digest, u64)>,
}

impl TestItem {
    fn to_bytes(&self) -> Vec<u8> {
        let files = self.files.iter().map(|(digest, size)| format!("|{digest} {size}"));
        format!("{}|{}{}", self.kind, self.note, files.collect::<String>()).into_bytes()
    }
}

impl CachedItem for TestItem {
    fn decode(bytes: &[u8]) -> DecodedRecord<Self> {
        if bytes.starts_with(b"later version") {
            return DecodedRecord::OtherVersion;
        }
        let read = || {
            let mut parts = str::from_utf8(bytes).ok()?.split('|');
            let (kind, note) = (parts.next()?.to_owned(), parts.next()?.to_owned());
            let file = |part: &str| {
                let (digest, size) = part.split_once(' ')?;
                Some((digest.parse().ok()?, size.parse().ok()?))
            };
            Some(Self { kind, note, files: parts.map(file).collect::<Option<_>>()? })
        };
        read().map_or(DecodedRecord::Malformed, DecodedRecord::Record)
    }

    fn kind(&self) -> &str {
        &self.kind
    }

    fn files(&self) -> &[(Digest, u64)] {
        &self.files
    }

    fn note(&self) -> &str {
        &self.note
    }
}

fn family() -> Digest {
    Digest::of_bytes(b"family")
}

/// The key of the item of a content.
fn item_key(content: &Digest) -> Digest {
    Digest::of_bytes(content.as_bytes())
}

/// What a machine asks for that needs the items of these contents.
fn asked(contents: impl IntoIterator<Item = Digest>) -> WantedItems {
    let keys = contents.into_iter().map(|content| item_key(&content)).collect();
    WantedItems { family: family(), kind: "extract", keys }
}

fn all_of(tree: &Tree) -> WantedItems {
    asked(wanted(tree))
}

/// A list with an item for each file of the tree.
fn list_of(tree: &Tree) -> ItemList {
    let item = |entry: &crate::cache::TreeEntry| {
        let files = vec![(entry.digest, entry.size)];
        let item = TestItem { kind: "extract".to_owned(), note: "{}".to_owned(), files };
        (item_key(&entry.digest), item.to_bytes())
    };
    ItemList {
        family: family(),
        trees: vec![tree.digest()],
        items: tree.entries().iter().map(item).collect(),
    }
}

/// Publishes a task with an item for each of its files.
fn publish_with_items(cache: &Cache, key: &Digest, files: &[(String, Vec<u8>)]) -> Tree {
    let tree = publish(cache, key, files);
    cache.publication().unwrap().publish_item_list(key, &list_of(&tree)).unwrap();
    tree
}

#[test]
fn images_that_another_machine_has_come_in_packs() {
    let site = FolderSite::new();
    let (_a, a) = machine(site.url(), RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let tree = publish_with_items(&a, &key, &many(2000));
    assert_eq!(push(&a, &key, &tree).records, 1);
    // A machine that is killed before it pushes the record leaves all else.
    site.remove("records");

    let (_b, b) = machine(site.url(), RemoteMode::ReadOnly);
    let others = [Digest::of_bytes(b"changed"), Digest::of_bytes(b"added")];
    let asked = asked(wanted(&tree).into_iter().skip(1).chain(others));
    assert_eq!(b.fetch_items::<TestItem>(&asked).unwrap(), 1999);
    let requests = remote_of(&b).requests();
    assert!(requests <= 4, "a listing, a list, a tree and a pack: {requests}");
    let first = tree.entries().iter().min_by_key(|entry| entry.digest).unwrap();
    assert_eq!(b.objects().missing(&tree).unwrap(), [first.digest], "what was not asked for stays there");
    for key in asked.keys.iter().filter(|key| !others.map(|other| item_key(&other)).contains(key)) {
        assert_eq!(b.records().of_item(key).unwrap().as_ref(), list_of(&tree).items.get(key));
    }
    assert!(b.records().get(&key).unwrap().is_none(), "the record of the task is no part of it");
    let here = WantedItems {
        keys: asked.keys.iter().copied().filter(|key| list_of(&tree).items.contains_key(key)).collect(),
        ..asked
    };
    assert_eq!(b.fetch_items::<TestItem>(&here).unwrap(), 0);
    assert_eq!(remote_of(&b).requests(), requests, "nothing is asked for what is here");

    // Evicted objects come back with their items.
    std::fs::remove_dir_all(b.root().join("v1/objects")).unwrap();
    assert_eq!(b.fetch_items::<TestItem>(&here).unwrap(), 1999);
    assert!(remote_of(&b).take_warnings().is_empty());
    let address = RemoteAddress { url: site.url().to_owned(), mode: RemoteMode::ReadWrite };
    let remote = RemoteStore::open(&address, a.root(), &STOP).unwrap();
    let again = Cache::open(a.root().to_owned(), StatIndex::in_memory()).unwrap().with_remote(Some(remote));
    assert_eq!(push(&again, &key, &tree).records, 1, "and the record comes later");
}

#[test]
fn a_list_goes_up_before_the_record_and_once() {
    let server = Server::start();
    let (_a, a) = machine(&server.url, RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let tree = publish_with_items(&a, &key, &many(3));
    assert_eq!(push(&a, &key, &tree).records, 1);
    let areas = |requests: Vec<String>| -> Vec<String> {
        let puts = requests.into_iter().filter(|request| request.starts_with("PUT"));
        puts.map(|request| request.split('/').nth(3).unwrap().to_owned()).collect()
    };
    assert_eq!(areas(server.take_requests()), ["packs", "trees", "items", "records"]);
    let (_b, b) = machine(&server.url, RemoteMode::ReadWrite);
    publish_with_items(&b, &key, &many(3));
    assert_eq!(push(&b, &key, &tree), Pushed { known: 1, ..Pushed::default() });
    assert!(areas(server.take_requests()).is_empty());

    // A list that is lost or damaged is pushed again.
    server.remove("items");
    let (_c, c) = machine(&server.url, RemoteMode::ReadWrite);
    publish_with_items(&c, &key, &many(3));
    assert_eq!(push(&c, &key, &tree).completed, 1);
    assert_eq!(areas(server.take_requests()), ["items"]);
    server.change("items", &|file| *file.last_mut().unwrap() ^= 1);
    let (_d, d) = machine(&server.url, RemoteMode::ReadWrite);
    publish_with_items(&d, &key, &many(3));
    let orders = [PushOrder { key, trees: vec![tree.digest()] }];
    d.sharing().unwrap().verify::<TestRecord>(&orders, |_| {}).unwrap();
    assert_eq!(push(&d, &key, &tree).completed, 1);
    assert_eq!(areas(server.take_requests()), ["items"]);
}

#[test]
fn a_list_of_other_outputs_than_those_of_the_record_stays_here() {
    let site = FolderSite::new();
    let (_a, a) = machine(site.url(), RemoteMode::ReadWrite);
    let (key, other) = (Digest::of_bytes(b"key"), Digest::of_bytes(b"other"));
    let before = publish(&a, &other, &many(4));
    let tree = publish(&a, &key, &many(3));
    a.publication().unwrap().publish_item_list(&key, &list_of(&before)).unwrap();
    assert_eq!(push(&a, &key, &tree).records, 1);
    assert!(site.files("items").is_empty());
}

#[test]
fn a_remote_that_does_not_list_is_no_help_and_no_failure() {
    let server = Server::start();
    let (_a, a) = machine(&server.url, RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let tree = publish_with_items(&a, &key, &many(3));
    push(&a, &key, &tree);
    let (_b, b) = machine(&server.url, RemoteMode::ReadWrite);
    server.take_requests();
    assert_eq!(b.fetch_items::<TestItem>(&all_of(&tree)).unwrap(), 0);
    assert!(server.take_requests().is_empty() && remote_of(&b).take_warnings().is_empty());
    assert!(remote_of(&b).record(&key).is_some(), "it is used for all else");
    let (_c, without) = machine("nowhere", RemoteMode::ReadOnly);
    assert_eq!(without.fetch_items::<TestItem>(&all_of(&tree)).unwrap(), 0);
}

/// Puts a list into the remote as if it were that age.
fn put_list(site: &FolderSite, list: &ItemList, age: Duration) -> Digest {
    let bytes = list.to_bytes();
    let name = ItemList::name(&bytes);
    put_bytes(site, &name, &bytes);
    let path = Path::new(site.url()).join(Entry::Items { family: family(), list: name }.name());
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_hours(1000) - age).unwrap();
    name
}

fn put_bytes(site: &FolderSite, name: &Digest, bytes: &[u8]) {
    let path = Path::new(site.url()).join(Entry::Items { family: family(), list: *name }.name());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn the_newest_lists_are_read_and_not_all() {
    let site = FolderSite::new();
    let (_a, a) = machine(site.url(), RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let tree = publish(&a, &key, &many(12));
    push(&a, &key, &tree);
    let whole = list_of(&tree);
    let items: Vec<_> = whole.items.iter().collect();
    let part = |number: usize| {
        let (key, record) = items[number];
        ItemList { items: [(*key, record.clone())].into(), ..whole.clone() }
    };
    // The ages of four are equal: of these the first names are read.
    let hours = |number: u64| Duration::from_hours(if number < 6 { number } else { 6 });
    let mut names: Vec<(u64, Digest, usize)> = (0..10)
        .map(|number| {
            (number.min(6), put_list(&site, &part(number as usize), hours(number)), number as usize)
        })
        .collect();
    names.sort_unstable();
    let (_b, b) = machine(site.url(), RemoteMode::ReadOnly);
    assert_eq!(b.fetch_items::<TestItem>(&all_of(&tree)).unwrap(), 8);
    for (rank, (_, _, number)) in names.iter().enumerate() {
        let is_here = b.records().of_item(items[*number].0).unwrap().is_some();
        assert_eq!(is_here, rank < 8, "list {number}");
    }
    // Nothing more is read once every item was found.
    let (_c, c) = machine(site.url(), RemoteMode::ReadOnly);
    let one = WantedItems { keys: [*items[0].0].into(), ..all_of(&tree) };
    assert_eq!(c.fetch_items::<TestItem>(&one).unwrap(), 1);
    assert_eq!(remote_of(&c).requests(), 4, "a listing, a list, a tree and a pack");
}

#[test]
fn a_long_list_is_not_read_for_a_single_image() {
    let site = FolderSite::new();
    let (_a, a) = machine(site.url(), RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let tree = publish_with_items(&a, &key, &many(3000));
    push(&a, &key, &tree);
    assert!((256 * 1024..512 * 1024).contains(&list_of(&tree).size_bytes()));
    let (_b, b) = machine(site.url(), RemoteMode::ReadOnly);
    let some = |count| asked(wanted(&tree).into_iter().take(count));
    assert_eq!(b.fetch_items::<TestItem>(&some(1)).unwrap(), 0);
    assert_eq!(remote_of(&b).requests(), 1);
    assert_eq!(b.fetch_items::<TestItem>(&some(2)).unwrap(), 2);
}

/// How many items a machine takes from a list of these bytes under that name, and the flaws that it warns of.
fn met(site: &FolderSite, name: &Digest, bytes: &[u8], asked: &WantedItems) -> (usize, Vec<Flaw>) {
    put_bytes(site, name, bytes);
    let (_folder, cache) = machine(site.url(), RemoteMode::ReadOnly);
    let taken = cache.fetch_items::<TestItem>(asked).unwrap();
    assert_eq!(cache.fetch_items::<TestItem>(asked).unwrap(), 0, "again");
    let kept = asked.keys.iter().filter(|key| cache.records().of_item(key).unwrap().is_some()).count();
    assert_eq!(kept, taken);
    let flaw = |warning| match warning {
        RemoteWarning::Refused { refused, .. } => Some(refused.flaw),
        other => panic!("{other}"),
    };
    site.remove("items");
    (taken, remote_of(&cache).take_warnings().into_iter().filter_map(flaw).collect())
}

#[test]
fn crafted_lists_are_refused_and_nothing_of_them_is_kept() {
    let site = FolderSite::new();
    let (_a, a) = machine(site.url(), RemoteMode::ReadWrite);
    let tree = publish(&a, &Digest::of_bytes(b"key"), &many(5));
    push(&a, &Digest::of_bytes(b"key"), &tree);
    let asked = all_of(&tree);
    let sound = list_of(&tree);
    let entry = &tree.entries()[0];
    let (key, digest, size) = (item_key(&entry.digest), entry.digest, entry.size);
    let crafted = |change: &dyn Fn(&mut TestItem)| {
        let DecodedRecord::Record(mut item) = TestItem::decode(&sound.items[&key]) else {
            panic!("a record")
        };
        change(&mut item);
        let mut list = sound.clone();
        list.items.insert(key, item.to_bytes());
        list
    };
    let with = |record: &[u8]| {
        let mut list = sound.clone();
        list.items.insert(key, record.to_vec());
        list
    };
    let other = Digest::of_bytes(b"other");
    let table: Vec<(ItemList, Flaw)> = vec![
        (crafted(&|item| item.kind = "preprocess".to_owned()), Flaw::OtherKind),
        (crafted(&|item| item.kind.clear()), Flaw::OtherKind),
        (crafted(&|item| item.note = "\u{1b}[2J".to_owned()), Flaw::Text),
        (crafted(&|item| item.note = "a\u{202e}b".to_owned()), Flaw::Text),
        (crafted(&|item| item.note = "x".repeat(300 * 1024)), Flaw::Malformed),
        (crafted(&|item| item.files = vec![(digest, size + 1)]), Flaw::TwoSizes),
        (crafted(&|item| item.files = vec![(digest, u64::MAX)]), Flaw::TwoSizes),
        (crafted(&|item| item.files = vec![(digest, 0)]), Flaw::TwoSizes),
        (crafted(&|item| item.files.push((other, 3))), Flaw::OtherFiles),
        (crafted(&|item| item.files.clear()), Flaw::NoOutputs),
        (with(b""), Flaw::Malformed),
        (with(b"<html></html>"), Flaw::Malformed),
        (with(b"\xff\xfe"), Flaw::Malformed),
        (with(b"extract|{}|../../etc/passwd 3"), Flaw::Malformed),
        (with(format!("extract||{digest} -1").as_bytes()), Flaw::Malformed),
        (with(format!("extract||{digest} 99999999999999999999").as_bytes()), Flaw::Malformed),
        (ItemList { family: other, ..sound.clone() }, Flaw::OtherFamily),
        (ItemList { trees: Vec::new(), ..sound.clone() }, Flaw::NoOutputs),
    ];
    for (number, (list, flaw)) in table.into_iter().enumerate() {
        let bytes = list.to_bytes();
        assert_eq!(met(&site, &ItemList::name(&bytes), &bytes, &asked), (0, vec![flaw]), "list {number}");
    }
    let bytes = sound.to_bytes();
    let name = ItemList::name(&bytes);
    let cut = &bytes[..bytes.len() - 1];
    for bytes in [cut, b"", b"<html></html>", &[&bytes[..], b"x"].concat()[..]] {
        assert_eq!(met(&site, &name, bytes, &asked), (0, vec![Flaw::OtherContent]));
    }
    // The count of trees, that of items, and the length of the first record.
    for at in [50, 50 + 8 + 32, 50 + 8 + 32 + 8 + 32] {
        let mut huge = bytes.clone();
        huge[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(met(&site, &ItemList::name(&huge), &huge, &asked), (0, vec![Flaw::Malformed]), "at {at}");
    }
    // A list of trees that are not there is passed over, and so is one record of a later version.
    let lost = ItemList { trees: vec![other], ..sound.clone() }.to_bytes();
    assert_eq!(met(&site, &ItemList::name(&lost), &lost, &asked), (0, Vec::new()));
    let later = with(b"later version").to_bytes();
    assert_eq!(met(&site, &ItemList::name(&later), &later, &asked), (4, Vec::new()));
    assert_eq!(met(&site, &name, &bytes, &asked), (5, Vec::new()));
}

#[test]
fn a_list_and_a_tree_that_contradict_a_sound_object_here_do_not_move_it() {
    let site = FolderSite::new();
    let (_b, b) = machine(site.url(), RemoteMode::ReadOnly);
    let mine = publish(&b, &Digest::of_bytes(b"mine"), &many(2));
    let entries = mine.entries().iter();
    let wrong = entries.map(|entry| crate::cache::TreeEntry { size: entry.size + 1, ..entry.clone() });
    let wrong = Tree::new(wrong.collect()).unwrap();
    let path = Path::new(site.url()).join(Entry::Tree(wrong.digest()).name());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, wrong.to_bytes()).unwrap();
    put_list(&site, &list_of(&wrong), Duration::ZERO);
    assert_eq!(b.fetch_items::<TestItem>(&all_of(&wrong)).unwrap(), 0);
    assert!(b.objects().check(&mine).unwrap().is_empty());
}
