//! Switchover: the steps of both sides one by one, then random histories of two clusters that lose, repeat and delay each
//! other's messages. In every history at most one side takes writes, and nothing is promoted that lacks a record.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tradewind_wire::flow::{FlowSource, FlowSpec, Naming};
use tradewind_wire::ids::TopicId;
use tradewind_wire::region::{
    MoveState, MovedTopic, PartitionEnd, RegionCommand, SourceEnd, SwitchStep, Switchover,
};

use super::{Log, TOPIC};
use crate::command::{Command, CreateTopic, GrowTopic, MetaError, MirrorBinding, Outcome};
use crate::image::{FlowState, Image};

pub(super) const THERE: TopicId = TopicId([3; 16]);
pub(super) const FLOW: &str = "east->west";
pub(super) const BACK: &str = "west->east";
pub(super) const WEST_ID: &str = "west-id";

pub(super) fn spec(from: &str, to: &str) -> FlowSpec {
    FlowSpec {
        source_cluster: from.to_owned(),
        target_cluster: to.to_owned(),
        source: FlowSource::Mesh(vec!["there:7100".to_owned()]),
        topics: vec![".*".to_owned()],
        topics_exclude: Vec::new(),
        groups: vec![".*".to_owned()],
        groups_exclude: Vec::new(),
        naming: Naming::Identity,
    }
}

/// The west, with the mirror of one topic of one partition.
pub(super) fn west() -> Log {
    west_of(spec("east", "west"))
}

/// The same with names of its own.
pub(super) fn prefixed_west() -> Log {
    let mut prefixed = spec("east", "west");
    prefixed.naming = Naming::Prefix {
        separator: ".".to_owned(),
    };
    west_of(prefixed)
}

fn west_of(spec: FlowSpec) -> Log {
    let mut log = Log::with(1);
    let here = spec.naming.target_topic("east", "orders");
    log.must(&Command::DeclareFlow { spec });
    let mut create = CreateTopic::new(&here, TOPIC, 1, 1);
    create.mirror = Some(MirrorBinding {
        flow: FLOW.to_owned(),
        source_topic: "orders".to_owned(),
        source_topic_id: THERE,
        origin: None,
    });
    log.must(&Command::CreateTopic(create));
    log
}

/// The east, with the topic itself and the one that groups commit to.
pub(super) fn east() -> Log {
    let mut log = Log::with(1);
    log.must(&Command::CreateTopic(CreateTopic::new("orders", THERE, 1, 1)));
    let offsets = CreateTopic::new("__consumer_offsets", TopicId([9; 16]), 2, 1);
    log.must(&Command::CreateTopic(offsets));
    log
}

pub(super) fn region(log: &mut Log, command: RegionCommand) -> Result<Outcome, MetaError> {
    log.apply(&Command::Region(command))
}

pub(super) fn begin(at_ms: i64) -> RegionCommand {
    RegionCommand::Begin {
        flow: FLOW.to_owned(),
        at_ms,
        deadline_ms: at_ms + 60_000,
        group_drain_ms: 0,
    }
}

fn fence(attempt: u64) -> RegionCommand {
    RegionCommand::Fence {
        flow: FLOW.to_owned(),
        peer: "west".to_owned(),
        peer_id: WEST_ID.to_owned(),
        attempt,
        topics: vec![THERE],
        reverse: Box::new(spec("west", "east")),
    }
}

fn fence_groups(attempt: u64) -> RegionCommand {
    RegionCommand::FenceGroups {
        flow: FLOW.to_owned(),
        peer_id: WEST_ID.to_owned(),
        attempt,
    }
}

fn release(attempt: u64) -> RegionCommand {
    RegionCommand::Release {
        flow: FLOW.to_owned(),
        peer: "west".to_owned(),
        peer_id: WEST_ID.to_owned(),
        attempt,
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

fn ends(leader_epoch: i32, end: i64) -> RegionCommand {
    RegionCommand::Ends(vec![PartitionEnd {
        topic: THERE,
        partition: 0,
        leader_epoch,
        end,
    }])
}

pub(super) fn source_fenced(attempt: u64, end: SourceEnd) -> RegionCommand {
    RegionCommand::SourceFenced {
        flow: FLOW.to_owned(),
        attempt,
        at_ms: 5,
        region_epoch: 0,
        ends: BTreeMap::from([(TOPIC, vec![end])]),
    }
}

pub(super) fn last(log: &Log) -> &Switchover {
    log.image.flows[FLOW].switchover.as_ref().unwrap()
}

fn promote(attempt: u64) -> RegionCommand {
    RegionCommand::Promote {
        flow: FLOW.to_owned(),
        attempt,
        at_ms: 9,
    }
}

fn groups_fenced(attempt: u64) -> RegionCommand {
    RegionCommand::GroupsFenced {
        flow: FLOW.to_owned(),
        attempt,
    }
}

fn abort(attempt: u64) -> RegionCommand {
    RegionCommand::Abort {
        flow: FLOW.to_owned(),
        attempt,
        at_ms: 8,
        reason: "because".to_owned(),
    }
}

fn end(attempt: u64) -> RegionCommand {
    RegionCommand::End {
        flow: FLOW.to_owned(),
        attempt,
    }
}

pub(super) fn epoch(log: &Log, topic: TopicId) -> i32 {
    log.image.partition(topic, 0).unwrap().leader_epoch
}

/// Every step once, each said twice. Answers the two sides.
fn switched_over() -> (Log, Log) {
    let (mut west, mut east) = (west(), east());
    let twice = |log: &mut Log, command: RegionCommand| {
        region(log, command.clone()).unwrap();
        region(log, command).unwrap();
    };
    twice(&mut west, begin(1));
    let attempt = last(&west).attempt;
    let before = epoch(&east, THERE);
    twice(&mut east, fence(attempt));
    let fenced = epoch(&east, THERE);
    assert!(
        fenced > before,
        "what is under way under the old epoch is refused"
    );
    region(&mut east, ends(before, 40)).unwrap();
    assert_eq!(
        east.image.partition(THERE, 0).unwrap().fenced_end,
        None,
        "an end of an old epoch"
    );
    twice(&mut east, ends(fenced, 42));
    region(&mut east, ends(fenced, 43)).unwrap();
    assert_eq!(
        east.image.partition(THERE, 0).unwrap().fenced_end,
        Some(42),
        "the first word stands"
    );
    let end_there = SourceEnd {
        end: 42,
        leader_epoch: fenced,
    };
    twice(&mut west, source_fenced(attempt, end_there));
    assert!(
        region(&mut west, promote(attempt)).is_err(),
        "groups may still commit"
    );
    let offsets = epoch(&east, TopicId([9; 16]));
    twice(&mut east, fence_groups(attempt));
    assert_eq!(epoch(&east, TopicId([9; 16])), offsets + 1, "once, not twice");
    twice(&mut west, groups_fenced(attempt));
    twice(&mut west, promote(attempt));
    let topic = west.image.topic("orders").unwrap();
    assert!(!topic.is_mirroring());
    let partition = topic.partition(0).unwrap();
    assert!(partition.leader_epoch > fenced, "above both sides'");
    assert_eq!(partition.cut.map(|cut| cut.target_end), Some(42));
    twice(&mut east, complete(attempt, last(&west).region_epoch));
    twice(&mut west, end(attempt));
    (west, east)
}

#[test]
fn a_switchover_ends_with_the_source_as_the_mirror_of_what_it_was() {
    let (west, east) = switched_over();
    assert_eq!(last(&west).step, SwitchStep::Done);
    let topic = east.image.topic("orders").unwrap();
    let mirror = topic.mirror.as_ref().unwrap();
    assert!(topic.has_moved());
    assert_eq!((mirror.flow.as_str(), mirror.source_topic_id), (BACK, TOPIC));
    assert_eq!(east.image.flows[BACK].state, FlowState::Active);
    assert_eq!(east.image.moves[FLOW].state, MoveState::Moved);
    assert_eq!((east.image.regions["west"], west.image.regions["east"]), (1, 1));
}

#[test]
fn what_has_moved_comes_back_by_a_failover_too_when_the_other_side_is_lost() {
    let (_, mut east) = switched_over();
    let mut prefixed = spec("west", "east");
    prefixed.naming = Naming::Prefix {
        separator: ".".to_owned(),
    };
    let refused = east.apply(&Command::DeclareFlow { spec: prefixed });
    assert!(
        matches!(refused, Err(MetaError::Region(_))),
        "its topics have their own names"
    );
    east.must(&Command::BeginFailover {
        flow: BACK.to_owned(),
    });
    assert!(
        east.image.topic("orders").unwrap().has_moved(),
        "not before the cut"
    );
    let leader_epoch = epoch(&east, THERE);
    east.must(&Command::RecordCut {
        flow: BACK.to_owned(),
        topic: THERE,
        partition: 0,
        leader_epoch,
        cut: 60,
        source_end: None,
    });
    let topic = east.image.topic("orders").unwrap();
    assert!(topic.fence.is_none() && !topic.is_mirroring());
}

#[test]
fn what_has_moved_can_move_back() {
    let (mut west, mut east) = switched_over();
    let back = |wish: RegionCommand| match wish {
        RegionCommand::Begin { .. } => RegionCommand::Begin {
            flow: BACK.to_owned(),
            at_ms: 1,
            deadline_ms: 2,
            group_drain_ms: 0,
        },
        other => other,
    };
    region(&mut east, back(begin(1))).unwrap();
    let open = east.image.flows[BACK].switchover.clone().unwrap();
    region(
        &mut west,
        RegionCommand::Fence {
            flow: BACK.to_owned(),
            peer: "east".to_owned(),
            peer_id: "east-id".to_owned(),
            attempt: open.attempt,
            topics: vec![TOPIC],
            reverse: Box::new(spec("east", "west")),
        },
    )
    .unwrap();
    region(
        &mut east,
        RegionCommand::SourceFenced {
            flow: BACK.to_owned(),
            attempt: open.attempt,
            at_ms: 1,
            region_epoch: west.image.regions["east"],
            ends: BTreeMap::from([(
                THERE,
                vec![SourceEnd {
                    end: 50,
                    leader_epoch: 20,
                }],
            )]),
        },
    )
    .unwrap();
    for command in [
        RegionCommand::GroupsFenced {
            flow: BACK.to_owned(),
            attempt: open.attempt,
        },
        RegionCommand::Promote {
            flow: BACK.to_owned(),
            attempt: open.attempt,
            at_ms: 3,
        },
    ] {
        region(&mut east, command).unwrap();
    }
    let topic = east.image.topic("orders").unwrap();
    assert!(
        topic.fence.is_none() && !topic.is_mirroring(),
        "the clients' own again"
    );
    assert_eq!(epoch(&east, THERE), 21);
    region(
        &mut west,
        RegionCommand::FenceGroups {
            flow: BACK.to_owned(),
            peer_id: "east-id".to_owned(),
            attempt: open.attempt,
        },
    )
    .unwrap();
    region(
        &mut west,
        RegionCommand::Complete {
            flow: BACK.to_owned(),
            peer_id: "east-id".to_owned(),
            attempt: open.attempt,
            region_epoch: 2,
            topics: BTreeMap::from([(
                TOPIC,
                MovedTopic {
                    name: "orders".to_owned(),
                    id: THERE,
                },
            )]),
        },
    )
    .unwrap();
    assert_eq!(
        west.image.flows[FLOW].state,
        FlowState::Active,
        "the first flow copies again"
    );
    assert!(west.image.topic("orders").unwrap().has_moved());
}

#[test]
fn an_attempt_that_was_given_up_fences_nothing_however_late_it_comes() {
    let (mut west, mut east) = (west(), east());
    region(&mut west, begin(1)).unwrap();
    let first = last(&west).attempt;
    region(&mut west, abort(first)).unwrap();
    assert!(region(&mut west, promote(first)).is_err(), "given up is given up");
    assert!(
        region(&mut west, begin(2)).is_err(),
        "the source may be fenced until it has heard of it"
    );
    region(&mut east, release(first)).unwrap();
    assert!(region(&mut east, fence(first)).is_err());
    assert!(east.image.topic("orders").unwrap().fence.is_none());
    region(&mut west, end(first)).unwrap();
    region(&mut west, begin(3)).unwrap();
    let second = last(&west).attempt;
    region(&mut east, fence(second)).unwrap();
    region(&mut east, release(first)).unwrap();
    assert!(
        east.image.topic("orders").unwrap().fence.is_some(),
        "a late release of another"
    );
}

#[test]
fn a_fenced_topic_is_neither_deleted_nor_grown_and_a_failover_leaves_it_fenced() {
    let (mut west, mut east) = (west(), east());
    region(&mut west, begin(1)).unwrap();
    region(&mut east, fence(last(&west).attempt)).unwrap();
    let grow = GrowTopic {
        id: THERE,
        count: 2,
        assignment: None,
        flow: None,
    };
    for command in [Command::DeleteTopic { id: THERE }, Command::GrowTopic(grow)] {
        assert!(
            matches!(east.apply(&command), Err(MetaError::FencedTopic { .. })),
            "{command:?}"
        );
    }
    west.must(&Command::BeginFailover {
        flow: FLOW.to_owned(),
    });
    assert_eq!(last(&west).step, SwitchStep::FailedOver);
    let attempt = last(&west).attempt;
    assert!(
        region(&mut west, abort(attempt)).is_err(),
        "nobody may release the source now"
    );
}

#[test]
fn what_cannot_be_switched_over_is_refused() {
    assert!(
        region(&mut prefixed_west(), begin(1)).is_err(),
        "the topic is called otherwise here"
    );
    let mut log = west();
    let mut kafka = spec("east", "west");
    kafka.source = FlowSource::Kafka(vec!["kafka:9092".to_owned()]);
    log.must(&Command::DeclareFlow { spec: kafka });
    assert!(region(&mut log, begin(1)).is_err(), "nobody could fence it");
    let mut source = east();
    source.must(&Command::DeclareFlow {
        spec: spec("west", "east"),
    });
    assert!(
        region(&mut source, fence(1)).is_err(),
        "there is a flow back already"
    );
    assert!(source.image.moves.is_empty());
}

/// What may happen next; the number picks a message.
#[derive(Debug, Clone, Copy)]
enum Event {
    Begin,
    Abort,
    /// A steward of the west does what its image asks for. There may be several.
    Drive,
    /// A message is delivered, and perhaps once more later.
    Deliver(u8, bool),
    Lose(u8),
    /// The east's leader takes over the east's image, and says its end if it is asked for.
    LeaderSees,
    /// A client writes at the east's leader, if that one takes it.
    Write,
    /// The mirror copies all that the east has.
    Copy,
    /// A steward reads the east's answer, as it is now, for its next step.
    Answer,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::Begin),
        1 => Just(Event::Abort),
        6 => Just(Event::Drive),
        8 => (any::<u8>(), any::<bool>()).prop_map(|(which, again)| Event::Deliver(which, again)),
        2 => any::<u8>().prop_map(Event::Lose),
        5 => Just(Event::LeaderSees),
        4 => Just(Event::Write),
        4 => Just(Event::Copy),
        6 => Just(Event::Answer),
    ]
}

struct Two {
    west: Log,
    east: Log,
    /// To the west (true) or the east, under way.
    messages: Vec<(bool, RegionCommand)>,
    /// The image that the east's leader acts on.
    leader: Image,
    written: i64,
    copied: i64,
    /// How many attempts were promoted.
    promoted: u32,
}

impl Two {
    fn new() -> Self {
        let east = east();
        Self {
            leader: east.image.clone(),
            west: west(),
            east,
            messages: Vec::new(),
            written: 0,
            copied: 0,
            promoted: 0,
        }
    }

    fn open(&self) -> Option<&Switchover> {
        self.west.image.flows[FLOW].switchover.as_ref()
    }

    fn east_takes_writes(&self) -> bool {
        let topic = self.leader.topic("orders").unwrap();
        topic.fence.is_none() && !topic.is_mirroring()
    }

    fn drive(&mut self) {
        let Some(open) = self.open().cloned() else { return };
        let attempt = open.attempt;
        self.messages.push(match open.step {
            SwitchStep::Fencing => (false, fence(attempt)),
            SwitchStep::Draining if self.copied >= open.ends[&TOPIC][0].end => (false, fence_groups(attempt)),
            SwitchStep::Settling if self.copied >= open.ends[&TOPIC][0].end => (true, promote(attempt)),
            SwitchStep::Promoted => (false, complete(attempt, open.region_epoch)),
            SwitchStep::Aborting => (false, release(attempt)),
            _ => return,
        });
    }

    fn answer(&mut self) {
        let Some(open) = self.open().cloned() else { return };
        let attempt = open.attempt;
        let known = self
            .east
            .image
            .moves
            .get(FLOW)
            .filter(|known| known.attempt == attempt);
        let Some(state) = known.map(|known| known.state) else {
            return;
        };
        let partition = self.east.image.partition(THERE, 0).unwrap();
        let said = partition.fenced_end.map(|end| SourceEnd {
            end,
            leader_epoch: partition.leader_epoch,
        });
        self.messages.push((
            true,
            match (open.step, state, said) {
                (SwitchStep::Fencing, MoveState::Fenced, Some(end)) => source_fenced(attempt, end),
                (SwitchStep::Draining, MoveState::GroupsFenced, _) => groups_fenced(attempt),
                (SwitchStep::Promoted, MoveState::Moved, _) => end(attempt),
                (SwitchStep::Aborting, MoveState::Released, _) => end(attempt),
                _ => return,
            },
        ));
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Begin => {
                let _ = region(&mut self.west, begin(1));
            }
            Event::Abort => {
                if let Some(attempt) = self.open().map(|open| open.attempt) {
                    self.messages.push((true, abort(attempt)));
                }
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
            Event::LeaderSees => {
                self.leader = self.east.image.clone();
                let topic = self.leader.topic("orders").unwrap();
                let partition = topic.partition(0).unwrap();
                if topic.fence.is_some() && !topic.is_mirroring() && partition.fenced_end.is_none() {
                    self.messages
                        .push((false, ends(partition.leader_epoch, self.written)));
                }
            }
            Event::Write if self.east_takes_writes() => self.written += 1,
            Event::Copy => self.copied = self.written,
            Event::Write | Event::Lose(_) | Event::Deliver(..) => {}
        }
        self.check();
    }

    fn check(&mut self) {
        let topic = self.west.image.topic("orders").unwrap();
        if topic.is_mirroring() {
            return;
        }
        self.promoted = 1;
        assert!(!self.east_takes_writes(), "both sides take writes");
        let cut = topic.partition(0).unwrap().cut.unwrap();
        assert_eq!(
            cut.target_end, self.written,
            "promoted without a record, or with one too many"
        );
        assert!(self.copied >= cut.target_end);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn at_most_one_side_takes_writes_and_the_other_can_always_be_brought_to_its_end(
        events in proptest::collection::vec(event(), 1..160)
    ) {
        let mut two = Two::new();
        for event in events {
            two.happens(event);
        }
        // However it stands, going on without faults ends it.
        for _ in 0..12 {
            for event in [Event::Copy, Event::Drive, Event::LeaderSees, Event::Answer] {
                two.happens(event);
            }
            while !two.messages.is_empty() {
                two.happens(Event::Deliver(0, false));
            }
        }
        if let Some(open) = two.open() {
            prop_assert!(!open.step.is_open(), "{open:?}");
            prop_assert_eq!(two.promoted == 1, open.step == SwitchStep::Done);
            two.leader = two.east.image.clone();
            prop_assert_eq!(two.east_takes_writes(), two.promoted == 0);
        }
    }
}
