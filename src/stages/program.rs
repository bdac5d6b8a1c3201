//! Runs a program for a stage: in its own process group, with its output read line by line. When the program ends,
//! the processes of its group are killed. A process that has left the group, with `setsid` or as a daemon, is not
//! waited for, even if it holds the program's output open: it is named in the log.

mod pipe;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::pipe::{Pipe, PipeRead};
use super::{Context, StageError};

/// Environment variables that are passed to every program.
const ALWAYS: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];
/// Number of lines of stderr that an error shows.
const SHOWN_LINES: usize = 12;
/// Longest time between two looks at whether the program is to be stopped.
const LONGEST_POLL: Duration = Duration::from_millis(10);
/// The same where the kernel does not report the end of a program. It is short because many programs end at once.
const BLIND_POLL: Duration = Duration::from_millis(1);
/// How long the output of an ended program may stay open: its group dies within milliseconds, so a process that still
/// holds it then has left the group.
const LONGEST_CLOSE: Duration = Duration::from_secs(1);
/// Bytes that a pipe can hold at most unless root allows more (`/proc/sys/fs/pipe-max-size`): what an ended program can
/// have left unread.
const PIPE_BYTES: usize = 1 << 20;

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

/// What a running program has printed.
struct Output {
    stdout: Pipe,
    stderr: Pipe,
    /// The last lines of stderr, for an error.
    last_lines: Vec<String>,
}

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
        let mut output = Output::new(&mut child).map_err(|source| self.unread(source))?;
        let ended = self.follow(&mut child, &mut output, on_line, context);
        end_group(&child);
        if ended.is_err() {
            // It may have moved to another group. An error means that it has already ended.
            let _ = child.kill();
            let _ = child.wait();
        }
        let drained = output.drain(on_line, context);
        let is_held = drained.as_ref().is_ok_and(|&is_held| is_held);
        if is_held {
            context.progress.log(&format!("{}: it is not waited for", self.held(&output)));
        }
        let ended = ended?;
        drained?;
        if ended.success() {
            Ok(())
        } else {
            Err(self.failed(format!("ended with {ended}"), output.last_lines, None))
        }
    }

    /// Reads the output of the program until the program ends, is to be stopped, or is late.
    fn follow(
        &self,
        child: &mut Child,
        output: &mut Output,
        on_line: OnLine<'_>,
        context: &Context<'_>,
    ) -> Result<ExitStatus, StageError> {
        let started = Instant::now();
        let end = end_of(child);
        loop {
            output.read(on_line, context)?;
            if let Some(status) = child.try_wait().map_err(|source| self.unread(source))? {
                return Ok(status);
            }
            context.check()?;
            if self.timeout.is_some_and(|seconds| started.elapsed() > Duration::from_secs(seconds)) {
                let status = format!("was stopped after {} s", self.timeout.unwrap_or_default());
                let printed = std::mem::take(&mut output.last_lines);
                return Err(self.failed(status, printed, Some("raise `timeout_seconds`".to_owned())));
            }
            output.wait(end.as_ref());
        }
    }

    fn failed(&self, status: String, last_lines: Vec<String>, help: Option<String>) -> StageError {
        StageError::Program { program: self.line[0].clone(), status, last_lines, help }
    }

    fn unread(&self, source: std::io::Error) -> StageError {
        StageError::io("wait for", &self.line[0], source)
    }

    /// Says which processes hold the output of the ended program.
    fn held(&self, output: &Output) -> String {
        let mut holders = output.stdout.holders();
        holders.extend(output.stderr.holders());
        holders.sort();
        holders.dedup();
        let who =
            if holders.is_empty() { "a process of another user".to_owned() } else { holders.join(", ") };
        format!(
            "`{}` has ended, but {who}, which it started in another session, holds its output",
            self.line[0]
        )
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
}

impl Output {
    fn new(child: &mut Child) -> std::io::Result<Self> {
        let (stdout, stderr) = (Pipe::new(child.stdout.take())?, Pipe::new(child.stderr.take())?);
        Ok(Self { stdout, stderr, last_lines: Vec::new() })
    }

    /// Waits until there is something to read, the program has ended, or [`LONGEST_POLL`] has passed.
    fn wait(&self, end: Option<&OwnedFd>) {
        let pipes = [&self.stdout, &self.stderr].into_iter().filter_map(Pipe::open_end);
        let ends = pipes.chain(end.map(AsFd::as_fd)).map(|end| PollFd::from_borrowed_fd(end, PollFlags::IN));
        let longest = if end.is_some() { LONGEST_POLL } else { BLIND_POLL };
        let timeout = Timespec { tv_sec: 0, tv_nsec: longest.subsec_nanos().into() };
        // An error, as by a signal, means that the next look comes sooner.
        let _ = poll(&mut ends.collect::<Vec<_>>(), Some(&timeout));
    }

    /// Reads what is there, from stdout and from stderr.
    fn read(&mut self, on_line: OnLine<'_>, context: &Context<'_>) -> Result<[PipeRead; 2], StageError> {
        let Self { stdout, stderr, last_lines } = self;
        let from_stdout = stdout.read(&mut |line| on_line(line))?;
        let from_stderr = stderr.read(&mut |line| {
            note(line, last_lines, context);
            Ok(())
        })?;
        Ok([from_stdout, from_stderr])
    }

    /// Reads what an ended program has left in the pipes. Returns whether another process holds one of them open.
    fn drain(&mut self, on_line: OnLine<'_>, context: &Context<'_>) -> Result<bool, StageError> {
        let ended = Instant::now();
        let mut left = 2 * PIPE_BYTES;
        loop {
            let found = self.read(on_line, context)?;
            if found == [PipeRead::End; 2] {
                return Ok(false);
            }
            let bytes = |found: &PipeRead| if let PipeRead::Bytes(count) = found { *count } else { 0 };
            let read: usize = found.iter().map(bytes).sum();
            left = left.saturating_sub(read);
            if (read == 0 || left == 0) && ended.elapsed() > LONGEST_CLOSE {
                break;
            }
            if read == 0 {
                std::thread::sleep(LONGEST_POLL);
            }
        }
        let Self { stdout, stderr, last_lines } = self;
        stdout.end_line(&mut |line| on_line(line))?;
        stderr.end_line(&mut |line| {
            note(line, last_lines, context);
            Ok(())
        })?;
        Ok(true)
    }
}

/// Writes a line of stderr to the log, and keeps it for an error.
fn note(line: &str, last_lines: &mut Vec<String>, context: &Context<'_>) {
    context.progress.log(line);
    last_lines.push(line.to_owned());
    if last_lines.len() > SHOWN_LINES {
        last_lines.remove(0);
    }
}

/// A file that becomes readable when the program ends; `None` where the kernel has none (Linux before 5.3, macOS).
#[cfg(target_os = "linux")]
fn end_of(child: &Child) -> Option<OwnedFd> {
    let process = rustix::process::Pid::from_raw(child.id() as i32)?;
    rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn end_of(_: &Child) -> Option<OwnedFd> {
    None
}

fn end_group(child: &Child) {
    if let Some(group) = rustix::process::Pid::from_raw(child.id() as i32) {
        // An error means that the group has already ended.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}
