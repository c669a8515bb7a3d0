//! `mirror verify` between real daemons: green while the flow runs, and a byte changed in a segment of the mirror is found,
//! though its log itself has no reason to doubt it. From a Tradewind source, and from one that is read as any Kafka is.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tradewind_tests::load::{self, Load};
use tradewind_tests::relay::Line;
use tradewind_tests::{Mesh, Naming, tear, wait};
use tradewind_wire::batch::BatchHeader;
use tradewind_wire::compression::Codec;

#[test]
fn a_mirror_that_runs_is_the_same_and_a_changed_byte_is_found() -> Result<()> {
    let folder = tempfile::tempdir()?;
    check(Mesh::start(folder.path(), 1, Naming::Prefix)?)
}

#[test]
fn a_source_that_only_answers_fetch_is_compared_too() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let line = Line::of_rtt(std::time::Duration::ZERO);
    let (mut mesh, _relay) = Mesh::prepare_apart(folder.path(), Naming::Prefix, line, 1, true)?;
    mesh.start_both()?;
    check(mesh)
}

fn check(mut mesh: Mesh) -> Result<()> {
    mesh.east.kafka().create_topic("orders", 2, &[])?;
    let load = Load::start(|| mesh.east.kafka(), "orders", 2, Codec::Lz4);
    let mirrored = |mesh: &Mesh| mesh.west.kafka().end("east.orders", 1);
    wait::until_true("the mirror has begun", 60, || Ok(mirrored(&mesh)? > 200))?;
    let (same, report) = mesh.verify(&[])?;
    ensure!(same && report["verdict"] == "same", "{report}");
    ensure!(report["batches"].as_u64() > Some(20), "{report}");
    let written = load.stop()?;
    mesh.wait_mirrored(1, 60)?;

    let changed = change_a_byte(&mut mesh)?;
    let (same, report) = mesh.verify(&["--topic", "orders"])?;
    ensure!(!same && report["verdict"] == "different", "{report}");
    let all = report["partitions"].as_array().context("partitions")?;
    let of = |number: i64| all.iter().find(|line| line["partition"] == number);
    let (good, bad) = (of(0).context("partition 0")?, of(1).context("partition 1")?);
    ensure!(good["differences"] == Value::Array(Vec::new()), "{report}");
    let expected = serde_json::json!([{ "from": changed.base_offset, "to": changed.next_offset(),
        "what": "other batches here than at the source" }]);
    ensure!(
        bad["topic"] == "east.orders" && bad["differences"] == expected,
        "{report}"
    );
    load::check(&mut mesh.west.kafka(), "east.orders", &written[0])
}

/// Changes the last byte of the third batch of the mirror's partition 1, and mends its CRC.
fn change_a_byte(mesh: &mut Mesh) -> Result<BatchHeader> {
    let metadata = mesh.west.kafka().metadata("east.orders")?;
    let topic = metadata.topics.first().context("the topic")?.topic_id.to_string();
    mesh.west.kill_all();
    let data = mesh.west.daemon(1)?.folder.join("data");
    let segments = tear::segments(&data.join("topics").join(topic).join("1"))?;
    let changed = change(segments.first().context("a segment")?)?;
    mesh.west.start_all()?;
    mesh.wait_mirrored(1, 60)?;
    Ok(changed)
}

fn change(segment: &Path) -> Result<BatchHeader> {
    let mut bytes = fs::read(segment)?;
    let mut at = 0;
    for _ in 0..2 {
        at += BatchHeader::parse(&bytes[at..])?.size();
    }
    let header = BatchHeader::parse(&bytes[at..])?;
    let end = at + header.size();
    bytes[end - 1] ^= 1;
    let crc = crc32c::crc32c(&bytes[at + 21..end]);
    bytes[at + 17..at + 21].copy_from_slice(&crc.to_be_bytes());
    fs::write(segment, bytes)?;
    Ok(header)
}
