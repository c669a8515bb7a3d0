//! This daemon's metadata at work: everything behind the [`Metadata`](crate::metadata::Metadata) handle.
//!
//! One thread with a runtime of its own carries Raft, heartbeats and sessions. The tasks on it share [`Core`]; none of
//! them holds a lock over an await.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use tradewind_wire::clock::Rng;
use tradewind_wire::ids::NodeId;
use tradewind_wire::mesh::Conversation;

use crate::command::{Command, MetaError, Outcome, Registration};
use crate::control::{self, Beat, Lines};
use crate::controller::duties;
use crate::controller::sessions::Sessions;
use crate::image::Image;
use crate::link::{Link, Peers};
use crate::metadata::{Ask, MetadataOptions, ProposeError, RegisterError, Standing, StartError, Timing};
use crate::metrics;
use crate::raft::{self, AsyncChanges, Group, GroupOptions, NotTaken, Origin, Proposal, Status};
use crate::rpc::{self, Dialer};

/// How long one attempt to hand a proposal to the controller may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait before another attempt, if nothing else happens.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// How many proposals of this daemon may be under way; well below what the state machine remembers.
const PROPOSALS: usize = 64;

/// How long a proposal waits for one of those slots and for its outcome when it names no deadline.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);

/// How many incarnations that may or may not have been registered are remembered.
const MAX_INCARNATIONS: usize = 64;

/// How long the stopping of Raft's blocking work may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// What the tasks of the metadata thread share.
pub(crate) struct Core {
    options: MetadataOptions,
    pub(crate) group: Group,
    pub(crate) dialer: Arc<Dialer>,
    lines: Lines,
    images: watch::Receiver<Arc<Image>>,
    standing: watch::Sender<Standing>,
    pub(crate) sessions: Mutex<Sessions>,
    heard: Mutex<HashMap<NodeId, Duration>>,
    contact: Mutex<Contact>,
    slots: Semaphore,
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
    is_ready
        .await
        .unwrap_or_else(|_| Err(StartError::Options("the metadata thread ended".to_owned())))
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
        spawn(bootstrap(Arc::clone(&core))),
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
    let sessions = Sessions::new(options.timing.heartbeat, options.timing.session);
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
        if status.is_leader && status.voters == 1 {
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

    /// Gets a command into the log and waits until it is applied here.
    async fn propose(&self, command: Command, deadline: Instant) -> Result<Outcome, ProposeError> {
        let Ok(Ok(_slot)) = timeout_at(deadline, self.slots.acquire()).await else {
            return Err(ProposeError::NoController);
        };
        let nonce = self.rng().next_u64();
        let proposal = Proposal {
            origin: Some(Origin {
                node: self.options.node,
                nonce,
            }),
            command,
        };
        let (_guard, mut answer) = self.group.wait(nonce);
        let mut sent = false;
        let forwarding = self.forward(&proposal, &mut sent);
        tokio::select! {
            biased;
            answered = &mut answer => return answered.map_err(|_| ProposeError::Stopped)?.map_err(Into::into),
            () = tokio::time::sleep_until(deadline) => {}
            stopped = forwarding => {
                if stopped {
                    return Err(ProposeError::Stopped);
                }
                if let Ok(answered) = timeout_at(deadline, answer).await {
                    return answered.map_err(|_| ProposeError::Stopped)?.map_err(Into::into);
                }
            }
        }
        if sent {
            Err(ProposeError::Timeout)
        } else {
            Err(ProposeError::NoController)
        }
    }

    /// Hands the proposal to the controller, whoever that is, until one has taken it. True if Raft has stopped here.
    async fn forward(&self, proposal: &Proposal, sent: &mut bool) -> bool {
        let mut hint = None;
        let mut changes = self.group.changes();
        loop {
            let status = self.group.status();
            let reply = match hint.take().or(status.leader) {
                Some(leader) if leader == self.options.node => {
                    *sent = true;
                    match timeout(ATTEMPT_TIMEOUT, self.group.append(proposal.clone())).await {
                        Ok(Err(NotTaken::Stopped)) => return true,
                        Ok(Ok(_)) => return false,
                        Ok(Err(NotTaken::NotLeader(leader))) => control::Reply::NotController(leader),
                        Err(_) => control::Reply::Unknown,
                    }
                }
                Some(leader) => {
                    *sent = true;
                    let request = control::Request::Propose(Box::new(proposal.clone()));
                    let asked = self.lines.ask(leader, &request, ATTEMPT_TIMEOUT).await;
                    asked.unwrap_or_else(|error| {
                        tracing::debug!(%error, "the controller did not take a proposal");
                        control::Reply::Unknown
                    })
                }
                None => control::Reply::NotController(None),
            };
            match reply {
                control::Reply::Taken { .. } => return false,
                control::Reply::NotController(Some(other)) if other != self.options.node => {
                    hint = Some(other);
                }
                _ => {}
            }
            let _ = timeout(RETRY_AFTER, changes.changed()).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Registers this run of the daemon; see [`crate::metadata::Metadata::register`].
    async fn register(&self, mut registration: Registration) -> Result<i64, RegisterError> {
        let storage = |error: std::io::Error| RegisterError::Storage(error.to_string());
        let mut own = self.group.incarnations().map_err(storage)?;
        let stays_duplicate_until = Instant::now() + self.timing().session * 3;
        // Remembered before it is proposed: if it is applied, but this process does not live to see it, the next run
        // must know that it was its own.
        own.insert(registration.incarnation);
        while own.len() > MAX_INCARNATIONS {
            own.pop_first();
        }
        self.group.set_incarnations(&own).map_err(storage)?;
        self.contact.lock().incarnation = Some(registration.incarnation);
        // The first thing in a new cluster's image is its name.
        let named = self
            .images
            .clone()
            .wait_for(|image| image.cluster_id.is_some())
            .await
            .is_ok();
        if !named {
            return Err(RegisterError::Stopped);
        }
        loop {
            let registered = self
                .image()
                .nodes
                .get(&registration.node)
                .map(|daemon| daemon.incarnation);
            registration.replaces = registered.filter(|incarnation| own.contains(incarnation));
            let command = Command::Register(registration.clone());
            match self.propose(command, Instant::now() + REGISTER_TIMEOUT).await {
                Ok(Outcome::Registered { epoch }) => {
                    let only = BTreeSet::from([registration.incarnation]);
                    self.group.set_incarnations(&only).map_err(storage)?;
                    self.refresh();
                    return Ok(epoch);
                }
                // A process that was killed a moment ago is live until it is fenced.
                Err(ProposeError::Refused(MetaError::DuplicateNode(_)))
                    if Instant::now() < stays_duplicate_until =>
                {
                    tokio::time::sleep(self.timing().heartbeat).await;
                }
                Err(ProposeError::Refused(error)) => return Err(RegisterError::Refused(error)),
                Err(ProposeError::Stopped) => return Err(RegisterError::Stopped),
                Ok(_) | Err(_) => tracing::info!("not registered yet: no controller answers"),
            }
        }
    }

    /// Announces a clean stop: when it is applied, others lead what this daemon led, as far as any can.
    async fn hand_over(&self, limit: Duration) {
        let Some(daemon_epoch) = self.standing.borrow().daemon_epoch else {
            return;
        };
        let command = Command::Stopping {
            node: self.options.node,
            daemon_epoch,
        };
        let proposed = self.propose(command, Instant::now() + limit);
        let mut standing = self.standing.subscribe();
        // When all daemons are being stopped, the last ones find nobody to hand over to.
        let alone = standing.wait_for(|standing| !standing.in_touch);
        tokio::select! {
            handed_over = proposed => if let Err(error) = handed_over {
                tracing::warn!(%error, "stopping without having handed over");
            },
            _ = alone => tracing::warn!("stopping without having handed over: no controller answers"),
        }
        if self.standing.borrow().is_controller {
            // The others learn what is committed with the next heartbeats; without them only from the next controller.
            tokio::time::sleep(self.timing().heartbeat * 3).await;
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

/// Sends heartbeats to whoever is the controller.
async fn beat(core: Arc<Core>) {
    let timing = core.timing();
    let mut ticks = tokio::time::interval(timing.heartbeat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hint = None;
    loop {
        ticks.tick().await;
        let beat = Beat {
            node: core.options.node,
            daemon_epoch: core.standing.borrow().daemon_epoch.unwrap_or(-1),
            applied: core.image().index,
        };
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

/// The daemons that vote: one of up to two, three of up to four, five of more; those with the lowest ids.
fn voters(seeds: &BTreeMap<NodeId, String>) -> BTreeMap<NodeId, String> {
    let count = match seeds.len() {
        0..=2 => 1,
        3..=4 => 3,
        _ => 5,
    };
    seeds
        .iter()
        .take(count)
        .map(|(node, mesh)| (*node, mesh.clone()))
        .collect()
}

/// Makes the cluster, if this is its lowest voter and every voter has answered once that it is blank. All must answer:
/// one that is only late could belong to a cluster already.
async fn bootstrap(core: Arc<Core>) {
    let voters = voters(&core.options.seeds);
    let lowest = voters.keys().next() == Some(&core.options.node);
    let mut blank: BTreeMap<NodeId, (String, [u8; 16])> = BTreeMap::new();
    if let Some(mesh) = voters.get(&core.options.node) {
        blank.insert(core.options.node, (mesh.clone(), core.options.storage_id));
    }
    while lowest && core.group.is_blank().await {
        for (&node, mesh) in &voters {
            if blank.contains_key(&node) {
                continue;
            }
            match raft::probe(&core.dialer, node, core.timing().session).await {
                Ok(probe) if probe.blank => {
                    blank.insert(node, (mesh.clone(), probe.storage_id));
                }
                Ok(_) => tracing::warn!(
                    node,
                    "this data directory is blank, but another voter's is not: waiting to be made a member"
                ),
                Err(error) => tracing::info!(node, %error, "waiting for a voter of the new cluster"),
            }
        }
        if blank.len() == voters.len() {
            match core.group.initialize(&blank).await {
                Ok(()) => tracing::info!(voters = ?blank.keys(), "made a new cluster"),
                Err(error) => tracing::warn!(error, "could not make the cluster"),
            }
        } else {
            tokio::time::sleep(core.timing().heartbeat).await;
        }
    }
}
