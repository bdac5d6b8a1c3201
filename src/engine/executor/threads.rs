//! Runs units on threads of this process.

use std::sync::mpsc::Sender;
use std::thread::Scope;

use super::{Execution, Executor, RunContext, Unit, UnitEnd, send};
use crate::cache::Lease;

/// Runs each unit on a thread of its own; how many run at once is the scheduler's decision.
pub(in crate::engine) struct Threads<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    context: &'env RunContext<'env>,
    ends: Sender<UnitEnd>,
}

impl<'scope, 'env> Threads<'scope, 'env> {
    /// Starts threads in `scope`; the ends of units are sent to `ends`.
    pub(in crate::engine) fn new(
        scope: &'scope Scope<'scope, 'env>,
        context: &'env RunContext<'env>,
        ends: Sender<UnitEnd>,
    ) -> Self {
        Self { scope, context, ends }
    }
}

impl Executor for Threads<'_, '_> {
    fn start(&self, unit: Unit, lease: Lease) {
        let (context, ends) = (self.context, self.ends.clone());
        self.scope.spawn(move || {
            let executed = Execution::new(&unit, context).run();
            // Given back before the end is sent, so that an equal task of another process need not wait.
            drop(lease);
            send(&ends, unit.task, executed);
        });
    }
}
