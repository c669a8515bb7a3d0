//! The QUIC endpoint of a daemon: accepts and dials connections whose both ends have proven who they are.
//!
//! A handshake runs apart from the accept loop, in one of a bounded number of places, so that a slow or hostile peer
//! holds up nobody. The acceptor greets a verified dialler with one byte on a stream of its own; only then is the dial
//! done, because in TLS 1.3 the dialler otherwise believes in success before its certificate was looked at.

use std::any::Any;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::rustls::pki_types::CertificateDer;
use quinn::{
    AsyncUdpSocket, ClientConfig, Connection, Endpoint, EndpointConfig, Incoming, Runtime, ServerConfig,
    TokioRuntime, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::timeout;

use crate::conn::{ConnLost, MeshConn};
use crate::datagrams::{Adapter, Datagrams};
use crate::identity::{Expect, Peer, peer_of};
use crate::options::{MeshOptions, TransportOptions};
use crate::reset::ResetKey;
use crate::tls::MeshTls;

/// What the acceptor sends once it has verified the dialler.
const GREETING: &[u8] = b"+";

/// Connections accepted and not yet taken by [`Mesh::accept`].
const ACCEPT_QUEUE: usize = 64;

/// The kernel's socket buffers that are asked for, in bytes; it may grant less.
const SOCKET_BUFFER: usize = 4 << 20;

/// Bytes that a not yet accepted connection may make us hold, each and together.
const INCOMING_BUFFER: (u64, u64) = (64 << 10, 8 << 20);

/// The name sent to TLS, which wants one. Identity rests on the certificate's URI alone.
const SERVER_NAME: &str = "tradewind.invalid";

/// Why an endpoint cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another process has the port.
    #[error("{0}: the port is in use")]
    InUse(SocketAddr),
    /// The operating system refuses for another reason.
    #[error("cannot listen on {addr}: {source}")]
    Io {
        /// The address asked for.
        addr: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// The TLS library lacks what QUIC needs.
    #[error("QUIC cannot be set up: {0}")]
    Setup(String),
}

impl BindError {
    pub(crate) fn from_io(addr: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(addr),
            _ => Self::Io { addr, source },
        }
    }
}

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name has no usable address.
    #[error("cannot resolve {addr}: {problem}")]
    Resolve {
        /// What was to be dialled.
        addr: String,
        /// Why it names nothing.
        problem: String,
    },
    /// The one that answered is not the one that was meant.
    #[error("{addr} is {found}, not {expected}")]
    WrongPeer {
        /// What was dialled.
        addr: String,
        /// Who was meant.
        expected: Expect,
        /// Who answered.
        found: Peer,
    },
    /// Nobody answered in time.
    #[error("{addr} did not answer within {after:?}")]
    TimedOut {
        /// What was dialled.
        addr: String,
        /// How long was waited.
        after: Duration,
    },
    /// The handshake failed or was refused.
    #[error("cannot connect to {addr}: {reason}")]
    Handshake {
        /// What was dialled.
        addr: String,
        /// Why it failed.
        reason: ConnLost,
    },
    /// This endpoint is closed.
    #[error("the endpoint is closed")]
    Closed,
}

/// A QUIC endpoint: one UDP port. Clones share it.
#[derive(Clone, Debug)]
pub struct Mesh {
    endpoint: Endpoint,
    tls: Arc<MeshTls>,
    options: Arc<MeshOptions>,
    accepted: Arc<Mutex<mpsc::Receiver<MeshConn>>>,
}

impl Mesh {
    /// Listens on `listen` (UDP; port 0 takes any). Must be called within a Tokio runtime, which then drives the
    /// endpoint.
    pub fn bind(listen: SocketAddr, tls: Arc<MeshTls>, options: MeshOptions) -> Result<Self, BindError> {
        let socket = udp_socket(listen).map_err(|e| BindError::from_io(listen, e))?;
        let socket = TokioRuntime.wrap_udp_socket(socket);
        let socket = socket.map_err(|e| BindError::from_io(listen, e))?;
        Self::over(socket, endpoint_config(&options)?, listen, tls, options)
    }

    /// As [`Self::bind`], but on `datagrams` instead of a UDP socket, and with the random numbers of QUIC (not those of
    /// TLS) drawn from `seed`: for simulated networks.
    pub fn on(
        datagrams: Arc<dyn Datagrams>,
        seed: [u8; 32],
        tls: Arc<MeshTls>,
        options: MeshOptions,
    ) -> Result<Self, BindError> {
        let listen = datagrams.local_addr();
        let mut config = endpoint_config(&options)?;
        config.rng_seed(Some(seed));
        Self::over(Arc::new(Adapter(datagrams)), config, listen, tls, options)
    }

    fn over(
        socket: Arc<dyn AsyncUdpSocket>,
        config: EndpointConfig,
        listen: SocketAddr,
        tls: Arc<MeshTls>,
        options: MeshOptions,
    ) -> Result<Self, BindError> {
        let server = Some(server_config(&tls, &options));
        let endpoint = Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime))
            .map_err(|e| BindError::from_io(listen, e))?;
        let options = Arc::new(options);
        let (queue, accepted) = mpsc::channel(ACCEPT_QUEUE);
        tokio::spawn(accept_loop(endpoint.clone(), options.clone(), queue));
        Ok(Self {
            endpoint,
            tls,
            options,
            accepted: Arc::new(Mutex::new(accepted)),
        })
    }

    /// The address listened on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The cluster and node that this endpoint speaks for.
    pub fn identity(&self) -> (&str, i32) {
        self.tls.identity()
    }

    /// The next verified connection; `None` once the endpoint is closed. Cancel-safe. Several callers share the
    /// connections among them.
    pub async fn accept(&self) -> Option<MeshConn> {
        self.accepted.lock().await.recv().await
    }

    /// Dials `addr` (`host:port`) and checks that `expect` answers. Each address of the name is tried in turn.
    pub async fn connect(&self, addr: &str, expect: &Expect) -> Result<MeshConn, ConnectError> {
        self.connect_with(addr, expect, &self.options.transport).await
    }

    /// As [`Self::connect`], with settings for this link.
    pub async fn connect_with(
        &self,
        addr: &str,
        expect: &Expect,
        transport: &TransportOptions,
    ) -> Result<MeshConn, ConnectError> {
        let mut config = ClientConfig::new(self.tls.client());
        config.transport_config(transport.to_quinn());
        let mut last = None;
        for candidate in self.resolve(addr).await? {
            match self.dial(addr, candidate, expect, config.clone()).await {
                Ok(conn) => return Ok(conn),
                Err(ConnectError::Closed) => return Err(ConnectError::Closed),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| ConnectError::Resolve {
            addr: addr.to_owned(),
            problem: "it has no address that this endpoint can reach".to_owned(),
        }))
    }

    /// Closes every connection and stops listening. Waits until the peers have been told, or a moment at most.
    pub async fn close(&self) {
        self.endpoint
            .close(VarInt::from_u32(0), b"the daemon is stopping");
        let _ = timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }

    async fn resolve(&self, addr: &str) -> Result<Vec<SocketAddr>, ConnectError> {
        let unresolved = |problem: String| ConnectError::Resolve {
            addr: addr.to_owned(),
            problem,
        };
        let listens_on_v6 = self.endpoint.local_addr().is_ok_and(|local| local.is_ipv6());
        let found = timeout(self.options.handshake_timeout, tokio::net::lookup_host(addr))
            .await
            .map_err(|_| unresolved("the name server does not answer".to_owned()))?
            .map_err(|e| unresolved(e.to_string()))?;
        Ok(found
            .filter(|candidate| candidate.is_ipv4() || listens_on_v6)
            .collect())
    }

    async fn dial(
        &self,
        addr: &str,
        candidate: SocketAddr,
        expect: &Expect,
        config: ClientConfig,
    ) -> Result<MeshConn, ConnectError> {
        let after = self.options.handshake_timeout;
        let failed = |reason| ConnectError::Handshake {
            addr: addr.to_owned(),
            reason,
        };
        let connecting = self
            .endpoint
            .connect_with(config, candidate, SERVER_NAME)
            .map_err(|error| match error {
                quinn::ConnectError::EndpointStopping => ConnectError::Closed,
                other => failed(ConnLost::Failed(other.to_string())),
            })?;
        let handshake = async {
            let connection = connecting.await.map_err(|e| failed(ConnLost::from_quinn(&e)))?;
            let found = verified_peer(&connection).map_err(failed)?;
            if !expect.admits(&found) {
                connection.close(VarInt::from_u32(0), b"not the peer that was meant");
                return Err(ConnectError::WrongPeer {
                    addr: addr.to_owned(),
                    expected: expect.clone(),
                    found,
                });
            }
            await_greeting(&connection).await.map_err(failed)?;
            Ok(MeshConn::new(connection, found))
        };
        timeout(after, handshake).await.unwrap_or_else(|_| {
            Err(ConnectError::TimedOut {
                addr: addr.to_owned(),
                after,
            })
        })
    }
}

/// Takes incoming connections until the endpoint is closed or its last handle is dropped.
async fn accept_loop(endpoint: Endpoint, options: Arc<MeshOptions>, queue: mpsc::Sender<MeshConn>) {
    let places = Arc::new(Semaphore::new(options.max_handshakes));
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = queue.closed() => return,
        };
        let Some(incoming) = incoming else { return };
        if endpoint.open_connections() >= options.max_connections {
            incoming.refuse();
            continue;
        }
        let crowded = places.available_permits() <= options.max_handshakes / 2;
        if crowded && incoming.may_retry() && !incoming.remote_address_validated() {
            // `may_retry` was asked, so this sends the retry.
            let _ = incoming.retry();
            continue;
        }
        let Ok(place) = places.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let (queue, limit) = (queue.clone(), options.handshake_timeout);
        tokio::spawn(async move {
            let remote = incoming.remote_address();
            match timeout(limit, welcome(incoming)).await {
                // A full queue holds the place, and so the next handshakes: that is the bound.
                Ok(Ok(conn)) => drop(queue.send(conn).await),
                Ok(Err(reason)) => tracing::debug!(%remote, %reason, "mesh handshake failed"),
                Err(_) => tracing::debug!(%remote, "mesh handshake took too long"),
            }
            drop(place);
        });
    }
}

/// The acceptor's side of a handshake.
async fn welcome(incoming: Incoming) -> Result<MeshConn, ConnLost> {
    let lost = |e: quinn::ConnectionError| ConnLost::from_quinn(&e);
    let connection = incoming.await.map_err(lost)?;
    let peer = verified_peer(&connection)?;
    let mut greeting = connection.open_uni().await.map_err(lost)?;
    greeting
        .write_all(GREETING)
        .await
        .map_err(|e| ConnLost::Failed(e.to_string()))?;
    let _ = greeting.finish();
    Ok(MeshConn::new(connection, peer))
}

/// The dialler's side: the greeting means that our certificate was accepted.
async fn await_greeting(connection: &Connection) -> Result<(), ConnLost> {
    let mut stream = connection
        .accept_uni()
        .await
        .map_err(|e| ConnLost::from_quinn(&e))?;
    match stream.read_to_end(GREETING.len()).await {
        Ok(greeting) if greeting == GREETING => Ok(()),
        Ok(_) => Err(ConnLost::Failed("the peer greets in an unknown way".to_owned())),
        Err(error) => Err(ConnLost::Failed(error.to_string())),
    }
}

/// The peer named by the certificate that the handshake has verified.
fn verified_peer(connection: &Connection) -> Result<Peer, ConnLost> {
    let chain = connection
        .peer_identity()
        .and_then(|identity: Box<dyn Any>| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    let cert = chain.as_deref().and_then(|chain| chain.first());
    let cert = cert.ok_or_else(|| ConnLost::Certificate("the peer presented none".to_owned()))?;
    peer_of(cert).map_err(|e| ConnLost::Certificate(e.to_string()))
}

fn udp_socket(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(listen),
        socket2::Type::DGRAM,
        Some(socket2::Protocol::UDP),
    )?;
    if listen.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Larger buffers ride out bursts; the kernel caps them silently.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

fn endpoint_config(options: &MeshOptions) -> Result<EndpointConfig, BindError> {
    let key = ResetKey::new(options.reset_key)
        .ok_or_else(|| BindError::Setup("the TLS library offers no HMAC".to_owned()))?;
    let cid_key = key.cid_key();
    let mut config = EndpointConfig::new(key);
    config
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(cid_key)))
        .max_udp_payload_size(options.transport.max_datagram.max(1_200))
        .map_err(|e| BindError::Setup(e.to_string()))?;
    Ok(config)
}

fn server_config(tls: &MeshTls, options: &MeshOptions) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(tls.server());
    config
        .transport_config(options.transport.to_quinn())
        .max_incoming(options.max_handshakes.saturating_mul(2))
        .incoming_buffer_size(INCOMING_BUFFER.0)
        .incoming_buffer_size_total(INCOMING_BUFFER.1)
        .migration(false);
    config
}
