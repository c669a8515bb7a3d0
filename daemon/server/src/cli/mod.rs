//! The command line: what can be asked for, and the way to whoever does it.
//!
//! Data go to standard output, everything else to standard error. Exit codes: 0 good, 1 unhealthy or failed, 2 usage or
//! configuration.

mod args;
mod cert;
mod cluster;
mod config;
mod consume;
mod drill;
mod failback;
mod flows;
mod group;
mod guard;
mod http;
pub(crate) mod kafka;
mod mirror;
mod mm2;
mod moment;
mod moves;
mod outcome;
mod output;
mod page;
mod plan;
pub(crate) mod produce;
mod select;
mod switchover;
mod topic;
mod verify;

use std::process::ExitCode;

use clap::Parser;
use tradewind_client::ClientError;

use args::{Cli, Command, StartArgs};
pub(crate) use args::{DemoArgs, DemoNaming};
pub(crate) use output::Output;

use crate::boot::{self, BootError};
use crate::config::Overrides;
use crate::logging;

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    // Clap answers wrong usage by itself, with exit code 2.
    let cli = Cli::parse();
    let output = Output::new(cli.output);
    match run(cli.command, output) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn run(command: Command, output: Output) -> Result<u8, Failure> {
    match command {
        Command::Demo(args) => crate::demo::run(&args),
        Command::Start(args) => start(&args),
        Command::Config(command) => config::run(command, output),
        Command::Cert(command) => cert::run(command),
        Command::Topic(command) => topic::run(command, output),
        Command::Group(command) => group::run(command, output),
        Command::Cluster(command) => cluster::run(command, output),
        Command::Produce(args) => produce::run(&args),
        Command::Consume(args) => consume::run(&args, output),
        Command::Status(at) => http::status(&at, output),
        Command::Mirror(command) => mirror::run(command, output),
        Command::Failover(args) => http::failover(&args, output),
        Command::Switchover(args) => switchover::run(&args, output),
        Command::Failback(args) => failback::run(&args, output),
        Command::Drill(args) => drill::run(&args, output),
    }
}

fn start(args: &StartArgs) -> Result<u8, Failure> {
    let overrides = Overrides::of_process(args.config.set.clone());
    let loaded = crate::config::load(&args.config.config, &overrides);
    let settings = loaded
        .map_err(|problems| Failure::Usage(problems.to_string()))?
        .settings;
    logging::install();
    logging::abort_on_panic();
    boot::run(settings, args.exit_with_stdin).map_err(|error| match error {
        BootError::Unusable(message) => Failure::Usage(message),
        BootError::Failed(message) => Failure::Failed(anyhow::anyhow!(message)),
    })?;
    Ok(0)
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Wrong usage or configuration: nothing was begun. Exit code 2.
    Usage(String),
    /// It was tried and failed. Exit code 1.
    Failed(anyhow::Error),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usage(message) => f.write_str(message),
            Self::Failed(error) => {
                write!(f, "tradewind: {error:#}")?;
                match error.downcast_ref() {
                    Some(ClientError::Unsupported { .. }) => {
                        f.write_str(" (`tradewind cluster api-versions` shows what the cluster offers)")
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}
