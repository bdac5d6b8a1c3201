//! Variants become distinct tasks: two variants share a task where they agree on everything that it uses.

use std::collections::BTreeMap;
use std::collections::HashMap;

use petgraph::graph::DiGraph;

use super::PlanError;
use crate::artifacts::Artifact;
use crate::manifest::{Experiment, Resolved, ResolvedPort};
use crate::stages::{Kind, Reads, Spec, download, extract};

/// A task of a plan; an index into [`Plan::tasks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub usize);

/// An output of a task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutputRef {
    /// The task.
    pub task: TaskId,
    /// The output's name.
    pub output: String,
}

/// One input of a task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    /// The port, or the port with `[i]` for a list or group.
    pub role: String,
    /// Where it comes from.
    pub from: OutputRef,
    /// For features: the image set that they are of.
    pub labels: Option<OutputRef>,
    /// What is read of it.
    pub reads: ReadsKey,
}

/// [`Reads`] with a hash, through its text.
#[derive(Clone, Debug)]
pub struct ReadsKey(pub Reads, String);

impl From<Reads> for ReadsKey {
    fn from(reads: Reads) -> Self {
        let text = format!("{reads:?}");
        Self(reads, text)
    }
}
impl PartialEq for ReadsKey {
    fn eq(&self, other: &Self) -> bool {
        self.1 == other.1
    }
}
impl Eq for ReadsKey {}
impl std::hash::Hash for ReadsKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.1.hash(state);
    }
}

/// One stage with one set of values, shared by every variant that agrees on them.
#[derive(Clone, Debug)]
pub struct Task {
    /// The stage's name, with `[set]` where `extract` has several sets.
    pub name: String,
    /// The stage's name.
    pub stage: String,
    /// Its fields.
    pub spec: Spec,
    /// The seed, where the kind is random.
    pub seed: Option<u64>,
    /// What it reads.
    pub inputs: Vec<Input>,
    /// The variants that share it, as indices.
    pub variants: Vec<usize>,
    /// Whether the run's folder shows its output.
    pub is_shown: bool,
}

/// A variant and what it is for.
#[derive(Clone, Debug)]
pub struct PlanVariant {
    /// Its name, such as `bank=dual,seed=0`.
    pub id: String,
    /// Its axes' values.
    pub values: Vec<(String, String)>,
    /// The tasks that it ends in.
    pub targets: Vec<TaskId>,
}

/// The distinct tasks of an experiment, each after those that it reads.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The experiment's name.
    pub experiment: String,
    /// The question that it asks.
    pub question: Option<String>,
    /// Names of the axes, repeats left out.
    pub axes: Vec<String>,
    /// Names of the repeat axes.
    pub repeats: Vec<String>,
    /// The tasks in an order in which they can run.
    pub tasks: Vec<Task>,
    /// The variants.
    pub variants: Vec<PlanVariant>,
    /// How many tasks there would be if variants shared nothing.
    pub unshared: usize,
}

impl Plan {
    /// The tasks that a task reads, each once.
    pub fn upstream(&self, task: TaskId) -> Vec<TaskId> {
        let mut tasks: Vec<TaskId> = self.tasks[task.0]
            .inputs
            .iter()
            .flat_map(|input| [Some(input.from.task), input.labels.as_ref().map(|labels| labels.task)])
            .flatten()
            .collect();
        tasks.sort_unstable();
        tasks.dedup();
        tasks
    }

    /// The values that tell a task from others: of each axis on which its variants agree, and not all do.
    pub fn values_of(&self, task: TaskId) -> String {
        let axes = self.variants.first().map_or(0, |variant| variant.values.len());
        let of_task = &self.tasks[task.0].variants;
        let mut told = Vec::new();
        for axis in 0..axes {
            let value = |variant: usize| &self.variants[variant].values[axis];
            let Some((name, first)) = of_task.first().map(|&variant| value(variant)) else { continue };
            let agree = of_task.iter().all(|&variant| value(variant).1 == *first);
            if agree && self.variants.iter().any(|variant| variant.values[axis].1 != *first) {
                told.push(format!("{name}={first}"));
            }
        }
        told.join(",")
    }

    /// The graph of tasks, edges from a task to those that read it.
    pub fn graph(&self) -> DiGraph<TaskId, ()> {
        let mut graph = DiGraph::new();
        let nodes: Vec<_> = (0..self.tasks.len()).map(|index| graph.add_node(TaskId(index))).collect();
        for index in 0..self.tasks.len() {
            for upstream in self.upstream(TaskId(index)) {
                graph.add_edge(nodes[upstream.0], nodes[index], ());
            }
        }
        graph
    }
}

/// Builds the plan of an experiment.
pub fn build(experiment: &Experiment) -> Result<Plan, PlanError> {
    let mut builder = Builder { experiment, tasks: Vec::new(), known: HashMap::new(), specs: HashMap::new() };
    let mut variants = Vec::new();
    let mut unshared = 0;
    for (index, variant) in experiment.variants.iter().enumerate() {
        let mut of_variant = OfVariant { index, tasks: BTreeMap::new(), count: 0 };
        let mut targets = Vec::new();
        for stage in experiment.targets_of(index) {
            targets.extend(builder.stage(&mut of_variant, stage)?);
        }
        for &target in &targets {
            let shows =
                matches!(builder.tasks[target.0].spec.kind(), Kind::Evaluate | Kind::Command | Kind::Augment);
            builder.tasks[target.0].is_shown |= shows;
        }
        unshared += of_variant.count;
        let values =
            variant.values.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        variants.push(PlanVariant { id: variant.id.to_string(), values, targets });
    }
    shorten_names(&mut builder.tasks);
    let names = |is_repeat| {
        experiment
            .axes
            .iter()
            .filter(move |axis| axis.is_repeat == is_repeat)
            .map(|axis| axis.name.to_string())
    };
    Ok(Plan {
        experiment: experiment.name.clone(),
        question: experiment.question.clone(),
        axes: names(false).collect(),
        repeats: names(true).collect(),
        tasks: builder.tasks,
        variants,
        unshared,
    })
}

/// Leaves the set out of an extract task's name where its stage has no other.
fn shorten_names(tasks: &mut [Task]) {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for task in tasks.iter().filter(|task| task.spec.kind() == Kind::Extract) {
        let of_stage = names.entry(task.stage.clone()).or_default();
        if !of_stage.contains(&task.name) {
            of_stage.push(task.name.clone());
        }
    }
    for task in tasks.iter_mut().filter(|task| task.spec.kind() == Kind::Extract) {
        if names[&task.stage].len() == 1 {
            task.name.clone_from(&task.stage);
        }
    }
}

/// What makes two tasks of a stage one.
#[derive(PartialEq, Eq, Hash)]
struct Identity {
    name: String,
    spec: usize,
    seed: Option<u64>,
    inputs: Vec<Input>,
}

struct Builder<'a> {
    experiment: &'a Experiment,
    tasks: Vec<Task>,
    known: HashMap<Identity, TaskId>,
    /// Numbers of specs by their text, so that identities compare quickly.
    specs: HashMap<String, usize>,
}

/// One variant's tasks by stage, and how many there are with those that a stage implies.
struct OfVariant {
    index: usize,
    tasks: BTreeMap<usize, Vec<TaskId>>,
    count: usize,
}

/// One member of a feature group: an image set and the task that extracts it.
struct Member<'a> {
    port: &'a ResolvedPort,
    images: OutputRef,
    features: OutputRef,
}

impl<'a> Builder<'a> {
    /// The tasks of a stage in a variant: one, or for `extract` one for each set.
    fn stage(&mut self, variant: &mut OfVariant, stage: usize) -> Result<Vec<TaskId>, PlanError> {
        if let Some(tasks) = variant.tasks.get(&stage) {
            return Ok(tasks.clone());
        }
        let experiment = self.experiment;
        let Some(resolved) = experiment.stage(variant.index, stage) else { return Ok(Vec::new()) };
        let name = experiment.stages[stage].name.to_string();
        let tasks = if resolved.spec.kind() == Kind::Extract {
            self.extract(variant, &name, resolved)?
        } else {
            let inputs = self.inputs(variant, &name, resolved)?;
            vec![self.intern(variant, &name, name.clone(), &resolved.spec, inputs)]
        };
        variant.tasks.insert(stage, tasks.clone());
        Ok(tasks)
    }

    fn extract(
        &mut self,
        variant: &mut OfVariant,
        stage: &str,
        resolved: &Resolved,
    ) -> Result<Vec<TaskId>, PlanError> {
        let mut shared = Vec::new();
        for port in resolved.ports.iter().filter(|port| port.field == "weights") {
            shared.push(self.plain(variant, port, &resolved.spec)?);
        }
        if let Spec::Extract(extract::Spec { weights: extract::WeightSource::Published, network, .. }) =
            &resolved.spec
        {
            let spec = Spec::Download(download::Spec::published_weights(network.name()));
            let name = format!("{stage}.weights");
            let task = self.intern(variant, &name.clone(), name, &spec, Vec::new());
            let from = OutputRef { task, output: "files".to_owned() };
            let reads = Reads::Everything.into();
            shared.push(Input { role: "weights".to_owned(), from, labels: None, reads });
        }
        let sets: Vec<&ResolvedPort> = resolved.ports.iter().filter(|port| port.field == "images").collect();
        let mut tasks = Vec::new();
        for port in &sets {
            let mut input = self.plain(variant, port, &resolved.spec)?;
            "images".clone_into(&mut input.role);
            let inputs = std::iter::once(input).chain(shared.iter().cloned()).collect();
            let name = format!("{stage}[{}]", self.written(port));
            tasks.push(self.intern(variant, stage, name, &resolved.spec, inputs));
        }
        Ok(tasks)
    }

    /// A port's reference as a person would write it.
    fn written(&self, port: &ResolvedPort) -> String {
        let stage = &self.experiment.stages[port.stage].name;
        match port.output.as_str() {
            "images" | "files" => stage.to_string(),
            output => format!("{stage}.{output}"),
        }
    }

    fn inputs(
        &mut self,
        variant: &mut OfVariant,
        stage: &str,
        resolved: &Resolved,
    ) -> Result<Vec<Input>, PlanError> {
        let mut inputs = Vec::new();
        for port in resolved.ports.iter().filter(|port| port.is_read) {
            if port.artifact == Artifact::FeatureSet {
                self.group(variant, stage, resolved, port, &mut inputs)?;
            } else {
                inputs.push(self.plain(variant, port, &resolved.spec)?);
            }
        }
        Ok(inputs)
    }

    /// An input that is one artifact.
    fn plain(
        &mut self,
        variant: &mut OfVariant,
        port: &ResolvedPort,
        spec: &Spec,
    ) -> Result<Input, PlanError> {
        let from = self.output(variant, port)?;
        let role = match port.index {
            Some(index) if spec.kind() != Kind::Extract => format!("{}[{index}]", port.field),
            _ => port.field.clone(),
        };
        Ok(Input { role, from, labels: None, reads: spec.reads(&port.field).into() })
    }

    fn output(&mut self, variant: &mut OfVariant, port: &ResolvedPort) -> Result<OutputRef, PlanError> {
        let task = self.stage(variant, port.stage)?.first().copied();
        let task = task.ok_or_else(|| PlanError::NoOutput {
            stage: self.experiment.stages[port.stage].name.to_string(),
            output: port.output.clone(),
        })?;
        Ok(OutputRef { task, output: port.output.clone() })
    }

    /// The inputs that a feature group gives: the members that the reader names, with their masks.
    fn group(
        &mut self,
        variant: &mut OfVariant,
        stage: &str,
        resolved: &Resolved,
        port: &ResolvedPort,
        inputs: &mut Vec<Input>,
    ) -> Result<(), PlanError> {
        let mut members = self.members(variant, stage, port)?;
        if let Some((set, output)) = &resolved.set {
            members.retain(|member| (member.port.stage, &member.port.output) == (*set, output));
        } else if resolved.spec.kind() == Kind::Evaluate {
            let images = resolved.ports.iter().find(|port| port.field == "images");
            members.retain(|member| {
                images.is_some_and(|images| {
                    (images.stage, &images.output) == (member.port.stage, &member.port.output)
                })
            });
            if members.is_empty() {
                let images = images.map(|images| self.written(images)).unwrap_or_default();
                return Err(PlanError::NoFeatures { stage: stage.to_owned(), images });
            }
        }
        if resolved.spec.kind() == Kind::Command {
            let is_one = members.len() == 1;
            for Member { port: set, features, .. } in members {
                let role =
                    if is_one { port.field.clone() } else { format!("{}/{}", port.field, self.written(set)) };
                inputs.push(Input { role, from: features, labels: None, reads: Reads::Everything.into() });
            }
            return Ok(());
        }
        let reads = resolved.spec.reads(&port.field);
        for (place, Member { images, features, .. }) in members.into_iter().enumerate() {
            if let Reads::Blocks { selection, with_masks: true } = &reads {
                inputs.push(Input {
                    role: format!("masks[{place}]"),
                    from: images.clone(),
                    labels: None,
                    reads: Reads::Masks(selection.clone()).into(),
                });
            }
            inputs.push(Input {
                role: format!("{}[{place}]", port.field),
                from: features,
                labels: Some(images),
                reads: reads.clone().into(),
            });
        }
        Ok(())
    }

    fn members(
        &mut self,
        variant: &mut OfVariant,
        stage: &str,
        port: &ResolvedPort,
    ) -> Result<Vec<Member<'a>>, PlanError> {
        let experiment = self.experiment;
        let not_extract = || PlanError::NotExtract { stage: stage.to_owned(), port: port.field.clone() };
        let resolved = experiment.stage(variant.index, port.stage).ok_or_else(not_extract)?;
        if resolved.spec.kind() != Kind::Extract {
            return Err(not_extract());
        }
        let tasks = self.stage(variant, port.stage)?;
        let sets = resolved.ports.iter().filter(|port| port.field == "images");
        let mut members = Vec::new();
        for (set, task) in sets.zip(tasks) {
            members.push(Member {
                port: set,
                images: self.output(variant, set)?,
                features: OutputRef { task, output: port.output.clone() },
            });
        }
        Ok(members)
    }

    fn intern(
        &mut self,
        variant: &mut OfVariant,
        stage: &str,
        name: String,
        spec: &Spec,
        inputs: Vec<Input>,
    ) -> TaskId {
        variant.count += 1;
        let seed = spec.is_random().then(|| self.experiment.variants[variant.index].seed);
        let count = self.specs.len();
        let number = *self.specs.entry(format!("{spec:?}")).or_insert(count);
        let identity = Identity { name: name.clone(), spec: number, seed, inputs: inputs.clone() };
        let task = *self.known.entry(identity).or_insert_with(|| {
            self.tasks.push(Task {
                name,
                stage: stage.to_owned(),
                spec: spec.clone(),
                seed,
                inputs,
                variants: Vec::new(),
                is_shown: false,
            });
            TaskId(self.tasks.len() - 1)
        });
        let variants = &mut self.tasks[task.0].variants;
        if variants.last() != Some(&variant.index) {
            variants.push(variant.index);
        }
        task
    }
}
