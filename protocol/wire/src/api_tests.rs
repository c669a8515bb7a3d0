//! Headers, advertised versions and the answer to unknown ones, byte for byte.

use super::*;
use crate::messages::{ApiVersionsRequest, Message};

fn encoded<M: Message>(message: &M, version: i16) -> Bytes {
    let mut w = Writer::new();
    message.encode(&mut w, version).unwrap();
    w.into_bytes()
}

#[test]
fn every_advertised_version_can_be_decoded() {
    for &(key, min, max) in ADVERTISED {
        let known = messages::versions(key).unwrap();
        let accepted = if key == ApiKey::Produce {
            PRODUCE_ACCEPTED_FROM
        } else {
            min
        };
        assert!(known.min <= accepted && max <= known.max, "{key:?}");
    }
}

#[test]
fn keys_are_advertised_once_and_in_order() {
    assert!(ADVERTISED.is_sorted_by(|a, b| a.0 < b.0));
}

#[test]
fn the_answer_to_an_unknown_version_of_api_versions_is_byte_for_byte_kafkas() {
    let mut w = Writer::new();
    ResponseHeader { correlation_id: 0x4d }.encode(&mut w, ApiKey::ApiVersions, 0);
    unsupported_api_versions().encode(&mut w, 0).unwrap();
    assert_eq!(
        w.into_bytes(),
        b"\0\0\0\x4d\0\x23\0\0\0\x01\0\x12\0\0\0\x04".as_slice()
    );
}

#[test]
fn a_header_can_be_read_though_api_or_version_are_unknown() {
    // An ApiVersions from the future still has a header with tagged fields, here one of them.
    let frame = b"\0\x12\0\x63\0\0\0\x07\0\x02me\x01\x05\x01\xff-body";
    let (header, mut body) = decode_header(Bytes::from_static(frame)).unwrap();
    let expected = RequestHeader {
        api_key: 18,
        api_version: 99,
        correlation_id: 7,
        client_id: Some("me".into()),
    };
    assert_eq!(header, expected);
    assert_eq!(body.rest(), "-body");

    let (header, mut body) =
        decode_header(Bytes::from_static(b"\x27\x0f\0\0\0\0\0\x01\xff\xffbody")).unwrap();
    assert_eq!(
        (header.api_key, header.key(), header.client_id),
        (9999, None, None)
    );
    assert_eq!(body.rest(), "body");

    assert!(decode_header(Bytes::from_static(b"\0\x12")).is_err());
}

#[test]
fn a_request_header_is_written_as_it_is_read() {
    for (api_version, length) in [(2, 13), (3, 14)] {
        let header = RequestHeader {
            api_key: ApiKey::ApiVersions.code(),
            api_version,
            correlation_id: -5,
            client_id: Some("abc".into()),
        };
        let mut w = Writer::new();
        header.encode(&mut w).unwrap();
        assert_eq!(w.len(), length);
        assert_eq!(decode_header(w.into_bytes()).unwrap().0, header);
    }
}

#[test]
fn response_headers_have_tagged_fields_where_the_api_is_flexible_except_for_api_versions() {
    for (key, version, expected) in [
        (ApiKey::ApiVersions, 4, b"\0\0\0\x01".as_slice()),
        (ApiKey::Fetch, 11, b"\0\0\0\x01"),
        (ApiKey::Fetch, 12, b"\0\0\0\x01\0"),
        (ApiKey::SaslHandshake, 1, b"\0\0\0\x01"),
    ] {
        let header = ResponseHeader { correlation_id: 1 };
        let mut w = Writer::new();
        header.encode(&mut w, key, version);
        let bytes = w.into_bytes();
        assert_eq!(bytes, expected, "{key:?} {version}");
        assert_eq!(
            ResponseHeader::decode(&mut Reader::new(bytes), key, version),
            Ok(header)
        );
    }
}

#[test]
fn a_version_outside_of_the_declared_ones_is_refused_before_the_body_is_read() {
    for version in [-1, 5] {
        let refused = ApiVersionsRequest::decode(&mut Reader::new(Bytes::new()), version).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("ApiVersionsRequest has no version {version}")
        );
        assert!(
            ApiVersionsRequest::default()
                .encode(&mut Writer::new(), version)
                .is_err()
        );
    }
}

#[test]
fn keys_have_the_numbers_and_names_of_an_independent_table() {
    for key in ApiKey::ALL {
        let theirs = kafka_protocol::messages::ApiKey::try_from(key.code()).unwrap();
        assert_eq!(key.name(), format!("{theirs:?}"));
        assert_eq!(ApiKey::from_code(key.code()), Some(*key));
        if let Some(versions) = messages::versions(*key) {
            for version in versions.min..=versions.max {
                let flexible = theirs.request_header_version(version) == 2;
                assert_eq!(key.is_flexible(version), flexible, "{key:?} {version}");
                let tagged = theirs.response_header_version(version) == 1;
                assert_eq!(
                    ResponseHeader::has_tagged_fields(*key, version),
                    tagged,
                    "{key:?} {version}"
                );
            }
        }
    }
}

#[test]
fn the_advertised_list_survives_the_wire() {
    let response = ApiVersionsResponse {
        api_keys: advertised(),
        ..Default::default()
    };
    for version in 0..=4 {
        let bytes = encoded(&response, version);
        assert_eq!(
            ApiVersionsResponse::decode(&mut Reader::new(bytes), version),
            Ok(response.clone())
        );
    }
}
