//! This daemon's metadata at work: everything behind the [`Metadata`](crate::metadata::Metadata) handle.
//!
//! One thread with a runtime of its own carries Raft, heartbeats and sessions. The tasks on it share [`Core`]; none of
//! them holds a lock over an await.

mod bootstrap;
mod members;
mod propose;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::task::AbortOnDropHandle;
use tradewind_wire::clock::Rng;
use tradewind_wire::ids::NodeId;
use tradewind_wire::mesh::Conversation;

use crate::control::{self, Beat, Lines};
use crate::controller::duties;
use crate::controller::sessions::Sessions;
use crate::image::Image;
use crate::link::{Link, Peers};
use crate::metadata::{Ask, MetadataOptions, Standing, StartError, Timing};
use crate::metrics;
use crate::raft::{self, AsyncChanges, Group, GroupOptions, NotTaken, Proposal, Status};
use crate::rpc::{self, Dialer};
use crate::threads;

/// How long one attempt to hand a proposal to the controller may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// How many proposals of this daemon may be under way; well below what the state machine remembers.
const PROPOSALS: usize = 64;

/// How long the stopping of Raft's blocking work may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// What the tasks of the metadata thread share.
pub(crate) struct Core {
    options: MetadataOptions,
    pub(crate) group: Group,
    pub(crate) dialer: Arc<Dialer>,
    lines: Lines,
    pub(crate) images: watch::Receiver<Arc<Image>>,
    standing: watch::Sender<Standing>,
    pub(crate) sessions: Mutex<Sessions>,
    heard: Mutex<HashMap<NodeId, Duration>>,
    contact: Mutex<Contact>,
    slots: Semaphore,
    /// Held while the members of the Raft group are changed.
    membership: tokio::sync::Mutex<()>,
}

/// What this daemon knows of its own standing besides the image.
#[derive(Default)]
struct Contact {
    /// This run's incarnation, once it registers.
    incarnation: Option<u128>,
    /// When the controller last answered.
    answered: Option<Duration>,
    /// What this daemon has to apply to be called caught up, and since when. A goal that is reached is followed by the
    /// controller's position of that moment: entries reach a follower up to a heartbeat late, which is no lag.
    goal: Option<(u64, Duration)>,
    /// Whether a goal was ever reached.
    reached: bool,
}

impl Contact {
    /// The controller answers at `now` that it has applied the log up to `applied`; this daemon up to `here`.
    fn answer(&mut self, now: Duration, applied: u64, here: u64) {
        self.answered = Some(now);
        match self.goal {
            Some((goal, _)) if here < goal => {}
            reached => {
                self.reached |= reached.is_some() || here >= applied;
                self.goal = Some((applied, now));
            }
        }
    }

    fn heard_within(&self, now: Duration, limit: Duration) -> bool {
        self.answered.is_some_and(|at| now <= at + limit)
    }

    fn caught_up(&self, now: Duration, session: Duration, here: u64) -> bool {
        let on_goal = self
            .goal
            .is_some_and(|(goal, since)| here >= goal || self.reached && now <= since + session);
        on_goal && self.heard_within(now, session)
    }
}

/// What the handle holds.
pub(crate) struct Handles {
    pub(crate) asks: mpsc::Sender<Ask>,
    pub(crate) images: watch::Receiver<Arc<Image>>,
    pub(crate) standing: watch::Receiver<Standing>,
}

/// How many asks may wait for the metadata thread.
const ASKS: usize = 1_024;

/// Starts the thread and waits until the local image is readable.
pub(crate) async fn start(
    options: MetadataOptions,
    peers: impl FnOnce() -> Arc<dyn Peers> + Send + 'static,
) -> Result<Handles, StartError> {
    check(&options)?;
    let (ready, is_ready) = oneshot::channel();
    let ended = || StartError::Options("the metadata thread ended".to_owned());
    if threads::are_simulated() {
        tokio::spawn(async move {
            if let Some(stopped) = run(options, peers, ready).await {
                let _ = stopped.send(());
            }
        });
        return is_ready.await.unwrap_or_else(|_| Err(ended()));
    }
    let spawned = std::thread::Builder::new()
        .name("metadata".to_owned())
        .spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = ready.send(Err(StartError::Thread(error)));
                    return;
                }
            };
            let stopped = runtime.block_on(run(options, peers, ready));
            runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
            // Only now are the files closed.
            if let Some(stopped) = stopped {
                let _ = stopped.send(());
            }
        });
    spawned.map_err(StartError::Thread)?;
    is_ready.await.unwrap_or_else(|_| Err(ended()))
}

fn check(options: &MetadataOptions) -> Result<(), StartError> {
    if options.node < 0 || !options.seeds.contains_key(&options.node) {
        return Err(StartError::Options(format!(
            "node {} is not in the list of the cluster's nodes",
            options.node
        )));
    }
    if options.cluster_id.is_some() && !raft::exists(&options.dir) {
        return Err(StartError::Storage {
            dir: options.dir.clone(),
            reason: "the metadata is gone, although the data directory has belonged to a cluster".to_owned(),
        });
    }
    Ok(())
}

async fn run(
    options: MetadataOptions,
    peers: impl FnOnce() -> Arc<dyn Peers>,
    ready: oneshot::Sender<Result<Handles, StartError>>,
) -> Option<oneshot::Sender<()>> {
    let (asks, asked) = mpsc::channel(ASKS);
    let core = match open(options, peers()).await {
        Ok(core) => Arc::new(core),
        Err(error) => {
            let _ = ready.send(Err(error));
            return None;
        }
    };
    core.refresh();
    core.warn_of_differences();
    let tasks = [
        spawn(duties::run(Arc::clone(&core))),
        spawn(beat(Arc::clone(&core))),
        spawn(watch_group(Arc::clone(&core))),
        spawn(watch_images(Arc::clone(&core))),
        spawn(bootstrap::run(Arc::clone(&core))),
    ];
    let _ = ready.send(Ok(Handles {
        asks,
        images: core.images.clone(),
        standing: core.standing.subscribe(),
    }));
    let stopped = serve_asks(&core, asked).await;
    drop(tasks);
    core.group.shutdown().await;
    stopped
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

async fn open(options: MetadataOptions, peers: Arc<dyn Peers>) -> Result<Core, StartError> {
    let (images_tx, images) = watch::channel(Arc::new(Image::default()));
    let (seeds, known) = (options.seeds.clone(), images.clone());
    let dialer = Arc::new(Dialer::new(peers, move |node| {
        let registered = known.borrow().nodes.get(&node).map(|daemon| daemon.mesh.clone());
        let mut addresses: Vec<String> = registered.into_iter().chain(seeds.get(&node).cloned()).collect();
        addresses.dedup();
        addresses
    }));
    let group_options = GroupOptions {
        node: options.node,
        cluster_name: options.cluster_name.clone(),
        storage_id: options.storage_id,
        dir: options.dir.clone(),
        timing: options.timing,
    };
    let group = Group::open(&group_options, Arc::clone(&dialer), images_tx).await?;
    if let (Some(wanted), Some(found)) = (options.cluster_id, images.borrow().cluster_id)
        && wanted != found
    {
        return Err(StartError::Foreign {
            dir: options.dir.clone(),
            found: format!("cluster {found}"),
            wanted: format!("cluster {wanted}"),
        });
    }
    let sessions = Sessions::new(&options.timing);
    Ok(Core {
        group,
        lines: Lines::new(Arc::clone(&dialer)),
        dialer,
        images,
        standing: watch::channel(Standing::default()).0,
        sessions: Mutex::new(sessions),
        heard: Mutex::default(),
        contact: Mutex::default(),
        slots: Semaphore::new(PROPOSALS),
        membership: tokio::sync::Mutex::default(),
        options,
    })
}

/// Serves the handle until it is dropped or asks to stop; whom to tell when all is closed.
async fn serve_asks(core: &Arc<Core>, mut asked: mpsc::Receiver<Ask>) -> Option<oneshot::Sender<()>> {
    // Others must be served while this daemon hands over: they may need its vote and its log for that.
    let (handed_over, mut is_handed_over) = mpsc::channel(1);
    loop {
        let ask = tokio::select! {
            ask = asked.recv() => ask?,
            reply = is_handed_over.recv() => return reply,
        };
        let core = Arc::clone(core);
        match ask {
            Ask::Propose {
                command,
                deadline,
                reply,
            } => {
                tokio::spawn(async move {
                    let _ = reply.send(core.propose(*command, deadline).await);
                });
            }
            Ask::Register { registration, reply } => {
                tokio::spawn(async move {
                    let _ = reply.send(core.register(*registration).await);
                });
            }
            Ask::Serve {
                conversation,
                node,
                link,
            } => {
                tokio::spawn(core.serve(conversation, node, link));
            }
            Ask::Quorum { reply } => {
                let _ = reply.send(core.group.quorum());
            }
            Ask::Members { change, reply } => {
                tokio::spawn(async move {
                    let _ = reply.send(core.change_members(change).await);
                });
            }
            #[cfg(test)]
            Ask::Compact { reply } => {
                tokio::spawn(async move {
                    core.group.compact().await;
                    let _ = reply.send(());
                });
            }
            Ask::Stop {
                hand_over: false,
                reply,
                ..
            } => return Some(reply),
            Ask::Stop { timeout, reply, .. } => {
                let handed_over = handed_over.clone();
                tokio::spawn(async move {
                    core.hand_over(timeout).await;
                    let _ = handed_over.send(reply).await;
                });
            }
        }
    }
}

impl Core {
    pub(crate) fn timing(&self) -> Timing {
        self.options.timing
    }

    pub(crate) fn seeds(&self) -> &BTreeMap<NodeId, String> {
        &self.options.seeds
    }

    pub(crate) fn rng(&self) -> &dyn Rng {
        &*self.options.rng
    }

    pub(crate) fn now(&self) -> Duration {
        self.options.clock.monotonic()
    }

    pub(crate) fn image(&self) -> Arc<Image> {
        self.images.borrow().clone()
    }

    /// When a daemon's Raft was last heard.
    pub(crate) fn last_heard(&self, node: NodeId) -> Option<Duration> {
        self.heard.lock().get(&node).copied()
    }

    /// How long ago a quorum answered this daemon as leader. A group of one is its own quorum.
    pub(crate) fn quorum_ack(status: &Status) -> Option<Duration> {
        if status.is_leader && status.voters.len() == 1 {
            return Some(Duration::ZERO);
        }
        status.quorum_ack
    }

    /// The configured list counts when the cluster is made; afterwards membership is what Raft says.
    fn warn_of_differences(&self) {
        let image = self.image();
        let configured: BTreeSet<NodeId> = self.options.seeds.keys().copied().collect();
        if !image.members.is_empty() && image.members != configured {
            tracing::warn!(
                members = ?image.members, ?configured,
                "the configured nodes differ from the cluster's members"
            );
        }
    }

    async fn serve(self: Arc<Self>, conversation: Conversation, node: NodeId, link: Link) {
        match conversation {
            Conversation::Raft => {
                let heard = || {
                    self.heard.lock().insert(node, self.now());
                };
                self.group.serve(link, heard).await;
            }
            Conversation::Control => {
                rpc::serve(link, |frame| Arc::clone(&self).answer(node, frame)).await;
            }
            other => tracing::warn!(?other, "not a conversation of the metadata"),
        }
    }

    /// Answers a daemon as its controller, or says that another one is.
    async fn answer(self: Arc<Self>, node: NodeId, frame: Bytes) -> Option<Bytes> {
        let reply = match raft::decode::<control::Request>(&frame).ok()? {
            control::Request::Beat(beat) if beat.node == node => self.beat_of(&beat),
            control::Request::Propose(proposal)
                if proposal.origin.is_some_and(|origin| origin.node == node) =>
            {
                self.take(*proposal).await
            }
            _ => return None,
        };
        raft::encode(&reply).map(Bytes::from).ok()
    }

    /// Counts a heartbeat, if this daemon is the controller and a quorum follows it.
    fn beat_of(&self, beat: &Beat) -> control::Reply {
        let status = self.group.status();
        let image = self.image();
        let followed = Self::quorum_ack(&status).is_some_and(|ago| ago <= self.timing().session);
        if !status.is_leader || !followed || image.term != status.reign {
            return control::Reply::NotController(
                status.leader.filter(|leader| *leader != self.options.node),
            );
        }
        let now = self.now();
        self.sessions
            .lock()
            .heartbeat(now, beat.node, beat.daemon_epoch, beat.applied);
        control::Reply::Heard { applied: image.index }
    }

    async fn take(&self, proposal: Proposal) -> control::Reply {
        match timeout(ATTEMPT_TIMEOUT, self.group.append(proposal)).await {
            Ok(Ok(index)) => control::Reply::Taken { index },
            Ok(Err(NotTaken::NotLeader(leader))) => control::Reply::NotController(leader),
            Ok(Err(NotTaken::Stopped)) => control::Reply::NotController(None),
            Err(_) => control::Reply::Unknown,
        }
    }

    /// Tells of this daemon's standing, if it has changed.
    fn refresh(&self) {
        let status = self.group.status();
        let image = self.image();
        let contact = self.contact.lock();
        let now = self.now();
        let session = self.timing().session;
        let own = image.nodes.get(&self.options.node);
        let own = own.filter(|daemon| Some(daemon.incarnation) == contact.incarnation);
        let standing = Standing {
            controller: status.leader,
            term: status.reign,
            is_controller: status.is_leader,
            caught_up: contact.caught_up(now, session, image.index),
            in_touch: contact.heard_within(now, session * 2),
            state: own.map(|daemon| daemon.state),
            daemon_epoch: own.map(|daemon| daemon.epoch),
            fatal: status.fatal,
        };
        drop(contact);
        metrics::standing(status.is_leader, image.index);
        self.standing.send_if_modified(|before| {
            let changed = *before != standing;
            *before = standing;
            changed
        });
    }
}

/// Sends heartbeats to whoever is the controller, the first as soon as this daemon has registered.
async fn beat(core: Arc<Core>) {
    let timing = core.timing();
    let mut standing = core.standing.subscribe();
    let mut told = -1;
    let mut ticks = tokio::time::interval(timing.heartbeat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hint = None;
    loop {
        let registered = standing.wait_for(|now| now.daemon_epoch.is_some_and(|epoch| epoch != told));
        tokio::select! {
            _ = ticks.tick() => {}
            _ = registered => {}
        }
        let beat = Beat {
            node: core.options.node,
            daemon_epoch: core.standing.borrow().daemon_epoch.unwrap_or(-1),
            applied: core.image().index,
        };
        told = beat.daemon_epoch;
        let leader = hint.take().or_else(|| core.group.status().leader);
        let reply = match leader {
            None => None,
            Some(leader) if leader == core.options.node => Some(core.beat_of(&beat)),
            Some(leader) => {
                let request = control::Request::Beat(beat);
                let asked = core.lines.ask(leader, &request, timing.session / 2);
                asked.await.ok()
            }
        };
        match reply {
            Some(control::Reply::Heard { applied }) => {
                let here = core.image().index;
                core.contact.lock().answer(core.now(), applied, here);
            }
            Some(control::Reply::NotController(other)) => hint = other,
            _ => {}
        }
        core.refresh();
    }
}

async fn watch_group(core: Arc<Core>) {
    let mut changes = core.group.changes();
    loop {
        changes.changed().await;
        core.refresh();
        if core.standing.borrow().fatal.is_some() {
            return;
        }
    }
}

async fn watch_images(core: Arc<Core>) {
    let mut images = core.images.clone();
    while images.changed().await.is_ok() {
        core.refresh();
    }
}
