//! TCP as Kafka clients and the HTTP port use it: listening, and dialling with a deadline.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

pub use crate::mesh::BindError;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1_024;

/// Listens on `addr`. A port that a dead process left behind can be taken at once (SO_REUSEADDR); one that a living
/// process has cannot. Must be called within a Tokio runtime.
pub fn bind(addr: SocketAddr) -> Result<TcpListener, BindError> {
    listen(addr).map_err(|e| BindError::from_io(addr, e))
}

/// Connects to `addr` (`host:port`) within `limit`, trying each address of the name, with Nagle's algorithm off.
pub async fn connect(addr: &str, limit: Duration) -> io::Result<TcpStream> {
    let stream = timeout(limit, TcpStream::connect(addr))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}")))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(addr),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
