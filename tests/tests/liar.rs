//! A daemon that mirrors from a source that lies: each lie is told in `mirror status`, nothing of it is written, and all
//! other partitions go on. And what a source that is lost leaves behind.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::Value;
use tradewind_tests::liar::{Group, Liar, Partition};
use tradewind_tests::{Cluster, wait};
use tradewind_wire::batch::{Batch, ControlKind, split};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::TopicId;
use tradewind_wire::messages::FetchRequest;
use tradewind_wire::messages::fetch::{FetchPartition, FetchTopic};

/// The records that each of the lying topics begins with, which are no lies.
const TRUE: i64 = 3;

/// A topic, what is wrong with it, and the words in which status has to tell of it; none for what does no harm.
type Lie = (&'static str, fn(&mut Partition), &'static [&'static str]);

const LIES: [Lie; 10] = [
    (
        "crc",
        |partition| {
            let mut batch = sound(partition).to_vec();
            let last = batch.len() - 1;
            batch[last] ^= 1;
            partition.put(batch.into());
        },
        &["has failed", "damaged records at offset 3", "CRC"],
    ),
    (
        "long",
        |partition| {
            let mut batch = sound(partition).to_vec();
            batch[8..12].copy_from_slice(&(1_i32 << 30).to_be_bytes());
            partition.put(batch.into());
        },
        &["has failed", "damaged records at offset 3", "of which"],
    ),
    (
        "short",
        |partition| {
            let mut batch = sound(partition).to_vec();
            batch[8..12].copy_from_slice(&10_i32.to_be_bytes());
            partition.put(batch.into());
        },
        &["has failed", "damaged records at offset 3"],
    ),
    (
        "back",
        |partition| {
            let mut batch = sound(partition).to_vec();
            batch[..8].copy_from_slice(&1_i64.to_be_bytes());
            partition.put(batch.into());
        },
        &["has failed", "offset 3", "only records below it came"],
    ),
    (
        "old",
        |partition| {
            let mut batch = sound(partition).to_vec();
            batch[16] = 1;
            partition.put(batch.into());
        },
        &["has failed", "old record format at offset 3"],
    ),
    (
        "ahead",
        |partition| {
            let batch = sound(partition);
            partition.put(batch);
            partition.end = TRUE;
        },
        &["has tried again", "offset 3, above its own high watermark 3"],
    ),
    (
        "elder",
        |partition| {
            let mut batch = sound(partition).to_vec();
            batch[12..16].copy_from_slice(&4_i32.to_be_bytes());
            partition.put(batch.into());
        },
        &["is diverged", "lineage goes backwards"],
    ),
    (
        "newest",
        |partition| {
            let mut batch = sound(partition).to_vec();
            batch[12..16].copy_from_slice(&i32::MAX.to_be_bytes());
            partition.put(batch.into());
        },
        &["is diverged", "larger than any"],
    ),
    (
        "denied",
        |partition| partition.refusal = ErrorCode::TopicAuthorizationFailed.code(),
        &[
            "has tried again",
            "TOPIC_AUTHORIZATION_FAILED",
            "let the flow's user read",
        ],
    ),
    ("good", |_| (), &[]),
];

/// Topics that begin to lie when all of their records have been copied, or that lie about themselves.
const LATER: [(&str, &[&str]); 4] = [
    ("lost", &["has tried again", "ends at 2"]),
    (
        "unclean",
        &["is diverged", "ends at 2 there, but records up to 3 are here"],
    ),
    ("again", &["has failed", "deleted and created again"]),
    ("other", &["has tried again", "leave the partition out"]),
];

fn sound(partition: &Partition) -> Bytes {
    let mut builder = partition.builder();
    builder.append(1_700_000_000_000, None, Some(b"a lie"), &[]);
    builder.build()
}

/// A daemon whose flow reads from the liar.
fn west(folder: &Path, liar: &Liar) -> Result<Cluster> {
    let west = Cluster::prepare(folder, "west", 1)?;
    west.configure(&format!(
        "[clusters.east]\nkafka = [\"{}\"]\n\n[[mirror]]\nfrom = \"east\"\nnaming = \"prefix\"\n",
        liar.addr()
    ))?;
    Ok(west)
}

fn status(west: &Cluster) -> Result<Value> {
    let flows = west.ask(&["mirror", "status"])?;
    flows.get(0).cloned().context("no flow")
}

/// Whether one sentence of the flow's problems begins with `of` and has all these words.
fn told(status: &Value, of: &str, words: &[&str]) -> bool {
    let problems = status["problems"].as_array().into_iter().flatten();
    let mut problems = problems.filter_map(Value::as_str);
    problems.any(|problem| problem.starts_with(of) && words.iter().all(|word| problem.contains(word)))
}

/// Batches without what a mirror may change.
fn bare(batches: impl Iterator<Item = Result<Batch>>) -> Result<Vec<Bytes>> {
    batches
        .map(|batch| {
            let mut batch = batch?;
            batch.set_leader_epoch(0);
            Ok(batch.to_bytes())
        })
        .collect()
}

/// What is in the mirror of `topic` is what the source had, up to `end`.
fn same(west: &Cluster, before: &[Bytes], topic: &str, end: i64) -> Result<()> {
    let mut kafka = west.kafka();
    let mirror = format!("east.{topic}");
    let here = kafka.batches(&mirror, 0, 0)?;
    ensure!(
        kafka.end(&mirror, 0)? == end,
        "{topic} ends at {}",
        kafka.end(&mirror, 0)?
    );
    let there = before
        .iter()
        .flat_map(|bytes| split(bytes.clone()))
        .map(|batch| Ok(batch?));
    ensure!(
        bare(here.into_iter().map(Ok))? == bare(there)?,
        "{topic}: other batches than at the source"
    );
    Ok(())
}

#[test]
fn each_lie_is_told_nothing_of_it_is_written_and_the_others_go_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let liar = Liar::start()?;
    let mut honest = Vec::new();
    for topic in LIES.iter().map(|lie| lie.0).chain(LATER.iter().map(|lie| lie.0)) {
        liar.create(topic);
        liar.partition(topic, |partition| {
            partition.produce(&["a", "b"]);
            partition.produce(&["c"]);
            honest = partition.batches.iter().map(|(_, bytes)| bytes.clone()).collect();
        })?;
    }
    for (topic, lie, _) in LIES {
        liar.partition(topic, lie)?;
    }
    liar.change(|world| {
        // As many partitions as there are numbers, by the words of a topic that has one.
        if let Some(topic) = world.topics.get_mut("good") {
            topic.numbers.push(i32::MAX - 1);
        }
        if let Some(topic) = world.topics.get_mut("other") {
            topic.fetched_as = TopicId([9; 16]);
        }
        let group = |topic: &str, offset, refusal| Group {
            positions: [(topic.to_owned(), offset)].into(),
            refusal,
        };
        world.groups.insert("readers".into(), group("good", 2, 0));
        world.groups.insert("forked".into(), group("unclean", 2, 0));
        let refusal = ErrorCode::GroupAuthorizationFailed.code();
        world.groups.insert("secret".into(), group("good", 1, refusal));
    });
    let mut west = west(folder.path(), &liar)?;
    west.start_all()?;
    wait::until("what is true is copied", 40, || {
        for topic in ["good", "lost", "unclean", "again"] {
            ensure!(west.kafka().end(&format!("east.{topic}"), 0)? == TRUE);
        }
        let status = status(&west)?;
        ensure!(
            status["groups"] == serde_json::json!({ "exact": 2, "total": 2 }),
            "{status}"
        );
        Ok(Some(()))
    })?;

    liar.partition("lost", |partition| partition.end = 2)?;
    liar.partition("unclean", |partition| {
        partition.elect(2);
        for value in ["other", "records", "of", "the", "same", "offsets"] {
            partition.produce(&[value]);
        }
    })?;
    liar.change(|world| {
        if let Some(topic) = world.topics.get_mut("again") {
            (topic.id, topic.fetched_as) = (TopicId([8; 16]), TopicId([8; 16]));
        }
        if let Some(group) = world.groups.get_mut("forked") {
            group.positions.insert("unclean".into(), TRUE + 1);
        }
    });
    let static_lies = LIES.iter().map(|lie| (lie.0, lie.2));
    let lies: Vec<(&str, &[&str])> = static_lies.chain(LATER).collect();
    let status = wait::until("every lie is told", 60, || {
        let status = status(&west)?;
        for (topic, words) in lies.iter().filter(|(_, words)| !words.is_empty()) {
            let of = format!("east.{topic}/0 ");
            ensure!(told(&status, &of, words), "{topic}: {words:?} in {status:#}");
        }
        ensure!(
            status["groups"] == serde_json::json!({ "exact": 1, "total": 2 }),
            "{status}"
        );
        Ok(Some(status))
    })?;
    ensure!(status["state"] == "degraded", "{status}");
    let refused = ["does not tell its positions", "GROUP_AUTHORIZATION_FAILED"];
    ensure!(told(&status, "group secret: ", &refused), "{status:#}");
    ensure!(
        !status["problems"].to_string().contains("coordinator"),
        "{status:#}"
    );
    ensure!(
        !status["problems"].to_string().contains("east.good"),
        "{status:#}"
    );

    liar.partition("good", |partition| partition.produce(&["and", "more"]))?;
    wait::until_true("the good topic goes on", 10, || {
        Ok(west.kafka().end("east.good", 0)? == TRUE + 2)
    })?;
    let good = liar.partition("good", |partition| {
        partition
            .batches
            .iter()
            .map(|(_, bytes)| bytes.clone())
            .collect::<Vec<_>>()
    })?;
    same(&west, &good, "good", TRUE + 2)?;
    ensure!(west.kafka().partitions("east.good")?.len() == 1);
    for (topic, _) in lies {
        match topic {
            "good" => {}
            "denied" | "other" => same(&west, &[], topic, 0)?,
            _ => same(&west, &honest, topic, TRUE)?,
        }
    }
    ensure!(west.kafka().committed("forked", "east.unclean", 1)? == [2]);
    Ok(())
}

/// The last stable offset, the aborted transactions (producer id, first offset), and the batches below it.
type Committed = (i64, Vec<(i64, i64)>, Vec<Batch>);

/// What readers of committed records get: the last stable offset, the aborted transactions, and all batches below it.
fn read_committed(west: &Cluster, topic: &str) -> Result<Committed> {
    let mut kafka = west.kafka();
    let address = kafka.leader(topic, 0, true)?;
    let request = FetchRequest {
        isolation_level: 1,
        max_wait_ms: 100,
        topics: vec![FetchTopic {
            topic: topic.into(),
            partitions: vec![FetchPartition {
                partition_max_bytes: 1 << 20,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut response = kafka.at(address, &request, 11)?;
    let topic = response.responses.first_mut().context("the topic")?;
    let data = topic.partitions.first_mut().context("the partition")?;
    let aborted = data.aborted_transactions.take().unwrap_or_default();
    let batches: Result<Vec<Batch>, _> = split(data.records.to_bytes()).collect();
    Ok((
        data.last_stable_offset,
        aborted
            .iter()
            .map(|one| (one.producer_id, one.first_offset))
            .collect(),
        batches?,
    ))
}

/// The values that a reader of committed records is given: none of an aborted transaction, no marker.
fn visible(aborted: &[(i64, i64)], batches: &[Batch]) -> Result<Vec<String>> {
    let mut values = Vec::new();
    for batch in batches {
        let header = batch.header();
        let gone = |(producer, first): &(i64, i64)| {
            header.is_transactional() && header.producer_id == *producer && header.base_offset >= *first
        };
        if header.is_control() || aborted.iter().any(gone) {
            continue;
        }
        for record in &batch.records(1 << 20)? {
            values.push(String::from_utf8_lossy(record?.value.unwrap_or_default()).into_owned());
        }
    }
    Ok(values)
}

/// A transaction that is open when its source is lost would stop readers of committed records for good; one that ended
/// behind it, above the source's last stable offset, must not be lost.
#[test]
fn a_transaction_that_was_open_is_aborted_by_the_failover_and_ended_ones_stay() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let liar = Liar::start()?;
    liar.create("ledger");
    liar.partition("ledger", |partition| {
        partition.produce(&["before"]);
        partition.produce_in_transaction(11, &["open"]);
        partition.produce_in_transaction(12, &["done"]);
        partition.end_transaction(ControlKind::Commit, 12);
        partition.produce_in_transaction(13, &["undone"]);
        partition.end_transaction(ControlKind::Abort, 13);
        partition.produce(&["after"]);
    })?;
    let mut west = west(folder.path(), &liar)?;
    west.start_all()?;
    wait::until_true("all of it is copied", 40, || {
        Ok(west.kafka().end("east.ledger", 0)? == 7)
    })?;
    let (stable, _, _) = read_committed(&west, "east.ledger")?;
    ensure!(
        stable == 1,
        "the mirror knows that a transaction is open: {stable}"
    );
    drop(liar);

    let fail_over = |west: &Cluster| west.ask(&["failover", "east->west", "--accept-loss"]);
    let report = fail_over(&west)?;
    let aborted = serde_json::json!([{
        "topic": "east.ledger", "partition": 0, "first_offset": 1, "producer_id": 11, "marker": 7,
    }]);
    ensure!(report["aborted"] == aborted, "{report:#}");
    let cut = &report["topics"][0]["partitions"][0]["cut"];
    ensure!(*cut == 7, "markers are above the cut: {report:#}");

    let expected = ["before", "done", "after"];
    let (stable, gone, batches) = read_committed(&west, "east.ledger")?;
    ensure!(stable == 8 && gone.contains(&(11, 1)), "{stable} {gone:?}");
    ensure!(visible(&gone, &batches)? == expected);

    west.kill_all();
    west.start_all()?;
    wait::until("all of it is there after a kill", 30, || {
        let (stable, gone, batches) = read_committed(&west, "east.ledger")?;
        ensure!(stable == 8, "the last stable offset is {stable}");
        ensure!(visible(&gone, &batches)? == expected);
        Ok(Some(()))
    })?;
    let again = wait::until("the report can be had again", 30, || Ok(Some(fail_over(&west)?)))?;
    ensure!(again["aborted"] == aborted, "{again:#}");
    Ok(())
}

#[test]
fn a_target_without_room_says_so_and_goes_on_when_there_is() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let liar = Liar::start()?;
    liar.create("orders");
    liar.partition("orders", |partition| {
        partition.produce(&["a", "b"]);
        partition.produce(&["c"]);
    })?;
    let mut west = west(folder.path(), &liar)?;
    let config = west.daemon(1)?.folder.join("tradewind.toml");
    let roomy = fs::read_to_string(&config)?;
    fs::write(
        &config,
        roomy.replace("[node]\n", "[node]\ndisk_reserve = \"1000000TiB\"\n"),
    )?;
    west.start_all()?;
    let words = [
        "has failed",
        "no room for records",
        "node.disk_reserve",
        "make room",
    ];
    wait::until("the full disk is told", 40, || {
        let status = status(&west)?;
        ensure!(told(&status, "east.orders/0 ", &words), "{status:#}");
        Ok(Some(()))
    })?;
    ensure!(west.kafka().end("east.orders", 0)? == 0);
    west.kill_all();
    fs::write(&config, roomy)?;
    west.start_all()?;
    wait::until_true("it goes on by itself", 40, || {
        Ok(west.kafka().end("east.orders", 0)? == TRUE)
    })?;
    let there = liar.partition("orders", |partition| {
        partition
            .batches
            .iter()
            .map(|(_, bytes)| bytes.clone())
            .collect::<Vec<_>>()
    })?;
    same(&west, &there, "orders", TRUE)
}
