//! Crafted files of a remote, and crafted answers of a server: none is used or kept here, each is warned of once with
//! what is wrong, and the next push replaces it.

use super::*;
use crate::cache::gate::Flaw;
use crate::cache::local::records;
use crate::cache::{ExpectedOutputs, Lookup, Origin, TreeEntry};

/// A remote with one result, which a file of it is crafted in.
struct Crafted {
    site: FolderSite,
    key: Digest,
    tree: Tree,
    source: Cache,
    _folder: tempfile::TempDir,
}

impl Crafted {
    fn new() -> Self {
        let site = FolderSite::new();
        let (folder, source) = machine(site.url(), RemoteMode::ReadWrite);
        let (key, mut files) = (Digest::of_bytes(b"key"), many(3));
        files.push(("large".to_owned(), vec![7; 300_000]));
        let tree = publish(&source, &key, &files);
        push(&source, &key, &tree);
        Self { site, key, tree, source, _folder: folder }
    }

    fn wanted(&self) -> Wanted {
        Wanted::named(self.key, ["files".to_owned()])
    }

    /// Replaces the remote's record by the one that a change to the sound one makes.
    fn craft_record(&self, change: impl Fn(&mut TestRecord)) {
        let mut record = TestRecord::of(self.key, &self.tree);
        change(&mut record);
        let file = records::file(&self.key, &record.to_bytes());
        self.site.change("records", &|found| found.clone_from(&file));
    }

    /// Puts a further tree into the remote.
    fn put_tree(&self, bytes: &[u8]) -> Digest {
        let digest = Tree::digest_of_bytes(bytes);
        self.put(Entry::Tree(digest), bytes);
        digest
    }

    fn put(&self, entry: Entry, bytes: &[u8]) {
        let path = Path::new(self.site.url()).join(entry.name());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// What a fresh machine makes of the remote: the answer to its lookup, how many of the objects it then has, and
    /// the flaws that it warns of.
    fn met(&self) -> (Lookup<TestRecord>, usize, Vec<Flaw>) {
        let (_folder, cache) = machine(self.site.url(), RemoteMode::ReadWrite);
        let answer = cache.lookup::<TestRecord>(&self.wanted()).unwrap();
        assert!(cache.records().get(&self.key).unwrap().is_none(), "looking up keeps nothing");
        let objects = fetch(&cache, &[&self.tree]).objects;
        let flaw = |warning| match warning {
            RemoteWarning::Refused { refused, .. } => Some(refused.flaw),
            _ => None,
        };
        let flaws = remote_of(&cache).take_warnings().into_iter().filter_map(flaw).collect();
        assert!(remote_of(&cache).take_warnings().is_empty(), "each once");
        // It makes the result itself and puts it there whole.
        let mut files = many(3);
        files.push(("large".to_owned(), vec![7; 300_000]));
        publish(&cache, &self.key, &files);
        assert_eq!(push(&cache, &self.key, &self.tree).failed, 0);
        (answer, objects, flaws)
    }

    /// Whether a fresh machine finds the whole result and no fault.
    fn is_whole(&self) -> bool {
        let (_folder, cache) = machine(self.site.url(), RemoteMode::ReadOnly);
        let found = cache.lookup::<TestRecord>(&self.wanted()).unwrap().found();
        let is_right = found.is_some_and(|found| found.record.outputs[0].1 == self.tree.digest());
        is_right && fetch(&cache, &[&self.tree]).objects == 4 && remote_of(&cache).take_warnings().is_empty()
    }
}

fn is_absent<R>(answer: &Lookup<R>) -> bool {
    matches!(answer, Lookup::Absent)
}

#[test]
fn crafted_records_are_misses_and_are_replaced() {
    type Change = fn(&mut TestRecord);
    let other = |names: &[&str]| {
        let found = names.iter().map(|&name| name.to_owned()).collect();
        Flaw::OtherOutputs { found, expected: vec!["files".to_owned()] }
    };
    let table: Vec<(Change, Flaw)> = vec![
        (|record| record.key = Digest::of_bytes(b"other"), Flaw::OtherKey),
        (|record| record.outputs.clear(), Flaw::NoOutputs),
        (
            |record| record.outputs.push(("/etc/x".to_owned(), record.outputs[0].1)),
            other(&["/etc/x", "files"]),
        ),
        (|record| record.outputs.push(("../x".to_owned(), record.outputs[0].1)), other(&["../x", "files"])),
        (|record| record.outputs[0].0 = "other".to_owned(), other(&["other"])),
        (|record| record.text = "\u{1b}[31m".to_owned(), Flaw::Text),
        (|record| record.seconds = -1.0, Flaw::Number),
    ];
    for (number, (change, flaw)) in table.into_iter().enumerate() {
        let crafted = Crafted::new();
        crafted.craft_record(change);
        let (answer, _, flaws) = crafted.met();
        assert!(is_absent(&answer) && flaws == [flaw], "record {number}: {flaws:?}");
        assert!(crafted.is_whole(), "record {number}");
    }
}

#[test]
fn crafted_trees_are_misses_and_are_replaced() {
    let entry = |path: &str, size: u64| {
        let digest = Digest::of_bytes(b"x");
        TreeEntry { path: path.to_owned(), digest, size, executable: false }
    };
    let listing = |entries: Vec<TreeEntry>| Tree::new(entries).unwrap().to_bytes();
    let why = "has control characters";
    let table = [
        (listing(vec![]), Flaw::EmptyOutput { name: "files".to_owned() }),
        (listing(vec![entry("a\u{1b}", 1)]), Flaw::Path { path: "a\u{1b}".to_owned(), why }),
        (
            listing(vec![entry("a", 1), entry("A", 1)]),
            Flaw::LetterCase { one: "A".to_owned(), other: "a".to_owned() },
        ),
        (listing(vec![entry("a", 1 << 60)]), Flaw::Sizes),
        (listing(vec![entry("a", 1), entry("b", 2)]), Flaw::TwoSizes),
        (b"patchflow tree 1\n\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), Flaw::Malformed),
    ];
    for (number, (bytes, flaw)) in table.into_iter().enumerate() {
        let crafted = Crafted::new();
        let digest = crafted.put_tree(&bytes);
        let mut record = TestRecord::of(crafted.key, &crafted.tree);
        record.outputs[0].1 = digest;
        let file = records::file(&crafted.key, &record.to_bytes());
        crafted.site.change("records", &|found| found.clone_from(&file));
        let (answer, _, flaws) = crafted.met();
        assert!(answer.found().is_none() && flaws == [flaw], "tree {number}: {flaws:?}");
        assert!(crafted.is_whole(), "tree {number}");
    }
}

#[test]
fn damaged_trees_packs_and_objects_are_refused_and_replaced() {
    type Change = fn(&mut Vec<u8>);
    let table: [(&str, Change, usize); 14] = [
        ("trees", |file| file.truncate(9), 4),
        ("trees", Vec::clear, 4),
        ("trees", |file| file[30] ^= 1, 4),
        ("packs", |file| file.truncate(file.len() - 1), 1),
        ("packs", Vec::clear, 1),
        ("packs", |file| file.push(0), 1),
        ("packs", |file| file[0] ^= 1, 1),
        ("packs", |file| file[17..25].copy_from_slice(&u64::MAX.to_le_bytes()), 1),
        ("packs", |file| file[57..65].copy_from_slice(&(1_u64 << 40).to_le_bytes()), 1),
        ("packs", |file| *file.last_mut().unwrap() ^= 1, 3),
        ("objects", |file| file[0] ^= 1, 3),
        ("objects", |file| file.push(0), 3),
        ("objects", |file| file.truncate(1), 3),
        ("records", |file| file[90] ^= 1, 4),
    ];
    for (number, (area, change, objects)) in table.into_iter().enumerate() {
        let crafted = Crafted::new();
        crafted.site.change(area, &change);
        let (_, fetched, flaws) = crafted.met();
        assert_eq!((fetched, flaws.len()), (objects, 1), "file {number} of {area}: {flaws:?}");
        assert!(crafted.is_whole(), "file {number} of {area}");
    }
}

#[test]
fn a_record_that_an_earlier_version_kept_is_checked_when_it_is_looked_up() {
    let crafted = Crafted::new();
    let cache = &crafted.source;
    let mut record = TestRecord::of(crafted.key, &crafted.tree);
    record.outputs.push(("../x".to_owned(), crafted.tree.digest()));
    cache.publication().unwrap().replace_record(&crafted.key, &record.to_bytes()).unwrap();
    let found = cache.lookup::<TestRecord>(&crafted.wanted()).unwrap().found().unwrap();
    assert_eq!(found.origin, Origin::Remote, "the local one counts as absent");
    cache.publication().unwrap().adopt(&crafted.wanted(), &found).unwrap();
    let found = cache.lookup::<TestRecord>(&crafted.wanted()).unwrap().found().unwrap();
    assert_eq!((found.origin, found.record.outputs.len()), (Origin::Local, 1), "and gives way");
    let any = Wanted { key: crafted.key, outputs: ExpectedOutputs::Any };
    assert!(cache.lookup::<TestRecord>(&any).unwrap().found().is_some());
}

#[test]
fn answers_that_are_no_files_cost_neither_memory_nor_the_run() {
    let page = b"<html><body>Please log in</body></html>";
    let table: [(Behaviour, Option<Flaw>); 5] = [
        (Behaviour::Long(1_000_000_000_000), Some(Flaw::TooLong { most: gate::record::MOST_BYTES })),
        (Behaviour::Long(u64::MAX), None),
        (Behaviour::Chunked, None),
        (Behaviour::Cut, None),
        (Behaviour::Page(page), Some(Flaw::OtherContent)),
    ];
    for (behaviour, flaw) in table {
        let server = Server::start();
        server.set_behaviour(behaviour);
        let (_folder, cache) = machine(&server.url, RemoteMode::ReadWrite);
        let key = Digest::of_bytes(b"key");
        assert!(is_absent(&cache.lookup::<TestRecord>(&Wanted::any(key)).unwrap()), "{behaviour:?}");
        let warnings = remote_of(&cache).take_warnings();
        assert_eq!(warnings.len(), 1, "{behaviour:?}: {warnings:?}");
        if let Some(flaw) = flaw {
            let refused = Refused { entry: Entry::Record(key), flaw };
            assert!(
                matches!(&warnings[0], RemoteWarning::Refused { refused: found, .. } if *found == refused),
                "{warnings:?}"
            );
        }
    }
}

#[test]
fn many_refusals_are_named_in_part_and_counted() {
    let server = Server::start();
    server.set_behaviour(Behaviour::Page(b"a page"));
    let (_folder, cache) = machine(&server.url, RemoteMode::ReadWrite);
    let wanted: Vec<Wanted> = (0..40_u8).map(|number| Wanted::any(Digest::of_bytes(&[number]))).collect();
    cache.lookup_many::<TestRecord>(&wanted).unwrap();
    let warnings = remote_of(&cache).take_warnings();
    assert_eq!(warnings.len(), MOST_NAMED + 1);
    assert!(matches!(warnings.last(), Some(RemoteWarning::MoreRefused { count: 35, .. })), "{warnings:?}");
}

#[test]
fn no_message_of_a_remote_names_its_password() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://me:hunter2@127.0.0.1:{port}/cache?sig=hunter2");
    let (_folder, cache) = machine(&url, RemoteMode::ReadWrite);
    let keys: Vec<Wanted> = (0..9_u8).map(|number| Wanted::any(Digest::of_bytes(&[number]))).collect();
    cache.lookup_many::<TestRecord>(&keys).unwrap();
    let warnings = remote_of(&cache).take_warnings();
    assert!(!warnings.is_empty());
    let all = format!("{warnings:?} {} {:?}", cache.sharing().unwrap().address(), remote_of(&cache));
    assert!(!all.contains("hunter2") && all.contains("127.0.0.1"), "{all}");
    let folder = tempfile::tempdir().unwrap();
    let address = RemoteAddress { url: "ftp://me:hunter2@host/x".to_owned(), mode: RemoteMode::ReadOnly };
    let error = RemoteStore::open(&address, folder.path(), &STOP).unwrap_err();
    assert!(!error_chain(&error).contains("hunter2"), "{error}");
}
