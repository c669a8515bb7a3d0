//! Disks that lie, lose, or are full, under real daemons: what is wrong is reported and mended from another copy, or the
//! daemon does not start and says which file it is; what is read is what was written, and good partitions go on.
//!
//! The same on one log, bit by bit and page by page: `daemon/log/src/tests/{faults,images}.rs`.

#![allow(clippy::disallowed_methods, reason = "records carry the real time")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tradewind_tests::kafka::Refused;
use tradewind_tests::load::{self, Load, Written};
use tradewind_tests::tear::segments;
use tradewind_tests::{Cluster, ClusterSpec, Kafka, program, wait};
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;

const TOPIC: &str = "vault";

/// What is done to one partition's files.
type Fault = (&'static str, fn(&Path) -> Result<()>);

const FAULTS: [Fault; 11] = [
    ("nothing", |_| Ok(())),
    ("its last segment is cut", |dir| {
        let path = last(segments(dir)?)?;
        let length = fs::metadata(&path)?.len();
        Ok(File::options().write(true).open(path)?.set_len(length / 2)?)
    }),
    ("its last segment is empty", |dir| {
        Ok(fs::write(last(segments(dir)?)?, b"")?)
    }),
    // One in a payload shows when it is read: the last test here.
    ("a bit of a header is flipped", |dir| {
        const MAGIC: u64 = 16;
        flip_at(&last(segments(dir)?)?, MAGIC)
    }),
    ("its first segment is missing", |dir| {
        Ok(fs::remove_file(&segments(dir)?[0])?)
    }),
    ("a segment in its middle is missing", |dir| {
        Ok(fs::remove_file(&segments(dir)?[1])?)
    }),
    ("its last segment is missing", |dir| {
        Ok(fs::remove_file(last(segments(dir)?)?)?)
    }),
    ("its directory is missing", |dir| Ok(fs::remove_dir_all(dir)?)),
    ("its indexes are missing", |dir| {
        each(dir, "index", |path| Ok(fs::remove_file(path)?))
    }),
    ("its epochs are nonsense", |dir| {
        Ok(fs::write(dir.join("leader-epochs"), "0\n1\nx y\n")?)
    }),
    ("its snapshots are flipped", |dir| {
        each(dir, "snapshot", |path| flip(path, 2))
    }),
];

fn last(mut paths: Vec<PathBuf>) -> Result<PathBuf> {
    paths.pop().context("no segment")
}

/// Does something to every file with this at the end of its name.
fn each(dir: &Path, end: &str, act: impl Fn(&Path) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(end) {
            act(&path)?;
        }
    }
    Ok(())
}

/// Flips one bit of the byte at the file's `1/part`.
fn flip(path: &Path, part: u64) -> Result<()> {
    flip_at(path, fs::metadata(path)?.len() / part)
}

fn flip_at(path: &Path, at: u64) -> Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    Ok(file.write_all_at(&[byte[0] ^ 0x10], at)?)
}

/// Where the topic's partitions are on a daemon.
fn topic_dir(kafka: &mut Kafka, cluster: &Cluster, daemon: usize) -> Result<PathBuf> {
    let metadata = kafka.metadata(TOPIC)?;
    let id = metadata.topics.first().context("the topic")?.topic_id;
    Ok(cluster.daemons[daemon]
        .folder
        .join("data/topics")
        .join(id.to_string()))
}

/// Waits until all daemons are in sync with every partition.
fn whole(kafka: &mut Kafka, daemons: usize) -> Result<()> {
    wait::until_true("all replicas are in sync", 60, || {
        let partitions = kafka.partitions(TOPIC)?;
        let told = || {
            partitions
                .iter()
                .map(|p| (p.partition_index, p.leader_id, p.isr_nodes.len()))
        };
        ensure!(
            told().all(|(_, leader, in_sync)| leader >= 0 && in_sync == daemons),
            "{:?}",
            told().collect::<Vec<_>>()
        );
        Ok(true)
    })
}

/// Waits until the daemon's checkpoints vouch for all that was written.
fn vouched(cluster: &Cluster, daemon: usize, topic: &Path, written: &[Written]) -> Result<()> {
    let id = topic
        .file_name()
        .and_then(|name| name.to_str())
        .context("a topic id")?;
    let path = cluster.daemons[daemon].folder.join("data/checkpoints");
    wait::until_true("the checkpoints vouch for everything", 30, || {
        let text = fs::read_to_string(&path)?;
        Ok(written.iter().all(|w| {
            let start = format!("{id} {} ", w.partition);
            let line = text.lines().find(|line| line.starts_with(&start));
            let recovery_point = line.and_then(|line| line.split(' ').nth(3)?.parse().ok());
            recovery_point == Some(w.acknowledged)
        }))
    })
}

/// A partition's batches as they are in a daemon's files.
fn on_disk(partition: &Path) -> Result<Vec<u8>> {
    let all: Result<Vec<Vec<u8>>> = segments(partition)?
        .iter()
        .map(|path| Ok(fs::read(path)?))
        .collect();
    Ok(all?.concat())
}

fn all_there(cluster: &Cluster, written: &[Written]) -> Result<()> {
    written
        .iter()
        .try_for_each(|partition| load::check(&mut cluster.kafka(), TOPIC, partition))
}

#[test]
fn a_copy_with_any_one_fault_is_mended_or_the_daemon_says_why_it_does_not_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 3))?;
    let mut kafka = cluster.kafka();
    let partitions = i32::try_from(FAULTS.len())?;
    kafka.create_topic(
        TOPIC,
        partitions,
        &[("segment.bytes", "8000"), ("index.interval.bytes", "500")],
    )?;
    let load = Load::start(|| cluster.kafka(), TOPIC, partitions, Codec::None);
    let (sound, spoilt) = (
        topic_dir(&mut kafka, &cluster, 0)?,
        topic_dir(&mut kafka, &cluster, 2)?,
    );
    wait::until_true("every partition has several segments", 60, || {
        let enough = |p: i32| segments(&spoilt.join(p.to_string())).is_ok_and(|all| all.len() >= 4);
        Ok((0..partitions).all(enough))
    })?;
    let written = load.stop()?;
    whole(&mut kafka, 3)?;
    vouched(&cluster, 2, &spoilt, &written)?;

    // One daemon's copies are spoilt while it is dead, each in its own way.
    cluster.daemons[2].kill();
    for (partition, (what, spoil)) in FAULTS.iter().enumerate() {
        spoil(&spoilt.join(partition.to_string())).with_context(|| (*what).to_owned())?;
    }
    cluster.start_all()?;
    let mut kafka = cluster.kafka();
    whole(&mut kafka, 3)?;
    all_there(&cluster, &written)?;
    for (partition, (what, _)) in FAULTS.iter().enumerate() {
        let partition = partition.to_string();
        let (good, mended) = (
            on_disk(&sound.join(&partition))?,
            on_disk(&spoilt.join(&partition))?,
        );
        ensure!(good == mended, "{what}: in sync, and holds something else");
    }

    refusals(&mut cluster)?;
    whole(&mut cluster.kafka(), 3)?;
    all_there(&cluster, &written)
}

/// What belongs to the daemon and not to a partition: it starts and everything is well, or it ends with a word about the
/// file, whose contents are then put back.
fn refusals(cluster: &mut Cluster) -> Result<()> {
    let data = cluster.daemons[2].folder.join("data");
    // (file, whether it is removed or flipped at which part, what must be said; nothing if the daemon must start)
    let cases: [(&str, Option<u64>, Option<&str>); 6] = [
        ("VERSION", None, Some("meta")),
        ("VERSION", Some(50), Some("VERSION")),
        ("meta/meta.redb", None, Some("the metadata is gone")),
        ("meta/meta.redb", Some(u64::MAX), Some("meta")),
        ("checkpoints", None, None),
        ("checkpoints", Some(2), None),
    ];
    for (name, part, said) in cases {
        let daemon = &mut cluster.daemons[2];
        daemon.kill();
        let path = data.join(name);
        let before = fs::read(&path)?;
        match part {
            None => fs::remove_file(&path)?,
            Some(part) => flip(&path, part)?,
        }
        let log = daemon.folder.join("log");
        let printed = fs::metadata(&log)?.len();
        daemon.start()?;
        let started = daemon.wait_ready();
        let fault = format!("{name}, {}", part.map_or("missing", |_| "flipped"));
        match (started, said) {
            (Ok(()), None) => continue,
            (Ok(()), Some(_)) => anyhow::bail!("{fault}: the daemon started"),
            (Err(error), None) => return Err(error).context(fault),
            (Err(_), Some(said)) => {
                let text = fs::read(&log)?.split_off(usize::try_from(printed)?);
                let text = String::from_utf8_lossy(&text).into_owned();
                ensure!(text.contains(said), "{fault}: no word of {said} in\n{text}");
                ensure!(!text.contains("panicked"), "{fault}: {text}");
                fs::write(&path, before)?;
            }
        }
    }
    cluster.start_all()
}

/// A batch of one large record.
fn large(number: usize) -> Result<Bytes> {
    let mut value = vec![b'x'; 256 << 10];
    value[..8].copy_from_slice(&u64::try_from(number)?.to_be_bytes());
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    builder.append(i64::try_from(now.as_millis())?, None, Some(&value), &[]);
    Ok(builder.build())
}

/// Lets no file of the daemon grow past this: what a full disk is to one file. Needs no rights.
fn limit_files(cluster: &Cluster, bytes: Option<u64>) -> Result<bool> {
    let pid = cluster.daemons[0].pid().context("the daemon runs")?.to_string();
    let limit = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
    let set = Command::new("prlimit")
        .args(["--pid", &pid, &format!("--fsize={limit}:")])
        .status();
    Ok(set.is_ok_and(|status| status.success()))
}

#[test]
fn a_full_disk_refuses_writes_and_nothing_else() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 1))?;
    let mut kafka = cluster.kafka();
    kafka.create_topic("large", 1, &[])?;
    kafka.create_topic(TOPIC, 1, &[])?;
    if !limit_files(&cluster, Some(8 << 20))? {
        ensure!(std::env::var_os("CI").is_none(), "no prlimit here");
        println!("skipped: no prlimit here");
        return Ok(());
    }
    let small = Load::start(|| cluster.kafka(), TOPIC, 1, Codec::None);
    let (mut taken, mut refused) = (0, None);
    while taken < 100 && refused.is_none() {
        match kafka.append("large", 0, large(taken)?) {
            Ok(_) => taken += 1,
            Err(error) => refused = Some(error),
        }
    }
    let refused = refused.context("32 files of 256 KiB fit into 8 MiB")?;
    let code = refused.downcast_ref::<Refused>().map(|refused| refused.0);
    ensure!(code == Some(ErrorCode::KafkaStorageError), "{refused:#}");
    ensure!(taken > 10, "only {taken} were taken");

    // Reads go on, and so do writes elsewhere.
    ensure!(
        kafka.records("large", 0, 0)?.len() == taken,
        "the large ones are not all there"
    );
    let before = small.batches();
    wait::until_true("the other partition goes on", 30, || {
        Ok(small.batches() > before + 10)
    })?;

    // With room again, writes go on where they stopped, without a restart.
    ensure!(limit_files(&cluster, None)?, "the limit stays");
    ensure!(
        kafka.append("large", 0, large(taken)?)? == i64::try_from(taken)?,
        "a hole"
    );
    let written = small.stop()?;
    ensure!(
        written.iter().all(|w| w.failures.is_empty()),
        "{:?}",
        written[0].failures
    );
    all_there(&cluster, &written)?;
    cluster.kill_all();
    cluster.start_all()?;
    let mut kafka = cluster.kafka();
    let found = wait::until("the large ones are read", 30, || {
        Ok(Some(kafka.records("large", 0, 0)?))
    })?;
    ensure!(
        found.len() == taken + 1,
        "{} of {} are there",
        found.len(),
        taken + 1
    );
    for (number, record) in found.iter().enumerate() {
        let value = record.value.as_ref().context("a value")?;
        ensure!(
            value[..8] == u64::try_from(number)?.to_be_bytes(),
            "another record at {number}"
        );
    }
    all_there(&cluster, &written)
}

#[test]
fn below_the_reserve_records_are_refused_and_nothing_else() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 1))?;
    let mut kafka = cluster.kafka();
    kafka.create_topic(TOPIC, 1, &[])?;
    kafka.append(TOPIC, 0, large(0)?)?;

    // What is free is below the reserve: metadata change, records are read, none are written.
    let file = cluster.daemons[0].folder.join("tradewind.toml");
    let text = fs::read_to_string(&file)?;
    fs::write(
        &file,
        text.replace("[node]\n", "[node]\ndisk_reserve = \"1000000TiB\"\n"),
    )?;
    cluster.daemons[0].terminate()?;
    cluster.start_all()?;
    let mut kafka = cluster.kafka();
    kafka.create_topic("another", 1, &[])?;
    ensure!(
        kafka.records(TOPIC, 0, 0)?.len() == 1,
        "the record cannot be read"
    );
    let refused = kafka.append(TOPIC, 0, large(1)?).err().context("it was taken")?;
    let code = refused.downcast_ref::<Refused>().map(|refused| refused.0);
    ensure!(code == Some(ErrorCode::KafkaStorageError), "{refused:#}");
    let url = cluster.daemons[0].url();
    let status = program::run(&["status", "--url", &url])?;
    let told = String::from_utf8_lossy(&status.stdout);
    ensure!(
        !status.status.success() && told.contains("node.disk_reserve"),
        "{told}"
    );

    fs::write(&file, text)?;
    cluster.daemons[0].terminate()?;
    cluster.start_all()?;
    let mut kafka = cluster.kafka();
    ensure!(kafka.append(TOPIC, 0, large(1)?)? == 1, "a hole");
    ensure!(kafka.records(TOPIC, 0, 0)?.len() == 2, "not both are there");
    Ok(())
}

#[test]
fn a_bit_flipped_in_a_closed_segment_is_an_error_for_its_batch_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 1))?;
    let mut kafka = cluster.kafka();
    kafka.create_topic(
        TOPIC,
        2,
        &[("segment.bytes", "8000"), ("index.interval.bytes", "500")],
    )?;
    let dir = topic_dir(&mut kafka, &cluster, 0)?;
    let load = Load::start(|| cluster.kafka(), TOPIC, 2, Codec::None);
    wait::until_true(
        "several segments",
        30,
        || Ok(segments(&dir.join("0"))?.len() >= 4),
    )?;
    let written = load.stop()?;
    vouched(&cluster, 0, &dir, &written)?;
    cluster.kill_all();
    flip(&segments(&dir.join("0"))?[1], 2)?;
    cluster.start_all()?;
    // What is read is right; the rest is refused.
    let mut kafka = cluster.kafka();
    let (mut offset, mut refused) = (0, 0);
    let end = i64::try_from(written[0].acknowledged)?;
    while offset < end {
        match kafka.records_at(TOPIC, 0, offset) {
            Ok(records) => {
                for record in &records {
                    let id = load::id_of(record.key.as_deref(), record.value.as_deref())?;
                    ensure!(
                        i64::try_from(id.number)? == record.offset,
                        "{id:?} at {}",
                        record.offset
                    );
                }
                offset = records.last().context("nothing below the end")?.offset + 1;
            }
            Err(error) => {
                let code = error.downcast_ref::<Refused>().map(|refused| refused.0);
                ensure!(
                    code == Some(ErrorCode::KafkaStorageError),
                    "at {offset}: {error:#}"
                );
                refused += 1;
                offset += i64::try_from(load::BATCH)?;
            }
        }
    }
    ensure!((1..=3).contains(&refused), "{refused} batches were refused");
    load::check(&mut kafka, TOPIC, &written[1])
}

#[test]
fn a_leader_whose_disk_fails_gives_way_to_another() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 3))?;
    let mut kafka = cluster.kafka();
    kafka.create_topic(
        TOPIC,
        1,
        &[("segment.bytes", "20000"), ("min.insync.replicas", "2")],
    )?;
    whole(&mut kafka, 3)?;
    let leads = kafka.partitions(TOPIC)?.remove(0).leader_id;
    let dir = topic_dir(&mut kafka, &cluster, usize::try_from(leads - 1)?)?;
    let load = Load::start(|| cluster.kafka(), TOPIC, 1, Codec::None);
    // The next segment cannot be begun where there is no directory any more.
    fs::rename(dir.join("0"), folder.path().join("gone"))?;
    wait::until_true("another daemon leads, without the failed copy", 60, || {
        let partition = kafka.partitions(TOPIC)?.remove(0);
        let (leader, in_sync) = (partition.leader_id, partition.isr_nodes);
        ensure!(
            leader >= 0 && leader != leads && !in_sync.contains(&leads),
            "{leader} leads, {in_sync:?} in sync"
        );
        Ok(true)
    })?;
    let before = load.batches();
    wait::until_true("writes go on", 30, || Ok(load.batches() > before + 10))?;
    let written = load.stop()?;
    load::check(&mut kafka, TOPIC, &written[0])
}
