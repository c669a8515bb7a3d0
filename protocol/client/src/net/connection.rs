//! One connection to a broker: many requests on the way at a time, answers matched by their order and correlation id.
//!
//! Two tasks own the socket, one per direction; both end with the last user of the connection, or with its first failure.
//! A caller that gives up does not disturb the others: its answer is read and dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tradewind_wire::api::{RequestHeader, ResponseHeader};
use tradewind_wire::codec::{Reader, Str, Writer};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::NodeId;
use tradewind_wire::messages::{ApiVersionsRequest, ApiVersionsResponse, Message, Request};

use super::dial::{Dialer, FrameSink, FrameSource};
use super::versions::{BrokerVersions, FIRST_API_VERSIONS, after_refusal};
use crate::error::ClientError;

/// Requests on the way on one connection at most; further callers wait.
const MAX_IN_FLIGHT: usize = 64;

/// An established connection whose broker has told its versions.
#[derive(Debug)]
pub(crate) struct Connection {
    addr: String,
    client_id: Str,
    versions: BrokerVersions,
    next_correlation: AtomicI32,
    places: Arc<Semaphore>,
    queue: mpsc::Sender<Outgoing>,
    shared: Arc<Shared>,
    _ends_with_me: DropGuard,
}

/// What both tasks and the callers look at.
#[derive(Debug)]
struct Shared {
    /// Requests written and not yet answered, in order.
    pending: Mutex<VecDeque<Pending>>,
    /// Why the connection failed, once it has.
    failure: Mutex<Option<String>>,
    ended: CancellationToken,
}

#[derive(Debug)]
struct Pending {
    correlation: i32,
    reply: oneshot::Sender<Bytes>,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Outgoing {
    frame: Vec<Bytes>,
    /// `None` for a request that is not answered (acks=0).
    pending: Option<Pending>,
}

/// An answer on its way.
#[derive(Debug)]
pub(crate) struct Reply<R: Request> {
    connection: Arc<Connection>,
    version: i16,
    receiver: oneshot::Receiver<Bytes>,
    _request: std::marker::PhantomData<fn() -> R>,
}

impl Connection {
    /// Connects and asks for the broker's versions, all within `limit`.
    pub(crate) async fn open(
        dialer: &Dialer,
        addr: &str,
        node: Option<NodeId>,
        client_id: &str,
        limit: Duration,
    ) -> Result<Arc<Self>, ClientError> {
        let failed = |reason: String| ClientError::Connect {
            addr: addr.to_owned(),
            reason,
        };
        timeout(limit, async {
            let (sink, source) = dialer.dial(addr, node).await.map_err(failed)?;
            let connection = Arc::new(Self::start(addr, client_id, sink, source));
            let versions = connection.ask_versions().await?;
            // Nobody else has the connection yet: the reply is done with it.
            let mut connection = Arc::try_unwrap(connection).map_err(|_| failed("in use".to_owned()))?;
            connection.versions = versions;
            Ok(Arc::new(connection))
        })
        .await
        .unwrap_or_else(|_| Err(failed(format!("no answer within {limit:?}"))))
    }

    fn start(addr: &str, client_id: &str, sink: FrameSink, source: FrameSource) -> Self {
        let shared = Arc::new(Shared {
            pending: Mutex::new(VecDeque::new()),
            failure: Mutex::new(None),
            ended: CancellationToken::new(),
        });
        let (queue, outgoing) = mpsc::channel(MAX_IN_FLIGHT);
        tokio::spawn(write_loop(sink, outgoing, shared.clone()));
        tokio::spawn(read_loop(source, shared.clone()));
        Self {
            addr: addr.to_owned(),
            client_id: client_id.into(),
            versions: BrokerVersions::default(),
            next_correlation: AtomicI32::new(0),
            places: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            queue,
            _ends_with_me: shared.ended.clone().drop_guard(),
            shared,
        }
    }

    /// Whether the connection has failed.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.ended.is_cancelled()
    }

    /// Ends the connection: all who wait for answers are told.
    pub(crate) fn close(&self, reason: &str) {
        self.shared.fail(reason.to_owned());
    }

    /// The highest version of `R` in common, not above `cap`.
    pub(crate) fn version<R: Request>(&self, cap: i16) -> Result<i16, ClientError> {
        self.versions
            .common::<R>(cap)
            .ok_or_else(|| self.unsupported::<R>())
    }

    /// The error of a broker that lacks `R`, or the version of it that is needed.
    pub(crate) fn unsupported<R: Request>(&self) -> ClientError {
        ClientError::Unsupported {
            addr: self.addr.clone(),
            api: R::KEY,
        }
    }

    /// Queues a request and returns the answer to wait for. Requests are written in the order of these calls' completion.
    pub(crate) async fn begin<R: Request>(
        self: &Arc<Self>,
        version: i16,
        request: &R,
    ) -> Result<Reply<R>, ClientError> {
        let place = self.place().await?;
        let correlation = self.next_correlation.fetch_add(1, Ordering::Relaxed);
        let frame = self.encode(version, correlation, request)?;
        let (reply, receiver) = oneshot::channel();
        let pending = Pending {
            correlation,
            reply,
            _place: place,
        };
        self.enqueue(Outgoing {
            frame,
            pending: Some(pending),
        })
        .await?;
        Ok(Reply {
            connection: self.clone(),
            version,
            receiver,
            _request: std::marker::PhantomData,
        })
    }

    /// Queues a request that the broker does not answer (Produce with acks=0).
    pub(crate) async fn tell<R: Request>(&self, version: i16, request: &R) -> Result<(), ClientError> {
        let correlation = self.next_correlation.fetch_add(1, Ordering::Relaxed);
        let frame = self.encode(version, correlation, request)?;
        self.enqueue(Outgoing { frame, pending: None }).await
    }

    async fn ask_versions(self: &Arc<Self>) -> Result<BrokerVersions, ClientError> {
        let request = ApiVersionsRequest {
            client_software_name: Str::from_static("tradewind"),
            client_software_version: Str::from_static(env!("CARGO_PKG_VERSION")),
        };
        let mut version = FIRST_API_VERSIONS;
        for _ in 0..2 {
            let frame = self.begin(version, &request).await?.frame().await?;
            let decoded = self.decode::<ApiVersionsRequest>(version, frame.clone());
            // A broker that does not know the version answers in version 0 (KIP-511).
            let response: ApiVersionsResponse = match decoded {
                Ok(response) if response.error_code == ErrorCode::None.code() => {
                    return Ok(BrokerVersions::new(&response));
                }
                _ => self.decode::<ApiVersionsRequest>(0, frame)?,
            };
            let code = ErrorCode::from_code(response.error_code);
            if code != ErrorCode::UnsupportedVersion {
                return Err(ClientError::broker(
                    format!("ApiVersions at {}", self.addr),
                    code,
                    None,
                ));
            }
            version = after_refusal(&response);
        }
        Err(ClientError::Unsupported {
            addr: self.addr.clone(),
            api: ApiVersionsRequest::KEY,
        })
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, ClientError> {
        tokio::select! {
            place = self.places.clone().acquire_owned() => place.map_err(|_| self.lost()),
            () = self.shared.ended.cancelled() => Err(self.lost()),
        }
    }

    async fn enqueue(&self, outgoing: Outgoing) -> Result<(), ClientError> {
        self.queue.send(outgoing).await.map_err(|_| self.lost())
    }

    fn encode<R: Request>(
        &self,
        version: i16,
        correlation_id: i32,
        request: &R,
    ) -> Result<Vec<Bytes>, ClientError> {
        let mut w = Writer::new();
        let header = RequestHeader {
            api_key: R::KEY.code(),
            api_version: version,
            correlation_id,
            client_id: Some(self.client_id.clone()),
        };
        header.encode(&mut w)?;
        request.encode(&mut w, version)?;
        Ok(w.finish())
    }

    fn decode<R: Request>(&self, version: i16, frame: Bytes) -> Result<R::Response, ClientError> {
        let mut r = Reader::new(frame);
        ResponseHeader::decode(&mut r, R::KEY, version)
            .and_then(|_| R::Response::decode(&mut r, version))
            .map_err(|source| ClientError::Decode {
                addr: self.addr.clone(),
                api: R::KEY,
                source,
            })
    }

    fn lost(&self) -> ClientError {
        let reason = self.shared.failure.lock().clone();
        ClientError::Disconnected {
            addr: self.addr.clone(),
            reason: reason.unwrap_or_else(|| "closed".to_owned()),
        }
    }
}

impl<R: Request> Reply<R> {
    /// Waits for the answer. The caller sets the deadline.
    pub(crate) async fn wait(self) -> Result<R::Response, ClientError> {
        let (connection, version) = (self.connection.clone(), self.version);
        let frame = self.frame().await?;
        connection.decode::<R>(version, frame)
    }

    /// The connection that the answer is to come on.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    async fn frame(self) -> Result<Bytes, ClientError> {
        self.receiver.await.map_err(|_| self.connection.lost())
    }
}

impl Shared {
    /// Remembers the first reason, and lets everyone know.
    fn fail(&self, reason: String) {
        self.failure.lock().get_or_insert(reason);
        self.ended.cancel();
        // Dropping the senders tells those who wait.
        let orphans = std::mem::take(&mut *self.pending.lock());
        drop(orphans);
    }
}

async fn write_loop(mut sink: FrameSink, mut outgoing: mpsc::Receiver<Outgoing>, shared: Arc<Shared>) {
    let ended = shared.ended.clone();
    let work = async {
        while let Some(Outgoing { frame, pending }) = outgoing.recv().await {
            // Before the write, so that the answer cannot overtake it.
            shared.pending.lock().extend(pending);
            if let Err(reason) = sink.send(frame).await {
                return reason;
            }
        }
        "closed".to_owned()
    };
    let reason = tokio::select! {
        reason = work => reason,
        () = ended.cancelled() => "closed".to_owned(),
    };
    shared.fail(reason);
}

async fn read_loop(mut source: FrameSource, shared: Arc<Shared>) {
    let ended = shared.ended.clone();
    let work = async {
        loop {
            let frame = match source.recv().await {
                Ok(frame) => frame,
                Err(reason) => return reason,
            };
            let Some(correlation) = frame.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes)) else {
                return "the broker sent an answer without a correlation id".to_owned();
            };
            let waiting = shared.pending.lock().pop_front();
            match waiting {
                // The caller may have given up; its answer is dropped then.
                Some(pending) if pending.correlation == correlation => drop(pending.reply.send(frame)),
                _ => return format!("the broker answered {correlation}, which is not the next request"),
            }
        }
    };
    let reason = tokio::select! {
        reason = work => reason,
        () = ended.cancelled() => "closed".to_owned(),
    };
    shared.fail(reason);
}
