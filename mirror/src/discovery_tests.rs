//! What a flow changes here when its source looks like this.

use std::sync::Arc;

use tradewind_wire::flow::{FlowSource, FlowSpec, Naming};

use super::*;
use crate::matching::matches;
use crate::source::{SourceLeader, SourceTopic};
use crate::target::PartitionView;

const FLOW: &str = "east->west";

fn names() -> Names {
    Names::new(&FlowSpec {
        source_cluster: "east".into(),
        target_cluster: "west".into(),
        source: FlowSource::Kafka(vec![]),
        topics: vec![".*".into()],
        topics_exclude: vec![],
        groups: vec![".*".into()],
        groups_exclude: vec![],
        naming: Naming::Prefix {
            separator: ".".into(),
        },
    })
    .unwrap()
}

fn source(topics: &[(&str, u8, usize)]) -> SourceTopics {
    SourceTopics {
        cluster_id: "e".into(),
        topics: topics
            .iter()
            .map(|(name, id, partitions)| {
                let topic = SourceTopic {
                    id: TopicId([*id; 16]),
                    internal: false,
                    partitions: vec![
                        SourceLeader {
                            leader: Some(1),
                            epoch: 3
                        };
                        *partitions
                    ],
                    word: Word::Untold,
                };
                ((*name).to_owned(), topic)
            })
            .collect(),
    }
}

fn here(name: &str, partitions: usize, configs: &[(&str, &str)], mirror: Option<(&str, u8)>) -> View {
    let partition = PartitionView {
        leader: Some(1),
        leader_epoch: 0,
        lineage: vec![],
        cut: None,
        fenced_end: None,
    };
    let topic = TopicView {
        name: name.into(),
        id: TopicId([99; 16]),
        partitions: vec![partition; partitions],
        configs: configs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        mirror: mirror.map(|(source_topic, id)| MirrorBinding {
            flow: FLOW.into(),
            source_topic: source_topic.into(),
            source_topic_id: TopicId([id; 16]),
            origin: None,
            promoted: false,
        }),
        paused: None,
        fence: None,
    };
    View {
        topics: [(name.to_owned(), Arc::new(topic))].into(),
        ..View::default()
    }
}

fn config(name: &str, value: &str, own: bool) -> SourceConfig {
    SourceConfig {
        name: name.into(),
        value: Some(value.into()),
        own,
    }
}

fn decide(source: &SourceTopics, configs: Vec<SourceConfig>, view: &View) -> (Vec<Action>, Vec<String>) {
    let configs = source
        .topics
        .keys()
        .map(|name| (name.clone(), configs.clone()))
        .collect();
    actions(
        FLOW,
        &matches(FLOW, &names(), source, view, &BTreeMap::new()),
        &configs,
        view,
    )
}

#[test]
fn a_new_topic_is_created_with_the_configs_that_travel() {
    let configs = vec![
        config("retention.ms", "1000", true),
        config("min.insync.replicas", "2", true),
        config("segment.bytes", "7", false),
        config("message.timestamp.type", "LogAppendTime", true),
    ];
    let (actions, problems) = decide(&source(&[("orders", 1, 4)]), configs, &View::default());
    assert!(problems.is_empty());
    let [Action::Create(new)] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert_eq!((new.name.as_str(), new.partitions), ("east.orders", 4));
    let names: Vec<_> = new.configs.keys().map(String::as_str).collect();
    assert_eq!(names, ["message.timestamp.type", "retention.ms"]);
    assert_eq!(new.binding.source_topic_id, TopicId([1; 16]));
}

#[test]
fn nothing_is_created_before_its_configs_are_known() {
    let source = source(&[("orders", 1, 4)]);
    let (actions, _) = actions(
        FLOW,
        &matches(FLOW, &names(), &source, &View::default(), &BTreeMap::new()),
        &BTreeMap::new(),
        &View::default(),
    );
    assert!(actions.is_empty());
}

#[test]
fn growth_and_configs_follow_and_excluded_ones_stay() {
    let view = here(
        "east.orders",
        2,
        &[
            ("retention.ms", "5"),
            ("min.insync.replicas", "2"),
            ("segment.bytes", "9"),
        ],
        Some(("orders", 1)),
    );
    let (actions, problems) = decide(
        &source(&[("orders", 1, 3)]),
        vec![config("retention.ms", "6", true)],
        &view,
    );
    assert!(problems.is_empty());
    assert!(matches!(actions[0], Action::Grow { partitions: 3, .. }));
    let Action::Configure { changes, .. } = &actions[1] else {
        panic!("{actions:?}");
    };
    let expected = [
        ("retention.ms".to_owned(), Some("6".to_owned())),
        ("segment.bytes".to_owned(), None),
    ];
    assert_eq!(changes[..], expected);

    let agreed = here("east.orders", 3, &[("retention.ms", "6")], Some(("orders", 1)));
    let (actions, _) = decide(
        &source(&[("orders", 1, 3)]),
        vec![config("retention.ms", "6", true)],
        &agreed,
    );
    assert!(actions.is_empty(), "agreement changes nothing: {actions:?}");
}

#[test]
fn a_topic_that_is_not_this_mirror_is_left_alone_and_named() {
    for (mirror, word) in [
        (None, "no mirror"),
        (Some(("other", 1)), "mirror of `other`"),
        (Some(("orders", 8)), "again"),
    ] {
        let view = here("east.orders", 1, &[], mirror);
        let (actions, problems) = decide(&source(&[("orders", 1, 3)]), vec![], &view);
        assert!(actions.is_empty());
        assert!(problems[0].contains(word), "{problems:?}");
    }
}

#[test]
fn a_daemon_copies_what_it_leads_and_halts_what_was_created_again() {
    let mut view = here("east.orders", 2, &[], Some(("orders", 1)));
    let topic = Arc::make_mut(view.topics.get_mut("east.orders").unwrap());
    topic.partitions[1].leader = Some(2);
    let known = Missing::default();
    let mine = assignments(&names(), (FLOW, &source(&[("orders", 1, 2)])), &known, &view, 1);
    assert_eq!(mine.len(), 1);
    assert_eq!(
        (
            mine[0].source.partition,
            mine[0].source_leader,
            mine[0].source_epoch
        ),
        (0, Some(1), 3)
    );
    assert_eq!(mine[0].halt, None);
    assert!(
        assignments(&names(), (FLOW, &source(&[("orders", 2, 2)])), &known, &view, 2)[0]
            .halt
            .is_some()
    );
    let halt = |missing: &Missing| {
        assignments(&names(), (FLOW, &source(&[])), missing, &view, 2)[0]
            .halt
            .clone()
    };
    let mut missing = Missing::default();
    assert_eq!(halt(&missing), None, "the look may be older than the mirror");
    missing.looked(FLOW, &source(&[]), &view, Duration::from_secs(10));
    assert_eq!(halt(&missing), None, "who answered may not know it yet");
    missing.looked(FLOW, &source(&[]), &view, Duration::from_secs(13));
    assert!(halt(&missing).unwrap().contains("gone"));
    missing.looked(FLOW, &source(&[("orders", 1, 2)]), &view, Duration::from_secs(14));
    missing.looked(FLOW, &source(&[]), &view, Duration::from_secs(15));
    assert_eq!(halt(&missing), None, "it was there in between");
}
