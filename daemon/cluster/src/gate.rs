//! The mesh's front door: accepts connections and streams, checks who may open which conversation, hands them on.
//!
//! Identity is the certificate's (`tradewind://<cluster>/<node>`). Authority is decided on the first frame, before a
//! second one is read: daemons of the own cluster may open everything, those of other clusters `mirror`, `query`,
//! `audit` and `region`, clients `kafka`.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tradewind_transport::{FrameRx, FrameTx, Mesh, MeshConn, Peer};
use tradewind_wire::mesh::{Conversation, Hello, MESH_VERSION, Welcome};

use crate::audit;
use crate::inner::Inner;
use crate::metrics;
use crate::peers::link;
use crate::replicate::leader::{self, Reader};

/// How long a dialer may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves `mesh` until `stop`.
pub(crate) async fn run(inner: Arc<Inner>, mesh: Mesh, tasks: TaskTracker, stop: CancellationToken) {
    let accepting = async {
        while let Some(connection) = mesh.accept().await {
            let (inner, tasks_of, stop_of) = (Arc::clone(&inner), tasks.clone(), stop.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = serve_connection(inner, connection, tasks_of, stop_of.clone()) => {}
                    () = stop_of.cancelled() => {}
                }
            });
        }
    };
    tokio::select! { () = accepting => {}, () = stop.cancelled() => {} }
}

async fn serve_connection(
    inner: Arc<Inner>,
    connection: MeshConn,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    tracing::debug!(peer = ?connection.peer(), "mesh connection");
    while let Ok(Some((tx, rx))) = connection.accept().await {
        let (inner, peer, stop) = (Arc::clone(&inner), connection.peer().clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = serve_stream(inner, peer, tx, rx) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn serve_stream(inner: Arc<Inner>, peer: Peer, mut tx: FrameTx, mut rx: FrameRx) {
    let Ok(Ok(Some(frame))) = tokio::time::timeout(HELLO_TIMEOUT, rx.recv()).await else {
        return;
    };
    let hello = match Hello::decode(frame) {
        Ok(hello) => hello,
        Err(error) => {
            tracing::debug!(?peer, %error, "not a hello");
            metrics::stream_refused();
            return;
        }
    };
    if let Err(reason) = authorize(&inner, &peer, &hello) {
        tracing::warn!(?peer, conversation = ?hello.conversation, reason, "refused a stream");
        metrics::stream_refused();
        let _ = tx.send(&[Welcome::Refused { reason }.encode()]).await;
        tx.finish();
        return;
    }
    let welcome = Welcome::Accepted {
        version: MESH_VERSION,
        cluster_id: inner.cluster_id(),
        node: inner.own_node(),
        storage_id: inner.storage_id(),
    };
    if tx.send(&[welcome.encode()]).await.is_ok() {
        converse(inner, peer, hello, tx, rx).await;
    }
}

async fn converse(inner: Arc<Inner>, peer: Peer, hello: Hello, tx: FrameTx, rx: FrameRx) {
    match hello.conversation {
        Conversation::Raft | Conversation::Control => {
            // A dialer does not say which disk it is on; only what it expects here.
            let link = link(hello.node, [0; 16], tx, rx);
            inner.metadata().serve(hello.conversation, hello.node, link).await;
        }
        Conversation::Replicate => leader::serve(inner, Reader::Follower(hello.node), tx, rx).await,
        Conversation::Mirror => {
            let _mirroring = inner.downstream(&hello.cluster_name);
            leader::serve(Arc::clone(&inner) as _, Reader::Mirror, tx, rx).await;
        }
        Conversation::Audit => {
            let audits = inner.audits.clone();
            audit::serve(inner, audits, tx, rx).await;
        }
        Conversation::Query | Conversation::Kafka | Conversation::Region => {
            if let Some(service) = inner.kafka_service() {
                service.serve(hello.conversation, peer, tx, rx).await;
            }
        }
        Conversation::Call => inner.calls().serve(tx, rx).await,
    }
}

fn authorize(inner: &Inner, peer: &Peer, hello: &Hello) -> Result<(), String> {
    if hello.versions.0 > MESH_VERSION || hello.versions.1 < MESH_VERSION {
        let (low, high) = hello.versions;
        return Err(format!(
            "mesh protocol {low}-{high} is not spoken here, only {MESH_VERSION}"
        ));
    }
    match peer {
        Peer::Daemon { cluster, node } => {
            if (cluster.as_str(), *node) != (hello.cluster_name.as_str(), hello.node) {
                return Err(format!(
                    "certificate is for {cluster}/{node}, hello for {}/{}",
                    hello.cluster_name, hello.node
                ));
            }
            if cluster == inner.cluster_name() {
                own_daemon(inner, hello)
            } else {
                foreign_daemon(inner, hello)
            }
        }
        Peer::Client { .. } if hello.conversation == Conversation::Kafka => Ok(()),
        _ => Err("clients may only speak Kafka".to_owned()),
    }
}

fn own_daemon(inner: &Inner, hello: &Hello) -> Result<(), String> {
    if !inner.is_member(hello.node) {
        return Err(format!(
            "node {} is not a member of {}",
            hello.node,
            inner.cluster_name()
        ));
    }
    if let (Some(theirs), Some(ours)) = (hello.cluster_id, inner.cluster_id())
        && theirs != ours
    {
        return Err(format!("cluster id {theirs} is not ours, {ours}"));
    }
    match hello.expect_storage {
        Some(expected) if expected != inner.storage_id() => {
            Err("the data directory here is not the one that was meant".to_owned())
        }
        _ => Ok(()),
    }
}

fn foreign_daemon(inner: &Inner, hello: &Hello) -> Result<(), String> {
    match hello.conversation {
        // What a `region` stream may ask for, the program's grant decides.
        Conversation::Mirror | Conversation::Query | Conversation::Audit | Conversation::Region => {
            if hello.cluster_id.is_some() && hello.cluster_id == inner.cluster_id() {
                return Err("the other cluster has our own id".to_owned());
            }
            Ok(())
        }
        other => Err(format!("another cluster's daemon may not open {other:?}")),
    }
}
