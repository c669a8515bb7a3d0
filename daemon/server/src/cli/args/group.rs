//! `group`: arguments of every command on consumer groups.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::ClusterArgs;
use crate::cli::moment::{Moment, Span};
use crate::cli::select::PartitionSelection;

/// Commands on consumer groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Print groups.
    #[command(
        after_help = "Example:\n  tradewind group list\n  tradewind group list --state stable,empty --type consumer"
    )]
    List {
        /// Only groups in these states, such as stable, empty, preparing-rebalance.
        #[arg(long, value_delimiter = ',', value_name = "STATE")]
        state: Vec<String>,
        /// Only groups of these types: classic, consumer.
        #[arg(long = "type", value_delimiter = ',', value_name = "TYPE")]
        kind: Vec<String>,
        #[command(flatten)]
        at: ClusterArgs,
    },
    /// Print positions with their lag, members and state of groups.
    #[command(
        after_help = "Example:\n  tradewind group describe billing\n  tradewind group describe --all --state\n  tradewind group describe billing --members --verbose"
    )]
    Describe {
        /// The groups.
        #[arg(required_unless_present = "all")]
        groups: Vec<String>,
        /// All groups.
        #[arg(long, visible_alias = "all-groups", conflicts_with = "groups")]
        all: bool,
        /// Show members instead of positions. JSON has everything always.
        #[arg(long, conflicts_with = "state")]
        members: bool,
        /// Show states instead of positions.
        #[arg(long)]
        state: bool,
        /// Show what each member reads, and leader epochs.
        #[arg(long, short)]
        verbose: bool,
        #[command(flatten)]
        at: ClusterArgs,
    },
    /// Say to which offsets groups would be set; with --execute, set them.
    #[command(
        after_help = "Example:\n  tradewind group reset-offsets billing --topic orders --to-earliest\n  tradewind group reset-offsets billing --topic orders:0,1 --shift-by -100 --execute\n  tradewind group reset-offsets billing --all-topics --to-current --export > offsets.csv\n  tradewind group reset-offsets billing --from-file offsets.csv --execute"
    )]
    ResetOffsets(ResetArgs),
    /// Delete groups that have no members.
    #[command(after_help = "Example:\n  tradewind group delete billing --yes")]
    Delete {
        /// The groups.
        #[arg(required = true)]
        groups: Vec<String>,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        at: ClusterArgs,
    },
    /// Delete what a group has committed for topics that it does not read.
    #[command(after_help = "Example:\n  tradewind group delete-offsets billing --topic orders:0,1")]
    DeleteOffsets {
        /// The group.
        group: String,
        /// A topic, and perhaps only some partitions of it; may be repeated.
        #[arg(long = "topic", value_name = "TOPIC[:PARTITIONS]", required = true)]
        topics: Vec<PartitionSelection>,
        #[command(flatten)]
        at: ClusterArgs,
    },
    /// Make members leave a group.
    #[command(
        after_help = "Example:\n  tradewind group remove-members billing --instance billing-3\n  tradewind group remove-members billing --all"
    )]
    RemoveMembers {
        /// The group.
        group: String,
        /// A member's id; may be repeated.
        #[arg(long = "member", value_name = "ID", required_unless_present_any = ["instances", "all"])]
        members: Vec<String>,
        /// The name of a static member; may be repeated.
        #[arg(long = "instance", value_name = "NAME")]
        instances: Vec<String>,
        /// All members.
        #[arg(long, conflicts_with_all = ["members", "instances"])]
        all: bool,
        /// What they are told.
        #[arg(long, default_value = "removed by an operator")]
        reason: String,
        #[command(flatten)]
        at: ClusterArgs,
    },
}

/// Arguments of `group reset-offsets`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("strategy").required(true)))]
#[command(group(ArgGroup::new("which").required(true)))]
pub(crate) struct ResetArgs {
    /// The groups.
    #[arg(required_unless_present = "all_groups")]
    pub(crate) groups: Vec<String>,
    /// All groups.
    #[arg(long, conflicts_with = "groups")]
    pub(crate) all_groups: bool,
    /// A topic, and perhaps only some partitions of it; may be repeated.
    #[arg(long = "topic", value_name = "TOPIC[:PARTITIONS]", group = "which")]
    pub(crate) topics: Vec<PartitionSelection>,
    /// Every topic that the group has committed something for.
    #[arg(long, group = "which")]
    pub(crate) all_topics: bool,
    /// Go to the first record that is kept.
    #[arg(long, group = "strategy")]
    pub(crate) to_earliest: bool,
    /// Go behind the last record.
    #[arg(long, group = "strategy")]
    pub(crate) to_latest: bool,
    /// Go to where the group is: with --export, to keep it.
    #[arg(long, group = "strategy")]
    pub(crate) to_current: bool,
    /// Go to this offset, or the nearest one that there is.
    #[arg(long, value_name = "OFFSET", group = "strategy")]
    pub(crate) to_offset: Option<i64>,
    /// Go so many records forward, or back if negative.
    #[arg(long, value_name = "RECORDS", group = "strategy", allow_hyphen_values = true)]
    pub(crate) shift_by: Option<i64>,
    /// Go to the first record of this moment or later, such as 2026-11-21T08:00:00.000+01:00; without a zone it is UTC.
    #[arg(long, value_name = "MOMENT", group = "strategy")]
    pub(crate) to_datetime: Option<Moment>,
    /// Go so long back from now, such as 90m or PT1H30M.
    #[arg(long, value_name = "DURATION", group = "strategy")]
    pub(crate) by_duration: Option<Span>,
    /// Go to the offsets of a CSV file: topic,partition,offset for one group, else group,topic,partition,offset.
    #[arg(long, value_name = "FILE", groups = ["strategy", "which"])]
    pub(crate) from_file: Option<PathBuf>,
    /// Set the offsets.
    #[arg(long)]
    pub(crate) execute: bool,
    /// Only say what would be done, which is the default.
    #[arg(long, conflicts_with = "execute")]
    pub(crate) dry_run: bool,
    /// Print the offsets as CSV that --from-file reads.
    #[arg(long, conflicts_with_all = ["execute", "dry_run"])]
    pub(crate) export: bool,
    #[command(flatten)]
    pub(crate) at: ClusterArgs,
}
