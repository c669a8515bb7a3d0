//! Flows: declaration, lineage, failover.

use tradewind_wire::flow::{FlowSource, FlowSpec, Lineage, Naming, Origin, Pause};
use tradewind_wire::ids::TopicId;
use tradewind_wire::region::RegionCommand;

use super::{Log, TOPIC, registration};
use crate::command::{
    Command, CreateTopic, GrowTopic, LineageEntry, MetaError, MirrorBinding, Outcome, StaleWhat,
};
use crate::image::{DaemonState, FlowState, Image, MirrorState};

fn flow_spec() -> FlowSpec {
    FlowSpec {
        source_cluster: "east".to_owned(),
        target_cluster: "west".to_owned(),
        source: FlowSource::Mesh(vec!["east-1:7100".to_owned()]),
        topics: vec![".*".to_owned()],
        topics_exclude: Vec::new(),
        groups: vec![".*".to_owned()],
        groups_exclude: Vec::new(),
        naming: Naming::Identity,
    }
}

/// A flow with one mirror topic of two partitions on three daemons.
fn mirrored() -> Log {
    let mut log = Log::with(3);
    log.must(&Command::DeclareFlow { spec: flow_spec() });
    let mut create = CreateTopic::new("orders", TOPIC, 2, 3);
    create.assignment = Some(vec![vec![1, 2, 3], vec![2, 3, 1]]);
    create.mirror = Some(MirrorBinding {
        flow: "east->west".to_owned(),
        source_topic: "orders".to_owned(),
        source_topic_id: TopicId([3; 16]),
        origin: None,
    });
    log.must(&Command::CreateTopic(create));
    log
}

fn remove((keep_topics, forget_source): (bool, bool)) -> Command {
    Command::RemoveFlow {
        flow: "east->west".to_owned(),
        at_ms: 7,
        keep_topics,
        forget_source,
    }
}

fn lineage_entry(log: &Log, source_epoch: i32, first: i64) -> LineageEntry {
    LineageEntry {
        topic: TOPIC,
        partition: 0,
        leader_epoch: log.partition().leader_epoch,
        lineage: Lineage {
            target_first: first,
            source_cluster_id: "abc".to_owned(),
            source_topic_id: TopicId([3; 16]),
            source_epoch,
            source_first: first,
        },
    }
}

fn enter(log: &mut Log, entry: LineageEntry) -> Result<i32, MetaError> {
    match log.must(&Command::Lineage { entries: vec![entry] }) {
        Outcome::Lineage(mut results) => results.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn declaring_a_flow_again_changes_nothing_and_another_declaration_is_another_version() {
    let mut log = mirrored();
    let again = log.must(&Command::DeclareFlow { spec: flow_spec() });
    let active = |version| Outcome::Flow {
        version,
        state: FlowState::Active,
    };
    assert_eq!(again, active(1));
    let mut spec = flow_spec();
    spec.topics = vec!["orders".to_owned()];
    assert_eq!(log.must(&Command::DeclareFlow { spec }), active(2));
    let refused = log.apply(&remove((false, false)));
    assert!(matches!(refused, Err(MetaError::MirrorTopic { .. })));
}

#[test]
fn a_file_declares_what_is_new_and_neither_changes_nor_brings_back() {
    let mut log = mirrored();
    let mut other = flow_spec();
    other.topics = vec!["orders".to_owned()];
    log.must(&Command::OfferFlow { spec: other.clone() });
    assert_eq!(log.image.flows["east->west"].spec, flow_spec());
    assert_eq!(log.image.flows["east->west"].version, 1);

    for _ in 0..2 {
        log.must(&remove((true, false)));
        assert!(log.image.flows.is_empty());
    }
    let orders = log.image.topic("orders").unwrap();
    assert!(orders.is_mirroring(), "it stays read-only");
    let refused = log.apply(&Command::OfferFlow { spec: flow_spec() });
    assert_eq!(refused, Err(MetaError::RemovedFlow("east->west".to_owned())));
    let entry = lineage_entry(&log, 5, 0);
    assert!(matches!(enter(&mut log, entry), Err(MetaError::NotMirroring(_))));

    // By command it goes on, where its topics stand.
    log.must(&Command::DeclareFlow { spec: other });
    assert!(log.image.removed_flows.is_empty());
    let entry = lineage_entry(&log, 5, 0);
    assert_eq!(enter(&mut log, entry), Ok(5));
}

#[test]
fn a_naming_changes_only_while_no_mirror_topic_has_a_name_of_the_one_before() {
    let mut log = mirrored();
    let mut prefixed = flow_spec();
    prefixed.naming = Naming::Prefix {
        separator: ".".to_owned(),
    };
    let declare = |spec: &FlowSpec| Command::DeclareFlow { spec: spec.clone() };
    let refused = log.apply(&declare(&prefixed));
    assert!(matches!(refused, Err(MetaError::Naming { .. })), "{refused:?}");
    log.must(&remove((true, false)));
    let refused = log.apply(&declare(&prefixed));
    assert!(matches!(refused, Err(MetaError::Naming { .. })), "{refused:?}");
    log.must(&Command::DeleteTopic { id: TOPIC });
    log.must(&declare(&prefixed));
}

#[test]
fn a_flow_that_changes_hands_is_not_removed() {
    let mut log = mirrored();
    log.must(&Command::BeginFailover {
        flow: "east->west".to_owned(),
    });
    let refused = log.apply(&remove((true, true)));
    assert!(matches!(refused, Err(MetaError::FlowState { .. })), "{refused:?}");
    for partition in 0..2 {
        let leader_epoch = log.image.partition(TOPIC, partition).unwrap().leader_epoch;
        log.must(&Command::RecordCut {
            flow: "east->west".to_owned(),
            topic: TOPIC,
            partition,
            leader_epoch,
            cut: 0,
            source_end: None,
        });
    }
    // Nobody would tell the lost side, and then nobody could bring it back.
    let refused = log.apply(&remove((true, false)));
    assert!(matches!(refused, Err(MetaError::Region(_))), "{refused:?}");
    let attempt = log.image.flows["east->west"].failback.as_ref().unwrap().attempt;
    log.must(&Command::Region(RegionCommand::GaveWay {
        flow: "east->west".to_owned(),
        attempt,
        at_ms: 9,
        took_ms: 1,
        topics: vec![TOPIC],
    }));
    let refused = log.apply(&remove((true, false)));
    assert!(matches!(refused, Err(MetaError::Region(_))), "{refused:?}");
    log.must(&remove((true, true)));
    assert!(!log.image.topic("orders").unwrap().is_mirroring());
}

#[test]
fn lineage_raises_the_leader_epoch_to_the_sources_and_never_lowers_it() {
    let mut log = mirrored();
    let entry = lineage_entry(&log, 5, 0);
    assert_eq!(enter(&mut log, entry.clone()), Ok(5));
    assert_eq!(enter(&mut log, entry), Ok(5), "an answer that was lost");
    assert_eq!(log.partition().lineage.len(), 1);
    for _ in 0..3 {
        log.fence(log.partition().leader.unwrap());
        let fenced: Vec<_> = log
            .image
            .nodes
            .values()
            .filter(|daemon| daemon.state == DaemonState::Fenced)
            .map(|daemon| daemon.id)
            .collect();
        for node in fenced {
            log.unfence(node);
        }
    }
    let above = log.partition().leader_epoch;
    assert!(above > 6);
    let entry = lineage_entry(&log, 6, 10);
    assert_eq!(enter(&mut log, entry), Ok(above));
    let backwards = lineage_entry(&log, 5, 20);
    assert!(matches!(
        enter(&mut log, backwards),
        Err(MetaError::LineageOrder(_))
    ));
    // Ours could not rise above it at a failover.
    let beyond = lineage_entry(&log, i32::MAX, 20);
    assert!(matches!(enter(&mut log, beyond), Err(MetaError::LineageOrder(_))));
    assert_eq!(log.partition().leader_epoch, above);
    let mut stale = lineage_entry(&log, 8, 20);
    stale.leader_epoch -= 1;
    assert!(matches!(
        enter(&mut log, stale),
        Err(MetaError::Stale {
            what: StaleWhat::LeaderEpoch,
            ..
        })
    ));
}

#[test]
fn failover_fences_mirrored_appends_and_promotes_with_the_last_cut() {
    let mut log = mirrored();
    let entry = lineage_entry(&log, 5, 0);
    enter(&mut log, entry).unwrap();
    let flow = "east->west".to_owned();
    let cut = |log: &Log, partition, at| Command::RecordCut {
        flow: "east->west".to_owned(),
        topic: TOPIC,
        partition,
        leader_epoch: log.image.partition(TOPIC, partition).unwrap().leader_epoch,
        cut: at,
        source_end: Some(120),
    };
    let early = cut(&log, 0, 100);
    assert!(matches!(log.apply(&early), Err(MetaError::FlowState { .. })));
    log.must(&Command::BeginFailover { flow: flow.clone() });
    assert_eq!(log.partition().leader_epoch, 6, "above both sides'");
    assert!(matches!(
        log.apply(&early),
        Err(MetaError::Stale {
            what: StaleWhat::LeaderEpoch,
            ..
        })
    ));
    let late_entry = lineage_entry(&log, 9, 100);
    assert!(matches!(
        enter(&mut log, late_entry),
        Err(MetaError::NotMirroring(_))
    ));
    log.must(&Command::BeginFailover { flow: flow.clone() });
    assert_eq!(
        log.partition().leader_epoch,
        6,
        "beginning twice is beginning once"
    );

    let first = cut(&log, 0, 100);
    log.must(&first);
    let again = cut(&log, 0, 90);
    let Outcome::Cut(recorded) = log.must(&again) else {
        panic!("not a cut");
    };
    assert_eq!(
        (recorded.target_end, recorded.leader_epoch),
        (100, 6),
        "the first one stands"
    );
    assert_eq!(log.image.flows[&flow].state, FlowState::FailingOver);
    let grow = GrowTopic {
        id: TOPIC,
        count: 3,
        assignment: None,
        flow: Some(flow.clone()),
    };
    assert!(log.apply(&Command::GrowTopic(grow)).is_err());

    let last = cut(&log, 1, 7);
    log.must(&last);
    assert_eq!(log.image.flows[&flow].state, FlowState::Promoted);
    let topic = log.image.topic("orders").unwrap();
    assert_eq!(topic.mirror.as_ref().unwrap().state, MirrorState::Promoted);
    log.must(&Command::DeclareFlow { spec: flow_spec() });
    assert_eq!(
        log.image.flows[&flow].state,
        FlowState::Promoted,
        "a daemon that restarts with the flow in its file does not undo a failover"
    );
}

fn pause(topic: Option<&str>, at_ms: i64) -> Command {
    let (flow, reason) = ("east->west".to_owned(), format!("since {at_ms}"));
    match topic {
        Some(topic) => Command::PauseTopic {
            flow,
            topic: topic.to_owned(),
            pause: (at_ms > 0).then_some(Pause {
                since_ms: at_ms,
                reason,
            }),
        },
        None => Command::PauseFlow {
            flow,
            paused: at_ms > 0,
            at_ms,
            reason,
        },
    }
}

#[test]
fn a_pause_keeps_its_first_reason_and_ends_for_flow_and_topic_apart() {
    let mut log = mirrored();
    let kept = |log: &Log| {
        let since = |pause: &Option<Pause>| pause.as_ref().map(|pause| pause.since_ms);
        let flow = &log.image.flows["east->west"];
        let mirror = log.image.topic("orders").unwrap().mirror.clone().unwrap();
        (flow.state, since(&flow.paused), since(&mirror.paused))
    };
    log.must(&pause(None, 5));
    log.must(&pause(None, 6));
    log.must(&pause(Some("orders"), 7));
    assert_eq!(kept(&log), (FlowState::Paused, Some(5), Some(7)));
    log.must(&Command::DeclareFlow { spec: flow_spec() });
    log.must(&pause(None, 0));
    log.must(&pause(None, 0));
    assert_eq!(kept(&log), (FlowState::Active, None, Some(7)));
    log.must(&pause(Some("orders"), 0));
    assert_eq!(kept(&log), (FlowState::Active, None, None));
    let unknown = log.apply(&pause(Some("bills"), 8));
    assert!(matches!(unknown, Err(MetaError::NotMirroring(_))));

    log.must(&pause(None, 9));
    log.must(&Command::BeginFailover {
        flow: "east->west".to_owned(),
    });
    assert_eq!(
        kept(&log),
        (FlowState::FailingOver, Some(9), None),
        "for the report"
    );
    assert!(matches!(
        log.apply(&pause(None, 0)),
        Err(MetaError::FlowState { .. })
    ));
}

#[test]
fn what_was_stored_before_there_were_reasons_is_read() {
    let old = r#"{"PauseFlow":{"flow":"east->west","paused":true}}"#;
    let read: Command = serde_json::from_str(old).unwrap();
    assert!(matches!(read, Command::PauseFlow { at_ms: 0, .. }));
    let log = mirrored();
    let mut image = serde_json::to_value(&log.image).unwrap();
    image["flows"]["east->west"]
        .as_object_mut()
        .unwrap()
        .remove("paused");
    for topic in image["topics"].as_object_mut().unwrap().values_mut() {
        topic["mirror"].as_object_mut().unwrap().remove("paused");
    }
    assert_eq!(serde_json::from_value::<Image>(image).unwrap(), log.image);
}

#[test]
fn a_mirror_topic_grows_only_by_its_flow() {
    let mut log = mirrored();
    let grow = |flow: Option<&str>| {
        Command::GrowTopic(GrowTopic {
            id: TOPIC,
            count: 3,
            assignment: None,
            flow: flow.map(str::to_owned),
        })
    };
    assert!(matches!(
        log.apply(&grow(None)),
        Err(MetaError::MirrorTopic { .. })
    ));
    log.must(&grow(Some("east->west")));
}

#[test]
fn a_flow_without_topics_is_promoted_at_once() {
    let mut log = Log::with(1);
    log.must(&Command::DeclareFlow { spec: flow_spec() });
    let outcome = log.must(&Command::BeginFailover {
        flow: "east->west".to_owned(),
    });
    assert!(matches!(
        outcome,
        Outcome::Flow {
            state: FlowState::Promoted,
            ..
        }
    ));
}

#[test]
fn commands_and_images_survive_being_stored() {
    let mut log = mirrored();
    let entry = lineage_entry(&log, 5, 0);
    enter(&mut log, entry).unwrap();
    let json = serde_json::to_string(&log.image).unwrap();
    assert_eq!(serde_json::from_str::<Image>(&json).unwrap(), log.image);
    let mut big = registration(1, u128::MAX - 1);
    big.replaces = Some(u128::MAX);
    let command = Command::Register(big);
    let json = serde_json::to_string(&command).unwrap();
    assert_eq!(serde_json::from_str::<Command>(&json).unwrap(), command);
}

#[test]
fn two_flows_make_one_copy_and_only_the_one_that_comes_from_there_makes_another() {
    let mut log = Log::with(1);
    for from in ["kafka", "east"] {
        let mut spec = flow_spec();
        spec.source_cluster = from.to_owned();
        log.must(&Command::DeclareFlow { spec });
    }
    let first = TopicId([7; 16]);
    let origin = Origin {
        cluster_id: "K1".to_owned(),
        cluster: "kafka".to_owned(),
        topic: "orders".to_owned(),
        topic_id: first,
        tells: false,
    };
    let create = |id: u8, flow: &str, source_topic_id: TopicId, origin: &Origin| {
        let mut create = CreateTopic::new(&format!("orders-{id}"), TopicId([id; 16]), 1, 1);
        create.mirror = Some(MirrorBinding {
            flow: flow.to_owned(),
            source_topic: "orders".to_owned(),
            source_topic_id,
            origin: Some(origin.clone()),
        });
        Command::CreateTopic(create)
    };
    log.must(&create(21, "east->west", TopicId([8; 16]), &origin));
    // A copy of another one that is only called like the cluster where it was first written.
    let again = log.apply(&create(22, "kafka->west", TopicId([9; 16]), &origin));
    assert!(matches!(again, Err(MetaError::TopicExists(_))), "{again:?}");
    log.must(&create(23, "kafka->west", first, &origin));
    let mut long = origin;
    long.topic = "x".repeat(5_000);
    let refused = log.apply(&create(24, "east->west", TopicId([8; 16]), &long));
    assert!(matches!(refused, Err(MetaError::TooMany { .. })), "{refused:?}");
}
