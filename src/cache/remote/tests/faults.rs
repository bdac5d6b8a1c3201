//! Random damage to the files of a remote: nothing wrong is served, and who makes a result again leaves the remote
//! whole. The number of rounds is 200, or `PATCHFLOW_TEST_FAULTS`.

use std::path::PathBuf;

use super::*;
use crate::cache::Lookup;

/// Folders of a remote, by what they hold.
const AREAS: [&str; 4] = ["records", "trees", "packs", "objects"];

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 += 1;
        let digest = Digest::of_bytes(&self.0.to_le_bytes());
        let number = u64::from_le_bytes(digest.as_bytes()[..8].try_into().unwrap());
        (number % end as u64) as usize
    }
}

/// One result: its key, its files and their tree.
struct Truth {
    key: Digest,
    files: Vec<(String, Vec<u8>)>,
    tree: Tree,
}

impl Truth {
    fn wanted(&self) -> Wanted {
        Wanted::named(self.key, ["files".to_owned()])
    }
}

/// A machine whose cache is in memory, where the system has such a file system: syncs are not what is tested here.
fn machine_in_memory(url: &str) -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let address = RemoteAddress { url: url.to_owned(), mode: RemoteMode::ReadWrite };
    let remote = RemoteStore::open(&address, folder.path(), &STOP).unwrap();
    let cache = Cache::open(folder.path().join("cache"), StatIndex::in_memory()).unwrap();
    (folder, cache.with_remote(Some(remote)))
}

/// Three results: two share files, one has an object of its own beside the packs.
fn results(cache: &Cache) -> Vec<Truth> {
    let files = |from: usize, to: usize| -> Vec<(String, Vec<u8>)> {
        (from..to).map(|number| (format!("{number}"), number.to_le_bytes().repeat(20 + number))).collect()
    };
    let mut third = files(4, 9);
    third.push(("large".to_owned(), (0..300_000).map(|number| number as u8).collect()));
    let all = [files(0, 6), files(3, 9), third].into_iter().enumerate();
    all.map(|(number, files)| {
        let key = Digest::of_bytes(&[number as u8]);
        let tree = publish(cache, &key, &files);
        assert_eq!(push(cache, &key, &tree).failed, 0);
        Truth { key, files, tree }
    })
    .collect()
}

/// Damages one file; returns what was done.
fn damage(site: &FolderSite, random: &mut Random) -> String {
    let area = AREAS[random.below(4)];
    let mut files: Vec<PathBuf> = site.files(area);
    files.sort();
    let path = files[random.below(files.len())].clone();
    let mut content = std::fs::read(&path).unwrap();
    let action = match random.below(6) {
        0 | 1 => {
            let at = random.below(content.len());
            content[at] ^= 1 << random.below(8);
            format!("bit flipped at {at}")
        }
        2 => {
            content.truncate(random.below(content.len()));
            format!("cut to {}", content.len())
        }
        3 => {
            std::fs::remove_file(&path).unwrap();
            return format!("{area}: removed");
        }
        4 => {
            content.extend([0; 9]);
            "longer".to_owned()
        }
        _ => {
            let mut others = site.files(AREAS[random.below(4)]);
            others.sort();
            let other = &others[random.below(others.len())];
            let theirs = std::fs::read(other).unwrap();
            std::fs::write(other, &content).unwrap();
            content = theirs;
            format!("swapped with {}", other.display())
        }
    };
    std::fs::write(&path, content).unwrap();
    format!("{area}: {action}")
}

/// Takes every result from the remote, or makes it and pushes it; returns how many were made.
fn take_or_make(cache: &Cache, truths: &[Truth], what: &str) -> usize {
    let mut made = 0;
    for truth in truths {
        let answer = cache.lookup::<TestRecord>(&truth.wanted()).unwrap();
        if let Lookup::Found(found) = &answer {
            assert_eq!(*found.trees[0], truth.tree, "{what}: a wrong result was served");
            cache.publication().unwrap().adopt(&truth.wanted(), found).unwrap();
        }
        fetch(cache, &[&truth.tree]);
        if answer.found().is_some() && cache.objects().check(&truth.tree).unwrap().is_empty() {
            continue;
        }
        made += 1;
        cache.mark_incomplete(&truth.key);
        let folder = cache.scratch("output").unwrap();
        for (name, content) in &truth.files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let publication = cache.publication().unwrap();
        let tree = publication.publish_folder(folder.path()).unwrap();
        assert_eq!(tree, truth.tree);
        publication.publish_record(&truth.key, &TestRecord::of(truth.key, &tree).to_bytes()).unwrap();
        let pushed = push(cache, &truth.key, &tree);
        assert_eq!((pushed.failed, pushed.incomplete), (0, 0), "{what}: {pushed:?}");
    }
    made
}

/// Pushes every result of a machine.
fn push_all(cache: &Cache, truths: &[Truth]) {
    for truth in truths {
        assert_eq!(push(cache, &truth.key, &truth.tree).failed, 0);
    }
}

#[test]
fn random_damage_is_never_served_and_heals() {
    let rounds =
        std::env::var("PATCHFLOW_TEST_FAULTS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(200);
    let site = FolderSite::new();
    let (_folder, source) = machine_in_memory(site.url());
    let truths = results(&source);
    let (mut random, mut made) = (Random(12), 0);
    for round in 0..rounds {
        let what = format!("round {round}: {}", damage(&site, &mut random));
        let (_b, b) = machine_in_memory(site.url());
        made += take_or_make(&b, &truths, &what);
        // No result is made for a damaged pack whose objects are in others as well; a pusher replaces it.
        push_all(&b, &truths);
        let (_c, c) = machine_in_memory(site.url());
        assert_eq!(take_or_make(&c, &truths, &what), 0, "{what}: it was not healed");
        let warnings = remote_of(&c).take_warnings();
        assert!(warnings.is_empty(), "{what}: {warnings:?}");
    }
    assert!(
        made > rounds / 2,
        "only {made} results were made again in {rounds} rounds: the damage is harmless"
    );
}

#[test]
fn a_push_that_reads_everything_finds_what_presence_and_size_do_not_show() {
    let site = FolderSite::new();
    let (_folder, source) = machine_in_memory(site.url());
    let truths = results(&source);
    let orders: Vec<PushOrder> =
        truths.iter().map(|truth| PushOrder { key: truth.key, trees: vec![truth.tree.digest()] }).collect();
    for area in AREAS {
        site.change(area, &|file| *file.last_mut().unwrap() ^= 1);
        let push = |verify: bool| {
            let (_a, a) = machine_in_memory(site.url());
            for truth in &truths {
                publish(&a, &truth.key, &truth.files);
            }
            let (mut all, sharing) = (Pushed::default(), a.sharing().unwrap());
            if verify {
                sharing.verify::<TestRecord>(&orders, |_| {}).unwrap();
            }
            sharing.push(&orders, |pushed| all.add(pushed));
            all
        };
        assert_eq!(push(false), Pushed { known: 3, ..Pushed::default() }, "{area}");
        let healed = push(true);
        assert_eq!((healed.failed, healed.incomplete), (0, 0));
        assert!(healed.records + healed.completed > 0, "{area}: {healed:?}");
        let (_c, c) = machine_in_memory(site.url());
        assert_eq!(take_or_make(&c, &truths, area), 0);
        assert!(remote_of(&c).take_warnings().is_empty(), "{area}");
    }
}

#[test]
fn a_push_brings_back_whatever_is_gone() {
    for gone in [&["packs", "objects"][..], &["trees"], &["records"], &["trees", "packs"], &AREAS] {
        let site = FolderSite::new();
        let (_folder, source) = machine_in_memory(site.url());
        let truths = results(&source);
        for area in gone {
            site.remove(area);
        }
        let (_b, b) = machine_in_memory(site.url());
        for truth in &truths {
            publish(&b, &truth.key, &truth.files);
            assert_eq!(push(&b, &truth.key, &truth.tree).failed, 0);
        }
        let (_c, c) = machine_in_memory(site.url());
        assert_eq!(take_or_make(&c, &truths, "gone"), 0, "{gone:?}");
        assert!(remote_of(&c).take_warnings().is_empty());
    }
}

#[test]
fn an_object_is_found_in_any_pack_that_holds_it() {
    let site = FolderSite::new();
    let (_folder, source) = machine_in_memory(site.url());
    let truths = results(&source);
    // The pack of the first result goes; half of its files are in that of the second.
    let (packs, _) = pack::groups(&truths[0].tree);
    let path = Path::new(site.url()).join(Entry::Pack(packs[0].digest()).name());
    std::fs::remove_file(path).unwrap();
    let (_b, b) = machine_in_memory(site.url());
    let trees: Vec<&Tree> = truths.iter().map(|truth| &truth.tree).collect();
    fetch(&b, &trees);
    assert_eq!(b.objects().missing(&truths[0].tree).unwrap().len(), 3);
    assert!(b.objects().missing(&truths[1].tree).unwrap().is_empty());
}

#[test]
fn many_files_are_asked_for_by_listing_them() {
    let site = FolderSite::new();
    let (_folder, a) = machine_in_memory(site.url());
    let mut orders = Vec::new();
    for number in 0..150_u8 {
        let key = Digest::of_bytes(&[number]);
        let tree = publish(&a, &key, &[("file".into(), vec![number; 9])]);
        orders.push(PushOrder { key, trees: vec![tree.digest()] });
    }
    let mut all = Pushed::default();
    a.sharing().unwrap().push(&orders, |pushed| all.add(pushed));
    assert_eq!((all.records, all.failed), (150, 0));
    let address = RemoteAddress { url: site.url().to_owned(), mode: RemoteMode::ReadWrite };
    let again = RemoteStore::open(&address, Path::new("/"), &STOP).unwrap();
    let mut all = Pushed::default();
    again.push(&a.local, &orders, |pushed| all.add(pushed));
    assert_eq!(all, Pushed { known: 150, ..Pushed::default() });
    assert!(again.requests() <= 6, "{} requests", again.requests());
}
