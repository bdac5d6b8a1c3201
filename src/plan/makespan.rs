//! How long a plan takes with several tasks at once.

use super::graph::{Plan, TaskId};
use super::queue::Queue;

/// What a task takes of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Seconds if it ran alone.
    pub seconds: f64,
    /// Cores that it uses meanwhile.
    pub cores: f64,
}

/// Returns for each task the seconds from its start to the end of the longest chain of tasks that wait for it.
///
/// The task with the longest chain should start first (critical path, Kelley and Walker 1959).
fn chains(plan: &Plan, seconds: &[f64]) -> Vec<f64> {
    let mut longest = seconds.to_vec();
    for index in (0..plan.tasks.len()).rev() {
        for upstream in plan.upstream(TaskId(index)) {
            longest[upstream.0] = longest[upstream.0].max(seconds[upstream.0] + longest[index]);
        }
    }
    longest
}

/// Returns the seconds until the last task ends if `jobs` run at once, the longest chain first (list scheduling, Graham 1969: at
/// most twice the optimum). Tasks that need more than `cores` together share them, and all slow down alike.
pub fn makespan(plan: &Plan, loads: &[Load], jobs: usize, cores: usize) -> f64 {
    let seconds: Vec<f64> = loads.iter().map(|load| load.seconds).collect();
    let mut queue = Queue::ordered(plan, &by_chain(plan, &seconds));
    // Running tasks with the seconds that they have left.
    let (mut running, mut clock): (Vec<(f64, TaskId)>, f64) = (Vec::new(), 0.0);
    loop {
        while running.len() < jobs.max(1)
            && let Some(task) = queue.pop()
        {
            running.push((seconds[task.0], task));
        }
        let next = (0..running.len()).min_by(|&a, &b| running[a].0.total_cmp(&running[b].0));
        let Some(next) = next else { return clock };
        let needed: f64 = running.iter().map(|(_, task)| loads[task.0].cores).sum();
        let (left, finished) = running.swap_remove(next);
        clock += left * (needed / cores.max(1) as f64).max(1.0);
        for (others, _) in &mut running {
            *others -= left;
        }
        queue.finish(finished);
    }
}

/// Returns all tasks by the length of the chain that waits for them, longest first; ties in the plan's order.
pub fn by_chain(plan: &Plan, seconds: &[f64]) -> Vec<TaskId> {
    let chains = chains(plan, seconds);
    let mut order: Vec<TaskId> = (0..plan.tasks.len()).map(TaskId).collect();
    order.sort_by(|a, b| chains[b.0].total_cmp(&chains[a.0]).then(a.cmp(b)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::plan;

    /// 0 -> 2 -> 3 takes 1 + 1 + 5, 1 takes 4, 4 takes 1.
    const UPSTREAM: [&[usize]; 5] = [&[], &[], &[0], &[2], &[]];
    const SECONDS: [f64; 5] = [1.0, 4.0, 1.0, 5.0, 1.0];

    #[test]
    fn the_longest_chain_starts_first() {
        let plan = plan(&UPSTREAM);
        assert_eq!(chains(&plan, &SECONDS), [7.0, 4.0, 6.0, 5.0, 1.0]);
        assert_eq!(by_chain(&plan, &SECONDS), [0, 2, 3, 1, 4].map(TaskId));
    }

    fn assert_takes(cores: f64, expected: [f64; 3]) {
        let loads = SECONDS.map(|seconds| Load { seconds, cores });
        let of_jobs = [1, 2, 8].map(|jobs| makespan(&plan(&UPSTREAM), &loads, jobs, 2));
        let is_close = |(found, expected): (&f64, f64)| (found - expected).abs() < 1e-12;
        assert!(of_jobs.iter().zip(expected).all(is_close), "{of_jobs:?}");
    }

    #[test]
    fn a_makespan_lies_between_the_longest_chain_and_the_sum() {
        assert_takes(0.1, [12.0, 7.0, 7.0]);
        assert!(makespan(&plan(&[]), &[], 2, 2).abs() < 1e-12);
    }

    #[test]
    fn tasks_that_use_every_core_gain_nothing_from_each_other() {
        assert_takes(2.0, [12.0, 12.0, 12.0]);
    }
}
