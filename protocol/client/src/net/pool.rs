//! The connections of a client, by address and lane. One dial at a time per place; a failed connection is replaced by the
//! next caller.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tradewind_wire::ids::NodeId;

use super::connection::Connection;
use super::dial::Dialer;
use crate::config::ClientConfig;
use crate::error::ClientError;

/// Kinds of requests that must not wait for each other: brokers answer a connection's requests in order, and some
/// answers take long on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lane {
    /// Short questions.
    Short,
    /// Produce.
    Produce,
    /// Fetches, which wait for records.
    Fetch,
    /// Joining and syncing of groups, which wait for other members.
    Group,
    /// A connection of the caller's own.
    Own(u32),
}

/// The connections of a client.
#[derive(Debug)]
pub(crate) struct Pool {
    dialer: Dialer,
    client_id: String,
    timeout: Duration,
    places: Mutex<HashMap<(String, Lane), Arc<Place>>>,
}

/// A place for one connection; its lock is held while one is being made.
type Place = tokio::sync::Mutex<Option<Arc<Connection>>>;

impl Pool {
    pub(crate) fn new(config: &ClientConfig) -> Self {
        Self {
            dialer: Dialer::new(config.transport.clone(), config.connect_timeout, config.max_frame),
            client_id: config.client_id.clone(),
            timeout: config.connect_timeout,
            places: Mutex::new(HashMap::new()),
        }
    }

    /// A live connection to `addr`, made if there is none.
    pub(crate) async fn connection(
        &self,
        addr: &str,
        node: Option<NodeId>,
        lane: Lane,
    ) -> Result<Arc<Connection>, ClientError> {
        let place = self
            .places
            .lock()
            .entry((addr.to_owned(), lane))
            .or_default()
            .clone();
        let mut kept = place.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        *kept = None;
        let made = Connection::open(&self.dialer, addr, node, &self.client_id, self.timeout).await?;
        Ok(kept.insert(made).clone())
    }

    /// Ends the connections of a lane, once nobody waits for an answer on them.
    pub(crate) fn release(&self, lane: Lane) {
        self.places.lock().retain(|(_, of), _| *of != lane);
    }

    /// Forgets addresses that no broker has any more.
    pub(crate) fn retain(&self, is_current: impl Fn(&str) -> bool) {
        self.places.lock().retain(|(addr, _), _| is_current(addr));
    }
}
