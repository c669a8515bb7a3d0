//! Raft's calls over the mesh: one stream of the `raft` conversation per client and peer.
//!
//! Making a client opens nothing; a peer that cannot be reached costs a dial now and then. The hello names the disk that
//! the call is meant for, so a swapped or blank one is never taken for the member that it replaced.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};
use tradewind_wire::mesh::Conversation;

use super::types::{Member, Raft, SnapshotMeta, TypeConfig, Vote, decode, encode, node_id};
use crate::link::LinkError;
use crate::rpc::{Dialer, Line};

/// How long openraft waits before it tries an unreachable peer again.
const BACKOFF: Duration = Duration::from_millis(100);

/// A call to another daemon's Raft.
#[derive(Serialize, Deserialize)]
pub(crate) enum Request {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<u64>),
    /// Followed by the snapshot's bytes.
    Snapshot {
        vote: Vote,
        meta: SnapshotMeta,
    },
    /// Asked before there is a cluster.
    Probe,
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Append(AppendEntriesResponse<u64>),
    Vote(VoteResponse<u64>),
    Snapshot(SnapshotResponse<u64>),
    Probe(Probe),
    /// Raft does not run there any more.
    Failed(String),
}

/// What a daemon says of itself before there is a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probe {
    /// Whether it has never been part of a Raft group.
    pub(crate) blank: bool,
    pub(crate) storage_id: [u8; 16],
}

/// A request's frame: the length of its head, the head, and what follows it.
pub(crate) fn request_frame(
    request: &Request,
    body: Option<&Bytes>,
) -> Result<Vec<Bytes>, serde_json::Error> {
    let head = encode(request)?;
    let mut frame = BytesMut::with_capacity(4 + head.len());
    frame.put_u32(head.len() as u32);
    frame.put_slice(&head);
    let mut parts = vec![frame.freeze()];
    parts.extend(body.cloned());
    Ok(parts)
}

fn read_request(mut frame: Bytes) -> Option<(Request, Bytes)> {
    let head = frame.try_get_u32().ok()? as usize;
    if head > frame.len() {
        return None;
    }
    let request = decode(&frame.split_to(head)).ok()?;
    Some((request, frame))
}

/// Answers one request; garbage gets no answer.
pub(crate) async fn answer(raft: Raft, storage_id: [u8; 16], frame: Bytes) -> Option<Bytes> {
    let (request, body) = read_request(frame)?;
    let reply = match request {
        Request::Append(request) => raft
            .append_entries(request)
            .await
            .map_or_else(|error| failed(&error), Reply::Append),
        Request::Vote(request) => raft
            .vote(request)
            .await
            .map_or_else(|error| failed(&error), Reply::Vote),
        Request::Snapshot { vote, meta } => {
            let snapshot = openraft::Snapshot {
                meta,
                snapshot: Box::new(body),
            };
            let installed = raft.install_full_snapshot(vote, snapshot).await;
            installed.map_or_else(|error| failed(&error), Reply::Snapshot)
        }
        Request::Probe => Reply::Probe(Probe {
            blank: !raft.is_initialized().await.unwrap_or(true),
            storage_id,
        }),
    };
    encode(&reply).map(Bytes::from).ok()
}

fn failed(error: &dyn std::fmt::Display) -> Reply {
    Reply::Failed(error.to_string())
}

/// Makes clients.
pub(crate) struct Network {
    dialer: Arc<Dialer>,
}

impl Network {
    pub(crate) fn new(dialer: Arc<Dialer>) -> Self {
        Self { dialer }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, member: &Member) -> Client {
        let storage = Some(member.storage_id).filter(|id| *id != [0; 16]);
        self.dialer.learn(node_id(target), &member.mesh);
        Client {
            line: Line::new(
                Arc::clone(&self.dialer),
                node_id(target),
                Conversation::Raft,
                storage,
            ),
        }
    }
}

/// Calls one peer.
pub(crate) struct Client {
    line: Line,
}

/// Why a call failed.
enum CallError {
    /// Nothing was sent.
    Unreachable(LinkError),
    /// It may have arrived.
    Network(LinkError),
}

impl Client {
    async fn call(
        &mut self,
        request: &Request,
        body: Option<&Bytes>,
        timeout: Duration,
    ) -> Result<Reply, CallError> {
        let node = self.line.caller().await.map_err(CallError::Unreachable)?;
        let broken = |reason: String| LinkError { node: -1, reason };
        let parts = request_frame(request, body)
            .map_err(|error| CallError::Unreachable(broken(error.to_string())))?;
        let answer = node.call(&parts, timeout).await.map_err(CallError::Network)?;
        let reply = decode(&answer).map_err(|error| CallError::Network(broken(error.to_string())))?;
        match reply {
            Reply::Failed(reason) => Err(CallError::Unreachable(broken(reason))),
            reply => Ok(reply),
        }
    }
}

type RpcError = RPCError<u64, Member, RaftError<u64>>;

impl From<CallError> for RpcError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Unreachable(error) => Self::Unreachable(Unreachable::new(&error)),
            CallError::Network(error) => Self::Network(NetworkError::new(&error)),
        }
    }
}

impl From<CallError> for StreamingError<TypeConfig, Fatal<u64>> {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Unreachable(error) => Self::Unreachable(Unreachable::new(&error)),
            CallError::Network(error) => Self::Network(NetworkError::new(&error)),
        }
    }
}

fn unexpected() -> CallError {
    CallError::Network(LinkError {
        node: -1,
        reason: "the answer is to another question".to_owned(),
    })
}

impl RaftNetwork<TypeConfig> for Client {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        match self.call(&Request::Append(rpc), None, option.hard_ttl()).await? {
            Reply::Append(response) => Ok(response),
            _ => Err(unexpected().into()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RpcError> {
        match self.call(&Request::Vote(rpc), None, option.hard_ttl()).await? {
            Reply::Vote(response) => Ok(response),
            _ => Err(unexpected().into()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let request = Request::Snapshot {
            vote,
            meta: snapshot.meta,
        };
        let call = self.call(&request, Some(&snapshot.snapshot), option.hard_ttl());
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            reply = call => match reply? {
                Reply::Snapshot(response) => Ok(response),
                _ => Err(unexpected().into()),
            },
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
