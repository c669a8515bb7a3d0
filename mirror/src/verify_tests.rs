//! Comparing: what is told of lists of batches, and of a mirror in memory whose log somebody changed.

use std::sync::Arc;

use tradewind_tests::wait;
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;

use super::*;
use crate::fakes::{FLOW, FakeSource, FakeTarget, spec};
use crate::{Mirror, Sources};

fn item(base: i64, next: i64, digest: u64) -> AuditItem {
    AuditItem {
        base,
        next,
        bytes: 10,
        digest,
        damaged: false,
    }
}

fn told(stretches: &[Stretch]) -> Vec<(i64, i64, &str)> {
    let tell = |stretch: &'_ Stretch| (stretch.from, stretch.to);
    stretches
        .iter()
        .map(|stretch| {
            let (from, to) = tell(stretch);
            (from, to, stretch.what.split(' ').next().unwrap_or_default())
        })
        .collect()
}

#[test]
fn every_way_to_differ_is_named_with_its_offsets() {
    let there = [
        item(0, 3, 1),
        item(3, 6, 2),
        item(6, 9, 3),
        item(9, 12, 4),
        item(12, 15, 5),
    ];
    let mut found = Vec::new();
    assert_eq!(differences(&there, &there, &mut found), (5, 50));
    assert!(found.is_empty());

    let here = [item(0, 3, 1), item(9, 12, 7), item(12, 15, 5), item(15, 18, 6)];
    assert_eq!(differences(&here, &there, &mut found), (2, 20));
    assert_eq!(told(&found), [(3, 9, "at"), (9, 12, "other"), (15, 18, "here,")]);

    found.clear();
    let mut damaged = there;
    damaged[1].damaged = true;
    differences(&damaged, &there, &mut found);
    differences(&there, &damaged, &mut found);
    assert_eq!(found[0].what, "damaged here: a CRC is not that of its records");
    assert_eq!(
        found[1].what,
        "damaged at the source: a CRC is not that of its records"
    );
}

struct World {
    target: Arc<FakeTarget>,
    mirror: Mirror,
}

/// A mirror of four batches of two records.
async fn world() -> World {
    let (target, source) = (FakeTarget::new(), Arc::new(FakeSource::default()));
    source.create("orders", 1, 1);
    for values in [["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"]] {
        source.produce("orders", 0, &values);
    }
    let shared = source.clone();
    let sources: Sources = Arc::new(move |_| shared.clone());
    let mirror = Mirror::start(target.clone(), sources, vec![]);
    target.declare(spec());
    let world = World { target, mirror };
    let look = async || {
        let status = world.mirror.status().await;
        status.first().is_some_and(|flow| flow.lag_records == Some(0))
    };
    let mirrored = wait::until_true_async("all is mirrored", 60, look).await;
    mirrored.unwrap();
    world
}

impl World {
    async fn verify(&self) -> Compared {
        let plan = self.mirror.verify_plan(FLOW, &["orders".into()]).await.unwrap();
        let [partition] = &plan.partitions[..] else {
            panic!("{plan:?}")
        };
        assert_eq!((partition.to, &partition.refused), (8, &None));
        let piece = Piece {
            flow: FLOW.into(),
            topic: partition.topic.clone(),
            partition: 0,
            from: 0,
            to: partition.to,
            first: true,
        };
        self.mirror.verify_piece(piece).await.unwrap()
    }
}

fn batch(base: i64, values: &[&str]) -> bytes::Bytes {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    builder.base_offset(base);
    for value in values {
        builder.append(1, None, Some(value.as_bytes()), &[]);
    }
    builder.build()
}

#[tokio::test]
async fn a_good_mirror_is_green_and_a_changed_or_missing_batch_is_named() {
    let world = world().await;
    let green = world.verify().await;
    assert_eq!((green.to, green.batches), (8, 4));
    assert_eq!((green.differences, green.skipped), (vec![], vec![]));

    world
        .target
        .replace("east.orders", 0, 4, Some(batch(4, &["e", "x"])));
    let changed = world.verify().await;
    assert_eq!((changed.to, changed.batches), (8, 3));
    assert_eq!(told(&changed.differences), [(4, 6, "other")]);

    world.target.replace("east.orders", 0, 4, None);
    let missing = world.verify().await;
    assert_eq!(told(&missing.differences), [(4, 6, "at")]);
    world.mirror.stop().await;
}

#[tokio::test]
async fn what_cannot_be_verified_is_refused_before_anything_is_read() {
    let world = world().await;
    let unknown = world.mirror.verify_plan("a->b", &[]).await;
    assert!(matches!(unknown, Err(VerifyError::UnknownFlow(_))));
    let unknown = world.mirror.verify_plan(FLOW, &["nothing".into()]).await;
    assert!(matches!(unknown, Err(VerifyError::UnknownTopic { .. })));
    world.mirror.failover(FLOW).await.unwrap();
    let over = world.mirror.verify_plan(FLOW, &[]).await;
    assert!(matches!(over, Err(VerifyError::FailedOver(_))));
    world.mirror.stop().await;
}
