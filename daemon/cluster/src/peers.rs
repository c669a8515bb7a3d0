//! Streams to other daemons of the cluster: a pool of one connection per daemon, hello and welcome done.
//!
//! There are two pools in a daemon: one for records and calls, and one for Raft and sessions, on a socket and runtime of
//! its own, so that record work cannot starve the second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tradewind_transport::{Expect, FrameRx, FrameTx, Mesh, MeshConn};
use tradewind_wire::ids::{ClusterId, NodeId};
use tradewind_wire::mesh::{Conversation, Hello, Welcome};

use crate::link::{FrameSink, FrameSource, Link, LinkError, Peers};

/// How long connecting, or hello and welcome, may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// Who this daemon is to others.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) cluster_name: String,
    pub(crate) node: NodeId,
    /// Filled in as soon as it is known.
    pub(crate) cluster_id: Arc<Mutex<Option<ClusterId>>>,
}

/// A pool of connections to the daemons of the own cluster.
pub(crate) struct Pool {
    mesh: Mesh,
    own: Own,
    connections: Mutex<HashMap<NodeId, Slot>>,
}

/// One daemon's connection and the address that it was opened to; the lock is held while it is being opened.
type Slot = Arc<tokio::sync::Mutex<Option<(String, MeshConn)>>>;

impl Pool {
    pub(crate) fn new(mesh: Mesh, own: Own) -> Self {
        Self {
            mesh,
            own,
            connections: Mutex::default(),
        }
    }

    /// Opens a stream to `node` at `addr`: the two halves and the id of its data directory.
    pub(crate) async fn stream(
        &self,
        node: NodeId,
        addr: &str,
        conversation: Conversation,
        expect_storage: Option<[u8; 16]>,
    ) -> Result<(FrameTx, FrameRx, [u8; 16]), LinkError> {
        let fail = |reason: String| LinkError { node, reason };
        let connection = tokio::time::timeout(OPEN_TIMEOUT, self.connection(node, addr))
            .await
            .map_err(|_| fail(format!("cannot connect to {addr} in time")))??;
        let mut hello = Hello::new(conversation, &self.own.cluster_name, self.own.node);
        hello.cluster_id = *self.own.cluster_id.lock();
        hello.expect_storage = expect_storage;
        let greeting = async {
            let (mut tx, mut rx) = connection.open().await.map_err(|error| error.to_string())?;
            tx.send(&[hello.encode()])
                .await
                .map_err(|error| error.to_string())?;
            let frame = rx.recv().await.map_err(|error| error.to_string())?;
            let frame = frame.ok_or_else(|| "stream ended before the welcome".to_owned())?;
            match Welcome::decode(frame).map_err(|error| error.to_string())? {
                Welcome::Accepted { storage_id, .. } => Ok((tx, rx, storage_id)),
                Welcome::Refused { reason } => Err(format!("refused: {reason}")),
            }
        };
        match tokio::time::timeout(OPEN_TIMEOUT, greeting).await {
            Ok(Ok(opened)) => Ok(opened),
            Ok(Err(reason)) => Err(fail(reason)),
            Err(_) => {
                // An unanswered hello: the connection may be to a process that is gone.
                connection.close("no welcome in time");
                Err(fail("no welcome in time".to_owned()))
            }
        }
    }

    async fn connection(&self, node: NodeId, addr: &str) -> Result<MeshConn, LinkError> {
        let slot = Arc::clone(self.connections.lock().entry(node).or_default());
        let mut slot = slot.lock().await;
        if let Some((at, connection)) = &*slot
            && at == addr
            && !connection.is_closed()
        {
            return Ok(connection.clone());
        }
        let expect = Expect {
            cluster: self.own.cluster_name.clone(),
            node: Some(node),
        };
        let connection = self
            .mesh
            .connect(addr, &expect)
            .await
            .map_err(|error| LinkError {
                node,
                reason: error.to_string(),
            })?;
        *slot = Some((addr.to_owned(), connection.clone()));
        Ok(connection)
    }
}

#[async_trait]
impl Peers for Pool {
    async fn open(
        &self,
        node: NodeId,
        addr: &str,
        conversation: Conversation,
        expect_storage: Option<[u8; 16]>,
    ) -> Result<Link, LinkError> {
        let (tx, rx, storage_id) = self.stream(node, addr, conversation, expect_storage).await?;
        Ok(link(node, storage_id, tx, rx))
    }
}

/// Wraps a stream for the metadata half.
pub(crate) fn link(node: NodeId, storage_id: [u8; 16], tx: FrameTx, rx: FrameRx) -> Link {
    Link {
        storage_id,
        tx: Box::new(Sink { node, tx }),
        rx: Box::new(Source { node, rx }),
    }
}

struct Sink {
    node: NodeId,
    tx: FrameTx,
}

struct Source {
    node: NodeId,
    rx: FrameRx,
}

#[async_trait]
impl FrameSink for Sink {
    async fn send(&mut self, parts: &[Bytes]) -> Result<(), LinkError> {
        self.tx.send(parts).await.map_err(|error| LinkError {
            node: self.node,
            reason: error.to_string(),
        })
    }
}

#[async_trait]
impl FrameSource for Source {
    async fn recv(&mut self) -> Result<Option<Bytes>, LinkError> {
        self.rx.recv().await.map_err(|error| LinkError {
            node: self.node,
            reason: error.to_string(),
        })
    }
}

/// Stands in where no endpoint could be opened: every attempt says why.
pub(crate) struct Unreachable(pub(crate) String);

#[async_trait]
impl Peers for Unreachable {
    async fn open(
        &self,
        node: NodeId,
        _addr: &str,
        _conversation: Conversation,
        _expect_storage: Option<[u8; 16]>,
    ) -> Result<Link, LinkError> {
        Err(LinkError {
            node,
            reason: self.0.clone(),
        })
    }
}
