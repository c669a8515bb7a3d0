//! [`Client`]: requests to the right broker, with deadlines and retries.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::time::{sleep, timeout};
use tradewind_wire::clock::{Clock, Rng};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::NodeId;
use tradewind_wire::messages::metadata::MetadataRequestTopic;
use tradewind_wire::messages::{FindCoordinatorRequest, MetadataRequest, Request};

use crate::backoff::backoff;
use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::metadata::{ClusterMetadata, TopicMetadata};
use crate::net::connection::{Connection, Reply};
use crate::net::pool::{Lane, Pool};

/// Groups whose coordinator is remembered; beyond that all are forgotten and found again.
const MAX_COORDINATORS: usize = 10_000;

/// Every version: a request that looks the same in all of them.
pub(crate) const ANY_VERSION: i16 = i16::MAX;

/// A client of one cluster. Clones share connections and metadata; nothing is opened before the first call.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClientConfig,
    pool: Pool,
    metadata: RwLock<Arc<ClusterMetadata>>,
    /// One refresh at a time; what came of the last ones.
    refreshing: tokio::sync::Mutex<Refreshes>,
    wanted: Mutex<Wanted>,
    coordinators: Mutex<HashMap<String, NodeId>>,
    next_own_lane: AtomicU32,
}

/// The last refresh of each kind: the calls that it served, by ticket, and its outcome. Callers that were waiting when it
/// began share it, so that a thousand tasks that lose their leader ask once.
#[derive(Default)]
struct Refreshes {
    named: Refresh,
    whole: Refresh,
}

#[derive(Default)]
struct Refresh {
    /// Calls with a lower ticket are served.
    served_below: u64,
    failure: Option<ClientError>,
}

/// What waits for a refresh.
#[derive(Default)]
struct Wanted {
    /// The ticket of the next call.
    next_ticket: u64,
    /// Topics to ask about, each with the ticket of the last call that named it.
    names: BTreeMap<String, u64>,
}

/// Where a request goes.
#[derive(Debug, Clone)]
struct Address {
    addr: String,
    /// Who must answer, if that is known.
    node: Option<NodeId>,
}

impl Client {
    /// A client with this configuration. Connects when first used.
    pub fn new(config: ClientConfig) -> Self {
        Self {
            inner: Arc::new(Inner {
                pool: Pool::new(&config),
                config,
                metadata: RwLock::new(Arc::default()),
                refreshing: tokio::sync::Mutex::default(),
                wanted: Mutex::default(),
                coordinators: Mutex::new(HashMap::new()),
                next_own_lane: AtomicU32::new(0),
            }),
        }
    }

    /// Sends one request to broker `node` and waits for its answer, in the highest version in common. No retries.
    pub async fn send<R: Request>(&self, node: NodeId, request: R) -> Result<R::Response, ClientError> {
        let limit = self.inner.config.request_timeout;
        self.send_built(node, Lane::Short, limit, ANY_VERSION, move |_| request)
            .await
    }

    /// Sends one request to whichever broker answers.
    pub async fn any<R: Request>(&self, request: &R) -> Result<R::Response, ClientError> {
        self.any_built::<_, R>(|_| request).await
    }

    /// What is known of the cluster now, without asking.
    pub fn cached(&self) -> Arc<ClusterMetadata> {
        self.inner.metadata.read().clone()
    }

    /// Asks the cluster for its brokers and these topics, and returns all that is known then.
    pub async fn metadata(&self, topics: &[&str]) -> Result<Arc<ClusterMetadata>, ClientError> {
        self.refresh(Some(topics)).await
    }

    /// Asks the cluster for its brokers and all topics.
    pub async fn metadata_of_all(&self) -> Result<Arc<ClusterMetadata>, ClientError> {
        self.refresh(None).await
    }

    /// What is known of `topic`, asked for if it is not known, unusable, or too old.
    pub async fn topic(&self, topic: &str) -> Result<TopicMetadata, ClientError> {
        let now = self.clock().monotonic();
        let max_age = self.inner.config.metadata_max_age;
        if let Some(known) = self.cached().topics.get(topic)
            && known.error.is_none()
            && now.saturating_sub(known.learnt_at) <= max_age
        {
            return Ok(known.clone());
        }
        let metadata = self.refresh(Some(&[topic])).await?;
        match metadata.topics.get(topic) {
            Some(TopicMetadata {
                error: Some(code), ..
            }) => Err(ClientError::broker(format!("topic {topic}"), *code, None)),
            Some(known) => Ok(known.clone()),
            None => Err(unknown(topic.to_owned())),
        }
    }

    /// The leader of a partition and its epoch, as far as known; asked for if it is not known.
    pub async fn leader(&self, topic: &str, partition: i32) -> Result<(NodeId, i32), ClientError> {
        let known = self.topic(topic).await?;
        if let Some(leader) = leader_in(&known, partition) {
            return Ok(leader);
        }
        let metadata = self.refresh(Some(&[topic])).await?;
        match metadata.topics.get(topic) {
            Some(known) if !known.partitions.contains_key(&partition) => {
                Err(unknown(format!("{topic}-{partition}")))
            }
            Some(known) => leader_in(known, partition).ok_or_else(|| ClientError::NoLeader {
                topic: topic.to_owned(),
                partition,
            }),
            None => Err(unknown(topic.to_owned())),
        }
    }

    /// The coordinator of a consumer group, found if it is not known.
    pub async fn coordinator(&self, group: &str) -> Result<NodeId, ClientError> {
        if let Some(known) = self.inner.coordinators.lock().get(group) {
            return Ok(*known);
        }
        let found = self.retrying(|| self.find_coordinator(group)).await?;
        let mut known = self.inner.coordinators.lock();
        if known.len() >= MAX_COORDINATORS {
            known.clear();
        }
        known.insert(group.to_owned(), found);
        Ok(found)
    }

    /// How long one of several tries may take, so that a broker that hangs does not use up the time of the others.
    pub(crate) fn attempt_timeout(&self) -> Duration {
        let whole = self.inner.config.request_timeout;
        (whole / 3).max(Duration::from_secs(1)).min(whole)
    }

    /// The clock that this client was given.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.config.clock
    }

    /// The settings of this client.
    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    pub(crate) fn rng(&self) -> &dyn Rng {
        &*self.inner.config.rng
    }

    /// A lane that nobody else uses.
    pub(crate) fn own_lane(&self) -> Lane {
        Lane::Own(self.inner.next_own_lane.fetch_add(1, Ordering::Relaxed))
    }

    /// Ends the connections of a lane that is not used any more.
    pub(crate) fn release(&self, lane: Lane) {
        self.inner.pool.release(lane);
    }

    /// Sends the request that `build` makes for the version in common (at most `cap`), and waits up to `limit`.
    pub(crate) async fn send_built<R: Request>(
        &self,
        node: NodeId,
        lane: Lane,
        limit: Duration,
        cap: i16,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        let to = self.address_of(node).await?;
        self.exchange(&to, lane, limit, cap, build).await
    }

    /// Sends the request that `build` makes for the version in common to whichever broker answers.
    async fn any_built<Q, R: Request>(&self, build: impl Fn(i16) -> Q) -> Result<R::Response, ClientError>
    where
        Q: Borrow<R>,
    {
        let (limit, attempt) = (self.inner.config.request_timeout, self.attempt_timeout());
        let mut tried = Vec::new();
        let work = async {
            for to in self.candidates() {
                match self
                    .exchange::<Q, R>(&to, Lane::Short, attempt, ANY_VERSION, &build)
                    .await
                {
                    Ok(answer) => return Ok(answer),
                    Err(error) if error.is_retriable() => tried.push(error.to_string()),
                    Err(error) => return Err(error),
                }
            }
            Err(ClientError::NoBroker {
                tried: std::mem::take(&mut tried),
            })
        };
        timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err(timed_out::<R>("any broker", limit)))
    }

    /// A connection to broker `node`, and the version of `R` to use on it.
    pub(crate) async fn connection_to<R: Request>(
        &self,
        node: NodeId,
        lane: Lane,
        cap: i16,
    ) -> Result<(Arc<Connection>, i16), ClientError> {
        let to = self.address_of(node).await?;
        let connection = self.inner.pool.connection(&to.addr, to.node, lane).await?;
        let version = connection.version::<R>(cap)?;
        Ok((connection, version))
    }

    /// Makes sure that broker `node` offers `R` in version `from` or a later one.
    pub(crate) async fn require<R: Request>(&self, node: NodeId, from: i16) -> Result<(), ClientError> {
        let (connection, version) = self.connection_to::<R>(node, Lane::Short, ANY_VERSION).await?;
        if version < from {
            return Err(connection.unsupported::<R>());
        }
        Ok(())
    }

    /// Calls the coordinator of `group`; finds it anew, and tries again, when it has moved or is not ready. `code_of`
    /// reads the error that decides about that.
    pub(crate) async fn at_coordinator<R: Request>(
        &self,
        group: &str,
        lane: Lane,
        limit: Duration,
        build: impl Fn(i16) -> R,
        code_of: impl Fn(&R::Response) -> ErrorCode,
    ) -> Result<R::Response, ClientError> {
        let (build, code_of) = (&build, &code_of);
        self.retrying(move || async move {
            let node = self.coordinator(group).await?;
            let answer = self.send_built(node, lane, limit, ANY_VERSION, build).await;
            let moved = match &answer {
                Ok(answer) => match code_of(answer) {
                    code @ (ErrorCode::NotCoordinator
                    | ErrorCode::CoordinatorNotAvailable
                    | ErrorCode::CoordinatorLoadInProgress) => {
                        Some(ClientError::broker(format!("group {group}"), code, None))
                    }
                    _ => None,
                },
                Err(error) if error.is_retriable() => Some(error.clone()),
                Err(_) => None,
            };
            match moved {
                Some(error) => {
                    self.forget_coordinator(group);
                    Err(error)
                }
                None => answer,
            }
        })
        .await
    }

    /// Forgets who coordinates `group`.
    pub(crate) fn forget_coordinator(&self, group: &str) {
        self.inner.coordinators.lock().remove(group);
    }

    /// Repeats `attempt` while its error may pass, with growing waits, for at most the request timeout.
    pub(crate) async fn retrying<T, F, Fut>(&self, mut attempt: F) -> Result<T, ClientError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        let end = self.clock().monotonic() + self.inner.config.request_timeout;
        let mut attempts = 0;
        loop {
            let error = match attempt().await {
                Err(error) if error.is_retriable() => error,
                settled => return settled,
            };
            attempts += 1;
            let wait = backoff(attempts, self.rng());
            if self.clock().monotonic() + wait >= end {
                return Err(error);
            }
            sleep(wait).await;
        }
    }

    /// Asks for `topics` (`None`: all), or shares what another call is about to ask, and returns all that is known then.
    async fn refresh(&self, topics: Option<&[&str]>) -> Result<Arc<ClusterMetadata>, ClientError> {
        let inner = &self.inner;
        let ticket = {
            let mut wanted = inner.wanted.lock();
            let ticket = wanted.next_ticket;
            wanted.next_ticket += 1;
            let names = topics.unwrap_or_default().iter();
            wanted
                .names
                .extend(names.map(|name| ((*name).to_owned(), ticket)));
            ticket
        };
        let mut refreshes = inner.refreshing.lock().await;
        let refresh = if topics.is_some() {
            &mut refreshes.named
        } else {
            &mut refreshes.whole
        };
        if ticket >= refresh.served_below {
            let (served_below, names) = {
                let wanted = inner.wanted.lock();
                (
                    wanted.next_ticket,
                    wanted.names.keys().cloned().collect::<Vec<_>>(),
                )
            };
            let asked = self.ask_metadata(topics.is_some().then_some(&names)).await;
            if topics.is_some() {
                // Names that were wanted again meanwhile stay.
                inner
                    .wanted
                    .lock()
                    .names
                    .retain(|_, ticket| *ticket >= served_below);
            }
            *refresh = Refresh {
                served_below,
                failure: asked.err(),
            };
        }
        match &refresh.failure {
            Some(error) => Err(error.clone()),
            None => Ok(self.cached()),
        }
    }

    /// Asks for `topics` (`None`: all) and works the answer in.
    async fn ask_metadata(&self, topics: Option<&Vec<String>>) -> Result<(), ClientError> {
        let named = |name: &String| MetadataRequestTopic {
            name: Some(name.into()),
            ..Default::default()
        };
        let build = |version| MetadataRequest {
            topics: topics.map(|topics| topics.iter().map(named).collect()),
            // Before version 4 the broker alone decided.
            allow_auto_topic_creation: self.inner.config.auto_create_topics || version < 4,
            ..Default::default()
        };
        let answer = self.any_built::<MetadataRequest, MetadataRequest>(build).await?;
        // Topics that have moved elsewhere are described nonetheless: this client stays with the cluster that it was given.
        let error = ErrorCode::from_code(answer.error_code);
        if !matches!(error, ErrorCode::None | ErrorCode::RebootstrapRequired) {
            return Err(ClientError::broker("metadata", error, None));
        }
        let known = self.cached();
        let merged = known.merge(&answer, topics.is_none(), self.clock().monotonic());
        let changed = known.brokers != merged.brokers;
        *self.inner.metadata.write() = Arc::new(merged);
        if changed {
            let current: Vec<String> = self.candidates().into_iter().map(|known| known.addr).collect();
            self.inner
                .pool
                .retain(|addr| current.iter().any(|known| known == addr));
        }
        Ok(())
    }

    async fn find_coordinator(&self, group: &str) -> Result<NodeId, ClientError> {
        let limit = self.attempt_timeout();
        let mut last = ClientError::NoBroker { tried: Vec::new() };
        for to in self.candidates() {
            let build = |version: i16| {
                if version >= 4 {
                    FindCoordinatorRequest {
                        coordinator_keys: vec![group.into()],
                        ..Default::default()
                    }
                } else {
                    FindCoordinatorRequest {
                        key: group.into(),
                        ..Default::default()
                    }
                }
            };
            let answer = match self.exchange(&to, Lane::Short, limit, ANY_VERSION, build).await {
                Ok(answer) => answer,
                Err(error) if error.is_retriable() => {
                    last = error;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (code, node, message) = match answer.coordinators.into_iter().next() {
                Some(found) => (found.error_code, found.node_id, found.error_message),
                None => (answer.error_code, answer.node_id, answer.error_message),
            };
            return match ErrorCode::from_code(code) {
                ErrorCode::None => Ok(node),
                code => Err(ClientError::broker(
                    format!("coordinator of {group}"),
                    code,
                    message.as_deref(),
                )),
            };
        }
        Err(last)
    }

    /// One request and its answer, at one address. When the time is up the connection is given up too: whatever comes
    /// behind the missing answer would be late as well.
    async fn exchange<Q, R: Request>(
        &self,
        to: &Address,
        lane: Lane,
        limit: Duration,
        cap: i16,
        build: impl FnOnce(i16) -> Q,
    ) -> Result<R::Response, ClientError>
    where
        Q: Borrow<R>,
    {
        let mut used: Option<Arc<Connection>> = None;
        let work = async {
            let connection = self.inner.pool.connection(&to.addr, to.node, lane).await?;
            used = Some(connection.clone());
            let version = connection.version::<R>(cap)?;
            let request = build(version);
            let reply: Reply<R> = connection.begin(version, request.borrow()).await?;
            reply.wait().await
        };
        match timeout(limit, work).await {
            Ok(answered) => answered,
            Err(_) => {
                if let Some(connection) = used {
                    connection.close("an answer did not come in time");
                }
                Err(timed_out::<R>(&to.addr, limit))
            }
        }
    }

    /// The address of a broker, asked for if it is not known.
    async fn address_of(&self, node: NodeId) -> Result<Address, ClientError> {
        let known = |metadata: &ClusterMetadata| {
            metadata.brokers.get(&node).map(|broker| Address {
                addr: broker.addr(),
                node: Some(node),
            })
        };
        if let Some(found) = known(&self.cached()) {
            return Ok(found);
        }
        known(&*self.refresh(Some(&[])).await?).ok_or(ClientError::UnknownBroker(node))
    }

    /// Every address that may answer: known brokers first, from a random one on, then the bootstrap addresses.
    fn candidates(&self) -> Vec<Address> {
        let known = self.cached();
        let mut all: Vec<Address> = known
            .brokers
            .values()
            .map(|broker| Address {
                addr: broker.addr(),
                node: Some(broker.id),
            })
            .collect();
        if !all.is_empty() {
            let start = self.rng().next_u64() % all.len() as u64;
            all.rotate_left(start as usize);
        }
        for addr in &self.inner.config.bootstrap {
            if !all.iter().any(|known| known.addr == *addr) {
                all.push(Address {
                    addr: addr.clone(),
                    node: None,
                });
            }
        }
        all
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

fn leader_in(topic: &TopicMetadata, partition: i32) -> Option<(NodeId, i32)> {
    let known = topic.partitions.get(&partition)?;
    Some((known.leader?, known.leader_epoch))
}

fn unknown(what: String) -> ClientError {
    ClientError::broker(what, ErrorCode::UnknownTopicOrPartition, None)
}

fn timed_out<R: Request>(whom: &str, after: Duration) -> ClientError {
    ClientError::TimedOut {
        what: format!("{} at {whom}", R::KEY.name()),
        after,
    }
}

#[cfg(test)]
mod tests {
    use tradewind_wire::messages::ListGroupsRequest;

    use super::*;
    use crate::fetch::{FetchLimits, FetchPosition};

    fn send<T: Send>(_: T) {}

    /// Compiles only if what callers spawn can move between threads.
    #[expect(dead_code, reason = "only its types matter")]
    fn calls_can_be_spawned(client: &Client, position: &FetchPosition) {
        send(client.send(1, ListGroupsRequest::default()));
        send(client.any(&ListGroupsRequest::default()));
        send(client.leader("t", 0));
        send(client.fetch(position, FetchLimits::default()));
        send(client.coordinator("g"));
        send(client.offset_fetch("g", None));
        send(client.list_offset("t", 0, crate::OffsetSpec::Latest, crate::Isolation::default()));
        send(client.create_topic(&crate::admin::NewTopic::default()));
        send(client.list_groups());
        send(client.describe_groups(&["g"]));
        send(client.describe_configs(&[]));
    }

    /// The same for what holds state.
    #[expect(dead_code, reason = "only its types matter")]
    fn users_can_be_spawned(
        consumer: &mut crate::GroupConsumer,
        reader: &mut crate::PartitionReader,
        producer: &crate::Producer,
    ) {
        send(consumer.poll(Duration::ZERO));
        send(consumer.commit());
        send(reader.poll(Duration::ZERO));
        send(producer.send(crate::Record::default()));
        send(producer.flush());
    }
}
