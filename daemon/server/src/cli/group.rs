//! `group list`, `describe` and `delete`.

use serde::Serialize;
use tradewind_client::{Client, Isolation, OffsetSpec};

use super::args::GroupCommand;
use super::kafka::with_client;
use super::{Failure, Output};

/// Runs a command on consumer groups.
pub(super) fn run(command: GroupCommand, output: Output) -> Result<u8, Failure> {
    match command {
        GroupCommand::List(at) => with_client(&at, |client| list(client, output)),
        GroupCommand::Describe { group, at } => with_client(&at, |client| describe(client, group, output)),
        GroupCommand::Delete { groups, at } => with_client(&at, async |client| {
            let mut failed = 0;
            for group in &groups {
                if let Err(error) = client.delete_group(group).await {
                    eprintln!("{group}: {error}");
                    failed = 1;
                }
            }
            Ok(failed)
        }),
    }
}

#[derive(Serialize)]
struct Listed {
    group: String,
    protocol_type: String,
    state: String,
}

async fn list(client: Client, output: Output) -> Result<u8, Failure> {
    let groups = client.list_groups().await?;
    let listed: Vec<Listed> = groups
        .into_iter()
        .map(|group| Listed {
            group: group.group,
            protocol_type: group.protocol_type,
            state: group.state,
        })
        .collect();
    let row = |group: &Listed| {
        vec![
            group.group.clone(),
            group.protocol_type.clone(),
            group.state.clone(),
        ]
    };
    output.rows(&listed, &["group", "type", "state"], listed.iter().map(row))?;
    Ok(0)
}

#[derive(Serialize)]
struct Described {
    group: String,
    state: String,
    members: Vec<Member>,
    positions: Vec<Position>,
}

#[derive(Serialize)]
struct Member {
    member: String,
    client: String,
    host: String,
}

#[derive(Serialize)]
struct Position {
    topic: String,
    partition: i32,
    offset: i64,
    end: Option<i64>,
    lag: Option<i64>,
}

async fn describe(client: Client, group: String, output: Output) -> Result<u8, Failure> {
    let described = client.describe_groups(&[&group]).await?;
    let committed = client.offset_fetch(&group, None).await?;
    let partitions: Vec<_> = committed.keys().cloned().collect();
    // Positions may outlive their topics; their ends are then unknown.
    let ends = client
        .list_offsets(&partitions, OffsetSpec::Latest, Isolation::ReadUncommitted)
        .await;
    let ends = ends.unwrap_or_default();
    let position = |((topic, partition), committed): (&(String, i32), &tradewind_client::CommittedOffset)| {
        let end = ends.get(&(topic.clone(), *partition)).map(|listed| listed.offset);
        Position {
            topic: topic.clone(),
            partition: *partition,
            offset: committed.offset,
            end,
            lag: end.map(|end| end - committed.offset),
        }
    };
    let known = described.first();
    let member = |member: &tradewind_wire::messages::describe_groups::DescribedGroupMember| Member {
        member: member.member_id.to_string(),
        client: member.client_id.to_string(),
        host: member.client_host.to_string(),
    };
    let described = Described {
        state: known
            .map(|known| known.group_state.to_string())
            .unwrap_or_default(),
        members: known
            .into_iter()
            .flat_map(|known| &known.members)
            .map(member)
            .collect(),
        positions: committed.iter().map(position).collect(),
        group,
    };
    eprintln!(
        "group {} is {} with {} members",
        described.group,
        described.state,
        described.members.len()
    );
    let or_unknown =
        |number: Option<i64>| number.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
    let row = |position: &Position| {
        vec![
            position.topic.clone(),
            position.partition.to_string(),
            position.offset.to_string(),
            or_unknown(position.end),
            or_unknown(position.lag),
        ]
    };
    let head = ["topic", "partition", "offset", "end", "lag"];
    output.rows(&described, &head, described.positions.iter().map(row))?;
    Ok(u8::from(
        described.state == "Dead" && described.positions.is_empty(),
    ))
}
