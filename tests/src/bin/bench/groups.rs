//! How long many groups take to settle: `bench groups`.
//!
//! ```text
//! bench groups [--bootstrap HOST:PORT] [--groups N] [--members N] [--rounds N] [--json FILE]
//! ```
//!
//! Every member has a connection and a thread of its own: 100 groups of 10 unless told otherwise. Three times are taken,
//! each of both protocols: from the first request until all groups are stable with all members; from the moment at which
//! one member of each group leaves until the others are; and the same after the next. A classic group is stable when all
//! members synced one generation that counts them all, one of the consumer protocol when all members have one epoch and
//! hold all partitions between them. With `--bootstrap` one running cluster is measured; without, Tradewind and Apache
//! Kafka take turns.

use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use tradewind_tests::kafka::Connection;
use tradewind_tests::options::Options as Said;
use tradewind_tests::{Kafka, wait};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::consumer_group_heartbeat::TopicPartitions;
use tradewind_wire::messages::join_group::JoinGroupRequestProtocol;
use tradewind_wire::messages::leave_group::MemberIdentity;
use tradewind_wire::messages::sync_group::SyncGroupRequestAssignment;
use tradewind_wire::messages::{
    ConsumerGroupHeartbeatRequest, FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, SyncGroupRequest,
};

use crate::systems::{self, SYSTEMS};
use crate::{median, write};

/// The topic that all groups read, and its partitions.
const TOPIC: &str = "bench-groups";
const PARTITIONS: i32 = 20;
/// How long one settling may take.
const LIMIT_SECONDS: u64 = 180;
/// How often a member that has nothing to do is heard from. Clients take 3 and 5 s; here nobody waits for that.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// What Apache Kafka's brokers have in their configuration too.
const NO_DELAY: &str = "[topic_defaults]\n\"group.initial.rebalance.delay.ms\" = 0\n";

struct Options {
    bootstrap: Option<String>,
    groups: usize,
    members: usize,
    rounds: usize,
    json: Option<PathBuf>,
}

/// The protocols, under Kafka's names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Classic,
    Consumer,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> Result<()> {
    let options = options(arguments)?;
    let mut cells: Vec<Value> = Vec::new();
    if let Some(bootstrap) = &options.bootstrap {
        for round in 0..options.rounds {
            measure(&options, "given", round, bootstrap, &mut cells)?;
        }
    } else {
        let folder = tempfile::tempdir()?;
        for round in 0..options.rounds {
            for name in SYSTEMS {
                let place = folder.path().join(format!("{name}-{round}"));
                let system = systems::start(name, &place, NO_DELAY, 3)?;
                measure(&options, name, round, &system.bootstrap(), &mut cells)?;
            }
        }
    }
    let figures = json!({ "groups": options.groups, "members": options.members,
        "ratio": ratios(&cells), "rounds": cells });
    write(options.json.as_deref(), &figures)
}

fn options(arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut said = Said::read(arguments)?;
    let options = Options {
        bootstrap: said.take("--bootstrap")?,
        groups: said.take("--groups")?.unwrap_or(100),
        members: said.take("--members")?.unwrap_or(10),
        rounds: said.take("--rounds")?.unwrap_or(1),
        json: said.take("--json")?,
    };
    said.end("see the head of tests/src/bin/bench/groups.rs")?;
    ensure!(
        options.members > 2,
        "a group needs three members: two of them leave"
    );
    Ok(options)
}

fn measure(
    options: &Options,
    system: &str,
    round: usize,
    bootstrap: &str,
    cells: &mut Vec<Value>,
) -> Result<()> {
    let brokers = systems::addresses(bootstrap)?;
    let mut kafka = Kafka::new(brokers.clone());
    wait::until_true("the topic is there", 60, || {
        let _ = kafka.create_topic(TOPIC, PARTITIONS, &[]);
        Ok(kafka
            .partitions(TOPIC)
            .is_ok_and(|all| all.len() == PARTITIONS as usize))
    })?;
    for protocol in [Protocol::Classic, Protocol::Consumer] {
        let times = settle(options, protocol, round, &brokers)?;
        let [join, first, second] = times.map(|time| time.as_secs_f64());
        println!(
            "round {round}, {system}, {:8}: {} groups of {} stable after {join:.2} s; one each leaves {first:.2} s, another {second:.2} s",
            protocol.name(),
            options.groups,
            options.members,
        );
        cells.push(
            json!({ "system": system, "round": round, "protocol": protocol.name(),
            "join_s": join, "leave_s": first, "leave_again_s": second }),
        );
    }
    Ok(())
}

/// Medians over the rounds, ours by theirs.
fn ratios(cells: &[Value]) -> Value {
    let mut table = serde_json::Map::new();
    if !cells.iter().any(|cell| cell["system"] == "apache") {
        return table.into();
    }
    println!("ratios, ours / Apache Kafka's, medians of the rounds");
    for protocol in ["classic", "consumer"] {
        for key in ["join_s", "leave_s", "leave_again_s"] {
            let of = |system: &str| {
                let cells = cells
                    .iter()
                    .filter(|cell| cell["system"] == system && cell["protocol"] == protocol);
                median(cells.filter_map(|cell| cell[key].as_f64()))
            };
            let (ours, theirs) = (of("tradewind"), of("apache"));
            println!(
                "  {:.2}  {protocol:8} {key:13} {ours:.2} s / {theirs:.2} s",
                ours / theirs
            );
            table.insert(format!("{protocol}.{key}"), json!(ours / theirs));
        }
    }
    table.into()
}

/// What the members of one group have told.
struct Board {
    /// Per member: the generation or epoch it is in, and how many partitions or members it counts. `None` if it is not in.
    told: Mutex<Vec<Option<(i32, usize)>>>,
    stable: AtomicBool,
}

struct Hall {
    boards: Vec<Board>,
    /// How many members a group has to have now.
    expected: AtomicUsize,
    protocol: Protocol,
    round: usize,
    brokers: Vec<SocketAddr>,
    failed: Mutex<Option<anyhow::Error>>,
    end: AtomicBool,
}

impl Hall {
    /// Waits until all groups are stable; not a moment longer once a member has failed.
    fn settle(&self) -> Result<()> {
        let failed = || self.failed.lock().ok().and_then(|mut failed| failed.take());
        let mut error = None;
        wait::until_true("all groups are stable", LIMIT_SECONDS, || {
            error = failed();
            let mut boards = self.boards.iter();
            Ok(error.is_some() || boards.all(|board| board.stable.load(Ordering::Acquire)))
        })?;
        error.map_or(Ok(()), Err)
    }

    /// A member tells where it is; the last one makes its group stable.
    fn tell(&self, group: usize, member: usize, what: Option<(i32, usize)>) {
        let board = &self.boards[group];
        let Ok(mut told) = board.told.lock() else { return };
        told[member] = what;
        let in_it: Vec<(i32, usize)> = told.iter().flatten().copied().collect();
        let expected = self.expected.load(Ordering::Acquire);
        let one = in_it
            .iter()
            .map(|(generation, _)| *generation)
            .collect::<BTreeSet<_>>()
            .len()
            == 1;
        let counted: usize = in_it.iter().map(|(_, count)| count).sum();
        let due = match self.protocol {
            // Only the leader counts.
            Protocol::Classic => expected,
            Protocol::Consumer => PARTITIONS as usize,
        };
        let stable = one && in_it.len() == expected && counted == due;
        board.stable.store(stable, Ordering::Release);
    }
}

fn settle(
    options: &Options,
    protocol: Protocol,
    round: usize,
    brokers: &[SocketAddr],
) -> Result<[Duration; 3]> {
    let board = || Board {
        told: Mutex::new(vec![None; options.members]),
        stable: AtomicBool::new(false),
    };
    let hall = Arc::new(Hall {
        boards: (0..options.groups).map(|_| board()).collect(),
        expected: AtomicUsize::new(options.members),
        protocol,
        round,
        brokers: brokers.to_vec(),
        failed: Mutex::new(None),
        end: AtomicBool::new(false),
    });
    let connected = Arc::new(Barrier::new(options.groups * options.members + 1));
    let mut threads = Vec::new();
    for group in 0..options.groups {
        for member in 0..options.members {
            let (hall, connected) = (Arc::clone(&hall), Arc::clone(&connected));
            let body = move || {
                let mut opened = Member::open(&hall, group, member);
                connected.wait();
                let lived = opened
                    .as_mut()
                    .map_err(|error| anyhow::anyhow!("{error:#}"))
                    .and_then(|m| m.live(&hall));
                if let (Err(error), Ok(mut failed)) = (lived, hall.failed.lock()) {
                    failed.get_or_insert(error.context(format!("member {member} of group {group}")));
                }
            };
            threads.push(std::thread::Builder::new().stack_size(256 << 10).spawn(body)?);
        }
    }
    connected.wait();
    let mut times = [Duration::ZERO; 3];
    let outcome = times.iter_mut().enumerate().try_for_each(|(leavers, time)| {
        let began = Instant::now();
        if leavers > 0 {
            // The threads of these members see it and leave.
            hall.expected.store(options.members - leavers, Ordering::Release);
            hall.boards
                .iter()
                .for_each(|board| board.stable.store(false, Ordering::Release));
        }
        let settled = hall.settle();
        *time = began.elapsed();
        settled
    });
    hall.end.store(true, Ordering::Release);
    for thread in threads {
        let _ = thread.join();
    }
    outcome.map(|()| times)
}

struct Member {
    group: usize,
    number: usize,
    name: String,
    connection: Connection,
    id: String,
    /// Its generation or epoch.
    generation: i32,
    owned: Vec<TopicPartitions>,
}

impl Member {
    /// Connects to the group's coordinator.
    fn open(hall: &Hall, group: usize, number: usize) -> Result<Self> {
        let name = format!("bench-{}-{}-{group}", hall.protocol.name(), hall.round);
        let mut address = None;
        wait::until_true("the group has a coordinator", 60, || {
            address = coordinator(hall, &name)?;
            Ok(address.is_some())
        })?;
        let address = address.context("an address")?;
        Ok(Self {
            group,
            number,
            name,
            // A thousand at once are more than a broker's queue of new connections may hold.
            connection: wait::until("a connection", 60, || Connection::open(address).map(Some))?,
            id: match hall.protocol {
                Protocol::Classic => String::new(),
                Protocol::Consumer => format!("bench-member-{number}"),
            },
            generation: 0,
            owned: Vec::new(),
        })
    }

    fn live(&mut self, hall: &Hall) -> Result<()> {
        loop {
            let leaves =
                self.number >= hall.expected.load(Ordering::Acquire) || hall.end.load(Ordering::Acquire);
            if leaves {
                // First what it held, so that the others cannot be counted with it.
                hall.tell(self.group, self.number, None);
                return match hall.protocol {
                    Protocol::Classic => self.leave(),
                    Protocol::Consumer => self.beat(-1).map(drop),
                };
            }
            let idle = match hall.protocol {
                Protocol::Classic => self.classic(hall)?,
                Protocol::Consumer => self.consumer(hall)?,
            };
            if idle {
                wait::pace(HEARTBEAT);
            }
        }
    }

    /// One round of the classic protocol. Returns whether there is nothing to do but wait.
    fn classic(&mut self, hall: &Hall) -> Result<bool> {
        if self.generation > 0 {
            let request = HeartbeatRequest {
                group_id: self.name.as_str().into(),
                generation_id: self.generation,
                member_id: self.id.as_str().into(),
                ..Default::default()
            };
            let answer = self.connection.ask(&request, 3)?;
            match ErrorCode::from_code(answer.error_code) {
                ErrorCode::None => return Ok(true),
                ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration => {}
                other if begins(other) => return Ok(true),
                other => bail!("heartbeat: {other:?}"),
            }
        }
        let mut metadata = vec![0, 1, 0, 0, 0, 1, 0, TOPIC.len() as u8];
        metadata.extend_from_slice(TOPIC.as_bytes());
        metadata.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        let request = JoinGroupRequest {
            group_id: self.name.as_str().into(),
            session_timeout_ms: 30_000,
            rebalance_timeout_ms: 60_000,
            member_id: self.id.as_str().into(),
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocol {
                name: "range".into(),
                metadata: metadata.into(),
            }],
            ..Default::default()
        };
        let joined = self.connection.ask(&request, 7)?;
        match ErrorCode::from_code(joined.error_code) {
            ErrorCode::None => {}
            ErrorCode::MemberIdRequired => {
                self.id = joined.member_id.to_string();
                return Ok(false);
            }
            ErrorCode::RebalanceInProgress => return Ok(false),
            other if begins(other) => return Ok(true),
            other => bail!("join: {other:?}"),
        }
        self.generation = joined.generation_id;
        let give = |id: &str| SyncGroupRequestAssignment {
            member_id: id.into(),
            assignment: Bytes::from_static(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        };
        let request = SyncGroupRequest {
            group_id: self.name.as_str().into(),
            generation_id: self.generation,
            member_id: self.id.as_str().into(),
            assignments: joined
                .members
                .iter()
                .map(|member| give(&member.member_id))
                .collect(),
            ..Default::default()
        };
        let synced = self.connection.ask(&request, 3)?;
        match ErrorCode::from_code(synced.error_code) {
            ErrorCode::None => {
                let counted = joined.members.len();
                hall.tell(self.group, self.number, Some((self.generation, counted)));
                Ok(true)
            }
            ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration => Ok(false),
            other if begins(other) => Ok(true),
            other => bail!("sync: {other:?}"),
        }
    }

    fn leave(&mut self) -> Result<()> {
        let request = LeaveGroupRequest {
            group_id: self.name.as_str().into(),
            members: vec![MemberIdentity {
                member_id: self.id.as_str().into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        self.connection.ask(&request, 4).map(drop)
    }

    /// One heartbeat of the consumer protocol. Returns whether there is nothing to do but wait.
    fn consumer(&mut self, hall: &Hall) -> Result<bool> {
        let changed = self.beat(self.generation)?;
        let held: usize = self.owned.iter().map(|topic| topic.partitions.len()).sum();
        hall.tell(self.group, self.number, Some((self.generation, held)));
        Ok(!changed)
    }

    /// Sends a heartbeat with this epoch. Returns whether it was given something to do.
    fn beat(&mut self, epoch: i32) -> Result<bool> {
        let joins = epoch == 0;
        let request = ConsumerGroupHeartbeatRequest {
            group_id: self.name.as_str().into(),
            member_id: self.id.as_str().into(),
            member_epoch: epoch,
            rebalance_timeout_ms: if joins { 60_000 } else { -1 },
            subscribed_topic_names: joins.then(|| vec![TOPIC.into()]),
            topic_partitions: Some(self.owned.clone()),
            ..Default::default()
        };
        let answer = self.connection.ask(&request, 1)?;
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => {}
            other if begins(other) => return Ok(false),
            other => bail!("heartbeat: {other:?} {:?}", answer.error_message),
        }
        self.generation = answer.member_epoch;
        let changed = answer.assignment.is_some();
        if let Some(assignment) = answer.assignment {
            self.owned = assignment.topic_partitions;
        }
        Ok(changed)
    }
}

/// Whether the coordinator has only just been made one: the same request will do in a moment.
fn begins(error: ErrorCode) -> bool {
    use ErrorCode::{CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator};
    matches!(
        error,
        CoordinatorLoadInProgress | CoordinatorNotAvailable | NotCoordinator
    )
}

fn coordinator(hall: &Hall, name: &str) -> Result<Option<SocketAddr>> {
    let request = FindCoordinatorRequest {
        coordinator_keys: vec![name.into()],
        ..Default::default()
    };
    let at = name.len() % hall.brokers.len();
    let answer = Connection::open(hall.brokers[at])?.ask(&request, 4)?;
    let found = answer.coordinators.first().context("an answer")?;
    if found.error_code != 0 {
        return Ok(None);
    }
    Ok((found.host.to_string(), found.port as u16)
        .to_socket_addrs()?
        .next())
}
