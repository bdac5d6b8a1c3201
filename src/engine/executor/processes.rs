//! Runs each unit in a process of its own: `PROGRAM worker -`, with the sealed unit on standard input.
//!
//! The program may be any launcher that ends in `patchflow worker -` on a machine that shares the cache. If a worker
//! or its run is killed, the operating system gives back the lease, as for every killed run.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::{Executed, Executor, RunContext, Unit, UnitEnd, UnitReport, send};
use crate::cache::Lease;
use crate::engine::Failure;

/// Interval at which a worker is polled, and whether the user wants to stop.
const POLL: Duration = Duration::from_millis(5);

/// Runs each unit in a worker process.
pub(in crate::engine) struct Processes<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    context: &'env RunContext<'env>,
    program: &'env Path,
    ends: Sender<UnitEnd>,
}

impl<'scope, 'env> Processes<'scope, 'env> {
    /// Starts workers with `program`; the ends of units are sent to `ends`.
    pub(in crate::engine) fn new(
        scope: &'scope Scope<'scope, 'env>,
        context: &'env RunContext<'env>,
        program: &'env Path,
        ends: Sender<UnitEnd>,
    ) -> Self {
        Self { scope, context, program, ends }
    }
}

impl Executor for Processes<'_, '_> {
    fn start(&self, unit: Unit, lease: Lease) {
        // The worker takes it itself. If another process is quicker, the worker waits and finds its record.
        drop(lease);
        let Self { context, program, .. } = *self;
        let ends = self.ends.clone();
        self.scope.spawn(move || {
            let started = Instant::now();
            let executed = run(&unit, context, program).unwrap_or_else(|failure| Executed::Failed {
                failure,
                seconds: started.elapsed().as_secs_f64(),
            });
            send(&ends, unit.task, executed);
        });
    }
}

fn run(unit: &Unit, context: &RunContext<'_>, program: &Path) -> Result<Executed, Failure> {
    // What the worker publishes stays for the readers of this run.
    context.cache.leases().hold(&unit.key);
    let sealed = unit.seal(context).map_err(Failure::Cache)?;
    let failed = |source| Failure::WorkerProcess { program: program.to_owned(), source };
    // A file and no pipe: a process that the launcher leaves behind could hold a pipe open.
    let mut stdout = tempfile::tempfile().map_err(failed)?;
    let mut child = start(context, program, &stdout).map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A worker that ended without reading says why in its status.
        let _ = stdin.write_all(&sealed);
    }
    let status = wait(&mut child, context).map_err(failed)?;
    let text = read(&mut stdout).map_err(failed)?;
    match serde_json::from_str::<UnitReport>(text.trim()) {
        Ok(report) => report.into_executed(context.cache),
        Err(_) => Err(Failure::Worker { message: format!("the worker ended with {status}"), help: None }),
    }
}

fn start(context: &RunContext<'_>, program: &Path, stdout: &File) -> std::io::Result<Child> {
    Command::new(program)
        .args(["worker", "-"])
        .current_dir(&context.options.project)
        .env_clear()
        .envs(&context.options.environment)
        .stdin(Stdio::piped())
        .stdout(stdout.try_clone()?)
        // Ctrl-C reaches this process alone, which then stops the worker.
        .process_group(0)
        .spawn()
}

fn read(stdout: &mut File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    stdout.rewind()?;
    stdout.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Waits for a worker, and asks it to stop when the user wants to.
fn wait(child: &mut Child, context: &RunContext<'_>) -> std::io::Result<std::process::ExitStatus> {
    let mut is_stopped = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if context.options.cancelled.load(Ordering::Relaxed) && !is_stopped {
            is_stopped = true;
            if let Some(process) = rustix::process::Pid::from_raw(child.id() as i32) {
                // A worker that has ended meanwhile needs no signal.
                let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
            }
        }
        std::thread::sleep(POLL);
    }
}
