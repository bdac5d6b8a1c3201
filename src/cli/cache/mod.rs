//! `patchflow cache`: the space in use, collection, verification, pins, and the remote.

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
    /// Show the space in use, by kind of stage and by experiment.
    Info(info::InfoArguments),
    /// Remove what nothing refers to and, with `--max-size`, what is cheapest to make again. Results stay
    /// cached: an evicted object is made again only when another stage reads it.
    Gc(gc::GcArguments),
    /// Hash every object, tree and record again, and move damaged ones aside. Exit code 3 if there were any.
    Verify(verify::VerifyArguments),
    /// Protect the outputs of a manifest's tasks from `gc`.
    Pin(pin::PinArguments),
    /// Remove a pin.
    Unpin(pin::UnpinArguments),
    /// Copy results to the remote that it lacks: those of a manifest's tasks, or all.
    Push(share::PushArguments),
    /// Copy results with their files from the remote: those of a manifest's tasks, or all.
    Pull(share::ShareArguments),
}

/// Runs a command of the cache.
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
