//! Reaching a broker: a TCP connection, or a QUIC stream that has been welcomed. Both then carry Kafka's frames.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use tradewind_transport::{Expect, FrameRx, FrameTx, KafkaReader, KafkaWriter, Mesh, MeshConn, kafka, tcp};
use tradewind_wire::ids::NodeId;
use tradewind_wire::mesh::{Conversation, Hello, Welcome};

use crate::config::Transport;

/// The longest answer to a hello.
const MAX_WELCOME: usize = 64 << 10;

/// Makes connections. On the mesh, streams to one address share a QUIC connection.
#[derive(Debug)]
pub(crate) struct Dialer {
    transport: Transport,
    timeout: Duration,
    max_frame: usize,
    mesh_conns: Mutex<HashMap<String, MeshConn>>,
}

impl Dialer {
    pub(crate) fn new(transport: Transport, timeout: Duration, max_frame: usize) -> Self {
        Self {
            transport,
            timeout,
            max_frame,
            mesh_conns: Mutex::new(HashMap::new()),
        }
    }

    /// Connects to the broker at `addr`; `node` is who it must be, if that is known. The error is for people.
    pub(crate) async fn dial(
        &self,
        addr: &str,
        node: Option<NodeId>,
    ) -> Result<(FrameSink, FrameSource), String> {
        match &self.transport {
            Transport::Tcp => {
                let stream = tcp::connect(addr, self.timeout)
                    .await
                    .map_err(|e| e.to_string())?;
                let (read, write) = kafka::split(stream, self.max_frame);
                Ok((FrameSink::Tcp(write), FrameSource::Tcp(read)))
            }
            Transport::Mesh {
                mesh,
                cluster,
                conversation,
                ..
            } => {
                let expect = Expect {
                    cluster: cluster.clone(),
                    node,
                };
                let conn = self.mesh_conn(mesh, addr, &expect).await?;
                timeout(self.timeout, open(mesh, &conn, *conversation, self.max_frame))
                    .await
                    .unwrap_or_else(|_| Err(format!("no welcome within {:?}", self.timeout)))
            }
        }
    }

    async fn mesh_conn(&self, mesh: &Mesh, addr: &str, expect: &Expect) -> Result<MeshConn, String> {
        let kept = self.mesh_conns.lock().get(addr).cloned();
        if let Some(conn) = kept.filter(|conn| !conn.is_closed() && expect.admits(conn.peer())) {
            return Ok(conn);
        }
        let dialled = match &self.transport {
            Transport::Mesh {
                options: Some(options),
                ..
            } => mesh.connect_with(addr, expect, options).await,
            _ => mesh.connect(addr, expect).await,
        };
        let conn = dialled.map_err(|e| e.to_string())?;
        let mut kept = self.mesh_conns.lock();
        kept.retain(|_, conn| !conn.is_closed());
        kept.insert(addr.to_owned(), conn.clone());
        Ok(conn)
    }
}

async fn open(
    mesh: &Mesh,
    conn: &MeshConn,
    conversation: Conversation,
    max_frame: usize,
) -> Result<(FrameSink, FrameSource), String> {
    let (mut tx, mut rx) = conn.open().await.map_err(|e| e.to_string())?;
    let (cluster, node) = mesh.identity();
    let hello = Hello::new(conversation, cluster, node);
    tx.send(&[hello.encode()]).await.map_err(|e| e.to_string())?;
    rx.set_limit(MAX_WELCOME);
    let answer = rx.recv().await.map_err(|e| e.to_string())?;
    let answer = answer.ok_or_else(|| "the stream ended without a welcome".to_owned())?;
    match Welcome::decode(answer).map_err(|e| e.to_string())? {
        Welcome::Accepted { .. } => {
            rx.set_limit(max_frame);
            // The connection stays open as long as one of its streams is used.
            let conn = Arc::new(conn.clone());
            Ok((FrameSink::Mesh(tx), FrameSource::Mesh(rx, conn)))
        }
        Welcome::Refused { reason } => Err(format!("refused: {reason}")),
    }
}

/// Where frames are sent.
#[derive(Debug)]
pub(crate) enum FrameSink {
    Tcp(KafkaWriter<OwnedWriteHalf>),
    Mesh(FrameTx),
}

impl FrameSink {
    pub(crate) async fn send(&mut self, frame: Vec<Bytes>) -> Result<(), String> {
        match self {
            Self::Tcp(writer) => writer.send(frame).await.map_err(|e| e.to_string()),
            Self::Mesh(tx) => tx.send(&frame).await.map_err(|e| e.to_string()),
        }
    }
}

/// Where frames come from.
#[derive(Debug)]
pub(crate) enum FrameSource {
    Tcp(KafkaReader<OwnedReadHalf>),
    Mesh(
        FrameRx,
        #[expect(dead_code, reason = "keeps the connection of the stream open")] Arc<MeshConn>,
    ),
}

impl FrameSource {
    /// The next frame; an error at the end of the stream too, since a broker does not end it on purpose.
    pub(crate) async fn recv(&mut self) -> Result<Bytes, String> {
        let frame = match self {
            Self::Tcp(reader) => reader.recv().await.map_err(|e| e.to_string())?,
            Self::Mesh(rx, _) => rx.recv().await.map_err(|e| e.to_string())?,
        };
        frame.ok_or_else(|| "the broker closed the connection".to_owned())
    }
}
