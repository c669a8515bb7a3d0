//! Accepts Kafka clients over TCP: as many as there may be, each in a task of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tradewind_transport::kafka;

use crate::connection::{self, Handler, Limits};
use crate::metrics;

/// What the listeners of a daemon share.
#[derive(Clone)]
pub(crate) struct Room {
    /// Places for connections.
    pub(crate) places: Arc<Semaphore>,
    /// What bounds each of them.
    pub(crate) limits: Limits,
    /// The longest request.
    pub(crate) max_request_bytes: usize,
    /// Every connection's task.
    pub(crate) tasks: TaskTracker,
    /// Ends accepting, and connections once they have answered.
    pub(crate) drain: CancellationToken,
}

/// Accepts on `listener`, which is called `name`, until the drain. `handler` makes what answers one client.
pub(crate) async fn run<H: Handler + 'static>(
    listener: TcpListener,
    name: String,
    room: Room,
    handler: impl Fn(SocketAddr) -> H + Send,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = room.drain.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: those that are open must close first.
                tracing::warn!(%error, listener = name, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room.places).try_acquire_owned() else {
            metrics::connection_refused();
            continue;
        };
        let (room_of, open, handler) = (room.clone(), metrics::OpenConnection::new(&name), handler(peer));
        room.tasks.spawn(async move {
            serve(stream, room_of, handler).await;
            drop((open, place));
        });
    }
}

async fn serve(stream: TcpStream, room: Room, handler: impl Handler) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a client left at once");
        return;
    }
    let (reader, writer) = kafka::split(stream, room.max_request_bytes);
    connection::serve(reader, writer, handler, room.limits, room.drain).await;
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
