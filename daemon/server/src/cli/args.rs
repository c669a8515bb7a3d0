//! What stands on the command line: every command with its arguments, help and an example.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A messaging daemon that speaks the Kafka protocol and spans data centres.
#[derive(Debug, Parser)]
#[command(name = "tradewind", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// How results are printed.
    #[arg(short, long, value_enum, default_value_t = Format::Table, global = true)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Two data centres of three daemons each on this machine, mirrored; prints what to try.
    #[command(after_help = "Example:\n  tradewind demo\n  tradewind demo --drill")]
    Demo(DemoArgs),
    /// Run one daemon.
    #[command(after_help = "Example:\n  tradewind start --config tradewind.toml --set node.id=2")]
    Start(StartArgs),
    /// Write, check and show configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make a development authority and identities for daemons.
    #[command(subcommand)]
    Cert(CertCommand),
    /// List and change topics.
    #[command(subcommand)]
    Topic(TopicCommand),
    /// List and delete consumer groups.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Write lines of standard input to a topic.
    #[command(after_help = "Example:\n  seq 10 | tradewind produce orders --key-separator :")]
    Produce(ProduceArgs),
    /// Print a topic's records.
    #[command(after_help = "Example:\n  tradewind consume orders --from beginning --exit")]
    Consume(ConsumeArgs),
    /// The cluster as one daemon sees it: daemons, topics, flows, what needs attention.
    #[command(after_help = "Example:\n  tradewind status --url http://127.0.0.1:9644")]
    Status(HttpArgs),
    /// Look at the flows into a cluster.
    #[command(subcommand)]
    Mirror(MirrorCommand),
    /// Cut a flow whose source is lost and hand its topics to the clients of this cluster.
    #[command(after_help = "Example:\n  tradewind failover 'east->west' --accept-loss")]
    Failover(FailoverArgs),
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Lose a region by itself: write, read, kill every daemon of one side, fail over, read the rest; exit 0 if all is well.
    #[arg(long)]
    pub(crate) drill: bool,
    /// The text that the drill writes, a record per line.
    #[arg(long, requires = "drill", value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// How the drill's topics are called in the other region.
    #[arg(long, value_enum, default_value_t = DemoNaming::Prefix)]
    pub(crate) naming: DemoNaming,
    /// Daemons in each region.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=5))]
    pub(crate) daemons: i32,
    /// Keep the folder with data and logs.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// What mirrored topics are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DemoNaming {
    /// `east.orders`.
    Prefix,
    /// `orders`.
    Identity,
}

/// Arguments of `start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// End when standard input closes: for daemons that must not outlive whoever started them.
    #[arg(long, hide = true)]
    pub(crate) exit_with_stdin: bool,
}

/// Where a configuration comes from.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file.
    #[arg(short, long, env = "TRADEWIND_CONFIG", value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Set a key, over file and environment.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// Commands on configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print a commented configuration with every key.
    #[command(after_help = "Example:\n  tradewind config init > tradewind.toml")]
    Init,
    /// Say everything that is wrong with a configuration, with file, line and column.
    #[command(after_help = "Example:\n  tradewind config check --config tradewind.toml")]
    Check(ConfigArgs),
    /// Print the values in force and where each comes from.
    #[command(after_help = "Example:\n  tradewind config show --config tradewind.toml --set node.id=2")]
    Show(ConfigArgs),
}

/// Commands on certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Make an authority: ca.pem and ca.key.
    #[command(after_help = "Example:\n  tradewind cert init --out certs")]
    Init {
        /// The directory to write to.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Make a daemon's identity: ca.pem, node.pem and node.key.
    #[command(
        after_help = "Example:\n  tradewind cert issue --ca certs --cluster east --node 1 --host 10.0.1.1 --out certs/east-1"
    )]
    Issue {
        /// The authority's directory.
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        /// The cluster's name.
        #[arg(long, value_name = "NAME")]
        cluster: String,
        /// The daemon's number.
        #[arg(long, value_name = "ID")]
        node: i32,
        /// A host name or address of the daemon; may be repeated.
        #[arg(long = "host", value_name = "HOST", required = true)]
        hosts: Vec<String>,
        /// The directory to write to.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// Where a Kafka listener is.
#[derive(Debug, Clone, Args)]
pub(crate) struct KafkaArgs {
    /// Kafka addresses, separated by commas.
    #[arg(
        short,
        long,
        env = "TRADEWIND_BOOTSTRAP",
        default_value = "127.0.0.1:9092",
        value_delimiter = ',',
        value_name = "HOST:PORT"
    )]
    pub(crate) bootstrap: Vec<String>,
}

/// Where a daemon's HTTP port is.
#[derive(Debug, Clone, Args)]
pub(crate) struct HttpArgs {
    /// The daemon's HTTP address.
    #[arg(
        long,
        env = "TRADEWIND_URL",
        default_value = "http://127.0.0.1:9644",
        value_name = "URL"
    )]
    pub(crate) url: String,
}

/// Commands on topics.
#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Print all topics.
    #[command(after_help = "Example:\n  tradewind topic list --bootstrap 127.0.0.1:9092")]
    List(#[command(flatten)] KafkaArgs),
    /// Print a topic's partitions and settings.
    #[command(after_help = "Example:\n  tradewind topic describe orders")]
    Describe {
        /// The topic.
        topic: String,
        #[command(flatten)]
        at: KafkaArgs,
    },
    /// Create a topic.
    #[command(
        after_help = "Example:\n  tradewind topic create orders --partitions 6 --set retention.ms=86400000"
    )]
    Create {
        /// The topic.
        topic: String,
        /// How many partitions; the cluster's default if not given.
        #[arg(long, default_value_t = -1)]
        partitions: i32,
        /// On how many daemons each partition lives; the cluster's default if not given.
        #[arg(long, default_value_t = -1)]
        replication_factor: i16,
        /// A setting by Kafka's name.
        #[arg(long = "set", value_name = "NAME=VALUE")]
        set: Vec<String>,
        #[command(flatten)]
        at: KafkaArgs,
    },
    /// Change a topic's settings.
    #[command(
        after_help = "Example:\n  tradewind topic alter orders --set retention.ms=3600000 --unset segment.ms"
    )]
    Alter {
        /// The topic.
        topic: String,
        /// A setting by Kafka's name.
        #[arg(long = "set", value_name = "NAME=VALUE")]
        set: Vec<String>,
        /// A setting to return to its default.
        #[arg(long = "unset", value_name = "NAME")]
        unset: Vec<String>,
        #[command(flatten)]
        at: KafkaArgs,
    },
    /// Delete topics.
    #[command(after_help = "Example:\n  tradewind topic delete orders")]
    Delete {
        /// The topics.
        #[arg(required = true)]
        topics: Vec<String>,
        #[command(flatten)]
        at: KafkaArgs,
    },
    /// Give a topic more partitions.
    #[command(after_help = "Example:\n  tradewind topic add-partitions orders 12")]
    AddPartitions {
        /// The topic.
        topic: String,
        /// How many it has afterwards.
        count: i32,
        #[command(flatten)]
        at: KafkaArgs,
    },
}

/// Commands on consumer groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Print all groups.
    #[command(after_help = "Example:\n  tradewind group list")]
    List(#[command(flatten)] KafkaArgs),
    /// Print a group's members and positions.
    #[command(after_help = "Example:\n  tradewind group describe billing")]
    Describe {
        /// The group.
        group: String,
        #[command(flatten)]
        at: KafkaArgs,
    },
    /// Delete groups that have no members.
    #[command(after_help = "Example:\n  tradewind group delete billing")]
    Delete {
        /// The groups.
        #[arg(required = true)]
        groups: Vec<String>,
        #[command(flatten)]
        at: KafkaArgs,
    },
}

/// Arguments of `produce`.
#[derive(Debug, Args)]
pub(crate) struct ProduceArgs {
    /// The topic.
    pub(crate) topic: String,
    /// What stands between key and value on a line; without it a line is a value.
    #[arg(short = 'K', long, value_name = "TEXT")]
    pub(crate) key_separator: Option<String>,
    /// How batches are compressed.
    #[arg(short = 'z', long, value_enum, default_value_t = Compression::None)]
    pub(crate) compression: Compression,
    /// A header of every record.
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE")]
    pub(crate) headers: Vec<String>,
    #[command(flatten)]
    pub(crate) at: KafkaArgs,
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// Not.
    None,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Arguments of `consume`.
#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    /// The topic.
    pub(crate) topic: String,
    /// Read as a member of this group and commit its positions.
    #[arg(short, long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Where to begin where no position is committed.
    #[arg(long, value_enum, default_value_t = From::Beginning)]
    pub(crate) from: From,
    /// Only this partition (without a group).
    #[arg(short, long)]
    pub(crate) partition: Option<i32>,
    /// Stop after so many records.
    #[arg(short = 'n', long)]
    pub(crate) count: Option<u64>,
    /// Stop at the end of the topic.
    #[arg(short, long)]
    pub(crate) exit: bool,
    /// Print the key before the value, with this between them.
    #[arg(short = 'K', long, value_name = "TEXT")]
    pub(crate) key_separator: Option<String>,
    #[command(flatten)]
    pub(crate) at: KafkaArgs,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    /// The first record that is kept.
    Beginning,
    /// The next record to come.
    End,
}

/// Commands on flows.
#[derive(Debug, Subcommand)]
pub(crate) enum MirrorCommand {
    /// Lag, topics and group positions of every flow into the cluster.
    #[command(after_help = "Example:\n  tradewind mirror status --url http://127.0.0.1:9644 -o json")]
    Status(#[command(flatten)] HttpArgs),
}

/// Arguments of `failover`.
#[derive(Debug, Args)]
pub(crate) struct FailoverArgs {
    /// The flow, as `mirror status` names it: 'east->west'.
    pub(crate) flow: String,
    /// Accept that records which have not arrived here are lost to this side.
    #[arg(long)]
    pub(crate) accept_loss: bool,
    #[command(flatten)]
    pub(crate) at: HttpArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_shows_an_example() {
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        let mut open = vec![cli];
        while let Some(command) = open.pop() {
            let children: Vec<_> = command
                .get_subcommands()
                .filter(|child| child.get_name() != "help")
                .cloned()
                .collect();
            if children.is_empty() {
                let help = command
                    .get_after_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                assert!(
                    help.contains("tradewind "),
                    "{} shows no example",
                    command.get_name()
                );
            }
            open.extend(children);
        }
    }
}
