//! What `__consumer_offsets` holds, byte for byte as Apache Kafka writes it, so that tools which read that topic work.
//!
//! | key version | key | value |
//! |---|---|---|
//! | 0, 1 | group, topic, partition | a committed offset: versions 0-4 read, 3 written, 4 where tagged fields are needed |
//! | 2 | group | a group's metadata: versions 0-3 read, 3 written |
//!
//! A record without a value removes what its key names. Keys 3-8 and 16 are in
//! `consumer/records.rs`; those of other versions (share groups) are skipped.
//! A mirrored commit says in tagged fields of its value which flow wrote it; other readers skip those fields.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The key of a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// A committed offset.
    Offset {
        /// The group.
        group: String,
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// A group's metadata.
    Group {
        /// The group.
        group: String,
    },
}

/// The value of an offset's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetValue {
    /// The offset of the next record to read.
    pub offset: i64,
    /// The leader epoch of the last record read; -1 if not known.
    pub leader_epoch: i32,
    /// What the client wanted to remember.
    pub metadata: String,
    /// When it was committed, in milliseconds since the epoch.
    pub commit_timestamp_ms: i64,
    /// When it is over, in milliseconds since the epoch, if its client asked for a retention of its own (OffsetCommit
    /// before version 5).
    pub expire_timestamp_ms: Option<i64>,
    /// Which flow wrote it; `None` for a commit of a client of this cluster.
    pub mirrored: Option<MirroredFrom>,
}

/// Where a mirrored commit comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirroredFrom {
    /// The flow's name.
    pub flow: String,
    /// The offset that stands in the source's group.
    pub source_offset: i64,
    /// Grows with each change of that offset at the source, so that a rewind can be told from an old answer.
    pub source_version: i64,
}

/// The value of a group's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupValue {
    /// The protocol type; empty if only offsets were committed.
    pub protocol_type: String,
    /// The generation.
    pub generation: i32,
    /// The protocol elected.
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: Option<String>,
    /// Since when the group has been in its state; -1 if not known.
    pub state_timestamp_ms: i64,
    /// The members.
    pub members: Vec<MemberValue>,
}

/// A member in a group's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberValue {
    /// Member id.
    pub member_id: String,
    /// Static instance id.
    pub instance_id: Option<String>,
    /// Client id.
    pub client_id: String,
    /// Client host.
    pub client_host: String,
    /// Rebalance timeout.
    pub rebalance_timeout_ms: i32,
    /// Session timeout.
    pub session_timeout_ms: i32,
    /// The member's metadata for the elected protocol.
    pub subscription: Bytes,
    /// Its assignment.
    pub assignment: Bytes,
}

/// Why a record of the topic cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It ends before its fields do, or a length in it is wrong.
    #[error("the record is cut short or a length in it is wrong")]
    Malformed,
    /// It has a version that this program does not know.
    #[error("the record has the unknown version {0}")]
    UnknownVersion(i16),
}

const TAG_FLOW: u32 = 10_000;
const TAG_SOURCE_OFFSET: u32 = 10_001;
const TAG_SOURCE_VERSION: u32 = 10_002;

impl Key {
    /// The bytes of the key.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Offset {
                group,
                topic,
                partition,
            } => {
                out.put_i16(1);
                put_string(&mut out, group);
                put_string(&mut out, topic);
                out.put_i32(*partition);
            }
            Self::Group { group } => {
                out.put_i16(2);
                put_string(&mut out, group);
            }
        }
        out.freeze()
    }

    /// The key in `bytes`; [`RecordError::UnknownVersion`] is one to skip.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, RecordError> {
        let input = &mut bytes;
        match i16_of(input)? {
            0 | 1 => {
                let (group, topic) = (string(input)?, string(input)?);
                Ok(Self::Offset {
                    group,
                    topic,
                    partition: i32_of(input)?,
                })
            }
            2 => Ok(Self::Group {
                group: string(input)?,
            }),
            version => Err(RecordError::UnknownVersion(version)),
        }
    }
}

impl OffsetValue {
    /// The bytes of the value: version 3, or 4 if it is a mirrored commit, or 1 if it has an end of its own.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        if let (Some(expires), None) = (self.expire_timestamp_ms, &self.mirrored) {
            out.put_i16(1);
            out.put_i64(self.offset);
            put_string(&mut out, &self.metadata);
            out.put_i64(self.commit_timestamp_ms);
            out.put_i64(expires);
            return out.freeze();
        }
        let Some(mirrored) = &self.mirrored else {
            out.put_i16(3);
            out.put_i64(self.offset);
            out.put_i32(self.leader_epoch);
            put_string(&mut out, &self.metadata);
            out.put_i64(self.commit_timestamp_ms);
            return out.freeze();
        };
        out.put_i16(4);
        out.put_i64(self.offset);
        out.put_i32(self.leader_epoch);
        put_compact(&mut out, &self.metadata);
        out.put_i64(self.commit_timestamp_ms);
        put_varint(&mut out, 3);
        put_varint(&mut out, TAG_FLOW);
        put_varint(&mut out, mirrored.flow.len() as u32);
        out.put_slice(mirrored.flow.as_bytes());
        put_varint(&mut out, TAG_SOURCE_OFFSET);
        put_varint(&mut out, 8);
        out.put_i64(mirrored.source_offset);
        put_varint(&mut out, TAG_SOURCE_VERSION);
        put_varint(&mut out, 8);
        out.put_i64(mirrored.source_version);
        out.freeze()
    }

    /// The value in `bytes`.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, RecordError> {
        let input = &mut bytes;
        let version = i16_of(input)?;
        if !(0..=4).contains(&version) {
            return Err(RecordError::UnknownVersion(version));
        }
        let offset = i64_of(input)?;
        let leader_epoch = if version >= 3 { i32_of(input)? } else { -1 };
        let metadata = if version >= 4 {
            compact_string(input)?
        } else {
            string(input)?
        };
        let commit_timestamp_ms = i64_of(input)?;
        let expires = if version == 1 { i64_of(input)? } else { -1 };
        let mirrored = if version >= 4 { mirrored_from(input)? } else { None };
        Ok(Self {
            offset,
            leader_epoch,
            metadata,
            commit_timestamp_ms,
            expire_timestamp_ms: (expires != -1).then_some(expires),
            mirrored,
        })
    }
}

fn mirrored_from(input: &mut &[u8]) -> Result<Option<MirroredFrom>, RecordError> {
    let (mut flow, mut source_offset, mut source_version) = (None, None, None);
    for _ in 0..varint(input)? {
        let tag = varint(input)?;
        let len = varint(input)? as usize;
        let mut field = take(input, len)?;
        match tag {
            TAG_FLOW => flow = Some(text(field)?),
            TAG_SOURCE_OFFSET => source_offset = Some(i64_of(&mut field)?),
            TAG_SOURCE_VERSION => source_version = Some(i64_of(&mut field)?),
            _ => {}
        }
    }
    Ok(flow.map(|flow| MirroredFrom {
        flow,
        source_offset: source_offset.unwrap_or(-1),
        source_version: source_version.unwrap_or(0),
    }))
}

impl GroupValue {
    /// The bytes of the value: version 3.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(3);
        put_string(&mut out, &self.protocol_type);
        out.put_i32(self.generation);
        put_nullable(&mut out, self.protocol.as_deref());
        put_nullable(&mut out, self.leader.as_deref());
        out.put_i64(self.state_timestamp_ms);
        out.put_i32(self.members.len() as i32);
        for member in &self.members {
            put_string(&mut out, &member.member_id);
            put_nullable(&mut out, member.instance_id.as_deref());
            put_string(&mut out, &member.client_id);
            put_string(&mut out, &member.client_host);
            out.put_i32(member.rebalance_timeout_ms);
            out.put_i32(member.session_timeout_ms);
            put_bytes(&mut out, &member.subscription);
            put_bytes(&mut out, &member.assignment);
        }
        out.freeze()
    }

    /// The value in `bytes`.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, RecordError> {
        let input = &mut bytes;
        let version = i16_of(input)?;
        if !(0..=3).contains(&version) {
            return Err(RecordError::UnknownVersion(version));
        }
        let protocol_type = string(input)?;
        let generation = i32_of(input)?;
        let (protocol, leader) = (nullable(input)?, nullable(input)?);
        let state_timestamp_ms = if version >= 2 { i64_of(input)? } else { -1 };
        let count = usize::try_from(i32_of(input)?).map_err(|_| RecordError::Malformed)?;
        // The smallest member takes 20 bytes; a count that cannot fit is not believed.
        if count > input.len() / 20 {
            return Err(RecordError::Malformed);
        }
        let mut members = Vec::with_capacity(count.min(1_000));
        for _ in 0..count {
            members.push(member(input, version)?);
        }
        Ok(Self {
            protocol_type,
            generation,
            protocol,
            leader,
            state_timestamp_ms,
            members,
        })
    }
}

fn member(input: &mut &[u8], version: i16) -> Result<MemberValue, RecordError> {
    let member_id = string(input)?;
    let instance_id = if version >= 3 { nullable(input)? } else { None };
    let (client_id, client_host) = (string(input)?, string(input)?);
    let rebalance = if version >= 1 { Some(i32_of(input)?) } else { None };
    let session_timeout_ms = i32_of(input)?;
    Ok(MemberValue {
        member_id,
        instance_id,
        client_id,
        client_host,
        rebalance_timeout_ms: rebalance.unwrap_or(session_timeout_ms),
        session_timeout_ms,
        subscription: bytes_of(input)?,
        assignment: bytes_of(input)?,
    })
}

/// Which partition of a topic with `partitions` partitions holds a group: `abs(javaHash(group)) % partitions`.
pub fn partition_of(group: &str, partitions: i32) -> i32 {
    let hash = group.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    // Kafka's abs answers 0 for the one number that has no counterpart.
    hash.checked_abs().unwrap_or(0) % partitions.max(1)
}

/// The topics that a member of a `consumer` group subscribes to; `None` if its metadata is not Kafka's.
pub fn subscribed_topics(mut metadata: &[u8]) -> Option<Vec<String>> {
    let input = &mut metadata;
    i16_of(input).ok()?;
    let count = usize::try_from(i32_of(input).ok()?).ok()?;
    if count > input.len() / 2 {
        return None;
    }
    (0..count).map(|_| string(input).ok()).collect()
}

pub(super) fn put_string(out: &mut BytesMut, text: &str) {
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

fn put_nullable(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, text),
        None => out.put_i16(-1),
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_i32(bytes.len() as i32);
    out.put_slice(bytes);
}

/// A text of flexible versions: its length plus one, then its bytes.
pub(super) fn put_compact(out: &mut BytesMut, text: &str) {
    put_varint(out, text.len() as u32 + 1);
    out.put_slice(text.as_bytes());
}

pub(super) fn put_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

pub(super) fn take<'a>(input: &mut &'a [u8], len: usize) -> Result<&'a [u8], RecordError> {
    let (head, tail) = input.split_at_checked(len).ok_or(RecordError::Malformed)?;
    *input = tail;
    Ok(head)
}

pub(super) fn i16_of(input: &mut &[u8]) -> Result<i16, RecordError> {
    Ok(take(input, 2)?.get_i16())
}

pub(super) fn i32_of(input: &mut &[u8]) -> Result<i32, RecordError> {
    Ok(take(input, 4)?.get_i32())
}

pub(super) fn i64_of(input: &mut &[u8]) -> Result<i64, RecordError> {
    Ok(take(input, 8)?.get_i64())
}

pub(super) fn varint(input: &mut &[u8]) -> Result<u32, RecordError> {
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        let byte = take(input, 1)?.get_u8();
        value |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(RecordError::Malformed)
}

fn text(bytes: &[u8]) -> Result<String, RecordError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| RecordError::Malformed)
}

pub(super) fn string(input: &mut &[u8]) -> Result<String, RecordError> {
    nullable(input)?.ok_or(RecordError::Malformed)
}

fn nullable(input: &mut &[u8]) -> Result<Option<String>, RecordError> {
    match i16_of(input)? {
        -1 => Ok(None),
        len => {
            let len = usize::try_from(len).map_err(|_| RecordError::Malformed)?;
            text(take(input, len)?).map(Some)
        }
    }
}

pub(super) fn compact_string(input: &mut &[u8]) -> Result<String, RecordError> {
    let len = varint(input)?.checked_sub(1).ok_or(RecordError::Malformed)?;
    text(take(input, len as usize)?)
}

fn bytes_of(input: &mut &[u8]) -> Result<Bytes, RecordError> {
    let len = usize::try_from(i32_of(input)?).map_err(|_| RecordError::Malformed)?;
    Ok(Bytes::copy_from_slice(take(input, len)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn keys_have_kafkas_bytes() {
        let key = Key::Offset {
            group: "g1".into(),
            topic: "orders".into(),
            partition: 7,
        };
        let golden = hex("0001 0002 6731 0006 6f7264657273 00000007");
        assert_eq!(key.encode(), golden);
        assert_eq!(Key::decode(&golden).unwrap(), key);
        let key = Key::Group { group: "g1".into() };
        let golden = hex("0002 0002 6731");
        assert_eq!(key.encode(), golden);
        assert_eq!(Key::decode(&golden).unwrap(), key);
        assert_eq!(
            Key::decode(&hex("0003 0002 6731")),
            Err(RecordError::UnknownVersion(3))
        );
    }

    #[test]
    fn offset_values_have_kafkas_bytes() {
        let mut value = OffsetValue {
            offset: 42,
            leader_epoch: 5,
            metadata: "m".into(),
            commit_timestamp_ms: 1_000,
            expire_timestamp_ms: None,
            mirrored: None,
        };
        let golden = hex("0003 000000000000002a 00000005 0001 6d 00000000000003e8");
        assert_eq!(value.encode(), golden);
        assert_eq!(OffsetValue::decode(&golden).unwrap(), value);

        value.mirrored = Some(MirroredFrom {
            flow: "e->w".into(),
            source_offset: 40,
            source_version: 3,
        });
        let golden = hex("0004 000000000000002a 00000005 02 6d 00000000000003e8 03
             904e 04 652d3e77  914e 08 0000000000000028  924e 08 0000000000000003");
        assert_eq!(value.encode(), golden);
        assert_eq!(OffsetValue::decode(&golden).unwrap(), value);
    }

    #[test]
    fn older_and_newer_offset_values_are_read() {
        // Version 1 carries an expiry at the end; version 4 of Kafka 4.x a topic id in tag 0.
        let v1 = hex("0001 000000000000002a 0000 00000000000003e8 00000000000007d0");
        let read = OffsetValue::decode(&v1).unwrap();
        assert_eq!(
            (read.offset, read.leader_epoch, read.commit_timestamp_ms),
            (42, -1, 1_000)
        );
        let v4 = hex(
            "0004 000000000000002a 00000005 01 00000000000003e8 01 00 10 000102030405060708090a0b0c0d0e0f",
        );
        let read = OffsetValue::decode(&v4).unwrap();
        assert_eq!((read.offset, read.leader_epoch, read.mirrored), (42, 5, None));
    }

    #[test]
    fn group_values_have_kafkas_bytes() {
        let value = GroupValue {
            protocol_type: "consumer".into(),
            generation: 3,
            protocol: Some("range".into()),
            leader: Some("a-1".into()),
            state_timestamp_ms: 1_000,
            members: vec![MemberValue {
                member_id: "a-1".into(),
                instance_id: None,
                client_id: "a".into(),
                client_host: "/127.0.0.1".into(),
                rebalance_timeout_ms: 300_000,
                session_timeout_ms: 10_000,
                subscription: Bytes::from_static(&[1, 2]),
                assignment: Bytes::from_static(&[3]),
            }],
        };
        let golden = hex(
            "0003 0008 636f6e73756d6572 00000003 0005 72616e6765 0003 612d31 00000000000003e8 00000001
             0003 612d31 ffff 0001 61 000a 2f3132372e302e302e31 000493e0 00002710 00000002 0102 00000001 03",
        );
        assert_eq!(value.encode(), golden);
        assert_eq!(GroupValue::decode(&golden).unwrap(), value);
    }

    #[test]
    fn no_cut_of_a_record_is_accepted_or_panics() {
        let value = GroupValue {
            protocol_type: "consumer".into(),
            generation: 3,
            protocol: None,
            leader: None,
            state_timestamp_ms: -1,
            members: vec![],
        };
        let bytes = value.encode();
        for len in 0..bytes.len() {
            assert!(GroupValue::decode(&bytes[..len]).is_err(), "{len}");
        }
        // A count of members that the record cannot hold.
        let mut bytes = bytes.to_vec();
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&i32::MAX.to_be_bytes());
        assert_eq!(GroupValue::decode(&bytes), Err(RecordError::Malformed));
    }

    #[test]
    fn a_group_lives_where_kafka_would_put_it() {
        assert_eq!(partition_of("", 50), 0);
        assert_eq!(partition_of("a", 50), 97 % 50);
        assert_eq!(partition_of("ab", 50), (97 * 31 + 98) % 50);
        // The text whose hash is Integer.MIN_VALUE.
        assert_eq!(partition_of("polygenelubricants", 50), 0);
    }

    #[test]
    fn subscriptions_of_consumers_are_understood() {
        let metadata = hex("0001 00000002 0001 61 0002 6262 ffffffff 00000000");
        assert_eq!(subscribed_topics(&metadata).unwrap(), ["a", "bb"]);
        assert_eq!(subscribed_topics(b"nonsense"), None);
        assert_eq!(subscribed_topics(b""), None);
    }
}
