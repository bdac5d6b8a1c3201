//! One cache in a folder that several users share: who may read and write its files.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use crate::project::Project;

/// A program that makes its files for its user alone, as many do.
const MANIFEST: &str = r#"
[experiment]
name = "shared"
[stages.a]
kind = "command"
run = ["sh", "-c", "umask 077; mkdir outputs/o/d; echo a > outputs/o/d/n"]
outputs = { o = "files" }
[stages.b]
kind = "command"
run = ["sh", "-c", "cat inputs/a/d/n inputs/a/d/n > outputs/o/n"]
inputs = { a = "a" }
outputs = { o = "files" }
"#;

/// Runs the manifest of a folder under a umask; `user` is a program that changes the user first.
fn run(folder: &Path, umask: &str, user: &[&str]) -> Output {
    let program = assert_cmd::cargo::cargo_bin("patchflow");
    let line = format!("umask {umask}; exec \"$@\" run m.toml --json");
    Command::new("sh")
        .args(["-c", &line, "sh"])
        .args(user)
        .arg(program)
        .current_dir(folder)
        .env("XDG_CACHE_HOME", folder.join(".user-cache"))
        .output()
        .unwrap()
}

fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The modes of everything below a folder.
fn modes(folder: &Path) -> Vec<(String, u32, bool)> {
    let walk = walkdir::WalkDir::new(folder).min_depth(1).into_iter().map(Result::unwrap);
    let mode = |entry: walkdir::DirEntry| {
        let metadata = entry.metadata().unwrap();
        (entry.path().display().to_string(), metadata.mode() & 0o7777, metadata.is_dir())
    };
    walk.filter(|entry| !entry.file_type().is_symlink()).map(mode).collect()
}

#[test]
fn the_umask_says_who_may_read_and_write_and_a_folders_group_is_inherited() {
    for (umask, may_write, may_read) in [("002", 0o664, 0o444), ("027", 0o640, 0o440), ("077", 0o600, 0o400)]
    {
        let project = Project::empty();
        project.write("m.toml", MANIFEST);
        std::fs::create_dir(project.path("cache")).unwrap();
        std::fs::set_permissions(project.path("cache"), std::fs::Permissions::from_mode(0o2775)).unwrap();
        succeeds(&run(&project.path(""), umask, &[]));
        let found = modes(&project.path("cache"));
        assert!(found.len() > 20);
        for (path, mode, is_folder) in found {
            let open = 0o777 & !u32::from_str_radix(umask, 8).unwrap();
            if is_folder {
                assert_eq!(mode, 0o2000 | open, "{path}: {mode:o}");
            } else if path.contains("/objects/") {
                assert_eq!(mode, may_read, "{path}: {mode:o}");
            } else {
                assert_eq!(mode, may_write, "{path}: {mode:o}");
            }
        }
    }
}

#[test]
#[ignore = "needs root, to become two other users"]
fn two_users_of_a_group_share_hits_and_may_both_write() {
    let team = |user: &'static str| ["setpriv", user, "--regid=54000", "--clear-groups"];
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let cache = folder.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    let open =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    open(folder.path(), 0o755);
    std::os::unix::fs::chown(&cache, Some(54_001), Some(54_000)).unwrap();
    open(&cache, 0o2770);
    for (user, id, manifest) in [
        ("--reuid=54001", 54_001, MANIFEST.to_owned()),
        ("--reuid=54002", 54_002, MANIFEST.to_owned()),
        ("--reuid=54002", 54_002, MANIFEST.replace("cat inputs", "cat inputs/a/d/n inputs")),
        ("--reuid=54001", 54_001, MANIFEST.replace("cat inputs", "cat inputs/a/d/n inputs")),
    ] {
        let home = folder.path().join(format!("home{id}"));
        std::fs::create_dir_all(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(id), Some(54_000)).unwrap();
        std::fs::write(home.join("m.toml"), &manifest).unwrap();
        std::fs::write(home.join("patchflow.toml"), format!("cache = \"{}\"\n", cache.display())).unwrap();
        let output = run(&home, "007", &team(user));
        succeeds(&output);
        let report = crate::project::report_of(&output);
        let expected = match (id, manifest == MANIFEST) {
            (54_001, true) => 2,
            (54_002, false) => 1,
            _ => 0,
        };
        assert_eq!(report.executed(), expected, "user {id}");
    }
}
