//! `group ...`: what kafka-consumer-groups does. Which command is carried out where; the smaller ones are here.

mod csv;
mod describe;
mod reset;
mod strategy;

use serde::Serialize;
use tradewind_client::admin::{GroupListing, MemberToRemove};
use tradewind_client::{Client, ClientError};

use super::args::GroupCommand;
use super::kafka::{confirm, with_cluster};
use super::outcome::{Outcome, report};
use super::select::{self, PartitionSelection};
use super::{Failure, Output};

/// Runs a command on consumer groups.
pub(super) fn run(command: GroupCommand, output: Output) -> Result<u8, Failure> {
    match command {
        GroupCommand::List { state, kind, at } => {
            with_cluster(&at, |client| list(client, state, kind, output))
        }
        GroupCommand::Describe {
            groups,
            all,
            members,
            state,
            verbose,
            at,
        } => {
            let view = describe::View::new(members, state, verbose);
            with_cluster(&at, |client| describe::run(client, groups, all, view, output))
        }
        GroupCommand::ResetOffsets(args) => reset::run(args, output),
        GroupCommand::Delete { groups, yes, at } => {
            confirm(&format!("delete {} with all positions", groups.join(", ")), yes)?;
            with_cluster(&at, async |client| {
                let mut outcomes = Vec::new();
                for group in &groups {
                    let deleted = client.delete_group(group).await;
                    outcomes.push(Outcome {
                        of: vec![("group", group.as_str().into())],
                        result: deleted.map(|()| "deleted".to_owned()),
                    });
                }
                report(output, &outcomes)
            })
        }
        GroupCommand::DeleteOffsets { group, topics, at } => {
            with_cluster(&at, |client| delete_offsets(client, group, topics, output))
        }
        GroupCommand::RemoveMembers {
            group,
            members,
            instances,
            all,
            reason,
            at,
        } => with_cluster(&at, async |client| {
            let mut leaving: Vec<MemberToRemove> = members.into_iter().map(MemberToRemove::Id).collect();
            leaving.extend(instances.into_iter().map(MemberToRemove::Instance));
            if all {
                let described = existing(&client, &group).await?;
                leaving = described
                    .members
                    .into_iter()
                    .map(|member| match member.instance {
                        Some(name) => MemberToRemove::Instance(name),
                        None => MemberToRemove::Id(member.id),
                    })
                    .collect();
            }
            if leaving.is_empty() {
                eprintln!("{group} has no members");
                return report(output, &[]);
            }
            let left = client.remove_members(&group, &leaving, &reason).await?;
            let outcome = |(member, left): (&MemberToRemove, Result<(), ClientError>)| {
                let (MemberToRemove::Id(name) | MemberToRemove::Instance(name)) = member;
                Outcome {
                    of: vec![("group", group.as_str().into()), ("member", name.as_str().into())],
                    result: left.map(|()| "removed".to_owned()),
                }
            };
            let outcomes: Vec<Outcome> = leaving.iter().zip(left).map(outcome).collect();
            report(output, &outcomes)
        }),
    }
}

#[derive(Serialize)]
struct Listed {
    group: String,
    #[serde(rename = "type")]
    kind: String,
    protocol_type: String,
    state: String,
}

async fn list(
    client: Client,
    states: Vec<String>,
    kinds: Vec<String>,
    output: Output,
) -> Result<u8, Failure> {
    let groups = client.list_groups().await?;
    if let Some(group) = groups.first() {
        let untold =
            (!states.is_empty() && group.state.is_empty()) || (!kinds.is_empty() && group.kind.is_empty());
        if untold {
            return Err(Failure::Failed(anyhow::anyhow!(
                "this cluster lists groups without what is to be filtered by (ListGroups 4 tells states, 5 types)"
            )));
        }
    }
    let listed: Vec<Listed> = groups
        .into_iter()
        .filter(|group| is_wanted(group, &states, &kinds))
        .map(|group| Listed {
            group: group.group,
            kind: group.kind,
            protocol_type: group.protocol_type,
            state: group.state,
        })
        .collect();
    let row = |group: &Listed| {
        vec![
            group.group.clone(),
            group.kind.clone(),
            group.protocol_type.clone(),
            group.state.clone(),
        ]
    };
    let head = ["group", "type", "protocol", "state"];
    output.rows(&listed, &head, listed.iter().map(row))?;
    Ok(0)
}

/// Whether a group is in one of these states and of one of these types; no state or type means any. `stable`, `Stable`,
/// `preparing-rebalance` and `PreparingRebalance` are the same.
fn is_wanted(group: &GroupListing, states: &[String], kinds: &[String]) -> bool {
    let plain = |text: &str| text.replace(['-', '_'], "").to_lowercase();
    let one_of = |wanted: &[String], value: &str| {
        wanted.is_empty() || wanted.iter().any(|one| plain(one) == plain(value))
    };
    one_of(states, &group.state) && one_of(kinds, &group.kind)
}

async fn delete_offsets(
    client: Client,
    group: String,
    topics: Vec<PartitionSelection>,
    output: Output,
) -> Result<u8, Failure> {
    let committed = client.offset_fetch(&group, None).await?;
    let is_meant = |one: &PartitionSelection, (topic, partition): &(String, i32)| {
        one.topic.matches(topic) && one.has(*partition)
    };
    // By what is committed, not by what is there: a topic may be gone and its positions may not.
    let partitions: Vec<_> = committed
        .into_keys()
        .filter(|at| topics.iter().any(|one| is_meant(one, at)))
        .collect();
    let mut failed = 0;
    for one in &topics {
        if !partitions.iter().any(|at| is_meant(one, at)) {
            eprintln!("{group} has committed nothing for {}", one.topic_text());
            failed = 1;
        }
    }
    let outcomes: Vec<Outcome> = if partitions.is_empty() {
        Vec::new()
    } else {
        let deleted = client.delete_group_offsets(&group, &partitions).await?;
        deleted
            .into_iter()
            .map(|((topic, partition), result)| {
                Outcome::of_partition(&topic, partition, result.map(|()| "deleted".to_owned()))
            })
            .collect()
    };
    Ok(report(output, &outcomes)?.max(failed))
}

/// A group that must be there.
async fn existing(
    client: &Client,
    group: &str,
) -> Result<tradewind_client::admin::GroupDescription, Failure> {
    let described = client.describe_group(group).await?;
    if described.state == "Dead" {
        let all = client.list_groups().await.unwrap_or_default();
        let hint = select::nearest(group, all.iter().map(|listed| listed.group.as_str()));
        return Err(Failure::Failed(anyhow::anyhow!(
            "there is no group {group}{hint}"
        )));
    }
    Ok(described)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_chosen_by_state_and_type_however_these_are_written() {
        let group = GroupListing {
            group: "g".to_owned(),
            protocol_type: "consumer".to_owned(),
            state: "PreparingRebalance".to_owned(),
            kind: "classic".to_owned(),
        };
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert!(is_wanted(&group, &[], &[]));
        assert!(is_wanted(
            &group,
            &words("empty preparing-rebalance"),
            &words("Classic")
        ));
        assert!(!is_wanted(&group, &words("empty"), &[]));
        assert!(!is_wanted(&group, &[], &words("consumer")));
    }
}
