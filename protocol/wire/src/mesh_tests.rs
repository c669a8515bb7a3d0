//! Every frame of the mesh survives the trip, and any bytes are a frame or an error.

use proptest::prelude::*;

use super::*;

fn marks() -> Mark {
    Mark {
        high_watermark: 7,
        log_start: 3,
        leader_epoch: 2,
        sent_ms: 1,
        deleted: Some(2),
    }
}

#[test]
fn every_frame_survives_the_trip() {
    let follows = [
        Follow::Start(Start {
            handle: 9,
            topic: TopicId([7; 16]),
            partition: 4,
            leader_epoch: 5,
            daemon_epoch: 6,
            last_epoch: -1,
            end: 12,
        }),
        Follow::Ack {
            handle: 1,
            written: 5,
            flushed: 4,
            log_start: 2,
        },
        Follow::Stop {
            handle: 1,
            failure: None,
        },
        Follow::Stop {
            handle: 1,
            failure: Some("disk full".into()),
        },
    ];
    for frame in follows {
        assert_eq!(Follow::decode(frame.encode()).unwrap(), frame);
    }
    let batches = Bytes::from_static(b"batches");
    let pushes = [
        Push::Match {
            handle: 1,
            mark: marks(),
        },
        Push::Diverge {
            handle: 2,
            epoch: 3,
            end: 4,
        },
        Push::Refused {
            handle: 2,
            reason: Refusal::UnknownEpoch,
            mark: marks(),
        },
        Push::Data {
            handle: 2,
            prev_end: 9,
            mark: Mark {
                deleted: None,
                ..marks()
            },
            batches,
        },
        Push::Watermark {
            handle: 2,
            mark: marks(),
        },
        Push::Watermark {
            handle: 2,
            mark: Mark {
                deleted: None,
                ..marks()
            },
        },
    ];
    for frame in pushes {
        let mut bytes = frame.encode_head().to_vec();
        if let Push::Data { batches, .. } = &frame {
            bytes.extend_from_slice(batches);
        }
        assert_eq!(Push::decode(bytes.into()).unwrap(), frame);
    }
    let mut hello = Hello::new(Conversation::Mirror, "east", 3);
    hello.cluster_id = Some(ClusterId([1; 16]));
    assert_eq!(Hello::decode(hello.encode()).unwrap(), hello);
    let refused = Welcome::Refused {
        reason: "not a daemon of this cluster".into(),
    };
    assert_eq!(Welcome::decode(refused.encode()).unwrap(), refused);
    let accepted = Welcome::Accepted {
        version: 1,
        cluster_id: None,
        node: 2,
        storage_id: [3; 16],
    };
    assert_eq!(Welcome::decode(accepted.encode()).unwrap(), accepted);
}

proptest! {
    #[test]
    fn any_bytes_are_a_frame_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let bytes = Bytes::from(bytes);
        let _ = Hello::decode(bytes.clone());
        let _ = Welcome::decode(bytes.clone());
        let _ = Follow::decode(bytes.clone());
        let _ = Push::decode(bytes);
    }
}
