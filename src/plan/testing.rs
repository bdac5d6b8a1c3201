//! Plans for unit tests.

use super::{Input, OutputRef, Plan, Task, TaskId};
use crate::stages::fields::{Reader, fields};
use crate::stages::{Kind, Reads, Role};

/// A plan of tasks named by their index, each reading those of the given indices.
pub(crate) fn plan(upstream: &[&[usize]]) -> Plan {
    let input = |&task: &usize| Input {
        role: Role::only(task.to_string()),
        from: OutputRef { task: TaskId(task), output: "files".to_owned() },
        labels: None,
        reads: Reads::Everything,
    };
    let table = fields([("path", "here".into())]);
    let (mut problems, mut ports) = (Vec::new(), Vec::new());
    let spec = Kind::parse("download").unwrap().read(&mut Reader::new(&table, &mut problems, &mut ports));
    let task = |(index, of_task): (usize, &&[usize])| Task {
        name: index.to_string(),
        stage: index.to_string(),
        spec: spec.clone(),
        seed: None,
        inputs: of_task.iter().map(input).collect(),
        variants: Vec::new(),
        is_shown: false,
    };
    Plan {
        experiment: "test".to_owned(),
        question: None,
        axes: Vec::new(),
        repeats: Vec::new(),
        tasks: upstream.iter().enumerate().map(task).collect(),
        variants: Vec::new(),
        unshared: upstream.len(),
        unneeded: crate::manifest::Unneeded::default(),
        varied: Vec::new(),
    }
}
