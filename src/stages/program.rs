//! A program that a stage runs: started in a group of its own, heard line by line, ended with all that it started.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Context, StageError};

/// Variables that every program is given.
const ALWAYS: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];
/// Lines of stderr that an error shows.
const SHOWN_LINES: usize = 12;
/// Bytes after which a line of a program's output is cut.
const LONGEST_LINE: usize = 64 * 1024;
/// Time between two looks at a running program, at first and at most: short programs are many.
const FIRST_POLL: Duration = Duration::from_micros(500);
const LONGEST_POLL: Duration = Duration::from_millis(10);

/// What a program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Nothing.
    Empty,
    /// A pipe that ends when patchflow does, however it ends: a program that watches it need not outlive it.
    HeldOpen,
}

/// A program, and how it is started.
pub(super) struct Program<'a> {
    /// The program and its arguments.
    pub(super) line: &'a [String],
    /// Where it starts.
    pub(super) folder: &'a Path,
    /// Variables that it is passed by name, beside `PATH`, `HOME`, `LANG` and `TMPDIR`.
    pub(super) passed: &'a [&'a str],
    /// Variables that are set for it.
    pub(super) set: &'a [(&'a str, String)],
    /// What it reads.
    pub(super) input: Input,
    /// Seconds after which it is stopped.
    pub(super) timeout: Option<u64>,
}

/// What a line of a program's standard output is given to; its error stops the program.
pub(super) type Hear<'a> = &'a (dyn Fn(&str) -> Result<(), StageError> + Sync);

impl Program<'_> {
    /// Runs it to its end. Lines of stderr go to the task's log, those of stdout to `hear`.
    ///
    /// # Errors
    /// [`StageError::Program`] where it ends badly, [`StageError::Cancelled`], and the first error of `hear`.
    pub(super) fn run(&self, hear: Hear<'_>, context: &Context<'_>) -> Result<(), StageError> {
        let mut child = self.start(context)?;
        // Held until the program has ended.
        let _input = child.stdin.take();
        let (last, refused, stop) = (Mutex::new(Vec::new()), Mutex::new(None), AtomicBool::new(false));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let hear = |line: &str| {
            if let Err(error) = hear(line) {
                stop.store(true, Ordering::Relaxed);
                if let Ok(mut refused) = refused.lock() {
                    refused.get_or_insert(error);
                }
            }
        };
        let keep = |line: &str| {
            context.progress.log(line);
            if let Ok(mut last) = last.lock() {
                last.push(line.to_owned());
                if last.len() > SHOWN_LINES {
                    last.remove(0);
                }
            }
        };
        let ended = std::thread::scope(|scope| {
            scope.spawn(|| copy_lines(stdout, &hear));
            scope.spawn(|| copy_lines(stderr, &keep));
            let ended = self.wait(&mut child, &stop, context);
            // Whatever the program left running ends with it: it would hold the pipes that are read above.
            end_group(&child);
            ended
        });
        if let Some(error) = refused.into_inner().ok().flatten() {
            return Err(error);
        }
        let ended = ended?;
        if ended.success() {
            return Ok(());
        }
        Err(StageError::Program {
            program: self.line[0].clone(),
            status: format!("ended with {ended}"),
            last_lines: last.into_inner().unwrap_or_default(),
            help: None,
        })
    }

    fn start(&self, context: &Context<'_>) -> Result<Child, StageError> {
        let [program, arguments @ ..] = self.line else {
            return Err(StageError::data("`run` is empty", "name a program"));
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
            .stdin(match self.input {
                Input::Empty => Stdio::null(),
                Input::HeldOpen => Stdio::piped(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|source| StageError::io("start", program, source))
    }

    /// Waits for the program; stops it and all that it started when the user, the clock or `stop` says so.
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
        // A group that has ended is not there any more, which is as good.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

/// The next line, ended by a line feed or a carriage return (progress bars), or cut at [`LONGEST_LINE`].
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
