//! Three clusters of one daemon each with flows in a circle, or between all of them: every record once everywhere, no copy of
//! a copy, no topic back from where it went, and heartbeats all the way.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tradewind_tests::{Cluster, Kafka, load, mesh, wait};
use tradewind_wire::compression::Codec;
use tradewind_wire::messages::{DeleteTopicsRequest, MetadataRequest, delete_topics::DeleteTopicState};

const NAMES: [&str; 3] = ["east", "west", "north"];
const GROUP: &str = "billing";

struct World {
    clusters: Vec<Cluster>,
}

impl World {
    /// With flows from, to, and their naming.
    fn start(folder: &Path, flows: &[(&str, &str, &str)]) -> Result<Self> {
        let prepared = NAMES.iter().map(|name| Cluster::prepare(folder, name, 1));
        let mut clusters: Vec<Cluster> = prepared.collect::<Result<_>>()?;
        for cluster in &clusters {
            let others = clusters.iter().filter(|other| other.name != cluster.name);
            let mut config: String = others.map(|other| mesh::remote(other, false)).collect();
            for (from, _, naming) in flows.iter().filter(|(_, to, _)| *to == cluster.name) {
                config += &format!("\n[[mirror]]\nfrom = \"{from}\"\nnaming = \"{naming}\"\n");
            }
            cluster.configure(&config)?;
        }
        std::thread::scope(|scope| {
            let starting: Vec<_> = clusters
                .iter_mut()
                .map(|cluster| scope.spawn(|| cluster.start_all()))
                .collect();
            starting.into_iter().try_for_each(|one| {
                one.join()
                    .map_err(|_| anyhow::anyhow!("starting a cluster panicked"))?
            })
        })?;
        Ok(Self { clusters })
    }

    fn cluster(&self, name: &str) -> Result<&Cluster> {
        let found = self.clusters.iter().find(|cluster| cluster.name == name);
        found.with_context(|| format!("no cluster {name}"))
    }

    fn kafka(&self, name: &str) -> Result<Kafka> {
        Ok(self.cluster(name)?.kafka())
    }

    /// A topic with two batches of records that only it has, read by the group up to the first one's end.
    fn write(&self, cluster: &str, topic: &str, writer: u32) -> Result<()> {
        let mut kafka = self.kafka(cluster)?;
        wait::until("a topic is created", 30, || {
            kafka.create_topic(topic, 1, &[]).map(Some)
        })?;
        let mut first = 0;
        for _ in 0..2 {
            let batch = load::numbered_batch(Codec::Zstd, None, writer, first)?;
            wait::until("a batch is written", 30, || {
                kafka.append(topic, 0, batch.clone()).map(Some)
            })?;
            let end = wait::until("the batch is committed", 30, || {
                let end = u64::try_from(kafka.end(topic, 0)?)?;
                Ok((end > first).then_some(end))
            })?;
            wait::until("a position is committed", 30, || {
                kafka.commit(GROUP, topic, &[(0, i64::try_from(end)?)]).map(Some)
            })?;
            first = end;
        }
        Ok(())
    }

    /// The topics of clients and the heartbeats.
    fn topics(&self, cluster: &str) -> Result<BTreeSet<String>> {
        let all = MetadataRequest {
            topics: None,
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let answer = self.kafka(cluster)?.any(&all, 12)?;
        let names = answer.topics.into_iter().filter_map(|topic| topic.name);
        let told = names.filter(|name| !name.starts_with("__") && !name.ends_with(".internal"));
        Ok(told.map(|name| name.to_string()).collect())
    }

    fn status(&self, cluster: &str) -> Result<Vec<Value>> {
        let flows = self.cluster(cluster)?.ask(&["mirror", "status"])?;
        flows.as_array().cloned().context("a list of flows")
    }

    /// Waits until every cluster has just these topics, and every flow is well and has nothing left to do.
    fn wait_settled(&self, expected: &[(&str, &[&str])]) -> Result<()> {
        wait::until("every cluster has its topics and every flow is even", 60, || {
            for (cluster, topics) in expected {
                let wanted: BTreeSet<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
                let found = self.topics(cluster)?;
                ensure!(found == wanted, "{cluster} has {found:?}, not {wanted:?}");
                for flow in self.status(cluster)? {
                    let even = flow["state"] == "active"
                        && flow["lag_records"] == 0
                        && flow["groups"]["exact"] == flow["groups"]["total"];
                    ensure!(even, "{flow}");
                }
            }
            Ok(Some(()))
        })
    }

    /// Checks that this topic has what was written to that one: all of it once, and the group at its end.
    fn ensure_same(&self, (from, topic): (&str, &str), (to, mirror): (&str, &str)) -> Result<()> {
        let (mut there, mut here) = (self.kafka(from)?, self.kafka(to)?);
        let written = load::read_log(&mut there, topic, 0)?;
        let copied = load::read_log(&mut here, mirror, 0)?;
        ensure!(
            !written.is_empty() && written == copied,
            "{mirror} in {to} is not {topic} of {from}"
        );
        let position = here.committed(GROUP, mirror, 1)?;
        ensure!(
            position == there.committed(GROUP, topic, 1)?,
            "{mirror} in {to}: {position:?}"
        );
        Ok(())
    }

    /// Waits until the heartbeats that a cluster has of others have moved on.
    fn wait_beats(&self, cluster: &str, topics: &[&str]) -> Result<()> {
        let mut kafka = self.kafka(cluster)?;
        for topic in topics {
            let before = kafka.end(topic, 0)?;
            wait::until_true(&format!("{topic} moves in {cluster}"), 30, || {
                Ok(kafka.end(topic, 0)? >= before + 2)
            })?;
        }
        Ok(())
    }
}

#[test]
fn a_ring_that_mixes_the_namings_has_every_record_once_and_what_is_deleted_stays_away() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ring = [
        ("east", "west", "prefix"),
        ("west", "north", "identity"),
        ("north", "east", "prefix"),
    ];
    let world = World::start(folder.path(), &ring)?;
    world.write("east", "of-east", 1)?;
    world.write("west", "of-west", 2)?;
    world.write("north", "of-north", 3)?;
    // Made in the east, whatever its name says.
    world.write("east", "west.sales", 4)?;
    let east = [
        "heartbeats",
        "of-east",
        "west.sales",
        "north.of-north",
        "north.of-west",
        "north.heartbeats",
        "north.west.heartbeats",
    ];
    let west = [
        "heartbeats",
        "of-west",
        "east.of-east",
        "east.west.sales",
        "east.north.of-north",
        "east.heartbeats",
        "east.north.heartbeats",
    ];
    let north = [
        "heartbeats",
        "of-north",
        "of-west",
        "east.of-east",
        "east.west.sales",
        "west.heartbeats",
    ];
    world.wait_settled(&[("east", &east), ("west", &west), ("north", &north)])?;
    for (from, to) in [
        (("east", "of-east"), ("west", "east.of-east")),
        (("east", "of-east"), ("north", "east.of-east")),
        (("east", "west.sales"), ("west", "east.west.sales")),
        (("east", "west.sales"), ("north", "east.west.sales")),
        (("west", "of-west"), ("north", "of-west")),
        (("west", "of-west"), ("east", "north.of-west")),
        (("north", "of-north"), ("east", "north.of-north")),
        (("north", "of-north"), ("west", "east.north.of-north")),
    ] {
        world.ensure_same(from, to)?;
    }
    world.wait_beats("east", &["north.heartbeats", "north.west.heartbeats"])?;
    world.wait_beats("west", &["east.heartbeats", "east.north.heartbeats"])?;
    world.wait_beats("north", &["west.heartbeats"])?;

    // Deleted where it was first written: its copies stay, and say so, and none of them returns.
    let state = DeleteTopicState {
        name: Some("of-east".into()),
        ..Default::default()
    };
    let delete = DeleteTopicsRequest {
        topics: vec![state],
        timeout_ms: 10_000,
        ..Default::default()
    };
    world.kafka("east")?.any(&delete, 6)?;
    wait::until_true("the west says that the topic is gone", 30, || {
        let flow = world.status("west")?.remove(0);
        Ok(flow["problems"].to_string().contains("gone at the source"))
    })?;
    // The flow into the east has looked around several times since.
    world.wait_beats("east", &["north.heartbeats", "north.heartbeats"])?;
    let left: Vec<&str> = east.into_iter().filter(|topic| *topic != "of-east").collect();
    let found = world.topics("east")?;
    ensure!(
        found.iter().map(String::as_str).eq(BTreeSet::from_iter(left)),
        "{found:?}"
    );
    Ok(())
}

#[test]
fn clusters_that_all_mirror_each_other_under_the_same_names_are_well_and_say_what_comes_by_which_way()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let pairs = NAMES
        .iter()
        .flat_map(|from| NAMES.map(|to| (*from, to, "identity")));
    let flows: Vec<_> = pairs.filter(|(from, to, _)| from != to).collect();
    let world = World::start(folder.path(), &flows)?;
    for (writer, name) in (1..).zip(NAMES) {
        world.write(name, &format!("of-{name}"), writer)?;
    }
    let all = ["of-east", "of-west", "of-north", "heartbeats"];
    let expected = |others: [&'static str; 2]| [&all[..], &others].concat();
    world.wait_settled(&[
        ("east", &expected(["west.heartbeats", "north.heartbeats"])),
        ("west", &expected(["east.heartbeats", "north.heartbeats"])),
        ("north", &expected(["east.heartbeats", "west.heartbeats"])),
    ])?;
    for from in NAMES {
        for to in NAMES.into_iter().filter(|to| *to != from) {
            let topic = format!("of-{from}");
            world.ensure_same((from, &topic), (to, &topic))?;
            world.wait_beats(to, &[&format!("{from}.heartbeats")])?;
        }
    }
    for flow in world.status("east")? {
        let (other, direct) = match flow["flow"].as_str() {
            Some("west->east") => ("of-north", "north->east"),
            _ => ("of-west", "west->east"),
        };
        let notes = flow["notes"].to_string();
        ensure!(notes.contains(other) && notes.contains(direct), "{flow}");
        ensure!(flow["topics"] == 1, "{flow}");
    }
    Ok(())
}
