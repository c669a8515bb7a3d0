//! What the accumulator batches, in which order, and what a retry keeps.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tradewind_wire::batch::Batch;

use super::*;

const NOW: Duration = Duration::from_secs(100);
const LINGER: Duration = Duration::from_millis(5);

type Fates = Vec<oneshot::Receiver<Result<Delivered, ProduceError>>>;

fn accumulator() -> Accumulator {
    let config = ProducerConfig {
        linger: LINGER,
        batch_bytes: 1_000,
        ..ProducerConfig::default()
    };
    let mut accumulator = Accumulator::new(config);
    accumulator.set_identity(ProducerId { id: 7, epoch: 0 });
    accumulator
}

fn append(accumulator: &mut Accumulator, topic: &str, partition: i32, count: usize) -> Fates {
    let room = Arc::new(Semaphore::new(count));
    (0..count)
        .map(|_| {
            let (reply, fate) = oneshot::channel();
            let waiter = Waiter::new(reply, room.clone().try_acquire_owned().unwrap());
            accumulator.append(NOW, partition, &Record::new(topic, vec![0; 100]), 0, waiter);
            fate
        })
        .collect()
}

/// Broker 1 leads everything.
fn round(accumulator: &mut Accumulator, now: Duration) -> Round {
    let mut places = 5;
    accumulator.round(
        now,
        |_, _| Some(1),
        |_| {
            places -= 1;
            places >= 0
        },
    )
}

fn sent(round: &Round) -> Vec<Vec<(String, i32, usize)>> {
    let one = |batch: &Outgoing| {
        let records = Batch::parse(batch.bytes.clone()).unwrap().header().records_count;
        (batch.topic.clone(), batch.partition, records as usize)
    };
    round
        .sends
        .iter()
        .map(|(_, request)| request.iter().map(one).collect())
        .collect()
}

#[test]
fn a_batch_lingers_and_is_then_sent_once() {
    let mut accumulator = accumulator();
    append(&mut accumulator, "t", 0, 3);
    let early = round(&mut accumulator, NOW);
    assert!(early.sends.is_empty());
    assert_eq!(early.wake_at, Some(NOW + LINGER));
    assert_eq!(
        sent(&round(&mut accumulator, NOW + LINGER)),
        [vec![("t".into(), 0, 3)]]
    );
    let after = round(&mut accumulator, NOW + LINGER);
    assert!(after.sends.is_empty() && after.wake_at.is_none() && !after.idle);
}

/// Gets a first batch of the partition acknowledged.
fn establish(accumulator: &mut Accumulator, topic: &str, partition: i32) {
    append(accumulator, topic, partition, 1);
    accumulator.start_flush();
    let number = round(accumulator, NOW).sends[0].1[0].number;
    let fate = Fate::Taken {
        base_offset: 0,
        append_time: None,
    };
    let answer = Answer {
        topic: topic.into(),
        partition,
        number,
        fate,
    };
    accumulator.answer(&answer, |_| NOW);
    assert!(round(accumulator, NOW).idle);
}

#[test]
fn full_batches_do_not_linger_and_a_request_takes_one_batch_of_each_partition() {
    let mut accumulator = accumulator();
    establish(&mut accumulator, "t", 0);
    append(&mut accumulator, "t", 0, 20);
    append(&mut accumulator, "u", 1, 9);
    // Eight records fill a batch here; what is left of both partitions lingers.
    assert_eq!(
        sent(&round(&mut accumulator, NOW)),
        [
            vec![("t".into(), 0, 8), ("u".into(), 1, 8)],
            vec![("t".into(), 0, 8)]
        ]
    );
}

#[test]
fn a_flush_sends_what_lingers() {
    let mut accumulator = accumulator();
    assert!(accumulator.start_flush());
    append(&mut accumulator, "t", 0, 1);
    assert!(!accumulator.start_flush());
    assert_eq!(sent(&round(&mut accumulator, NOW)), [vec![("t".into(), 0, 1)]]);
}

#[test]
fn acknowledged_records_learn_their_offsets() {
    let mut accumulator = accumulator();
    let fates = append(&mut accumulator, "t", 3, 2);
    accumulator.start_flush();
    let number = round(&mut accumulator, NOW).sends[0].1[0].number;
    let fate = Fate::Taken {
        base_offset: 40,
        append_time: None,
    };
    accumulator.answer(
        &Answer {
            topic: "t".into(),
            partition: 3,
            number,
            fate,
        },
        |_| NOW,
    );
    let offsets: Vec<_> = fates
        .into_iter()
        .map(|mut fate| fate.try_recv().unwrap().unwrap().offset)
        .collect();
    assert_eq!(offsets, [40, 41]);
    assert!(round(&mut accumulator, NOW).idle);
}

#[test]
fn without_a_leader_or_an_identity_nothing_is_sent() {
    let mut accumulator = Accumulator::new(ProducerConfig {
        linger: Duration::ZERO,
        ..Default::default()
    });
    append(&mut accumulator, "t", 0, 1);
    let no_identity = round(&mut accumulator, NOW);
    assert!(no_identity.wants_identity && no_identity.sends.is_empty());
    accumulator.set_identity(ProducerId { id: 7, epoch: 0 });
    let no_leader = accumulator.round(NOW, |_, _| None, |_| true);
    assert!(no_leader.sends.is_empty() && no_leader.leaderless.contains("t"));
    assert_eq!(round(&mut accumulator, NOW).sends.len(), 1);
}

#[test]
fn a_record_that_is_too_late_is_told_so() {
    let mut accumulator = accumulator();
    let mut fates = append(&mut accumulator, "t", 0, 1);
    accumulator.round(NOW + LINGER, |_, _| None, |_| true);
    accumulator.round(NOW + Duration::from_secs(120), |_, _| None, |_| true);
    assert!(matches!(
        fates[0].try_recv(),
        Ok(Err(ProduceError::TimedOut { .. }))
    ));
}

#[test]
fn closing_tells_everyone() {
    let mut accumulator = accumulator();
    let mut fates = append(&mut accumulator, "t", 0, 8);
    round(&mut accumulator, NOW);
    accumulator.abandon();
    for fate in &mut fates {
        assert!(matches!(fate.try_recv(), Ok(Err(ProduceError::Closed))));
    }
}
