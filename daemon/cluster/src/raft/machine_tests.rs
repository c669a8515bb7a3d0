//! The state machine: repeated proposals, snapshots, damaged files.

use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{CommittedLeaderId, EntryPayload, LogId, RaftSnapshotBuilder};
use tempfile::TempDir;
use tokio::sync::watch;
use tradewind_wire::ids::{ClusterId, TopicId};

use super::machine::{Machine, Waiting};
use super::types::{Entry, Origin, Proposal};
use crate::command::{Command, Outcome};
use crate::image::Image;
use crate::test_net::registration;

struct Fixture {
    machine: Machine,
    images: watch::Receiver<Arc<Image>>,
    waiting: Waiting,
}

fn open(dir: &TempDir) -> std::io::Result<Fixture> {
    let (sender, images) = watch::channel(Arc::new(Image::default()));
    let waiting = Waiting::default();
    Ok(Fixture {
        machine: Machine::open(1, dir.path(), sender, waiting.clone())?,
        images,
        waiting,
    })
}

fn entry(index: u64, nonce: Option<u64>, command: Command) -> Entry {
    Entry {
        log_id: LogId::new(CommittedLeaderId::new(1, 1), index),
        payload: EntryPayload::Normal(Proposal {
            origin: nonce.map(|nonce| Origin { node: 1, nonce }),
            command,
        }),
    }
}

fn history() -> Vec<Entry> {
    let init = Command::Init {
        cluster_id: ClusterId([1; 16]),
        cluster_number: 1,
    };
    vec![
        entry(1, None, init),
        entry(2, Some(10), Command::Register(registration(1, 1))),
    ]
}

#[tokio::test]
async fn a_proposal_that_arrives_twice_is_applied_once_and_answered_alike() {
    let dir = TempDir::new().unwrap();
    let mut fixture = open(&dir).unwrap();
    fixture.machine.apply(history()).await.unwrap();
    let ids = || Command::AllocateProducerIds { node: 1 };
    let (_guard, first) = fixture.waiting.wait(11);
    fixture
        .machine
        .apply([entry(3, Some(11), ids()), entry(4, Some(11), ids())])
        .await
        .unwrap();
    let expected = Ok(Outcome::ProducerIds {
        first: 1 << 36,
        count: 1000,
    });
    assert_eq!(first.await.unwrap(), expected);
    assert_eq!(fixture.images.borrow().next_producer_id, 1000);
    assert_eq!(fixture.images.borrow().index, 4);
    let (_guard, again) = fixture.waiting.wait(11);
    fixture.machine.apply([entry(5, Some(11), ids())]).await.unwrap();
    assert_eq!(again.await.unwrap(), expected);
}

#[tokio::test]
async fn who_is_answered_finds_the_change_in_the_image() {
    let dir = TempDir::new().unwrap();
    let mut fixture = open(&dir).unwrap();
    fixture.machine.apply(history()).await.unwrap();
    let create = crate::command::CreateTopic::new("orders", TopicId([7; 16]), 1, 1);
    let (_guard, answer) = fixture.waiting.wait(12);
    let images = fixture.images.clone();
    let waiter = tokio::spawn(async move {
        answer.await.unwrap().unwrap();
        assert!(images.borrow().topic("orders").is_some());
    });
    let entry = entry(3, Some(12), Command::CreateTopic(create));
    fixture.machine.apply([entry]).await.unwrap();
    waiter.await.unwrap();
}

#[tokio::test]
async fn a_snapshot_carries_everything_and_answers_those_who_wait() {
    let dir = TempDir::new().unwrap();
    let mut fixture = open(&dir).unwrap();
    fixture.machine.apply(history()).await.unwrap();
    let snapshot = fixture
        .machine
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap();
    let image = fixture.images.borrow().clone();

    let reopened = open(&dir).unwrap();
    assert_eq!(*reopened.images.borrow(), image);

    let other = TempDir::new().unwrap();
    let mut late = open(&other).unwrap();
    let (_guard, answer) = late.waiting.wait(10);
    late.machine
        .install_snapshot(&snapshot.meta, snapshot.snapshot)
        .await
        .unwrap();
    assert_eq!(answer.await.unwrap(), Ok(Outcome::Registered { epoch: 2 }));
    assert_eq!(*late.images.borrow(), image);
    assert_eq!(*open(&other).unwrap().images.borrow(), image);
}

#[tokio::test]
async fn a_damaged_snapshot_is_an_error_that_names_the_file() {
    let dir = TempDir::new().unwrap();
    let mut fixture = open(&dir).unwrap();
    fixture.machine.apply(history()).await.unwrap();
    fixture
        .machine
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap();
    let path = dir.path().join("meta.snapshot");
    let whole = std::fs::read(&path).unwrap();
    for damage in [0, 2, 4, 5, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[damage] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let error = open(&dir).err().unwrap().to_string();
        assert!(error.contains("meta.snapshot"), "{error}");
        std::fs::write(&path, &whole[..damage]).unwrap();
        assert!(open(&dir).is_err(), "cut at {damage}");
    }
}
