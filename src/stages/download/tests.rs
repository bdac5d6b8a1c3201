//! Tests of downloads on a server on the loopback interface.

mod archives;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

use super::server::{Answer, TestServer};
use super::*;
use crate::artifacts::Files;
use crate::stages::context::testing::TestContext;
use crate::stages::fields::{Problem, Value};
use crate::stages::{Inputs, Item, ItemFile, Items, Progress};

/// A context for transfers that stores the log and does not wait.
struct Transfers {
    folder: tempfile::TempDir,
    log: Mutex<Vec<String>>,
    cancelled: AtomicBool,
    environment: crate::stages::Variables,
    work: PathBuf,
    is_offline: bool,
}

impl Transfers {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            work: folder.path().join("work"),
            folder,
            log: Mutex::default(),
            cancelled: AtomicBool::new(false),
            environment: crate::stages::Variables::new(),
            is_offline: false,
        }
    }

    fn fetch(&self, remote: &HttpSource) -> Result<Files, StageError> {
        let policy = transfer::Policy {
            tries: 3,
            first_wait: Duration::ZERO,
            longest_wait: Duration::ZERO,
            silence: Duration::from_secs(5),
        };
        let files = self.folder.path().join("files");
        fetch(remote, &policy, &files, &self.context())?;
        Ok(Files::of_folder(&files).unwrap())
    }

    fn context(&self) -> Context<'_> {
        Context {
            seed: 0,
            threads: 1,
            progress: self,
            items: self,
            cancelled: &self.cancelled,
            is_offline: self.is_offline,
            search_device: crate::kernels::backbone::Device::Cpu,
            work: &self.work,
            project: self.folder.path(),
            environment: &self.environment,
        }
    }

    fn part(&self) -> Vec<u8> {
        std::fs::read(self.work.join("set.zip.part")).unwrap_or_default()
    }
}

impl Progress for Transfers {
    fn report(&self, _: u64, _: u64, _: &'static str) {}
    fn log(&self, line: &str) {
        self.log.lock().unwrap().push(line.to_owned());
    }
}

impl Items for Transfers {
    fn recall(&self, _: &Fields) -> Option<Item> {
        None
    }
    fn keep(&self, _: &Fields, _: &[PathBuf], _: &str) -> Result<Item, StageError> {
        unreachable!("downloads keep no items")
    }
    fn once(&self, _: &Fields, _: &mut crate::stages::Make<'_>) -> Result<Item, StageError> {
        unreachable!("downloads keep no items")
    }
    fn add_output(&self, _: &ItemFile, _: &str) {}
}

fn read(table: &Fields) -> (Download, Vec<Problem>) {
    let (mut problems, mut ports) = (Vec::new(), Vec::new());
    let mut reader = Reader::new(table, &mut problems, &mut ports);
    let spec = Download::read(&mut reader);
    reader.finish();
    (spec, problems)
}

fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    packed(entries, CompressionMethod::Stored)
}

fn packed(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in entries {
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn two_files() -> Vec<u8> {
    archive(&[("train/10000.png", &[7; 3000]), ("test/20000.png", b"picture")])
}

fn remote(urls: &[&str], body: &[u8]) -> HttpSource {
    HttpSource {
        urls: urls.iter().map(|&url| url.to_owned()).collect(),
        digest: Expected::parse(&format!("blake3:{}", blake3::hash(body).to_hex())).unwrap(),
        is_unpacked: true,
        name: "set.zip".to_owned(),
        max_size_bytes: 1 << 20,
        max_entries: 10,
    }
}

fn message(result: Result<Files, StageError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn an_archive_is_downloaded_checked_and_unpacked() {
    let body = two_files();
    let (transfers, server) = (Transfers::new(), TestServer::start(body.clone(), "\"1\"", vec![]));
    let files = transfers.fetch(&remote(&[&server.url], &body)).unwrap();
    let names: Vec<&str> = files.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["test/20000.png", "train/10000.png"]);
    assert_eq!(files.get("test/20000.png").unwrap().read().unwrap(), b"picture");
    assert!(transfers.part().is_empty(), "the archive is not kept");
}

#[test]
fn a_broken_connection_is_resumed_where_it_broke() {
    let body = two_files();
    let server = TestServer::start(body.clone(), "\"1\"", vec![Answer::Break(1000), Answer::Status(500)]);
    Transfers::new().fetch(&remote(&[&server.url], &body)).unwrap();
    let seen = server.seen();
    assert_eq!(seen.iter().map(|one| one.sent).collect::<Vec<_>>(), [1000, 0, body.len() - 1000]);
    assert_eq!(seen[2].range.as_deref(), Some("bytes=1000-"));
    assert_eq!(seen[2].if_range.as_deref(), Some("\"1\""));
}

#[test]
fn a_stopped_download_is_resumed_by_the_next_run() {
    let body = two_files();
    let transfers = Transfers::new();
    let server = TestServer::start(body.clone(), "\"1\"", vec![Answer::Break(900), Answer::Status(404)]);
    let remote = remote(&[&server.url], &body);
    assert!(message(transfers.fetch(&remote)).contains("404"));
    assert_eq!(transfers.part(), body[..900]);
    transfers.fetch(&remote).unwrap();
    assert_eq!(server.seen()[2].sent, body.len() - 900);
}

#[test]
fn a_server_without_ranges_sends_everything_again() {
    let body = two_files();
    let server = TestServer::start(body.clone(), "\"1\"", vec![Answer::Break(1000), Answer::Whole]);
    Transfers::new().fetch(&remote(&[&server.url], &body)).unwrap();
    assert_eq!(server.seen()[1].sent, body.len());
}

#[test]
fn a_missing_file_is_requested_once_and_the_next_mirror_is_tried() {
    let body = two_files();
    let gone = TestServer::start(Vec::new(), "\"1\"", vec![Answer::Status(404); 5]);
    let mirror = TestServer::start(body.clone(), "\"1\"", vec![]);
    Transfers::new().fetch(&remote(&[&gone.url, &mirror.url], &body)).unwrap();
    assert_eq!((gone.seen().len(), mirror.seen().len()), (1, 1));
}

#[test]
fn temporary_failures_are_retried_a_few_times_only() {
    let server = TestServer::start(Vec::new(), "\"1\"", vec![Answer::Status(503); 9]);
    let error = message(Transfers::new().fetch(&remote(&[&server.url], b"x")));
    assert!(error.contains("503") && error.contains("3 tries") && error.contains(&server.url), "{error}");
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn a_wrong_digest_names_both_and_leaves_nothing() {
    let body = two_files();
    let (transfers, server) = (Transfers::new(), TestServer::start(body.clone(), "\"1\"", vec![]));
    let wanted = remote(&[&server.url], b"something else");
    let error = message(transfers.fetch(&wanted));
    assert!(error.contains(&wanted.digest.to_string()), "{error}");
    assert!(error.contains(&blake3::hash(&body).to_hex().to_string()), "{error}");
    assert!(transfers.part().is_empty() && !transfers.folder.path().join("files").exists());
}

#[test]
fn a_part_file_of_another_file_is_replaced() {
    let body = two_files();
    let transfers = Transfers::new();
    std::fs::create_dir_all(&transfers.work).unwrap();
    std::fs::write(transfers.work.join("set.zip.part"), [0; 500]).unwrap();
    let server = TestServer::start(body.clone(), "\"1\"", vec![]);
    transfers.fetch(&remote(&[&server.url], &body)).unwrap();
    assert_eq!(server.seen().iter().map(|one| one.sent).collect::<Vec<_>>(), [body.len() - 500, body.len()]);
}

const PAGE: &[u8] =
    b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Accept the terms</body></html>";

fn cause(result: Result<Files, StageError>) -> (DownloadCause, String) {
    match result.unwrap_err() {
        StageError::Download { cause, message, .. } => (cause, message),
        other => panic!("{other}"),
    }
}

#[test]
fn a_web_page_is_called_one_and_is_asked_for_once() {
    let body = two_files();
    for kind in ["text/html; charset=utf-8", "application/zip"] {
        let server = TestServer::start(body.clone(), "\"1\"", vec![Answer::Other(kind, PAGE)]);
        let transfers = Transfers::new();
        let (cause, message) = cause(transfers.fetch(&remote(&[&server.url], &body)));
        assert_eq!(cause, DownloadCause::WebPage);
        assert!(message.contains("a web page, `Sign in`, not with the file"), "{message}");
        assert_eq!(server.seen().len(), 1);
        assert!(transfers.part().is_empty());
        transfers.fetch(&remote(&[&server.url], &body)).unwrap();
    }
}

#[test]
fn a_redirect_to_a_page_names_the_address_without_its_query() {
    let body = two_files();
    let script = vec![Answer::Redirect, Answer::Other("text/html", b"please sign in")];
    let server = TestServer::start(body.clone(), "\"1\"", script);
    let (cause, message) = cause(Transfers::new().fetch(&remote(&[&server.url], &body)));
    assert_eq!(cause, DownloadCause::WebPage);
    assert!(message.contains("/login`, not with the file") && !message.contains("secret"), "{message}");
}

#[test]
fn a_pointer_of_git_lfs_is_called_one() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n";
    let server = TestServer::start(Vec::new(), "\"1\"", vec![Answer::Other("text/plain", pointer)]);
    let (cause, message) = cause(Transfers::new().fetch(&remote(&[&server.url], &two_files())));
    assert_eq!(cause, DownloadCause::LfsPointer);
    assert!(message.contains("a pointer of Git LFS"), "{message}");
}

/// The digest decides, not the content: a page whose digest is the expected one is the file.
#[test]
fn a_page_with_the_expected_digest_is_the_file() {
    let server = TestServer::start(PAGE.to_vec(), "\"1\"", vec![Answer::Other("text/html", PAGE)]);
    let wanted = HttpSource { is_unpacked: false, ..remote(&[&server.url], PAGE) };
    let transfers = Transfers::new();
    let files = transfers.fetch(&wanted).unwrap();
    assert_eq!(files.get("set.zip").unwrap().read().unwrap(), PAGE);
}

#[test]
fn a_zip_archive_sent_as_a_page_is_unpacked() {
    let body: &'static [u8] = Box::leak(two_files().into_boxed_slice());
    let server = TestServer::start(Vec::new(), "\"1\"", vec![Answer::Other("text/html", body)]);
    assert_eq!(Transfers::new().fetch(&remote(&[&server.url], body)).unwrap().len(), 2);
}

/// Whatever a server answers under status 200 while a half-finished file waits, the next run goes on where it stopped.
#[test]
fn what_is_not_the_file_costs_no_byte_of_it() {
    let body = two_files();
    let others = [
        Answer::Other("text/html", PAGE),
        Answer::Other("text/html", b"sign in"),
        Answer::Other("application/json", b"{\"error\": \"quota\"}"),
        Answer::Other("application/zip", b"PK\x03\x04 of an outdated mirror"),
    ];
    for other in others {
        let transfers = Transfers::new();
        let script = vec![Answer::Break(900), Answer::Status(404), other];
        let server = TestServer::start(body.clone(), "\"1\"", script);
        let remote = remote(&[&server.url], &body);
        transfers.fetch(&remote).unwrap_err();
        assert_eq!(transfers.part(), body[..900]);
        let (cause, _) = cause(transfers.fetch(&remote));
        assert_ne!(cause, DownloadCause::Unreachable, "{other:?}");
        assert_eq!(transfers.part(), body[..900], "{other:?}");
        transfers.fetch(&remote).unwrap();
        assert_eq!(server.seen()[3].sent, body.len() - 900, "{other:?}");
    }
}

#[test]
fn an_incomplete_answer_replaces_a_part_that_is_shorter_or_outdated() {
    let body = two_files();
    let longer: &'static [u8] = Box::leak(vec![b'x'; 2000].into_boxed_slice());
    // Longer, and shorter with another validator than the part file's.
    for length in [1000, 500] {
        let transfers = Transfers::new();
        let script = vec![
            Answer::Break(900),
            Answer::Status(404),
            Answer::BrokenOther(longer, length),
            Answer::Status(404),
        ];
        let server = TestServer::start(body.clone(), "\"1\"", script);
        let remote = remote(&[&server.url], &body);
        transfers.fetch(&remote).unwrap_err();
        transfers.fetch(&remote).unwrap_err();
        assert_eq!(transfers.part(), longer[..length]);
        transfers.fetch(&remote).unwrap();
    }
}

#[test]
fn a_file_larger_than_allowed_is_refused() {
    let body = vec![1; 5000];
    let server = TestServer::start(body.clone(), "\"1\"", vec![]);
    let wanted = HttpSource { max_size_bytes: 4000, ..remote(&[&server.url], &body) };
    assert!(message(Transfers::new().fetch(&wanted)).contains("`max_size_bytes` allows 4000"));
}

#[test]
fn an_offline_run_says_so() {
    let transfers = Transfers { is_offline: true, ..Transfers::new() };
    let error = transfers.fetch(&remote(&["http://127.0.0.1:9/set.zip"], b"x")).unwrap_err();
    assert!(matches!(error, StageError::Download { cause: DownloadCause::Offline, .. }), "{error}");
}

/// The server closes every connection, so that the handshake fails once TLS is set up.
#[test]
fn https_has_a_crypto_provider() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/set.zip", listener.local_addr().unwrap());
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let error = message(Transfers::new().fetch(&remote(&[&url], b"x")));
    assert!(error.contains(&url), "{error}");
}

#[test]
fn a_kept_file_has_the_name_of_its_address() {
    let server = TestServer::start(b"weights".to_vec(), "\"1\"", vec![]);
    let (spec, problems) = read(&fields([
        ("url", format!("{}?download=1", server.url).into()),
        ("digest", format!("blake3:{}", blake3::hash(b"weights").to_hex()).into()),
        ("unpack", false.into()),
    ]));
    assert!(problems.is_empty(), "{problems:?}");
    let context = TestContext::new();
    let files = context.run(&crate::stages::Spec::new(spec), &Inputs::default(), 0, "files").unwrap();
    assert_eq!(files.get("set.zip").unwrap().read().unwrap(), b"weights");
}

#[test]
fn one_source_is_read_and_others_are_refused() {
    let (spec, problems) = read(&fields([("path", "data".into())]));
    assert!(problems.is_empty() && spec.about().source.as_deref() == Some("data"));
    let (spec, problems) = read(&fields([("path", "data".into()), ("dataset", "ksdd2".into())]));
    assert!(problems.is_empty() && spec.about().source.as_deref() == Some("data"), "a local copy");
    let (_, problems) = read(&fields([("path", "data".into()), ("url", "https://x/y".into())]));
    assert_eq!(problems[0].code(), "conflicting_fields");
    let (_, problems) = read(&Fields::new());
    assert!(problems[0].help().unwrap().contains("synthetic"));
    let (_, problems) = read(&fields([("url", "ftp://x/y".into())]));
    let codes: Vec<&str> = problems.iter().map(Problem::code).collect();
    assert_eq!(codes, ["invalid_url", "missing_field"]);
    assert!(problems[1].help().unwrap().contains("sha256sum"));
    let digest = format!("md5:{}", "0".repeat(32));
    let (_, problems) = read(&fields([("url", "http://x/y.tar.gz".into()), ("digest", digest.into())]));
    assert_eq!(problems[0].code(), "unsupported_archive");
}

#[test]
fn addresses_and_limits_stay_out_of_the_key() {
    let digest = format!("md5:{}", "0".repeat(32));
    let of = |url: Value, size: i64| {
        let table = fields([
            ("url", url),
            ("digest", digest.clone().into()),
            ("max_size_bytes", Value::Integer(size)),
        ]);
        let (spec, problems) = read(&table);
        assert!(problems.is_empty(), "{problems:?}");
        spec.key_fields()
    };
    let one = of("http://a/x.zip".into(), 5);
    assert_eq!(one, of(vec!["http://b/y.zip".to_owned(), "http://a/x.zip".to_owned()].into(), 6));
    assert_ne!(one, of("http://a/x.pth".into(), 5), "kept as it is");
    assert_ne!(of("http://a/x.pth".into(), 5), of("http://a/y.pth".into(), 5), "its name is in the output");
}

#[test]
fn known_sets_have_sound_digests() {
    for (name, urls, digest) in DATASETS {
        assert!(Expected::parse(digest).is_ok() && !urls.is_empty(), "{name}");
    }
    let (spec, problems) = read(&fields([("dataset", "ksdd2".into())]));
    assert!(problems.is_empty());
    assert_eq!(spec.key_fields()["digest"], Value::Text("md5:1ed0f628122776ace4965afa30dfe316".into()));
}

#[test]
fn synthetic_surfaces_are_written_as_ksdd2_is() {
    let table = fields([
        ("train_normal", Value::Integer(3)),
        ("train_defect", Value::Integer(3)),
        ("test_normal", Value::Integer(1)),
        ("test_defect", Value::Integer(2)),
        ("height", Value::Integer(32)),
        ("width", Value::Integer(48)),
    ]);
    let (spec, problems) = read(&fields([("synthetic", table.into())]));
    assert!(problems.is_empty(), "{problems:?}");
    let spec = crate::stages::Spec::new(spec);
    let repeat = || TestContext::new().run(&spec, &Inputs::default(), 0, "files").unwrap();
    let context = TestContext::new();
    let files = context.run(&spec, &Inputs::default(), 0, "files").unwrap();
    assert_eq!(files.len(), 18);
    let mask = |name: &str| crate::artifacts::image_set::read_mask(files.get(name).unwrap()).unwrap();
    assert!(mask("train/10002_GT.png").iter().all(|&pixel| pixel == 0));
    assert!(mask("train/10003_GT.png").contains(&255));
    assert!(mask("test/20002_GT.png").contains(&255));
    assert_eq!(repeat().len(), files.len());
}
