//! Check 25: what the brokers remember of idempotent producers, and for how long.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tradewind_tests::kafka::Connection;
use tradewind_tests::wait;
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::DescribeProducersRequest;
use tradewind_wire::messages::describe_producers::{ProducerState, TopicRequest};

use crate::produce::verdict;
use crate::support::{
    SOON, Topic, await_topic, error, now, own_cluster, produce_request, produced, producer_id, unique,
};

/// A batch of an idempotent producer.
pub(crate) fn idempotent(producer: i64, epoch: i16, sequence: i32, count: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    for _ in 0..count {
        builder.append(now(), None, Some(b"v"), &[]);
    }
    builder.producer(producer, epoch, sequence).build()
}

#[test]
fn check_25_any_of_the_last_five_batches_may_be_sent_again() -> Result<()> {
    let mut topic = Topic::new("again", &[])?;
    let (producer, epoch) = producer_id(&mut topic.kafka)?;
    for sequence in [0, 3, 6, 9, 12, 15, 18] {
        assert_eq!(
            topic.append(idempotent(producer, epoch, sequence, 3))?,
            i64::from(sequence)
        );
    }
    for sequence in [18, 6, 12, 9, 15, 18] {
        let offset = topic.append(idempotent(producer, epoch, sequence, 3))?;
        assert_eq!(offset, i64::from(sequence), "the offset it was given first");
    }
    assert_eq!(topic.kafka.end(&topic.name, 0)?, 21, "nothing is there twice");
    assert_eq!(topic.append(idempotent(producer, epoch, 21, 1))?, 21);
    Ok(())
}

#[test]
fn check_25_gaps_and_forgotten_batches_are_refused() -> Result<()> {
    let mut topic = Topic::new("gaps", &[])?;
    let (producer, epoch) = producer_id(&mut topic.kafka)?;
    for sequence in 0..7 {
        topic.append(idempotent(producer, epoch, sequence, 1))?;
    }
    // Sequences 0 and 1 are older than the last five.
    for sequence in [0, 1, 8, 100] {
        let (code, _) = verdict(&mut topic, idempotent(producer, epoch, sequence, 1))?;
        assert_eq!(code, ErrorCode::OutOfOrderSequenceNumber, "{sequence}");
    }
    // Begins with one that is known and ends with one that is not.
    let (code, _) = verdict(&mut topic, idempotent(producer, epoch, 6, 2))?;
    assert_eq!(code, ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(topic.kafka.end(&topic.name, 0)?, 7);
    Ok(())
}

#[test]
fn check_25_a_new_epoch_begins_at_zero_and_an_old_one_is_fenced() -> Result<()> {
    let mut topic = Topic::new("epochs", &[])?;
    let (producer, _) = producer_id(&mut topic.kafka)?;
    topic.append(idempotent(producer, 3, 0, 1))?;
    let (code, _) = verdict(&mut topic, idempotent(producer, 4, 1, 1))?;
    assert_eq!(code, ErrorCode::OutOfOrderSequenceNumber, "a new epoch at 1");
    topic.append(idempotent(producer, 4, 0, 1))?;
    let (code, _) = verdict(&mut topic, idempotent(producer, 3, 1, 1))?;
    assert_eq!(code, ErrorCode::InvalidProducerEpoch);
    topic.append(idempotent(producer, 4, 1, 1))?;
    Ok(())
}

#[test]
fn check_25_an_unknown_producer_begins_anywhere_and_sequences_wrap() -> Result<()> {
    let mut topic = Topic::new("wrap", &[])?;
    let (producer, epoch) = producer_id(&mut topic.kafka)?;
    assert_eq!(topic.append(idempotent(producer, epoch, i32::MAX - 3, 2))?, 0);
    // From i32::MAX - 1 over i32::MAX to 0.
    assert_eq!(topic.append(idempotent(producer, epoch, i32::MAX - 1, 3))?, 2);
    assert_eq!(
        topic.append(idempotent(producer, epoch, i32::MAX - 1, 3))?,
        2,
        "again"
    );
    assert_eq!(topic.append(idempotent(producer, epoch, 1, 1))?, 5);
    Ok(())
}

/// Ours only: daemons are killed.
#[test]
fn check_25_what_a_producer_sent_is_known_after_a_leader_change_and_a_restart() -> Result<()> {
    let Some((_folder, mut cluster)) = own_cluster(3, "")? else {
        return Ok(());
    };
    let mut topic = Topic::in_cluster(&cluster, "survives", &[])?;
    let name = topic.name.clone();
    let (producer, epoch) = producer_id(&mut topic.kafka)?;
    for sequence in 0..6 {
        topic.append(idempotent(producer, epoch, sequence, 1))?;
    }
    let old = topic.kafka.partitions(&name)?[0].leader_id;
    cluster.daemon(old)?.kill();
    let mut kafka = cluster.kafka();
    wait::until_true("another daemon leads", 60, || {
        let led = kafka.partitions(&name)?.remove(0);
        Ok(led.leader_id >= 0 && led.leader_id != old)
    })?;
    again(&name, &mut kafka, producer, epoch)?;

    cluster.kill_all();
    cluster.start_all()?;
    again(&name, &mut cluster.kafka(), producer, epoch)
}

/// Fails unless the last batches are known as sent and a gap is still one.
fn again(name: &str, kafka: &mut tradewind_tests::Kafka, producer: i64, epoch: i16) -> Result<()> {
    let mut send = |sequence: i32| -> Result<(ErrorCode, i64)> {
        let request = produce_request(name, 0, -1, idempotent(producer, epoch, sequence, 1));
        wait::until("the leader takes writes", SOON, || {
            let leader = kafka.leader(name, 0, true)?;
            let answer = produced(kafka.at(leader, &request, 9)?)?;
            let code = error(answer.error_code);
            Ok((!code.is_retriable()).then_some((code, answer.base_offset)))
        })
    };
    for sequence in [1, 5, 3] {
        assert_eq!(send(sequence)?, (ErrorCode::None, i64::from(sequence)));
    }
    assert_eq!(send(7)?.0, ErrorCode::OutOfOrderSequenceNumber);
    Ok(())
}

/// What the leader knows of the producers of partition 0.
fn known(topic: &str, leader: &mut Connection) -> Result<Vec<ProducerState>> {
    let request = DescribeProducersRequest {
        topics: vec![TopicRequest {
            name: topic.into(),
            partition_indexes: vec![0],
        }],
    };
    let response = leader.ask(&request, 0)?;
    let topic = response.topics.into_iter().next().context("the topic")?;
    let partition = topic.partitions.into_iter().next().context("the partition")?;
    ensure!(partition.error_code == 0, "{:?}", error(partition.error_code));
    Ok(partition.active_producers)
}

#[test]
fn check_25_who_has_written_is_told_with_the_last_sequence() -> Result<()> {
    let mut topic = Topic::new("known", &[])?;
    assert_eq!(known(&topic.name, &mut topic.leader)?, []);
    let (producer, epoch) = producer_id(&mut topic.kafka)?;
    topic.append(idempotent(producer, epoch, 0, 3))?;
    topic.append(idempotent(producer, epoch, 3, 2))?;
    let states = known(&topic.name, &mut topic.leader)?;
    let told: Vec<_> = states
        .iter()
        .map(|state| (state.producer_id, state.producer_epoch, state.last_sequence))
        .collect();
    assert_eq!(told, [(producer, i32::from(epoch), 4)]);
    assert_eq!(states[0].current_txn_start_offset, -1);
    ensure!((now() - 60_000..=now()).contains(&states[0].last_timestamp));
    Ok(())
}

/// Ours only: a setting of the whole cluster. An idle producer is forgotten after `producer.id.expiration.ms`, not before, and
/// may then begin anywhere.
#[test]
fn check_25_an_idle_producer_is_forgotten_when_its_time_is_over() -> Result<()> {
    let settings = "[topic_defaults]\n\
         \"producer.id.expiration.ms\" = 5000\n\
         \"log.retention.check.interval.ms\" = 100\n";
    let Some((_folder, cluster)) = own_cluster(1, settings)? else {
        return Ok(());
    };
    let mut kafka = cluster.kafka();
    let name = unique("idle");
    kafka.create_topic(&name, 1, &[])?;
    await_topic(&mut kafka, &name, 1)?;
    let mut topic = Topic::open(name, kafka)?;
    let (idle, epoch) = producer_id(&mut topic.kafka)?;
    topic.append(idempotent(idle, epoch, 0, 1))?;
    assert_eq!(
        verdict(&mut topic, idempotent(idle, epoch, 40, 1))?.0,
        ErrorCode::OutOfOrderSequenceNumber
    );
    // Another one goes on meanwhile and is kept.
    let (busy, busy_epoch) = producer_id(&mut topic.kafka)?;
    let mut sequence = 0;
    wait::until_true("only the one that writes is known", SOON, || {
        topic.append(idempotent(busy, busy_epoch, sequence, 1))?;
        sequence += 1;
        let known = known(&topic.name, &mut topic.leader)?;
        ensure!(known.iter().any(|state| state.producer_id == busy), "{known:?}");
        Ok(known.len() == 1)
    })?;
    topic.append(idempotent(idle, epoch, 40, 1))?;
    assert_eq!(
        verdict(&mut topic, idempotent(idle, epoch, 42, 1))?.0,
        ErrorCode::OutOfOrderSequenceNumber,
        "known again"
    );
    Ok(())
}
