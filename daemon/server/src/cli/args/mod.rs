//! What stands on the command line: every command with its arguments, help and an example.

mod cluster;
mod config;
#[cfg(test)]
mod docs;
mod group;
mod topic;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use cluster::{AddArgs, ClusterCommand, DrainArgs, RebalanceArgs, RemoveArgs, StatusArgs};
pub(crate) use config::{ChangeArgs, ConfigCommand, ResourceArgs};
pub(crate) use group::{GroupCommand, ResetArgs};
pub(crate) use topic::{AlterArgs, CreateArgs, PlanFormat, ReassignCommand, TopicCommand, TopicFilter};

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
    /// The daemon's configuration file, and what is set in a cluster.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make a development authority and identities for daemons.
    #[command(subcommand)]
    Cert(CertCommand),
    /// List and change topics.
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Look at consumer groups, move their positions, delete them.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Look at brokers.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Write lines of standard input to a topic.
    #[command(after_help = "Example:\n  seq 10 | tradewind produce orders --key-separator :")]
    Produce(ProduceArgs),
    /// Print a topic's records.
    #[command(after_help = "Example:\n  tradewind consume orders --from beginning --exit")]
    Consume(ConsumeArgs),
    /// The cluster as one daemon sees it: daemons, topics, flows, what needs attention.
    #[command(after_help = "Example:\n  tradewind status --url http://127.0.0.1:9644")]
    Status(HttpArgs),
    /// Look at the flows into a cluster, pause and resume them, compare them with their sources.
    #[command(subcommand)]
    Mirror(MirrorCommand),
    /// Cut a flow whose source is lost and hand its topics to the clients of this cluster.
    #[command(after_help = "Example:\n  tradewind failover 'east->west' --accept-loss")]
    Failover(FailoverArgs),
    /// Move a region here without loss: the source stops writing, everything arrives, clients go on here, and the flow
    /// turns round. Asked of a daemon of the target; repeating it goes on where it stood.
    #[command(
        after_help = "Example:\n  tradewind switchover 'east->west' --url http://west-1:9644\n  tradewind switchover 'east->west' --abort"
    )]
    Switchover(SwitchoverArgs),
    /// Bring the lost source of a failed-over flow back as a mirror: what never arrived here is kept at the source in topics
    /// of its own, then its logs are cut and it copies from here. Asked of a daemon of the side that took over; repeating it
    /// goes on where it stood.
    #[command(after_help = "Example:\n  tradewind failback 'east->west' --url http://west-1:9644")]
    Failback(FailbackArgs),
    /// Rehearse a failover of a flow while it goes on: each leader makes a branch of its log, promotes the branch, writes to
    /// it, looks up what each group would read next, and drops it. Nobody else sees it. Exit code 1 if anything was not as
    /// it should be.
    #[command(
        after_help = "Example:\n  tradewind drill 'east->west' --html drill.html --url http://west-1:9644"
    )]
    Drill(DrillArgs),
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
    #[arg(
        short,
        long,
        env = "TRADEWIND_CONFIG",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) config: PathBuf,
    /// Set a key, over file and environment.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
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
        visible_alias = "bootstrap-server",
        env = "TRADEWIND_BOOTSTRAP",
        hide_env_values = true,
        default_value = "127.0.0.1:9092",
        value_delimiter = ',',
        value_name = "HOST:PORT"
    )]
    pub(crate) bootstrap: Vec<String>,
}

/// Which cluster, and how long it may take to answer.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClusterArgs {
    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    /// How long the command may take in all, not counting questions to you.
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = positive_duration)]
    pub(crate) timeout: Duration,
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("it must be longer than nothing".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write it like 30s or 2m")),
    }
}

/// The brokers of one partition, the preferred leader first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokerList(pub(crate) Vec<i32>);

fn broker_list(text: &str) -> Result<BrokerList, String> {
    let brokers: Result<Vec<i32>, _> = text.split(':').map(str::parse).collect();
    match brokers {
        Ok(brokers) if brokers.iter().all(|id| *id >= 0) => Ok(BrokerList(brokers)),
        _ => Err("write the ids of brokers, such as 1:2 for one partition on two brokers".to_owned()),
    }
}

/// Where a daemon's HTTP port is.
#[derive(Debug, Clone, Args)]
pub(crate) struct HttpArgs {
    /// The daemon's HTTP address.
    #[arg(
        long,
        env = "TRADEWIND_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:9644",
        value_name = "URL"
    )]
    pub(crate) url: String,
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
    /// What the flows of a configuration file would change against what the cluster has declared; exit 1 if something stands
    /// in the way. Looks at every source, changes nothing.
    #[command(
        after_help = "Example:\n  tradewind mirror plan --file /etc/tradewind/tradewind.toml\n  tradewind mirror plan --mm2 mm2.properties --into backup"
    )]
    Plan(FlowsArgs),
    /// Declare the flows of a configuration file, or change them to what it says; flows that it does not name stay as they are.
    #[command(
        after_help = "Example:\n  tradewind mirror plan --file new.toml && tradewind mirror apply --file new.toml"
    )]
    Apply(ApplyArgs),
    /// Remove a flow. Its mirror topics stay as they are, read-only; applied again, it goes on where they stand.
    #[command(after_help = "Example:\n  tradewind mirror remove 'east->west'")]
    Remove(RemoveFlowArgs),
    /// Have a flow, or one topic of it, stand still: no record is copied, no group position is moved.
    #[command(
        after_help = "Example:\n  tradewind mirror pause 'east->west' --reason 'link maintenance'\n  tradewind mirror pause 'east->west' --topic orders"
    )]
    Pause(PauseArgs),
    /// Let a flow, or one topic of it, go on where it stood.
    #[command(
        after_help = "Example:\n  tradewind mirror resume 'east->west'\n  tradewind mirror resume 'east->west' --topic orders"
    )]
    Resume(ResumeArgs),
    /// Compare what is here with what is at the source, batch by batch, while the flow runs; exit 0 if it is the same.
    #[command(
        after_help = "Example:\n  tradewind mirror verify 'east->west'\n  tradewind mirror verify 'east->west' --topic orders --rate 16 -o json"
    )]
    Verify(VerifyArgs),
    /// What clients may not write since a daemon started, until another cluster has said that it did not take it over.
    #[command(after_help = "Example:\n  tradewind mirror guard --url http://127.0.0.1:9644 -o json")]
    Guard(#[command(flatten)] HttpArgs),
    /// Let clients write what the guard holds, without the word of the other cluster. Recorded.
    #[command(
        after_help = "Example:\n  tradewind mirror unguard --accept-two-sides --reason 'west is gone for good'"
    )]
    Unguard(UnguardArgs),
}

/// Arguments of `mirror unguard`.
#[derive(Debug, Args)]
pub(crate) struct UnguardArgs {
    /// That the other cluster may have taken these topics over, and then two sides take writes, is known not to be, or meant.
    #[arg(long)]
    pub(crate) accept_two_sides: bool,
    /// Why, for whoever looks at it later.
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) at: HttpArgs,
}

/// Arguments of `mirror plan`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("given").required(true)))]
pub(crate) struct FlowsArgs {
    /// A daemon's configuration file; its `[[mirror]]` and `[clusters]` are looked at.
    #[arg(long, value_name = "FILE", group = "given")]
    pub(crate) file: Option<PathBuf>,
    /// MirrorMaker 2's properties file; what of it cannot be taken over is said line by line.
    #[arg(long, value_name = "FILE", group = "given")]
    pub(crate) mm2: Option<PathBuf>,
    /// Which of the clusters of MirrorMaker 2's file this one is, if it has another name there.
    #[arg(long, value_name = "CLUSTER", requires = "mm2")]
    pub(crate) into: Option<String>,
    #[command(flatten)]
    pub(crate) at: HttpArgs,
}

/// Arguments of `mirror apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) flows: FlowsArgs,
    /// Declare them although the plan complains: of names that are taken, of a source that does not answer.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Arguments of `mirror remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveFlowArgs {
    /// The flow, as `mirror status` names it: 'east->west'.
    pub(crate) flow: String,
    /// Of a flow that was failed over: although its lost source has not heard of that, and would take writes if it returned; or
    /// has given way, and takes none until a failback.
    #[arg(long)]
    pub(crate) forget_source: bool,
    #[command(flatten)]
    pub(crate) at: HttpArgs,
}

/// Arguments of `mirror verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The flow, as `mirror status` names it: 'east->west'.
    pub(crate) flow: String,
    /// Only this topic, by its name here or at the source; may be given several times.
    #[arg(long, value_name = "TOPIC")]
    pub(crate) topic: Vec<String>,
    /// At most so many MiB are compared in a second, on each side.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: u64,
    #[command(flatten)]
    pub(crate) page: PageArgs,
    #[command(flatten)]
    pub(crate) at: HttpArgs,
}

/// Arguments of `mirror pause`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// Why, for whoever looks at the status.
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) which: ResumeArgs,
}

/// Arguments of `mirror resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The flow, as `mirror status` names it: 'east->west'.
    pub(crate) flow: String,
    /// Only this topic, by its name here or at the source.
    #[arg(long, value_name = "TOPIC")]
    pub(crate) topic: Option<String>,
    #[command(flatten)]
    pub(crate) at: HttpArgs,
}

/// Where else a report goes.
#[derive(Debug, Args)]
pub(crate) struct PageArgs {
    /// Write the report to this file too, as a page for a browser.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
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
    pub(crate) page: PageArgs,
    #[command(flatten)]
    pub(crate) at: HttpArgs,
}

/// Arguments of `failback`.
#[derive(Debug, Args)]
pub(crate) struct FailbackArgs {
    /// The flow that was failed over, as `mirror status` names it: 'east->west'.
    pub(crate) flow: String,
    #[command(flatten)]
    pub(crate) page: PageArgs,
    #[command(flatten)]
    pub(crate) at: HttpArgs,
}

/// Arguments of `drill`.
#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    /// The flow, as `mirror status` names it: 'east->west'.
    pub(crate) flow: String,
    /// Only this topic, by its name here or at the source; may be given several times.
    #[arg(long, value_name = "TOPIC")]
    pub(crate) topic: Vec<String>,
    #[command(flatten)]
    pub(crate) page: PageArgs,
    /// At most so many MiB are copied per partition: its active segment, up to the high watermark.
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    pub(crate) copy_limit: u64,
    /// So many MiB of each partition are compared with the log, the newest.
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    pub(crate) check: u64,
    /// Partitions whose turn has not come by then are not rehearsed. At most 10 minutes.
    #[arg(long, default_value = "60s", value_parser = positive_duration, value_name = "TIME")]
    pub(crate) time_limit: Duration,
    #[command(flatten)]
    pub(crate) at: HttpArgs,
}

/// Arguments of `switchover`.
#[derive(Debug, Args)]
pub(crate) struct SwitchoverArgs {
    /// The flow, as `mirror status` names it: 'east->west'.
    pub(crate) flow: String,
    /// Give it up, and let clients of the source write again, if it is not done by then.
    #[arg(long, default_value = "60s", value_parser = positive_duration, value_name = "TIME", conflicts_with = "abort")]
    pub(crate) give_up_after: Duration,
    /// How long groups may commit at the source after the last write; less if all stand at the end sooner.
    #[arg(long, default_value = "5s", value_parser = positive_duration, value_name = "TIME", conflicts_with = "abort")]
    pub(crate) group_drain: Duration,
    /// Give up what is under way, if clients do not write here yet.
    #[arg(long)]
    pub(crate) abort: bool,
    #[command(flatten)]
    pub(crate) page: PageArgs,
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

    fn parses(line: &str) -> bool {
        Cli::try_parse_from(["tradewind"].into_iter().chain(line.split_whitespace())).is_ok()
    }

    #[test]
    fn what_does_not_fit_together_is_refused_before_anything_is_begun() {
        for good in [
            "topic list",
            "topic list a b.* --internal --at-min-isr",
            "topic create a b -p 3 -r 2 --set x=y --if-not-exists",
            "topic create a --assignment 1:2,2:1 --validate-only",
            "topic alter a --partitions 4 --assignment 1:2",
            "topic offsets --at -2",
            "topic offsets a:0 --time 1763712000000",
            "topic delete-records a:0:-1 --yes",
            "topic delete-records --file f",
            "topic reassign plan a --brokers 1,2 --replication-factor 2 --print moves",
            "topic reassign cancel --all",
            "topic elect-leaders a:0 --unclean",
            "group describe --all --state",
            "group remove-members g --instance a --member b",
            "config describe --topic a --broker 1 --broker-defaults --group g --all",
            "config alter --topic a --add x=1 --delete y --append z=2",
            "cluster log-dirs --broker 1 --broker 2 --topic a.*",
            "mirror pause east->west --topic orders --reason maintenance",
            "mirror resume east->west --url http://a:1",
            "mirror verify east->west --topic a --topic b --rate 8",
            "switchover east->west --give-up-after 30s --group-drain 2s",
            "switchover east->west --abort",
            "failback east->west --url http://a:1",
            "topic list --bootstrap-server a:1,b:2 --timeout 5s -o json",
        ] {
            assert!(parses(good), "{good}");
        }
        for wrong in [
            "topic list --internal --exclude-internal",
            "topic list (",
            "topic create",
            "topic create a --partitions 0",
            "topic create a --partitions 1 --assignment 1:2",
            "topic create a --assignment 1:x",
            "topic create a --assignment 1:-2",
            "topic alter a --assignment 1:2",
            "topic offsets --at newest",
            "topic delete-records",
            "topic delete-records a:0",
            "topic reassign plan",
            "topic reassign cancel",
            "topic elect-leaders --unclean",
            "group describe",
            "group describe g --all",
            "group describe g --members --state",
            "group remove-members g",
            "group remove-members g --all --member m",
            "group delete-offsets g",
            "config describe",
            "config alter --topic a",
            "config alter --set x=1",
            "cluster log-dirs --broker one",
            "mirror pause",
            "mirror resume east->west --reason x",
            "mirror verify",
            "mirror verify east->west --rate 0",
            "switchover",
            "switchover east->west --abort --group-drain 2s",
            "topic list --timeout 0s",
            "topic list --timeout 5",
        ] {
            assert!(!parses(wrong), "{wrong}");
        }
    }
}
