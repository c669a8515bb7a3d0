//! `bench mirrormaker`: a flow of ours and the real MirrorMaker 2 side by side, from the same Apache Kafka.
//!
//! ```text
//! cargo run --release -p tradewind-tests --bin bench -- mirrormaker [--cells NAME,NAME] [--mirrors NAME,NAME]
//!     [--rounds N] [--megabytes N] [--seconds N] [--rate N] [--json FILE]
//! ```
//!
//! A cell's name is what it measures: `16p-zstd-100ms` is a topic of 16 partitions, batches as zstd, a round trip of 100 ms
//! between source and target; with `-flushed` both sides flush every append (`flush.messages=1`). Without `--cells` the
//! twelve of none, lz4 and zstd, 1 and 16 partitions, 0 and 100 ms are measured.
//!
//! ```text
//! producer ── Apache Kafka, one broker ── relay ──┬── one daemon of ours                      (tradewind)
//!                                                 └── MirrorMaker 2 ── Apache Kafka, one broker  (default, tuned)
//! ```
//!
//! The target reaches the source through the relay only; whoever measures does not. Targets take turns, and every codec has
//! a new one, which copies a topic for warming up before anything counts. Then, for each cell:
//!
//! 1. Its topic is made at the source. When the first record of every partition is at the target:
//! 2. *Latency.* For `--seconds`, `--rate` records a second are written to one partition, one a batch. Each counts from the
//!    moment at which its producer sends it until a consumer that waits at the target has it.
//! 3. *Catching up.* The line is cut, `--megabytes` of records of 1 KiB are written to the source by Apache Kafka's own
//!    client with its defaults, and the line is healed. `mb_s` is of uncompressed records, from the last look that finds
//!    less than an eighth of them at the target until all are there; looks are 20 ms apart. `cpu_s_per_gb` is the processor
//!    time of every process at the target from the healing to the last record, for all of them; `resident_bytes` is what
//!    those processes hold then.
//! 4. *A group.* It commits half of every partition at the source, and its positions at the target are awaited: until they
//!    are the same, or have not moved for [`SETTLED`]. `reread` is how many records it would get again there; all that it
//!    has read is as many as the `group_lag` that is still before it.
//!
//! MirrorMaker 2 looks for topics and groups and writes positions every second instead of every ten minutes and every
//! minute ([`crate::mirrors`]). A relay delays; it does not narrow a connection's window as a real line of that length
//! does with small receive buffers, which flatters whoever keeps those.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Error, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tradewind_tests::options::Options as Said;
use tradewind_tests::relay::{Line, Relay};
use tradewind_tests::{Kafka, ports, wait};
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;

use crate::clients::{Java, Load, Producer};
use crate::figures::Figures;
use crate::mirrors::{MIRRORS, Target};
use crate::systems::{Apache, Far, System};
use crate::{baseline, write};

/// Bytes of a record.
const RECORD: usize = 1024;
/// How long positions at the target must stand still until no better ones are expected.
const SETTLED: Duration = Duration::from_secs(6);
/// How long anything may take.
const LIMIT_SECONDS: u64 = 300;
/// Lines of the file that records are chosen from.
const LINES: usize = 2_000;
/// A size for printing, and the figures that a ratio is made of; all but the first are better when small.
const RATIOS: [(&str, &str); 5] = [
    ("mb_s", "MB/s"),
    ("cpu_s_per_gb", "CPU/GB"),
    ("p50_ms", "p50"),
    ("p99_ms", "p99"),
    ("resident_bytes", "memory"),
];

/// What one cell measures.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cell {
    name: String,
    partitions: i32,
    codec: Codec,
    rtt: Duration,
    flushed: bool,
}

impl FromStr for Cell {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let (rest, flushed) = match name.strip_suffix("-flushed") {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let parts: Vec<&str> = rest.split('-').collect();
        let &[partitions, codec, rtt] = parts.as_slice() else {
            bail!("cell {name}: not of the form 16p-zstd-100ms");
        };
        let number = |text: &str, unit: &str| -> Result<u16> {
            let digits = text
                .strip_suffix(unit)
                .with_context(|| format!("cell {name}: {text} is not a number and {unit}"))?;
            Ok(digits.parse()?)
        };
        let codec = Codec::ALL.into_iter().find(|known| known.name() == codec);
        let partitions = number(partitions, "p")?;
        ensure!(partitions > 0, "cell {name}: no partitions");
        Ok(Self {
            name: name.to_owned(),
            partitions: partitions.into(),
            codec: codec.with_context(|| format!("cell {name}: no such codec"))?,
            rtt: Duration::from_millis(number(rtt, "ms")?.into()),
            flushed,
        })
    }
}

fn all_cells() -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for codec in ["none", "lz4", "zstd"] {
        for rtt in [0, 100] {
            for partitions in [1, 16] {
                cells.push(format!("{partitions}p-{codec}-{rtt}ms").parse()?);
            }
        }
    }
    Ok(cells)
}

struct Options {
    cells: Vec<Cell>,
    mirrors: Vec<&'static str>,
    rounds: usize,
    megabytes: u64,
    seconds: u64,
    rate: u64,
    json: Option<PathBuf>,
}

impl Options {
    fn read(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut said = Said::read(arguments)?;
        let mirror = |name: String| {
            let known = MIRRORS.into_iter().find(|known| *known == name);
            known.with_context(|| format!("no mirror {name}: there are {}", MIRRORS.join(", ")))
        };
        let mirrors = said.take_list("--mirrors")?.map_or_else(
            || Ok(MIRRORS.to_vec()),
            |all| all.into_iter().map(mirror).collect::<Result<_>>(),
        )?;
        let options = Self {
            cells: said.take_list("--cells")?.map_or_else(all_cells, Ok)?,
            mirrors,
            rounds: said.take("--rounds")?.unwrap_or(1),
            megabytes: said.take("--megabytes")?.unwrap_or(128),
            seconds: said.take("--seconds")?.unwrap_or(6),
            rate: said.take("--rate")?.unwrap_or(200),
            json: said.take("--json")?,
        };
        said.end("see the head of tests/src/bin/bench/mirrormaker.rs")?;
        ensure!(
            options.megabytes > 0 && options.seconds > 0 && (1..=1_000).contains(&options.rate),
            "megabytes and seconds are above 0, the rate is 1 to 1000"
        );
        Ok(options)
    }

    fn records(&self) -> u64 {
        self.megabytes * 1_000_000 / RECORD as u64
    }
}

/// Measures, prints, and writes the JSON file if one is asked for.
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> Result<()> {
    let options = Options::read(arguments)?;
    let folder = tempfile::tempdir()?;
    let ceilings = ceilings(&options, folder.path())?;
    println!("ceilings, MB/s: {ceilings}");
    let java = Java::find()?;
    let listen = ports::free();
    let relay = Relay::tcp(listen, near(), 1)?;
    let far = Far {
        listen,
        told: relay.addr(),
    };
    let apache = Apache::start_far(&java, &folder.path().join("source"), far)?;
    let bench = Bench {
        source: apache.brokers()?,
        bootstrap: apache.bootstrap(),
        payload: payload(folder.path())?,
        java,
        relay,
        options,
    };
    let mut figures = Figures::default();
    for round in 0..bench.options.rounds {
        for codec in Codec::ALL {
            let of_codec = |cell: &&Cell| cell.codec == codec;
            let cells: Vec<&Cell> = bench.options.cells.iter().filter(of_codec).collect();
            if cells.is_empty() {
                continue;
            }
            // Who comes first changes from round to round.
            let mirrors = &bench.options.mirrors;
            for turn in 0..mirrors.len() {
                let mirror = mirrors[(turn + round) % mirrors.len()];
                let place = folder.path().join(format!("{mirror}-{}-{round}", codec.name()));
                bench.measure(&place, mirror, codec, &cells, &mut figures)?;
            }
        }
    }
    print(&bench.options, &figures);
    let told = json!({
        "ceilings_mb_s": ceilings,
        "options": { "megabytes": bench.options.megabytes, "seconds": bench.options.seconds,
            "rate": bench.options.rate, "rounds": bench.options.rounds },
        "ratios": ratios(&bench.options, &figures),
        "figures": figures.json(),
    });
    write(bench.options.json.as_deref(), &told)
}

fn near() -> Line {
    Line::of_rtt(Duration::ZERO)
}

/// What the machine carries without anybody mirroring.
fn ceilings(options: &Options, folder: &Path) -> Result<Value> {
    let bytes = options.megabytes * 1_000_000;
    let far = Line::of_rtt(Duration::from_millis(100));
    Ok(json!({
        "tcp": baseline::loopback_tcp(bytes)?.round(),
        "quic": baseline::loopback_quic(folder, bytes)?.round(),
        "relay": baseline::relayed_tcp(bytes, near())?.round(),
        "relay_100ms": baseline::relayed_tcp(bytes, far)?.round(),
    }))
}

/// A file of lines of [`RECORD`] bytes: orders as JSON, in which names repeat and numbers do not.
fn payload(folder: &Path) -> Result<PathBuf> {
    let mut rng = StdRng::seed_from_u64(1);
    let mut text = String::new();
    for number in 0..LINES {
        let mut line = format!("{{\"order\":{number},\"items\":[");
        loop {
            let item = format!(
                "{{\"article\":\"{:016x}\",\"count\":{},\"price_cents\":{},\"status\":\"{}\"}},",
                rng.random::<u64>(),
                rng.random_range(1..20),
                rng.random_range(100..100_000),
                ["ordered", "packed", "shipped", "returned"][rng.random_range(0..4)],
            );
            if line.len() + item.len() > RECORD - 2 {
                break;
            }
            line += &item;
        }
        line += "]}";
        text += &format!("{line:RECORD$}\n");
    }
    let path = folder.join("payload");
    fs::write(&path, text)?;
    Ok(path)
}

/// What all cells share.
struct Bench {
    options: Options,
    java: Java,
    relay: Relay,
    source: Vec<SocketAddr>,
    bootstrap: String,
    payload: PathBuf,
}

/// A topic, and what it is called at the target.
struct Topic {
    name: String,
    mirrored: String,
    partitions: i32,
}

impl Bench {
    /// One target's cells of one codec.
    fn measure(
        &self,
        place: &Path,
        mirror: &'static str,
        codec: Codec,
        cells: &[&Cell],
        figures: &mut Figures,
    ) -> Result<()> {
        fs::create_dir_all(place)?;
        self.relay.set(near());
        let prefix = place
            .file_name()
            .and_then(|name| name.to_str())
            .context("a name")?;
        let topics = format!("{prefix}[.].*");
        let mut target = Target::start(
            &self.java,
            mirror,
            place,
            self.relay.addr(),
            &topics,
            codec.name(),
        )?;
        let brokers = target.brokers()?;
        let warm = Cell {
            name: "warm-up".to_owned(),
            partitions: 4,
            codec,
            rtt: Duration::ZERO,
            flushed: false,
        };
        let topic = self.begin(prefix, &warm, &brokers)?;
        self.live(&topic, codec, &brokers, 2)?;
        self.catch_up(&topic, codec, &target)?;
        for cell in cells {
            target.ensure_running()?;
            self.relay.set(near());
            let topic = self.begin(prefix, cell, &brokers)?;
            self.relay.set(Line::of_rtt(cell.rtt));
            let [p50, p99] = self.live(&topic, codec, &brokers, self.options.seconds)?;
            let caught = self.catch_up(&topic, codec, &target)?;
            let group = self.group(&topic, &brokers)?;
            let mut note = |figure, value| figures.note(&cell.name, mirror, figure, value);
            note("p50_ms", p50);
            note("p99_ms", p99);
            note("mb_s", caught.megabytes);
            note("cpu_s_per_gb", caught.cpu_per_gb);
            note("healed_to_last_s", caught.seconds);
            note("resident_bytes", caught.resident as f64);
            note("reread", group.reread as f64);
            note("group_lag", group.lag as f64);
            note("twice", group.twice as f64);
            println!(
                "{mirror:9} {:16} {:7.1} MB/s {:6.2} CPU s/GB {:5} MiB  p50 {p50:7.1} p99 {p99:7.1} ms  {} of {} re-read{}",
                cell.name,
                caught.megabytes,
                caught.cpu_per_gb,
                caught.resident >> 20,
                group.reread,
                group.lag,
                if group.twice > 0 {
                    format!(", {} twice", group.twice)
                } else {
                    String::new()
                },
            );
        }
        drop(target);
        fs::remove_dir_all(place)?;
        let tool = "org.apache.kafka.tools.TopicCommand";
        self.java.run(
            tool,
            &[
                "--bootstrap-server",
                &self.bootstrap,
                "--delete",
                "--topic",
                &topics,
            ],
        )?;
        Ok(())
    }

    /// Makes a topic with a record in every partition, and waits until those are at the target.
    fn begin(&self, prefix: &str, cell: &Cell, target: &[SocketAddr]) -> Result<Topic> {
        let name = format!("{prefix}.{}", cell.name);
        let (mut source, mut target) = (self.source(), Kafka::new(target.to_vec()));
        let flush = if cell.flushed { "1" } else { "9223372036854775807" };
        source.create_topic_with(&name, cell.partitions, 1, &[("flush.messages", flush)])?;
        for partition in 0..cell.partitions {
            let batch = record(cell.codec, 0)?;
            wait::until("a first record is written", 60, || {
                source.append(&name, partition, batch.clone()).map(Some)
            })?;
        }
        let topic = Topic {
            mirrored: format!("east.{name}"),
            name,
            partitions: cell.partitions,
        };
        wait::until_true("the first records are at the target", LIMIT_SECONDS, || {
            let ends = target.ends(&topic.mirrored, topic.partitions)?;
            Ok(ends.iter().all(|end| *end > 0))
        })?;
        Ok(topic)
    }

    fn source(&self) -> Kafka {
        Kafka::new(self.source.clone())
    }

    /// The median and the 99th percentile of the time that a record takes, in ms.
    fn live(&self, topic: &Topic, codec: Codec, target: &[SocketAddr], seconds: u64) -> Result<[f64; 2]> {
        let count = usize::try_from(seconds * self.options.rate)?;
        let (mut source, mut target) = (self.source(), Kafka::new(target.to_vec()));
        let mirrored = topic.mirrored.clone();
        let from = target.end(&mirrored, 0)?;
        let reader = thread::spawn(move || -> Result<Vec<(usize, Instant)>> {
            let (mut seen, mut at) = (Vec::new(), from);
            let deadline = Instant::now() + Duration::from_secs(LIMIT_SECONDS);
            while seen.len() < count {
                let records = target.records_at(&mirrored, 0, at)?;
                let now = Instant::now();
                for record in records {
                    at = record.offset + 1;
                    seen.push((number(record.value.as_deref())?, now));
                }
                ensure!(now < deadline, "{} of {count} live records came", seen.len());
            }
            Ok(seen)
        });
        let gap = Duration::from_secs(1) / u32::try_from(self.options.rate)?;
        let began = Instant::now();
        let mut sent = Vec::new();
        for at in 0..count {
            let batch = record(codec, at)?;
            let due = began + gap * u32::try_from(at)?;
            wait::pace(due.saturating_duration_since(Instant::now()));
            sent.push(Instant::now());
            source.append(&topic.name, 0, batch)?;
        }
        let seen = reader
            .join()
            .map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        let mut took = Vec::new();
        for (at, seen) in seen {
            let sent = sent.get(at).context("a record that was not sent")?;
            took.push((seen - *sent).as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        let percentile = |of: usize| took.get(took.len() * of / 100).copied();
        Ok([50, 99].map(|of| percentile(of).unwrap_or(f64::NAN)))
    }

    /// Fills the topic behind a cut line and heals it.
    fn catch_up(&self, topic: &Topic, codec: Codec, target: &Target) -> Result<Caught> {
        let mut there = Kafka::new(target.brokers()?);
        let mut count = || -> Result<i64> { Ok(there.ends(&topic.mirrored, topic.partitions)?.iter().sum()) };
        let records = self.options.records();
        let (before, all) = (count()?, i64::try_from(records)?);
        self.relay.cut();
        let load = Load {
            records,
            record_bytes: RECORD as u64,
            payload: Some(self.payload.clone()),
            rate: None,
            uncounted: 0,
            properties: vec![
                "acks=all".to_owned(),
                format!("compression.type={}", codec.name()),
            ],
        };
        let filled = self.java.load(&self.bootstrap, &topic.name, &load);
        let (cpu, healed) = (target.cpu_seconds()?, Instant::now());
        self.relay.heal();
        filled?;
        let (mut first, mut began) = (0, healed);
        let ended = wait::until("everything is at the target", LIMIT_SECONDS, || {
            let looked = Instant::now();
            let now = count()? - before;
            if now < all / 8 {
                (first, began) = (now, looked);
            }
            ensure!(now >= all, "{now} of {all} records");
            Ok(Some(Instant::now()))
        })?;
        let cpu = target.cpu_seconds()? - cpu;
        let bytes = |records: i64| records as f64 * RECORD as f64;
        Ok(Caught {
            megabytes: bytes(all - first) / 1e6 / (ended - began).as_secs_f64(),
            cpu_per_gb: cpu / (bytes(all) / 1e9),
            seconds: (ended - healed).as_secs_f64(),
            resident: target.resident_bytes()?,
        })
    }

    /// A group that has read half of the topic: what it would get again at the target.
    fn group(&self, topic: &Topic, target: &[SocketAddr]) -> Result<Group> {
        let (mut source, mut target) = (self.source(), Kafka::new(target.to_vec()));
        let ends = source.ends(&topic.name, topic.partitions)?;
        let half: Vec<i64> = ends.iter().map(|end| end / 2).collect();
        let positions: Vec<(i32, i64)> = (0..).zip(half.iter().copied()).collect();
        let group = format!("readers-{}", topic.name);
        wait::until("the group's positions are committed", 60, || {
            source.commit(&group, &topic.name, &positions).map(Some)
        })?;
        let mut last = (Vec::new(), Instant::now());
        let reached = wait::until("the group's positions are at the target", LIMIT_SECONDS, || {
            let now = target.committed(&group, &topic.mirrored, topic.partitions)?;
            if now != last.0 {
                last = (now, Instant::now());
            }
            let has_settled = last.0.iter().any(|at| *at >= 0) && last.1.elapsed() > SETTLED;
            Ok((last.0 == half || has_settled).then(|| last.0.clone()))
        })?;
        let there = target.ends(&topic.mirrored, topic.partitions)?;
        let sum = |all: &[i64]| all.iter().sum::<i64>();
        let again = half.iter().zip(&reached).map(|(half, at)| half - (*at).max(0));
        Ok(Group {
            reread: again.sum(),
            lag: sum(&ends) - sum(&half),
            twice: sum(&there) - sum(&ends),
        })
    }
}

/// What catching up came to.
struct Caught {
    megabytes: f64,
    cpu_per_gb: f64,
    /// From the healing of the line to the last record.
    seconds: f64,
    resident: u64,
}

/// What a group finds at the target.
struct Group {
    reread: i64,
    /// Records after its positions, at the source.
    lag: i64,
    /// Records that the target has more than the source.
    twice: i64,
}

/// A batch of one record, which is a number and then what compresses like text.
fn record(codec: Codec, number: usize) -> Result<bytes::Bytes> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let mut value = format!("{number} ").into_bytes();
    let text = b"trade wind ".iter().copied().cycle();
    value.extend(text.take(RECORD.saturating_sub(value.len())));
    let mut builder = BatchBuilder::new(codec, TimestampType::Create);
    builder.append(i64::try_from(now.as_millis())?, None, Some(&value), &[]);
    Ok(builder.build())
}

fn number(value: Option<&[u8]>) -> Result<usize> {
    let text = std::str::from_utf8(value.context("a record without a value")?)?;
    let number = text.split(' ').next().unwrap_or_default();
    number.parse().with_context(|| format!("record {number:?}"))
}

/// Who ours is compared with.
fn others(options: &Options) -> impl Iterator<Item = &'static str> {
    let ours = MIRRORS[0];
    let compared = options.mirrors.contains(&ours);
    let others = options.mirrors.clone().into_iter();
    others.filter(move |mirror| compared && *mirror != ours)
}

fn ratios(options: &Options, figures: &Figures) -> Vec<Value> {
    let mut all = Vec::new();
    for other in others(options) {
        for cell in &options.cells {
            let ratio = |(figure, _): (&'static str, _)| {
                let ratio = figures.ratio(&cell.name, figure, [MIRRORS[0], other]);
                (figure.to_owned(), json!(ratio))
            };
            let ratio = serde_json::Map::from_iter(RATIOS.map(ratio));
            all.push(json!({ "cell": cell.name, "to": other, "ratio": ratio }));
        }
    }
    all
}

fn print(options: &Options, figures: &Figures) {
    for other in others(options) {
        println!(
            "\nratios, ours / MirrorMaker 2 {other}, medians of the rounds; records that a group re-reads"
        );
        let head = RATIOS.map(|(_, name)| format!("{name:>7}")).join(" ");
        println!("  {:24} {head}  ours / theirs of lag", "cell");
        for cell in &options.cells {
            let ratio =
                |(figure, _)| format!("{:7.3}", figures.ratio(&cell.name, figure, [MIRRORS[0], other]));
            let of = |mirror, figure| figures.of(&cell.name, mirror, figure);
            println!(
                "  {:24} {}  {} / {} of {}",
                cell.name,
                RATIOS.map(ratio).join(" "),
                of(MIRRORS[0], "reread"),
                of(other, "reread"),
                of(other, "group_lag")
            );
        }
    }
    println!("\nMB/s, CPU s/GB, p50 and p99 ms, MiB at the target");
    for cell in &options.cells {
        for mirror in &options.mirrors {
            let of = |figure| figures.of(&cell.name, mirror, figure);
            println!(
                "  {:24} {mirror:9} {:7.1} {:7.2} {:8.1} {:8.1} {:6.0}",
                cell.name,
                of("mb_s"),
                of("cpu_s_per_gb"),
                of("p50_ms"),
                of("p99_ms"),
                of("resident_bytes") / f64::from(1 << 20)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_what_its_name_says() {
        let cell: Cell = "16p-zstd-100ms-flushed".parse().unwrap();
        assert_eq!((cell.partitions, cell.codec.name()), (16, "zstd"));
        assert_eq!((cell.rtt, cell.flushed), (Duration::from_millis(100), true));
        for wrong in [
            "16p",
            "16p-zstd",
            "16-zstd-0ms",
            "0p-zstd-0ms",
            "1p-brotli-0ms",
            "1p-none-0",
        ] {
            assert!(wrong.parse::<Cell>().is_err(), "{wrong}");
        }
        assert_eq!(all_cells().unwrap().len(), 12);
    }

    #[test]
    fn records_to_choose_from_are_all_as_long_as_they_are_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(payload(folder.path()).unwrap()).unwrap();
        assert_eq!(text.lines().count(), LINES);
        assert!(text.lines().all(|line| line.len() == RECORD));
    }

    #[test]
    fn a_live_record_tells_its_number() {
        let batch = tradewind_wire::batch::Batch::parse(record(Codec::Zstd, 7).unwrap()).unwrap();
        let records = batch.records(1 << 20).unwrap();
        let record = records.iter().next().unwrap().unwrap();
        assert_eq!(number(record.value).unwrap(), 7);
        assert_eq!(record.value.unwrap().len(), RECORD);
    }
}
