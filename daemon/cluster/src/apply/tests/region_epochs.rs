//! Region epochs of two clusters that do not know the same: a failover is given way to in the end whatever they are, and no
//! number goes down.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tradewind_wire::failback::{FailbackStep, MAX_RAISES};
use tradewind_wire::flow::{FlowSource, FlowSpec, Naming};
use tradewind_wire::ids::TopicId;
use tradewind_wire::region::{MAX_REGION_EPOCH, MoveState, RegionCommand, SourceEnd, SwitchStep};

use super::Log;
use super::regions::{BACK, FLOW, begin, east, last, region, source_fenced, spec, west};
use crate::apply::may_take_up;
use crate::command::{Command, CreateTopic, MetaError, MirrorBinding};
use crate::image::Image;

fn fail_over(log: &mut Log, flow: &str) {
    log.must(&Command::BeginFailover {
        flow: flow.to_owned(),
    });
    let bound = log.image.topics.values();
    let ours = bound.filter(|topic| topic.mirror.as_ref().is_some_and(|mirror| mirror.flow == flow));
    let ours: Vec<TopicId> = ours.map(|topic| topic.id).collect();
    for topic in ours {
        let leader_epoch = super::regions::epoch(log, topic);
        log.must(&Command::RecordCut {
            flow: flow.to_owned(),
            topic,
            partition: 0,
            leader_epoch,
            cut: 0,
            source_end: None,
        });
    }
}

/// The last failover's attempt, region epoch and step.
fn failover(log: &Log, flow: &str) -> (u64, u64, FailbackStep) {
    let failback = log.image.flows[flow].failback.as_ref().unwrap();
    (failback.attempt, failback.region_epoch, failback.step)
}

/// `log`, which has failed `flow` over, tells that it has.
fn told(log: &Log, flow: &str) -> RegionCommand {
    let (attempt, region_epoch, _) = failover(log, flow);
    let (source, target) = flow.split_once("->").unwrap();
    let bound = log
        .image
        .topics
        .values()
        .filter_map(|topic| topic.mirror.as_ref());
    RegionCommand::GiveWay {
        flow: flow.to_owned(),
        peer: target.to_owned(),
        peer_id: format!("{target}-id"),
        attempt,
        region_epoch,
        topics: bound
            .filter(|bound| bound.flow == flow)
            .map(|bound| bound.source_topic_id)
            .collect(),
        reverse: Box::new(spec(target, source)),
    }
}

fn raise(log: &Log, flow: &str, above: u64) -> RegionCommand {
    let (attempt, refused, _) = failover(log, flow);
    RegionCommand::RaiseEpoch {
        flow: flow.to_owned(),
        attempt,
        refused,
        above,
    }
}

fn gave_way(attempt: u64, flow: &str) -> RegionCommand {
    RegionCommand::GaveWay {
        flow: flow.to_owned(),
        attempt,
        at_ms: 1,
        took_ms: 1,
        topics: Vec::new(),
    }
}

fn heard(source: &str, region_epoch: u64) -> RegionCommand {
    RegionCommand::HeardEpoch {
        source: source.to_owned(),
        region_epoch,
    }
}

#[test]
fn a_target_built_anew_fails_over_above_what_its_source_has_told() {
    let (mut west, mut east) = (west(), east());
    east.image.regions.insert("west".to_owned(), 2);
    region(&mut west, heard("east", 2)).unwrap();
    region(&mut west, heard("east", 1)).unwrap();
    assert!(west.image.regions.is_empty(), "it is not ours");
    fail_over(&mut west, FLOW);
    assert_eq!(failover(&west, FLOW).1, 3);
    region(&mut east, told(&west, FLOW)).unwrap();
    assert_eq!(east.image.moves[FLOW].state, MoveState::GaveWay);
}

#[test]
fn a_failover_that_has_not_the_higher_number_gets_it_and_is_told_again() {
    let (mut west, mut east) = (west(), east());
    east.image.regions.insert("west".to_owned(), 5);
    fail_over(&mut west, FLOW);
    let refused = region(&mut east, told(&west, FLOW)).unwrap_err();
    let MetaError::RegionEpoch { own: 5, .. } = refused else {
        panic!("{refused:?}")
    };
    assert!(east.image.moves.is_empty(), "nothing has changed there");
    let late = raise(&west, FLOW, 5);
    region(&mut west, late.clone()).unwrap();
    assert_eq!(failover(&west, FLOW).1, 6);
    // Another steward has found the same.
    region(&mut west, late).unwrap();
    assert_eq!((failover(&west, FLOW).1, west.image.regions["east"]), (6, 6));
    region(&mut east, told(&west, FLOW)).unwrap();
    let attempt = failover(&west, FLOW).0;
    region(&mut west, gave_way(attempt, FLOW)).unwrap();
    let later = raise(&west, FLOW, 9);
    assert!(region(&mut west, later).is_err(), "it is told");
    assert_eq!(failover(&west, FLOW).1, 6);
}

#[test]
fn no_number_that_another_cluster_says_takes_the_room_of_the_next_one() {
    let mut west = west();
    for refused in [heard("east", u64::MAX), heard("north", 1)] {
        region(&mut west, refused).unwrap_err();
    }
    assert!(west.image.heard_epochs.is_empty());
    fail_over(&mut west, FLOW);
    let too_high = raise(&west, FLOW, MAX_REGION_EPOCH + 1);
    region(&mut west, too_high).unwrap_err();
    for above in 0..u64::from(MAX_RAISES) {
        let next = raise(&west, FLOW, 10 + above);
        region(&mut west, next).unwrap();
    }
    let once_more = raise(&west, FLOW, 50);
    let refused = region(&mut west, once_more).unwrap_err();
    assert!(refused.to_string().contains("has refused 8 higher"), "{refused}");
    let mut east = east();
    let mut lie = told(&west, FLOW);
    if let RegionCommand::GiveWay { region_epoch, .. } = &mut lie {
        *region_epoch = u64::MAX;
    }
    region(&mut east, lie).unwrap_err();
    assert!(east.image.regions.is_empty());
}

#[test]
fn what_a_fenced_source_says_leaves_room_for_what_comes_after() {
    let mut west = west();
    region(&mut west, begin(1)).unwrap();
    let attempt = last(&west).attempt;
    let fenced = |region_epoch: u64, end: i64, leader_epoch: i32| {
        let mut said = source_fenced(attempt, SourceEnd { end, leader_epoch });
        if let RegionCommand::SourceFenced {
            region_epoch: said, ..
        } = &mut said
        {
            *said = region_epoch;
        }
        said
    };
    for lie in [
        fenced(u64::MAX, 5, 3),
        fenced(MAX_REGION_EPOCH + 1, 5, 3),
        fenced(0, 5, i32::MAX),
        fenced(0, -1, 3),
    ] {
        region(&mut west, lie).unwrap_err();
        assert_eq!(last(&west).step, SwitchStep::Fencing);
    }
    region(&mut west, fenced(MAX_REGION_EPOCH, 5, 1 << 30)).unwrap();
    let flow = FLOW.to_owned();
    region(
        &mut west,
        RegionCommand::GroupsFenced {
            flow: flow.clone(),
            attempt,
        },
    )
    .unwrap();
    let promote = RegionCommand::Promote {
        flow,
        attempt,
        at_ms: 7,
    };
    region(&mut west, promote).unwrap();
    assert_eq!(west.image.regions["east"], MAX_REGION_EPOCH + 1);
    assert_eq!(super::regions::epoch(&west, super::TOPIC), (1 << 30) + 1);
}

#[test]
fn an_image_of_an_earlier_version_has_heard_of_nothing() {
    let mut west = west();
    fail_over(&mut west, FLOW);
    let mut stored = serde_json::to_value(&west.image).unwrap();
    stored.as_object_mut().unwrap().remove("heard_epochs");
    let failback = stored["flows"][FLOW]["failback"].as_object_mut().unwrap();
    assert!(failback.remove("raised").is_some() && failback.remove("floor").is_some());
    let read: Image = serde_json::from_value(stored).unwrap();
    let mut known = west.image.clone();
    known
        .flows
        .get_mut(FLOW)
        .unwrap()
        .failback
        .as_mut()
        .unwrap()
        .floor = None;
    assert_eq!(read, known);
}

/// Two clusters with a flow each way, which both have a history of their own.
struct Two {
    sides: [Log; 2],
    /// What was said and may arrive, each with the side that it goes to.
    messages: Vec<(usize, RegionCommand)>,
}

const FLOWS: [&str; 2] = [FLOW, BACK];
const NAMES: [&str; 2] = ["west", "east"];

impl Two {
    /// The west is side 0: flow 0 goes there.
    fn new(numbers: [u64; 2]) -> Self {
        let (mut west, mut east) = (west(), east());
        let stock = (TopicId([5; 16]), TopicId([6; 16]));
        west.must(&Command::CreateTopic(CreateTopic::new("stock", stock.0, 1, 1)));
        east.must(&Command::DeclareFlow {
            spec: spec("west", "east"),
        });
        let mut create = CreateTopic::new("stock", stock.1, 1, 1);
        create.mirror = Some(MirrorBinding {
            flow: BACK.to_owned(),
            source_topic: "stock".to_owned(),
            source_topic_id: stock.0,
            origin: None,
        });
        east.must(&Command::CreateTopic(create));
        let mut sides = [west, east];
        for (side, number) in numbers.into_iter().enumerate().filter(|(_, number)| *number > 0) {
            let peer = NAMES[1 - side].to_owned();
            sides[side].image.regions.insert(peer, number);
        }
        Self {
            sides,
            messages: Vec::new(),
        }
    }

    fn open(&self, side: usize) -> bool {
        let flow = &self.sides[side].image.flows[FLOWS[side]];
        let failback = flow.failback.as_ref();
        failback.is_some_and(|failback| failback.step == FailbackStep::Telling)
    }

    /// The source of flow `side` is asked by a steward that sees the newest image, and answers at once; what follows from it
    /// is proposed whenever it arrives.
    fn tell(&mut self, side: usize) {
        if !self.open(side) {
            return;
        }
        let (flow, other) = (FLOWS[side], 1 - side);
        let (attempt, ..) = failover(&self.sides[side], flow);
        let word = told(&self.sides[side], flow);
        let next = match region(&mut self.sides[other], word) {
            Ok(_) => gave_way(attempt, flow),
            Err(MetaError::RegionEpoch { own, .. }) => raise(&self.sides[side], flow, own),
            Err(other) => panic!("{other}"),
        };
        self.messages.push((side, next));
    }

    fn deliver(&mut self, which: usize) {
        if !self.messages.is_empty() {
            let (side, command) = self.messages.remove(which % self.messages.len());
            let _ = region(&mut self.sides[side], command);
        }
    }

    fn numbers(&self) -> [u64; 2] {
        let of = |side: usize| self.sides[side].image.regions.get(NAMES[1 - side]);
        [0, 1].map(|side| of(side).copied().unwrap_or(0))
    }
}

proptest! {
    #[test]
    fn whoever_is_failed_over_gives_way_in_the_end(
        numbers in [0..4u64, 0..4u64],
        steps in proptest::collection::vec((0..5u8, any::<usize>()), 0..30),
        together in any::<bool>(),
    ) {
        let mut two = Two::new(numbers);
        let mut before = two.numbers();
        let fail = |two: &mut Two, side: usize| {
            if two.sides[side].image.flows[FLOWS[side]].failback.is_none() {
                fail_over(&mut two.sides[side], FLOWS[side]);
            }
        };
        for (step, which) in steps {
            match step {
                0 => fail(&mut two, which % 2),
                1 => {
                    // What the guard of a source tells.
                    let (side, number) = (which % 2, two.numbers()[1 - which % 2]);
                    region(&mut two.sides[side], heard(NAMES[1 - side], number)).unwrap();
                }
                2 => two.tell(which % 2),
                _ => two.deliver(which),
            }
            let now = two.numbers();
            prop_assert!(now.iter().zip(before).all(|(now, before)| *now >= before));
            before = now;
        }
        (0..2).for_each(|side| fail(&mut two, side));
        for _ in 0..20 {
            // Both at once each time, or one after the other.
            two.tell(0);
            if !together {
                two.deliver(0);
            }
            two.tell(1);
            while !two.messages.is_empty() {
                two.deliver(0);
            }
        }
        for (side, flow) in FLOWS.into_iter().enumerate() {
            prop_assert!(!two.open(side), "flow {flow} is told for ever");
            let gone = &two.sides[1 - side].image.moves[flow];
            prop_assert_eq!(gone.state, MoveState::GaveWay);
        }
    }
}

#[test]
fn a_flow_that_comes_back_lowers_no_number() {
    let mut two = Two::new([0, 0]);
    fail_over(&mut two.sides[0], FLOW);
    two.tell(0);
    two.deliver(0);
    two.sides[1].image.regions.insert("west".to_owned(), 7);
    let (attempt, region_epoch, _) = failover(&two.sides[0], FLOW);
    let east = &mut two.sides[1];
    east.image.moves.get_mut(FLOW).unwrap().state = MoveState::Rescued;
    let here = tradewind_wire::region::MovedTopic {
        name: "orders".to_owned(),
        id: super::TOPIC,
    };
    east.image.flows.remove(BACK);
    let complete = RegionCommand::Complete {
        flow: FLOW.to_owned(),
        peer_id: "west-id".to_owned(),
        attempt,
        region_epoch,
        topics: BTreeMap::from([(super::regions::THERE, here)]),
    };
    region(east, complete).unwrap();
    assert_eq!(east.image.regions["west"], 7);
}

/// Flows both ways, both failed over, and both sides have given way: neither failover is forgotten by bringing the other one home,
/// and an operator may give one of them up.
#[test]
fn a_failover_is_not_forgotten_while_its_source_has_not_come_back() {
    let mut two = Two::new([0, 0]);
    fail_over(&mut two.sides[0], FLOW);
    fail_over(&mut two.sides[1], BACK);
    for side in [0, 1, 0, 1, 0, 1] {
        two.tell(side);
        two.deliver(0);
    }
    let east = &mut two.sides[1];
    assert_eq!(east.image.moves[FLOW].state, MoveState::GaveWay);
    assert_eq!(failover(east, BACK).2, FailbackStep::GaveWay);
    let back = east.image.flows[BACK].spec.clone();
    let refused = may_take_up(&east.image, Some(&back)).unwrap_err();
    assert!(refused.to_string().contains("--forget-source"), "{refused}");
    let remove = |forget_source| Command::RemoveFlow {
        flow: BACK.to_owned(),
        at_ms: 1,
        keep_topics: true,
        forget_source,
    };
    assert!(east.apply(&remove(false)).is_err());
    east.must(&remove(true));
    assert_eq!(may_take_up(&east.image, Some(&back)), Ok(()));
}

/// An own flow from the other side is in the way of a failback; it may be removed.
#[test]
fn what_is_in_the_way_of_a_failback_may_go() {
    let mut two = Two::new([0, 0]);
    fail_over(&mut two.sides[0], FLOW);
    two.tell(0);
    two.deliver(0);
    let east = &mut two.sides[1];
    let back = east.image.flows[BACK].spec.clone();
    assert!(may_take_up(&east.image, Some(&back)).is_err());
    east.must(&Command::RemoveFlow {
        flow: BACK.to_owned(),
        at_ms: 1,
        keep_topics: true,
        forget_source: false,
    });
    assert_eq!(may_take_up(&east.image, Some(&back)), Ok(()));
}

#[test]
fn what_a_lost_source_is_reached_by_stays_until_it_has_come_back() {
    let mut west = west();
    fail_over(&mut west, FLOW);
    let known = west.image.flows[FLOW].spec.clone();
    let prefixed = Naming::Prefix {
        separator: ".".to_owned(),
    };
    let declare = |change: &dyn Fn(&mut FlowSpec)| {
        let mut spec = known.clone();
        change(&mut spec);
        Command::DeclareFlow { spec }
    };
    for wrong in [
        declare(&|spec| spec.naming = prefixed.clone()),
        declare(&|spec| spec.source = FlowSource::Kafka(vec!["east-1:9092".to_owned()])),
    ] {
        assert!(west.apply(&wrong).is_err(), "{wrong:?}");
    }
    west.must(&declare(&|spec| {
        spec.source = FlowSource::Mesh(vec!["elsewhere:7100".to_owned()]);
    }));
}
