//! `group describe`: positions with their lag, members, states.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tradewind_client::admin::{Assigned, GroupDescription, GroupMember};
use tradewind_client::consumer::assignor::TopicPartition;
use tradewind_client::{Client, ClientError, CommittedOffset, Isolation, ListedOffset, OffsetSpec};

use super::existing;
use crate::cli::output::{or_dash, table};
use crate::cli::{Failure, Output};

/// What the table shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct View {
    what: What,
    verbose: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Positions,
    Members,
    States,
}

impl View {
    /// From the options.
    pub(super) fn new(members: bool, state: bool, verbose: bool) -> Self {
        let what = match (members, state) {
            (true, _) => What::Members,
            (_, true) => What::States,
            _ => What::Positions,
        };
        Self { what, verbose }
    }
}

#[derive(Serialize)]
struct Described {
    group: String,
    #[serde(rename = "type")]
    kind: &'static str,
    protocol_type: String,
    state: String,
    assignor: String,
    epoch: Option<i32>,
    coordinator: i32,
    /// The sum over all positions whose lag is known.
    lag: i64,
    members: Vec<Member>,
    positions: Vec<Position>,
}

#[derive(Serialize)]
struct Member {
    member: String,
    instance: Option<String>,
    client: String,
    host: String,
    epoch: Option<i32>,
    partitions: usize,
    assignment: Assigned,
    /// What it shall read, in a group whose coordinator shares the partitions out.
    target: Option<Assigned>,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
struct Position {
    topic: String,
    partition: i32,
    /// What is committed; `null` if nothing is.
    offset: Option<i64>,
    end: Option<i64>,
    lag: Option<i64>,
    leader_epoch: Option<i32>,
    metadata: Option<String>,
    member: Option<String>,
    client: Option<String>,
    host: Option<String>,
}

/// Prints groups. Exit code 1 if one of them is not there.
pub(super) async fn run(
    client: Client,
    groups: Vec<String>,
    all: bool,
    view: View,
    output: Output,
) -> Result<u8, Failure> {
    let groups = if all {
        let listed = client.list_groups().await?.into_iter();
        listed.map(|group| group.group).collect()
    } else {
        groups
    };
    let mut described = Vec::new();
    let mut failed = 0;
    for group in &groups {
        match existing(&client, group).await {
            Ok(group) => described.push(describe(&client, group).await?),
            Err(error) if groups.len() > 1 => {
                eprintln!("{error}");
                failed = 1;
            }
            Err(error) => return Err(error),
        }
    }
    output.text(&described, &text(&described, view))?;
    Ok(failed)
}

async fn describe(client: &Client, group: GroupDescription) -> Result<Described, ClientError> {
    let committed = client.offset_fetch(&group.group, None).await?;
    let readers = readers(&group.members);
    let partitions: BTreeSet<TopicPartition> = committed.keys().chain(readers.keys()).cloned().collect();
    let ends = ends(client, &partitions).await?;
    let positions: Vec<Position> = partitions
        .into_iter()
        .map(|at| position(committed.get(&at), ends.get(&at), readers.get(&at).copied(), at))
        .collect();
    let member = |member: &GroupMember| Member {
        member: member.id.clone(),
        instance: member.instance.clone(),
        client: member.client.clone(),
        host: member.host.clone(),
        epoch: member.epoch,
        partitions: member.assignment.values().map(Vec::len).sum(),
        assignment: member.assignment.clone(),
        target: member.target.clone(),
    };
    Ok(Described {
        kind: group.kind.name(),
        protocol_type: group.protocol_type,
        state: group.state,
        assignor: group.assignor,
        epoch: group.epoch,
        coordinator: group.coordinator,
        lag: positions.iter().filter_map(|position| position.lag).sum(),
        members: group.members.iter().map(member).collect(),
        positions,
        group: group.group,
    })
}

/// Who reads what.
fn readers(members: &[GroupMember]) -> BTreeMap<TopicPartition, &GroupMember> {
    let mut readers = BTreeMap::new();
    for member in members {
        for (topic, partitions) in &member.assignment {
            for partition in partitions {
                readers.insert((topic.clone(), *partition), member);
            }
        }
    }
    readers
}

/// Where partitions end, as far as they are there and led: positions may outlive their topics.
pub(super) async fn ends(
    client: &Client,
    partitions: &BTreeSet<TopicPartition>,
) -> Result<BTreeMap<TopicPartition, ListedOffset>, ClientError> {
    let mut topics: Vec<&str> = partitions.iter().map(|(topic, _)| topic.as_str()).collect();
    topics.dedup();
    if topics.is_empty() {
        return Ok(BTreeMap::new());
    }
    let known = client.metadata(&topics).await?;
    let is_led = |(topic, partition): &&TopicPartition| {
        let topic = known.topics.get(topic).filter(|topic| topic.error.is_none());
        topic
            .and_then(|topic| topic.partitions.get(partition))
            .is_some_and(|partition| partition.leader.is_some())
    };
    let led: Vec<TopicPartition> = partitions.iter().filter(is_led).cloned().collect();
    client
        .list_offsets(&led, OffsetSpec::Latest, Isolation::ReadUncommitted)
        .await
}

fn position(
    committed: Option<&CommittedOffset>,
    end: Option<&ListedOffset>,
    reader: Option<&GroupMember>,
    at: TopicPartition,
) -> Position {
    let offset = committed.map(|committed| committed.offset);
    let end = end.map(|end| end.offset);
    Position {
        topic: at.0,
        partition: at.1,
        offset,
        end,
        lag: lag(offset, end),
        leader_epoch: committed
            .map(|committed| committed.leader_epoch)
            .filter(|epoch| *epoch >= 0),
        metadata: committed
            .map(|committed| committed.metadata.clone())
            .filter(|metadata| !metadata.is_empty()),
        member: reader.map(|reader| reader.id.clone()),
        client: reader.map(|reader| reader.client.clone()),
        host: reader.map(|reader| reader.host.clone()),
    }
}

/// How many records there are beyond a position. Negative if the partition has been cut since: worth seeing as it is.
fn lag(offset: Option<i64>, end: Option<i64>) -> Option<i64> {
    Some(end? - offset?)
}

fn text(groups: &[Described], view: View) -> String {
    if view.what == What::States {
        return states(groups);
    }
    let mut text = String::new();
    for group in groups {
        if !text.is_empty() {
            text.push('\n');
        }
        let (name, state, members) = (&group.group, &group.state, group.members.len());
        text += &format!("{name} is {state} with {members} members\n");
        match view.what {
            What::Members if members > 0 => text += &members_table(group, view.verbose),
            What::Positions if !group.positions.is_empty() => text += &positions_table(group, view.verbose),
            _ => {}
        }
    }
    text
}

fn states(groups: &[Described]) -> String {
    let row = |group: &Described| {
        vec![
            group.group.clone(),
            group.state.clone(),
            group.kind.to_owned(),
            group.assignor.clone(),
            group.coordinator.to_string(),
            group.members.len().to_string(),
            group.lag.to_string(),
        ]
    };
    let head = [
        "group",
        "state",
        "type",
        "assignor",
        "coordinator",
        "members",
        "lag",
    ];
    table(&head, groups.iter().map(row))
}

fn positions_table(group: &Described, verbose: bool) -> String {
    let mut head = vec![
        "topic",
        "partition",
        "offset",
        "end",
        "lag",
        "member",
        "host",
        "client",
    ];
    if verbose {
        head.push("leader epoch");
    }
    let row = |position: &Position| {
        let mut row = vec![
            position.topic.clone(),
            position.partition.to_string(),
            or_dash(position.offset),
            or_dash(position.end),
            or_dash(position.lag),
            or_dash(position.member.as_ref()),
            or_dash(position.host.as_ref()),
            or_dash(position.client.as_ref()),
        ];
        if verbose {
            row.push(or_dash(position.leader_epoch));
        }
        row
    };
    table(&head, group.positions.iter().map(row))
}

fn members_table(group: &Described, verbose: bool) -> String {
    let mut head = vec!["member", "instance", "host", "client", "partitions"];
    if verbose {
        head.extend(["epoch", "assignment"]);
    }
    let row = |member: &Member| {
        let mut row = vec![
            member.member.clone(),
            or_dash(member.instance.as_ref()),
            member.host.clone(),
            member.client.clone(),
            member.partitions.to_string(),
        ];
        if verbose {
            row.extend([or_dash(member.epoch), assignment(&member.assignment)]);
        }
        row
    };
    table(&head, group.members.iter().map(row))
}

/// `orders:0,1 payments:2`, as it is written on the command line.
fn assignment(assigned: &Assigned) -> String {
    let topic = |(topic, partitions): (&String, &Vec<i32>)| {
        let numbers: Vec<String> = partitions.iter().map(ToString::to_string).collect();
        format!("{topic}:{}", numbers.join(","))
    };
    let topics: Vec<String> = assigned.iter().map(topic).collect();
    if topics.is_empty() {
        "-".to_owned()
    } else {
        topics.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_what_lies_beyond_a_position_and_unknown_without_one() {
        assert_eq!(lag(Some(3), Some(10)), Some(7));
        assert_eq!(lag(Some(10), Some(10)), Some(0));
        assert_eq!(lag(Some(12), Some(10)), Some(-2));
        assert_eq!(lag(None, Some(10)), None);
        assert_eq!(lag(Some(3), None), None);
    }

    #[test]
    fn a_partition_that_is_read_but_not_committed_has_a_reader_and_no_position() {
        let member = GroupMember {
            id: "m-1".to_owned(),
            instance: None,
            client: "c".to_owned(),
            host: "/127.0.0.1".to_owned(),
            assignment: Assigned::from([("t".to_owned(), vec![0, 1])]),
            target: None,
            epoch: None,
        };
        let members = [member];
        let readers = readers(&members);
        let at = ("t".to_owned(), 1);
        let end = ListedOffset {
            offset: 5,
            timestamp: -1,
            leader_epoch: 0,
        };
        let position = position(None, Some(&end), readers.get(&at).copied(), at);
        assert_eq!(
            (position.offset, position.end, position.lag),
            (None, Some(5), None)
        );
        assert_eq!(position.member.as_deref(), Some("m-1"));
        assert_eq!(assignment(&members[0].assignment), "t:0,1");
        assert_eq!(assignment(&Assigned::new()), "-");
    }
}
