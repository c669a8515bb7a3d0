//! What has to hold for every message whatever comes in, and the errors that name what is wrong.

use bytes::{Bytes, BytesMut};

use super::metadata::MetadataRequestTopic;
use super::produce::{LeaderIdAndEpoch, PartitionProduceResponse, TopicProduceResponse};
use super::*;
use crate::random::Random;

/// Every API in every version, with a few bodies of request and response.
fn bodies() -> impl Iterator<Item = (ApiKey, i16, Bytes, Bytes)> {
    let known = ApiKey::ALL
        .iter()
        .filter_map(|key| versions(*key).map(|versions| (*key, versions)));
    known
        .flat_map(|(key, versions)| (versions.min..=versions.max).map(move |version| (key, version)))
        .flat_map(|(key, version)| {
            (0..6).map(move |seed| {
                let (request, response) = random_bodies(key, version, &mut Random::new(seed));
                (key, version, request, response)
            })
        })
}

fn encoded<M: Message>(message: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut w = Writer::new();
    message.encode(&mut w, version).map(|()| w.into_bytes())
}

#[test]
fn a_body_cut_short_anywhere_is_refused() {
    for (key, version, request, response) in bodies() {
        for length in (0..request.len()).filter(|length| *length < 300) {
            let cut = transcode_request(key, version, request.slice(..length));
            assert!(
                matches!(cut, Err(TranscodeError::Decode(_))),
                "{key:?} {version} {length}: {cut:?}"
            );
        }
        for length in (0..response.len()).filter(|length| *length < 300) {
            let cut = transcode_response(key, version, response.slice(..length));
            assert!(
                matches!(cut, Err(TranscodeError::Decode(_))),
                "{key:?} {version} {length}: {cut:?}"
            );
        }
    }
}

#[test]
fn a_damaged_body_is_refused_or_is_another_message() {
    let mut random = Random::new(1);
    for (key, version, request, response) in bodies() {
        for (body, transcode) in [
            (
                request,
                transcode_request as fn(_, _, _) -> Result<Bytes, TranscodeError>,
            ),
            (response, transcode_response),
        ] {
            for _ in 0..20.min(body.len()) {
                let mut damaged = BytesMut::from(&body[..]);
                let at = random.below(body.len().min(200) as u64) as usize;
                damaged[at] = [0, 0x7f, 0x80, 0xff, random.bits() as u8][random.below(5) as usize];
                match transcode(key, version, damaged.freeze()) {
                    Ok(once) => assert_eq!(transcode(key, version, once.clone()), Ok(once)),
                    Err(error) => assert!(matches!(error, TranscodeError::Decode(_)), "{error}"),
                }
            }
        }
    }
}

#[test]
fn four_bytes_cannot_reserve_more_than_they_hold() {
    let refused =
        MetadataRequest::decode(&mut Reader::new(Bytes::from_static(b"\x7f\xff\xff\xff")), 0).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "MetadataRequest.topics: 2147483647 bytes needed where 0 are left"
    );
    let refused = MetadataRequest::decode(&mut Reader::new(Bytes::from_static(b"\xff\xff\xff\xff\x0f")), 12)
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "MetadataRequest.topics: 4294967294 bytes needed where 0 are left"
    );
}

#[test]
fn a_field_that_would_be_lost_makes_encoding_fail_and_an_ignorable_one_does_not() {
    let request = FetchRequest {
        session_id: 3,
        rack_id: "r".into(),
        ..Default::default()
    };
    assert!(encoded(&request, 4).is_ok());
    let response = FetchResponse {
        session_id: 3,
        ..Default::default()
    };
    let error = encoded(&response, 4).unwrap_err();
    assert_eq!(
        error.to_string(),
        "FetchResponse.session_id is set, but version 4 does not have it"
    );
    assert!(encoded(&response, 7).is_ok());
}

#[test]
fn null_is_refused_where_the_version_has_none() {
    let all = MetadataRequest {
        topics: None,
        ..Default::default()
    };
    let error = encoded(&all, 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "MetadataRequest.topics is null, which version 0 does not allow"
    );
    assert!(encoded(&all, 1).is_ok());

    let by_id = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic::default()]),
        ..Default::default()
    };
    assert!(encoded(&by_id, 9).is_err());
    assert!(encoded(&by_id, 10).is_ok());

    let nulls = Bytes::from_static(b"\xff\xff\xff\xff");
    let error = MetadataRequest::decode(&mut Reader::new(nulls.clone()), 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "MetadataRequest.topics: null where this version has none"
    );
    assert_eq!(
        MetadataRequest::decode(&mut Reader::new(nulls), 1).map(|request| request.topics),
        Ok(None)
    );
}

#[test]
fn a_string_longer_than_its_length_can_say_makes_encoding_fail() {
    let long = "x".repeat(i16::MAX as usize + 1);
    let request = HeartbeatRequest {
        member_id: long.into(),
        ..Default::default()
    };
    for version in [0, 4] {
        let error = encoded(&request, version).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("HeartbeatRequest.member_id is too long for version {version}: 32768")
        );
    }
}

#[test]
fn a_tagged_field_is_written_only_if_it_is_set() {
    let partition = |current_leader| PartitionProduceResponse {
        current_leader,
        ..Default::default()
    };
    let response = |current_leader| ProduceResponse {
        responses: vec![TopicProduceResponse {
            partition_responses: vec![partition(current_leader)],
            ..Default::default()
        }],
        ..Default::default()
    };
    let unset = encoded(&response(LeaderIdAndEpoch::default()), 10).unwrap();
    let leader = response(LeaderIdAndEpoch {
        leader_id: 2,
        leader_epoch: 9,
    });
    let set = encoded(&leader, 10).unwrap();
    // Tag, size, and a structure of two integers and no tagged fields.
    assert_eq!(set.len(), unset.len() + 2 + 9);
    assert_eq!(
        ProduceResponse::decode(&mut Reader::new(set), 10),
        Ok(leader.clone())
    );
    assert_eq!(
        encoded(&leader, 9),
        encoded(&response(LeaderIdAndEpoch::default()), 9)
    );
}

#[test]
fn what_follows_a_message_is_left() {
    let mut r = Reader::new(Bytes::from_static(b"\0\0\0\0\0\0more"));
    HeartbeatResponse::decode(&mut r, 1).unwrap();
    assert_eq!(r.rest(), "more");
}
