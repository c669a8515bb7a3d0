//! Failback: the steps of both sides one by one, then random histories of two clusters, their logs and their copies, with
//! messages lost, repeated and delayed. In every history no record that a client wrote is nowhere, the returned side takes
//! no writes beside the other once it has heard of it, and in the end both sides have the same log.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tradewind_wire::failback::{FailbackStep, History, Kept};
use tradewind_wire::ids::TopicId;
use tradewind_wire::region::{MoveState, MovedTopic, PartitionEnd, RegionCommand, TopicFence};

use super::regions::{BACK, FLOW, THERE, WEST_ID, east, epoch, prefixed_west, region, spec, west};
use super::{Log, TOPIC};
use crate::command::{Command, LineageEntry, MetaError};
use crate::image::{FlowState, Image};

const RESCUE: TopicId = TopicId([8; 16]);

fn fail_over(west: &mut Log, cut: i64) -> u64 {
    let flow = FLOW.to_owned();
    west.must(&Command::BeginFailover { flow: flow.clone() });
    let leader_epoch = epoch(west, TOPIC);
    west.must(&Command::RecordCut {
        flow,
        topic: TOPIC,
        partition: 0,
        leader_epoch,
        cut,
        source_end: None,
    });
    failback(west).attempt
}

fn failback(west: &Log) -> &tradewind_wire::failback::Failback {
    west.image.flows[FLOW].failback.as_ref().unwrap()
}

fn give_way(attempt: u64, region_epoch: u64) -> RegionCommand {
    RegionCommand::GiveWay {
        flow: FLOW.to_owned(),
        peer: "west".to_owned(),
        peer_id: WEST_ID.to_owned(),
        attempt,
        region_epoch,
        topics: vec![THERE],
        reverse: Box::new(spec("west", "east")),
    }
}

fn gave_way(attempt: u64) -> RegionCommand {
    RegionCommand::GaveWay {
        flow: FLOW.to_owned(),
        attempt,
        at_ms: 3,
        took_ms: 1,
        topics: vec![THERE],
    }
}

fn begin() -> RegionCommand {
    RegionCommand::BeginFailback {
        flow: FLOW.to_owned(),
        at_ms: 4,
    }
}

fn rescue(attempt: u64, cut: i64) -> RegionCommand {
    let history = History {
        cut,
        epochs: vec![(-1, 0)],
    };
    RegionCommand::Rescue {
        flow: FLOW.to_owned(),
        peer_id: WEST_ID.to_owned(),
        attempt,
        topics: BTreeMap::from([(THERE, vec![history])]),
    }
}

fn make_rescue(attempt: u64) -> RegionCommand {
    RegionCommand::MakeRescue {
        flow: FLOW.to_owned(),
        attempt,
        topic: THERE,
        id: RESCUE,
    }
}

fn tail_kept(attempt: u64, leader_epoch: i32, (cut, end): (i64, i64)) -> RegionCommand {
    RegionCommand::TailKept {
        flow: FLOW.to_owned(),
        attempt,
        topic: THERE,
        partition: 0,
        leader_epoch,
        kept: Kept {
            cut,
            end,
            records: u64::try_from(end - cut).unwrap(),
            bytes: 0,
            anew: false,
        },
    }
}

fn tails_kept(attempt: u64, east: &Log) -> RegionCommand {
    RegionCommand::TailsKept {
        flow: FLOW.to_owned(),
        attempt,
        tails: east.image.moves[FLOW].tails.clone(),
        lowered: Vec::new(),
        lowered_total: 0,
    }
}

fn complete(attempt: u64, region_epoch: u64) -> RegionCommand {
    let here = MovedTopic {
        name: "orders".to_owned(),
        id: TOPIC,
    };
    RegionCommand::Complete {
        flow: FLOW.to_owned(),
        peer_id: WEST_ID.to_owned(),
        attempt,
        region_epoch,
        topics: BTreeMap::from([(THERE, here)]),
    }
}

fn done(attempt: u64) -> RegionCommand {
    RegionCommand::FailbackDone {
        flow: FLOW.to_owned(),
        attempt,
        at_ms: 9,
    }
}

fn ends(leader_epoch: i32, end: i64) -> RegionCommand {
    RegionCommand::Ends(vec![PartitionEnd {
        topic: THERE,
        partition: 0,
        leader_epoch,
        end,
    }])
}

fn state(east: &Log) -> MoveState {
    east.image.moves[FLOW].state
}

#[test]
fn a_lost_primary_keeps_its_tail_and_becomes_a_mirror() {
    let (mut west, mut east) = (west(), east());
    let twice = |log: &mut Log, command: RegionCommand| {
        region(log, command.clone()).unwrap();
        region(log, command).unwrap();
    };
    let attempt = fail_over(&mut west, 40);
    assert_eq!(failback(&west).step, FailbackStep::Telling);
    assert!(
        region(&mut west, begin()).is_err(),
        "the source has not heard of it"
    );
    let (before, offsets) = (epoch(&east, THERE), epoch(&east, TopicId([9; 16])));
    twice(&mut east, give_way(attempt, 1));
    let fenced = epoch(&east, THERE);
    assert_eq!(
        (fenced, epoch(&east, TopicId([9; 16]))),
        (before + 1, offsets + 1)
    );
    let topic = east.image.topic("orders").unwrap();
    let fence = TopicFence {
        flow: FLOW.to_owned(),
        groups: true,
        gone: true,
    };
    assert_eq!(topic.fence, Some(fence));
    assert!(topic.is_elsewhere() && !topic.is_mirroring());
    twice(&mut west, gave_way(attempt));
    twice(&mut west, begin());
    assert!(
        region(&mut east, rescue(attempt, 40)).is_err(),
        "nobody knows where the log ends"
    );
    region(&mut east, ends(fenced, 45)).unwrap();
    assert!(
        region(&mut east, complete(attempt, 1)).is_err(),
        "nothing is kept yet"
    );
    twice(&mut east, rescue(attempt, 40));
    assert!(
        region(&mut east, tail_kept(attempt, fenced, (40, 45))).is_err(),
        "there is no topic that could keep it"
    );
    twice(&mut east, make_rescue(attempt));
    let rescue = east.image.topic_by_id(RESCUE).unwrap();
    assert_eq!(rescue.name, format!("__diverged.{THERE}.1"));
    assert!(rescue.internal && rescue.configs["flush.messages"] == "1");
    assert!(
        region(&mut east, tail_kept(attempt, fenced - 1, (40, 45))).is_err(),
        "said by a leader that was"
    );
    for wrong in [(41, 45), (40, 44)] {
        assert!(
            region(&mut east, tail_kept(attempt, fenced, wrong)).is_err(),
            "{wrong:?}"
        );
    }
    assert!(
        region(&mut west, tails_kept(attempt, &east)).is_err(),
        "not all of it is kept"
    );
    twice(&mut east, tail_kept(attempt, fenced, (40, 45)));
    assert_eq!(state(&east), MoveState::Rescued);
    let deleted = east.apply(&Command::DeleteTopic { id: RESCUE });
    assert!(matches!(deleted, Err(MetaError::Region(_))), "it is still needed");
    twice(&mut west, tails_kept(attempt, &east));
    twice(&mut east, complete(attempt, 1));
    let partition = east.image.partition(THERE, 0).unwrap();
    let truncation = partition.truncation.unwrap();
    assert_eq!((truncation.leader_epoch, truncation.to), (fenced + 1, 40));
    assert!(east.image.topic("orders").unwrap().has_moved());
    assert_eq!(east.image.flows[BACK].state, FlowState::Active);
    twice(&mut west, done(attempt));
    east.must(&Command::DeleteTopic { id: RESCUE });
    assert_eq!((east.image.regions["west"], west.image.regions["east"]), (1, 1));
}

#[test]
fn a_compacted_topic_with_a_tail_is_copied_anew_and_one_without_keeps_all() {
    for (end, removed) in [(45, Some(0)), (40, None)] {
        let mut east = east();
        region(&mut east, give_way(50, 1)).unwrap();
        let fenced = epoch(&east, THERE);
        region(&mut east, ends(fenced, end)).unwrap();
        region(&mut east, rescue(50, 40)).unwrap();
        region(&mut east, make_rescue(50)).unwrap();
        let RegionCommand::TailKept { mut kept, .. } = tail_kept(50, fenced, (40, end)) else {
            unreachable!("it makes nothing else")
        };
        kept.anew = true;
        let said = RegionCommand::TailKept {
            flow: FLOW.to_owned(),
            attempt: 50,
            topic: THERE,
            partition: 0,
            leader_epoch: fenced,
            kept,
        };
        region(&mut east, said).unwrap();
        region(&mut east, complete(50, 1)).unwrap();
        let truncation = east.image.partition(THERE, 0).unwrap().truncation;
        assert_eq!(truncation.map(|truncation| truncation.to), removed);
    }
}

#[test]
fn a_failover_outranks_the_switchover_that_it_cut_short_and_nobody_releases_it() {
    let (mut west, mut east) = (west(), east());
    let switchover = RegionCommand::Begin {
        flow: FLOW.to_owned(),
        at_ms: 1,
        deadline_ms: 2,
        group_drain_ms: 0,
    };
    region(&mut west, switchover).unwrap();
    let first = west.image.flows[FLOW].switchover.as_ref().unwrap().attempt;
    let fence = |attempt| RegionCommand::Fence {
        flow: FLOW.to_owned(),
        peer: "west".to_owned(),
        peer_id: WEST_ID.to_owned(),
        attempt,
        topics: vec![THERE],
        reverse: Box::new(spec("west", "east")),
    };
    let release = |attempt| RegionCommand::Release {
        flow: FLOW.to_owned(),
        peer: "west".to_owned(),
        peer_id: WEST_ID.to_owned(),
        attempt,
    };
    region(&mut east, fence(first)).unwrap();
    let attempt = fail_over(&mut west, 3);
    assert!(attempt > first);
    region(&mut east, give_way(attempt, 1)).unwrap();
    assert_eq!(state(&east), MoveState::GaveWay);
    region(&mut east, release(first)).unwrap();
    assert!(region(&mut east, release(attempt)).is_err());
    assert!(region(&mut east, fence(first)).is_err(), "late");
    assert_eq!(state(&east), MoveState::GaveWay);
    assert!(east.image.topic("orders").unwrap().fence.is_some());
}

#[test]
fn what_cannot_come_back_is_refused_before_anything_changes() {
    let mut active = west();
    assert!(region(&mut active, begin()).is_err(), "it was not failed over");
    let mut prefixed = prefixed_west();
    prefixed.must(&Command::BeginFailover {
        flow: FLOW.to_owned(),
    });
    assert!(prefixed.image.flows[FLOW].failback.is_none());
    let mut both = east();
    both.image.regions.insert("west".to_owned(), 1);
    let refused = region(&mut both, give_way(50, 1)).unwrap_err();
    assert!(
        refused.to_string().contains("both have been promoted"),
        "{refused}"
    );
    let mut busy = east();
    busy.must(&Command::DeclareFlow {
        spec: spec("west", "east"),
    });
    region(&mut busy, give_way(50, 1)).unwrap();
    let leader_epoch = epoch(&busy, THERE);
    region(&mut busy, ends(leader_epoch, 5)).unwrap();
    assert!(
        region(&mut busy, rescue(50, 3)).is_err(),
        "its place has a flow that copies"
    );
    assert_eq!(state(&busy), MoveState::GaveWay);
    // An id that is not here is passed over: the flow back will make the topic.
    let mut gone = east();
    gone.must(&Command::DeleteTopic { id: THERE });
    region(&mut gone, give_way(50, 1)).unwrap();
    region(&mut gone, rescue(50, 3)).unwrap();
    assert_eq!(state(&gone), MoveState::Rescued);
}

/// A record: who wrote it (0 in the east, 1 in the west), its number, its leader epoch in the east.
type Record = (u8, u32, i32);

#[derive(Debug, Clone, Copy)]
enum Event {
    Failover,
    Operator,
    /// A steward of the west asks what its image asks for; there may be several.
    Drive,
    /// A steward reads the east's image, as it is now, for its next step.
    Answer,
    Deliver(u8, bool),
    Lose(u8),
    /// A copy of the east takes over the east's image.
    Sees(bool),
    /// The follower takes what its leader has, if both are of one epoch.
    Follow,
    /// The leader of the east keeps a record more of its tail, or says that all of it is kept.
    Keep,
    WriteEast,
    WriteWest,
    /// A record more is mirrored, in whichever direction.
    Copy,
    /// The other copy leads.
    Elect,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => Just(Event::Failover),
        2 => Just(Event::Operator),
        6 => Just(Event::Drive),
        6 => Just(Event::Answer),
        8 => (any::<u8>(), any::<bool>()).prop_map(|(which, again)| Event::Deliver(which, again)),
        2 => any::<u8>().prop_map(Event::Lose),
        8 => any::<bool>().prop_map(Event::Sees),
        6 => Just(Event::Follow),
        6 => Just(Event::Keep),
        4 => Just(Event::WriteEast),
        3 => Just(Event::WriteWest),
        6 => Just(Event::Copy),
        1 => Just(Event::Elect),
    ]
}

struct Copy {
    image: Image,
    log: Vec<Record>,
}

impl Copy {
    /// As a replica does: what the image takes away goes before anything else.
    fn see(&mut self, image: &Image) {
        self.image = image.clone();
        let truncation = image.partition(THERE, 0).unwrap().truncation;
        if let Some(truncation) = truncation {
            let to = usize::try_from(truncation.to).unwrap();
            if self
                .log
                .get(to)
                .is_some_and(|first| first.2 < truncation.leader_epoch)
            {
                self.log.truncate(to);
            }
        }
    }

    fn epoch(&self) -> i32 {
        self.image.partition(THERE, 0).unwrap().leader_epoch
    }
}

struct Two {
    west: Log,
    east: Log,
    west_log: Vec<Record>,
    copies: [Copy; 2],
    /// Who leads in the east: its image has one daemon, which stands for either copy.
    leader: usize,
    rescue: Vec<Record>,
    messages: Vec<(bool, RegionCommand)>,
    written: [u32; 2],
    /// Acknowledged by both copies of the east.
    committed: usize,
}

impl Two {
    fn new() -> Self {
        let east = east();
        let copy = || Copy {
            image: east.image.clone(),
            log: Vec::new(),
        };
        Self {
            copies: [copy(), copy()],
            west: west(),
            east,
            west_log: Vec::new(),
            leader: 0,
            rescue: Vec::new(),
            messages: Vec::new(),
            written: [0, 0],
            committed: 0,
        }
    }

    fn leads(&self) -> &Copy {
        &self.copies[self.leader]
    }

    fn promoted(&self) -> bool {
        self.west.image.flows[FLOW].state == FlowState::Promoted
    }

    fn known(&self) -> Option<MoveState> {
        let known = self.east.image.moves.get(FLOW);
        known.map(|known| known.state)
    }

    fn drive(&mut self) {
        if !self.promoted() {
            return;
        }
        let open = failback(&self.west).clone();
        let cut = self
            .west
            .image
            .partition(TOPIC, 0)
            .unwrap()
            .cut
            .unwrap()
            .target_end;
        self.messages.push(match open.step {
            FailbackStep::Telling => (false, give_way(open.attempt, open.region_epoch)),
            FailbackStep::Rescuing => (false, rescue(open.attempt, cut)),
            FailbackStep::Lowering => (false, complete(open.attempt, open.region_epoch)),
            FailbackStep::GaveWay | FailbackStep::Done => return,
        });
    }

    fn answer(&mut self) {
        if !self.promoted() {
            return;
        }
        let open = failback(&self.west).clone();
        self.messages.push(match (open.step, self.known()) {
            (FailbackStep::Telling, Some(MoveState::GaveWay)) => (true, gave_way(open.attempt)),
            (FailbackStep::Rescuing, Some(MoveState::Rescued)) => {
                (true, tails_kept(open.attempt, &self.east))
            }
            (FailbackStep::Lowering, Some(MoveState::Moved)) => (true, done(open.attempt)),
            _ => return,
        });
    }

    /// What the leader of the east does by the image that it has seen.
    fn keep(&mut self) {
        let leads = &self.copies[self.leader];
        let partition = leads.image.partition(THERE, 0).unwrap();
        let newest = leads.epoch() == epoch(&self.east, THERE);
        let Some(known) = leads.image.moves.get(FLOW).filter(|_| newest) else {
            return;
        };
        let (attempt, leader_epoch) = (known.attempt, leads.epoch());
        match (known.state, partition.fenced_end) {
            (MoveState::GaveWay, None) if self.committed == leads.log.len() => {
                let end = i64::try_from(leads.log.len()).unwrap();
                self.messages.push((false, ends(leader_epoch, end)));
            }
            (MoveState::Rescuing, Some(end)) => {
                let tails = &known.tails[&THERE];
                let cut = tails.partitions[0].history.cut.min(end);
                if cut < end && tails.rescue.is_none() {
                    self.messages.push((false, make_rescue(attempt)));
                    return;
                }
                let have = usize::try_from(cut).unwrap() + self.rescue.len();
                match leads.log.get(have) {
                    Some(record) => self.rescue.push(*record),
                    None => self
                        .messages
                        .push((false, tail_kept(attempt, leader_epoch, (cut, end)))),
                }
            }
            _ => {}
        }
    }

    fn copy(&mut self) {
        if !self.promoted() && self.west.image.flows[FLOW].state == FlowState::Active {
            // Only what is committed in the east is told to anybody.
            if let Some(record) = self.leads().log[..self.committed].get(self.west_log.len()) {
                self.west_log.push(*record);
            }
            return;
        }
        let leader_epoch = epoch(&self.east, THERE);
        let moved = self.leads().image.topic("orders").unwrap().has_moved();
        if !moved || self.leads().epoch() != leader_epoch {
            return;
        }
        let end = self.leads().log.len();
        if let Some(&(side, number, _)) = self.west_log.get(end) {
            let entry = LineageEntry {
                topic: THERE,
                partition: 0,
                leader_epoch,
                lineage: tradewind_wire::flow::Lineage {
                    target_first: i64::try_from(end).unwrap(),
                    source_cluster_id: WEST_ID.to_owned(),
                    source_topic_id: TOPIC,
                    source_epoch: 1,
                    source_first: i64::try_from(end).unwrap(),
                },
            };
            if self.east.image.partition(THERE, 0).unwrap().source_epoch() != Some(1) {
                self.east.must(&Command::Lineage { entries: vec![entry] });
            } else {
                self.copies[self.leader].log.push((side, number, leader_epoch));
            }
        }
    }

    fn follow(&mut self) {
        let [one, two] = &mut self.copies;
        let (leads, follows) = if self.leader == 0 { (one, two) } else { (two, one) };
        if leads.epoch() != follows.epoch() {
            return;
        }
        let same = leads
            .log
            .iter()
            .zip(&follows.log)
            .take_while(|(a, b)| a == b)
            .count();
        follows.log.truncate(same);
        follows.log.extend_from_slice(&leads.log[same..]);
        self.committed = leads.log.len();
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Failover if self.west.image.flows[FLOW].state == FlowState::Active => {
                fail_over(&mut self.west, i64::try_from(self.west_log.len()).unwrap());
            }
            Event::Operator => {
                let _ = region(&mut self.west, begin());
            }
            Event::Drive => self.drive(),
            Event::Answer => self.answer(),
            Event::Lose(which) if !self.messages.is_empty() => {
                let _ = self
                    .messages
                    .swap_remove(usize::from(which) % self.messages.len());
            }
            Event::Deliver(which, again) if !self.messages.is_empty() => {
                let which = usize::from(which) % self.messages.len();
                let (to_west, command) = self.messages[which].clone();
                if !again {
                    self.messages.swap_remove(which);
                }
                let _ = region(if to_west { &mut self.west } else { &mut self.east }, command);
            }
            Event::Sees(which) => self.copies[usize::from(which)].see(&self.east.image),
            Event::Follow => self.follow(),
            Event::Keep => self.keep(),
            Event::WriteEast => {
                let topic = self.leads().image.topic("orders").unwrap();
                if topic.fence.is_none() && !topic.is_mirroring() {
                    let record = (0, self.written[0], self.leads().epoch());
                    self.copies[self.leader].log.push(record);
                    self.written[0] += 1;
                }
            }
            Event::WriteWest if self.promoted() => {
                self.west_log.push((1, self.written[1], 0));
                self.written[1] += 1;
            }
            Event::Copy => self.copy(),
            // Only a copy in sync may lead, and only under the newest image.
            Event::Elect => {
                let other = 1 - self.leader;
                if self.copies[other].log.len() >= self.committed
                    && self.copies[0].epoch() == self.copies[1].epoch()
                {
                    self.follow();
                }
                if self.copies[other].log == self.copies[self.leader].log {
                    self.leader = other;
                    self.copies[other].see(&self.east.image.clone());
                }
            }
            Event::Failover | Event::WriteWest | Event::Lose(_) | Event::Deliver(..) => {}
        }
        self.check();
    }

    /// Whatever a client wrote is somewhere, and what one side has it has once and in order.
    fn check(&self) {
        let what = |records: &[Record]| -> Vec<(u8, u32)> { records.iter().map(|r| (r.0, r.1)).collect() };
        let (west, rescue) = (what(&self.west_log), what(&self.rescue));
        let east = what(&self.leads().log);
        for number in 0..self.written[0] {
            let record = (0, number);
            assert!(
                west.contains(&record) || rescue.contains(&record) || east.contains(&record),
                "record {number} of the east is nowhere"
            );
        }
        let moved = self.leads().image.topic("orders").unwrap().has_moved();
        if moved {
            assert!(west.starts_with(&east), "{east:?} is no beginning of {west:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_disappears_and_the_returned_side_becomes_a_mirror(
        events in proptest::collection::vec(event(), 1..200)
    ) {
        let mut two = Two::new();
        for event in events {
            two.happens(event);
        }
        two.happens(Event::Failover);
        // However it stands, going on without faults ends it.
        for _ in 0..1_000 {
            for event in [
                Event::Operator, Event::Drive, Event::Answer, Event::Sees(false), Event::Sees(true), Event::Follow,
                Event::Keep, Event::Copy,
            ] {
                two.happens(event);
            }
            while !two.messages.is_empty() {
                two.happens(Event::Deliver(0, false));
            }
            if failback(&two.west).step == FailbackStep::Done && two.leads().log.len() == two.west_log.len() {
                break;
            }
        }
        prop_assert_eq!(failback(&two.west).step, FailbackStep::Done);
        let east: Vec<_> = two.leads().log.iter().map(|r| (r.0, r.1)).collect();
        let west: Vec<_> = two.west_log.iter().map(|r| (r.0, r.1)).collect();
        prop_assert_eq!(east, west);
    }
}
