//! `group reset-offsets`: says where groups would be put, and puts them there if told to.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::anyhow;
use tradewind_client::consumer::assignor::TopicPartition;
use tradewind_client::{
    Client, ClientError, CommittedOffset, Isolation, ListedOffset, OffsetSpec, OffsetToCommit,
};

use super::csv::{self, Offsets};
use super::strategy::{Facts, Strategy};
use crate::cli::args::ResetArgs;
use crate::cli::kafka::with_cluster;
use crate::cli::outcome::{Outcome, report};
use crate::cli::output::print;
use crate::cli::{Failure, Output, select};

/// What becomes of the offsets that were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Show,
    Export,
    Execute,
}

/// Runs the command. Exit code 1 if a group was left as it is.
pub(super) fn run(args: ResetArgs, output: Output) -> Result<u8, Failure> {
    let act = match (args.execute, args.export) {
        (true, _) => Act::Execute,
        (_, true) => Act::Export,
        _ => Act::Show,
    };
    let filed = filed(&args)?;
    with_cluster(&args.at, async |client| {
        let now_ms = client.clock().now_ms();
        let reset = Reset {
            strategy: strategy(&args, now_ms),
            filed,
            args: &args,
            client,
        };
        reset.run(act, output).await
    })
}

/// The offsets of the file, if there is one.
fn filed(args: &ResetArgs) -> Result<Option<Offsets>, Failure> {
    let Some(path) = &args.from_file else {
        return Ok(None);
    };
    let wrong = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let only = match args.groups.as_slice() {
        [only] => Some(only.as_str()),
        _ => None,
    };
    let filed = csv::read(&text, only).map_err(wrong)?;
    for group in &args.groups {
        if !filed.contains_key(group) {
            return Err(wrong(format!("says nothing about group {group}")));
        }
    }
    if let Some(other) = filed
        .keys()
        .find(|group| !args.all_groups && !args.groups.contains(group))
    {
        return Err(wrong(format!("is about group {other} too, which was not named")));
    }
    Ok(Some(filed))
}

/// Which way of resetting was chosen: the command line has exactly one.
fn strategy(args: &ResetArgs, now_ms: i64) -> Strategy {
    let ago = |span: std::time::Duration| {
        now_ms.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
    };
    if args.to_earliest {
        Strategy::Earliest
    } else if args.to_latest {
        Strategy::Latest
    } else if let Some(offset) = args.to_offset {
        Strategy::Offset(offset)
    } else if let Some(by) = args.shift_by {
        Strategy::ShiftBy(by)
    } else if let Some(moment) = args.to_datetime {
        Strategy::At(moment.0)
    } else if let Some(span) = args.by_duration {
        // Before 1970 there is nothing.
        Strategy::At(ago(span.0).max(0))
    } else if args.from_file.is_some() {
        Strategy::File
    } else {
        Strategy::Current
    }
}

/// A position to set.
struct Step {
    at: TopicPartition,
    previous: Option<i64>,
    offset: i64,
}

struct Reset<'a> {
    client: Client,
    args: &'a ResetArgs,
    strategy: Strategy,
    filed: Option<Offsets>,
}

impl Reset<'_> {
    async fn run(&self, act: Act, output: Output) -> Result<u8, Failure> {
        let mut failed = 0;
        let mut steps: BTreeMap<String, Vec<Step>> = BTreeMap::new();
        let named = self.named().await?;
        if let Some((found, _)) = &named {
            failed = found.complain();
        }
        if failed != 0 {
            // Half of what was asked for is not what was asked for.
            return Ok(failed);
        }
        let named = named.map(|(_, partitions)| partitions);
        for group in self.groups().await? {
            match self.of_group(&group, named.as_deref()).await {
                Ok(found) => {
                    steps.insert(group, found);
                }
                Err(error) => {
                    eprintln!("{error}");
                    failed = 1;
                }
            }
        }
        if failed != 0 && act == Act::Export {
            // Half a file would pass for a whole one.
            return Ok(failed);
        }
        match act {
            Act::Export => {
                let offsets = steps.into_iter().map(|(group, steps)| {
                    let offsets = steps.into_iter().map(|step| (step.at, step.offset));
                    (group, offsets.collect())
                });
                print(&csv::write(&offsets.collect()))?;
            }
            Act::Show => {
                let outcomes: Vec<Outcome> = steps
                    .iter()
                    .flat_map(|(group, steps)| lines(group, steps, &Ok("would be set".to_owned())))
                    .collect();
                report(output, &outcomes)?;
                eprintln!("nothing was set: --execute does it");
            }
            Act::Execute => {
                let mut outcomes = Vec::new();
                for (group, steps) in &steps {
                    let offsets: BTreeMap<TopicPartition, OffsetToCommit> = steps
                        .iter()
                        .map(|step| (step.at.clone(), step.offset.into()))
                        .collect();
                    let set = self.client.offset_commit(group, &offsets).await;
                    outcomes.extend(lines(group, steps, &set.map(|()| "set".to_owned())));
                }
                failed = failed.max(report(output, &outcomes)?);
            }
        }
        Ok(failed)
    }

    async fn groups(&self) -> Result<Vec<String>, ClientError> {
        if !self.args.all_groups {
            return Ok(self.args.groups.clone());
        }
        if let Some(filed) = &self.filed {
            return Ok(filed.keys().cloned().collect());
        }
        let listed = self.client.list_groups().await?;
        Ok(listed.into_iter().map(|group| group.group).collect())
    }

    /// The partitions that `--topic` names; `None` if none is given.
    async fn named(&self) -> Result<Option<(select::Found, Vec<TopicPartition>)>, ClientError> {
        if self.args.topics.is_empty() {
            return Ok(None);
        }
        select::partitions(&self.client, &self.args.topics)
            .await
            .map(Some)
    }

    /// Where a group would be put. Nothing at all if a partition of it has no place to go to.
    async fn of_group(&self, group: &str, named: Option<&[TopicPartition]>) -> Result<Vec<Step>, Failure> {
        let described = self.client.describe_group(group).await?;
        if !matches!(described.state.as_str(), "Empty" | "Dead") {
            return Err(Failure::Failed(anyhow!(
                "group {group} is {} with {} members: positions can be set once they have stopped",
                described.state,
                described.members.len()
            )));
        }
        let committed = self.client.offset_fetch(group, None).await?;
        let filed = self.filed.as_ref().and_then(|filed| filed.get(group));
        let partitions: BTreeSet<TopicPartition> = match (named, filed) {
            (Some(named), _) => named.iter().cloned().collect(),
            (None, Some(filed)) => filed.keys().cloned().collect(),
            (None, None) => self.still_there(&committed).await?,
        };
        let facts = self.facts(&partitions, &committed, filed).await?;
        let mut steps = Vec::new();
        for at in partitions {
            let known = facts.get(&at).copied().unwrap_or_default();
            let (topic, partition) = &at;
            let target = self
                .strategy
                .target(known)
                .map_err(|why| anyhow!("{group}: {topic}-{partition}: {why}"))?;
            if let Some(meant) = target.instead_of {
                eprintln!(
                    "{group}: {topic}-{partition}: there is no offset {meant}, the nearest is {}",
                    target.offset
                );
            }
            steps.push(Step {
                previous: committed.get(&at).map(|committed| committed.offset),
                offset: target.offset,
                at,
            });
        }
        Ok(steps)
    }

    /// The committed partitions whose topics have not been deleted since.
    async fn still_there(
        &self,
        committed: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Result<BTreeSet<TopicPartition>, ClientError> {
        let mut names: Vec<&str> = committed.keys().map(|(topic, _)| topic.as_str()).collect();
        names.dedup();
        let known = self.client.metadata(&names).await?;
        let is_there = |(topic, partition): &&TopicPartition| {
            let topic = known.topics.get(topic).filter(|topic| topic.error.is_none());
            topic.is_some_and(|topic| topic.partitions.contains_key(partition))
        };
        Ok(committed.keys().filter(is_there).cloned().collect())
    }

    async fn facts(
        &self,
        partitions: &BTreeSet<TopicPartition>,
        committed: &BTreeMap<TopicPartition, CommittedOffset>,
        filed: Option<&BTreeMap<TopicPartition, i64>>,
    ) -> Result<BTreeMap<TopicPartition, Facts>, ClientError> {
        let partitions: Vec<TopicPartition> = partitions.iter().cloned().collect();
        let ask = |spec| {
            self.client
                .list_offsets(&partitions, spec, Isolation::ReadUncommitted)
        };
        let (starts, ends) = tokio::try_join!(ask(OffsetSpec::Earliest), ask(OffsetSpec::Latest))?;
        let at = match self.strategy {
            Strategy::At(moment) => ask(OffsetSpec::At(moment)).await?,
            _ => BTreeMap::new(),
        };
        let offset = |of: &BTreeMap<TopicPartition, ListedOffset>, at| of.get(at).map(|listed| listed.offset);
        let facts = partitions.iter().map(|partition| {
            let facts = Facts {
                start: offset(&starts, partition).unwrap_or(0),
                end: offset(&ends, partition).unwrap_or(0),
                committed: committed.get(partition).map(|committed| committed.offset),
                at: offset(&at, partition),
                filed: filed.and_then(|filed| filed.get(partition).copied()),
            };
            (partition.clone(), facts)
        });
        Ok(facts.collect())
    }
}

fn lines(group: &str, steps: &[Step], result: &Result<String, ClientError>) -> Vec<Outcome> {
    let line = |step: &Step| {
        let mut of = vec![("group", group.into())];
        of.extend([
            ("topic", step.at.0.as_str().into()),
            ("partition", step.at.1.into()),
        ]);
        of.extend([("previous", step.previous.into()), ("offset", step.offset.into())]);
        Outcome {
            of,
            result: result.clone(),
        }
    };
    steps.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command, GroupCommand};

    fn args(line: &str) -> Option<ResetArgs> {
        let words = ["tradewind", "group", "reset-offsets"].into_iter();
        match Cli::try_parse_from(words.chain(line.split_whitespace()))
            .ok()?
            .command
        {
            Command::Group(GroupCommand::ResetOffsets(args)) => Some(args),
            _ => None,
        }
    }

    #[test]
    fn a_reset_names_groups_partitions_and_one_strategy() {
        let chosen = |line: &str| args(line).map(|args| strategy(&args, 100_000));
        assert_eq!(
            chosen("g --topic t:0,1 --topic u --to-earliest"),
            Some(Strategy::Earliest)
        );
        assert_eq!(chosen("g h --all-topics --to-latest"), Some(Strategy::Latest));
        assert_eq!(
            chosen("--all-groups --all-topics --to-current"),
            Some(Strategy::Current)
        );
        assert_eq!(chosen("g --topic t --shift-by -3"), Some(Strategy::ShiftBy(-3)));
        assert_eq!(chosen("g --topic t --to-offset 3"), Some(Strategy::Offset(3)));
        assert_eq!(
            chosen("g --topic t --to-datetime 1970-01-01T00:01"),
            Some(Strategy::At(60_000))
        );
        assert_eq!(
            chosen("g --topic t --by-duration PT40S"),
            Some(Strategy::At(60_000))
        );
        assert_eq!(chosen("g --topic t --by-duration 1d"), Some(Strategy::At(0)));
        assert_eq!(chosen("g --from-file f"), Some(Strategy::File));
        for wrong in [
            "--topic t --to-earliest",
            "g --to-earliest",
            "g --topic t",
            "g --topic t --to-earliest --to-latest",
            "g --topic t --all-topics --to-earliest",
            "g --all-groups --all-topics --to-earliest",
            "g --topic t --from-file f",
            "g --topic t --to-earliest --execute --dry-run",
            "g --topic t --to-earliest --execute --export",
            "g --topic t --to-datetime yesterday",
        ] {
            assert!(args(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn nothing_is_set_unless_told_to() {
        assert!(!args("g --topic t --to-earliest").unwrap().execute);
        assert!(args("g --topic t --to-earliest --execute").unwrap().execute);
    }

    #[test]
    fn a_file_must_be_about_the_groups_that_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("offsets.csv");
        std::fs::write(&file, "g,t,0,1\nh,t,0,2\n").unwrap();
        let with = |groups: &str| filed(&args(&format!("{groups} --from-file {}", file.display())).unwrap());
        assert_eq!(with("g h").unwrap().unwrap().len(), 2);
        assert_eq!(with("--all-groups").unwrap().unwrap().len(), 2);
        assert!(matches!(with("g"), Err(Failure::Usage(why)) if why.contains("group h too")));
        assert!(matches!(with("g h i"), Err(Failure::Usage(why)) if why.contains("group i")));
    }
}
