//! Resolves a task: cuts its inputs from the outputs of its upstream tasks, and computes its key.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::graph::{Input, OutputRef, Plan, TaskId};
use super::key::{InputDigest, Preimage};
use super::{PlanError, Record, view};
use crate::cache::{Cache, Digest, Found, Rehash, SourceTree, Tree, Wanted, hash_source};
use crate::stages::fields::Value;
use crate::stages::{MASKS, Member, Reads, Role, Spec};

/// One output of a finished task.
#[derive(Clone, Debug)]
pub struct Output {
    /// The files of the output.
    pub tree: Arc<Tree>,
    /// The local source that holds the files; `None` if they are objects of the cache.
    pub source: Option<Arc<SourceTree>>,
}

/// A task's outputs by name.
pub type Outputs = BTreeMap<String, Output>;

/// One input of a resolved task.
#[derive(Clone, Debug)]
pub struct ResolvedInput {
    /// The name under which the stage reads it.
    pub role: Role,
    /// The part of the artifact that is read.
    pub reads: Reads,
    /// The files of that part.
    pub tree: Arc<Tree>,
    /// Digest of the tree.
    pub digest: Digest,
    /// Digest of the whole output that the tree is a part of.
    pub whole: Digest,
    /// The local source that holds the files, with their original paths; `None` if they are objects of the cache.
    pub source: Option<Arc<SourceTree>>,
    /// The task whose output it is.
    pub producer: TaskId,
}

/// The inputs and the key of a task whose upstream outputs are known.
#[derive(Clone, Debug)]
pub struct Resolution {
    /// Its key.
    pub key: Digest,
    /// The preimage of the key.
    pub preimage: Preimage,
    /// Its inputs, in the order of roles.
    pub inputs: Vec<ResolvedInput>,
}

/// The record of a task with this key: it has exactly the outputs of the task's stage.
pub fn wanted(key: Digest, spec: &Spec) -> Wanted {
    Wanted::named(key, spec.outputs().into_iter().map(|(name, _)| name))
}

/// Identifies a tree that was cut to the part that a task reads: the digest of the whole tree, that part, and the
/// digest of the labels.
type CutKey = (Digest, Reads, Option<Digest>);

/// Resolves the tasks of a plan. Keeps hashed sources, cut trees and the output of tools for later tasks.
pub struct Resolver<'a> {
    cache: &'a Cache,
    project: PathBuf,
    rehash: Rehash,
    sources: HashMap<PathBuf, Arc<SourceTree>>,
    digests: HashMap<*const Tree, (Digest, Arc<Tree>)>,
    cuts: HashMap<CutKey, (Arc<Tree>, Digest)>,
    tools: HashMap<Vec<String>, String>,
}

impl<'a> Resolver<'a> {
    /// Creates a resolver for the project in a folder.
    pub fn new(cache: &'a Cache, project: &Path, rehash: Rehash) -> Self {
        Self {
            cache,
            project: project.to_owned(),
            rehash,
            sources: HashMap::new(),
            digests: HashMap::new(),
            cuts: HashMap::new(),
            tools: HashMap::new(),
        }
    }

    /// Finds the inputs and the key of a task. `outputs` returns those of an upstream task, or `None` if they are
    /// unknown.
    pub fn resolve<'o>(
        &mut self,
        plan: &Plan,
        task: TaskId,
        outputs: &dyn Fn(TaskId) -> Option<&'o Outputs>,
    ) -> Result<Resolution, PlanError> {
        let of = &plan.tasks[task.0];
        let find = |reference: &OutputRef| {
            let output = outputs(reference.task).and_then(|outputs| outputs.get(&reference.output));
            output.ok_or_else(|| PlanError::NoOutput {
                stage: plan.tasks[reference.task.0].stage.clone(),
                output: reference.output.clone(),
            })
        };
        let mut inputs = Vec::new();
        let mut digests = Vec::new();
        for input in &of.inputs {
            let output = find(&input.from)?;
            let labels = input.labels.as_ref().map(find).transpose()?;
            let (tree, digest) = self.cut(input, output, labels);
            inputs.push(ResolvedInput {
                role: input.role.clone(),
                reads: input.reads.clone(),
                tree,
                digest,
                whole: self.digest(&output.tree),
                source: output.source.clone(),
                producer: input.from.task,
            });
            digests.push(digest);
        }
        let (inputs, digests) = without_empty_sets(inputs, digests);
        let preimage = self.preimage(of.stage.as_str(), &of.spec, of.seed, &inputs, digests)?;
        let key =
            preimage.key().map_err(|source| PlanError::NotFinite { stage: of.stage.clone(), source })?;
        Ok(Resolution { key, preimage, inputs })
    }

    fn preimage(
        &mut self,
        stage: &str,
        spec: &Spec,
        seed: Option<u64>,
        inputs: &[ResolvedInput],
        digests: Vec<Digest>,
    ) -> Result<Preimage, PlanError> {
        let mut fields = spec.key_fields().clone();
        let tools = &spec.about().tools;
        if !tools.is_empty() {
            let printed = tools.iter().map(|tool| self.tool(stage, tool)).collect::<Result<Vec<_>, _>>()?;
            fields.insert("tools".to_owned(), Value::List(printed.into_iter().map(Value::Text).collect()));
        }
        let mut inputs: Vec<InputDigest> = inputs
            .iter()
            .zip(digests)
            .map(|(input, digest)| InputDigest { role: input.role.to_string(), digest })
            .collect();
        if let Some(path) = &spec.about().source {
            let digest = self.source(stage, path)?.tree.digest();
            inputs.push(InputDigest { role: "source".to_owned(), digest });
        }
        inputs.sort_by(|a, b| a.role.cmp(&b.role));
        Ok(Preimage {
            kind: spec.kind().name().to_owned(),
            version: spec.about().version,
            spec: fields,
            seed,
            inputs,
        })
    }

    /// Runs a tool, the first time that it is needed, and returns its stdout and stderr.
    fn tool(&mut self, stage: &str, argv: &[String]) -> Result<String, PlanError> {
        if let Some(printed) = self.tools.get(argv) {
            return Ok(printed.clone());
        }
        let Some((program, arguments)) = argv.split_first() else { return Ok(String::new()) };
        let failed = |tool: String, source| PlanError::Tool { stage: stage.to_owned(), tool, source };
        let (status, printed) =
            run_tool(program, arguments, &self.project).map_err(|source| failed(program.clone(), source))?;
        if !status.success() {
            return Err(failed(argv.join(" "), std::io::Error::other(format!("it ended with {status}"))));
        }
        self.tools.insert(argv.to_vec(), printed.clone());
        Ok(printed)
    }

    /// Hashes a local source in place and returns its outputs; `None` for a stage that is no local source.
    pub fn source_outputs(&mut self, stage: &str, spec: &Spec) -> Result<Option<Outputs>, PlanError> {
        let Some(path) = &spec.about().source else { return Ok(None) };
        let source = self.source(stage, path)?;
        let output = Output { tree: Arc::new(source.tree.clone()), source: Some(source) };
        Ok(Some(Outputs::from([("files".to_owned(), output)])))
    }

    fn source(&mut self, stage: &str, path: &str) -> Result<Arc<SourceTree>, PlanError> {
        let path = self.project.join(path);
        if let Some(source) = self.sources.get(&path) {
            return Ok(source.clone());
        }
        let hashed = hash_source(&path, self.cache.index(), self.rehash);
        let source = hashed.map_err(|source| PlanError::Source {
            stage: stage.to_owned(),
            path: path.clone(),
            source,
        })?;
        let source = Arc::new(source);
        self.sources.insert(path, source.clone());
        Ok(source)
    }

    /// Looks up the record of a task's key, and the outputs that it names. Writes nothing.
    pub fn lookup(&self, wanted: &Wanted) -> Result<Option<(Found<Record>, Outputs)>, PlanError> {
        let found = self.cache.lookup::<Record>(wanted).map_err(PlanError::Cache)?.found();
        Ok(found.map(|found| {
            let output = |(name, tree): (&String, &Arc<Tree>)| {
                (name.clone(), Output { tree: Arc::clone(tree), source: None })
            };
            let outputs = found.record.outputs.keys().zip(&found.trees).map(output).collect();
            (found, outputs)
        }))
    }

    fn digest(&mut self, tree: &Arc<Tree>) -> Digest {
        // The tree is kept with its address, so that no other tree can be allocated at it.
        self.digests.entry(Arc::as_ptr(tree)).or_insert_with(|| (tree.digest(), tree.clone())).0
    }

    fn cut(&mut self, input: &Input, output: &Output, labels: Option<&Output>) -> (Arc<Tree>, Digest) {
        let digest = self.digest(&output.tree);
        if input.reads == Reads::Everything {
            return (output.tree.clone(), digest);
        }
        let labels_digest = labels.map(|labels| self.digest(&labels.tree));
        let key = (digest, input.reads.clone(), labels_digest);
        let cut = self.cuts.entry(key).or_insert_with(|| {
            let tree = view::cut(&output.tree, &input.reads, labels.map(|labels| &*labels.tree));
            let digest = tree.digest();
            (Arc::new(tree), digest)
        });
        cut.clone()
    }
}

/// Runs a tool in `folder` until it ends. Returns how it ended, and its stdout followed by its stderr. They go to files:
/// of a pipe the end would be waited for, which a process that the tool leaves behind can hold open.
fn run_tool(
    program: &str,
    arguments: &[String],
    folder: &Path,
) -> std::io::Result<(std::process::ExitStatus, String)> {
    let [mut stdout, mut stderr] = [tempfile::tempfile()?, tempfile::tempfile()?];
    let status = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .status()?;
    let mut printed = Vec::new();
    for file in [&mut stdout, &mut stderr] {
        file.rewind()?;
        file.read_to_end(&mut printed)?;
    }
    Ok((status, String::from_utf8_lossy(&printed).into_owned()))
}

/// Drops the sets of feature groups from which nothing is read, with their masks, and renumbers the others, so that
/// adding a set to a group reruns no stage that reads none of its images.
fn without_empty_sets(inputs: Vec<ResolvedInput>, digests: Vec<Digest>) -> (Vec<ResolvedInput>, Vec<Digest>) {
    let is_block_set = |input: &ResolvedInput| matches!(input.reads, Reads::Blocks { .. });
    let mut kept: Vec<usize> = Vec::new();
    for input in inputs.iter().filter(|input| is_block_set(input)) {
        if let Member::Index(index) = input.role.member
            && view::has_blocks(&input.tree)
        {
            kept.push(index);
        }
    }
    let mut left = (Vec::new(), Vec::new());
    for (mut input, digest) in inputs.into_iter().zip(digests) {
        if let Member::Index(index) = input.role.member
            && (is_block_set(&input) || input.role.port == MASKS)
        {
            let Some(index) = kept.iter().position(|&kept| kept == index) else { continue };
            input.role = Role::indexed(input.role.port, index);
        }
        left.0.push(input);
        left.1.push(digest);
    }
    left
}
