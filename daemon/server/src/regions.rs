//! The source's side of a switchover or failback on the mesh: what another cluster may ask about moving topics away.
//!
//! One question and one answer per stream, both JSON ([`tradewind_wire::region`]). Who asks is the certificate's word, and
//! whether it may fence is this daemon's configuration (`[clusters.NAME] may_fence`), looked at for every question that
//! could take something away. What a cluster that starts asks about itself is answered in `guard.rs`. Every rule of the steps is the metadata log's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tradewind_broker::groups::{MirroredCommit, MirroredFrom};
use tradewind_broker::{Broker, OFFSETS_TOPIC};
use tradewind_cluster::apply::may_take_up;
use tradewind_cluster::command::{Command, MetaError};
use tradewind_cluster::image::{FlowState, Image, Topic};
use tradewind_cluster::metadata::ProposeError;
use tradewind_transport::{FrameRx, FrameTx, Peer};
use tradewind_wire::failback::History;
use tradewind_wire::flow::{FlowSource, FlowSpec, Provenance};
use tradewind_wire::ids::TopicId;
use tradewind_wire::region::{
    GroupPosition, MoveState, RegionAnswer, RegionAsk, RegionCommand, RegionMove, RegionWish, SourceEnd,
};

use crate::config::RemoteCluster;
use crate::guard;

/// How long a question may take to arrive.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest question: ids of ten thousand topics, and filters.
const MAX_ASK: usize = 4 << 20;
/// How long the metadata log may take over a step. The asker asks again.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer waits for what the next question would be asked for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Answers other clusters about moving topics away from this one.
pub(crate) struct Regions {
    broker: Broker,
    clusters: BTreeMap<String, RemoteCluster>,
}

impl Regions {
    /// Of this broker's cluster; `clusters` are the others by name, as configured.
    pub(crate) fn new(broker: Broker, clusters: BTreeMap<String, RemoteCluster>) -> Self {
        Self { broker, clusters }
    }

    /// Serves one stream.
    pub(crate) async fn serve(&self, peer: Peer, mut tx: FrameTx, mut rx: FrameRx) {
        let Peer::Daemon { cluster, .. } = peer else {
            return;
        };
        rx.set_limit(MAX_ASK);
        let Ok(Ok(Some(frame))) = tokio::time::timeout(ASK_TIMEOUT, rx.recv()).await else {
            return;
        };
        let answer = match serde_json::from_slice::<RegionAsk>(&frame) {
            Ok(ask) => self.answer(&cluster, ask).await,
            Err(error) => RegionAnswer::Refused(format!("not a question of this version: {error}")),
        };
        let Ok(bytes) = serde_json::to_vec(&answer) else {
            return;
        };
        if tx.send(&[bytes.into()]).await.is_ok() {
            tx.finish();
            // Until the other side has read it and is gone.
            let _ = tokio::time::timeout(ASK_TIMEOUT, rx.recv()).await;
        }
    }

    async fn answer(&self, peer: &str, ask: RegionAsk) -> RegionAnswer {
        let cluster = self.broker.cluster();
        if ask.flow.target_cluster != peer || ask.flow.source_cluster != cluster.cluster_name() {
            let (flow, own) = (ask.flow.name(), cluster.cluster_name());
            return RegionAnswer::Refused(format!(
                "flow {flow} is not one from here to {peer}: this cluster is called {own}"
            ));
        }
        let flow = ask.flow.name();
        let (peer_id, attempt) = (ask.cluster_id.clone(), ask.attempt);
        match ask.wish {
            RegionWish::Standing {
                certain,
                region_epoch,
            } => guard::standing(&self.broker, peer, certain, region_epoch).await,
            RegionWish::Plan(topics) => match self.may_fence(peer, &ask.flow) {
                Ok(reverse) => plan(&cluster.image(), &flow, &reverse, &topics),
                Err(refusal) => RegionAnswer::Refused(refusal),
            },
            RegionWish::Fence(topics) => {
                let reverse = match self.may_fence(peer, &ask.flow) {
                    Ok(reverse) => reverse,
                    Err(refusal) => return RegionAnswer::Refused(refusal),
                };
                let command = RegionCommand::Fence {
                    flow: flow.clone(),
                    peer: peer.to_owned(),
                    peer_id: peer_id.clone(),
                    attempt,
                    topics,
                    reverse: Box::new(reverse),
                };
                match self.propose(command).await {
                    RegionAnswer::Done => self.fenced(&flow, peer, (&peer_id, attempt)).await,
                    other => other,
                }
            }
            RegionWish::FenceGroups => {
                self.propose(RegionCommand::FenceGroups {
                    flow,
                    peer_id,
                    attempt,
                })
                .await
            }
            RegionWish::Positions => self.positions(&flow, (&peer_id, attempt)).await,
            RegionWish::Release => {
                // What may not be fenced needs no mark against a fence that comes late.
                if !cluster.image().moves.contains_key(&flow) && self.may_fence(peer, &ask.flow).is_err() {
                    return RegionAnswer::Done;
                }
                self.propose(RegionCommand::Release {
                    flow,
                    peer: peer.to_owned(),
                    peer_id,
                    attempt,
                })
                .await
            }
            RegionWish::GiveWay { region_epoch, topics } => match self.may_fence(peer, &ask.flow) {
                Ok(reverse) => {
                    let since = cluster.clock().monotonic();
                    let command = RegionCommand::GiveWay {
                        flow: flow.clone(),
                        peer: peer.to_owned(),
                        peer_id,
                        attempt,
                        region_epoch,
                        topics,
                        reverse: Box::new(reverse),
                    };
                    match self.propose(command).await {
                        RegionAnswer::Done => {
                            gave_way(&cluster.image(), &flow, cluster.clock().monotonic() - since)
                        }
                        other => other,
                    }
                }
                Err(refusal) => RegionAnswer::Refused(refusal),
            },
            RegionWish::Origins => RegionAnswer::Origins(origins(&cluster.image())),
            RegionWish::PlanFailback => match self.may_fence(peer, &ask.flow) {
                Ok(reverse) => plan_failback(&cluster.image(), &reverse),
                Err(refusal) => RegionAnswer::Refused(refusal),
            },
            RegionWish::Rescue(topics) => self.rescue(&flow, (&peer_id, attempt), topics).await,
            RegionWish::Lower => self.lower(&flow, (&peer_id, attempt)).await,
            RegionWish::Complete { region_epoch, topics } => {
                self.propose(RegionCommand::Complete {
                    flow,
                    peer_id,
                    attempt,
                    region_epoch,
                    topics,
                })
                .await
            }
        }
    }

    /// The flow back, if `peer` may fence topics here.
    fn may_fence(&self, peer: &str, flow: &FlowSpec) -> Result<FlowSpec, String> {
        let own = self.broker.cluster().cluster_name();
        let known = self.clusters.get(peer).filter(|known| known.may_fence);
        let Some(RemoteCluster {
            source: source @ FlowSource::Mesh(_),
            ..
        }) = known
        else {
            return Err(format!(
                "{peer} may not fence topics of {own}: `[clusters.{peer}]` with `mesh` and `may_fence = true` in the \
                 configuration of every daemon of {own} would let it"
            ));
        };
        Ok(FlowSpec {
            source_cluster: peer.to_owned(),
            target_cluster: own.to_owned(),
            source: source.clone(),
            ..flow.clone()
        })
    }

    async fn propose(&self, command: RegionCommand) -> RegionAnswer {
        let proposed = self
            .broker
            .cluster()
            .propose(Command::Region(command), PROPOSE_TIMEOUT);
        match proposed.await {
            Ok(_) => RegionAnswer::Done,
            // The failover may be as good as any: only its number is not.
            Err(ProposeError::Refused(MetaError::RegionEpoch { own, .. })) => RegionAnswer::EpochTooLow(own),
            Err(ProposeError::Refused(refusal)) => RegionAnswer::Refused(refusal.to_string()),
            Err(error) => RegionAnswer::NotYet(error.to_string()),
        }
    }

    /// What is known of the ends; waits a little for the leaders to say them.
    async fn fenced(&self, flow: &str, peer: &str, attempt: (&str, u64)) -> RegionAnswer {
        let mut images = self.broker.cluster().subscribe();
        let known = |image: &Image| {
            let complete = ends(image, flow).values().flatten().all(Option::is_some);
            complete || move_of(image, flow, attempt).is_none()
        };
        let _ = tokio::time::timeout(PATIENCE, images.wait_for(|image| known(image))).await;
        let image = self.broker.cluster().image();
        if move_of(&image, flow, attempt).is_none_or(|known| known.state == MoveState::Released) {
            return RegionAnswer::NotYet("the fence is not applied on this daemon yet".to_owned());
        }
        RegionAnswer::Fenced {
            region_epoch: image.regions.get(peer).copied().unwrap_or(0),
            ends: ends(&image, flow),
        }
    }

    /// The final positions of the groups that this daemon coordinates.
    async fn positions(&self, flow: &str, attempt: (&str, u64)) -> RegionAnswer {
        let mut images = self.broker.cluster().subscribe();
        let fenced =
            |image: &Image| move_of(image, flow, attempt).is_some_and(|known| known.state.fences_groups());
        let ready = tokio::time::timeout(PATIENCE, images.wait_for(|image| fenced(image))).await;
        if !matches!(ready, Ok(Ok(_))) {
            return RegionAnswer::NotYet("its groups are not fenced, as far as this daemon knows".to_owned());
        }
        drop(ready);
        let image = self.broker.cluster().image();
        // Without the topic no group has ever committed.
        let Some(offsets) = image.topic(OFFSETS_TOPIC) else {
            return RegionAnswer::Positions {
                of: 0,
                partitions: Vec::new(),
                positions: Vec::new(),
            };
        };
        let own = self.broker.cluster().node_id();
        let led = (0..).zip(&offsets.partitions);
        let led = led.filter(|(_, partition)| partition.leader == Some(own));
        let epochs: HashMap<i32, i32> = led
            .map(|(number, partition)| (number, partition.leader_epoch))
            .collect();
        let (partitions, positions) = self.broker.coordinator().last_positions(&epochs);
        RegionAnswer::Positions {
            of: i32::try_from(offsets.partitions.len()).unwrap_or(i32::MAX),
            partitions,
            positions: positions
                .into_iter()
                .map(|last| GroupPosition {
                    group: last.group,
                    topic: last.topic,
                    partition: last.partition,
                    offset: last.offset,
                    metadata: last.metadata,
                })
                .collect(),
        }
    }
}

impl Regions {
    /// Has the tails kept that the target never got, and says how far that is.
    async fn rescue(
        &self,
        flow: &str,
        attempt: (&str, u64),
        topics: BTreeMap<TopicId, Vec<History>>,
    ) -> RegionAnswer {
        let cluster = self.broker.cluster();
        let image = cluster.image();
        let gave_way = move_of(&image, flow, attempt).is_some_and(|known| known.state == MoveState::GaveWay);
        if gave_way {
            if ends(&image, flow).values().flatten().any(Option::is_none) {
                return RegionAnswer::NotYet("the leaders have not all said where their logs end".to_owned());
            }
            let command = RegionCommand::Rescue {
                flow: flow.to_owned(),
                peer_id: attempt.0.to_owned(),
                attempt: attempt.1,
                topics,
            };
            match self.propose(command).await {
                RegionAnswer::Done => {}
                other => return other,
            }
        }
        let mut images = cluster.subscribe();
        let done = |image: &Image| {
            let known = move_of(image, flow, attempt);
            known.is_some_and(|known| matches!(known.state, MoveState::Rescued | MoveState::Moved))
        };
        let _ = tokio::time::timeout(PATIENCE, images.wait_for(|image| done(image))).await;
        let image = cluster.image();
        let Some(known) = move_of(&image, flow, attempt) else {
            return RegionAnswer::NotYet("that it gave way is not applied on this daemon yet".to_owned());
        };
        let mut tails = known.tails.clone();
        for tail in tails.values_mut().flat_map(|tails| &mut tails.partitions) {
            // It is the asker's own.
            tail.history.epochs.clear();
        }
        RegionAnswer::Rescued {
            done: done(&image),
            tails,
        }
    }

    /// Brings the positions of the groups that this daemon coordinates down to the cuts.
    async fn lower(&self, flow: &str, attempt: (&str, u64)) -> RegionAnswer {
        let (of, partitions, positions) = match self.positions(flow, attempt).await {
            RegionAnswer::Positions {
                of,
                partitions,
                positions,
            } => (of, partitions, positions),
            other => return other,
        };
        let image = self.broker.cluster().image();
        let known = move_of(&image, flow, attempt);
        let Some((known, back)) = known.and_then(|known| Some((known, known.reverse.as_ref()?.name())))
        else {
            return RegionAnswer::NotYet("that it gave way is not applied on this daemon yet".to_owned());
        };
        if !matches!(known.state, MoveState::Rescued | MoveState::Moved) {
            return RegionAnswer::NotYet("not all of what the target never got is kept".to_owned());
        }
        let now_ms = self.broker.cluster().clock().now_ms();
        let mut down: BTreeMap<String, Vec<MirroredCommit>> = BTreeMap::new();
        for position in positions {
            let topic = image.topic(&position.topic).map(|topic| topic.id);
            let tails = topic.and_then(|topic| known.tails.get(&topic));
            let number = usize::try_from(position.partition).unwrap_or(usize::MAX);
            let kept = tails.and_then(|tails| tails.partitions.get(number)?.kept);
            let Some(cut) = kept.map(|kept| kept.cut).filter(|cut| position.offset > *cut) else {
                continue;
            };
            down.entry(position.group).or_default().push(MirroredCommit {
                topic: position.topic,
                partition: position.partition,
                offset: cut,
                metadata: position.metadata,
                mark: MirroredFrom {
                    flow: back.clone(),
                    source_offset: cut,
                    source_version: now_ms,
                },
            });
        }
        for (group, commits) in down {
            if let Err(error) = self.broker.coordinator().mirrored_commit(&group, commits).await {
                return RegionAnswer::NotYet(format!("group {group}: {error}"));
            }
        }
        RegionAnswer::Positions {
            of,
            partitions,
            positions: Vec::new(),
        }
    }
}

/// What gave way to the failover of `flow`, and how long that took.
fn gave_way(image: &Image, flow: &str, took: Duration) -> RegionAnswer {
    let took_ms = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
    tracing::warn!(
        flow,
        took_ms,
        "gave way: clients of another cluster write these topics since a failover"
    );
    RegionAnswer::GaveWay {
        took_ms,
        topics: ends(image, flow).into_keys().collect(),
    }
}

/// What each topic is: this cluster's own, or a mirror of what.
fn origins(image: &Image) -> BTreeMap<TopicId, Provenance> {
    let says = |topic: &Arc<Topic>| {
        let says = match image.origin(topic) {
            None => Provenance::Own,
            Some(origin) if topic.is_mirroring() => Provenance::Mirror(origin),
            Some(origin) => Provenance::Promoted(origin),
        };
        (topic.id, says)
    };
    image.topics.values().map(says).collect()
}

/// Whether this cluster could become the mirror of the one that took over. The rescue asks it again.
fn plan_failback(image: &Image, reverse: &FlowSpec) -> RegionAnswer {
    match image.flows.get(&reverse.name()) {
        Some(known) if known.state != FlowState::Promoted => RegionAnswer::Refused(format!(
            "flow {} exists at the source and is {:?}; a failback makes that flow by itself",
            known.name, known.state
        )),
        _ => match may_take_up(image, Some(reverse)) {
            Ok(()) => RegionAnswer::Done,
            Err(error) => RegionAnswer::Refused(format!("at the source: {error}")),
        },
    }
}

/// The move of just this attempt.
fn move_of<'a>(image: &'a Image, flow: &str, (peer_id, attempt): (&str, u64)) -> Option<&'a RegionMove> {
    let known = image.moves.get(flow)?;
    (known.peer_id == peer_id && known.attempt == attempt).then_some(known)
}

/// Where the topics end that `flow` has fenced.
fn ends(image: &Image, flow: &str) -> BTreeMap<TopicId, Vec<Option<SourceEnd>>> {
    let fenced = image.topics.values().filter(|topic| {
        let fence = topic.fence.as_ref();
        fence.is_some_and(|fence| fence.flow == flow) && !topic.is_mirroring()
    });
    fenced
        .map(|topic| {
            let end = |partition: &tradewind_cluster::image::Partition| {
                Some(SourceEnd {
                    end: partition.fenced_end?,
                    leader_epoch: partition.leader_epoch,
                })
            };
            (topic.id, topic.partitions.iter().map(end).collect())
        })
        .collect()
}

/// Whether these topics could be fenced now. The fence itself asks all of it again.
fn plan(image: &Image, flow: &str, reverse: &FlowSpec, topics: &[TopicId]) -> RegionAnswer {
    let back = reverse.name();
    if let Some(known) = image
        .flows
        .get(&back)
        .filter(|known| known.state != FlowState::Promoted)
    {
        return RegionAnswer::Refused(format!(
            "flow {back} exists at the source and is {:?}; a switchover makes that flow by itself",
            known.state
        ));
    }
    if let Err(error) = may_take_up(image, Some(reverse)) {
        return RegionAnswer::Refused(format!("at the source: {error}"));
    }
    if let Some(known) = image.moves.get(flow)
        && known.state.is_open()
    {
        return RegionAnswer::Refused(format!(
            "attempt {} of {} still fences topics at the source",
            known.attempt, known.peer
        ));
    }
    for id in topics {
        let Some(topic) = image.topic_by_id(*id) else {
            return RegionAnswer::Refused(format!("topic {id} does not exist at the source"));
        };
        if topic.fence.is_some() || topic.is_mirroring() || topic.internal {
            return RegionAnswer::Refused(format!("topic '{}' is not the source's own", topic.name));
        }
    }
    RegionAnswer::Done
}
