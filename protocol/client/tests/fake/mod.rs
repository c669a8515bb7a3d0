//! A broker that does as it is told, on TCP or on the mesh: for what real brokers rarely do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tradewind_transport::{FrameRx, FrameTx, kafka, tcp};
use tradewind_wire::api::{ApiKey, RequestHeader, ResponseHeader, decode_header};
use tradewind_wire::clock::Clock;
use tradewind_wire::codec::{Reader, Writer};
use tradewind_wire::messages::api_versions::ApiVersion;
use tradewind_wire::messages::metadata::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use tradewind_wire::messages::{
    ApiVersionsRequest, ApiVersionsResponse, Message, MetadataRequest, MetadataResponse, Request, versions,
};

/// What the fake does with a request.
pub(crate) enum Act {
    /// Sends this.
    Answer(Vec<Bytes>),
    /// Does not answer.
    Silence,
    /// Closes the connection.
    Close,
}

/// Decides what to do; sees the header and the body.
pub(crate) type Script = Arc<dyn Fn(&RequestHeader, Reader) -> Act + Send + Sync>;

/// A clock that goes by Tokio's.
pub(crate) struct TestClock(pub Instant);

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        1_700_000_000_000
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The frames that answer a request, in its version.
pub(crate) fn answer<R: Request>(header: &RequestHeader, response: &R::Response) -> Act {
    answer_in::<R>(header, header.api_version, response)
}

/// The same in another version than the request's.
pub(crate) fn answer_in<R: Request>(header: &RequestHeader, version: i16, response: &R::Response) -> Act {
    let mut w = Writer::new();
    ResponseHeader {
        correlation_id: header.correlation_id,
    }
    .encode(&mut w, R::KEY, version);
    response.encode(&mut w, version).unwrap();
    Act::Answer(w.finish())
}

/// All versions of all APIs that we know.
pub(crate) fn all_versions() -> ApiVersionsResponse {
    let known = ApiKey::ALL.iter().filter_map(|key| {
        let known = versions(*key)?;
        Some(ApiVersion {
            api_key: key.code(),
            min_version: known.min,
            max_version: known.max,
        })
    });
    ApiVersionsResponse {
        api_keys: known.collect(),
        ..Default::default()
    }
}

/// Answers ApiVersions and Metadata: one broker, 1, at `addr`, and the topic `t` with one partition.
pub(crate) fn usual(header: &RequestHeader, addr: SocketAddr) -> Option<Act> {
    match header.key()? {
        ApiKey::ApiVersions => Some(answer::<ApiVersionsRequest>(header, &all_versions())),
        ApiKey::Metadata => {
            let partition = MetadataResponsePartition {
                leader_id: 1,
                leader_epoch: 3,
                ..Default::default()
            };
            let response = MetadataResponse {
                brokers: vec![MetadataResponseBroker {
                    node_id: 1,
                    host: addr.ip().to_string().into(),
                    port: i32::from(addr.port()),
                    rack: None,
                }],
                cluster_id: Some("fake".into()),
                controller_id: 1,
                topics: vec![MetadataResponseTopic {
                    name: Some("t".into()),
                    partitions: vec![partition],
                    ..Default::default()
                }],
                ..Default::default()
            };
            Some(answer::<MetadataRequest>(header, &response))
        }
        _ => None,
    }
}

/// A fake on TCP.
pub(crate) struct Fake {
    pub(crate) addr: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
}

impl Fake {
    /// Listens and follows the script that `script` makes for its address.
    pub(crate) fn start(script: impl FnOnce(SocketAddr) -> Script) -> Self {
        let listener = tcp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let script = script(addr);
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let script = script.clone();
                tokio::spawn(async move {
                    let (mut reader, mut writer) = kafka::split(stream, 1 << 20);
                    while let Ok(Some(frame)) = reader.recv().await {
                        let (header, body) = decode_header(frame).unwrap();
                        match script(&header, body) {
                            Act::Answer(chunks) => writer.send(chunks).await.unwrap(),
                            Act::Silence => {}
                            Act::Close => return,
                        }
                    }
                });
            }
        });
        Self { addr, connections }
    }
}

/// Serves one stream of the mesh, after its hello.
pub(crate) async fn serve_stream(mut tx: FrameTx, mut rx: FrameRx, script: Script) {
    while let Ok(Some(frame)) = rx.recv().await {
        let (header, body) = decode_header(frame).unwrap();
        match script(&header, body) {
            Act::Answer(chunks) => tx.send(&chunks).await.unwrap(),
            Act::Silence => {}
            Act::Close => return,
        }
    }
}
