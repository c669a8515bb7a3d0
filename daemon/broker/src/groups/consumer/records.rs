//! What `__consumer_offsets` holds of a consumer group, byte for byte as Apache Kafka 4.3 writes it.
//!
//! | key version | key | value |
//! |---|---|---|
//! | 3 | group | the group's epoch; tag 0: a hash of the topics it reads |
//! | 4 | group | partition counts of its topics: read and passed over, the hash has replaced it |
//! | 5 | group, member | the member's metadata; tag 0: what a member of the classic protocol joined with |
//! | 6 | group | the target assignment's epoch; tag 0: when it was computed |
//! | 7 | group, member | the member's part of the target assignment |
//! | 8 | group, member | the member's epoch, state, and what it holds and gives up; tag 0 of a topic: since which epochs |
//! | 16 | group, regular expression | the topics that it stood for when it was last resolved |
//!
//! Every value has version 0, compact lengths and tagged fields. A record without a value removes what its key names.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use tradewind_wire::ids::TopicId;

use super::super::journal::Entry;
use super::super::record::{
    RecordError, compact_string, i16_of, i32_of, i64_of, put_compact, put_string, put_varint, string, take,
    varint,
};

/// Partitions by topic.
pub type Partitions = BTreeMap<TopicId, BTreeSet<i32>>;

/// Partitions that a member holds, each with the member's epoch when it was given to it.
pub(super) type Held = BTreeMap<TopicId, BTreeMap<i32, i32>>;

/// One record of a consumer group; `None` removes what stood there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The group itself.
    Group(Option<GroupEpoch>),
    /// A record of older coordinators that says nothing any more.
    PartitionCounts,
    /// A member.
    Member(String, Option<MemberMetadata>),
    /// The epoch of the target assignment.
    TargetEpoch(Option<TargetEpoch>),
    /// A member's part of the target assignment.
    Target(String, Option<Partitions>),
    /// How far a member is.
    Current(String, Option<Current>),
    /// What a regular expression stands for.
    Regex(String, Option<Resolved>),
}

/// A group's epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupEpoch {
    /// Grows with every change of members, subscriptions, or topics.
    pub epoch: i32,
    /// A hash of the topics that it reads, their ids and partition counts; 0 for none.
    pub topics_hash: i64,
}

/// The epoch of a target assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetEpoch {
    /// The group's epoch that it was computed for.
    pub epoch: i32,
    /// When, in milliseconds since the epoch; 0 if not known.
    pub computed_ms: i64,
}

/// What a member said of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberMetadata {
    /// Its static instance id.
    pub instance_id: Option<String>,
    /// Its rack.
    pub rack_id: Option<String>,
    /// The client id of its connection.
    pub client_id: String,
    /// The address of its connection.
    pub client_host: String,
    /// The topics that it reads by name.
    pub topics: BTreeSet<String>,
    /// The regular expression of topics that it reads; empty counts as none.
    pub regex: Option<String>,
    /// How long it may take to give partitions up, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// The assignor that it would like.
    pub assignor: Option<String>,
    /// What it joined with, if it speaks the classic protocol.
    pub classic: Option<ClassicMember>,
}

/// What a member of the classic protocol joined with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClassicMember {
    /// How long it may stay silent, in milliseconds.
    pub session_timeout_ms: i32,
    /// What it offers, best first, each with its metadata.
    pub protocols: Vec<(String, Bytes)>,
}

impl MemberMetadata {
    /// Its regular expression, if it has one that says something.
    pub fn effective_regex(&self) -> Option<&str> {
        self.regex.as_deref().filter(|regex| !regex.is_empty())
    }
}

/// Where a member stands between what it holds and what it shall hold. The numbers are those of Kafka's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// It holds what it shall hold by its epoch.
    Stable,
    /// It has to give partitions up first.
    Unrevoked,
    /// It waits for partitions that others have not given up yet.
    Unreleased,
    /// Something that a newer coordinator wrote.
    Unknown,
}

impl MemberState {
    const fn code(self) -> i8 {
        match self {
            Self::Stable => 1,
            Self::Unrevoked => 2,
            Self::Unreleased => 3,
            Self::Unknown => 127,
        }
    }

    const fn from_code(code: i8) -> Self {
        match code {
            1 => Self::Stable,
            2 => Self::Unrevoked,
            3 => Self::Unreleased,
            _ => Self::Unknown,
        }
    }
}

/// How far a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// Its epoch: 0 before it is given one, -2 for a static member that left for a while.
    pub epoch: i32,
    /// The epoch before: a member whose answer was lost comes with this one.
    pub previous_epoch: i32,
    /// Its state.
    pub state: MemberState,
    /// What it holds.
    pub assigned: Held,
    /// What it has to give up.
    pub revoking: Held,
}

impl Default for Current {
    fn default() -> Self {
        Self {
            epoch: 0,
            previous_epoch: -1,
            state: MemberState::Stable,
            assigned: Held::new(),
            revoking: Held::new(),
        }
    }
}

/// The topics that a regular expression stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Their names.
    pub topics: BTreeSet<String>,
    /// The version of the metadata they were taken from.
    pub version: i64,
    /// When, in milliseconds since the epoch.
    pub resolved_ms: i64,
}

impl Record {
    /// Whether it removes what stood there.
    pub fn is_tombstone(&self) -> bool {
        match self {
            Self::Group(value) => value.is_none(),
            Self::PartitionCounts => true,
            Self::Member(_, value) => value.is_none(),
            Self::TargetEpoch(value) => value.is_none(),
            Self::Target(_, value) => value.is_none(),
            Self::Current(_, value) => value.is_none(),
            Self::Regex(_, value) => value.is_none(),
        }
    }

    /// The record of `group` for the log.
    pub fn encode(&self, group: &str) -> Entry {
        let mut key = BytesMut::new();
        let mut begin = |version: i16, more: Option<&str>| {
            key.put_i16(version);
            put_string(&mut key, group);
            if let Some(more) = more {
                put_string(&mut key, more);
            }
        };
        let value = match self {
            Self::Group(value) => {
                begin(3, None);
                value.as_ref().map(|value| tagged(value.epoch, value.topics_hash))
            }
            Self::PartitionCounts => {
                begin(4, None);
                None
            }
            Self::Member(member, value) => {
                begin(5, Some(member));
                value.as_ref().map(encode_member)
            }
            Self::TargetEpoch(value) => {
                begin(6, None);
                value.as_ref().map(|value| tagged(value.epoch, value.computed_ms))
            }
            Self::Target(member, value) => {
                begin(7, Some(member));
                value.as_ref().map(encode_target)
            }
            Self::Current(member, value) => {
                begin(8, Some(member));
                value.as_ref().map(encode_current)
            }
            Self::Regex(regex, value) => {
                begin(16, Some(regex));
                value.as_ref().map(encode_regex)
            }
        };
        (key.freeze(), value)
    }

    /// The record with this key and value, and its group; `None` if it is not one of a consumer group.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<(String, Self)>, RecordError> {
        let key = &mut &*key;
        let version = i16_of(key)?;
        if !matches!(version, 3..=8 | 16) {
            return Ok(None);
        }
        let group = string(key)?;
        let record = match version {
            3 => Self::Group(read(value, |input| {
                let (epoch, topics_hash) = untagged(input)?;
                Ok(GroupEpoch { epoch, topics_hash })
            })?),
            4 => Self::PartitionCounts,
            5 => Self::Member(string(key)?, read(value, member)?),
            6 => Self::TargetEpoch(read(value, |input| {
                let (epoch, computed_ms) = untagged(input)?;
                Ok(TargetEpoch { epoch, computed_ms })
            })?),
            7 => Self::Target(string(key)?, read(value, target)?),
            8 => Self::Current(string(key)?, read(value, current)?),
            _ => Self::Regex(string(key)?, read(value, regex)?),
        };
        Ok(Some((group, record)))
    }
}

/// The value of `bytes`, which has to have version 0.
fn read<T>(
    bytes: Option<&[u8]>,
    of: impl Fn(&mut &[u8]) -> Result<T, RecordError>,
) -> Result<Option<T>, RecordError> {
    let Some(mut bytes) = bytes else { return Ok(None) };
    match i16_of(&mut bytes)? {
        0 => of(&mut bytes).map(Some),
        version => Err(RecordError::UnknownVersion(version)),
    }
}

fn start() -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i16(0);
    out
}

/// A number, and in tag 0 another unless it is zero.
fn tagged(number: i32, tag: i64) -> Bytes {
    let mut out = start();
    out.put_i32(number);
    if tag == 0 {
        out.put_u8(0);
    } else {
        out.put_slice(&[1, 0, 8]);
        out.put_i64(tag);
    }
    out.freeze()
}

fn untagged(input: &mut &[u8]) -> Result<(i32, i64), RecordError> {
    let (number, mut first) = (i32_of(input)?, 0);
    tags(input, |tag, mut field| {
        if tag == 0 {
            first = i64_of(&mut field)?;
        }
        Ok(())
    })?;
    Ok((number, first))
}

/// Hands each tagged field to `each`.
fn tags(
    input: &mut &[u8],
    mut each: impl FnMut(u32, &[u8]) -> Result<(), RecordError>,
) -> Result<(), RecordError> {
    for _ in 0..varint(input)? {
        let tag = varint(input)?;
        let len = varint(input)? as usize;
        each(tag, take(input, len)?)?;
    }
    Ok(())
}

/// The length of an array whose elements take at least `least` bytes each: one that cannot fit is not believed.
fn count(input: &mut &[u8], least: usize) -> Result<usize, RecordError> {
    let count = varint(input)?.checked_sub(1).ok_or(RecordError::Malformed)? as usize;
    if count > input.len() / least {
        return Err(RecordError::Malformed);
    }
    Ok(count)
}

fn put_nullable(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_compact(out, text),
        None => out.put_u8(0),
    }
}

fn nullable(input: &mut &[u8]) -> Result<Option<String>, RecordError> {
    if input.first() == Some(&0) {
        take(input, 1)?;
        return Ok(None);
    }
    compact_string(input).map(Some)
}

fn put_names(out: &mut BytesMut, names: &BTreeSet<String>) {
    put_varint(out, names.len() as u32 + 1);
    for name in names {
        put_compact(out, name);
    }
}

fn names(input: &mut &[u8]) -> Result<BTreeSet<String>, RecordError> {
    (0..count(input, 1)?).map(|_| compact_string(input)).collect()
}

fn encode_member(member: &MemberMetadata) -> Bytes {
    let mut out = start();
    put_nullable(&mut out, member.instance_id.as_deref());
    put_nullable(&mut out, member.rack_id.as_deref());
    put_compact(&mut out, &member.client_id);
    put_compact(&mut out, &member.client_host);
    put_names(&mut out, &member.topics);
    put_nullable(&mut out, member.regex.as_deref());
    out.put_i32(member.rebalance_timeout_ms);
    put_nullable(&mut out, member.assignor.as_deref());
    match &member.classic {
        None => out.put_u8(0),
        Some(classic) => {
            let classic = encode_classic(classic);
            out.put_slice(&[1, 0]);
            put_varint(&mut out, classic.len() as u32);
            out.put_slice(&classic);
        }
    }
    out.freeze()
}

/// With the byte before it that says that it is there.
fn encode_classic(classic: &ClassicMember) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u8(1);
    out.put_i32(classic.session_timeout_ms);
    put_varint(&mut out, classic.protocols.len() as u32 + 1);
    for (name, metadata) in &classic.protocols {
        put_compact(&mut out, name);
        put_varint(&mut out, metadata.len() as u32 + 1);
        out.put_slice(metadata);
        out.put_u8(0);
    }
    out.put_u8(0);
    out
}

fn classic(input: &mut &[u8]) -> Result<Option<ClassicMember>, RecordError> {
    if take(input, 1)?[0] == 0 {
        return Ok(None);
    }
    let session_timeout_ms = i32_of(input)?;
    let mut protocols = Vec::new();
    for _ in 0..count(input, 3)? {
        let name = compact_string(input)?;
        let len = varint(input)?.checked_sub(1).ok_or(RecordError::Malformed)?;
        let metadata = Bytes::copy_from_slice(take(input, len as usize)?);
        tags(input, |_, _| Ok(()))?;
        protocols.push((name, metadata));
    }
    tags(input, |_, _| Ok(()))?;
    Ok(Some(ClassicMember {
        session_timeout_ms,
        protocols,
    }))
}

fn member(input: &mut &[u8]) -> Result<MemberMetadata, RecordError> {
    let mut member = MemberMetadata {
        instance_id: nullable(input)?,
        rack_id: nullable(input)?,
        client_id: compact_string(input)?,
        client_host: compact_string(input)?,
        topics: names(input)?,
        regex: nullable(input)?,
        rebalance_timeout_ms: i32_of(input)?,
        assignor: nullable(input)?,
        classic: None,
    };
    tags(input, |tag, mut field| {
        if tag == 0 {
            member.classic = classic(&mut field)?;
        }
        Ok(())
    })?;
    Ok(member)
}

fn put_topic(out: &mut BytesMut, topic: TopicId, partitions: impl ExactSizeIterator<Item = i32>) {
    out.put_slice(&topic.0);
    put_varint(out, partitions.len() as u32 + 1);
    partitions.for_each(|partition| out.put_i32(partition));
}

fn topic(input: &mut &[u8]) -> Result<(TopicId, Vec<i32>), RecordError> {
    let mut id = [0; 16];
    id.copy_from_slice(take(input, 16)?);
    let partitions: Result<Vec<i32>, _> = (0..count(input, 4)?).map(|_| i32_of(input)).collect();
    Ok((TopicId(id), partitions?))
}

fn encode_target(target: &Partitions) -> Bytes {
    let mut out = start();
    put_varint(&mut out, target.len() as u32 + 1);
    for (topic, partitions) in target {
        put_topic(&mut out, *topic, partitions.iter().copied());
        out.put_u8(0);
    }
    out.put_u8(0);
    out.freeze()
}

fn target(input: &mut &[u8]) -> Result<Partitions, RecordError> {
    let mut target = Partitions::new();
    for _ in 0..count(input, 18)? {
        let (id, partitions) = topic(input)?;
        tags(input, |_, _| Ok(()))?;
        target.insert(id, partitions.into_iter().collect());
    }
    tags(input, |_, _| Ok(()))?;
    Ok(target)
}

fn put_held(out: &mut BytesMut, held: &Held) {
    put_varint(out, held.len() as u32 + 1);
    for (topic, partitions) in held {
        put_topic(out, *topic, partitions.keys().copied());
        let mut epochs = BytesMut::new();
        put_varint(&mut epochs, partitions.len() as u32 + 1);
        partitions.values().for_each(|epoch| epochs.put_i32(*epoch));
        out.put_slice(&[1, 0]);
        put_varint(out, epochs.len() as u32);
        out.put_slice(&epochs);
    }
}

/// Partitions without an epoch, from older coordinators, are held since epoch 0.
fn held(input: &mut &[u8]) -> Result<Held, RecordError> {
    let mut held = Held::new();
    for _ in 0..count(input, 18)? {
        let (id, partitions) = topic(input)?;
        let mut epochs: Vec<i32> = Vec::new();
        tags(input, |tag, mut field| {
            if tag == 0 && field.first() != Some(&0) {
                let all: Result<Vec<i32>, _> =
                    (0..count(&mut field, 4)?).map(|_| i32_of(&mut field)).collect();
                epochs = all?;
            }
            Ok(())
        })?;
        let epochs = epochs.into_iter().chain(std::iter::repeat(0));
        held.insert(id, partitions.into_iter().zip(epochs).collect());
    }
    Ok(held)
}

fn encode_current(current: &Current) -> Bytes {
    let mut out = start();
    out.put_i32(current.epoch);
    out.put_i32(current.previous_epoch);
    out.put_i8(current.state.code());
    put_held(&mut out, &current.assigned);
    put_held(&mut out, &current.revoking);
    out.put_u8(0);
    out.freeze()
}

fn current(input: &mut &[u8]) -> Result<Current, RecordError> {
    let current = Current {
        epoch: i32_of(input)?,
        previous_epoch: i32_of(input)?,
        state: MemberState::from_code(take(input, 1)?[0] as i8),
        assigned: held(input)?,
        revoking: held(input)?,
    };
    tags(input, |_, _| Ok(()))?;
    Ok(current)
}

fn encode_regex(resolved: &Resolved) -> Bytes {
    let mut out = start();
    put_names(&mut out, &resolved.topics);
    out.put_i64(resolved.version);
    out.put_i64(resolved.resolved_ms);
    out.put_u8(0);
    out.freeze()
}

fn regex(input: &mut &[u8]) -> Result<Resolved, RecordError> {
    let resolved = Resolved {
        topics: names(input)?,
        version: i64_of(input)?,
        resolved_ms: i64_of(input)?,
    };
    tags(input, |_, _| Ok(()))?;
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    }

    fn samples() -> Vec<Record> {
        let id = TopicId([7; 16]);
        let held = Held::from([(id, BTreeMap::from([(0, 3), (2, 5)]))]);
        let current = Current {
            epoch: 5,
            previous_epoch: 4,
            state: MemberState::Unrevoked,
            assigned: held.clone(),
            revoking: held,
        };
        let metadata = MemberMetadata {
            instance_id: Some("i".into()),
            rack_id: None,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            topics: ["a".to_owned(), "b".to_owned()].into(),
            regex: Some("x.*".into()),
            rebalance_timeout_ms: 300_000,
            assignor: Some("range".into()),
            classic: None,
        };
        let mut other = metadata.clone();
        other.classic = Some(ClassicMember {
            session_timeout_ms: 10_000,
            protocols: vec![
                ("range".into(), Bytes::from_static(b"x")),
                ("s".into(), Bytes::new()),
            ],
        });
        let resolved = Resolved {
            topics: ["x1".to_owned()].into(),
            version: 12,
            resolved_ms: 1_000,
        };
        vec![
            Record::Group(Some(GroupEpoch {
                epoch: 7,
                topics_hash: -3,
            })),
            Record::Member("m".into(), Some(metadata)),
            Record::Member("m".into(), Some(other)),
            Record::TargetEpoch(Some(TargetEpoch {
                epoch: 7,
                computed_ms: 99,
            })),
            Record::Target("m".into(), Some(Partitions::from([(id, BTreeSet::from([0, 1]))]))),
            Record::Current("m".into(), Some(current)),
            Record::Regex("x.*".into(), Some(resolved)),
            Record::Group(None),
            Record::Member("m".into(), None),
            Record::TargetEpoch(None),
            Record::Target("m".into(), None),
            Record::Current("m".into(), None),
            Record::Regex("x.*".into(), None),
        ]
    }

    #[test]
    fn records_survive_the_log_and_no_cut_of_them_is_accepted_or_panics() {
        for record in samples() {
            let (key, value) = record.encode("g");
            let decoded = Record::decode(&key, value.as_deref()).unwrap();
            assert_eq!(decoded, Some(("g".to_owned(), record)));
            for end in 0..key.len() {
                assert!(Record::decode(&key[..end], value.as_deref()).is_err());
            }
            for end in 0..value.as_ref().map_or(0, Bytes::len) {
                let cut = value.as_ref().map(|value| &value[..end]);
                assert!(Record::decode(&key, cut).is_err(), "{end}");
            }
        }
    }

    /// Written out from Apache Kafka's definitions of the records.
    #[test]
    fn records_have_kafkas_bytes() {
        let (key, value) = Record::Group(Some(GroupEpoch {
            epoch: 7,
            topics_hash: 2,
        }))
        .encode("g");
        assert_eq!(key, hex("0003 0001 67"));
        assert_eq!(value.unwrap(), hex("0000 00000007 01 00 08 0000000000000002"));
        let (_, value) = Record::Group(Some(GroupEpoch {
            epoch: 7,
            topics_hash: 0,
        }))
        .encode("g");
        assert_eq!(value.unwrap(), hex("0000 00000007 00"));
        let id = TopicId([7; 16]);
        let target = Partitions::from([(id, BTreeSet::from([0, 1]))]);
        let (key, value) = Record::Target("m".into(), Some(target)).encode("g");
        assert_eq!(key, hex("0007 0001 67 0001 6d"));
        let golden = "0000 02 07070707070707070707070707070707 03 00000000 00000001 00 00";
        assert_eq!(value.unwrap(), hex(golden));
        let current = Current {
            epoch: 5,
            previous_epoch: 4,
            assigned: Held::from([(id, BTreeMap::from([(1, 3)]))]),
            ..Current::default()
        };
        let (key, value) = Record::Current("m".into(), Some(current)).encode("g");
        assert_eq!(key, hex("0008 0001 67 0001 6d"));
        let golden = "0000 00000005 00000004 01 02 07070707070707070707070707070707 02 00000001
                      01 00 05 02 00000003 01 00";
        assert_eq!(value.unwrap(), hex(golden));
        let member = MemberMetadata {
            client_id: "c".into(),
            client_host: "/h".into(),
            topics: ["a".to_owned()].into(),
            rebalance_timeout_ms: 256,
            classic: Some(ClassicMember {
                session_timeout_ms: 10_000,
                protocols: vec![("range".into(), Bytes::from_static(&[1, 2]))],
            }),
            ..MemberMetadata::default()
        };
        let (key, value) = Record::Member("m".into(), Some(member)).encode("g");
        assert_eq!(key, hex("0005 0001 67 0001 6d"));
        let golden = "0000 00 00 02 63 03 2f68 02 02 61 00 00000100 00
                      01 00 11 01 00002710 02 06 72616e6765 03 0102 00 00";
        assert_eq!(value.unwrap(), hex(golden));
        assert_eq!(Record::decode(&hex("0002 0001 67"), None), Ok(None));
    }
}
