//! Ctrl-C: the flag that running commands check, and the handler that sets it.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Exit, terminal};

/// Set by Ctrl-C or TERM.
pub(super) static CANCELLED: AtomicBool = AtomicBool::new(false);

/// Whether the user stopped the command.
pub(super) fn is_cancelled() -> bool {
    CANCELLED.load(Ordering::Relaxed)
}

/// Installs the handler of Ctrl-C and TERM: the first signal sets [`CANCELLED`], the second ends the program at once.
/// Neither loses finished work.
pub(super) fn handle_interrupts() {
    let handler = || {
        if CANCELLED.swap(true, Ordering::Relaxed) {
            #[expect(clippy::exit, reason = "the user asked twice; every commit to the cache is atomic")]
            std::process::exit(Exit::Interrupted as i32);
        }
        terminal::message("stopping: finished work is kept (press Ctrl-C again to end at once)");
    };
    // A second handler, in tests that run several commands in one process, is refused and not needed.
    let _ = ctrlc::set_handler(handler);
}
