//! `command`: runs any program as a stage.
//!
//! The program starts in a fresh folder with `inputs/<name>/` (read-only copies of its declared inputs) and
//! `outputs/<name>/` (empty). It starts outside the project, so a script that it runs must be an input too. Its
//! environment holds `PATH`, `HOME`, `LANG`, `TMPDIR` and the variables that `env` names. The names in `env` and the
//! output of `tools` enter the key; the values of the variables do not.

mod output;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Reader, Value, fields, name_of};
use super::program::{Program, Stdin};
use super::{
    About, Context, Estimates, InputSizes, Inputs, Member, PortUse, Reads, Shape, Stage, StageError,
    Variables, Workload,
};
use crate::artifacts::{Artifact, Files};
use crate::text::is_plain_name;

/// Version of the kind, raised when outputs change for equal inputs. 1: first (2026-11-24).
pub const VERSION: u32 = 1;

/// Seconds of a program that does nothing, and of each byte that it reads (chosen: a script, and 100 MB/s).
const PROGRAM_SECONDS: f64 = 0.05;
const BYTE_SECONDS: f64 = 1e-8;

/// Names of the output types in a manifest.
const TYPES: [(&str, Artifact); 6] = [
    ("files", Artifact::Files),
    ("image_set", Artifact::ImageSet),
    ("feature_set", Artifact::FeatureSet),
    ("bank", Artifact::Bank),
    ("model", Artifact::Model),
    ("scores", Artifact::Scores),
];

/// The fields of a `command` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The program and its arguments.
    pub run: Vec<String>,
    /// Names of the inputs.
    pub inputs: Vec<String>,
    /// Names and types of the outputs.
    pub outputs: BTreeMap<String, Artifact>,
    /// Commands (program and arguments) whose output enters the key.
    pub tools: Vec<Vec<String>>,
    /// Names of environment variables that are passed on.
    pub env: Vec<String>,
    /// Time in seconds after which the program is killed.
    pub timeout: Option<u64>,
    /// How often a failed program is started again.
    pub retries: u32,
    /// Number of threads that the program uses.
    pub threads: usize,
    /// Memory in bytes that the program needs.
    pub memory_bytes: u64,
}

impl Stage for Command {
    fn name() -> &'static str {
        "command"
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        let run = reader.texts("run");
        if !reader.has("run") {
            reader.missing("run", "an array: the program and its arguments");
        } else if reader.is_empty_list("run") {
            reader.problem("run", "empty_list", "`run` is empty".to_owned(), None);
        }
        let inputs = reader.port_table("inputs", Artifact::Any);
        let outputs = read_outputs(reader);
        check_names(reader, "inputs", &inputs);
        check_names(reader, "outputs", &outputs.keys().cloned().collect::<Vec<_>>());
        Self {
            run,
            inputs,
            outputs,
            tools: reader.texts("tools").iter().map(|line| split_words(line)).collect(),
            env: reader.texts("env"),
            timeout: reader.optional_integer("timeout_seconds", 1..=31_536_000).map(|seconds| seconds as u64),
            retries: reader.integer("retries", 0..=100, Some(0)) as u32,
            threads: reader.integer("threads", 1..=4096, Some(1)) as usize,
            memory_bytes: reader.integer("memory_bytes", 0..=i64::MAX, Some(0)) as u64,
        }
    }

    fn about(&self) -> About {
        About {
            version: VERSION,
            is_random: false,
            is_item_wise: false,
            is_blocking: true,
            is_target: false,
            is_shown: true,
            is_verified: true,
            estimates: Estimates::WithEqual(&["run", "outputs", "env"]),
            foresees: false,
            pictures: &[],
            threads: self.threads,
            memory_bytes: self.memory_bytes,
            tolerance: None,
            depends_on_machine: false,
            compute_target: None,
            source: None,
            tools: self.tools.clone(),
            implied: Vec::new(),
        }
    }

    fn port(&self, _: &str) -> PortUse {
        PortUse { reads: Reads::Everything, shape: Shape::Named }
    }

    fn outputs(&self) -> Vec<(String, Artifact)> {
        self.outputs.iter().map(|(name, artifact)| (name.clone(), *artifact)).collect()
    }

    /// The output of `tools` is missing here: the planner runs them and adds it.
    fn key_fields(&self) -> Fields {
        // Left out: names of inputs, which enter as roles; values of `env`; limits, which do not change results.
        let Self {
            run,
            inputs: _,
            outputs,
            tools: _,
            env,
            timeout: _,
            retries: _,
            threads: _,
            memory_bytes: _,
        } = self;
        let outputs = outputs.iter().map(|(name, artifact)| (name.clone(), type_name(*artifact).into()));
        fields([
            ("run", run.clone().into()),
            ("outputs", Value::Table(outputs.collect())),
            ("env", env.clone().into()),
        ])
    }

    /// Returns the memory that the manifest declares.
    fn estimated_memory(&self, _: u64) -> u64 {
        self.memory_bytes
    }

    /// Bytes of the inputs: nothing is known about what the program does with them.
    fn workload(&self, inputs: &InputSizes) -> Workload {
        let seconds = inputs.bytes().map(|bytes| PROGRAM_SECONDS + bytes * BYTE_SECONDS);
        Workload { seconds, ..Workload::default() }
    }

    fn preflight(&self, _: &Variables) -> Result<(), StageError> {
        Ok(())
    }

    fn run(&self, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
        run(self, inputs, output, context)
    }
}

fn type_name(artifact: Artifact) -> &'static str {
    name_of(&TYPES, &artifact)
}

fn read_outputs(reader: &mut Reader<'_>) -> BTreeMap<String, Artifact> {
    let names: Vec<&str> = TYPES.iter().map(|&(name, _)| name).collect();
    let mut outputs = BTreeMap::new();
    for (output, written) in reader.text_table("outputs") {
        match TYPES.iter().find(|&&(name, _)| name == written) {
            Some(&(_, artifact)) => {
                outputs.insert(output, artifact);
            }
            None => reader.unknown_choice("outputs", &written, &names),
        }
    }
    if outputs.is_empty() && !reader.has("outputs") {
        reader.missing("outputs", "a table such as { result = \"files\" }");
    }
    outputs
}

/// Checks the names of inputs or outputs: each becomes a folder in the program's own.
fn check_names(reader: &mut Reader<'_>, field: &str, names: &[String]) {
    let mut known = BTreeSet::new();
    for name in names {
        if !is_plain_name(name) {
            let message = format!("`{name}` cannot name one of the `{field}`");
            let help = "use letters, digits, `_`, `-` and `.`, at most 100 bytes, no dot at either end";
            reader.bad_name(field, name, message, help);
        } else if !known.insert(name.to_lowercase()) {
            let message = format!("`{name}` differs from another of the `{field}` in letter case alone");
            let help = "rename one of them: on some file systems they are one folder";
            reader.bad_name(field, name, message, help);
        }
    }
}

/// Splits a command line such as `python3 --version` at spaces.
fn split_words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Runs the program and checks its outputs. If it fails, runs it again in a fresh folder, up to `retries` times.
fn run(spec: &Command, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
    let sandbox = output.join(".sandbox");
    for attempt in 1..=spec.retries {
        match run_once(spec, inputs, output, &sandbox, context) {
            Err(error @ StageError::Program { .. }) => {
                context.progress.log(&format!("attempt {attempt} of {}: {error}", spec.retries + 1));
                remove_sandbox(&sandbox)?;
            }
            result => return result,
        }
        pause(attempt, context)?;
    }
    run_once(spec, inputs, output, &sandbox, context)
}

/// Waits before the next attempt: one second at first, doubled each time, at most one minute.
fn pause(attempt: u32, context: &Context<'_>) -> Result<(), StageError> {
    context.sleep(Duration::from_secs(1 << (attempt - 1).min(6)).min(Duration::from_mins(1)))
}

fn remove_sandbox(sandbox: &Path) -> Result<(), StageError> {
    std::fs::remove_dir_all(sandbox).map_err(|source| StageError::io("remove", sandbox, source))
}

fn run_once(
    spec: &Command,
    inputs: &Inputs,
    output: &Path,
    sandbox: &Path,
    context: &Context<'_>,
) -> Result<(), StageError> {
    for name in &spec.inputs {
        let folder = sandbox.join("inputs").join(name);
        for (member, files) in inputs.of_port(&format!("inputs.{name}")) {
            // The features of several sets are in one subfolder for each set.
            match member {
                Member::Only | Member::Index(_) => copy_input(files, &folder)?,
                Member::Named(set) => copy_input(files, &folder.join(set))?,
            }
        }
    }
    for name in spec.outputs.keys() {
        let folder = sandbox.join("outputs").join(name);
        std::fs::create_dir_all(&folder).map_err(|source| StageError::io("make", &folder, source))?;
    }
    run_program(spec, sandbox, context)?;
    for (name, artifact) in &spec.outputs {
        let from = sandbox.join("outputs").join(name);
        output::check(name, *artifact, &from, inputs)?;
        let to = output.join(name);
        std::fs::rename(&from, &to).map_err(|source| StageError::io("move", &from, source))?;
    }
    // The rest of the sandbox goes with the output folder, once the task is done.
    Ok(())
}

/// Copies an input into the sandbox, read-only.
fn copy_input(files: &Files, folder: &Path) -> Result<(), StageError> {
    std::fs::create_dir_all(folder).map_err(|source| StageError::io("make", folder, source))?;
    for (name, file) in files.iter() {
        let to = folder.join(name);
        let failed = |source| StageError::io("copy", &to, source);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        reflink_copy::reflink_or_copy(&file.path, &to).map_err(failed)?;
        let mode = if file.is_executable { 0o555 } else { 0o444 };
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(())
}

fn run_program(spec: &Command, sandbox: &Path, context: &Context<'_>) -> Result<(), StageError> {
    let passed: Vec<&str> = spec.env.iter().map(String::as_str).collect();
    let program = Program {
        line: &spec.run,
        folder: sandbox,
        passed: &passed,
        set: &[],
        stdin: Stdin::Empty,
        timeout: spec.timeout,
    };
    let on_line = |line: &str| {
        context.progress.log(line);
        Ok(())
    };
    program.run(&on_line, context)
}
