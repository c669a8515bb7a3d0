//! `cluster`: arguments of commands on brokers.

use clap::Subcommand;

use super::ClusterArgs;
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
}
