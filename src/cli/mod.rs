//! The command line: arguments and output. One file per subcommand.

mod amounts;
mod cache;
mod compare;
mod completions;
mod disk;
mod doctor;
mod error;
mod exit;
mod explain;
mod forecast;
mod graph;
mod hints;
mod interrupt;
mod lock;
mod log;
mod plan;
mod run;
mod run_log;
mod runs;
mod session;
mod terminal;
#[cfg(test)]
mod toy;
mod verify;
mod worker;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use error::CliError;
pub use exit::Exit;
use terminal::Verbosity;

use crate::stages::Variables;

/// Reproducible PatchCore experiments: a TOML manifest describes the stages and the grid; only what changed
/// runs again.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Show more messages (-v: steps, -vv: details); `RUST_LOG` overrides it.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// Show no progress: only results, warnings and errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

impl Arguments {
    fn verbosity(&self) -> Verbosity {
        match self.verbose {
            _ if self.quiet => Verbosity::Quiet,
            0 => Verbosity::Usual,
            1 => Verbosity::Steps,
            _ => Verbosity::Details,
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Run a manifest: plan it, execute what is not cached, print the table of variants.
    Run(run::RunArguments),
    /// Show every distinct task and whether it would run, without running or writing anything.
    Plan(plan::PlanArguments),
    /// Explain why a stage would run: the nearest earlier record and the exact inputs that differ.
    Explain(explain::ExplainArguments),
    /// Print the graph of tasks as Graphviz DOT or Mermaid.
    Graph(graph::GraphArguments),
    /// Pin every key, output digest and metric of a table in a lock file beside its manifest.
    Lock(lock::LockArguments),
    /// Make cached tasks again in a clean folder and compare their bytes. Exit code 3 if any differ.
    Verify(verify::VerifyArguments),
    /// Show the logs of the cached results of a stage.
    Log(log::LogArguments),
    /// List the runs of this project, the newest first, with the mean of each group of variants over its repeats.
    Runs(runs::RunsArguments),
    /// Show the differences of a second run from a first: metrics, manifest, keys, time.
    Compare(compare::CompareArguments),
    /// Inspect, clean, repair and share the cache.
    Cache(cache::CacheArguments),
    /// Show the backends, devices, SIMD level, threads and cache of this build on this machine.
    Doctor(doctor::DoctorArguments),
    /// Print a completion script for a shell.
    Completions(completions::CompletionArguments),
    /// Run one sealed unit of a run, from the cache alone.
    #[command(hide = true)]
    Worker(worker::WorkerArguments),
}

/// Arguments of every command that reads a manifest.
#[derive(Args, Clone)]
pub(crate) struct ManifestArguments {
    /// The manifest.
    manifest: PathBuf,
    /// Override a value: `stages.normal_bank.ratio=0.02`, `grid.axes.backbone=resnet18`.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    sets: Vec<String>,
    /// Only the variants with these values: `bank=dual,augment=none`.
    #[arg(long, value_name = "AXIS=VALUE,…")]
    only: Option<String>,
    /// Only this stage and those that it reads, instead of the evaluations; may be repeated.
    #[arg(long = "target", value_name = "STAGE")]
    targets: Vec<String>,
    /// Hash every source file again, even if its times have not changed.
    #[arg(long)]
    paranoid: bool,
}

impl ManifestArguments {
    /// The arguments for a whole manifest without overrides.
    pub(crate) fn of(manifest: PathBuf) -> Self {
        Self { manifest, sets: Vec::new(), only: None, targets: Vec::new(), paranoid: false }
    }
}

/// The environment of the program. The library itself reads no environment variable.
pub struct Environment {
    /// The environment variables.
    pub variables: Variables,
    /// The current folder.
    pub folder: PathBuf,
}

/// Runs the command.
pub fn run(arguments: Arguments, environment: &Environment) -> Exit {
    let verbosity = arguments.verbosity();
    terminal::start_logging(verbosity, environment);
    let result = match arguments.command {
        Command::Run(run) => run::run(&run, verbosity, environment),
        Command::Plan(plan) => plan::run(&plan, environment),
        Command::Explain(explain) => explain::run(&explain, environment),
        Command::Graph(graph) => graph::run(&graph, environment),
        Command::Lock(lock) => lock::run(&lock, environment),
        Command::Verify(verify) => verify::run(&verify, environment),
        Command::Log(log) => log::run(&log, environment),
        Command::Runs(runs) => runs::run(&runs, environment),
        Command::Compare(compare) => compare::run(&compare, environment),
        Command::Cache(cache) => cache::run(&cache, environment),
        Command::Doctor(doctor) => doctor::run(&doctor, environment),
        Command::Worker(worker) => worker::run(&worker, environment),
        Command::Completions(completions) => {
            completions::run(&completions);
            Ok(Exit::Done)
        }
    };
    let exit = result.unwrap_or_else(|error: CliError| {
        terminal::show_error(&error);
        error.exit()
    });
    match terminal::take_output_failure() {
        None => exit,
        Some(source) => {
            let error = CliError::Output { source };
            terminal::show_error(&error);
            if exit == Exit::Done { error.exit() } else { exit }
        }
    }
}

/// Reads the command line. If it is wrong, or asks for help or the version, the text is shown and the exit code
/// returned.
///
/// # Errors
/// The exit code with which the program ends.
pub fn parse() -> Result<Arguments, Exit> {
    Arguments::try_parse().map_err(|error| {
        let is_shown = error.print();
        match (error.use_stderr(), is_shown) {
            (true, _) => Exit::Usage,
            (false, Err(source)) if source.kind() != std::io::ErrorKind::BrokenPipe => {
                terminal::show_error(&CliError::Output { source });
                Exit::Failed
            }
            (false, _) => Exit::Done,
        }
    })
}
