//! Many processes, one cache: every task is executed once, whoever dies on the way.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use patchflow::kernels::random::Rng;

use crate::project::Project;

/// Processes that start at once.
const PROCESSES: usize = 8;

/// Rounds in which processes are killed.
const ROUNDS: usize = 20;

/// Twenty tasks in chains of two. Each leaves a line in a file named after it, in the folder `MARKS`, when it
/// starts and when it ends.
fn grid() -> String {
    let values: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    format!(
        r#"
[experiment]
name = "grid"
[grid.axes]
x = [{}]
[stages.first]
kind = "command"
run = ["sh", "-c", "echo start >> $MARKS/first-${{x}}; sleep 0.05; echo ${{x}} > outputs/o/n; echo end >> $MARKS/first-${{x}}"]
outputs = {{ o = "files" }}
env = ["MARKS"]
[stages.second]
kind = "command"
run = ["sh", "-c", "echo start >> $MARKS/second-${{x}}; sleep 0.05; cat inputs/first/n inputs/first/n > outputs/o/n; echo end >> $MARKS/second-${{x}}"]
inputs = {{ first = "first" }}
outputs = {{ o = "files" }}
env = ["MARKS"]
"#,
        values.join(", ")
    )
}

/// Whether kernel locks are used, or leases alone, renewed every half second and orphaned after 1.5 s.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Locks {
    Kernel,
    Missing,
}

fn start(project: &Project, marks: &Path, locks: Locks) -> Child {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("patchflow"));
    if locks == Locks::Missing {
        command.env("PATCHFLOW_TEST_LEASES", "1500");
    }
    command
        .args(["run", "m.toml", "--json", "--jobs", "4"])
        .current_dir(project.path(""))
        .env("XDG_CACHE_HOME", project.path(".user-cache"))
        .env("MARKS", marks)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn set_up() -> (Project, std::path::PathBuf) {
    let project = Project::empty();
    project.write("m.toml", &grid());
    let marks = project.path("marks");
    std::fs::create_dir(&marks).unwrap();
    (project, marks)
}

/// How often each task started and ended.
fn counts(marks: &Path) -> Vec<(usize, usize)> {
    let count = |text: &str, word: &str| text.lines().filter(|line| *line == word).count();
    crate::project::files(marks)
        .iter()
        .map(|file| std::fs::read_to_string(marks.join(file)).unwrap())
        .map(|text| (count(&text, "start"), count(&text, "end")))
        .collect()
}

fn check_results(project: &Project) {
    let report = project.run("m.toml", &[]);
    assert_eq!((report.executed(), report.kinds("hit").len()), (0, 20));
    let variants = project.path(report.folder()).join("variants");
    for x in 0..10 {
        let shown = std::fs::read_to_string(variants.join(format!("x={x}/second/n"))).unwrap();
        assert_eq!(shown, format!("{x}\n{x}\n"));
    }
}

#[test]
fn processes_that_start_at_once_execute_each_task_once() {
    execute_once(Locks::Kernel);
}

#[test]
fn without_locks_as_well_each_task_is_executed_once() {
    execute_once(Locks::Missing);
}

fn execute_once(locks: Locks) {
    let (project, marks) = set_up();
    let mut children: Vec<Child> = (0..PROCESSES).map(|_| start(&project, &marks, locks)).collect();
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    assert_eq!(counts(&marks), [(1, 1); 20], "(started, ended) of each task");
    check_results(&project);
}

#[test]
fn killed_processes_leave_no_wrong_result_and_block_no_other() {
    kill(Locks::Kernel, ROUNDS);
}

#[test]
fn without_locks_as_well_kills_leave_no_wrong_result() {
    kill(Locks::Missing, ROUNDS / 4);
}

fn kill(locks: Locks, rounds: usize) {
    let mut stream = Rng::new(1, "kills");
    for round in 0..rounds {
        let (project, marks) = set_up();
        let mut children: Vec<Child> = (0..PROCESSES).map(|_| start(&project, &marks, locks)).collect();
        let killed = 1 + stream.below(PROCESSES - 1);
        for child in &mut children[..killed] {
            std::thread::sleep(Duration::from_millis(stream.below(80) as u64));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let started = Instant::now();
        for child in &mut children[killed..] {
            assert!(child.wait().unwrap().success(), "round {round}: a process that was left alone failed");
        }
        assert!(started.elapsed() < Duration::from_mins(1), "round {round}: stuck");
        // A killed process may have started a task that another one finishes; published tasks are never run again.
        let counts = counts(&marks);
        assert_eq!(counts.len(), 20);
        let (starts, ends): (usize, usize) =
            counts.iter().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        assert!(ends >= 20 && starts <= 20 + 4 * killed, "round {round}: {starts} starts, {killed} killed");
        check_results(&project);
    }
}
