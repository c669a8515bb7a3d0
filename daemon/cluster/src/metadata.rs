//! The handle to this daemon's part of the metadata: reads the image, proposes changes, registers.
//!
//! It hides Raft. Everything of Raft, sessions and heartbeats runs on a one-thread runtime of its own, so that work on
//! records cannot starve it; this handle only passes messages there and waits for the image.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout_at;
use tradewind_wire::clock::{Clock, Rng};
use tradewind_wire::ids::{ClusterId, NodeId};
use tradewind_wire::mesh::Conversation;

use crate::command::{Command, MetaError, Outcome, Registration};
use crate::image::{DaemonState, Image};
use crate::link::{Link, Peers};
use crate::members::{MemberChange, MembersError};
use crate::quorum::Quorum;

/// This daemon's part of the cluster's metadata. Cheap to clone.
#[derive(Clone)]
pub struct Metadata {
    node: NodeId,
    asks: mpsc::Sender<Ask>,
    image: watch::Receiver<Arc<Image>>,
    standing: watch::Receiver<Standing>,
}

impl Metadata {
    /// Opens the metadata of `options.dir` and starts its thread. `peers` is called on that thread within its runtime,
    /// so that sockets which it opens are driven there. Returns when the local image is readable; whether the cluster
    /// is reachable shows in [`Self::standing`].
    pub async fn start(
        options: MetadataOptions,
        peers: impl FnOnce() -> Arc<dyn Peers> + Send + 'static,
    ) -> Result<Self, StartError> {
        let node = options.node;
        let handles = crate::node::start(options, peers).await?;
        Ok(Self {
            node,
            asks: handles.asks,
            image: handles.images,
            standing: handles.standing,
        })
    }

    /// This daemon's node id.
    pub fn node_id(&self) -> NodeId {
        self.node
    }

    /// The image after the last entry applied here.
    pub fn image(&self) -> Arc<Image> {
        self.image.borrow().clone()
    }

    /// Tells of every new image; only the newest is kept.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Image>> {
        self.image.clone()
    }

    /// The controller (the Raft leader) as last heard.
    pub fn controller(&self) -> Option<NodeId> {
        self.standing.borrow().controller
    }

    /// Tells of every change of this daemon's standing.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Whether this daemon has applied what the controller had committed when it was last heard, a session ago at most.
    pub fn is_caught_up(&self) -> bool {
        self.standing.borrow().caught_up
    }

    /// Proposes a change. The answer comes after *this* daemon has applied it, so that its image shows it. Retries
    /// across changes of controller until `timeout`; see [`ProposeError`] for what is known of a change that failed.
    pub async fn propose(&self, command: Command, timeout: Duration) -> Result<Outcome, ProposeError> {
        let deadline = tokio::time::Instant::now() + timeout;
        let (reply, answer) = oneshot::channel();
        let ask = Ask::Propose {
            command: Box::new(command),
            deadline,
            reply,
        };
        self.ask(ask).await?;
        match timeout_at(deadline, answer).await {
            Err(_) => Err(ProposeError::Timeout),
            Ok(Err(_)) => Err(ProposeError::Stopped),
            Ok(Ok(result)) => result,
        }
    }

    /// Registers this daemon, once its logs are recovered: retries until it is accepted or definitely refused. From
    /// then on it sends heartbeats by itself. [`Registration::replaces`] and [`Registration::own`] are filled in from what this data directory
    /// remembers. Returns the daemon epoch.
    pub async fn register(&self, registration: Registration) -> Result<i64, RegisterError> {
        let (reply, answer) = oneshot::channel();
        let registration = Box::new(registration);
        self.ask(Ask::Register { registration, reply })
            .await
            .map_err(|_| RegisterError::Stopped)?;
        answer.await.map_err(|_| RegisterError::Stopped)?
    }

    /// The Raft group as this daemon sees it.
    pub(crate) async fn quorum(&self) -> Result<Quorum, ProposeError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Quorum { reply }).await?;
        answer.await.map_err(|_| ProposeError::Stopped)
    }

    /// Changes the members of the Raft group, if this daemon is the controller.
    pub(crate) async fn change_members(&self, change: MemberChange) -> Result<(), MembersError> {
        let stopped = |_| MembersError::Failed("it is stopping".to_owned());
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Members { change, reply }).await.map_err(stopped)?;
        answer
            .await
            .map_err(|_| MembersError::Failed("it is stopping".to_owned()))?
    }

    /// Takes over an accepted stream of the conversation [`Conversation::Raft`] or [`Conversation::Control`] from
    /// daemon `node` of this cluster, after hello and welcome. A stream of any other conversation is dropped.
    pub async fn serve(&self, conversation: Conversation, node: NodeId, link: Link) {
        let _ = self
            .ask(Ask::Serve {
                conversation,
                node,
                link,
            })
            .await;
    }

    /// Hands this daemon's partitions over (waits until another leads them, or `timeout`), then stops Raft.
    pub async fn stop(&self, timeout: Duration) {
        self.end(true, timeout).await;
    }

    /// Stops Raft without a word to anyone, as a killed process does, and waits until its files are closed.
    pub async fn abandon(&self) {
        self.end(false, Duration::ZERO).await;
    }

    /// Writes a snapshot and forgets the log before it, as thousands of entries would bring about.
    #[cfg(test)]
    pub(crate) async fn compact(&self) {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Compact { reply }).await.unwrap();
        answer.await.unwrap();
    }

    async fn end(&self, hand_over: bool, timeout: Duration) {
        let (reply, answer) = oneshot::channel();
        let ask = Ask::Stop {
            hand_over,
            timeout,
            reply,
        };
        if self.ask(ask).await.is_ok() {
            let _ = answer.await;
        }
    }

    async fn ask(&self, ask: Ask) -> Result<(), ProposeError> {
        self.asks.send(ask).await.map_err(|_| ProposeError::Stopped)
    }
}

/// How this daemon stands in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// The controller as last heard.
    pub controller: Option<NodeId>,
    /// Its term.
    pub term: u64,
    /// Whether this daemon is the controller.
    pub is_controller: bool,
    /// See [`Metadata::is_caught_up`].
    pub caught_up: bool,
    /// Whether the controller answered this daemon's heartbeats within the last two sessions. While it did not, this
    /// daemon may have been replaced without knowing it, and refuses writes that no other daemon has to confirm.
    pub in_touch: bool,
    /// This daemon's state as the image has it; `None` before it has registered.
    pub state: Option<DaemonState>,
    /// This daemon's epoch; `None` before it has registered.
    pub daemon_epoch: Option<i64>,
    /// Why Raft ended for good, for a person to read: the process must end.
    pub fatal: Option<String>,
}

/// How this daemon's metadata is started.
pub struct MetadataOptions {
    /// This daemon.
    pub node: NodeId,
    /// Its cluster's name.
    pub cluster_name: String,
    /// The cluster's id as the data directory has it; `None` on a blank one. The caller stores [`Image::cluster_id`]
    /// there as soon as an image has it.
    pub cluster_id: Option<ClusterId>,
    /// The data directory's id.
    pub storage_id: [u8; 16],
    /// Where `meta.redb` and the snapshots live.
    pub dir: PathBuf,
    /// Every daemon of the cluster's configuration, this one included, with its mesh address `host:port`.
    pub seeds: BTreeMap<NodeId, String>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers.
    pub rng: Arc<dyn Rng>,
    /// Intervals and timeouts.
    pub timing: Timing,
}

/// Kafka's `leader.imbalance.check.interval.seconds`, which is 300 there: what it does costs next to nothing here.
pub const RESTORE_LEADERS: Duration = Duration::from_secs(5);

/// Intervals and timeouts of Raft and of the sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Raft's heartbeat, and the daemons' heartbeat to the controller.
    pub heartbeat: Duration,
    /// The least and greatest election timeout.
    pub election: (Duration, Duration),
    /// How long a daemon may be silent before it is fenced.
    pub session: Duration,
    /// How often preferred leaders that do not lead are looked for and elected; none: only when somebody asks for it.
    pub restore_leaders: Option<Duration>,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election: (Duration::from_millis(300), Duration::from_millis(600)),
            session: Duration::from_secs(1),
            restore_leaders: Some(RESTORE_LEADERS),
        }
    }
}

/// Why metadata could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A file of the metadata directory cannot be read or written.
    #[error("metadata in {dir}: {reason}")]
    Storage {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The metadata belongs to another cluster or node than the configuration says.
    #[error("metadata in {dir} belongs to {found}, not to {wanted}")]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// The options contradict themselves.
    #[error("{0}")]
    Options(String),
    /// The operating system gives no thread.
    #[error("cannot start the metadata thread: {0}")]
    Thread(std::io::Error),
}

/// Why a proposal has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// It was refused; nothing changed.
    #[error(transparent)]
    Refused(#[from] MetaError),
    /// It may or may not have been applied.
    #[error("no answer from the controller in time; the change may still happen")]
    Timeout,
    /// No controller was found in time; it was not applied.
    #[error("no controller is known")]
    NoController,
    /// This daemon's metadata is stopped.
    #[error("the metadata of this daemon is stopped")]
    Stopped,
}

/// Why this daemon cannot register.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The cluster refuses it for good.
    #[error("registration refused: {0}")]
    Refused(MetaError),
    /// What must outlive this process cannot be written down.
    #[error("cannot write down the registration: {0}")]
    Storage(String),
    /// This daemon's metadata is stopped.
    #[error("the metadata of this daemon is stopped")]
    Stopped,
}

/// What the handle asks of the metadata thread.
pub(crate) enum Ask {
    Propose {
        command: Box<Command>,
        deadline: tokio::time::Instant,
        reply: oneshot::Sender<Result<Outcome, ProposeError>>,
    },
    Register {
        registration: Box<Registration>,
        reply: oneshot::Sender<Result<i64, RegisterError>>,
    },
    Serve {
        conversation: Conversation,
        node: NodeId,
        link: Link,
    },
    Quorum {
        reply: oneshot::Sender<Quorum>,
    },
    Members {
        change: MemberChange,
        reply: oneshot::Sender<Result<(), MembersError>>,
    },
    #[cfg(test)]
    Compact {
        reply: oneshot::Sender<()>,
    },
    Stop {
        hand_over: bool,
        timeout: Duration,
        reply: oneshot::Sender<()>,
    },
}
