//! Sessions as a client sees them, and who makes room for whom.

use bytes::Bytes;
use tradewind_wire::codec::Records;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::TopicId;
use tradewind_wire::messages::FetchRequest;
use tradewind_wire::messages::fetch::{FetchPartition, FetchTopic, ForgottenTopic, PartitionData};

use super::sessions::{EVICTION_MS, Fetching, Sessions};
use super::{Answer, Asked};

/// A request in session `id` at `epoch` for these partitions of `t` from these offsets.
fn request(id: i32, epoch: i32, wanted: &[(i32, i64)]) -> FetchRequest {
    let partitions = wanted.iter().map(|(partition, fetch_offset)| FetchPartition {
        partition: *partition,
        fetch_offset: *fetch_offset,
        ..Default::default()
    });
    let topic = FetchTopic {
        topic: "t".into(),
        partitions: partitions.collect(),
        ..Default::default()
    };
    FetchRequest {
        session_id: id,
        session_epoch: epoch,
        topics: if wanted.is_empty() { vec![] } else { vec![topic] },
        ..Default::default()
    }
}

/// What a quiet partition answers.
fn quiet(asked: &Asked) -> PartitionData {
    PartitionData {
        partition_index: asked.partition,
        high_watermark: 5,
        log_start_offset: 0,
        ..Default::default()
    }
}

/// One request and its answer: the session's id, and the partitions that were answered for.
fn ask(
    sessions: &Sessions,
    request: &FetchRequest,
    now_ms: u64,
    answer: impl Fn(&Asked) -> PartitionData,
) -> Result<(i32, Vec<i32>), ErrorCode> {
    let fetching = sessions.begin(request, 12, now_ms)?;
    let answers: Vec<Answer> = fetching
        .asked()
        .iter()
        .map(|asked| (asked.clone(), answer(asked)))
        .collect();
    let (id, said) = sessions
        .finish(&fetching, answers, now_ms)
        .map_err(|(_, error)| error)?;
    Ok((id, said.into_iter().map(|(asked, _)| asked.partition).collect()))
}

fn partitions(fetching: &Fetching) -> Vec<(i32, i64)> {
    let of = |asked: &Asked| (asked.partition, asked.offset);
    fetching.asked().iter().map(of).collect()
}

#[test]
fn an_answer_leaves_out_what_has_not_changed() {
    let sessions = Sessions::new(10);
    let (id, said) = ask(&sessions, &request(0, 0, &[(0, 0), (1, 0), (2, 0)]), 0, quiet).unwrap();
    assert!(id > 0);
    assert_eq!(said, [0, 1, 2], "the first answer is complete");
    assert_eq!(ask(&sessions, &request(id, 1, &[]), 0, quiet), Ok((id, vec![])));

    let news: [fn(&mut PartitionData); 6] = [
        |data| data.high_watermark = 6,
        |data| data.log_start_offset = 1,
        |data| data.preferred_read_replica = 3,
        |data| data.error_code = 6,
        |data| data.diverging_epoch.end_offset = 2,
        |data| data.records = Records::from(Bytes::from_static(b"batch")),
    ];
    for (epoch, change) in (2..).step_by(2).zip(news) {
        let changed = |asked: &Asked| {
            let mut data = quiet(asked);
            if asked.partition == 1 {
                change(&mut data);
            }
            data
        };
        assert_eq!(
            ask(&sessions, &request(id, epoch, &[]), 0, changed),
            Ok((id, vec![1]))
        );
        // Back to what it was, which is news again for some of them.
        ask(&sessions, &request(id, epoch + 1, &[]), 0, quiet).unwrap();
    }
}

#[test]
fn an_error_is_told_every_time_and_its_end_too() {
    let sessions = Sessions::new(10);
    let failed = |asked: &Asked| PartitionData {
        error_code: 6,
        high_watermark: -1,
        log_start_offset: -1,
        ..quiet(asked)
    };
    let (id, _) = ask(&sessions, &request(0, 0, &[(0, 0)]), 0, failed).unwrap();
    assert_eq!(ask(&sessions, &request(id, 1, &[]), 0, failed), Ok((id, vec![0])));
    assert_eq!(ask(&sessions, &request(id, 2, &[]), 0, quiet), Ok((id, vec![0])));
    assert_eq!(ask(&sessions, &request(id, 3, &[]), 0, quiet), Ok((id, vec![])));
}

#[test]
fn a_request_changes_adds_and_forgets() {
    let sessions = Sessions::new(10);
    let (id, _) = ask(&sessions, &request(0, 0, &[(0, 0), (1, 0)]), 0, quiet).unwrap();
    let mut next = request(id, 1, &[(1, 7), (2, 3)]);
    next.forgotten_topics_data = vec![ForgottenTopic {
        topic: "t".into(),
        topic_id: TopicId::default(),
        partitions: vec![0, 9],
    }];
    let fetching = sessions.begin(&next, 12, 0).unwrap();
    assert_eq!(partitions(&fetching), [(1, 7), (2, 3)]);
    // A session without partitions is none.
    let mut last = request(id, 2, &[]);
    last.forgotten_topics_data = vec![ForgottenTopic {
        topic: "t".into(),
        topic_id: TopicId::default(),
        partitions: vec![1, 2],
    }];
    assert!(matches!(sessions.begin(&last, 12, 0), Ok(Fetching::Alone(asked)) if asked.is_empty()));
    let gone = sessions.begin(&request(id, 3, &[]), 12, 0);
    assert_eq!(gone.err(), Some(ErrorCode::FetchSessionIdNotFound));
}

#[test]
fn partitions_with_records_are_read_last_the_next_time() {
    let sessions = Sessions::new(10);
    let (id, _) = ask(&sessions, &request(0, 0, &[(0, 0), (1, 0), (2, 0)]), 0, quiet).unwrap();
    let some = |asked: &Asked| PartitionData {
        records: if asked.partition < 2 {
            Records::from(Bytes::from_static(b"batch"))
        } else {
            Records::default()
        },
        ..quiet(asked)
    };
    assert_eq!(
        ask(&sessions, &request(id, 1, &[]), 0, some),
        Ok((id, vec![0, 1]))
    );
    let next = sessions.begin(&request(id, 2, &[]), 12, 0).unwrap();
    assert_eq!(partitions(&next), [(2, 0), (0, 0), (1, 0)]);
}

#[test]
fn wrong_ids_epochs_and_names_are_refused() {
    let sessions = Sessions::new(10);
    let (id, _) = ask(&sessions, &request(0, 0, &[(0, 0)]), 0, quiet).unwrap();
    let refused = |request: &FetchRequest, version| sessions.begin(request, version, 0).err();
    assert_eq!(
        refused(&request(id + 1, 1, &[]), 12),
        Some(ErrorCode::FetchSessionIdNotFound)
    );
    for epoch in [2, 5, -7] {
        assert_eq!(
            refused(&request(id, epoch, &[]), 12),
            Some(ErrorCode::InvalidFetchSessionEpoch)
        );
    }
    assert_eq!(
        refused(&request(id, 1, &[]), 13),
        Some(ErrorCode::FetchSessionTopicIdError)
    );
    assert_eq!(ask(&sessions, &request(id, 1, &[]), 0, quiet), Ok((id, vec![])));
    // Asking for everything anew gives the session up, with or without a new one.
    let (other, _) = ask(&sessions, &request(id, 0, &[(0, 0)]), 0, quiet).unwrap();
    assert_eq!(
        refused(&request(id, 2, &[]), 12),
        Some(ErrorCode::FetchSessionIdNotFound)
    );
    assert_eq!(
        ask(&sessions, &request(other, -1, &[(0, 0)]), 0, quiet),
        Ok((0, vec![0]))
    );
    assert_eq!(
        refused(&request(other, 1, &[]), 12),
        Some(ErrorCode::FetchSessionIdNotFound)
    );
}

#[test]
fn a_request_that_was_overtaken_is_not_answered() {
    let sessions = Sessions::new(10);
    let (id, _) = ask(&sessions, &request(0, 0, &[(0, 0)]), 0, quiet).unwrap();
    let first = sessions.begin(&request(id, 1, &[]), 12, 0).unwrap();
    let second = sessions.begin(&request(id, 2, &[]), 12, 0).unwrap();
    assert_eq!(
        sessions.finish(&first, vec![], 0),
        Err((id, ErrorCode::InvalidFetchSessionEpoch))
    );
    assert_eq!(sessions.finish(&second, vec![], 0), Ok((id, vec![])));
}

#[test]
fn only_a_stale_or_an_old_and_smaller_session_makes_room() {
    let sessions = Sessions::new(2);
    let small: &[(i32, i64)] = &[(0, 0)];
    let large: &[(i32, i64)] = &[(0, 0), (1, 0), (2, 0)];
    let begin =
        |wanted: &[(i32, i64)], now_ms| ask(&sessions, &request(0, 0, wanted), now_ms, quiet).unwrap().0;
    let (first, second) = (begin(small, 0), begin(large, 0));
    assert!(first > 0 && second > 0);
    assert_eq!(begin(large, EVICTION_MS), 0, "both are young and in use");

    // Both are used and old now: only the smaller one makes room, and only for one that is not smaller still.
    let later = EVICTION_MS + 1;
    ask(&sessions, &request(first, 1, &[]), later, quiet).unwrap();
    ask(&sessions, &request(second, 1, &[]), later, quiet).unwrap();
    let third = begin(large, later);
    assert!(third > 0);
    assert_eq!(
        ask(&sessions, &request(first, 2, &[]), later, quiet),
        Err(ErrorCode::FetchSessionIdNotFound)
    );
    assert_eq!(begin(small, later), 0);

    // One that nobody used for long goes first.
    ask(&sessions, &request(third, 1, &[]), 2 * later, quiet).unwrap();
    assert!(begin(small, 2 * later) > 0);
    assert_eq!(
        ask(&sessions, &request(second, 2, &[]), 2 * later, quiet),
        Err(ErrorCode::FetchSessionIdNotFound)
    );
}

#[test]
fn partitions_are_bounded_too() {
    let sessions = Sessions::bounded(10, 4);
    let three: &[(i32, i64)] = &[(0, 0), (1, 0), (2, 0)];
    let (id, _) = ask(&sessions, &request(0, 0, three), 0, quiet).unwrap();
    assert!(id > 0);
    assert_eq!(ask(&sessions, &request(0, 0, three), 0, quiet).unwrap().0, 0);
    assert_eq!(
        ask(&sessions, &request(id, 1, &[(3, 0), (4, 0)]), 0, quiet),
        Err(ErrorCode::FetchSessionIdNotFound),
        "a session that outgrows the bound is over"
    );
    assert!(
        ask(&sessions, &request(0, 0, three), 0, quiet).unwrap().0 > 0,
        "its room is free"
    );
}
