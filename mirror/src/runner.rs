//! The mirror of one daemon as the program holds it: starts and stops flows as they are declared, and answers questions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tradewind_client::{Client, ClientConfig, Transport};
use tradewind_transport::{Mesh, TransportOptions};
use tradewind_wire::clock::Clock;
use tradewind_wire::flow::{FlowSource, FlowSpec, Pause};
use tradewind_wire::ids::TopicId;
use tradewind_wire::mesh::Conversation;

use crate::board::{Board, GroupsFacts, Observation, PositionFacts, PositionStatus};
use crate::declaring;
use crate::drill_report::DrillLine;
use crate::failback_report::{FailbackError, FailbackReport};
use crate::flow::{self, Flow, Seen};
use crate::naming::Names;
use crate::origins::Hearing;
use crate::passes::{self, led_here, standings_here};
use crate::peers::{self, Answer, Ask, ask_all};
use crate::problems::partition_problems;
use crate::source::Source;
use crate::source::kafka::KafkaSource;
use crate::source::mesh::MeshSource;
use crate::source::track::Health;
use crate::status::{
    DaemonReport, FailoverError, FailoverReport, FlowStatus, Known, PartitionReport, PauseError, flow_status,
    paused,
};
use crate::switchover_report::{SwitchoverError, SwitchoverReport, SwitchoverWish};
use crate::target::{CommandError, FlowState, Target, View};
use crate::verify::{Compared, Piece, Plan, VerifyError};
use crate::{drill, failback, failover, fence, heartbeat, rescue, switchover, transactions, verify};

/// How long daemons have to report on a flow.
const REPORT_TIMEOUT: Duration = Duration::from_secs(15);
/// How often, and how long, a plan waits for the flow to begin on this daemon.
const FLOW_LOOKS: u32 = 50;
const FLOW_LOOK: Duration = Duration::from_millis(100);
/// How long a daemon may take to compare a piece.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(29);
/// How long a source has to answer one request.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often sources are asked for what they do not push.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    mesh: Duration,
    kafka: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            mesh: Duration::from_secs(1),
            kafka: Duration::from_secs(5),
        }
    }
}

/// Makes the source of a flow. Connects lazily: a source that is down is no error here.
pub type Sources = Arc<dyn Fn(&FlowSpec) -> Arc<dyn Source> + Send + Sync>;

/// Sources as flows declare them: Tradewind clusters dialled from `mesh`, any Kafka over TCP.
pub fn network_sources(mesh: Mesh, clock: Arc<dyn Clock>) -> Sources {
    Arc::new(move |spec| {
        let addresses = match &spec.source {
            FlowSource::Mesh(addresses) | FlowSource::Kafka(addresses) => addresses.clone(),
        };
        let mut config = ClientConfig::new(addresses, clock.clone());
        config.client_id = format!("tradewind-mirror-{}", spec.target_cluster);
        config.connect_timeout = SOURCE_TIMEOUT / 2;
        config.request_timeout = SOURCE_TIMEOUT;
        match spec.source {
            FlowSource::Kafka(_) => Arc::new(KafkaSource::new(Client::new(config))),
            FlowSource::Mesh(_) => {
                let cluster = spec.source_cluster.clone();
                config.transport = Transport::Mesh {
                    mesh: mesh.clone(),
                    cluster: cluster.clone(),
                    conversation: Conversation::Query,
                    options: Some(Box::new(TransportOptions::line())),
                };
                Arc::new(MeshSource::new(Client::new(config), mesh.clone(), cluster))
            }
        }
    })
}

/// The mirror of one daemon: all flows into its cluster, as far as they are this daemon's work.
#[derive(Clone)]
pub struct Mirror {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) target: Arc<dyn Target>,
    sources: Sources,
    pub(crate) in_file: Vec<FlowSpec>,
    pace: Pace,
    flows: Mutex<BTreeMap<String, Running>>,
    /// What all flows on this daemon found their sources' ids to be.
    seen: Seen,
    /// High watermarks as daemons last reported them, for partitions without a leader.
    last_known: Mutex<BTreeMap<(TopicId, i32), i64>>,
    pub(crate) cancel: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

struct Running {
    flow: Arc<Flow>,
    cancel: CancellationToken,
}

impl Mirror {
    /// Starts the mirror. It runs until [`Mirror::stop`]. `in_file`: what this daemon's configuration says of flows; only to
    /// be told where the cluster has declared otherwise.
    pub fn start(target: Arc<dyn Target>, sources: Sources, in_file: Vec<FlowSpec>) -> Self {
        Self::start_at(target, sources, in_file, Pace::default())
    }

    fn start_at(target: Arc<dyn Target>, sources: Sources, in_file: Vec<FlowSpec>, pace: Pace) -> Self {
        let mirror = Self {
            inner: Arc::new(Inner {
                target: target.clone(),
                sources,
                in_file,
                pace,
                flows: Mutex::default(),
                seen: Seen::default(),
                last_known: Mutex::default(),
                cancel: CancellationToken::new(),
                tasks: TaskTracker::new(),
            }),
        };
        let cancel = mirror.inner.cancel.clone();
        let tasks = &mirror.inner.tasks;
        tasks.spawn(heartbeat::run(target.clone(), cancel.clone()));
        tasks.spawn(fence::run(target.clone(), cancel.clone()));
        tasks.spawn(rescue::run(target, cancel.clone()));
        mirror
            .inner
            .tasks
            .spawn(follow_declarations(mirror.inner.clone(), cancel));
        mirror
    }

    /// Stops all flows on this daemon and waits until none of their tasks is left.
    pub async fn stop(&self) {
        self.inner.cancel.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Answers another daemon's [`Target::call`]. Anything that is no question is refused in words.
    pub async fn answer(&self, request: Bytes) -> Bytes {
        let answer = match Ask::decode(request) {
            Some((ask, batch)) => self.inner.answer(ask, batch).await,
            None => Answer::Refused("not a question of this version".into()),
        };
        answer.encode()
    }

    /// The status of every flow into this cluster: looks at each source now, then asks every daemon.
    pub async fn status(&self) -> Vec<FlowStatus> {
        let view = self.inner.target.view();
        let all = view
            .flows
            .iter()
            .map(|(name, flow)| self.inner.status(name.clone(), flow.state));
        let mut all = join_all(all).await;
        all.extend(declaring::removed(&view));
        all
    }

    /// Has a flow stand still, or one of its topics, by its name here or at the source: nothing is copied, no group position
    /// is moved. What stands already keeps its first pause. Survives every restart.
    pub async fn pause(&self, flow: &str, topic: Option<&str>, reason: &str) -> Result<(), PauseError> {
        let pause = Pause {
            since_ms: self.inner.target.clock().now_ms(),
            reason: reason.to_owned(),
        };
        self.inner.set_paused(flow, topic, Some(pause)).await
    }

    /// Lets a flow, or one of its topics, go on where it stood. A topic that was paused by itself waits for its own resume.
    pub async fn resume(&self, flow: &str, topic: Option<&str>) -> Result<(), PauseError> {
        self.inner.set_paused(flow, topic, None).await
    }

    /// What there is to compare of a flow, or of some of its topics by their names here or at the source: up to where both
    /// sides are by now. Changes nothing.
    pub async fn verify_plan(&self, flow: &str, topics: &[String]) -> Result<Plan, VerifyError> {
        self.inner.verify_plan(flow, topics).await
    }

    /// Compares a piece of a partition of a plan, at the daemon that leads it here. May be repeated at any time.
    pub async fn verify_piece(&self, piece: Piece) -> Result<Compared, VerifyError> {
        self.inner.verify_piece(piece).await
    }

    /// Fails a flow over: stops it, cuts its partitions at what is here, promotes its topics, leaves the groups usable.
    /// May be repeated at any time, on any daemon; continues where it stood and answers the same again.
    pub async fn failover(&self, flow: &str) -> Result<FailoverReport, FailoverError> {
        failover::run(&self.inner.target, flow).await
    }
}

impl Mirror {
    /// Begins to move a region without loss: see [`crate::switchover_report`]. Daemons carry it out by themselves;
    /// [`Mirror::switchover_report`] tells how far it is. One that is under way, or done, stays as it is.
    pub async fn switchover(
        &self,
        flow: &str,
        wish: SwitchoverWish,
    ) -> Result<SwitchoverReport, SwitchoverError> {
        let inner = &self.inner;
        let unknown = || SwitchoverError::UnknownFlow(flow.to_owned());
        let state = inner.target.view().flows.get(flow).ok_or_else(unknown)?.state;
        let running = inner.flow(flow).ok_or_else(|| SwitchoverError::Refused {
            flow: flow.to_owned(),
            reason: "it does not run on this daemon yet; repeat the command".into(),
        })?;
        let status = inner.status(flow.to_owned(), state).await;
        switchover::begin(&running, switchover::may_move(&status), wish).await?;
        self.switchover_report(flow).await
    }

    /// Gives the switchover of a flow up. The source lets its clients write again once it has heard of that.
    pub async fn abort_switchover(&self, flow: &str) -> Result<SwitchoverReport, SwitchoverError> {
        switchover::abort(&self.inner.target, flow).await?;
        self.switchover_report(flow).await
    }

    /// How the last switchover of a flow stands.
    pub async fn switchover_report(&self, flow: &str) -> Result<SwitchoverReport, SwitchoverError> {
        let mut reasons = Vec::new();
        if let Some(running) = self.inner.flow(flow) {
            reasons = running.board.problems();
        }
        switchover::report(&self.inner.target, flow, reasons).await
    }
}

impl Mirror {
    /// Begins to bring the lost source of a failed-over flow back as a mirror: see [`crate::failback_report`]. Daemons carry
    /// it out by themselves. What is under way, or done, stays as it is.
    pub async fn failback(&self, flow: &str) -> Result<FailbackReport, FailbackError> {
        if !self.inner.target.view().flows.contains_key(flow) {
            return Err(FailbackError::UnknownFlow(flow.to_owned()));
        }
        let running = self.inner.flow(flow).ok_or_else(|| FailbackError::Refused {
            flow: flow.to_owned(),
            reason: "it does not run on this daemon".into(),
        })?;
        failback::begin(&running).await?;
        self.failback_report(flow)
    }

    /// How the failback of a flow stands.
    pub fn failback_report(&self, flow: &str) -> Result<FailbackReport, FailbackError> {
        let running = self.inner.flow(flow);
        let reasons = running.map_or_else(Vec::new, |running| running.board.problems());
        failback::report(&self.inner.target, flow, reasons)
    }
}

/// Starts, restarts and ends flows as their declarations come, change and go.
async fn follow_declarations(inner: Arc<Inner>, cancel: CancellationToken) {
    while !cancel.is_cancelled() {
        let view = inner.target.view();
        let stale: Vec<Running> = {
            let mut flows = inner.flows.lock();
            let gone: Vec<String> = flows
                .iter()
                .filter(|(name, running)| {
                    view.flows
                        .get(*name)
                        .is_none_or(|now| now.spec != running.flow.spec)
                })
                .map(|(name, _)| name.clone())
                .collect();
            gone.iter().filter_map(|name| flows.remove(name)).collect()
        };
        for running in stale {
            running.cancel.cancel();
        }
        for (name, declared) in &view.flows {
            if !inner.flows.lock().contains_key(name) {
                inner.begin(name, &declared.spec);
            }
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            () = inner.target.changed(view.index) => {}
        }
    }
}

impl Inner {
    fn begin(&self, name: &str, spec: &FlowSpec) {
        let names = match Names::new(spec) {
            Ok(names) => names,
            Err(error) => {
                // The configuration refuses it first; this is a flow declared by an older version.
                tracing::error!(%error, "flow cannot run");
                return;
            }
        };
        let flow = Arc::new(self.flow_of(spec, names));
        let cancel = self.cancel.child_token();
        tracing::info!(flow = name, "flow begins on this daemon");
        self.tasks.spawn(flow::run(flow.clone(), cancel.clone()));
        self.flows
            .lock()
            .insert(name.to_owned(), Running { flow, cancel });
    }

    pub(crate) fn flow_of(&self, spec: &FlowSpec, names: Names) -> Flow {
        Flow {
            name: spec.name(),
            spec: spec.clone(),
            names,
            target: self.target.clone(),
            source: (self.sources)(spec),
            board: Arc::new(Board::default()),
            refresh: Arc::default(),
            interval: match spec.source {
                FlowSource::Mesh(_) => self.pace.mesh,
                FlowSource::Kafka(_) => self.pace.kafka,
            },
            pass: tokio::sync::Mutex::default(),
            looked: Mutex::default(),
            hearing: Hearing::default(),
            seen: self.seen.clone(),
        }
    }

    async fn set_paused(
        &self,
        flow: &str,
        topic: Option<&str>,
        pause: Option<Pause>,
    ) -> Result<(), PauseError> {
        let view = self.target.view();
        let Some(declared) = view.flows.get(flow) else {
            return Err(PauseError::UnknownFlow(flow.to_owned()));
        };
        if declared.state == FlowState::SwitchingOver {
            return Err(PauseError::Refused {
                flow: flow.to_owned(),
                reason: "it is being switched over".into(),
            });
        }
        if matches!(declared.state, FlowState::FailingOver | FlowState::Promoted) {
            return Err(PauseError::FailedOver(flow.to_owned()));
        }
        if let Some(topic) = topic
            && !view
                .topics_of(flow)
                .any(|(known, bound)| known.name == topic || bound.source_topic == topic)
        {
            return Err(PauseError::UnknownTopic {
                flow: flow.to_owned(),
                topic: topic.to_owned(),
            });
        }
        match self.target.pause(flow, topic, pause).await {
            Ok(()) => Ok(()),
            Err(CommandError::Unavailable) => Err(PauseError::Unavailable(flow.to_owned())),
            Err(error) => Err(PauseError::Refused {
                flow: flow.to_owned(),
                reason: error.to_string(),
            }),
        }
    }

    async fn verify_plan(&self, name: &str, topics: &[String]) -> Result<Plan, VerifyError> {
        // A daemon that has just started begins its flows in a moment.
        for _ in 0..FLOW_LOOKS {
            if self.flow(name).is_some() {
                break;
            }
            self.verifiable_state(name)?;
            tokio::time::sleep(FLOW_LOOK).await;
        }
        let flow = self.verifiable(name)?;
        let ask = Ask::Report {
            flow: name.to_owned(),
            fresh: false,
        };
        let (mine, theirs) = tokio::join!(
            self.report(name, false),
            ask_all(&self.target, &ask, REPORT_TIMEOUT)
        );
        let mut reports = vec![mine];
        reports.extend(theirs.into_iter().filter_map(|(_, answer)| match answer {
            Ok(Answer::Report(report)) => Some(report),
            _ => None,
        }));
        // The source last: whatever was here before is there now, or should be.
        let observation = flow.observe().await;
        let observation = observation.map_err(|error| VerifyError::Unavailable(error.to_string()))?;
        verify::plan(name, &self.target.view(), topics, &observation, &reports)
    }

    async fn verify_piece(&self, piece: Piece) -> Result<Compared, VerifyError> {
        self.verifiable(&piece.flow)?;
        let view = self.target.view();
        let topic = view.topics.get(&piece.topic);
        let number = usize::try_from(piece.partition).unwrap_or(usize::MAX);
        let leader = topic.and_then(|topic| topic.partitions.get(number)?.leader);
        let leader = leader.ok_or_else(|| VerifyError::Unavailable("nobody leads it here".into()))?;
        if leader == self.target.node_id() {
            return self.compare(&piece).await.map_err(VerifyError::Unavailable);
        }
        let ask = Ask::Compare(piece).encode(&[]);
        match peers::ask(self.target.as_ref(), leader, ask, COMPARE_TIMEOUT).await {
            Ok(Answer::Compared(compared)) => Ok(compared),
            Ok(Answer::Refused(reason)) => Err(VerifyError::Unavailable(reason)),
            Ok(_) => Err(VerifyError::Unavailable("an answer to something else".into())),
            Err(error) => Err(VerifyError::Unavailable(error.to_string())),
        }
    }

    /// The flow, if what is here should be what its source has.
    fn verifiable(&self, name: &str) -> Result<Arc<Flow>, VerifyError> {
        self.verifiable_state(name)?;
        let flow = self.flow(name);
        flow.ok_or_else(|| VerifyError::Unavailable("the flow does not run on this daemon".into()))
    }

    fn verifiable_state(&self, name: &str) -> Result<(), VerifyError> {
        let view = self.target.view();
        let Some(declared) = view.flows.get(name) else {
            return Err(VerifyError::UnknownFlow(name.to_owned()));
        };
        if !matches!(declared.state, FlowState::Active | FlowState::Paused) {
            return Err(VerifyError::FailedOver(name.to_owned()));
        }
        Ok(())
    }

    async fn compare(&self, piece: &Piece) -> Result<Compared, String> {
        let flow = self.verifiable(&piece.flow).map_err(|error| error.to_string())?;
        let pair = verify::pair(&flow, piece).await?;
        verify::compare(self.target.as_ref(), flow.source.as_ref(), &pair, piece).await
    }

    pub(crate) fn flow(&self, name: &str) -> Option<Arc<Flow>> {
        self.flows.lock().get(name).map(|running| running.flow.clone())
    }

    async fn answer(&self, ask: Ask, batch: Bytes) -> Answer {
        match ask {
            Ask::Watermarks { flow } => Answer::Watermarks(led_here(self.target.as_ref(), &flow)),
            Ask::Report { flow, fresh } => Answer::Report(self.report(&flow, fresh).await),
            Ask::Finish { flow } => match failover::finish_groups(&self.target, &flow).await {
                Ok(positions) => Answer::Finished(positions),
                Err(reason) => Answer::Refused(reason),
            },
            Ask::Aborted { flow } => {
                let (aborted, of) = transactions::aborted_here(&self.target, &flow).await;
                Answer::Aborted(aborted, of)
            }
            Ask::Standings { flow, partitions } => {
                let flow = self.flow(&flow);
                Answer::Standings(flow.map_or_else(Vec::new, |flow| standings_here(&flow, &partitions)))
            }
            Ask::Stored { flow } => Answer::Stored(drill::stored_here(&self.target, &flow).await),
            Ask::Compare(piece) => match self.compare(&piece).await {
                Ok(compared) => Answer::Compared(compared),
                Err(reason) => Answer::Refused(reason),
            },
            Ask::Rehearse(ask) => match drill::rehearse(self.flow(&ask.flow), &ask).await {
                Ok(rehearsed) => Answer::Rehearsed(Box::new(rehearsed)),
                Err(reason) => Answer::Refused(reason),
            },
            Ask::Settle {
                flow,
                attempt,
                positions,
            } => match self.flow(&flow) {
                Some(flow) => switchover::settled(switchover::settle(&flow, attempt, &positions).await),
                None => Answer::Refused("the flow does not run on this daemon".into()),
            },
            Ask::Keep {
                topic,
                partition,
                previous_end,
            } => rescue::append(&self.target, topic, partition, previous_end, batch).await,
            Ask::Downstream => Answer::Downstream(self.target.downstream_clusters()),
            Ask::Append { topic, partition } => {
                match self.target.append_own(&topic, partition, batch).await {
                    Ok(()) => Answer::Appended,
                    Err(error) => Answer::Refused(error.to_string()),
                }
            }
        }
    }

    pub(crate) async fn status(&self, name: String, state: FlowState) -> FlowStatus {
        let flow = self.flow(&name);
        let view = self.target.view();
        let mut known = Known {
            switchover: view.flows.get(&name).and_then(|flow| flow.switchover.clone()),
            failback: view.flows.get(&name).and_then(|flow| flow.failback.clone()),
            drill: DrillLine::last(&view, &name, self.target.clock().now_ms()),
            ..Known::default()
        };
        // The source is looked at before the logs here: what is zero was zero after the question came.
        if matches!(
            state,
            FlowState::Active | FlowState::Paused | FlowState::SwitchingOver
        ) {
            known.paused = paused(&view, &name);
            match &flow {
                Some(flow) => match flow.observe().await {
                    Ok(observation) => {
                        if state == FlowState::Active && has_news(&observation, &view) {
                            flow.refresh.notify_one();
                        }
                        known.observation = Some(observation);
                    }
                    Err(error) => {
                        tracing::debug!(flow = name, %error, "status without a look at the source");
                        known.unreachable = Some(error.to_string());
                    }
                },
                None => known.problems.push("the flow does not run on this daemon".into()),
            }
        }
        let fresh = state == FlowState::Active && known.unreachable.is_none();
        let ask = Ask::Report {
            flow: name.clone(),
            fresh,
        };
        let (mine, theirs) = tokio::join!(
            self.report(&name, fresh),
            ask_all(&self.target, &ask, REPORT_TIMEOUT)
        );
        known.reports.push(mine);
        for (node, answer) in theirs {
            match answer {
                Ok(Answer::Report(report)) => known.reports.push(report),
                Ok(_) => known
                    .problems
                    .push(format!("daemon {node} answered something else")),
                Err(error) => known.problems.push(error.to_string()),
            }
        }
        if known.observation.is_none() {
            let seen = known
                .reports
                .iter()
                .filter_map(|report| report.observation.as_ref());
            known.observation = seen.max_by_key(|observation| observation.at_ms).cloned();
        }
        self.remember(&mut known);
        flow_status(&name, state, &known, self.target.clock().now_ms())
    }

    fn remember(&self, known: &mut Known) {
        let mut last_known = self.last_known.lock();
        for partition in known.reports.iter().flat_map(|report| &report.partitions) {
            last_known.insert((partition.id, partition.partition), partition.high_watermark);
        }
        // A topic that was deleted and is copied anew has its old one's name, and nothing of it.
        let view = self.target.view();
        let names: BTreeMap<TopicId, &String> =
            view.topics.iter().map(|(name, topic)| (topic.id, name)).collect();
        last_known.retain(|(topic, _), _| names.contains_key(topic));
        let named = last_known.iter().filter_map(|((topic, partition), mark)| {
            Some((((*names.get(topic)?).clone(), *partition), *mark))
        });
        known.last_known = named.collect();
    }

    /// What this daemon knows of a flow.
    pub(crate) async fn report(&self, name: &str, fresh: bool) -> DaemonReport {
        let mut report = DaemonReport::default();
        report.notes.extend(declaring::otherwise_in_file(self, name));
        let Some(flow) = self.flow(name) else {
            report.partitions = partitions(self.target.as_ref(), name, &Board::default());
            return report;
        };
        if fresh {
            let asked_at = self.target.clock().monotonic();
            if let Err(error) = passes::pass(&flow, asked_at).await {
                report
                    .problems
                    .push(format!("group positions are not current: {error}"));
            }
        }
        // After the pass: positions are only as exact as the watermarks that they were compared with.
        report.partitions = partitions(self.target.as_ref(), name, &flow.board);
        report.groups = match flow.board.groups() {
            Some(groups) => groups,
            None => GroupsFacts {
                positions: self.stored_positions(name).await,
                ..GroupsFacts::default()
            },
        };
        report.observation = flow.board.observation();
        report.problems.extend(flow.board.problems());
        report.notes.extend(flow.board.notes());
        let now_ms = self.target.clock().now_ms();
        report.problems.extend(partition_problems(&flow.board, now_ms));
        report
    }

    /// Group positions by what is stored, when the source has not been asked by this process yet.
    async fn stored_positions(&self, flow: &str) -> Vec<PositionFacts> {
        let mut all = Vec::new();
        for group in self.target.mirrored_groups(flow).await {
            let stored = self.target.group_positions(&group).await.unwrap_or_default();
            all.extend(stored.into_iter().filter_map(|stored| {
                let mark = stored.mark.filter(|mark| mark.flow == flow)?;
                let exact = mark.source_offset == stored.offset;
                Some(PositionFacts {
                    group: group.clone(),
                    topic: stored.topic,
                    partition: stored.partition,
                    offset: stored.offset,
                    source_offset: mark.source_offset,
                    status: if exact {
                        PositionStatus::Exact
                    } else {
                        PositionStatus::Pending
                    },
                })
            }));
        }
        all
    }
}

/// Whether the source has partitions that are not here yet.
fn has_news(observation: &Observation, view: &View) -> bool {
    observation.partitions.iter().any(|observed| {
        let here = view
            .topics
            .get(&observed.here)
            .map_or(0, |topic| topic.partitions.len());
        usize::try_from(observed.partition).is_ok_and(|partition| partition >= here)
    })
}

fn partitions(target: &dyn Target, flow: &str, board: &Board) -> Vec<PartitionReport> {
    let ids: BTreeMap<String, TopicId> = target
        .view()
        .topics_of(flow)
        .map(|(topic, _)| (topic.name.clone(), topic.id))
        .collect();
    let facts: BTreeMap<(String, i32), _> = board
        .partitions()
        .into_iter()
        .map(|(here, facts)| ((here.name, here.partition), facts))
        .collect();
    led_here(target, flow)
        .into_iter()
        .map(|(topic, partition, high_watermark)| {
            let facts = facts.get(&(topic.clone(), partition));
            PartitionReport {
                source_end: facts.and_then(|facts| facts.ends).map(|ends| ends.high_watermark),
                behind_since_ms: facts.map(|facts| facts.behind_since_ms),
                diverged: facts.is_some_and(|facts| facts.health == Health::Diverged),
                id: ids.get(&topic).copied().unwrap_or_default(),
                topic,
                partition,
                high_watermark,
            }
        })
        .collect()
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
