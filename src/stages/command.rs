//! `command`: any program as a stage.
//!
//! The program runs in a fresh folder that holds `inputs/<name>/` (read-only copies of its declared inputs)
//! and `outputs/<name>/` (empty), and sees nothing else of the project: a script that it runs is an input
//! too. Its environment holds `PATH`, `HOME`, `LANG`, `TMPDIR` and what `env` passes by name; values passed by name
//! are not in the key, the output of `tools` is.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Reader, Value, fields, name_of};
use super::program::{Input, Program};
use super::{About, Context, Estimates, Inputs, Member, PortUse, Reads, Shape, Stage, StageError};
use crate::artifacts::{Artifact, Files, bank, image_set, model, scores};

/// 1: first (2026-11-24).
pub const VERSION: u32 = 1;

/// Names of output types in a manifest.
const TYPES: [(&str, Artifact); 5] = [
    ("files", Artifact::Files),
    ("image_set", Artifact::ImageSet),
    ("bank", Artifact::Bank),
    ("model", Artifact::Model),
    ("scores", Artifact::Scores),
];

/// The fields of a `command` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The program and its arguments.
    pub run: Vec<String>,
    /// Names of its inputs.
    pub inputs: Vec<String>,
    /// Its outputs by name.
    pub outputs: BTreeMap<String, Artifact>,
    /// Programs whose output joins the key, each with its arguments.
    pub tools: Vec<Vec<String>>,
    /// Variables passed by name.
    pub env: Vec<String>,
    /// Seconds after which it is stopped.
    pub timeout: Option<u64>,
    /// How often it is started again when it fails.
    pub retries: u32,
    /// Threads that it keeps busy.
    pub threads: usize,
    /// Bytes of memory that it takes.
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
        Self {
            run,
            inputs,
            outputs: read_outputs(reader),
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
            estimates: Estimates::OfStage,
            pictures: &[],
            threads: self.threads,
            memory_bytes: self.memory_bytes,
            tolerance: None,
            target: None,
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

    /// The output of `tools` is added by the plan, which runs them.
    fn key_fields(&self) -> Fields {
        // Out: the inputs' names enter as roles; values of `env` and the limits do not change results.
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

    /// What the manifest declares.
    fn estimated_memory(&self, _: u64) -> u64 {
        self.memory_bytes
    }

    fn preflight(&self, _: &BTreeMap<String, String>) -> Result<(), StageError> {
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

/// Splits `python3 --version` at spaces.
fn split_words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Runs the program and checks what it left; in a fresh folder again where it fails, as often as `retries`.
fn run(spec: &Command, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
    let sandbox = output.join(".sandbox");
    for attempt in 1..=spec.retries {
        match run_once(spec, inputs, output, &sandbox, context) {
            Err(error @ StageError::Program { .. }) => {
                context.progress.log(&format!("attempt {attempt} of {}: {error}", spec.retries + 1));
                remove_sandbox(&sandbox)?;
            }
            ended => return ended,
        }
        pause(attempt, context)?;
    }
    run_once(spec, inputs, output, &sandbox, context)
}

/// Waits before the next attempt: a second, and twice as long each time, a minute at most.
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
            // A feature group of several sets has a folder for each set.
            match member {
                Member::Only | Member::Index(_) => lay_out(files, &folder)?,
                Member::Named(set) => lay_out(files, &folder.join(set))?,
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
        check_output(name, *artifact, &from)?;
        let to = output.join(name);
        std::fs::rename(&from, &to).map_err(|source| StageError::io("move", &from, source))?;
    }
    remove_sandbox(sandbox)
}

/// Copies an input into the sandbox, read-only.
fn lay_out(files: &Files, folder: &Path) -> Result<(), StageError> {
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
        input: Input::Empty,
        timeout: spec.timeout,
    };
    let on_line = |line: &str| {
        context.progress.log(line);
        Ok(())
    };
    program.run(&on_line, context)
}

fn check_output(name: &str, artifact: Artifact, folder: &Path) -> Result<(), StageError> {
    let files = Files::of_folder(folder)?;
    if files.is_empty() {
        return Err(StageError::data(
            format!("the program wrote nothing into `outputs/{name}`"),
            format!("write the result into `outputs/{name}/`, relative to where the program starts"),
        ));
    }
    match artifact {
        Artifact::ImageSet => {
            image_set::read_preprocessing(&files)?;
            check_image_set(name, &files)
        }
        Artifact::Bank => bank::Bank::read(&files).map(drop).map_err(Into::into),
        Artifact::Model => model::Model::read(&files).map(drop).map_err(Into::into),
        Artifact::Scores => {
            Ok(files.require("Scores", "metrics.json")?.read_json::<scores::Metrics>().map(drop)?)
        }
        Artifact::Files | Artifact::FeatureSet | Artifact::Any => Ok(()),
    }
}

/// Every image must have its mask and the other way round.
fn check_image_set(name: &str, files: &Files) -> Result<(), StageError> {
    let (pixels, labels) = (image_set::pixels(files), image_set::labelled(files));
    let lonely = pixels.keys().find(|id| !labels.contains_key(*id));
    let lonely = lonely.or_else(|| labels.keys().find(|id| !pixels.contains_key(*id)));
    match lonely {
        None => Ok(()),
        Some(id) => Err(StageError::data(
            format!("in `outputs/{name}` the image `{id}` has pixels or a mask, but not both"),
            "write pixels/images/<id>.png and labels/<split>/normal|defect/<kind>/<id>.png for each image",
        )),
    }
}
