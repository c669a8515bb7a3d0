//! `cluster`: arguments of commands on brokers.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{ClusterArgs, HttpArgs, positive_duration};
use crate::cli::select::TopicSelection;

/// Commands on a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Print the brokers and which of them is the controller.
    #[command(after_help = "Example:\n  tradewind cluster brokers --bootstrap 127.0.0.1:9092")]
    Brokers(#[command(flatten)] ClusterArgs),
    /// Print the APIs that each broker offers, in which versions, and which of them this program uses.
    #[command(after_help = "Example:\n  tradewind cluster api-versions --broker 1")]
    ApiVersions {
        /// Only this broker; may be repeated.
        #[arg(long = "broker", value_name = "ID")]
        brokers: Vec<i32>,
        #[command(flatten)]
        at: ClusterArgs,
    },
    /// Print how much is stored where.
    #[command(
        after_help = "Example:\n  tradewind cluster log-dirs\n  tradewind cluster log-dirs --broker 1 --partitions --topic 'orders.*'"
    )]
    LogDirs {
        /// Only this broker; may be repeated.
        #[arg(long = "broker", value_name = "ID")]
        brokers: Vec<i32>,
        /// Only these topics, by name or by a regular expression of the whole name; may be repeated.
        #[arg(long = "topic", value_name = "TOPIC")]
        topics: Vec<TopicSelection>,
        /// A line per partition instead of one per directory. JSON has both.
        #[arg(long)]
        partitions: bool,
        #[command(flatten)]
        at: ClusterArgs,
    },
    /// Print who holds the cluster's metadata, and how far each is.
    #[command(after_help = "Example:\n  tradewind cluster quorum")]
    Quorum(#[command(flatten)] ClusterArgs),
    /// Print every daemon with its state, what it leads and holds, and what moves; exit code 1 unless all is well.
    #[command(
        after_help = "NEEDED counts the partitions that would refuse acks=all, or have no leader, if that daemon stopped now.\n\nExamples:\n  tradewind cluster status\n  tradewind cluster status --wait 5m"
    )]
    Status(StatusArgs),
    /// Let a daemon hand over what it leads, so that it can be stopped; it stays so until `undrain`.
    #[command(
        after_help = "Refused if partitions cannot do without the daemon, before anything changes.\nExit code 0 when it can be stopped without harm.\n\nExamples:\n  tradewind cluster drain 2\n  tradewind cluster drain 2 --replicas"
    )]
    Drain(DrainArgs),
    /// Put a drained daemon back into service.
    #[command(after_help = "Example:\n  tradewind cluster undrain 2")]
    Undrain {
        /// The daemon's id.
        daemon: i32,
        #[command(flatten)]
        at: HttpArgs,
    },
    /// Make a running daemon with an empty data directory a member, and wait until it is in service.
    #[command(
        after_help = "Refused, before anything changes, unless the daemon answers at that address and belongs to no cluster.\n\nExamples:\n  tradewind cluster add 4 --mesh 10.0.1.4:7100\n  tradewind cluster add 3 --mesh 10.0.1.3:7100 --replace"
    )]
    Add(AddArgs),
    /// Forget a daemon that has been stopped and holds no replicas.
    #[command(
        after_help = "Refused, before anything changes, while the daemon is in service or holds replicas.\n\nExample:\n  tradewind cluster drain 1 --replicas\n  (stop daemon 1)\n  tradewind cluster remove 1"
    )]
    Remove(RemoveArgs),
    /// Show the moves that spread all replicas and leaders evenly over daemons and racks; with --execute, make them.
    #[command(
        after_help = "Drained daemons get nothing. Moves few replicas; ending the command ends nothing that was begun.\n\nExamples:\n  tradewind cluster rebalance\n  tradewind cluster rebalance --execute\n  tradewind cluster rebalance --without 4 --execute"
    )]
    Rebalance(RebalanceArgs),
}

/// Arguments of `cluster status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Wait until all is well, for so long at most.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    pub(crate) wait: Option<Duration>,
    #[command(flatten)]
    pub(crate) at: HttpArgs,
}

/// Arguments of `cluster drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The daemon's id.
    pub(crate) daemon: i32,
    /// Move its replicas to other daemons, too, and wait until that is done.
    #[arg(long)]
    pub(crate) replicas: bool,
    /// Even if partitions cannot do without it.
    #[arg(long)]
    pub(crate) force: bool,
    /// With --replicas: how many partitions move at a time.
    #[arg(long, default_value_t = 10, value_name = "COUNT")]
    pub(crate) parallel: usize,
    /// How long to wait until it leads nothing.
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = positive_duration)]
    pub(crate) wait: Duration,
    #[command(flatten)]
    pub(crate) at: HttpArgs,
}

/// Arguments of `cluster add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The daemon's id.
    pub(crate) daemon: i32,
    /// Where its mesh listens.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) mesh: String,
    /// It takes the place of the dead daemon with this id, whose data directory is lost for good.
    #[arg(long)]
    pub(crate) replace: bool,
    /// How long to wait until it is in service.
    #[arg(long, default_value = "1m", value_name = "DURATION", value_parser = positive_duration)]
    pub(crate) wait: Duration,
    #[command(flatten)]
    pub(crate) at: HttpArgs,
}

/// Arguments of `cluster remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The daemon's id.
    pub(crate) daemon: i32,
    /// How long to wait for a daemon that is stopping.
    #[arg(long, default_value = "15s", value_name = "DURATION", value_parser = positive_duration)]
    pub(crate) wait: Duration,
    #[command(flatten)]
    pub(crate) at: HttpArgs,
}

/// Arguments of `cluster rebalance`.
#[derive(Debug, Args)]
pub(crate) struct RebalanceArgs {
    /// Do it.
    #[arg(long)]
    pub(crate) execute: bool,
    /// Leave nothing on this daemon; may be repeated.
    #[arg(long, value_name = "ID")]
    pub(crate) without: Vec<i32>,
    /// How many partitions move at a time.
    #[arg(long, default_value_t = 10, value_name = "COUNT")]
    pub(crate) parallel: usize,
    #[command(flatten)]
    pub(crate) at: HttpArgs,
}
