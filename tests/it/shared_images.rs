//! A data set that differs in a few images from one that another machine has processed: only these are made.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::project::{Project, Report, copy_folder, files, report_of};
use crate::servers::store::Store;

const MANIFEST: &str = r#"
[experiment]
name = "images"
[stages.surfaces]
kind = "download"
path = "data"
[stages.images]
kind = "preprocess"
input = "surfaces"
layout = "ksdd2"
[stages.features]
kind = "extract"
images = ["images"]
backbone = "resnet18"
weights = "seeded"
[stages.shown]
kind = "command"
run = ["cp", "-r", "inputs/images", "inputs/features", "outputs/o"]
inputs = { images = "images", features = "features" }
outputs = { o = "files" }
"#;

/// Images of the data set of [`Project::small`].
const IMAGES: usize = 15;

/// What a machine uses of a remote.
struct Remote<'a> {
    address: String,
    variables: Vec<(&'a str, &'a str)>,
}

impl Remote<'_> {
    fn folder(folder: &Path) -> Self {
        Self { address: folder.to_str().unwrap().to_owned(), variables: Vec::new() }
    }

    fn run(&self, machine: &Project, more: &[&str]) -> (Report, String) {
        let arguments = [&["run", "m.toml", "--json", "--remote", &self.address], more].concat();
        let output = machine.call_with(&arguments, &self.variables);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        (report_of(&output), said)
    }
}

/// The first machine.
fn first() -> Project {
    let machine = Project::small();
    machine.write("m.toml", MANIFEST);
    machine
}

/// A machine with the same images, of which one was changed, and one more. `bit` makes the two like no others.
fn second(first: &Project, bit: u8) -> Project {
    let machine = Project::empty();
    machine.write("m.toml", MANIFEST);
    copy_folder(&first.path("data"), &machine.path("data"));
    let names = files(&machine.path("data"));
    let mut images = names.iter().filter(|name| !name.to_str().unwrap().ends_with("_GT.png"));
    let (changed, copied) = (images.next().unwrap(), images.next_back().unwrap());
    let mask = |name: &Path| -> PathBuf { format!("{}_GT.png", name.with_extension("").display()).into() };
    let added = copied.with_file_name("99999.png");
    let labels = std::fs::read(machine.path("data").join(mask(copied))).unwrap();
    std::fs::write(machine.path("data").join(mask(&added)), labels).unwrap();
    for (from, to) in [(changed, changed), (copied, &added)] {
        let mut image = image::open(machine.path("data").join(from)).unwrap().into_rgb8();
        image.pixels_mut().for_each(|pixel| pixel.0[0] ^= bit);
        image.save(machine.path("data").join(to)).unwrap();
    }
    machine
}

/// The records of the machine's item-wise tasks: images and features.
fn records(machine: &Project) -> Vec<Value> {
    let folder = machine.path("cache/v1/records");
    let read = |name: PathBuf| -> Option<Value> {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        let start = bytes.iter().position(|&byte| byte == b'{')?;
        serde_json::from_slice(&bytes[start..]).ok()
    };
    let mut records: Vec<Value> = files(&folder).into_iter().filter_map(read).collect();
    records
        .retain(|record| ["preprocess", "extract"].contains(&record["preimage"]["kind"].as_str().unwrap()));
    records.sort_by_key(|record| record["preimage"]["kind"].as_str().unwrap().to_owned());
    assert_eq!(records.len(), 2);
    records
}

/// How many images each of the two tasks has made, of `count`.
fn made(machine: &Project, count: usize) -> Vec<f64> {
    let share = |record: &Value| record["provenance"]["fresh_share"].as_f64().unwrap() * count as f64;
    records(machine).iter().map(share).collect()
}

fn outputs(machine: &Project) -> Vec<Value> {
    records(machine).iter().map(|record| record["outputs"].clone()).collect()
}

/// Runs both machines; the second makes two images in each task, and has the result of one that makes all.
fn differs_in_two(remote: &Remote<'_>) -> (Project, Project) {
    let a = first();
    assert_eq!(remote.run(&a, &[]).0.kinds("executed"), ["command", "extract", "preprocess"]);
    assert_eq!(made(&a, IMAGES), [15.0, 15.0]);
    let (b, alone) = (second(&a, 16), second(&a, 16));
    let (report, said) = remote.run(&b, &[]);
    assert_eq!(report.kinds("executed"), ["command", "extract", "preprocess"]);
    assert!(!said.contains("warning: "), "{said}");
    assert_eq!(made(&b, IMAGES + 1), [2.0, 2.0]);
    for record in records(&b) {
        let log = record["provenance"]["log"]["text"].as_str().unwrap();
        assert!(log.contains("took 14 of 16 items from the remote"), "{log}");
    }
    let without = alone.run("m.toml", &[]);
    assert_eq!(outputs(&b), outputs(&alone));
    assert!(b.results(&report).len() > 2 * IMAGES && b.results(&report) == alone.results(&without));
    (a, b)
}

#[test]
fn only_changed_images_are_made_if_another_machine_has_the_others() {
    let shared = tempfile::tempdir().unwrap();
    let remote = Remote::folder(shared.path());
    let (a, _) = differs_in_two(&remote);
    // The second machine has shared its images in turn.
    let c = second(&a, 16);
    assert_eq!(remote.run(&c, &[]).0.executed(), 0);
    let forced = second(&a, 32);
    remote.run(&forced, &["--force", "images", "--force", "features"]);
    assert_eq!(made(&forced, 1), [1.0, 1.0], "forced stages make everything");
}

#[test]
fn images_cost_no_request_each_on_a_server_and_a_refused_listing_changes_nothing() {
    let store = Store::start();
    let endpoint = format!("http://{}", store.address);
    let variables = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
    ];
    let remote = Remote { address: "s3://bucket/results".to_owned(), variables: variables.to_vec() };
    let (_, b) = differs_in_two(&remote);
    store.take_requests();
    // Images of both machines, and two of its own.
    let c = second(&b, 32);
    let (report, said) = remote.run(&c, &[]);
    assert!(report.kinds("executed").len() == 3 && !said.contains("warning: "), "{said}");
    let requests = store.take_requests();
    assert_eq!(made(&c, IMAGES + 1), [2.0, 2.0]);
    let read = requests.iter().filter(|request| request.starts_with("GET")).count();
    let listings = requests.iter().filter(|request| request.contains("list-type=2")).count();
    assert_eq!(listings, 2, "{requests:?}");
    assert!(read <= 20, "{read} requests to read: {requests:?}");

    store.refuse_listings();
    let d = second(&c, 64);
    let (report, said) = remote.run(&d, &[]);
    assert!(report.kinds("executed").len() == 3 && !said.contains("warning: "), "{said}");
    assert_eq!(made(&d, 1), [1.0, 1.0]);
    let requests = store.take_requests();
    assert_eq!(requests.iter().filter(|request| request.contains("list-type=2")).count(), 1, "{requests:?}");
    assert!(requests.iter().any(|request| request.starts_with("PUT")), "the remote is used for all else");
}

#[test]
fn a_damaged_list_costs_one_warning_and_no_result_and_a_push_brings_lists_by_hand() {
    let shared = tempfile::tempdir().unwrap();
    let remote = Remote::folder(shared.path());
    let a = first();
    a.run("m.toml", &[]);
    a.succeeds(&["cache", "push", "--remote", &remote.address]);
    let lists = || -> Vec<PathBuf> {
        let folder = shared.path().join("v1/items");
        files(&folder).into_iter().map(|name| folder.join(name)).collect()
    };
    assert_eq!(lists().len(), 2);
    let again = a.stdout(&["cache", "push", "--remote", &remote.address]);
    assert!(again.starts_with("0 results (0 B)"), "{again}");

    let whole: Vec<Vec<u8>> = lists().iter().map(|path| std::fs::read(path).unwrap()).collect();
    for (path, bytes) in lists().iter().zip(&whole) {
        let mut bytes = bytes.clone();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    let b = second(&a, 16);
    let (report, said) = remote.run(&b, &[]);
    assert_eq!((report.kinds("executed").len(), made(&b, 1)), (3, vec![1.0, 1.0]));
    let warnings: Vec<&str> = said.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert!(warnings.len() == 2 && warnings.iter().all(|line| line.contains("a damaged list")), "{said}");
    let alone = second(&a, 16);
    alone.run("m.toml", &[]);
    assert_eq!(outputs(&b), outputs(&alone));

    a.succeeds(&["cache", "push", "--verify", "--remote", &remote.address]);
    for bytes in whole {
        assert!(lists().iter().any(|path| std::fs::read(path).unwrap() == bytes), "it is whole again");
    }
}

#[test]
fn a_worker_process_takes_images_as_well() {
    let shared = tempfile::tempdir().unwrap();
    let a = first();
    Remote::folder(shared.path()).run(&a, &[]);
    let b = second(&a, 16);
    b.write("patchflow.toml", &format!("remote = {:?}\n", shared.path().to_str().unwrap()));
    let program = assert_cmd::cargo::cargo_bin("patchflow");
    let report = b.run("m.toml", &["--worker", program.to_str().unwrap()]);
    assert_eq!((report.kinds("executed").len(), made(&b, IMAGES + 1)), (3, vec![2.0, 2.0]));
}
