//! Accepts Kafka clients over TCP: as many as there may be, each in a task of its own.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
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
    /// How many there are of each address.
    pub(crate) per_ip: PerIp,
    /// What bounds each of them.
    pub(crate) limits: Limits,
    /// The longest request.
    pub(crate) max_request_bytes: usize,
    /// Every connection's task.
    pub(crate) tasks: TaskTracker,
    /// Ends accepting, and connections once they have answered.
    pub(crate) drain: CancellationToken,
}

/// Counts connections by the address that they come from (Kafka's `max.connections.per.ip`).
#[derive(Debug, Clone)]
pub(crate) struct PerIp {
    limit: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl PerIp {
    /// At most `limit` of one address.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            open: Arc::default(),
        }
    }

    /// A place for one more of `address`, unless there are too many of it.
    fn enter(&self, address: IpAddr) -> Option<OfIp> {
        // One that comes as IPv4 within IPv6 is the same client.
        let address = address.to_canonical();
        let mut open = self.open.lock();
        let count = open.entry(address).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        drop(open);
        Some(OfIp {
            all: self.clone(),
            address,
        })
    }
}

/// One connection of an address, for as long as it lives.
struct OfIp {
    all: PerIp,
    address: IpAddr,
}

impl Drop for OfIp {
    fn drop(&mut self) {
        let mut open = self.all.open.lock();
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
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
        let place = Arc::clone(&room.places).try_acquire_owned().ok();
        let (Some(place), Some(of_ip)) = (place, room.per_ip.enter(peer.ip())) else {
            metrics::connection_refused();
            continue;
        };
        let (room_of, open, handler) = (room.clone(), metrics::OpenConnection::new(&name), handler(peer));
        room.tasks.spawn(async move {
            serve(stream, room_of, handler).await;
            drop((open, place, of_ip));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let per_ip = PerIp::new(2);
        let (one, other) = ("10.0.0.1".parse().unwrap(), "::1".parse().unwrap());
        let first = per_ip.enter(one);
        let mapped = per_ip.enter("::ffff:10.0.0.1".parse().unwrap());
        assert!(first.is_some() && mapped.is_some());
        assert!(per_ip.enter(one).is_none(), "the same address in other words");
        assert!(per_ip.enter(other).is_some());
        drop(mapped);
        assert!(per_ip.enter(one).is_some());
        drop(first);
        assert!(
            per_ip.open.lock().is_empty(),
            "nothing is kept of addresses that are gone"
        );
    }
}
