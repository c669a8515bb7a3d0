//! A Tradewind source: facts in Kafka's protocol over `query` streams, records pushed over `mirror` streams.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tradewind_client::Client;
use tradewind_transport::{Expect, FrameRx, FrameTx, Mesh, MeshConn, TransportOptions};
use tradewind_wire::audit::{Audit, AuditAnswer, AuditAsk};
use tradewind_wire::ids::NodeId;
use tradewind_wire::mesh::{Conversation, Follow, Hello, Push, Welcome};
use tradewind_wire::region::{RegionAnswer, RegionAsk};

use super::kafka::KafkaSource;
use super::{
    Compared, FetchFrom, Fetched, Origins, PartitionOf, PushStream, Source, SourceConfig, SourceEnds,
    SourceError, SourceTopics, Told,
};

/// How long connecting to a source daemon and its welcome may take, all attempts together.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the first attempt to connect may take. A handshake repeats what was lost at growing intervals: when a cut line
/// is whole again, a new attempt is there before an old one's next try. The second has the endpoint's whole timeout.
const FIRST_ATTEMPT: Duration = Duration::from_secs(1);
/// How long a source daemon may take for one question of an audit: others may be before it.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a question about moving a region may take: its answer waits for the source's metadata log.
const REGION_TIMEOUT: Duration = Duration::from_secs(8);

/// How long until a daemon that is asked about moving a region has opened the stream.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for what topics are, which every daemon knows.
const ORIGINS_REACH: Duration = Duration::from_millis(900);
/// How long the answer may take from then on: it names every topic.
const ORIGINS_TIMEOUT: Duration = Duration::from_secs(20);

/// A source cluster on the mesh.
pub struct MeshSource {
    facts: KafkaSource,
    client: Client,
    mesh: Mesh,
    cluster: String,
    connections: Mutex<HashMap<String, MeshConn>>,
    /// Who answered last when any daemon could.
    answered: Mutex<Option<NodeId>>,
}

impl MeshSource {
    /// The cluster `cluster`, asked with `client` (whose transport is the mesh's `query`) and dialled from `mesh`.
    pub fn new(client: Client, mesh: Mesh, cluster: String) -> Self {
        Self {
            facts: KafkaSource::new(client.clone()),
            client,
            mesh,
            cluster,
            connections: Mutex::default(),
            answered: Mutex::default(),
        }
    }

    /// Asks one daemon after the other until one answers. Each has `reach` until its stream is open, and then `answer`. One that
    /// cannot do it yet may be cut off from its own cluster: its word counts only if nobody has another.
    async fn ask_any(
        &self,
        nodes: &[NodeId],
        ask: &RegionAsk,
        (reach, answer): (Duration, Duration),
    ) -> Result<RegionAnswer, SourceError> {
        let mut failure = "no daemon is known".to_owned();
        let mut not_yet = None;
        for node in nodes.iter().copied() {
            match self.ask_region(node, ask, (reach, answer)).await {
                Ok(answer @ RegionAnswer::NotYet(_)) => not_yet = Some(answer),
                Ok(answer) => {
                    *self.answered.lock() = Some(node);
                    return Ok(answer);
                }
                Err(reason) => failure = format!("daemon {node} of {}: {reason}", self.cluster),
            }
        }
        not_yet.ok_or(SourceError::Unreachable(failure))
    }

    async fn connection(&self, node: NodeId) -> Result<MeshConn, String> {
        let known = self.client.cached();
        let broker = known
            .brokers
            .get(&node)
            .ok_or_else(|| format!("daemon {node} is not known"))?;
        let addr = broker.addr();
        let kept = self
            .connections
            .lock()
            .get(&addr)
            .filter(|connection| !connection.is_closed())
            .cloned();
        if let Some(connection) = kept {
            return Ok(connection);
        }
        let expect = Expect {
            cluster: self.cluster.clone(),
            node: Some(node),
        };
        let options = TransportOptions::line();
        let dial = || self.mesh.connect_with(&addr, &expect, &options);
        let first = tokio::time::timeout(FIRST_ATTEMPT, dial()).await;
        let connected = match first {
            Ok(connected) => connected,
            Err(_) => dial().await,
        };
        let connection = connected.map_err(|error| error.to_string())?;
        connection.fit_to_line();
        let mut connections = self.connections.lock();
        connections.retain(|_, connection| !connection.is_closed());
        connections.insert(addr, connection.clone());
        Ok(connection)
    }

    async fn open(&self, node: NodeId, conversation: Conversation) -> Result<Stream, String> {
        let connection = self.connection(node).await?;
        let (mut tx, mut rx) = connection.open().await.map_err(|error| error.to_string())?;
        let (cluster, own) = self.mesh.identity();
        let hello = Hello::new(conversation, cluster, own);
        tx.send(&[hello.encode()])
            .await
            .map_err(|error| error.to_string())?;
        let answer = rx.recv().await.map_err(|error| error.to_string())?;
        let answer = answer.ok_or_else(|| "the stream ended without a welcome".to_owned())?;
        match Welcome::decode(answer).map_err(|error| error.to_string())? {
            Welcome::Accepted { .. } => Ok(Stream {
                tx,
                rx,
                _connection: connection,
            }),
            Welcome::Refused { reason } => Err(format!("refused: {reason}")),
        }
    }
}

impl MeshSource {
    async fn ask_region(
        &self,
        node: NodeId,
        ask: &RegionAsk,
        (reach, answer): (Duration, Duration),
    ) -> Result<RegionAnswer, String> {
        let late = |_| "no answer in time".to_owned();
        let opened = tokio::time::timeout(reach, self.open(node, Conversation::Region)).await;
        let mut stream = opened.map_err(late)??;
        let frame = serde_json::to_vec(ask).map_err(|error| error.to_string())?;
        let asking = async {
            let sent = stream.tx.send(&[frame.into()]).await;
            sent.map_err(|error| error.to_string())?;
            let answer = stream.rx.recv().await.map_err(|error| error.to_string())?;
            answer.ok_or_else(|| "the stream ended without an answer".to_owned())
        };
        let answer = tokio::time::timeout(answer, asking).await;
        serde_json::from_slice(&answer.map_err(late)??).map_err(|error| error.to_string())
    }
}

/// A stream that has been welcomed.
struct Stream {
    tx: FrameTx,
    rx: FrameRx,
    /// Stays open as long as its stream.
    _connection: MeshConn,
}

#[async_trait]
impl PushStream for Stream {
    async fn send(&mut self, frame: Follow) -> Result<(), SourceError> {
        self.tx.send(&[frame.encode()]).await.map_err(lost)
    }

    async fn recv(&mut self) -> Result<Push, SourceError> {
        let frame: Option<Bytes> = self.rx.recv().await.map_err(lost)?;
        let frame = frame.ok_or_else(|| lost("the daemon ended the stream"))?;
        Push::decode(frame).map_err(lost)
    }
}

fn lost(error: impl ToString) -> SourceError {
    SourceError::Unreachable(error.to_string())
}

#[async_trait]
impl Source for MeshSource {
    /// Asked for at the flow's interval, which is when the links' windows follow their delays too.
    async fn topics(&self) -> Result<SourceTopics, SourceError> {
        for connection in self.connections.lock().values() {
            connection.fit_to_line();
        }
        self.facts.topics().await
    }

    async fn configs(&self, topics: &[String]) -> Result<BTreeMap<String, Vec<SourceConfig>>, SourceError> {
        self.facts.configs(topics).await
    }

    async fn ends(
        &self,
        partitions: &[PartitionOf],
    ) -> Result<BTreeMap<PartitionOf, SourceEnds>, SourceError> {
        self.facts.ends(partitions).await
    }

    async fn epoch_ends(
        &self,
        asked: &[(PartitionOf, i32)],
    ) -> Result<BTreeMap<PartitionOf, Result<Compared, SourceError>>, SourceError> {
        self.facts.epoch_ends(asked).await
    }

    async fn groups(&self) -> Result<Vec<String>, SourceError> {
        self.facts.groups().await
    }

    async fn committed(&self, groups: &[String]) -> Result<BTreeMap<String, Told>, SourceError> {
        self.facts.committed(groups).await
    }

    async fn fetch(
        &self,
        node: NodeId,
        partitions: Vec<FetchFrom>,
        wait_ms: i32,
    ) -> Result<Vec<(PartitionOf, Fetched)>, SourceError> {
        self.facts.fetch(node, partitions, wait_ms).await
    }

    async fn audit(
        &self,
        node: NodeId,
        partition: &PartitionOf,
        bounds: Vec<i64>,
        items: bool,
    ) -> Result<Audit, SourceError> {
        let ask = AuditAsk {
            topic: partition.id,
            partition: partition.partition,
            bounds,
            items,
        };
        let asking = async {
            let mut stream = self.open(node, Conversation::Audit).await?;
            let sent = stream.tx.send(&[ask.encode()]).await;
            sent.map_err(|error| error.to_string())?;
            let answer = stream.rx.recv().await.map_err(|error| error.to_string())?;
            let answer = answer.and_then(AuditAnswer::decode);
            answer.ok_or_else(|| "it does not know how to answer".to_owned())
        };
        let answer = tokio::time::timeout(AUDIT_TIMEOUT, asking).await;
        match answer.unwrap_or_else(|_| Err("no answer in time".into())) {
            Ok(AuditAnswer::Found(found)) => Ok(found),
            Ok(AuditAnswer::Refused(reason)) => Err(SourceError::Refused {
                what: "an audit",
                reason,
            }),
            Err(reason) => Err(lost(format!("daemon {node} of {}: {reason}", self.cluster))),
        }
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.client.cached().brokers.keys().copied().collect()
    }

    async fn region(&self, node: Option<NodeId>, ask: &RegionAsk) -> Result<RegionAnswer, SourceError> {
        let in_order = || heard_first(self.nodes(), *self.answered.lock());
        let nodes = node.map_or_else(in_order, |node| vec![node]);
        // Twice: a connection that was kept may be to a process that has ended, which only the first use of it tells.
        let twice = [&nodes[..], &nodes].concat();
        self.ask_any(&twice, ask, (REACH_TIMEOUT, REGION_TIMEOUT)).await
    }

    async fn origins(&self, ask: &RegionAsk) -> Result<Option<Origins>, SourceError> {
        let nodes = heard_first(self.nodes(), *self.answered.lock());
        // A daemon that cannot be reached costs little: the next one says the same. Only where nobody can be, the line may be slow.
        let quickly = self.ask_any(&nodes, ask, (ORIGINS_REACH, ORIGINS_TIMEOUT)).await;
        let answer = match quickly {
            Ok(answer) => answer,
            Err(_) => {
                self.ask_any(&nodes, ask, (REACH_TIMEOUT, ORIGINS_TIMEOUT))
                    .await?
            }
        };
        match answer {
            RegionAnswer::Origins(topics) => Ok(Some(topics)),
            // One of an earlier version does not know the question.
            RegionAnswer::Refused(reason) => {
                tracing::debug!(cluster = self.cluster, reason, "does not say what its topics are");
                Ok(None)
            }
            other => Err(lost(format!("an answer to something else: {other:?}"))),
        }
    }

    async fn open_push(&self, node: NodeId) -> Result<Box<dyn PushStream>, SourceError> {
        let opened = tokio::time::timeout(OPEN_TIMEOUT, self.open(node, Conversation::Mirror)).await;
        let opened = opened.unwrap_or_else(|_| Err("no answer in time".into()));
        match opened {
            Ok(stream) => Ok(Box::new(stream)),
            Err(reason) => Err(SourceError::Unreachable(format!(
                "daemon {node} of {}: {reason}",
                self.cluster
            ))),
        }
    }
}

/// Daemons in the order of asking: whoever answered last comes first.
fn heard_first(mut nodes: Vec<NodeId>, answered: Option<NodeId>) -> Vec<NodeId> {
    nodes.sort_by_key(|node| (Some(*node) != answered, *node));
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_answered_last_is_asked_first() {
        assert_eq!(heard_first(vec![3, 1, 2], None), [1, 2, 3]);
        assert_eq!(heard_first(vec![1, 2, 3], Some(3)), [3, 1, 2]);
        assert_eq!(heard_first(vec![1, 2], Some(3)), [1, 2]);
    }
}
