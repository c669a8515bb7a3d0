//! The frames of the mesh protocol (ALPN `tradewind/1`): what daemons say to each other over QUIC.
//!
//! Every bidirectional stream begins with the dialer's [`Hello`], which names the conversation, and the acceptor's
//! [`Welcome`]. What follows depends on the conversation; this file holds the frames of the push protocol
//! ([`Follow`] one way, [`Push`] the other), by which followers and mirrors read a partition's log. Frames are already
//! delimited when they come here; integers are big-endian, strings are a u16 length and UTF-8.
//!
//! ```text
//! follower                                     leader
//!    | -- Follow::Start(handle, epoch, end) ----> |   one handle per session, never used twice on a stream
//!    | <--------- Push::Diverge(epoch, end) ----- |   truncate, start again with a new handle
//!    | <---------------- Push::Match ------------ |
//!    | <---- Push::Data(prev_end, hw, bytes) ---- |   appended only if prev_end is our end
//!    | -- Follow::Ack(written, flushed) --------> |
//!    | <---- Push::Watermark(hw, log start) ----- |
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::ids::{ClusterId, NodeId, TopicId};

/// The only version of the mesh protocol so far.
pub const MESH_VERSION: u16 = 1;

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Conversation {
    /// openraft's calls, within one cluster.
    Raft = 1,
    /// Registration, heartbeats and forwarded proposals, from a daemon to its controller.
    Control = 2,
    /// A follower's reading of its leaders' logs, within one cluster.
    Replicate = 3,
    /// A mirror's reading of a source partition, from another cluster.
    Mirror = 4,
    /// Read-only Kafka requests from another cluster's mirror: metadata, configs, groups and offsets.
    Query = 5,
    /// Plain Kafka frames from any client.
    Kafka = 6,
    /// Small named calls between daemons of one cluster.
    Call = 7,
    /// Digests of what a partition holds, for another cluster that compares it with its mirror ([`crate::audit`]).
    Audit = 8,
    /// What the target of a flow asks of its source when it moves a region ([`crate::region`]).
    Region = 9,
}

impl Conversation {
    fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Raft,
            2 => Self::Control,
            3 => Self::Replicate,
            4 => Self::Mirror,
            5 => Self::Query,
            6 => Self::Kafka,
            7 => Self::Call,
            8 => Self::Audit,
            9 => Self::Region,
            _ => return None,
        })
    }
}

/// Why bytes are not a mesh frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeshFrameError {
    /// The frame ends inside a field.
    #[error("mesh frame ends inside {field}")]
    Short {
        /// The field that was being read.
        field: &'static str,
    },
    /// A discriminant that this version does not know.
    #[error("{field} has unknown value {value}")]
    Unknown {
        /// The field that was being read.
        field: &'static str,
        /// Its value.
        value: u8,
    },
    /// A string that is not UTF-8.
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// The field that was being read.
        field: &'static str,
    },
}

/// The dialer's first frame on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// What the stream is for.
    pub conversation: Conversation,
    /// The lowest and highest protocol version that the dialer speaks.
    pub versions: (u16, u16),
    /// The dialer's cluster; empty for a client.
    pub cluster_name: String,
    /// The dialer's cluster id, once it knows it.
    pub cluster_id: Option<ClusterId>,
    /// The dialer's node id; -1 for a client.
    pub node: NodeId,
    /// The storage id that the dialer expects to find, so that an RPC never reaches a blank or swapped disk by mistake.
    pub expect_storage: Option<[u8; 16]>,
}

impl Hello {
    /// A hello at the current protocol version, from daemon `node` of `cluster_name`.
    pub fn new(conversation: Conversation, cluster_name: &str, node: NodeId) -> Self {
        Self {
            conversation,
            versions: (MESH_VERSION, MESH_VERSION),
            cluster_name: cluster_name.to_owned(),
            cluster_id: None,
            node,
            expect_storage: None,
        }
    }

    /// The frame's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + self.cluster_name.len());
        out.put_u8(self.conversation as u8);
        out.put_u16(self.versions.0);
        out.put_u16(self.versions.1);
        put_string(&mut out, &self.cluster_name);
        put_id(&mut out, self.cluster_id.map(|id| id.0));
        out.put_i32(self.node);
        put_id(&mut out, self.expect_storage);
        out.freeze()
    }

    /// Reads a hello; bytes behind the last known field are a later version's and ignored.
    pub fn decode(mut frame: Bytes) -> Result<Self, MeshFrameError> {
        let frame = &mut frame;
        let conversation = u8(frame, "conversation")?;
        Ok(Self {
            conversation: Conversation::from_u8(conversation).ok_or(MeshFrameError::Unknown {
                field: "conversation",
                value: conversation,
            })?,
            versions: (u16(frame, "versions")?, u16(frame, "versions")?),
            cluster_name: string(frame, "cluster_name")?,
            cluster_id: id(frame, "cluster_id")?.map(ClusterId),
            node: i32(frame, "node")?,
            expect_storage: id(frame, "expect_storage")?,
        })
    }
}

/// The acceptor's answer to a [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Welcome {
    /// The conversation may begin.
    Accepted {
        /// The protocol version that both will use.
        version: u16,
        /// The acceptor's cluster id, once it knows it.
        cluster_id: Option<ClusterId>,
        /// The acceptor's node id.
        node: NodeId,
        /// The id of the acceptor's data directory.
        storage_id: [u8; 16],
    },
    /// It may not; the stream ends after this frame.
    Refused {
        /// For a person to read.
        reason: String,
    },
}

impl Welcome {
    /// The frame's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        match self {
            Self::Accepted {
                version,
                cluster_id,
                node,
                storage_id,
            } => {
                out.put_u8(0);
                out.put_u16(*version);
                put_id(&mut out, cluster_id.map(|id| id.0));
                out.put_i32(*node);
                out.put_slice(storage_id);
            }
            Self::Refused { reason } => {
                out.put_u8(1);
                put_string(&mut out, reason);
            }
        }
        out.freeze()
    }

    /// Reads an answer.
    pub fn decode(mut frame: Bytes) -> Result<Self, MeshFrameError> {
        let frame = &mut frame;
        match u8(frame, "welcome")? {
            0 => Ok(Self::Accepted {
                version: u16(frame, "version")?,
                cluster_id: id(frame, "cluster_id")?.map(ClusterId),
                node: i32(frame, "node")?,
                storage_id: sixteen(frame, "storage_id")?,
            }),
            1 => Ok(Self::Refused {
                reason: string(frame, "reason")?,
            }),
            value => Err(MeshFrameError::Unknown {
                field: "welcome",
                value,
            }),
        }
    }
}

/// What a reader of logs (a follower or a mirror) sends to the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Follow {
    /// Begins a session on one partition.
    Start(Start),
    /// How far the follower's copy has come.
    Ack {
        /// The session.
        handle: u32,
        /// The end offset of what the follower has written.
        written: i64,
        /// The end offset of what it has flushed.
        flushed: i64,
        /// Its log start, as far as it survives a crash; `i64::MAX` if the follower does not say.
        log_start: i64,
    },
    /// The follower ends the session.
    Stop {
        /// The session.
        handle: u32,
        /// Why, if the follower cannot go on appending: the leader then shrinks the in-sync set at once.
        failure: Option<String>,
    },
}

/// The opening of a session on one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The session's number on this stream, never used twice.
    pub handle: u32,
    /// The topic's id at the leader.
    pub topic: TopicId,
    /// The partition.
    pub partition: i32,
    /// The leader epoch that the follower knows; -1 from a mirror.
    pub leader_epoch: i32,
    /// The follower's daemon epoch; -1 from a mirror.
    pub daemon_epoch: i64,
    /// The leader epoch of the last batch that the reader holds; -1 if it holds none.
    pub last_epoch: i32,
    /// The offset that it wants next.
    pub end: i64,
}

/// Why a leader does not open, or no longer serves, a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// The follower's leader epoch is older than the leader's: its image lags.
    Fenced = 1,
    /// The follower's leader epoch is newer than the leader's: try again when the leader's image has moved.
    UnknownEpoch = 2,
    /// This daemon does not lead the partition.
    NotLeader = 3,
    /// There is no such partition here.
    UnknownPartition = 4,
    /// The follower's daemon epoch is not its current registration's.
    StaleDaemon = 5,
    /// The log cannot be read here.
    Storage = 6,
    /// The wanted offset lies below the log's start (a mirror is told; a follower is sent `log_start`).
    BelowStart = 7,
    /// The wanted offset lies above the log's end.
    AboveEnd = 8,
}

impl Refusal {
    fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Fenced,
            2 => Self::UnknownEpoch,
            3 => Self::NotLeader,
            4 => Self::UnknownPartition,
            5 => Self::StaleDaemon,
            6 => Self::Storage,
            7 => Self::BelowStart,
            8 => Self::AboveEnd,
            _ => return None,
        })
    }
}

/// Where a leader's log stands, told with every push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// The high watermark.
    pub high_watermark: i64,
    /// The log start offset.
    pub log_start: i64,
    /// The leader epoch under which the leader serves this session.
    pub leader_epoch: i32,
    /// The leader's wall clock when it sent this, in milliseconds since the epoch.
    pub sent_ms: i64,
    /// Records below this offset were removed by DeleteRecords, not by retention; never above `log_start`. `None` if the
    /// frame does not say: that of a [`Push::Data`] never does, nor does an older daemon's.
    pub deleted: Option<i64>,
}

/// What the leader sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Push {
    /// The reader's log is a prefix of the leader's: batches follow.
    Match {
        /// The session.
        handle: u32,
        /// Where the log stands.
        mark: Mark,
    },
    /// The reader's last epoch ends earlier here: it must cut its log to the end of that epoch and start again.
    Diverge {
        /// The session, over with this frame.
        handle: u32,
        /// The largest epoch here that is not above the reader's; -1 if there is none.
        epoch: i32,
        /// Where that epoch ends here.
        end: i64,
    },
    /// The session is not opened, or over.
    Refused {
        /// The session.
        handle: u32,
        /// Why.
        reason: Refusal,
        /// Where the log stands, as far as this daemon knows.
        mark: Mark,
    },
    /// Whole batches, in offset order.
    Data {
        /// The session.
        handle: u32,
        /// The end offset that the reader must have for these batches to be its next ones.
        prev_end: i64,
        /// Where the log stands.
        mark: Mark,
        /// The batches, back to back as on the leader's disk.
        batches: Bytes,
    },
    /// Nothing new but where the log stands.
    Watermark {
        /// The session.
        handle: u32,
        /// Where the log stands.
        mark: Mark,
    },
}

impl Follow {
    /// The frame's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        match self {
            Self::Start(start) => {
                out.put_u8(1);
                out.put_u32(start.handle);
                out.put_slice(&start.topic.0);
                out.put_i32(start.partition);
                out.put_i32(start.leader_epoch);
                out.put_i64(start.daemon_epoch);
                out.put_i32(start.last_epoch);
                out.put_i64(start.end);
            }
            Self::Ack {
                handle,
                written,
                flushed,
                log_start,
            } => {
                out.put_u8(2);
                out.put_u32(*handle);
                out.put_i64(*written);
                out.put_i64(*flushed);
                out.put_i64(*log_start);
            }
            Self::Stop { handle, failure } => {
                out.put_u8(3);
                out.put_u32(*handle);
                out.put_u8(u8::from(failure.is_some()));
                put_string(&mut out, failure.as_deref().unwrap_or_default());
            }
        }
        out.freeze()
    }

    /// Reads a frame.
    pub fn decode(mut frame: Bytes) -> Result<Self, MeshFrameError> {
        let frame = &mut frame;
        match u8(frame, "follow")? {
            1 => Ok(Self::Start(Start {
                handle: u32(frame, "handle")?,
                topic: TopicId(sixteen(frame, "topic")?),
                partition: i32(frame, "partition")?,
                leader_epoch: i32(frame, "leader_epoch")?,
                daemon_epoch: i64(frame, "daemon_epoch")?,
                last_epoch: i32(frame, "last_epoch")?,
                end: i64(frame, "end")?,
            })),
            2 => Ok(Self::Ack {
                handle: u32(frame, "handle")?,
                written: i64(frame, "written")?,
                flushed: i64(frame, "flushed")?,
                // Absent from daemons that knew of no such wait.
                log_start: if frame.is_empty() {
                    i64::MAX
                } else {
                    i64(frame, "log_start")?
                },
            }),
            3 => {
                let handle = u32(frame, "handle")?;
                let failed = u8(frame, "failed")? != 0;
                let reason = string(frame, "failure")?;
                Ok(Self::Stop {
                    handle,
                    failure: failed.then_some(reason),
                })
            }
            value => Err(MeshFrameError::Unknown {
                field: "follow",
                value,
            }),
        }
    }
}

impl Push {
    /// The frame's bytes except a [`Push::Data`]'s batches, which are sent behind them without a copy.
    pub fn encode_head(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        match self {
            Self::Match { handle, mark } => {
                put_head(&mut out, 1, *handle);
                put_mark(&mut out, mark);
                put_deleted(&mut out, mark);
            }
            Self::Diverge { handle, epoch, end } => {
                put_head(&mut out, 2, *handle);
                out.put_i32(*epoch);
                out.put_i64(*end);
            }
            Self::Refused { handle, reason, mark } => {
                put_head(&mut out, 3, *handle);
                out.put_u8(*reason as u8);
                put_mark(&mut out, mark);
                put_deleted(&mut out, mark);
            }
            Self::Data {
                handle,
                prev_end,
                mark,
                ..
            } => {
                put_head(&mut out, 4, *handle);
                put_mark(&mut out, mark);
                out.put_i64(*prev_end);
            }
            Self::Watermark { handle, mark } => {
                put_head(&mut out, 5, *handle);
                put_mark(&mut out, mark);
                put_deleted(&mut out, mark);
            }
        }
        out.freeze()
    }

    /// Reads a frame; a [`Push::Data`]'s batches are a slice of it.
    pub fn decode(mut frame: Bytes) -> Result<Self, MeshFrameError> {
        let frame = &mut frame;
        let kind = u8(frame, "push")?;
        let handle = u32(frame, "handle")?;
        Ok(match kind {
            1 => Self::Match {
                handle,
                mark: whole_mark(frame)?,
            },
            2 => Self::Diverge {
                handle,
                epoch: i32(frame, "epoch")?,
                end: i64(frame, "end")?,
            },
            3 => {
                let reason = u8(frame, "reason")?;
                let reason = Refusal::from_u8(reason).ok_or(MeshFrameError::Unknown {
                    field: "reason",
                    value: reason,
                })?;
                Self::Refused {
                    handle,
                    reason,
                    mark: whole_mark(frame)?,
                }
            }
            4 => Self::Data {
                handle,
                mark: mark(frame)?,
                prev_end: i64(frame, "prev_end")?,
                batches: frame.split_to(frame.len()),
            },
            5 => Self::Watermark {
                handle,
                mark: whole_mark(frame)?,
            },
            value => return Err(MeshFrameError::Unknown { field: "push", value }),
        })
    }
}

fn put_head(out: &mut BytesMut, kind: u8, handle: u32) {
    out.put_u8(kind);
    out.put_u32(handle);
}

fn put_mark(out: &mut BytesMut, mark: &Mark) {
    out.put_i64(mark.high_watermark);
    out.put_i64(mark.log_start);
    out.put_i32(mark.leader_epoch);
    out.put_i64(mark.sent_ms);
}

fn mark(frame: &mut Bytes) -> Result<Mark, MeshFrameError> {
    Ok(Mark {
        high_watermark: i64(frame, "high_watermark")?,
        log_start: i64(frame, "log_start")?,
        leader_epoch: i32(frame, "leader_epoch")?,
        sent_ms: i64(frame, "sent_ms")?,
        deleted: None,
    })
}

/// The mark at a frame's end, where there is room for what came later.
fn whole_mark(frame: &mut Bytes) -> Result<Mark, MeshFrameError> {
    let mut mark = mark(frame)?;
    if !frame.is_empty() {
        mark.deleted = Some(i64(frame, "deleted")?);
    }
    Ok(mark)
}

fn put_deleted(out: &mut BytesMut, mark: &Mark) {
    if let Some(deleted) = mark.deleted {
        out.put_i64(deleted);
    }
}

fn put_string(out: &mut BytesMut, text: &str) {
    let mut len = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    out.put_u16(len as u16);
    out.put_slice(&text.as_bytes()[..len]);
}

fn string(frame: &mut Bytes, field: &'static str) -> Result<String, MeshFrameError> {
    let len = usize::from(u16(frame, field)?);
    if frame.len() < len {
        return Err(MeshFrameError::Short { field });
    }
    String::from_utf8(frame.split_to(len).to_vec()).map_err(|_| MeshFrameError::NotUtf8 { field })
}

fn put_id(out: &mut BytesMut, id: Option<[u8; 16]>) {
    out.put_u8(u8::from(id.is_some()));
    out.put_slice(&id.unwrap_or_default());
}

fn id(frame: &mut Bytes, field: &'static str) -> Result<Option<[u8; 16]>, MeshFrameError> {
    let present = u8(frame, field)? != 0;
    let id = sixteen(frame, field)?;
    Ok(present.then_some(id))
}

fn sixteen(frame: &mut Bytes, field: &'static str) -> Result<[u8; 16], MeshFrameError> {
    let mut value = [0; 16];
    frame
        .try_copy_to_slice(&mut value)
        .map_err(|_| MeshFrameError::Short { field })?;
    Ok(value)
}

macro_rules! integer {
    ($($name:ident $get:ident),*) => {$(
        fn $name(frame: &mut Bytes, field: &'static str) -> Result<$name, MeshFrameError> {
            frame.$get().map_err(|_| MeshFrameError::Short { field })
        }
    )*};
}

integer!(u8 try_get_u8, u16 try_get_u16, u32 try_get_u32, i32 try_get_i32, i64 try_get_i64);

#[cfg(test)]
#[path = "mesh_tests.rs"]
mod tests;
