//! `config ...`: the daemon's configuration file, and what is set in a cluster.

mod file;
mod settings;

use super::args::ConfigCommand;
use super::kafka::with_cluster;
use super::{Failure, Output};

/// Runs a command on configuration; a wrong file is exit code 2, as it is for `start`.
pub(super) fn run(command: ConfigCommand, output: Output) -> Result<u8, Failure> {
    match command {
        ConfigCommand::Init => file::init(output),
        ConfigCommand::Check(args) => file::check(&args, output),
        ConfigCommand::Show(args) => file::show(&args, output),
        ConfigCommand::List(at) => with_cluster(&at, |client| settings::list(client, output)),
        ConfigCommand::Describe { of, all, keys, at } => {
            with_cluster(&at, |client| settings::describe(client, of, all, keys, output))
        }
        ConfigCommand::Alter {
            of,
            changes,
            validate_only,
            at,
        } => {
            let changes = settings::changes(&changes)?;
            with_cluster(&at, |client| {
                settings::alter(client, of, changes, validate_only, output)
            })
        }
    }
}
