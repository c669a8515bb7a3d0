//! MirrorMaker 2's record formats, which Java's `MirrorClient` and `RemoteClusterUtils` read.
//!
//! Integers are big-endian, a string is a u16 length and UTF-8; values begin with a version, keys do not.

use bytes::{BufMut, Bytes, BytesMut};
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;

const VERSION: i16 = 0;

/// The topic of a flow's checkpoints, in the target.
pub fn checkpoints_topic(source_cluster: &str) -> String {
    format!("{source_cluster}.checkpoints.internal")
}

/// What a group's position at the source means here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The group.
    pub group: String,
    /// The topic's name **here**.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The position at the source.
    pub upstream: i64,
    /// The position here.
    pub downstream: i64,
    /// The group's own metadata.
    pub metadata: String,
}

impl Checkpoint {
    /// The record's key and value.
    pub fn encode(&self) -> (Bytes, Bytes) {
        let mut key = BytesMut::new();
        put_string(&mut key, &self.group);
        put_string(&mut key, &self.topic);
        key.put_i32(self.partition);
        let mut value = BytesMut::new();
        value.put_i16(VERSION);
        value.put_i64(self.upstream);
        value.put_i64(self.downstream);
        put_string(&mut value, &self.metadata);
        (key.freeze(), value.freeze())
    }
}

/// A heartbeat: key and value.
pub fn heartbeat(source_cluster: &str, target_cluster: &str, timestamp_ms: i64) -> (Bytes, Bytes) {
    let mut key = BytesMut::new();
    put_string(&mut key, source_cluster);
    put_string(&mut key, target_cluster);
    let mut value = BytesMut::new();
    value.put_i16(VERSION);
    value.put_i64(timestamp_ms);
    (key.freeze(), value.freeze())
}

/// One batch of such records.
pub fn batch(now_ms: i64, records: &[(Bytes, Bytes)]) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    for (key, value) in records {
        builder.append(now_ms, Some(key), Some(value), &[]);
    }
    builder.build()
}

/// Kafka's names, groups and metadata are far below 64 KiB; what is not is cut at a character.
fn put_string(out: &mut BytesMut, text: &str) {
    let mut length = text.len().min(usize::from(u16::MAX) / 2);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    out.put_u16(length as u16);
    out.put_slice(&text.as_bytes()[..length]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_checkpoint_is_mirrormakers_bytes() {
        let checkpoint = Checkpoint {
            group: "g1".into(),
            topic: "A.orders".into(),
            partition: 3,
            upstream: 100,
            downstream: 43,
            metadata: String::new(),
        };
        let (key, value) = checkpoint.encode();
        assert_eq!(hex(&key), "000267310008412e6f726465727300000003");
        assert_eq!(hex(&value), "00000000000000000064000000000000002b0000");
    }

    #[test]
    fn a_heartbeat_is_mirrormakers_bytes() {
        let (key, value) = heartbeat("A", "B", 1_700_000_000_000);
        assert_eq!(hex(&key), "000141000142");
        assert_eq!(hex(&value), "00000000018bcfe56800");
    }
}
