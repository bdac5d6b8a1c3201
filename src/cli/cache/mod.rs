//! `patchflow cache`: what takes the space, what can go, and whether all is sound.

mod gc;
mod info;
mod pin;
mod share;
mod verify;

use clap::{Args, Subcommand};

use super::error::CliError;
use super::{Environment, Exit};

/// Arguments of `cache`.
#[derive(Args)]
pub(super) struct CacheArguments {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Subcommand)]
enum CacheCommand {
    /// Show what takes the space, by kind of stage and by experiment.
    Info(info::InfoArguments),
    /// Remove what nothing refers to and, with `--max-size`, what is cheapest to make again. Results stay
    /// cached: what was evicted is made again only where another stage reads it.
    Gc(gc::GcArguments),
    /// Hash every object, listing and record again; put what is damaged aside. Exit code 3 if any was.
    Verify(verify::VerifyArguments),
    /// Keep `gc` from the outputs of a manifest's tasks.
    Pin(pin::PinArguments),
    /// Take a pin away.
    Unpin(pin::UnpinArguments),
    /// Put results into the remote that are not there: of a manifest's tasks, or all.
    Push(share::ShareArguments),
    /// Take results from the remote with their files: of a manifest's tasks, or all.
    Pull(share::ShareArguments),
}

/// Looks after the cache.
pub(super) fn run(arguments: &CacheArguments, environment: &Environment) -> Result<Exit, CliError> {
    match &arguments.command {
        CacheCommand::Info(info) => info::run(info, environment),
        CacheCommand::Gc(gc) => gc::run(gc, environment),
        CacheCommand::Verify(verify) => verify::run(verify, environment),
        CacheCommand::Pin(pin) => pin::pin(pin, environment),
        CacheCommand::Unpin(unpin) => pin::unpin(unpin, environment),
        CacheCommand::Push(share) => share::push(share, environment),
        CacheCommand::Pull(share) => share::pull(share, environment),
    }
}
