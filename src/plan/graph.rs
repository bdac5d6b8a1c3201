//! The graph of distinct tasks: two variants share a task if they agree on everything that it uses.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use petgraph::graph::DiGraph;
use serde::{Deserialize, Serialize};

use super::PlanError;
use crate::artifacts::Artifact;
use crate::manifest::{Experiment, ResolvedPort, ResolvedStage, StageIndex, Unneeded};
use crate::stages::{Implied, MASKS, PortUse, Reads, Role, Shape, Spec};

/// A task of a plan; an index into [`Plan::tasks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
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
    /// The name under which the stage reads it.
    pub role: Role,
    /// The output that is read.
    pub from: OutputRef,
    /// For features, the image set that they were extracted from: its labels select the blocks.
    pub labels: Option<OutputRef>,
    /// The part of the output that is read.
    pub reads: Reads,
}

/// One stage with one set of values, shared by every variant that agrees on them.
#[derive(Clone, Debug)]
pub struct Task {
    /// The stage's name, with `[set]` if the stage fans out to several image sets.
    pub name: String,
    /// The stage's name.
    pub stage: String,
    /// The kind and its checked fields.
    pub spec: Spec,
    /// The seed; `None` if the stage is not random.
    pub seed: Option<u64>,
    /// The inputs.
    pub inputs: Vec<Input>,
    /// Indices, in [`Plan::variants`], of the variants that share the task.
    pub variants: Vec<usize>,
    /// Whether the run's folder shows its outputs.
    pub is_shown: bool,
}

/// A variant and its target tasks.
#[derive(Clone, Debug)]
pub struct PlanVariant {
    /// Name, such as `bank=dual,seed=0`.
    pub id: String,
    /// Name and value of each axis.
    pub values: Vec<(String, String)>,
    /// The tasks of the variant's targets.
    pub targets: Vec<TaskId>,
    /// The tasks whose outputs the run's folder shows: the targets that can be shown, then other evaluations, which are
    /// upstream of a target.
    pub shown: Vec<TaskId>,
}

/// The distinct tasks of an experiment in topological order.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the experiment.
    pub experiment: String,
    /// The question that the experiment asks.
    pub question: Option<String>,
    /// Names of the axes, without repeat axes.
    pub axes: Vec<String>,
    /// Names of the repeat axes.
    pub repeats: Vec<String>,
    /// The tasks, each after those that it reads.
    pub tasks: Vec<Task>,
    /// The variants.
    pub variants: Vec<PlanVariant>,
    /// How many tasks there would be if variants shared nothing.
    pub unshared: usize,
    /// The stages that no target needs.
    pub unneeded: Unneeded,
    /// Whether the variants differ in an axis, by its index in [`PlanVariant::values`].
    pub(super) varied: Vec<bool>,
}

impl Plan {
    /// Returns the tasks that a task reads, each once.
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

    /// Returns the axis values that distinguish a task: those on which all its variants agree, but not all variants of
    /// the plan.
    pub fn values_of(&self, task: TaskId) -> String {
        let of_task = &self.tasks[task.0].variants;
        let mut values = Vec::new();
        for axis in (0..self.varied.len()).filter(|&axis| self.varied[axis]) {
            let value = |variant: usize| &self.variants[variant].values[axis];
            let Some((name, first)) = of_task.first().map(|&variant| value(variant)) else { continue };
            if of_task.iter().all(|&variant| value(variant).1 == *first) {
                values.push(format!("{name}={first}"));
            }
        }
        values.join(",")
    }

    /// Returns the graph of tasks, with edges from a task to those that read it.
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
///
/// # Errors
/// [`PlanError::NoFeatures`] and other mistakes that the checks of the manifest cannot find.
pub fn build(experiment: &Experiment) -> Result<Plan, PlanError> {
    let mut builder = Builder { experiment, tasks: Vec::new(), known: HashMap::new() };
    let mut variants = Vec::new();
    let mut unshared = 0;
    for (index, variant) in experiment.variants.iter().enumerate() {
        let mut of_variant = OfVariant { index, tasks: BTreeMap::new(), count: 0 };
        let mut targets = Vec::new();
        for target in experiment.targets_of(index) {
            for stage in builder.order(&of_variant, target) {
                builder.stage(&mut of_variant, stage)?;
            }
            targets.extend(builder.stage(&mut of_variant, target)?);
        }
        let shown = builder.shown(&targets, &of_variant);
        for &task in &shown {
            builder.tasks[task.0].is_shown = true;
        }
        unshared += of_variant.count;
        let values =
            variant.values.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        variants.push(PlanVariant { id: variant.id.to_string(), values, targets, shown });
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
        varied: varied(&variants),
        variants,
        unshared,
        unneeded: experiment.unneeded.clone(),
    })
}

/// Returns for each axis whether the variants differ in it.
fn varied(variants: &[PlanVariant]) -> Vec<bool> {
    let Some((first, others)) = variants.split_first() else { return Vec::new() };
    let differs = |axis: usize| others.iter().any(|other| other.values[axis].1 != first.values[axis].1);
    (0..first.values.len()).map(differs).collect()
}

/// Removes the set from a task's name if its stage fans out to no other set.
fn shorten_names(tasks: &mut [Task]) {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for task in tasks.iter().filter(|task| task.name != task.stage) {
        let of_stage = names.entry(task.stage.clone()).or_default();
        if !of_stage.contains(&task.name) {
            of_stage.push(task.name.clone());
        }
    }
    for task in tasks.iter_mut().filter(|task| task.name != task.stage) {
        if names[&task.stage].len() == 1 {
            task.name.clone_from(&task.stage);
        }
    }
}

/// What identifies a task: variants with equal identities share it.
#[derive(PartialEq, Eq, Hash)]
struct Identity {
    name: String,
    spec: Spec,
    seed: Option<u64>,
    inputs: Vec<Input>,
}

struct Builder<'a> {
    experiment: &'a Experiment,
    tasks: Vec<Task>,
    known: HashMap<Identity, TaskId>,
}

/// The tasks of one variant by stage, and the number of its tasks, including those of implied stages.
struct OfVariant {
    index: usize,
    tasks: BTreeMap<StageIndex, Vec<TaskId>>,
    count: usize,
}

/// One member of a feature group: an image set and the task that gives its features.
struct Member<'a> {
    port: &'a ResolvedPort,
    images: OutputRef,
    features: OutputRef,
}

impl<'a> Builder<'a> {
    /// The stages that a target needs and that have no tasks yet, each after those that it reads. Their tasks are made in
    /// this order, so that a long chain takes no more stack than a short one.
    fn order(&self, variant: &OfVariant, target: StageIndex) -> Vec<StageIndex> {
        let upstream = |stage: StageIndex| -> Vec<StageIndex> {
            let ports =
                self.experiment.stage(variant.index, stage).into_iter().flat_map(|stage| &stage.ports);
            ports.filter(|port| port.is_read()).map(|port| port.stage).collect()
        };
        let (mut order, mut seen) = (Vec::new(), BTreeSet::from([target]));
        let mut path = vec![(target, upstream(target).into_iter())];
        while let Some((stage, reads)) = path.last_mut() {
            if let Some(next) = reads.next() {
                if !variant.tasks.contains_key(&next) && seen.insert(next) {
                    path.push((next, upstream(next).into_iter()));
                }
            } else {
                order.push(*stage);
                path.pop();
            }
        }
        order
    }

    /// The tasks of a stage in a variant: one, or one for each member of a port that fans out.
    fn stage(&mut self, variant: &mut OfVariant, stage: StageIndex) -> Result<Vec<TaskId>, PlanError> {
        if let Some(tasks) = variant.tasks.get(&stage) {
            return Ok(tasks.clone());
        }
        let experiment = self.experiment;
        let Some(resolved) = experiment.stage(variant.index, stage) else { return Ok(Vec::new()) };
        let name = experiment.stages[stage.0].name.to_string();
        let mut shared = self.inputs(variant, &name, resolved)?;
        shared.extend(self.implied(variant, &name, &resolved.spec)?);
        let members: Vec<&ResolvedPort> = resolved.fan_out().collect();
        let tasks = if members.is_empty() {
            vec![self.intern(variant, &name, name.clone(), &resolved.spec, shared)]
        } else {
            self.fan_out(variant, &name, resolved, &members, &shared)?
        };
        variant.tasks.insert(stage, tasks.clone());
        Ok(tasks)
    }

    /// Returns the tasks of a variant whose outputs the run's folder shows: the targets that can be shown, then the evaluations
    /// that the targets need.
    fn shown(&self, targets: &[TaskId], of_variant: &OfVariant) -> Vec<TaskId> {
        let about = |task: &TaskId| self.tasks[task.0].spec.about();
        let mut shown: Vec<TaskId> = targets.iter().copied().filter(|task| about(task).is_shown).collect();
        for &task in of_variant.tasks.values().flatten() {
            if about(&task).is_target && about(&task).is_shown && !shown.contains(&task) {
                shown.push(task);
            }
        }
        shown
    }

    /// Makes one task for each member of a port; `shared` are the inputs that all of them read.
    fn fan_out(
        &mut self,
        variant: &mut OfVariant,
        stage: &str,
        resolved: &ResolvedStage,
        members: &[&ResolvedPort],
        shared: &[Input],
    ) -> Result<Vec<TaskId>, PlanError> {
        let mut tasks = Vec::new();
        for &port in members {
            let PortUse { reads, .. } = resolved.spec.port(&port.field);
            let input = Input {
                role: Role::only(&port.field),
                from: self.output(variant, port)?,
                labels: None,
                reads,
            };
            let inputs = std::iter::once(input).chain(shared.iter().cloned()).collect();
            let name = format!("{stage}[{}]", self.written(port));
            tasks.push(self.intern(variant, stage, name, &resolved.spec, inputs));
        }
        Ok(tasks)
    }

    /// Returns the inputs from implied stages, which the plan adds and the manifest does not have.
    fn implied(
        &mut self,
        variant: &mut OfVariant,
        stage: &str,
        spec: &Spec,
    ) -> Result<Vec<Input>, PlanError> {
        let mut inputs = Vec::new();
        for Implied { port, spec } in &spec.about().implied {
            let name = format!("{stage}.{port}");
            let outputs = spec.outputs();
            let (output, _) = outputs
                .into_iter()
                .next()
                .ok_or_else(|| PlanError::NoOutput { stage: name.clone(), output: String::new() })?;
            let task = self.intern(variant, &name.clone(), name, spec, Vec::new());
            let from = OutputRef { task, output };
            inputs.push(Input { role: Role::only(*port), from, labels: None, reads: Reads::Everything });
        }
        Ok(inputs)
    }

    /// Returns a port's reference as a manifest would write it.
    fn written(&self, port: &ResolvedPort) -> String {
        let stage = &self.experiment.stages[port.stage.0].name;
        match port.output.as_str() {
            "images" | "files" => stage.to_string(),
            output => format!("{stage}.{output}"),
        }
    }

    /// Returns the inputs that every task of the stage reads: those of all ports but the ones that fan out.
    fn inputs(
        &mut self,
        variant: &mut OfVariant,
        stage: &str,
        resolved: &ResolvedStage,
    ) -> Result<Vec<Input>, PlanError> {
        let mut inputs = Vec::new();
        for port in resolved.ports.iter().filter(|port| port.is_read()) {
            let PortUse { reads, shape } = resolved.spec.port(&port.field);
            let role = match (&shape, port.index) {
                (Shape::Each, _) => continue,
                (Shape::Group { .. }, _) => {
                    self.group(variant, stage, resolved, port, &mut inputs)?;
                    continue;
                }
                (Shape::Named, _) if port.artifact == Artifact::FeatureSet => {
                    self.named(variant, stage, port, &mut inputs)?;
                    continue;
                }
                (Shape::List, Some(index)) => Role::indexed(&port.field, index),
                (Shape::List | Shape::One | Shape::Named, _) => Role::only(&port.field),
            };
            inputs.push(Input { role, from: self.output(variant, port)?, labels: None, reads });
        }
        Ok(inputs)
    }

    fn output(&mut self, variant: &mut OfVariant, port: &ResolvedPort) -> Result<OutputRef, PlanError> {
        let task = self.stage(variant, port.stage)?.first().copied();
        let task = task.ok_or_else(|| PlanError::NoOutput {
            stage: self.experiment.stages[port.stage.0].name.to_string(),
            output: port.output.clone(),
        })?;
        Ok(OutputRef { task, output: port.output.clone() })
    }

    /// Adds the inputs of a feature group: the members of the chosen set, or of all sets, with their masks.
    fn group(
        &mut self,
        variant: &mut OfVariant,
        stage: &str,
        resolved: &ResolvedStage,
        port: &ResolvedPort,
        inputs: &mut Vec<Input>,
    ) -> Result<(), PlanError> {
        let PortUse { reads, shape } = resolved.spec.port(&port.field);
        let mut members = self.members(variant, stage, port)?;
        if let Shape::Group { set: Some(chosen_by) } = shape {
            let chosen = resolved.ports.iter().find(|port| port.field == chosen_by);
            let is_chosen = |set: &ResolvedPort| {
                chosen.is_some_and(|chosen| (chosen.stage, &chosen.output) == (set.stage, &set.output))
            };
            members.retain(|member| is_chosen(member.port));
            if members.is_empty() {
                let images = chosen.map(|chosen| self.written(chosen)).unwrap_or_default();
                return Err(PlanError::NoFeatures { stage: stage.to_owned(), images });
            }
        }
        for (index, Member { images, features, .. }) in members.into_iter().enumerate() {
            if let Reads::Blocks { selection, with_masks: true } = &reads {
                inputs.push(Input {
                    role: Role::indexed(MASKS, index),
                    from: images.clone(),
                    labels: None,
                    reads: Reads::Masks(selection.clone()),
                });
            }
            let role = Role::indexed(&port.field, index);
            inputs.push(Input { role, from: features, labels: Some(images), reads: reads.clone() });
        }
        Ok(())
    }

    /// Adds the inputs of a feature group for a stage that reads them under the names of their sets.
    fn named(
        &mut self,
        variant: &mut OfVariant,
        stage: &str,
        port: &ResolvedPort,
        inputs: &mut Vec<Input>,
    ) -> Result<(), PlanError> {
        let mut members = self.members(variant, stage, port)?;
        // A command gives the features of all its sets in one output.
        members.dedup_by(|one, other| one.features == other.features);
        let is_one = members.len() == 1;
        for Member { port: set, features, .. } in members {
            let role =
                if is_one { Role::only(&port.field) } else { Role::named(&port.field, self.written(set)) };
            inputs.push(Input { role, from: features, labels: None, reads: Reads::Everything });
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
        let resolved = experiment.stage(variant.index, port.stage);
        let sets: Vec<&ResolvedPort> = resolved.into_iter().flat_map(ResolvedStage::image_sets).collect();
        if sets.is_empty() {
            return Err(PlanError::NotExtract { stage: stage.to_owned(), port: port.field.clone() });
        }
        let tasks = self.stage(variant, port.stage)?;
        let mut members = Vec::new();
        for (index, set) in sets.into_iter().enumerate() {
            // One task for each set, or one with the features of all sets.
            let Some(&task) = tasks.get(index).or(tasks.first()) else { continue };
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
        let seed = spec.about().is_random.then(|| self.experiment.variants[variant.index].seed);
        let identity = Identity { name: name.clone(), spec: spec.clone(), seed, inputs: inputs.clone() };
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
