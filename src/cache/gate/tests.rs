//! Crafted records and trees, each with the refusal that it must meet.

use super::*;
use crate::cache::test_record::TestRecord;
use crate::cache::{Tree, TreeEntry};

fn key() -> Digest {
    Digest::of_bytes(b"key")
}

fn sound() -> TestRecord {
    let outputs = ["a", "b"].map(|name| (name.to_owned(), Digest::of_bytes(name.as_bytes())));
    TestRecord { key: key(), outputs: outputs.to_vec(), text: "made on host".to_owned(), seconds: 1.0 }
}

fn expected() -> ExpectedOutputs {
    ExpectedOutputs::Named(vec!["b".to_owned(), "a".to_owned()])
}

fn refusal(bytes: &[u8], expected: &ExpectedOutputs) -> Option<Flaw> {
    check_record::<TestRecord>(&key(), bytes, expected).err()
}

/// The refusal of a record that a change to a sound one makes.
fn refusal_of(change: impl FnOnce(&mut TestRecord), expected: &ExpectedOutputs) -> Option<Flaw> {
    let mut record = sound();
    change(&mut record);
    refusal(&record.to_bytes(), expected)
}

#[test]
fn a_sound_record_passes_and_one_of_another_version_is_no_mistake() {
    assert_eq!(check_record(&key(), &sound().to_bytes(), &expected()), Ok(Some(sound())));
    assert_eq!(check_record(&key(), &sound().to_bytes(), &ExpectedOutputs::Any), Ok(Some(sound())));
    assert_eq!(check_record::<TestRecord>(&key(), b"later version", &expected()), Ok(None));
}

type Change = Box<dyn FnOnce(&mut TestRecord)>;

#[test]
fn crafted_records_are_refused() {
    let other = |names: &[&str]| {
        let found = names.iter().map(|&name| name.to_owned()).collect();
        Flaw::OtherOutputs { found, expected: vec!["a".to_owned(), "b".to_owned()] }
    };
    let add =
        |name: &'static str| move |record: &mut TestRecord| record.outputs.push((name.to_owned(), key()));
    let table: Vec<(Change, Flaw)> = vec![
        (Box::new(|record| record.key = Digest::of_bytes(b"other")), Flaw::OtherKey),
        (Box::new(|record| record.outputs.clear()), Flaw::NoOutputs),
        (Box::new(|record| drop(record.outputs.pop())), other(&["a"])),
        (Box::new(add("c")), other(&["a", "b", "c"])),
        (Box::new(add("/etc/cron.d/x")), other(&["/etc/cron.d/x", "a", "b"])),
        (Box::new(add("../x")), other(&["../x", "a", "b"])),
        (Box::new(add("a")), other(&["a", "a", "b"])),
        (Box::new(|record| record.outputs[1].0 = "B".to_owned()), other(&["B", "a"])),
        (Box::new(|record| record.outputs[1].0 = "b\0".to_owned()), other(&["a", "b\0"])),
        (Box::new(|record| record.text = "\u{1b}[2J".to_owned()), Flaw::Text),
        (Box::new(|record| record.text = "a\u{9b}31m".to_owned()), Flaw::Text),
        (Box::new(|record| record.text = "\u{202e}".to_owned()), Flaw::Text),
        (Box::new(|record| record.text = "\r".to_owned()), Flaw::Text),
        (Box::new(|record| record.text = "x".repeat(2000)), Flaw::Text),
        (Box::new(|record| record.seconds = -1.0), Flaw::Number),
        (Box::new(|record| record.seconds = f64::NAN), Flaw::Number),
        (Box::new(|record| record.seconds = f64::INFINITY), Flaw::Number),
        (Box::new(|record| record.seconds = 1e300), Flaw::Number),
    ];
    for (number, (change, flaw)) in table.into_iter().enumerate() {
        assert_eq!(refusal_of(change, &expected()), Some(flaw), "record {number}");
    }
    for malformed in [&b""[..], b"{}", b"\xff\xfe", b"<html><body>Please log in</body></html>"] {
        assert_eq!(refusal(malformed, &expected()), Some(Flaw::Malformed));
    }
}

#[test]
fn a_caller_that_does_not_know_the_stage_still_gets_plain_names_only() {
    for name in ["/etc/x", "..", "a/b", "a\\b", "", ".hidden", "a b", "a\u{1b}", &"x".repeat(300)] {
        let rename = |record: &mut TestRecord| record.outputs[0].0 = name.to_owned();
        let flaw = refusal_of(rename, &ExpectedOutputs::Any);
        assert_eq!(flaw, Some(Flaw::OutputName { name: name.to_owned() }), "{name:?}");
    }
}

fn entry(path: &str, content: &str) -> TreeEntry {
    let digest = Digest::of_bytes(content.as_bytes());
    TreeEntry { path: path.to_owned(), digest, size: content.len() as u64, executable: false }
}

/// Reads a tree under its own digest.
fn read(bytes: &[u8]) -> Result<Tree, Flaw> {
    tree::read(&Tree::digest_of_bytes(bytes), bytes)
}

#[test]
fn crafted_trees_are_refused() {
    let path = |path: &str, why| Flaw::Path { path: path.to_owned(), why };
    let case = |one: &str, other: &str| Flaw::LetterCase { one: one.to_owned(), other: other.to_owned() };
    let sized = |size: u64| TreeEntry { size, ..entry("a", "x") };
    let long = format!("a/{}", "x".repeat(256));
    let deep = "x/".repeat(1100) + "y";
    let (control, long_why) = ("has control characters", "is too long");
    let table: Vec<(Vec<TreeEntry>, Flaw)> = vec![
        (vec![entry("a\u{1b}[2J", "x")], path("a\u{1b}[2J", control)),
        (vec![entry("a\nb", "x")], path("a\nb", control)),
        (vec![entry("a/\u{202e}gnp", "x")], path("a/\u{202e}gnp", control)),
        (vec![entry(&long, "x")], path(&long, long_why)),
        (vec![entry(&deep, "x")], path(&deep, long_why)),
        (vec![entry("A.png", "x"), entry("a.png", "y")], case("A.png", "a.png")),
        (vec![entry("A/x", "x"), entry("a/y", "y")], case("A", "a")),
        (vec![entry("B", "x"), entry("b/c", "y")], case("B", "b")),
        (vec![entry("x/Ä/a", "x"), entry("x/ä/b", "y")], case("x/Ä", "x/ä")),
        (vec![sized(0)], Flaw::Sizes),
        (vec![TreeEntry { size: 1, ..entry("a", "") }], Flaw::Sizes),
        (vec![sized(1 << 60)], Flaw::Sizes),
        (vec![sized(u64::MAX), TreeEntry { path: "b".to_owned(), ..sized(u64::MAX) }], Flaw::Sizes),
        (vec![sized(1), TreeEntry { path: "b".to_owned(), ..sized(2) }], Flaw::TwoSizes),
    ];
    for (number, (entries, flaw)) in table.into_iter().enumerate() {
        let bytes = Tree::new(entries).unwrap().to_bytes();
        assert_eq!(read(&bytes).err(), Some(flaw), "tree {number}");
    }
}

#[test]
fn malformed_trees_and_those_of_another_digest_are_refused() {
    let bytes = Tree::new(vec![entry("a", "x"), entry("b/c", "y")]).unwrap().to_bytes();
    assert!(read(&bytes).is_ok());
    assert_eq!(tree::read(&key(), &bytes).err(), Some(Flaw::OtherContent));
    let replaced = |from: &str, to: &str| {
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
    };
    let mut huge = bytes.clone();
    huge[17..25].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut long_path = bytes.clone();
    long_path[25..33].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    let table = [
        ("cut", bytes[..bytes.len() - 1].to_vec()),
        ("longer", [&bytes[..], b"x"].concat()),
        ("empty", Vec::new()),
        ("a page", b"<html></html>".to_vec()),
        ("another version", replaced("tree 1", "tree 2")),
        ("a count beyond its bytes", huge),
        ("a path beyond its bytes", long_path),
        ("a path upwards", replaced("b/c", "../")),
        ("an absolute path", replaced("b/c", "/bc")),
        ("a path of dots", replaced("b/c", "./c")),
        ("a NUL", replaced("b/c", "b\0c")),
        ("a backslash", replaced("b/c", "b\\c")),
        ("no UTF-8", {
            let mut bytes = bytes.clone();
            let at = bytes.windows(3).position(|window| window == b"b/c").unwrap();
            bytes[at] = 0xff;
            bytes
        }),
    ];
    for (name, bytes) in table {
        assert_eq!(read(&bytes).err(), Some(Flaw::Malformed), "{name}");
    }
}

#[test]
fn names_that_only_look_alike_pass() {
    for paths in [["a/B/c", "a/B/d"], ["a-b", "a/b"], ["ab/c", "aBc"], ["x/readme", "y/README"]] {
        let entries = paths.map(|path| entry(path, path));
        let tree = Tree::new(entries.to_vec()).unwrap();
        assert_eq!(tree::check(&tree), Ok(()), "{paths:?}");
    }
}
