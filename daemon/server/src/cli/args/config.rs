//! `config`: arguments of commands on the daemon's file and on what is set in a cluster.

use clap::{Args, Subcommand};

use super::{ClusterArgs, ConfigArgs};

/// Commands on configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print a commented configuration file with every key.
    #[command(after_help = "Example:\n  tradewind config init > tradewind.toml")]
    Init,
    /// Say everything that is wrong with a configuration file, with file, line and column.
    #[command(after_help = "Example:\n  tradewind config check --config tradewind.toml")]
    Check(ConfigArgs),
    /// Print the values of a configuration file that are in force and where each comes from.
    #[command(after_help = "Example:\n  tradewind config show --config tradewind.toml --set node.id=2")]
    Show(ConfigArgs),
    /// Print what in a cluster has settings of its own.
    #[command(after_help = "Example:\n  tradewind config list --bootstrap 127.0.0.1:9092")]
    List(#[command(flatten)] ClusterArgs),
    /// Print what is set in a cluster: on topics, brokers or groups.
    #[command(
        after_help = "Example:\n  tradewind config describe --topic orders\n  tradewind config describe --broker 1 --all\n  tradewind config describe --topic orders --all --key retention.ms"
    )]
    Describe {
        #[command(flatten)]
        of: ResourceArgs,
        /// Show defaults as well, and where each value comes from.
        #[arg(long)]
        all: bool,
        /// Only this setting; may be repeated.
        #[arg(long = "key", value_name = "NAME")]
        keys: Vec<String>,
        #[command(flatten)]
        at: ClusterArgs,
    },
    /// Change settings in a cluster; those that are not named stay as they are.
    #[command(
        after_help = "Example:\n  tradewind config alter --topic orders --set retention.ms=3600000 --unset segment.ms\n  tradewind config alter --broker-defaults --set log.retention.ms=86400000 --validate-only"
    )]
    Alter {
        #[command(flatten)]
        of: ResourceArgs,
        #[command(flatten)]
        changes: ChangeArgs,
        /// Let the cluster check it only.
        #[arg(long, visible_alias = "dry-run")]
        validate_only: bool,
        #[command(flatten)]
        at: ClusterArgs,
    },
}

/// Whose settings: at least one.
#[derive(Debug, Clone, Default, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct ResourceArgs {
    /// A topic; may be repeated.
    #[arg(long = "topic", value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,
    /// A broker; may be repeated.
    #[arg(long = "broker", value_name = "ID")]
    pub(crate) brokers: Vec<i32>,
    /// All brokers, where they have no value of their own.
    #[arg(long)]
    pub(crate) broker_defaults: bool,
    /// A broker's log levels; may be repeated.
    #[arg(long = "broker-logger", value_name = "ID")]
    pub(crate) broker_loggers: Vec<i32>,
    /// A group; may be repeated.
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) groups: Vec<String>,
    /// A subscription to metrics of clients; may be repeated.
    #[arg(long = "client-metrics", value_name = "NAME")]
    pub(crate) client_metrics: Vec<String>,
}

/// What to change: at least one thing.
#[derive(Debug, Clone, Default, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct ChangeArgs {
    /// Set it; may be repeated.
    #[arg(long = "set", visible_alias = "add", value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// Return it to its default; may be repeated.
    #[arg(long = "unset", visible_alias = "delete", value_name = "NAME")]
    pub(crate) unset: Vec<String>,
    /// Add elements to a list; may be repeated.
    #[arg(long = "append", value_name = "NAME=VALUE")]
    pub(crate) append: Vec<String>,
    /// Take elements off a list; may be repeated.
    #[arg(long = "subtract", value_name = "NAME=VALUE")]
    pub(crate) subtract: Vec<String>,
}
