//! A daemon that pushes what it should not: nothing of it is written, and the partition says why.

use async_trait::async_trait;
use bytes::Bytes;
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;
use tradewind_wire::ids::TopicId;

use super::*;
use crate::board::Board;
use crate::fakes::{FLOW, FakeSource, FakeTarget};
use crate::source::PartitionOf;
use crate::source::track::Health;
use crate::target::{MirrorBinding, NewMirrorTopic, Target};

/// Takes every frame and says nothing.
struct Silent;

#[async_trait]
impl PushStream for Silent {
    async fn send(&mut self, _frame: Follow) -> Result<(), SourceError> {
        Ok(())
    }

    async fn recv(&mut self) -> Result<Push, SourceError> {
        std::future::pending().await
    }
}

/// A link whose one partition has asked for a session, and that session.
async fn asked() -> (Arc<FakeTarget>, Link, u32) {
    let target = FakeTarget::new();
    let id = TopicId([2; 16]);
    let topic = NewMirrorTopic {
        name: "east.orders".into(),
        partitions: 1,
        configs: Default::default(),
        binding: MirrorBinding {
            flow: FLOW.into(),
            source_topic: "orders".into(),
            source_topic_id: id,
            promoted: false,
            origin: None,
        },
    };
    target.create_mirror_topic(topic).await.unwrap();
    let mut link = Link {
        context: LinkContext {
            target: target.clone(),
            source: Arc::new(FakeSource::default()),
            board: Arc::new(Board::default()),
            refresh: Arc::default(),
        },
        tracks: Tracks::new(),
        sessions: HashMap::new(),
        next_handle: 1,
    };
    let assigned = Assigned {
        here: PartitionHere {
            name: "east.orders".into(),
            topic: target.view().topics["east.orders"].id,
            partition: 0,
        },
        source: PartitionOf {
            topic: "orders".into(),
            id,
            partition: 0,
        },
        source_leader: Some(7),
        source_epoch: 5,
        halt: None,
    };
    link.follow(&[assigned], "cluster-e");
    link.look_after(&mut Silent).await.unwrap();
    let handle = *link.sessions.keys().next().unwrap();
    (target, link, handle)
}

fn mark(high_watermark: i64) -> Mark {
    Mark {
        high_watermark,
        log_start: 0,
        leader_epoch: 5,
        sent_ms: 0,
        deleted: None,
    }
}

fn batch(base: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    builder.base_offset(base).leader_epoch(5);
    builder.append(1, None, Some(b"x"), &[]);
    builder.build()
}

fn data(handle: u32, prev_end: i64, high_watermark: i64, batches: Bytes) -> Push {
    Push::Data {
        handle,
        prev_end,
        mark: mark(high_watermark),
        batches,
    }
}

#[tokio::test]
async fn what_a_lying_daemon_pushes_is_not_written() {
    /// What it is called, its frame for a handle, whether histories were compared before, and what comes of it.
    type Lie = (&'static str, fn(u32) -> Push, bool, Health, &'static str);
    let matched = |handle| Push::Match {
        handle,
        mark: mark(1),
    };
    let lies: [Lie; 5] = [
        (
            "records before histories were compared",
            |handle| data(handle, 0, 1, batch(0)),
            false,
            Health::Retrying,
            "before it had compared histories",
        ),
        (
            "records that follow others than ours",
            |handle| data(handle, 5, 6, batch(5)),
            true,
            Health::Retrying,
            "what follows 5, not 0",
        ),
        (
            "bytes that are no batch",
            |handle| data(handle, 0, 1, Bytes::from_static(&[0; 80])),
            true,
            Health::Failed,
            "old record format at offset 0",
        ),
        (
            "half a batch",
            |handle| data(handle, 0, 1, batch(0).slice(..64)),
            true,
            Health::Failed,
            "of which 64 came",
        ),
        (
            "a session that nobody has asked for",
            |handle| data(handle + 1, 0, 1, batch(0)),
            true,
            Health::Active,
            "",
        ),
    ];
    for (lie, frame, is_matched, health, word) in lies {
        let (target, mut link, handle) = asked().await;
        if is_matched {
            link.received(matched(handle)).await;
        }
        link.received(frame(handle)).await;
        assert!(target.bytes("east.orders", 0).is_empty(), "{lie}");
        let (found, reason) = link.tracks.values().next().unwrap().health();
        assert_eq!(found, health, "{lie}");
        assert!(reason.unwrap_or_default().contains(word), "{lie}: {reason:?}");
    }
}

#[tokio::test]
async fn what_a_daemon_pushes_above_its_own_watermark_is_left_out() {
    let (target, mut link, handle) = asked().await;
    link.received(Push::Match {
        handle,
        mark: mark(1),
    })
    .await;
    let both = Bytes::from([batch(0), batch(1)].concat());
    link.received(data(handle, 0, 1, both)).await;
    assert_eq!(target.bytes("east.orders", 0), batch(0));
    // What follows does not follow what is here.
    link.received(data(handle, 2, 3, batch(2))).await;
    assert_eq!(target.bytes("east.orders", 0), batch(0));
    let (found, _) = link.tracks.values().next().unwrap().health();
    assert_eq!(found, Health::Retrying);
}
