//! Kills daemons on both sides of a flow while the line between them flaps, again and again, and judges what arrived.
//!
//! `mirror_crashes --kills N --totals FILE [--seed S] [--batch N] [--folder DIR]`
//!
//! Three daemons in the east, three in the west; keyed, compressed, idempotent records under `acks=all`, three copies,
//! `min.insync.replicas` 2, every append flushed, on both sides; 40 ms and 0.5 % of losses between them. Each strike kills
//! a daemon of either side by SIGKILL; about every second one also cuts the line for a while. At the end of a batch: every
//! acknowledged record is in the west once and in order, and nothing else; positions of the group are those of the east;
//! `mirror verify` finds no difference. As with `crashes`, batches have seeds of their own, FILE keeps the totals, and the
//! first batch with a fault ends the run.

use std::time::Duration;

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use tradewind_tests::batches::{self, Batch};
use tradewind_tests::load::{self, Load, Plan};
use tradewind_tests::relay::{Line, Relay};
use tradewind_tests::watch::{GROUP, Notes, Watch};
use tradewind_tests::{Cluster, Mesh, Naming, wait};
use tradewind_wire::compression::Codec;

const TOPIC: &str = "ledger";
const PARTITIONS: i32 = 3;
const DAEMONS: i32 = 3;
const SETTINGS: &str = "\n[topic_defaults]\n\"min.insync.replicas\" = 2\n\"flush.messages\" = 1\n";

/// What all batches so far came to.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Totals {
    batches: u64,
    kills: u64,
    cuts: u64,
    /// Records that were acknowledged in the east and found in the west.
    records: u64,
    /// Batches that `verify` found the same.
    verified: u64,
    /// The seed of the next batch.
    next_seed: u64,
}

impl batches::Totals for Totals {
    fn done(&self) -> u64 {
        self.kills
    }

    fn next_seed(&mut self) -> &mut u64 {
        &mut self.next_seed
    }

    fn told(&self) -> String {
        format!(
            "{} daemons killed and {} cuts in {} batches; {} records arrived once and in order, {} batches verified; 0 faults",
            self.kills, self.cuts, self.batches, self.records, self.verified
        )
    }
}

fn main() -> Result<()> {
    batches::run("mirror_crashes", "kills", 20, batch)
}

fn batch(batch: Batch<'_>, totals: &mut Totals) -> Result<()> {
    let Batch {
        folder,
        seed,
        count: kills,
    } = batch;
    let mut rng = StdRng::seed_from_u64(seed);
    let line = Line {
        loss: 0.005,
        ..Line::of_rtt(Duration::from_millis(40))
    };
    let (mut mesh, relays) = Mesh::start_far(folder, Naming::Prefix, DAEMONS, line, seed, SETTINGS)?;
    mesh.east.kafka().create_topic(TOPIC, PARTITIONS, &[])?;
    let notes = Notes::new(PARTITIONS);
    let plan = Plan {
        partitions: PARTITIONS,
        codec: Codec::Zstd,
        rest: Duration::from_millis(8),
        once: false,
    };
    let load = Load::with(|| mesh.east.kafka(), TOPIC, &plan, &notes);
    let watch = Watch::start(|| mesh.east.kafka(), TOPIC, PARTITIONS, &notes);
    for _ in 0..kills {
        totals.cuts += u64::from(strike(&mut mesh, &relays, &mut rng)?);
        moving(&load)?;
    }
    let written = load.stop()?;
    let mut history = watch.stop()?;
    judge(&mesh, &written, &mut history, totals)?;
    totals.kills += kills;
    totals.batches += 1;
    Ok(())
}

/// Kills one daemon of either side, perhaps with the line cut, and starts it again; whether the line was cut.
fn strike(mesh: &mut Mesh, relays: &[Relay], rng: &mut StdRng) -> Result<bool> {
    let cluster: &mut Cluster = if rng.random_bool(0.5) {
        &mut mesh.east
    } else {
        &mut mesh.west
    };
    let victim = rng.random_range(1..=DAEMONS);
    let cuts = rng.random_bool(0.5);
    if cuts {
        relays.iter().for_each(Relay::cut);
    }
    wait::moment(rng, 400);
    cluster.daemon(victim)?.kill();
    wait::moment(rng, 1_500);
    relays.iter().for_each(Relay::heal);
    wait::moment(rng, 400);
    cluster.start_all()?;
    Ok(cuts)
}

fn moving(load: &Load) -> Result<()> {
    let before = load.batches();
    wait::until_true("writes go on in the east", 90, || {
        ensure!(!load.has_failed(), "a writer gave up");
        Ok(load.batches() >= before + 10 * u64::from(PARTITIONS.unsigned_abs()))
    })
}

fn judge(
    mesh: &Mesh,
    written: &[load::Written],
    history: &mut tradewind_tests::history::History,
    totals: &mut Totals,
) -> Result<()> {
    mesh.wait_mirrored(1, 180)?;
    let mirrored = mesh.naming.mirrored(TOPIC);
    let (mut east, mut west) = (mesh.east.kafka(), mesh.west.kafka());
    history.writes = written.iter().flat_map(|w| w.writes.clone()).collect();
    for partition in 0..PARTITIONS {
        let there = load::read_log(&mut east, TOPIC, partition)?;
        let here = load::read_log(&mut west, &mirrored, partition)?;
        ensure!(
            here == there,
            "partition {partition} is not what it is in the east"
        );
        totals.records += here.len() as u64;
        history.logs.insert(partition, here);
    }
    load::ensure_sound(history)?;
    let positions = |kafka: &mut tradewind_tests::Kafka, topic: &str| {
        wait::until("positions are told", 60, || {
            kafka.committed(GROUP, topic, PARTITIONS).map(Some)
        })
    };
    let (there, here) = (positions(&mut east, TOPIC)?, positions(&mut west, &mirrored)?);
    ensure!(
        there == here,
        "positions {there:?} in the east, {here:?} in the west"
    );
    let (same, report) = mesh.verify(&[])?;
    ensure!(same, "verify: {report}");
    totals.verified += report["batches"].as_u64().unwrap_or(0);
    Ok(())
}
