//! Malformed, truncated, oversized and random frames at the Kafka port, and garbage datagrams at the mesh port: the
//! daemon lives, its memory stays bounded, and those who behave notice nothing.
//!
//! `TRADEWIND_FRAMES` says how many of each; a few hundred in plain `cargo test`, 10 000 in `.ci/run`.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tradewind_tests::kafka::Connection;
use tradewind_tests::load::{self, Load};
use tradewind_tests::{Cluster, ClusterSpec, wait};
use tradewind_wire::api::{ApiKey, RequestHeader};
use tradewind_wire::codec::Writer;
use tradewind_wire::compression::Codec;

const TOPIC: &str = "steady";
const GROWTH_AT_MOST: u64 = 100 * 1024 * 1024;

fn frames() -> usize {
    std::env::var("TRADEWIND_FRAMES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(500)
}

/// Bytes that look like a request of some API, with a body that need not be one.
fn request(rng: &mut StdRng) -> Vec<u8> {
    let key = ApiKey::ALL[rng.random_range(0..ApiKey::ALL.len())];
    let header = RequestHeader {
        api_key: if rng.random_bool(0.9) {
            key.code()
        } else {
            rng.random()
        },
        api_version: if rng.random_bool(0.9) {
            rng.random_range(0..14)
        } else {
            rng.random()
        },
        correlation_id: rng.random(),
        client_id: rng.random_bool(0.5).then(|| "bad".into()),
    };
    let mut w = Writer::new();
    if header.encode(&mut w).is_err() {
        w = Writer::new();
    }
    let mut bytes = w.into_bytes().to_vec();
    let mut body = vec![0; rng.random_range(0..200)];
    match rng.random_range(0..3) {
        0 => rng.fill_bytes(&mut body),
        // Lengths and counts of billions, in both encodings.
        1 => body.fill(0x7f),
        _ => body.fill(0xff),
    }
    bytes.extend_from_slice(&body);
    bytes
}

/// Sends one bad thing on its own connection; that the daemon may close it at any point is part of the bargain.
fn misbehave(address: SocketAddr, rng: &mut StdRng) -> Result<()> {
    let mut connection = Connection::open(address)?;
    let _ = match rng.random_range(0..5) {
        0 => {
            let mut noise = vec![0; rng.random_range(1..2000)];
            rng.fill_bytes(&mut noise);
            connection.write_raw(&noise)
        }
        1 => {
            // A length of up to two gigabytes, and then a little.
            let length: i32 = rng.random();
            connection
                .write_raw(&length.to_be_bytes())
                .and_then(|()| connection.write_raw(&[0; 64]))
        }
        2 => {
            // A frame that ends early.
            let whole = request(rng);
            let length = i32::try_from(whole.len())?.to_be_bytes();
            let cut = rng.random_range(0..whole.len().max(1));
            connection
                .write_raw(&length)
                .and_then(|()| connection.write_raw(&whole[..cut]))
        }
        3 => connection.write_frame(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        _ => {
            let frame = request(rng);
            connection.write_frame(&frame)
        }
    };
    Ok(())
}

/// Sends garbage datagrams, a third of which begin like QUIC's first packet.
fn garbage(mesh: SocketAddr, count: usize, rng: &mut StdRng) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    for _ in 0..count {
        let mut datagram = vec![0; rng.random_range(1..1400)];
        rng.fill_bytes(&mut datagram);
        if rng.random_bool(0.33) {
            datagram.resize(1200, 0);
            datagram[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
        }
        let _ = socket.send_to(&datagram, mesh);
    }
    Ok(())
}

#[test]
fn bad_input_harms_neither_the_daemon_nor_its_other_clients() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 1))?;
    let mut kafka = cluster.kafka();
    kafka.create_topic(TOPIC, 1, &[])?;
    let load = Load::start(|| cluster.kafka(), TOPIC, 1, Codec::None);
    wait::until_true("records are written", 30, || Ok(load.batches() > 50))?;
    let before = cluster.daemons[0].resident_bytes()?;

    let mut rng = StdRng::seed_from_u64(7);
    let (address, mesh) = (cluster.daemons[0].kafka, cluster.daemons[0].mesh);
    let (mut consumed, count) = (0, frames());
    for number in 0..count {
        misbehave(address, &mut rng)?;
        if number % 50 == 0 {
            garbage(mesh, 50, &mut rng)?;
            // A consumer follows the whole time.
            let (batches, _) = kafka.fetch(TOPIC, 0, consumed)?;
            consumed = batches
                .last()
                .map_or(consumed, |last| last.header().next_offset());
        }
    }
    // Nothing of this is kept: once its connections are gone, so is their memory.
    let daemon = &mut cluster.daemons[0];
    ensure!(daemon.is_running(), "the daemon ended:\n{}", daemon.log_tail());
    let after = daemon.resident_bytes()?;
    let grown = after.saturating_sub(before);
    ensure!(grown <= GROWTH_AT_MOST, "memory grew by {} MiB", grown >> 20);

    let written = load.stop()?;
    for partition in &written {
        ensure!(
            partition.failures.is_empty(),
            "a producer saw {:?}",
            partition.failures
        );
        load::check(&mut cluster.kafka(), TOPIC, partition)?;
    }
    println!(
        "{count} bad frames and as many datagrams; memory grew by {} KiB; {} records written and read meanwhile",
        grown >> 10,
        written.iter().map(|w| w.acknowledged).sum::<u64>()
    );
    Ok(())
}
