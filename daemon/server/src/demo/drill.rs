//! `demo --drill`: a region is lost, by itself and with everything looked at afterwards.
//!
//! What must hold in the end: the group, restarted in the other region, gets every record after its committed position
//! once and none before it, and new records can be written. Every step is timed; the first that does not hold ends the
//! drill with exit code 1.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tradewind_client::admin::NewTopic;
use tradewind_client::{Client, GroupConfig, GroupConsumer, Record};
use tradewind_mirror::status::{FailoverReport, FlowStatus};
use tradewind_wire::clock::Clock;
use tradewind_wire::compression::Codec;

use super::world::World;
use super::{mirror_of, wait_for_topic};
use crate::cli::produce::Sender;
use crate::cli::{DemoArgs, Failure, kafka};
use crate::clock::SystemClock;

/// A record as it is told from others: partition and offset.
type Place = (i32, i64);

/// Runs the drill; exit code 0 if everything held.
pub(super) fn run(args: &DemoArgs) -> Result<u8, Failure> {
    let text = match &args.input {
        Some(path) => read(path)?,
        None => Bytes::from_static(DEFAULT_INPUT),
    };
    let lines: Vec<Bytes> = text
        .split(|byte| *byte == b'\n')
        .map(|line| text.slice_ref(line))
        .collect();
    // What ends with a line break has an empty piece behind it.
    let lines = lines.strip_suffix(&[Bytes::new()]).unwrap_or(&lines);
    if lines.len() < 2 {
        return Err(Failure::Usage(
            "the drill needs a text of at least two lines".into(),
        ));
    }
    let runtime = kafka::runtime()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let world = World::start(args.daemons, args.naming, args.keep)?;
    let mut drill = Drill {
        world,
        topic: mirror_of(TOPIC, args.naming),
        steps: Steps::new(clock),
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = drill.run(lines) => outcome,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    });
    match outcome {
        Ok(()) => {
            println!("the drill succeeded");
            Ok(0)
        }
        Err(error) => {
            println!("the drill FAILED: {error:#}");
            Ok(1)
        }
    }
}

fn read(path: &Path) -> Result<Bytes, Failure> {
    let read = std::fs::read(path).map(Bytes::from);
    read.map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))
}

struct Drill {
    world: World,
    /// What the mirror of [`TOPIC`] is called in west.
    topic: String,
    steps: Steps,
}

impl Drill {
    async fn run(&mut self, lines: &[Bytes]) -> anyhow::Result<()> {
        let daemons = self.world.east.daemons.len();
        self.world.wait_until_ready(self.steps.clock.as_ref()).await?;
        self.steps.done(&format!(
            "east and west serve, {daemons} daemons each; first {}",
            self.world.east.bootstrap()[0]
        ));

        let east = kafka::client(&self.world.east.bootstrap());
        let new = NewTopic {
            name: TOPIC.to_owned(),
            partitions: Some(PARTITIONS),
            ..NewTopic::default()
        };
        east.create_topic(&new)
            .await
            .context("cannot create the topic in east")?;
        write(&east, TOPIC, lines).await.context("cannot write in east")?;
        self.steps.done(&format!(
            "{} records written in east, compressed and idempotent",
            lines.len()
        ));

        let before = consume(&east, TOPIC, lines.len() / 2)
            .await
            .context("cannot read in east")?;
        let positions = committed(&east, TOPIC).await?;
        self.steps.done(&format!(
            "group {GROUP} read {} of them in east and committed",
            before.len()
        ));

        wait_for_topic(&self.world.west, &self.topic, self.steps.clock.as_ref()).await?;
        self.wait_until_level(positions.len()).await?;
        self.steps
            .done("west has everything: lag 0, group positions exact");

        self.world.east.kill();
        self.steps.done("east is lost: every daemon killed (SIGKILL)");

        let report = self.fail_over().await?;
        let cuts: usize = report.topics.iter().map(|topic| topic.partitions.len()).sum();
        self.steps.done(&format!(
            "failover done: {} topics, {cuts} partitions, clients may write in west",
            report.topics.len()
        ));

        let west = kafka::client(&self.world.west.bootstrap());
        let rest = consume(&west, &self.topic, lines.len() - before.len())
            .await
            .context("cannot read in west")?;
        self.steps.done(&format!(
            "group {GROUP}, restarted in west, read {} records",
            rest.len()
        ));
        judge(lines, &before, &rest, &positions)?;
        self.steps
            .done("every record after the committed positions came once, none before them");

        let more: Vec<Bytes> = (0..MORE)
            .map(|i| Bytes::from(format!("written in west after the loss, {i}")))
            .collect();
        write(&west, &self.topic, &more)
            .await
            .context("cannot write in west")?;
        let new = consume(&west, &self.topic, more.len())
            .await
            .context("cannot read the new records in west")?;
        ensure!(
            sorted(new.values()) == sorted(&more),
            "the new records are not those that were written"
        );
        self.steps
            .done(&format!("{MORE} new records written and read in west"));
        Ok(())
    }

    /// Waits until the flow says that nothing is missing in west, these many group positions included.
    async fn wait_until_level(&self, positions: usize) -> anyhow::Result<()> {
        let url = format!("http://{}/v1/mirror/status", self.world.west.daemons[0].http);
        let deadline = self.steps.clock.monotonic() + LEVEL_TIMEOUT;
        loop {
            let flows: anyhow::Result<Vec<FlowStatus>> = ask(&url, None).await;
            if let Ok([flow]) = flows.as_deref()
                && flow.lag_records == Some(0)
                && flow.groups.total >= positions
                && flow.groups.exact == flow.groups.total
            {
                return Ok(());
            }
            if self.steps.clock.monotonic() > deadline {
                bail!("west is not level with east after {LEVEL_TIMEOUT:?}: {flows:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn fail_over(&self) -> anyhow::Result<FailoverReport> {
        let url = format!("http://{}/v1/failover", self.world.west.daemons[0].http);
        let body = serde_json::json!({ "flow": "east->west", "accept_loss": true });
        ask(&url, Some(body)).await.context("failover")
    }
}

/// Writes every line as a record and waits for all acknowledgements.
async fn write(client: &Client, topic: &str, lines: &[Bytes]) -> anyhow::Result<()> {
    let mut sender = Sender::new(client.clone(), Codec::Zstd);
    for (number, line) in lines.iter().enumerate() {
        sender
            .send(Record::new(topic, line.clone()).with_key(number.to_string()))
            .await?;
    }
    let acknowledged = sender.finish().await?;
    ensure!(
        acknowledged == lines.len() as u64,
        "only {acknowledged} of {} records acknowledged",
        lines.len()
    );
    Ok(())
}

/// Reads `count` records as the only member of the group, and commits them: no more are returned than that. Then looks
/// a little longer whether more come than there should be.
async fn consume(client: &Client, topic: &str, count: usize) -> anyhow::Result<BTreeMap<Place, Bytes>> {
    let mut config = GroupConfig::new(GROUP, [topic.to_owned()]);
    config.auto_commit = None;
    let mut seen = BTreeMap::new();
    config.max_poll_records = MAX_POLL.min(count);
    let clock = client.clock();
    let mut deadline = clock.monotonic() + READ_TIMEOUT;
    let mut consumer = GroupConsumer::new(client.clone(), config);
    while seen.len() < count {
        let records = consumer.poll(POLL).await?;
        if !records.is_empty() {
            deadline = clock.monotonic() + READ_TIMEOUT;
        }
        let mut positions = BTreeMap::new();
        for record in records.into_iter().take(count - seen.len()) {
            positions.insert(
                (record.topic.clone(), record.partition),
                (record.offset + 1).into(),
            );
            let place = (record.partition, record.offset);
            let twice = seen.insert(place, record.value.unwrap_or_default());
            ensure!(twice.is_none(), "the record at {place:?} came twice");
        }
        if !positions.is_empty() {
            consumer.commit_offsets(&positions).await?;
        }
        ensure!(
            clock.monotonic() < deadline,
            "only {} of {count} records within {READ_TIMEOUT:?}",
            seen.len()
        );
    }
    consumer.close(CLOSE_TIMEOUT).await?;
    Ok(seen)
}

/// Where the group stands, by partition.
async fn committed(client: &Client, topic: &str) -> anyhow::Result<BTreeMap<i32, i64>> {
    let committed = client.offset_fetch(GROUP, None).await?;
    let of_topic = committed.into_iter().filter(|((name, _), _)| name == topic);
    Ok(of_topic
        .map(|((_, partition), committed)| (partition, committed.offset))
        .collect())
}

/// Whether what was read on both sides is what was written, and west began where east was left.
fn judge(
    lines: &[Bytes],
    before: &BTreeMap<Place, Bytes>,
    rest: &BTreeMap<Place, Bytes>,
    positions: &BTreeMap<i32, i64>,
) -> anyhow::Result<()> {
    for (partition, offset) in rest.keys() {
        let committed = positions.get(partition).copied().unwrap_or(0);
        ensure!(
            *offset >= committed,
            "west gave {partition}@{offset} again, before the committed {committed}"
        );
    }
    let all = before.values().chain(rest.values());
    ensure!(
        sorted(all) == sorted(lines),
        "what was read on both sides together is not what was written"
    );
    Ok(())
}

fn sorted<'a>(values: impl IntoIterator<Item = &'a Bytes>) -> Vec<&'a Bytes> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort();
    values
}

/// Asks over HTTP: a GET, or a POST of this body.
async fn ask<T: DeserializeOwned + Send + 'static>(
    url: &str,
    body: Option<serde_json::Value>,
) -> anyhow::Result<T> {
    let url = url.to_owned();
    let asking = tokio::task::spawn_blocking(move || {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(ASK_TIMEOUT))
            .http_status_as_error(false);
        let agent = ureq::Agent::from(config.build());
        let mut answer = match body {
            Some(body) => agent.post(&url).send_json(&body)?,
            None => agent.get(&url).call()?,
        };
        let text = answer.body_mut().read_to_string()?;
        ensure!(answer.status().is_success(), "{url}: {}: {text}", answer.status());
        Ok(serde_json::from_str(&text)?)
    });
    asking.await?
}

/// Prints each step with the time it took.
struct Steps {
    clock: Arc<dyn Clock>,
    last: Duration,
}

impl Steps {
    fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            last: clock.monotonic(),
            clock,
        }
    }

    fn done(&mut self, what: &str) {
        let now = self.clock.monotonic();
        let mut line = String::new();
        let _ = write!(line, "{:>8.2} s  {what}", (now - self.last).as_secs_f64());
        println!("{line}");
        self.last = now;
    }
}

const DEFAULT_INPUT: &[u8] = include_bytes!("../../../../examples/voyages.txt");
const TOPIC: &str = "voyages";
const GROUP: &str = "harbour-office";
const PARTITIONS: i32 = 6;
const MORE: usize = 1_000;
const MAX_POLL: usize = 500;
const POLL: Duration = Duration::from_millis(200);
const LEVEL_TIMEOUT: Duration = Duration::from_secs(120);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// A failover waits for every partition's leader to write down its cut.
const ASK_TIMEOUT: Duration = Duration::from_secs(120);
