//! How much the tasks of a plan have to do: sizes are measured where outputs exist, and carried through the graph from
//! stage to stage where they do not.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::graph::{OutputRef, Plan, TaskId};
use super::resolve::{Output, Outputs};
use crate::artifacts::Artifact;
use crate::artifacts::size::{FileList, Size};
use crate::cache::{Cache, Tree};
use crate::stages::{InputSizes, Workload};

/// The sizes of the outputs of a task, by name. Those that are missing are unknown.
type OutputSizes = HashMap<String, Arc<Size>>;

/// The sizes of the outputs of a plan's tasks, found when they are needed.
pub struct Sizes<'a> {
    plan: &'a Plan,
    cache: &'a Cache,
    found: HashMap<TaskId, Arc<OutputSizes>>,
}

impl<'a> Sizes<'a> {
    /// Knows nothing yet.
    pub fn new(plan: &'a Plan, cache: &'a Cache) -> Self {
        Self { plan, cache, found: HashMap::new() }
    }

    /// Returns the sizes of a task's inputs. `outputs` returns those of an upstream task, or `None` if they do not exist
    /// yet.
    pub fn inputs<'o>(
        &mut self,
        task: TaskId,
        outputs: &dyn Fn(TaskId) -> Option<&'o Outputs>,
    ) -> InputSizes {
        let plan = self.plan;
        let inputs = &plan.tasks[task.0].inputs;
        InputSizes::new(
            inputs.iter().map(|input| (input.role.clone(), self.of(&input.from, outputs))).collect(),
        )
    }

    /// Returns what a task has to do.
    pub fn workload<'o>(
        &mut self,
        task: TaskId,
        outputs: &dyn Fn(TaskId) -> Option<&'o Outputs>,
    ) -> Workload {
        let inputs = self.inputs(task, outputs);
        self.plan.tasks[task.0].spec.workload(&inputs)
    }

    /// Sets the bytes that a task is expected to write, as an earlier task of its kind did.
    pub fn expect_bytes<'o>(
        &mut self,
        task: TaskId,
        bytes: u64,
        outputs: &dyn Fn(TaskId) -> Option<&'o Outputs>,
    ) {
        let of_task = self.of_task(task, outputs);
        let mut sizes = OutputSizes::clone(&of_task);
        for (name, _) in self.plan.tasks[task.0].spec.outputs() {
            let size = Arc::make_mut(sizes.entry(name).or_default());
            size.bytes.get_or_insert(bytes as f64);
        }
        self.found.insert(task, Arc::new(sizes));
    }

    fn of<'o>(
        &mut self,
        output: &OutputRef,
        outputs: &dyn Fn(TaskId) -> Option<&'o Outputs>,
    ) -> Option<Arc<Size>> {
        self.of_task(output.task, outputs).get(&output.output).cloned()
    }

    fn of_task<'o>(
        &mut self,
        task: TaskId,
        outputs: &dyn Fn(TaskId) -> Option<&'o Outputs>,
    ) -> Arc<OutputSizes> {
        if let Some(found) = self.found.get(&task) {
            return found.clone();
        }
        let sizes = Arc::new(self.outputs(task, outputs));
        self.found.insert(task, sizes.clone());
        sizes
    }

    /// The sizes of a task's outputs: measured if they exist, otherwise as its stage expects them.
    fn outputs<'o>(&mut self, task: TaskId, outputs: &dyn Fn(TaskId) -> Option<&'o Outputs>) -> OutputSizes {
        let workload = self.workload(task, outputs);
        let made = outputs(task);
        let size = |(name, artifact): (String, _)| {
            let expected = workload.output(&name);
            let size = match made.and_then(|made| made.get(&name)) {
                Some(output) => Some(self.measure(artifact, output, expected)),
                None => expected.cloned(),
            };
            size.map(|size| (name, Arc::new(size)))
        };
        self.plan.tasks[task.0].spec.outputs().into_iter().filter_map(size).collect()
    }

    fn measure(&self, artifact: Artifact, output: &Output, expected: Option<&Size>) -> Size {
        let tree: &Tree = &output.tree;
        let path_of = |name: &str| -> Option<PathBuf> {
            let entry = tree.get(name)?;
            Some(match &output.source {
                Some(source) => source.path_of(entry),
                None => self.cache.objects().path(&entry.digest),
            })
        };
        let files = tree.entries().iter().map(|entry| (entry.path.as_str(), entry.size)).collect();
        Size::measure(artifact, &FileList { files, path_of: &path_of }, expected)
    }
}
