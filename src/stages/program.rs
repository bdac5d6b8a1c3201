//! Runs a program for a stage: in its own process group, with its output read line by line. When the program ends,
//! all processes that it started are killed.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Context, StageError};

/// Environment variables that are passed to every program.
const ALWAYS: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];
/// Number of lines of stderr that an error shows.
const SHOWN_LINES: usize = 12;
/// Length in bytes at which a line of a program's output is split.
const LONGEST_LINE: usize = 64 * 1024;
/// First interval at which a running program is polled. It doubles up to [`LONGEST_POLL`]. It is short because many
/// programs end at once.
const FIRST_POLL: Duration = Duration::from_micros(500);
const LONGEST_POLL: Duration = Duration::from_millis(10);

/// The standard input of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stdin {
    /// Empty.
    Empty,
    /// A pipe that is closed when patchflow ends, even if it is killed. A program that watches the pipe can end then.
    HeldOpen,
}

/// A program, and how it is started.
pub(super) struct Program<'a> {
    /// The program and its arguments.
    pub(super) line: &'a [String],
    /// Working directory.
    pub(super) folder: &'a Path,
    /// Names of environment variables that are passed on, in addition to `PATH`, `HOME`, `LANG` and `TMPDIR`.
    pub(super) passed: &'a [&'a str],
    /// Environment variables that are set.
    pub(super) set: &'a [(&'a str, String)],
    /// Standard input of the program.
    pub(super) stdin: Stdin,
    /// Time in seconds after which the program is killed.
    pub(super) timeout: Option<u64>,
}

/// Callback for each line of a program's standard output. An error kills the program.
pub(super) type OnLine<'a> = &'a (dyn Fn(&str) -> Result<(), StageError> + Sync);

impl Program<'_> {
    /// Runs the program until it ends. Writes lines of stderr to the task's log and passes lines of stdout to
    /// `on_line`.
    ///
    /// # Errors
    /// [`StageError::Program`] if the program fails, [`StageError::Cancelled`] if the run is cancelled, and the first
    /// error of `on_line`.
    pub(super) fn run(&self, on_line: OnLine<'_>, context: &Context<'_>) -> Result<(), StageError> {
        let mut child = self.start(context)?;
        // Keeps the pipe open until the program has ended.
        let _stdin = child.stdin.take();
        let (last_lines, first_error, stop) =
            (Mutex::new(Vec::new()), Mutex::new(None), AtomicBool::new(false));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let on_stdout = |line: &str| {
            if let Err(error) = on_line(line) {
                stop.store(true, Ordering::Relaxed);
                if let Ok(mut first_error) = first_error.lock() {
                    first_error.get_or_insert(error);
                }
            }
        };
        let on_stderr = |line: &str| {
            context.progress.log(line);
            if let Ok(mut last_lines) = last_lines.lock() {
                last_lines.push(line.to_owned());
                if last_lines.len() > SHOWN_LINES {
                    last_lines.remove(0);
                }
            }
        };
        let ended = std::thread::scope(|scope| {
            scope.spawn(|| copy_lines(stdout, &on_stdout));
            scope.spawn(|| copy_lines(stderr, &on_stderr));
            let ended = self.wait(&mut child, &stop, context);
            // Processes that the program left running would keep the pipes open that are read above.
            end_group(&child);
            ended
        });
        if let Some(error) = first_error.into_inner().ok().flatten() {
            return Err(error);
        }
        let ended = ended?;
        if ended.success() {
            return Ok(());
        }
        Err(StageError::Program {
            program: self.line[0].clone(),
            status: format!("ended with {ended}"),
            last_lines: last_lines.into_inner().unwrap_or_default(),
            help: None,
        })
    }

    fn start(&self, context: &Context<'_>) -> Result<Child, StageError> {
        let [program, arguments @ ..] = self.line else {
            return Err(StageError::data("`run` is empty", "add the program and its arguments"));
        };
        let names = ALWAYS.iter().chain(self.passed);
        let passed = names.filter_map(|&name| context.environment.get(name).map(|value| (name, value)));
        context.progress.log(&format!("$ {}", self.line.join(" ")));
        Command::new(program)
            .args(arguments)
            .current_dir(self.folder)
            .env_clear()
            .envs(passed)
            .envs(self.set.iter().map(|(name, value)| (name, value)))
            .stdin(match self.stdin {
                Stdin::Empty => Stdio::null(),
                Stdin::HeldOpen => Stdio::piped(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|source| StageError::io("start", program, source))
    }

    /// Waits until the program ends. Kills it and its children on cancellation, on timeout, or if `stop` is set.
    fn wait(
        &self,
        child: &mut Child,
        stop: &AtomicBool,
        context: &Context<'_>,
    ) -> Result<ExitStatus, StageError> {
        let started = Instant::now();
        let failed = |source| StageError::io("wait for", &self.line[0], source);
        let mut poll = FIRST_POLL;
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok(status);
            }
            if stop.load(Ordering::Relaxed) {
                end_group(child);
                return child.wait().map_err(failed);
            }
            let is_late =
                self.timeout.is_some_and(|seconds| started.elapsed() > Duration::from_secs(seconds));
            if is_late || context.check().is_err() {
                end_group(child);
                let _ = child.wait();
                context.check()?;
                return Err(StageError::Program {
                    program: self.line[0].clone(),
                    status: format!("was stopped after {} s", self.timeout.unwrap_or_default()),
                    last_lines: Vec::new(),
                    help: Some("raise `timeout_seconds`".to_owned()),
                });
            }
            std::thread::sleep(poll);
            poll = (poll * 2).min(LONGEST_POLL);
        }
    }
}

fn copy_lines(from: Option<impl Read>, to: &dyn Fn(&str)) {
    let Some(from) = from else { return };
    let mut from = BufReader::new(from);
    while let Some(line) = next_line(&mut from) {
        to(&line);
    }
}

fn end_group(child: &Child) {
    if let Some(group) = rustix::process::Pid::from_raw(child.id() as i32) {
        // An error means that the group has already ended.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

/// Returns the next line. It ends at a line feed, at a carriage return (progress bars) or after [`LONGEST_LINE`] bytes.
/// `None` at the end of the output.
fn next_line(from: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    loop {
        let buffer = from.fill_buf().ok()?;
        if buffer.is_empty() {
            return (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned());
        }
        let end = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        line.extend_from_slice(&buffer[..end.unwrap_or(buffer.len())]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        from.consume(used);
        if end.is_some() || line.len() > LONGEST_LINE {
            return Some(String::from_utf8_lossy(&line).into_owned());
        }
    }
}
