//! What of a cluster's topics another one may have taken over, and what that one says when it is asked.

use tradewind_cluster::apply::{Position, apply};
use tradewind_cluster::command::{CreateTopic, Registration};
use tradewind_cluster::image::MirrorState;
use tradewind_wire::ids::ClusterId;

use super::*;

/// A cluster of one daemon with these topics, of which some are mirrors, and further commands.
struct Log(Image);

impl Log {
    fn new() -> Self {
        let mut log = Self(Image::default());
        log.must(Command::Init {
            cluster_id: ClusterId([1; 16]),
            cluster_number: 1,
        });
        log.must(Command::Register(Registration {
            node: 1,
            incarnation: 1,
            replaces: None,
            own: BTreeSet::new(),
            boot_id: "boot".to_owned(),
            clean_stop: false,
            damaged: Vec::new(),
            rack: None,
            mesh: "host:7100".to_owned(),
            listeners: Vec::new(),
            defaults: BTreeMap::new(),
        }));
        log
    }

    fn must(&mut self, command: Command) {
        let at = Position {
            index: self.0.index + 1,
            term: 1,
        };
        let (image, outcome) = apply(&self.0, at, &command);
        outcome.unwrap();
        self.0 = image;
    }

    fn topic(&mut self, number: u8, name: &str, change: impl FnOnce(&mut CreateTopic)) {
        let mut create = CreateTopic::new(name, TopicId([number; 16]), 1, 1);
        change(&mut create);
        self.must(Command::CreateTopic(create));
    }

    fn copied(&mut self, topics: &[&str], exclude: &[&str]) {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        self.must(Command::Region(RegionCommand::Copied {
            peer: "west".to_owned(),
            copied: Some(Copied {
                topics: list(topics),
                topics_exclude: list(exclude),
                ..Copied::default()
            }),
        }));
    }

    fn at_stake(&self) -> Vec<String> {
        let mut names: Vec<String> = at_stake(&self.0, "west", "east").into_values().collect();
        names.sort();
        names
    }
}

fn flow(naming: Naming) -> FlowSpec {
    FlowSpec {
        naming,
        ..bare_flow(
            "west",
            "east",
            FlowSource::Mesh(vec!["west-1:7100".to_owned()]),
            &Copied {
                topics: vec!["sales".to_owned()],
                ..Copied::default()
            },
        )
    }
}

#[test]
fn at_stake_is_what_clients_write_here_and_the_other_copies() {
    let mut log = Log::new();
    log.must(Command::DeclareFlow {
        spec: flow(Naming::Identity),
    });
    log.topic(1, "orders", |_| ());
    log.topic(2, "notes", |_| ());
    log.topic(3, "heartbeats", |_| ());
    log.topic(4, "__diverged.x.1", |_| ());
    log.topic(5, "__consumer_offsets", |create| create.internal = true);
    log.topic(6, "sales", |create| {
        let binding = serde_json::json!({
            "flow": "west->east",
            "source_topic": "sales",
            "source_topic_id": TopicId([9; 16]),
        });
        create.mirror = serde_json::from_value(binding).unwrap();
    });
    assert!(log.at_stake().is_empty(), "it copies nothing");
    log.copied(&[".*"], &["none"]);
    assert_eq!(log.at_stake(), ["notes", "orders"]);
    log.copied(&["ord.*"], &[]);
    assert_eq!(log.at_stake(), ["orders"]);
    log.copied(&[".*"], &["orders"]);
    assert_eq!(log.at_stake(), ["notes"]);
    log.copied(&["no expression ("], &[]);
    assert_eq!(
        log.at_stake(),
        ["notes", "orders"],
        "what cannot be read takes all"
    );
}

#[test]
fn a_cluster_says_what_it_copies_until_it_has_taken_it_over() {
    let mut log = Log::new();
    let stands = |log: &Log| match stands(&log.0, "west", 0) {
        RegionAnswer::Standing {
            region_epoch,
            copied,
            taken,
            cluster_id,
        } => {
            assert!(
                copied
                    .as_ref()
                    .is_none_or(|copied| copied.cluster_id == cluster_id)
            );
            assert!(!cluster_id.is_empty());
            (region_epoch, copied.map(|copied| copied.topics), taken.unwrap())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(stands(&log), (0, None, false));
    log.must(Command::DeclareFlow {
        spec: flow(Naming::Identity),
    });
    assert_eq!(stands(&log), (0, Some(vec!["sales".to_owned()]), false));
    log.must(Command::BeginFailover {
        flow: "west->east".to_owned(),
    });
    assert_eq!(stands(&log), (1, None, true));
    let attempt = log.0.flows["west->east"].failback.as_ref().unwrap().attempt;
    log.must(Command::Region(RegionCommand::GaveWay {
        flow: "west->east".to_owned(),
        attempt,
        at_ms: 1,
        took_ms: 1,
        topics: Vec::new(),
    }));
    assert_eq!(stands(&log), (1, None, false), "it is confirmed");
    let mut log = Log::new();
    log.must(Command::DeclareFlow {
        spec: flow(Naming::Prefix {
            separator: ".".to_owned(),
        }),
    });
    assert_eq!(stands(&log), (0, None, false), "other names are nobody's loss");
}

#[test]
fn a_number_that_a_source_tells_is_recorded_once_and_only_if_it_is_news() {
    let mut log = Log::new();
    assert!(!is_news(&log.0, "west", 2), "no flow comes from there");
    log.must(Command::DeclareFlow {
        spec: flow(Naming::Identity),
    });
    assert!(is_news(&log.0, "west", 2));
    assert!(!is_news(&log.0, "west", 0) && !is_news(&log.0, "west", u64::MAX));
    log.must(Command::Region(RegionCommand::HeardEpoch {
        source: "west".to_owned(),
        region_epoch: 2,
    }));
    assert!(!is_news(&log.0, "west", 2) && is_news(&log.0, "west", 3));
    log.must(Command::BeginFailover {
        flow: "west->east".to_owned(),
    });
    assert!(!is_news(&log.0, "west", 3), "it is ours");
}

/// Binds topic `number` of this cluster to the west's topic of that name, with the next id.
fn bind(log: &mut Log, number: u8, name: &str, there: &str) {
    log.topic(number, name, |create| {
        let binding = serde_json::json!({
            "flow": "west->east",
            "source_topic": there,
            "source_topic_id": TopicId([number + 1; 16]),
        });
        create.mirror = serde_json::from_value(binding).unwrap();
    });
}

fn named(log: &Log) -> Option<Copied> {
    match stands(&log.0, "west", 0) {
        RegionAnswer::Standing { copied, .. } => copied,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_flow_is_bound_to_is_named_whatever_its_filters_take() {
    let mut log = Log::new();
    log.must(Command::DeclareFlow {
        spec: flow(Naming::Identity),
    });
    bind(&mut log, 10, "sales", "sales");
    bind(&mut log, 20, "orders", "orders");
    bind(&mut log, 30, "west.heartbeats", "heartbeats");
    let copied = named(&log).unwrap();
    assert_eq!(
        (copied.topics, copied.bound),
        (vec!["sales".to_owned()], vec![TopicId([21; 16])])
    );
    // It has become a flow with prefixes, as it could before that was refused: what has the source's names has them still.
    let prefixed = Naming::Prefix {
        separator: ".".to_owned(),
    };
    log.0.flows.get_mut("west->east").unwrap().spec = flow(prefixed);
    bind(&mut log, 40, "west.logs", "logs");
    let copied = named(&log).unwrap();
    assert!(copied.topics.is_empty());
    assert_eq!(copied.bound, [TopicId([11; 16]), TopicId([21; 16])]);
    // Nobody is told of its failover, which is therefore never confirmed.
    log.must(Command::BeginFailover {
        flow: "west->east".to_owned(),
    });
    let RegionAnswer::Standing { taken, .. } = stands(&log.0, "west", 0) else {
        unreachable!("it answers nothing else")
    };
    assert_eq!(taken, Some(true));
}

#[test]
fn more_than_can_be_named_is_everything() {
    let mut log = Log::new();
    log.must(Command::DeclareFlow {
        spec: flow(Naming::Identity),
    });
    for number in 0..=Copied::MAX_BOUND {
        let mut id = [9; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let mut create = CreateTopic::new(&format!("t{number}"), TopicId(id), 1, 1);
        let binding = serde_json::json!({
            "flow": "west->east", "source_topic": format!("t{number}"), "source_topic_id": TopicId(id),
        });
        create.mirror = serde_json::from_value(binding).unwrap();
        log.must(Command::CreateTopic(create));
    }
    let copied = named(&log).unwrap();
    assert!(copied.is_bounded() && copied.bound.is_empty());
    assert_eq!(copied.topics, [".*"]);
}

#[test]
fn at_stake_is_what_the_other_is_bound_to_as_well() {
    let mut log = Log::new();
    log.topic(1, "orders", |_| ());
    log.topic(2, "notes", |_| ());
    log.must(Command::Region(RegionCommand::Copied {
        peer: "west".to_owned(),
        copied: Some(Copied {
            bound: vec![TopicId([1; 16])],
            ..Copied::default()
        }),
    }));
    assert_eq!(log.at_stake(), ["orders"]);
}

#[test]
fn what_was_taken_over_is_not_forgotten_with_its_flow() {
    let mut log = Log::new();
    log.must(Command::DeclareFlow {
        spec: flow(Naming::Identity),
    });
    bind(&mut log, 10, "sales", "sales");
    log.0.regions.insert("west".to_owned(), 1);
    let taken = |log: &Log, told| match stands(&log.0, "west", told) {
        RegionAnswer::Standing { taken, .. } => taken,
        other => panic!("{other:?}"),
    };
    assert_eq!(taken(&log, 0), Some(false), "nobody writes it here");
    let mut topic = Topic::clone(&log.0.topics[&TopicId([10; 16])]);
    topic.mirror.as_mut().unwrap().state = MirrorState::Promoted;
    log.0.topics.insert(topic.id, topic.into());
    assert_eq!(taken(&log, 0), Some(true), "it has not heard of the failover");
    assert_eq!(taken(&log, 1), Some(false));
}
