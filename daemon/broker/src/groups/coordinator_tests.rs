//! The coordinator over a journal in memory: loading, commits, resignations, flows.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tradewind_wire::clock::Clock;

use super::record::MirroredFrom;
use super::*;

/// A partition in memory whose replication can be held back or broken.
#[derive(Clone)]
pub(super) struct Memory {
    records: Arc<Mutex<Vec<Entry>>>,
    /// What `committed` waits for.
    gate: Arc<Semaphore>,
    outcome: Arc<Mutex<Result<(), GroupError>>>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            records: Arc::default(),
            gate: Arc::new(Semaphore::new(1_000_000)),
            outcome: Arc::new(Mutex::new(Ok(()))),
        }
    }

    pub(super) fn hold(&self) {
        self.gate.forget_permits(usize::MAX);
    }

    pub(super) fn release(&self) {
        self.gate.add_permits(1_000_000);
    }

    fn wait(&self) -> impl Future<Output = Result<(), GroupError>> + use<> {
        let this = self.clone();
        async move {
            this.gate.acquire().await.unwrap().forget();
            *this.outcome.lock().unwrap()
        }
    }
}

impl Journal for Memory {
    fn append(&self, entries: &[Entry]) -> Result<i64, GroupError> {
        let mut records = self.records.lock().unwrap();
        let base = records.len() as i64;
        records.extend_from_slice(entries);
        Ok(base)
    }

    fn committed(&self, _: i64, _: Duration) -> BoxFuture<'static, Result<(), GroupError>> {
        self.wait().boxed()
    }

    fn replay(&self, mut each: Box<EachRecord>) -> BoxFuture<'static, Result<(), GroupError>> {
        let (records, wait) = (Arc::clone(&self.records), self.wait());
        async move {
            wait.await?;
            for (offset, (key, value)) in (0..).zip(records.lock().unwrap().iter()) {
                each(offset, key, value.as_deref());
            }
            Ok(())
        }
        .boxed()
    }
}

pub(super) struct HandClock(pub(super) AtomicI64);

impl Clock for HandClock {
    fn now_ms(&self) -> i64 {
        1_000_000 + self.0.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst) as u64)
    }
}

pub(super) fn coordinator() -> (Coordinator, Arc<HandClock>) {
    let clock = Arc::new(HandClock(AtomicI64::new(0)));
    let config = GroupConfig {
        initial_rebalance_delay_ms: 0,
        ..GroupConfig::default()
    };
    (Coordinator::new(config, 50, Arc::clone(&clock) as _), clock)
}

/// Waits until `group` may be asked for.
pub(super) async fn loaded(coordinator: &Coordinator, group: &str) {
    let deadline = tokio::time::timeout(Duration::from_secs(10), async {
        while coordinator.coordinates(group).is_err() {
            tokio::task::yield_now().await;
        }
    });
    deadline.await.expect("loaded in time");
}

pub(super) async fn serving(journal: &Memory) -> Coordinator {
    let (coordinator, _) = coordinator();
    coordinator.elected(coordinator.partition_of("g"), 1, Arc::new(journal.clone()));
    loaded(&coordinator, "g").await;
    coordinator
}

/// Lets time pass in a task of its own.
pub(super) fn running(coordinator: &Coordinator) -> (tokio::task::JoinHandle<()>, CancellationToken) {
    let (coordinator, stop) = (coordinator.clone(), CancellationToken::new());
    let until = stop.clone();
    (tokio::spawn(async move { coordinator.run(until).await }), stop)
}

pub(super) fn outsider() -> Committer {
    Committer {
        member_id: String::new(),
        instance_id: None,
        generation: -1,
        knows_epochs: true,
    }
}

pub(super) fn position(offset: i64) -> Position {
    Position {
        topic: "t".into(),
        partition: 0,
        offset,
        leader_epoch: 3,
        metadata: "m".into(),
        retention_ms: None,
    }
}

fn stored(coordinator: &Coordinator) -> Option<i64> {
    let read = |offsets: Option<&Offsets>| offsets?.committed("t", 0).map(|value| value.offset);
    coordinator.positions("g", read).unwrap()
}

pub(super) fn join(member_id: &str, topics: &[&str]) -> Join {
    let mut metadata = vec![0, 1];
    metadata.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        metadata.extend((topic.len() as i16).to_be_bytes());
        metadata.extend(topic.as_bytes());
    }
    metadata.extend([255, 255, 255, 255, 0, 0, 0, 0]);
    Join {
        token: 0,
        member_id: member_id.into(),
        fresh_id: "fresh".into(),
        instance_id: None,
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        two_step: false,
        knows_skip_assignment: false,
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), metadata.into())],
    }
}

#[tokio::test]
async fn nothing_is_answered_before_the_partition_is_loaded() {
    let journal = Memory::new();
    let before = serving(&journal).await;
    before.commit("g", &outsider(), vec![position(7)]).await.unwrap();

    journal.hold();
    let (coordinator, _) = coordinator();
    assert_eq!(coordinator.coordinates("g"), Err(GroupError::NotCoordinator));
    coordinator.elected(coordinator.partition_of("g"), 2, Arc::new(journal.clone()));
    tokio::task::yield_now().await;
    assert_eq!(
        coordinator.coordinates("g"),
        Err(GroupError::Loading),
        "never 'no offsets'"
    );
    journal.release();
    loaded(&coordinator, "g").await;
    assert_eq!(stored(&coordinator), Some(7));
}

#[tokio::test]
async fn a_commit_is_seen_only_once_it_is_replicated() {
    let journal = Memory::new();
    let coordinator = serving(&journal).await;
    journal.hold();
    let committing = {
        let coordinator = coordinator.clone();
        tokio::spawn(async move { coordinator.commit("g", &outsider(), vec![position(7)]).await })
    };
    while journal.records.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(stored(&coordinator), None);
    journal.release();
    assert_eq!(committing.await.unwrap(), Ok(vec![Ok(())]));
    assert_eq!(stored(&coordinator), Some(7));
}

#[tokio::test]
async fn a_commit_that_fails_replication_is_no_success() {
    let journal = Memory::new();
    let coordinator = serving(&journal).await;
    *journal.outcome.lock().unwrap() = Err(GroupError::Unavailable);
    let outcome = coordinator.commit("g", &outsider(), vec![position(7)]).await;
    assert_eq!(outcome, Err(GroupError::Unavailable));
    assert_eq!(stored(&coordinator), None);
}

#[tokio::test]
async fn results_of_an_older_epoch_are_dropped() {
    let journal = Memory::new();
    let coordinator = serving(&journal).await;
    journal.hold();
    let committing = {
        let coordinator = coordinator.clone();
        tokio::spawn(async move { coordinator.commit("g", &outsider(), vec![position(7)]).await })
    };
    while journal.records.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    coordinator.resigned(coordinator.partition_of("g"));
    journal.release();
    assert_eq!(committing.await.unwrap(), Err(GroupError::NotCoordinator));
}

#[tokio::test]
async fn who_waits_for_a_rebalance_is_told_when_the_coordinator_moves() {
    let clock = Arc::new(HandClock(AtomicI64::new(0)));
    let coordinator = Coordinator::new(GroupConfig::default(), 50, clock);
    coordinator.elected(coordinator.partition_of("g"), 1, Arc::new(Memory::new()));
    loaded(&coordinator, "g").await;
    let joining = {
        let coordinator = coordinator.clone();
        tokio::spawn(async move { coordinator.join("g", join("", &["t"])).await })
    };
    while coordinator.describe("g").unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    coordinator.resigned(coordinator.partition_of("g"));
    assert_eq!(joining.await.unwrap().error, Some(GroupError::NotCoordinator));
}

#[tokio::test]
async fn a_group_survives_a_change_of_coordinator_and_flows_respect_its_members() {
    let journal = Memory::new();
    let (coordinator, clock) = coordinator();
    let stop = CancellationToken::new();
    let running = {
        let (coordinator, stop) = (coordinator.clone(), stop.clone());
        tokio::spawn(async move { coordinator.run(stop).await })
    };
    coordinator.elected(coordinator.partition_of("g"), 1, Arc::new(journal.clone()));
    loaded(&coordinator, "g").await;

    let joined = coordinator.join("g", join("", &["t"])).await;
    assert_eq!((joined.error, joined.generation), (None, 1));
    let sync = Sync {
        token: 0,
        member_id: joined.member_id.clone(),
        instance_id: None,
        generation: 1,
        protocol_type: None,
        protocol: None,
        assignments: vec![(joined.member_id.clone(), Bytes::from_static(b"A"))],
    };
    assert_eq!(coordinator.sync("g", sync).await.unwrap().assignment, "A");
    let member = Committer {
        member_id: joined.member_id.clone(),
        instance_id: None,
        generation: 1,
        knows_epochs: true,
    };
    coordinator.commit("g", &member, vec![position(5)]).await.unwrap();
    assert_eq!(coordinator.delete("g").await, Err(GroupError::NotEmpty));

    let mirrored = |topic: &str, version: i64| MirroredCommit {
        topic: topic.into(),
        partition: 0,
        offset: 9,
        metadata: String::new(),
        mark: MirroredFrom {
            flow: "e->w".into(),
            source_offset: 9,
            source_version: version,
        },
    };
    let written = coordinator
        .mirrored_commit("g", vec![mirrored("t", 1), mirrored("u", 1)])
        .await
        .unwrap();
    assert_eq!(written, [MirroredStatus::OwnedHere, MirroredStatus::Written]);
    assert_eq!(coordinator.mirrored_groups("e->w"), ["g"]);

    // Another daemon takes over and knows it all.
    let (next, _) = self::coordinator();
    next.elected(next.partition_of("g"), 2, Arc::new(journal.clone()));
    loaded(&next, "g").await;
    assert_eq!(next.heartbeat("g", &member), Ok(()));
    assert_eq!(stored(&next), Some(5));
    assert_eq!(next.describe("g").unwrap().unwrap().members[0].assignment, "A");
    assert_eq!(
        next.mirrored_commit("g", vec![mirrored("u", 1)]).await.unwrap(),
        [MirroredStatus::Unchanged]
    );

    // At the first one the member falls silent.
    clock.0.store(11_000, Ordering::SeqCst);
    assert_eq!(
        coordinator.leave("g", &[("x".into(), None)]).unwrap(),
        [Err(GroupError::UnknownMember)]
    );
    coordinator.elected(coordinator.partition_of("other"), 1, Arc::new(Memory::new()));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn an_empty_group_can_be_deleted_and_stays_deleted() {
    let journal = Memory::new();
    let coordinator = serving(&journal).await;
    coordinator
        .commit("g", &outsider(), vec![position(7)])
        .await
        .unwrap();
    assert_eq!(coordinator.list().unwrap().len(), 1);
    assert_eq!(coordinator.delete("g").await, Ok(()));
    assert_eq!(coordinator.delete("g").await, Err(GroupError::GroupNotFound));
    let again = serving(&journal).await;
    assert_eq!(again.list().unwrap(), []);
}

#[tokio::test]
async fn refused_requests_leave_no_group_behind() {
    let coordinator = serving(&Memory::new()).await;
    let mut bad = join("", &[]);
    bad.session_timeout_ms = 1;
    assert_eq!(
        coordinator.join("g", bad).await.error,
        Some(GroupError::InvalidSessionTimeout)
    );
    assert_eq!(
        coordinator.join("g", join("unknown", &[])).await.error,
        Some(GroupError::UnknownMember)
    );
    let member = Committer {
        member_id: "m".into(),
        instance_id: None,
        generation: 3,
        knows_epochs: true,
    };
    let commit = coordinator.commit("g", &member, vec![position(7)]).await;
    assert_eq!(commit, Err(GroupError::GroupNotFound));
    let mut long = position(7);
    long.metadata = "x".repeat(5_000);
    let commit = coordinator.commit("g", &outsider(), vec![long]).await;
    assert_eq!(commit, Ok(vec![Err(GroupError::MetadataTooLarge)]));
    assert_eq!(coordinator.list().unwrap(), []);
}

#[tokio::test]
async fn positions_of_a_group_that_only_commits_expire_and_the_group_with_them() {
    let journal = Memory::new();
    let (coordinator, clock) = coordinator();
    coordinator.elected(coordinator.partition_of("g"), 1, Arc::new(journal.clone()));
    loaded(&coordinator, "g").await;
    coordinator
        .commit("g", &outsider(), vec![position(7)])
        .await
        .unwrap();
    let shard = coordinator.shard("g").unwrap();
    coordinator.expire(&shard);
    assert_eq!(stored(&coordinator), Some(7), "its time is not over");
    clock.0.store(8 * 24 * 60 * 60 * 1000, Ordering::SeqCst);
    coordinator.expire(&shard);
    assert_eq!(coordinator.list().unwrap(), []);
    let again = serving(&journal).await;
    assert_eq!(stored(&again), None, "removed from the log as well");
}
