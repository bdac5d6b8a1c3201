//! Processes that a program leaves behind, in a session of their own, with its output still open.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::project::Project;

/// How long a process stays that is left behind, in seconds: far longer than a stage may take.
const STAYS: u32 = 300;

/// A program whose stage must end long before what it leaves behind.
struct Leaver {
    project: Project,
    started: Instant,
}

impl Leaver {
    /// `script` runs as a stage; `$LEFT` is the start of a command that leaves a process behind and notes its id.
    fn new(script: &str, fields: &str) -> Self {
        let project = Project::empty();
        let ids = project.path("left");
        let left = format!("setsid sh -c 'echo $$ > {}; exec sleep {STAYS}'", ids.display());
        let script = script.replace("$LEFT", &left);
        let manifest = format!(
            "[experiment]\nname = \"b\"\n[stages.work]\nkind = \"command\"\nrun = [\"sh\", \"-c\", \"{script}\"]\n\
             outputs = {{ o = \"files\" }}\n{fields}\n"
        );
        project.write("m.toml", &manifest);
        Self { project, started: Instant::now() }
    }

    /// Ends the process that was left behind. Fails if it has ended before, or if the stage waited for it.
    fn end(self) {
        let id = std::fs::read_to_string(self.project.path("left")).unwrap();
        let killed = Command::new("kill").args(["-KILL", id.trim()]).status().unwrap();
        assert!(killed.success(), "the process had already ended");
        assert!(self.started.elapsed() < Duration::from_secs(u64::from(STAYS) / 2));
    }

    /// The log of the stage.
    fn log(&self) -> String {
        let runs = self.project.path("runs/b");
        let logs = crate::project::files(&runs);
        let log = logs.iter().find(|path| path.extension().is_some_and(|end| end == "log")).unwrap();
        std::fs::read_to_string(runs.join(log)).unwrap()
    }

    /// Starts the run, sends it a signal once the process is left behind, and returns its exit code.
    fn stopped_by(&self, signal: &str) -> Option<i32> {
        let mut run = Command::new(env!("CARGO_BIN_EXE_patchflow"))
            .args(["run", "m.toml"])
            .current_dir(self.project.path(""))
            .env("XDG_CACHE_HOME", self.project.path(".user-cache"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while std::fs::read_to_string(self.project.path("left")).unwrap_or_default().is_empty() {
            assert!(self.started.elapsed() < Duration::from_secs(u64::from(STAYS) / 2), "nothing was left");
            std::thread::sleep(Duration::from_millis(10));
        }
        Command::new("kill").args([signal, &run.id().to_string()]).status().unwrap();
        run.wait().unwrap().code()
    }
}

/// Leaves a process behind, prints a line and writes the output.
fn script(leaver: &str) -> String {
    format!("{leaver} sleep 1; echo last; echo hi > outputs/o/x")
}

#[test]
fn a_stage_ends_with_its_program_and_the_log_names_who_holds_its_output() {
    let leaver = Leaver::new(&script("$LEFT &"), "");
    assert_eq!(leaver.project.run("m.toml", &[]).executed(), 1);
    let log = leaver.log();
    assert!(log.contains("sleep (process ") && log.contains("it is not waited for"), "{log}");
    let is_last = |line: &str| line.split_whitespace().last() == Some("last");
    assert!(log.lines().any(is_last), "what the program printed is read: {log}");
    leaver.end();
}

#[test]
fn one_held_output_is_enough_and_holds_nothing() {
    for held in ["$LEFT > /dev/null &", "$LEFT 2> /dev/null &"] {
        let leaver = Leaver::new(&script(held), "");
        assert_eq!(leaver.project.run("m.toml", &[]).executed(), 1, "{held}");
        assert!(leaver.log().contains("sleep (process "), "{held}");
        leaver.end();
    }
}

#[test]
fn a_late_stage_is_stopped_at_its_timeout() {
    let leaver = Leaver::new("$LEFT & echo why >&2; sleep 600", "timeout_seconds = 2");
    let text = leaver.project.fails(&["run", "m.toml"], 1);
    assert!(text.contains("was stopped after 2 s") && text.contains("why"), "{text}");
    leaver.end();
}

#[test]
fn signals_stop_a_stage_even_if_a_child_ignores_them() {
    for signal in ["-INT", "-TERM"] {
        let leaver = Leaver::new("trap '' TERM INT; (trap '' TERM INT; sleep 600) & $LEFT & sleep 600", "");
        assert_eq!(leaver.stopped_by(signal), Some(130), "{signal}");
        leaver.end();
    }
}

#[test]
fn a_tool_that_leaves_a_process_behind_holds_no_plan() {
    let leaver = Leaver::new("echo hi > outputs/o/x", "tools = [\"sh tool.sh\"]");
    let ids = leaver.project.path("left");
    let script =
        format!("setsid sh -c 'echo $$ > {}; exec sleep {STAYS}' &\nsleep 1; echo version 1", ids.display());
    leaver.project.write("tool.sh", &script);
    leaver.project.succeeds(&["plan", "m.toml"]);
    leaver.end();
}
