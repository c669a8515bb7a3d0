//! Batches against bytes made elsewhere, and against bytes made by nobody.

use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::records as theirs;
use proptest::prelude::*;

use super::*;

fn sample(codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new(codec, TimestampType::Create);
    builder
        .append(
            1_000,
            Some(b"k1"),
            Some(b"v1"),
            &[(b"h", Some(b"1")), (b"h", None), (b"", Some(b""))],
        )
        .append(998, None, Some(b""), &[])
        .append(1_005, Some(b""), None, &[])
        .producer(77, 3, 10);
    builder.build()
}

fn parse(bytes: Bytes) -> Batch {
    Batch::parse(bytes).unwrap()
}

#[test]
fn a_batch_by_hand_is_read_field_by_field() {
    // One record, key "a", value "b", by the letter of the message format; the CRC by another implementation.
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&5i64.to_be_bytes());
    bytes.extend_from_slice(&58i32.to_be_bytes());
    bytes.extend_from_slice(&2i32.to_be_bytes());
    bytes.push(2);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&0i16.to_be_bytes());
    bytes.extend_from_slice(&0i32.to_be_bytes());
    bytes.extend_from_slice(&100i64.to_be_bytes());
    bytes.extend_from_slice(&100i64.to_be_bytes());
    bytes.extend_from_slice(&(-1i64).to_be_bytes());
    bytes.extend_from_slice(&(-1i16).to_be_bytes());
    bytes.extend_from_slice(&(-1i32).to_be_bytes());
    bytes.extend_from_slice(&1i32.to_be_bytes());
    bytes.extend_from_slice(&[16, 0, 0, 0, 2, b'a', 2, b'b', 0]);
    let crc = bitwise_crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());

    let batch = parse(Bytes::from(bytes));
    batch.check_crc().unwrap();
    assert_eq!((batch.header().base_offset, batch.header().next_offset()), (5, 6));
    assert_eq!(batch.header().partition_leader_epoch, 2);
    let records = batch.records(100).unwrap();
    let all: Vec<_> = records.iter().map(Result::unwrap).collect();
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].offset, all[0].timestamp), (5, 100));
    assert_eq!((all[0].key, all[0].value), (Some(&b"a"[..]), Some(&b"b"[..])));
}

fn bitwise_crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0x82F6_3B78
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

#[test]
fn what_the_builder_writes_is_read_back_for_every_codec() {
    for codec in Codec::ALL {
        let batch = parse(sample(codec));
        batch.check_crc().unwrap();
        assert_eq!(batch.header().compression(), Some(codec));
        assert_eq!(
            (batch.header().base_timestamp, batch.header().max_timestamp),
            (1_000, 1_005)
        );
        assert_eq!(batch.header().last_sequence(), 12);
        let records = batch.records(1 << 20).unwrap();
        let all: Vec<_> = records.iter().map(Result::unwrap).collect();
        assert_eq!(
            all.iter().map(|r| r.timestamp).collect::<Vec<_>>(),
            [1_000, 998, 1_005]
        );
        let headers: Vec<_> = all[0].headers.collect();
        assert_eq!(
            headers,
            [(&b"h"[..], Some(&b"1"[..])), (b"h", None), (b"", Some(b""))]
        );
        assert_eq!((all[1].key, all[1].value), (None, Some(&b""[..])));
        assert_eq!((all[2].key, all[2].value), (Some(&b""[..]), None));
    }
}

#[test]
fn another_implementation_reads_what_the_builder_writes() {
    let mut bytes = sample(Codec::None);
    let set = theirs::RecordBatchDecoder::decode_all(&mut bytes).unwrap();
    let records = &set[0].records;
    assert_eq!(records.len(), 3);
    assert_eq!(records[0].key.as_deref(), Some(&b"k1"[..]));
    assert_eq!((records[2].offset, records[2].timestamp), (2, 1_005));
    assert_eq!(
        (
            records[0].producer_id,
            records[0].producer_epoch,
            records[0].sequence
        ),
        (77, 3, 10)
    );
}

#[test]
fn what_another_implementation_writes_is_read() {
    let record = |offset: i64, value: &'static str| theirs::Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 4,
        producer_id: 9,
        producer_epoch: 1,
        timestamp_type: theirs::TimestampType::Creation,
        offset,
        sequence: offset as i32,
        timestamp: 1_700_000_000_000 + offset,
        key: None,
        value: Some(Bytes::from_static(value.as_bytes())),
        headers: IndexMap::new(),
    };
    let mut out = bytes::BytesMut::new();
    let options = theirs::RecordEncodeOptions {
        version: 2,
        compression: theirs::Compression::None,
    };
    theirs::RecordBatchEncoder::encode(&mut out, &[record(0, "east"), record(1, "west")], &options).unwrap();
    let batch = parse(out.freeze());
    batch.check_crc().unwrap();
    assert_eq!((batch.header().producer_id, batch.header().base_sequence), (9, 0));
    let records = batch.records(1 << 20).unwrap();
    let values: Vec<_> = records.iter().map(|r| r.unwrap().value.unwrap()).collect();
    assert_eq!(values, [b"east", b"west"]);
}

#[test]
fn offset_and_epoch_change_without_touching_the_crc() {
    let bytes = sample(Codec::Lz4);
    let mut batch = parse(bytes.clone());
    batch.set_base_offset(1 << 40);
    batch.set_leader_epoch(12);
    batch.check_crc().unwrap();
    let written = batch.to_bytes();
    assert_eq!(
        written[16..],
        bytes[16..],
        "everything from the magic on is as received"
    );
    assert_eq!(
        batch.payload().as_ptr(),
        bytes[BATCH_OVERHEAD..].as_ptr(),
        "the payload is not copied"
    );
    let again = parse(written);
    assert_eq!(
        (again.header().base_offset, again.header().partition_leader_epoch),
        (1 << 40, 12)
    );
    again.check_crc().unwrap();
}

#[test]
fn log_append_time_sets_flag_time_and_crc() {
    let mut batch = parse(sample(Codec::Zstd));
    batch.restamp(TimestampType::LogAppend, 5_000);
    batch.check_crc().unwrap();
    let batch = parse(batch.to_bytes());
    batch.check_crc().unwrap();
    assert_eq!(batch.header().timestamp_type(), TimestampType::LogAppend);
    let records = batch.records(1 << 20).unwrap();
    assert!(records.iter().all(|r| r.unwrap().timestamp == 5_000));
}

#[test]
fn sequences_wrap_to_zero() {
    assert_eq!(add_sequence(i32::MAX, 1), 0);
    assert_eq!(add_sequence(i32::MAX - 1, 3), 1);
    assert_eq!(add_sequence(5, 0), 5);
}

#[test]
fn batches_back_to_back_are_split_and_a_cut_one_is_named() {
    let one = sample(Codec::None);
    let mut data = [&one[..], &one[..]].concat();
    data.extend_from_slice(&one[..30]);
    let items: Vec<_> = split(Bytes::from(data)).collect();
    assert!(matches!(
        items[..],
        [Ok(_), Ok(_), Err(BatchError::Cut { have: 30, .. })]
    ));
}

#[test]
fn old_formats_are_named() {
    let mut old = vec![0; 40];
    old[16] = 1;
    assert_eq!(
        split(Bytes::from(old)).next(),
        Some(Err(BatchError::Magic { magic: 1 }))
    );
}

#[test]
fn markers_are_told_apart() {
    for kind in [ControlKind::Abort, ControlKind::Commit] {
        let batch = parse(control_batch(kind, 5, 0, 1, 10));
        assert!(batch.header().is_control() && batch.header().is_transactional());
        assert_eq!(ControlKind::of(&batch), Some(kind));
    }
    assert_eq!(ControlKind::of(&parse(sample(Codec::None))), None);
}

mod client {
    use super::*;

    fn check(bytes: Bytes, rules: &ClientRules) -> Result<Batch, InvalidBatch> {
        let mut batch = parse(bytes);
        validate_client(&mut batch, rules, &mut Vec::new()).map(|()| batch)
    }

    fn resealed(bytes: &Bytes, change: impl FnOnce(&mut [u8])) -> Bytes {
        let mut bytes = bytes.to_vec();
        change(&mut bytes);
        seal(&mut bytes);
        Bytes::from(bytes)
    }

    #[test]
    fn good_batches_pass_for_every_codec() {
        for codec in Codec::ALL {
            check(sample(codec), &ClientRules::default()).unwrap();
        }
    }

    #[test]
    fn a_flipped_bit_is_corrupt() {
        let mut bytes = sample(Codec::None).to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        let result = check(Bytes::from(bytes), &ClientRules::default());
        assert!(matches!(result, Err(InvalidBatch::Corrupt(_))));
    }

    #[test]
    fn counts_that_disagree_are_invalid() {
        for (at, value) in [(23, 5i32), (57, 2), (57, 0), (57, -1), (57, i32::MAX)] {
            let bytes = resealed(&sample(Codec::None), |b| {
                b[at..at + 4].copy_from_slice(&value.to_be_bytes())
            });
            let result = check(bytes, &ClientRules::default());
            assert!(
                matches!(result, Err(InvalidBatch::Invalid(_))),
                "{at} {value}: {result:?}"
            );
        }
        // Both changed alike: the records themselves give it away.
        let bytes = resealed(&sample(Codec::None), |b| {
            b[23..27].copy_from_slice(&3i32.to_be_bytes());
            b[57..61].copy_from_slice(&4i32.to_be_bytes());
        });
        assert!(matches!(
            check(bytes, &ClientRules::default()),
            Err(InvalidBatch::Record { index: 3, .. })
        ));
    }

    #[test]
    fn control_batches_and_foreign_base_offsets_are_invalid() {
        let marker = control_batch(ControlKind::Commit, 1, 0, 0, 0);
        assert!(matches!(
            check(marker, &ClientRules::default()),
            Err(InvalidBatch::Invalid(_))
        ));
        let moved = resealed(&sample(Codec::None), |b| b[7] = 1);
        assert!(matches!(
            check(moved, &ClientRules::default()),
            Err(InvalidBatch::Invalid(_))
        ));
    }

    #[test]
    fn compacted_topics_need_keys() {
        let rules = ClientRules {
            require_key: true,
            ..ClientRules::default()
        };
        let result = check(sample(Codec::Gzip), &rules);
        let Err(error) = result else { panic!("accepted") };
        assert!(!error.is_about_time());
        let InvalidBatch::Records { faults, total } = error else {
            panic!("{error:?}")
        };
        let named: Vec<_> = faults.iter().map(|f| (f.index, f.fault)).collect();
        assert_eq!((named, total), (vec![(1, Fault::NoKey)], 1));
    }

    #[test]
    fn every_record_at_fault_is_named_up_to_a_bound() {
        let rules = ClientRules {
            require_key: true,
            timestamps: (10, 20),
            ..ClientRules::default()
        };
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
        builder.append(9, Some(b"k"), None, &[]);
        builder.append(15, Some(b"k"), None, &[]);
        for _ in 0..2_000 {
            builder.append(15, None, None, &[]);
        }
        let error = check(builder.build(), &rules).unwrap_err();
        assert!(error.is_about_time(), "one of them is");
        let InvalidBatch::Records { faults, total } = error else {
            panic!("{error:?}")
        };
        assert_eq!((faults.len(), total), (FAULTS_MAX, 2_001));
        assert_eq!((faults[0].index, faults[1].index), (0, 2));
        assert!(faults[0].fault.to_string().contains("10 to 20"));
    }

    #[test]
    fn a_producers_log_append_time_is_refused_whatever_the_topics_type() {
        let bytes = resealed(&sample(Codec::None), |b| b[22] |= 8);
        for timestamp_type in [TimestampType::Create, TimestampType::LogAppend] {
            let rules = ClientRules {
                timestamp_type,
                ..ClientRules::default()
            };
            assert!(check(bytes.clone(), &rules).unwrap_err().is_about_time());
        }
    }

    #[test]
    fn timestamps_outside_the_bounds_are_refused_only_with_create_time() {
        let mut rules = ClientRules {
            timestamps: (999, 2_000),
            ..ClientRules::default()
        };
        let result = check(sample(Codec::Snappy), &rules);
        let late = Fault::Time {
            timestamp: 998,
            earliest: 999,
            latest: 2_000,
        };
        let faults = vec![RecordFault {
            index: 1,
            fault: late,
        }];
        assert_eq!(result, Err(InvalidBatch::Records { faults, total: 1 }));
        rules.timestamp_type = TimestampType::LogAppend;
        check(sample(Codec::Snappy), &rules).unwrap();
    }

    #[test]
    fn a_wrong_largest_timestamp_is_mended() {
        let lie = resealed(&sample(Codec::Lz4), |b| {
            b[35..43].copy_from_slice(&i64::MAX.to_be_bytes())
        });
        let batch = check(lie, &ClientRules::default()).unwrap();
        assert_eq!(batch.header().max_timestamp, 1_005);
        batch.check_crc().unwrap();
    }

    #[test]
    fn unknown_codecs_and_bombs_are_named() {
        let unknown = resealed(&sample(Codec::None), |b| b[22] |= 6);
        assert_eq!(
            check(unknown, &ClientRules::default()),
            Err(InvalidBatch::UnknownCodec { id: 6 })
        );
        let mut builder = BatchBuilder::new(Codec::Zstd, TimestampType::Create);
        builder.append(0, None, Some(&vec![0; 1 << 20]), &[]);
        let rules = ClientRules {
            max_decompressed: 1 << 16,
            ..ClientRules::default()
        };
        assert_eq!(
            check(builder.build(), &rules),
            Err(InvalidBatch::TooLarge { limit: 1 << 16 })
        );
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        walk(Bytes::from(bytes));
    }

    #[test]
    fn arbitrary_payloads_under_a_good_header_never_panic(
        payload in proptest::collection::vec(any::<u8>(), 0..300),
        attributes in any::<i16>(),
        count in any::<i32>(),
        times in any::<(i64, i64)>(),
        base_offset in any::<i64>(),
        delta in any::<i32>(),
    ) {
        let mut header = *parse(sample(Codec::None)).header();
        header.batch_length = 49 + payload.len() as i32;
        header.attributes = attributes;
        header.records_count = count;
        (header.base_timestamp, header.max_timestamp) = times;
        header.base_offset = base_offset;
        header.last_offset_delta = delta;
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(&payload);
        seal(&mut bytes);
        walk(Bytes::from(bytes));
    }

    #[test]
    fn header_bytes_round_trip(bytes in proptest::array::uniform32(any::<u8>())) {
        let mut all = [0u8; BATCH_OVERHEAD];
        all[21..53].copy_from_slice(&bytes);
        all[8..12].copy_from_slice(&100i32.to_be_bytes());
        all[16] = 2;
        prop_assert_eq!(BatchHeader::parse(&all).unwrap().encode(), all);
    }
}

fn walk(bytes: Bytes) {
    for batch in split(bytes).flatten() {
        let _ = (
            batch.check_crc(),
            batch.header().last_offset(),
            batch.header().last_sequence(),
        );
        let _ = ControlKind::of(&batch);
        let rules = ClientRules {
            max_decompressed: 10_000,
            ..ClientRules::default()
        };
        let _ = validate_client(&mut batch.clone(), &rules, &mut Vec::new());
        if let Ok(records) = batch.records(10_000) {
            for record in records.iter().flatten() {
                let _ = record.headers.count();
            }
        }
    }
}
