//! Tests of archives: those that are refused, and those that are read.

use super::*;

#[test]
fn unsafe_archives_are_refused_whole() {
    let refuse = |body: Vec<u8>, wanted: &str| {
        let (transfers, server) = (Transfers::new(), TestServer::start(body.clone(), "\"1\"", vec![]));
        let error = message(transfers.fetch(&remote(&[&server.url], &body)));
        assert!(error.contains(wanted), "{error}");
        assert_eq!(Files::of_folder(&transfers.folder.path().join("files")).unwrap().len(), 0);
    };
    refuse(archive(&[("a.png", b"1"), ("../up.png", b"2")]), "`../up.png` leaves the folder");
    refuse(archive(&[("/etc/x", b"1")]), "absolute");
    refuse(archive(&[("C:\\x", b"1")]), "drive");
    refuse(archive(&[("a/b", b"1"), ("a\\b", b"2")]), "`a/b` twice");
    refuse(
        packed(&[("a", &vec![0; 900_000]), ("b", &vec![0; 200_000])], CompressionMethod::Deflated),
        "unpacks to more",
    );
    let many: Vec<String> = (0..11).map(|index| index.to_string()).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b"1"[..])).collect();
    refuse(archive(&many), "11 entries");
    refuse(b"<html>sorry</html>".to_vec(), "a web page");
    refuse(b"\x1f\x8b gzip".to_vec(), "a gzip file");
    refuse(b"nothing known".to_vec(), "an unknown format");
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    writer.add_symlink("link", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    refuse(writer.finish().unwrap().into_inner(), "`link` is a symbolic link");
}

#[test]
fn methods_that_are_not_read_are_named_before_anything_is_unpacked() {
    let names = [
        (1, "Shrink"),
        (9, "Deflate64"),
        (12, "BZip2"),
        (14, "LZMA"),
        (93, "Zstandard"),
        (95, "XZ"),
        (98, "PPMd"),
    ];
    for (method, name) in names.into_iter().chain([(97, "(97)")]) {
        // The first entry is stored and could be unpacked.
        let two = archive(&[("a/first.png", b"stored"), ("b/second.png", b"packed")]);
        let second = two.windows(4).rposition(|four| four == b"PK\x03\x04").unwrap();
        let directory = two.windows(4).rposition(|four| four == b"PK\x01\x02").unwrap();
        let mut body = two.clone();
        for (start, offset) in [(second, 8), (directory, 10)] {
            body[start + offset..start + offset + 2].copy_from_slice(&u16::to_le_bytes(method));
        }
        let (transfers, server) = (Transfers::new(), TestServer::start(body.clone(), "\"1\"", vec![]));
        let error = transfers.fetch(&remote(&[&server.url], &body)).unwrap_err();
        let StageError::Archive { problem: ArchiveProblem::Method { entry, method }, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(entry, "b/second.png");
        assert!(method.contains(name), "{method}");
        assert_eq!(Files::of_folder(&transfers.folder.path().join("files")).unwrap().len(), 0);
    }
}

#[test]
fn encrypted_entries_are_refused_and_wrong_sums_are_named() {
    let body = archive(&[("secret.png", b"12345678")]);
    let mut encrypted = body.clone();
    let directory = body.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
    encrypted[6] |= 1;
    encrypted[directory + 8] |= 1;
    let damaged = replaced(body, b"12345678", b"12345679");
    for (body, is_encrypted) in [(encrypted, true), (damaged, false)] {
        let server = TestServer::start(body.clone(), "\"1\"", vec![]);
        let error = Transfers::new().fetch(&remote(&[&server.url], &body)).unwrap_err();
        let StageError::Archive { problem, .. } = &error else { panic!("{error}") };
        assert_eq!(matches!(problem, ArchiveProblem::Encrypted { .. }), is_encrypted);
        assert!(error.to_string().contains("`secret.png`"), "{error}");
    }
}

/// Sizes and offsets of 64 bits, as archives above 4 GB have them.
#[test]
fn zip64_is_read() {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().large_file(true);
    writer.start_file("train/1.png", options).unwrap();
    writer.write_all(b"picture").unwrap();
    let body = writer.finish().unwrap().into_inner();
    let server = TestServer::start(body.clone(), "\"1\"", vec![]);
    let transfers = Transfers::new();
    let files = transfers.fetch(&remote(&[&server.url], &body)).unwrap();
    assert_eq!(files.get("train/1.png").unwrap().read().unwrap(), b"picture");
}

/// Replaces every occurrence of `from`, of equal length.
fn replaced(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    for start in 0..bytes.len() - from.len() {
        if &bytes[start..start + from.len()] == from {
            bytes[start..start + from.len()].copy_from_slice(to);
        }
    }
    bytes
}

#[test]
fn duplicate_names_and_wrong_sizes_are_detected() {
    let twice = replaced(archive(&[("aa", b"1"), ("bb", b"2")]), b"bb", b"aa");
    let server = TestServer::start(twice.clone(), "\"1\"", vec![]);
    assert!(message(Transfers::new().fetch(&remote(&[&server.url], &twice))).contains("twice"));

    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    writer.start_file("bomb", SimpleFileOptions::default()).unwrap();
    writer.write_all(&vec![0; 70_001]).unwrap();
    let honest = writer.finish().unwrap().into_inner();
    let bomb = replaced(honest, &70_001_u32.to_le_bytes(), &17_u32.to_le_bytes());
    let server = TestServer::start(bomb.clone(), "\"1\"", vec![]);
    let error = message(Transfers::new().fetch(&remote(&[&server.url], &bomb)));
    assert!(error.contains("`bomb`"), "{error}");
}

/// Damaged archives are answered: what is unpacked are files of the archive, within the folder. Names have no checksum, so
/// that a changed one is a name like any other.
fn answer_mutations(count: usize, seed: u64) -> usize {
    let contents: [&[u8]; 3] = [&[7; 3000], b"picture", b"path,label\na.png,good\n"];
    let entries: Vec<(&str, &[u8])> =
        ["train/10000.png", "test/20000.png", "images.csv"].into_iter().zip(contents).collect();
    let files = [archive(&entries), packed(&entries, CompressionMethod::Deflated)];
    let mut rng = crate::kernels::random::Rng::new(seed, "mutations");
    let mut unpacked = 0;
    for index in 0..count {
        let (mutation, bytes) = crate::kernels::mutation::mutated(&mut rng, &files[index % files.len()]);
        let transfers = Transfers::new();
        let (path, into) =
            (transfers.folder.path().join("set.zip"), transfers.folder.path().join("files/in"));
        std::fs::create_dir_all(&into).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let answer = archive::unpack(&path, &remote(&[], &bytes), &into, &transfers.context());
        let found = Files::of_folder(transfers.folder.path()).unwrap();
        assert!(found.iter().all(|(name, _)| name == "set.zip" || name.starts_with("files/in/")), "{index}");
        if answer.is_ok() {
            unpacked += 1;
            for (name, file) in found.iter().filter(|(name, _)| *name != "set.zip") {
                let content = file.read().unwrap();
                assert!(
                    contents.contains(&&content[..]),
                    "{name}, {mutation:?}, number {index} of seed {seed}"
                );
            }
        }
    }
    unpacked
}

#[test]
fn mutated_archives_are_answered() {
    let unpacked = answer_mutations(400, 1);
    assert!((5..300).contains(&unpacked), "{unpacked} of 400 were unpacked");
}

#[test]
#[ignore = "the long form of the test above"]
fn many_mutated_archives_are_answered() {
    for seed in [2, 3] {
        let unpacked = answer_mutations(10_000, seed);
        assert!((100..7500).contains(&unpacked), "{unpacked} of 10,000 were unpacked, seed {seed}");
    }
}
