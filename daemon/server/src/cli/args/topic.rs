//! `topic`: arguments of every command on topics.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::ClusterArgs;
use crate::cli::moment::At;
use crate::cli::select::{PartitionSelection, RecordPosition, TopicSelection};

/// Commands on topics.
#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Print topics.
    #[command(
        after_help = "Example:\n  tradewind topic list --bootstrap 127.0.0.1:9092\n  tradewind topic list 'orders.*' --under-replicated"
    )]
    List {
        /// Topics, by name or by a regular expression of the whole name; all if there are none.
        topics: Vec<TopicSelection>,
        #[command(flatten)]
        filter: TopicFilter,
        #[command(flatten)]
        at: ClusterArgs,
    },
    /// Print partitions, leaders, replicas and what is set on topics.
    #[command(
        after_help = "Example:\n  tradewind topic describe orders\n  tradewind topic describe --under-min-isr"
    )]
    Describe {
        /// Topics, by name or by a regular expression of the whole name; all if there are none.
        topics: Vec<TopicSelection>,
        #[command(flatten)]
        filter: TopicFilter,
        #[command(flatten)]
        at: ClusterArgs,
    },
    /// Create topics.
    #[command(
        after_help = "Example:\n  tradewind topic create orders --partitions 6 --set retention.ms=86400000\n  tradewind topic create orders --assignment 1:2,2:3,3:1 --validate-only"
    )]
    Create(CreateArgs),
    /// Give a topic more partitions, or change its settings.
    #[command(
        after_help = "Example:\n  tradewind topic alter orders --partitions 12\n  tradewind topic alter orders --set retention.ms=3600000 --unset segment.ms"
    )]
    Alter(AlterArgs),
    /// Give a topic more partitions.
    #[command(after_help = "Example:\n  tradewind topic add-partitions orders 12")]
    AddPartitions {
        /// The topic.
        topic: String,
        /// How many it has afterwards.
        count: i32,
        #[command(flatten)]
        at: ClusterArgs,
    },
    /// Delete topics with all their records.
    #[command(
        after_help = "Example:\n  tradewind topic delete orders\n  tradewind topic delete 'test-.*' --yes"
    )]
    Delete {
        /// Topics, by name or by a regular expression of the whole name.
        #[arg(required = true)]
        topics: Vec<TopicSelection>,
        /// Do not complain about a topic that does not exist.
        #[arg(long)]
        if_exists: bool,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        at: ClusterArgs,
    },
    /// Print where partitions begin or end, or their offset at a moment.
    #[command(
        after_help = "Example:\n  tradewind topic offsets orders\n  tradewind topic offsets orders:0,2-4 --at 2026-11-21T08:00:00Z\n  tradewind topic offsets 'orders.*' --at earliest"
    )]
    Offsets {
        /// Topics, by name or by a regular expression of the whole name, and perhaps only some partitions of them; all
        /// topics if there are none.
        #[arg(value_name = "TOPIC[:PARTITIONS]")]
        partitions: Vec<PartitionSelection>,
        /// earliest, latest, max-timestamp, earliest-local, latest-tiered, milliseconds since 1970, or a moment such as
        /// 2026-11-21T08:00:00Z: the first record of then or later.
        #[arg(
            long = "at",
            visible_alias = "time",
            default_value = "latest",
            value_name = "WHEN",
            allow_hyphen_values = true
        )]
        at_time: At,
        /// Leave out the cluster's own topics.
        #[arg(long)]
        exclude_internal: bool,
        #[command(flatten)]
        at: ClusterArgs,
    },
    /// Delete the records below an offset.
    #[command(
        after_help = "Example:\n  tradewind topic delete-records orders:0:1000 orders:1:-1\n  tradewind topic delete-records --file offsets.json --yes\n\nThe file is that of kafka-delete-records:\n  {\"partitions\": [{\"topic\": \"orders\", \"partition\": 0, \"offset\": 1000}], \"version\": 1}"
    )]
    DeleteRecords {
        /// The first offset to keep of a partition; -1 deletes everything.
        #[arg(value_name = "TOPIC:PARTITION:OFFSET", required_unless_present = "file")]
        offsets: Vec<RecordPosition>,
        /// Read them from a JSON file.
        #[arg(long, visible_alias = "offset-json-file", value_name = "FILE")]
        file: Option<PathBuf>,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        at: ClusterArgs,
    },
    /// Move replicas to other brokers.
    #[command(subcommand)]
    Reassign(ReassignCommand),
    /// Give partitions back to their preferred leaders, or to any replica that is left.
    #[command(
        after_help = "Example:\n  tradewind topic elect-leaders\n  tradewind topic elect-leaders orders:0 --unclean --yes"
    )]
    ElectLeaders {
        /// Which partitions; all if there are none.
        #[arg(value_name = "TOPIC[:PARTITIONS]")]
        partitions: Vec<PartitionSelection>,
        /// Elect a replica that lacks records if no other is there: those records are lost.
        #[arg(long, requires = "partitions")]
        unclean: bool,
        /// Do not ask before an unclean election.
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        at: ClusterArgs,
    },
}

/// Which topics and partitions to show.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TopicFilter {
    /// Only the cluster's own topics.
    #[arg(long, conflicts_with = "exclude_internal")]
    pub(crate) internal: bool,
    /// Leave out the cluster's own topics.
    #[arg(long)]
    pub(crate) exclude_internal: bool,
    /// Only partitions with a replica out of sync.
    #[arg(long, visible_alias = "under-replicated-partitions")]
    pub(crate) under_replicated: bool,
    /// Only partitions without a leader that is there.
    #[arg(long, visible_alias = "unavailable-partitions")]
    pub(crate) unavailable: bool,
    /// Only partitions with fewer replicas in sync than min.insync.replicas.
    #[arg(long, visible_alias = "under-min-isr-partitions")]
    pub(crate) under_min_isr: bool,
    /// Only partitions with exactly min.insync.replicas in sync: one less and they refuse acks=all.
    #[arg(long, visible_alias = "at-min-isr-partitions")]
    pub(crate) at_min_isr: bool,
}

/// Arguments of `topic create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The topics.
    #[arg(required = true)]
    pub(crate) topics: Vec<String>,
    /// How many partitions; the cluster's default if not given.
    #[arg(long, short, value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) partitions: Option<i32>,
    /// On how many daemons each partition lives; the cluster's default if not given.
    #[arg(long, short, value_parser = clap::value_parser!(i16).range(1..))]
    pub(crate) replication_factor: Option<i16>,
    /// The brokers of each partition, the preferred leader first: 1:2,2:3 are two partitions with two replicas each.
    #[arg(
        long,
        visible_alias = "replica-assignment",
        value_name = "ID:ID,...",
        value_delimiter = ',',
        value_parser = super::broker_list,
        conflicts_with_all = ["partitions", "replication_factor"]
    )]
    pub(crate) assignment: Vec<super::BrokerList>,
    /// A setting by Kafka's name.
    #[arg(long = "set", visible_alias = "config", value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// Do nothing about a topic that is there already.
    #[arg(long)]
    pub(crate) if_not_exists: bool,
    /// Let the cluster check it only.
    #[arg(long, visible_alias = "dry-run")]
    pub(crate) validate_only: bool,
    #[command(flatten)]
    pub(crate) at: ClusterArgs,
}

/// Arguments of `topic alter`.
#[derive(Debug, Args)]
pub(crate) struct AlterArgs {
    /// The topic.
    pub(crate) topic: String,
    /// How many partitions it has afterwards.
    #[arg(long, short, value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) partitions: Option<i32>,
    /// The brokers of each new partition, the preferred leader first: 1:2,2:3 for two new ones.
    #[arg(
        long,
        visible_alias = "replica-assignment",
        value_name = "ID:ID,...",
        value_delimiter = ',',
        value_parser = super::broker_list,
        requires = "partitions"
    )]
    pub(crate) assignment: Vec<super::BrokerList>,
    /// A setting by Kafka's name.
    #[arg(long = "set", visible_alias = "add", value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// A setting to return to its default.
    #[arg(long = "unset", visible_alias = "delete", value_name = "NAME")]
    pub(crate) unset: Vec<String>,
    /// Let the cluster check it only.
    #[arg(long, visible_alias = "dry-run")]
    pub(crate) validate_only: bool,
    #[command(flatten)]
    pub(crate) at: ClusterArgs,
}

/// Commands on moves of replicas.
#[derive(Debug, Subcommand)]
pub(crate) enum ReassignCommand {
    /// Print a plan that spreads topics evenly over brokers and moves little; nothing is changed.
    #[command(
        after_help = "Example:\n  tradewind topic reassign plan 'orders.*' --brokers 1,2,3,4 > plan.json\n  tradewind topic reassign apply plan.json --execute"
    )]
    Plan {
        /// Topics, by name or by a regular expression of the whole name.
        #[arg(required = true)]
        topics: Vec<TopicSelection>,
        /// The brokers to spread them over; all that are there if not given.
        #[arg(long, value_delimiter = ',', value_name = "ID,...")]
        brokers: Vec<i32>,
        /// How many replicas each partition shall have; as many as it has if not given.
        #[arg(long, value_parser = clap::value_parser!(i16).range(1..))]
        replication_factor: Option<i16>,
        /// What is printed: the plan as kafka-reassign-partitions reads it, or a table of the moves.
        #[arg(long, value_enum, default_value_t = PlanFormat::Kafka)]
        print: PlanFormat,
        #[command(flatten)]
        at: ClusterArgs,
    },
    /// Show what a plan would move; with --execute, begin to move it.
    #[command(after_help = "Example:\n  tradewind topic reassign apply plan.json --execute")]
    Apply {
        /// The plan: {"version": 1, "partitions": [{"topic": "orders", "partition": 0, "replicas": [1, 2]}]}
        #[arg(value_name = "FILE")]
        plan: PathBuf,
        /// Do it.
        #[arg(long)]
        execute: bool,
        #[command(flatten)]
        at: ClusterArgs,
    },
    /// Print the moves that are not done.
    #[command(after_help = "Example:\n  tradewind topic reassign list")]
    List(#[command(flatten)] ClusterArgs),
    /// Say of each partition of a plan whether it is where it shall be; exit code 1 if one is not.
    #[command(after_help = "Example:\n  tradewind topic reassign verify plan.json")]
    Verify {
        /// The plan.
        #[arg(value_name = "FILE")]
        plan: PathBuf,
        #[command(flatten)]
        at: ClusterArgs,
    },
    /// Take moves back that are not done.
    #[command(
        after_help = "Example:\n  tradewind topic reassign cancel orders:0,1\n  tradewind topic reassign cancel --all"
    )]
    Cancel {
        /// Which partitions.
        #[arg(value_name = "TOPIC[:PARTITIONS]", required_unless_present = "all")]
        partitions: Vec<PartitionSelection>,
        /// All that are not done.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        at: ClusterArgs,
    },
}

/// How a plan is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanFormat {
    /// JSON that `apply`, `verify` and kafka-reassign-partitions read.
    Kafka,
    /// The partitions that move, from where to where.
    Moves,
}
