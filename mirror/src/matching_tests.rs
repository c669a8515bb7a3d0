//! Several clusters and the flows between them, in memory: looks in any order, until nothing changes any more.

use tradewind_wire::flow::{FlowSource, FlowSpec, Naming};
use tradewind_wire::ids::TopicId;

use super::*;
use crate::discovery::{Action, actions};
use crate::source::{SourceConfig, SourceLeader};
use crate::target::{FlowState, FlowView, MirrorBinding, PartitionView};

/// From, to, and whether names are kept.
type Line = (&'static str, &'static str, bool);

struct World {
    clusters: BTreeMap<String, View>,
    lines: Vec<Line>,
    /// Clusters that do not say which of their topics are mirrors.
    silent: BTreeSet<String>,
    /// The ids that flows have found their sources to have.
    seen: BTreeMap<String, String>,
    topics: u8,
}

impl World {
    fn new(lines: &[Line]) -> Self {
        let mut world = Self {
            clusters: BTreeMap::new(),
            lines: lines.to_vec(),
            silent: BTreeSet::new(),
            seen: BTreeMap::new(),
            topics: 0,
        };
        for (from, to, identity) in lines {
            for name in [from, to] {
                let view = View {
                    cluster_id: format!("id-{name}"),
                    ..View::default()
                };
                world.clusters.entry((*name).to_owned()).or_insert(view);
            }
            let flow = FlowView {
                spec: spec(from, to, *identity),
                state: FlowState::Active,
                paused: None,
                switchover: None,
                failback: None,
                drills: Vec::new(),
            };
            let flows = &mut world.cluster(to).flows;
            flows.insert(flow.spec.name(), flow);
        }
        world
    }

    fn cluster(&mut self, name: &str) -> &mut View {
        self.clusters.get_mut(name).unwrap()
    }

    fn create(&mut self, cluster: &str, topic: &str, mirror: Option<MirrorBinding>) {
        self.topics += 1;
        let partition = PartitionView {
            leader: Some(1),
            leader_epoch: 0,
            lineage: vec![],
            cut: None,
            fenced_end: None,
        };
        let made = TopicView {
            name: topic.to_owned(),
            id: TopicId([self.topics; 16]),
            partitions: vec![partition],
            configs: BTreeMap::new(),
            mirror,
            paused: None,
            fence: None,
        };
        let before = self
            .cluster(cluster)
            .topics
            .insert(topic.to_owned(), Arc::new(made));
        assert!(before.is_none(), "{topic} is in {cluster} twice");
    }

    /// What a cluster answers to `Metadata` and `Origins`.
    fn source(&self, name: &str) -> SourceTopics {
        let view = &self.clusters[name];
        let topics = view.topics.values().map(|topic| {
            let says = match &topic.mirror {
                None => Provenance::Own,
                Some(bound) if bound.promoted => Provenance::Promoted(bound.origin.clone().unwrap()),
                Some(bound) => Provenance::Mirror(bound.origin.clone().unwrap()),
            };
            let told = SourceTopic {
                id: topic.id,
                internal: false,
                partitions: vec![SourceLeader::default()],
                word: if self.silent.contains(name) {
                    Word::Untold
                } else {
                    Word::Says(says)
                },
            };
            (topic.name.clone(), told)
        });
        SourceTopics {
            cluster_id: view.cluster_id.clone(),
            topics: topics.collect(),
        }
    }

    fn matches(&self, (from, to, _): Line) -> Matches {
        let view = &self.clusters[to];
        let flow = format!("{from}->{to}");
        let names = Names::new(&view.flows[&flow].spec).unwrap();
        matches(&flow, &names, &self.source(from), view, &self.seen)
    }

    /// One look of one flow: whether it changed anything, and what it complains of.
    fn look(&mut self, line: Line) -> (bool, Vec<String>) {
        let flow = format!("{}->{}", line.0, line.1);
        let matches = self.matches(line);
        let configs: BTreeMap<String, Vec<SourceConfig>> = matches
            .topics
            .iter()
            .map(|matched| (matched.source.clone(), vec![]))
            .collect();
        let (actions, mut problems) = actions(&flow, &matches, &configs, &self.clusters[line.1]);
        problems.extend(matches.problems);
        let changes = !actions.is_empty();
        for action in actions {
            match action {
                Action::Create(new) => self.create(line.1, &new.name, Some(new.binding)),
                Action::Origin { name, origin, .. } => {
                    let topic = self.cluster(line.1).topics.get_mut(&name).unwrap();
                    Arc::make_mut(topic).mirror.as_mut().unwrap().origin = Some(origin);
                }
                other => panic!("{other:?}"),
            }
        }
        (changes, problems)
    }

    /// Looks of all flows in some order, again and again until none changes anything. What is complained of then.
    fn settle(&mut self, seed: u64) -> Vec<String> {
        let mut state = seed;
        let mut below = move |limit: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % limit
        };
        for _ in 0..30 {
            let mut lines = self.lines.clone();
            let mut changed = false;
            let mut problems = Vec::new();
            while !lines.is_empty() {
                let next = lines.remove(below(lines.len()));
                let (changes, complaints) = self.look(next);
                changed |= changes;
                problems.extend(complaints);
            }
            if !changed {
                return problems;
            }
        }
        panic!("it does not come to rest: {:?}", self.names());
    }

    fn names(&self) -> BTreeMap<&str, Vec<&str>> {
        self.clusters
            .iter()
            .map(|(name, view)| (name.as_str(), view.topics.keys().map(String::as_str).collect()))
            .collect()
    }

    fn has(&self, cluster: &str) -> Vec<&str> {
        let topics = self.clusters[cluster].topics.keys();
        topics.map(String::as_str).collect()
    }

    /// Of every topic that clients write somewhere there is exactly one in each cluster that it can reach.
    fn everything_is_once_everywhere(&self) {
        let own = |name: &str, topic: &TopicView| Origin {
            cluster_id: format!("id-{name}"),
            cluster: name.to_owned(),
            topic: topic.name.clone(),
            topic_id: topic.id,
            tells: true,
        };
        for (first, view) in &self.clusters {
            let written = view.topics.values().filter(|topic| topic.mirror.is_none());
            for topic in written.map(|topic| own(first, topic)) {
                for (name, view) in &self.clusters {
                    let copies = view.topics.values().filter(|known| match &known.mirror {
                        Some(bound) => bound.origin.as_ref().unwrap().is_same(&topic),
                        None => own(name, known).is_same(&topic),
                    });
                    let expected = usize::from(self.reaches(first, name));
                    assert_eq!(
                        copies.count(),
                        expected,
                        "{topic:?} in {name}: {:?}",
                        self.names()
                    );
                }
            }
        }
    }

    fn reaches(&self, from: &str, to: &str) -> bool {
        let mut reached = BTreeSet::from([from]);
        for _ in &self.lines {
            for (a, b, _) in &self.lines {
                if reached.contains(a) {
                    reached.insert(b);
                }
            }
        }
        reached.contains(to)
    }
}

fn spec(from: &str, to: &str, identity: bool) -> FlowSpec {
    FlowSpec {
        source_cluster: from.to_owned(),
        target_cluster: to.to_owned(),
        source: FlowSource::Mesh(vec![]),
        topics: vec![".*".into()],
        topics_exclude: vec!["none".into()],
        groups: vec![],
        groups_exclude: vec!["none".into()],
        naming: if identity {
            Naming::Identity
        } else {
            Naming::Prefix {
                separator: ".".into(),
            }
        },
    }
}

/// Every way to give each of these lines one of the namings.
fn namings(lines: &[(&'static str, &'static str)]) -> Vec<Vec<Line>> {
    let some = |bits: u32| {
        let named = (0..).zip(lines).map(|(i, (a, b))| (*a, *b, bits >> i & 1 == 1));
        named.collect()
    };
    (0..1 << lines.len()).map(some).collect()
}

#[test]
fn rings_stars_and_meshes_have_everything_once_whatever_their_namings() {
    let ring = [("a", "b"), ("b", "c"), ("c", "a")];
    let both_ways = [("a", "b"), ("b", "a")];
    let star = [("a", "hub"), ("hub", "a"), ("b", "hub"), ("hub", "b")];
    let mesh = [
        ("a", "b"),
        ("b", "a"),
        ("b", "c"),
        ("c", "b"),
        ("c", "a"),
        ("a", "c"),
    ];
    let diamond = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("d", "a")];
    for (shape, every, orders) in [
        (&ring[..], 1, 3),
        (&both_ways, 1, 2),
        (&star, 1, 1),
        (&mesh, 9, 1),
        (&diamond, 3, 1),
    ] {
        for lines in namings(shape).into_iter().step_by(every) {
            for seed in 0..orders {
                let mut world = World::new(&lines);
                for name in world.clusters.keys().cloned().collect::<Vec<_>>() {
                    world.create(&name, &format!("of-{name}"), None);
                }
                let problems = world.settle(seed);
                assert_eq!(problems, [""; 0], "{lines:?}");
                world.everything_is_once_everywhere();
            }
        }
    }
}

#[test]
fn the_same_name_everywhere_is_no_clash_where_names_are_prefixed() {
    for seed in 0..6 {
        let mut world = World::new(&[("a", "b", false), ("b", "c", false), ("c", "a", false)]);
        for name in ["a", "b", "c"] {
            world.create(name, "orders", None);
            world.create(name, "heartbeats", None);
        }
        assert_eq!(world.settle(seed), [""; 0]);
        world.everything_is_once_everywhere();
        assert_eq!(
            world.has("a"),
            [
                "c.b.heartbeats",
                "c.b.orders",
                "c.heartbeats",
                "c.orders",
                "heartbeats",
                "orders"
            ]
        );
    }
}

#[test]
fn heartbeats_pass_a_ring_that_mixes_the_namings_and_do_not_come_back() {
    let mut world = World::new(&[("a", "b", false), ("b", "c", true), ("c", "a", false)]);
    for name in ["a", "b", "c"] {
        world.create(name, "heartbeats", None);
    }
    assert_eq!(world.settle(1), [""; 0]);
    assert_eq!(world.has("b"), ["a.c.heartbeats", "a.heartbeats", "heartbeats"]);
    // With names kept, another cluster's heartbeats are not passed on.
    assert_eq!(world.has("c"), ["b.heartbeats", "heartbeats"]);
    assert_eq!(world.has("a"), ["c.b.heartbeats", "c.heartbeats", "heartbeats"]);
}

#[test]
fn a_name_that_only_looks_like_a_loop_is_copied_and_of_a_silent_source_it_is_not() {
    for (silent, expected) in [(false, vec!["east.west.sales"]), (true, vec![])] {
        let mut world = World::new(&[("east", "west", false)]);
        world.create("east", "west.sales", None);
        if silent {
            world.silent.insert("east".into());
        }
        assert_eq!(world.settle(0), [""; 0]);
        assert_eq!(world.has("west"), expected);
    }
}

#[test]
fn what_is_deleted_at_its_origin_does_not_come_back() {
    for lines in namings(&[("east", "west"), ("west", "east")]) {
        let mut world = World::new(&lines);
        world.create("east", "orders", None);
        world.settle(0);
        assert_eq!(world.has("west").len(), 1);
        world.cluster("east").topics.clear();
        assert_eq!(world.settle(0), [""; 0]);
        assert_eq!(world.has("east"), [""; 0], "{lines:?}");
    }
}

#[test]
fn what_was_promoted_does_not_come_back_and_others_are_told_what_they_lack() {
    let mut world = World::new(&[
        ("a", "b", true),
        ("a", "c", true),
        ("b", "c", true),
        ("b", "a", true),
    ]);
    world.create("a", "orders", None);
    assert_eq!(world.settle(0), [""; 0]);
    let promoted = world.cluster("b").topics.get_mut("orders").unwrap();
    Arc::make_mut(promoted).mirror.as_mut().unwrap().promoted = true;
    // Clients write it on both sides: nothing is copied, and that is told.
    let (changed, problems) = world.look(("b", "a", true));
    assert!(!changed && problems[0].contains("no mirror"), "{problems:?}");
    // Clients write it at `b` now, and `c` has only what `a` had.
    let (changed, problems) = world.look(("b", "c", true));
    assert!(!changed && problems[0].contains("flow `a->c`"), "{problems:?}");
    // With prefixes it would be a second topic beside the first, with its records once more.
    let flow = world.cluster("a").flows.get_mut("b->a").unwrap();
    flow.spec = spec("b", "a", false);
    assert_eq!(world.look(("b", "a", false)), (false, vec![]));
}

#[test]
fn what_was_promoted_and_is_gone_at_its_origin_is_copied_there_under_its_name() {
    let mut world = World::new(&[("a", "b", true), ("b", "a", true)]);
    world.create("a", "orders", None);
    world.settle(0);
    let promoted = world.cluster("b").topics.get_mut("orders").unwrap();
    Arc::make_mut(promoted).mirror.as_mut().unwrap().promoted = true;
    world.cluster("a").topics.clear();
    assert_eq!(world.look(("b", "a", true)), (true, vec![]));
    assert!(world.clusters["a"].topics["orders"].is_mirroring());
}

#[test]
fn what_a_switchover_turned_round_is_followed() {
    let mut world = World::new(&[("a", "c", true), ("b", "c", true), ("b", "a", true)]);
    world.create("a", "orders", None);
    world.settle(0);
    // `a->b` copied it once; `b` took over, and `a` became its mirror.
    let was = world.clusters["c"].topics["orders"].mirror.clone().unwrap();
    let binding = |flow: &str, origin: Option<Origin>, promoted: bool| MirrorBinding {
        flow: flow.into(),
        source_topic: "orders".into(),
        source_topic_id: TopicId::default(),
        origin,
        promoted,
    };
    world.create("b", "orders", Some(binding("a->b", was.origin, true)));
    let taken_over = Origin {
        cluster_id: "id-b".into(),
        cluster: "b".into(),
        topic: "orders".into(),
        topic_id: world.clusters["b"].topics["orders"].id,
        tells: true,
    };
    let moved = world.cluster("a").topics.get_mut("orders").unwrap();
    Arc::make_mut(moved).mirror = Some(binding("b->a", Some(taken_over.clone()), false));
    assert_eq!(world.settle(0), [""; 0]);
    let now = world.clusters["c"].topics["orders"].mirror.clone().unwrap();
    assert_eq!((now.flow.as_str(), now.origin), ("a->c", Some(taken_over)));
    let notes = world.matches(("b", "c", true)).notes();
    assert!(
        notes[0].contains("orders") && notes[0].contains("`a->c`"),
        "{notes:?}"
    );
}

#[test]
fn a_silent_cluster_in_the_middle_is_judged_by_the_names_that_it_has() {
    // Something else copies `a` into `kafka`; `b` knows only what it is called there.
    let mut world = World::new(&[("kafka", "b", false), ("b", "a", false)]);
    world.silent.insert("kafka".into());
    world.create("kafka", "a.orders", None);
    world.create("kafka", "payments", None);
    assert_eq!(world.settle(0), [""; 0]);
    assert_eq!(world.has("b"), ["kafka.a.orders", "kafka.payments"]);
    assert_eq!(world.has("a"), ["b.kafka.payments"]);
}

#[test]
fn nothing_is_copied_before_the_source_has_said_what_it_is() {
    let mut world = World::new(&[("east", "west", false)]);
    world.create("east", "orders", None);
    let mut source = world.source("east");
    source.topics.get_mut("orders").unwrap().word = Word::Awaited;
    let names = Names::new(&spec("east", "west", false)).unwrap();
    let found = matches(
        "east->west",
        &names,
        &source,
        &world.clusters["west"],
        &world.seen,
    );
    assert_eq!(
        (found.topics.len(), found.awaited),
        (0, vec!["orders".to_owned()])
    );
    // What is copied already goes on.
    world.settle(0);
    let found = matches(
        "east->west",
        &names,
        &source,
        &world.clusters["west"],
        &world.seen,
    );
    assert_eq!((found.topics.len(), found.awaited.len()), (1, 0));
}

#[test]
fn a_mirror_keeps_its_name_when_the_flow_gets_another_naming() {
    let mut world = World::new(&[("east", "west", false)]);
    world.create("east", "orders", None);
    world.settle(0);
    let flow = world.cluster("west").flows.get_mut("east->west").unwrap();
    flow.spec.naming = Naming::Identity;
    world.create("east", "late", None);
    assert_eq!(world.settle(0), [""; 0]);
    assert_eq!(world.has("west"), ["east.orders", "late"]);
}

#[test]
fn a_topic_is_left_to_a_flow_from_the_same_cluster_and_not_to_one_whose_source_is_only_called_so() {
    let mut world = World::new(&[
        ("kafka", "east", true),
        ("east", "west", false),
        ("kafka", "west", true),
    ]);
    world.silent.insert("kafka".into());
    world.create("kafka", "orders", None);
    assert_eq!(world.look(("kafka", "east", true)), (true, vec![]));
    let flow = world.cluster("west").flows.get_mut("kafka->west").unwrap();
    flow.spec.source = FlowSource::Kafka(vec!["kafka:9092".into()]);
    let line = ("east", "west", false);
    // Nobody has looked at it yet.
    let (changed, problems) = world.look(line);
    assert!(!changed && problems[0].contains("`kafka->west`"), "{problems:?}");
    world.seen.insert("kafka->west".into(), "id-kafka".into());
    assert_eq!(world.look(line), (false, vec![]));
    assert!(world.matches(line).notes()[0].contains("by flow `kafka->west`"));
    // Another Kafka of the same name.
    world.seen.insert("kafka->west".into(), "id-another".into());
    assert_eq!(world.look(line), (true, vec![]));
    assert_eq!(world.has("west"), ["east.orders"]);
    // The same one under another name.
    world.cluster("west").topics.clear();
    let mut renamed = world.cluster("west").flows.remove("kafka->west").unwrap();
    renamed.spec.source_cluster = "old".into();
    world.cluster("west").flows.insert("old->west".into(), renamed);
    world.seen.insert("old->west".into(), "id-kafka".into());
    assert_eq!(world.look(line), (false, vec![]));
}

#[test]
fn what_was_copied_once_and_is_copied_no_more_is_not_here_already() {
    let lines = [
        ("east", "north", true),
        ("north", "west", true),
        ("east", "west", true),
    ];
    for how in ["promoted", "removed", "filtered"] {
        let mut world = World::new(&lines);
        let direct = world.cluster("west").flows.remove("east->west").unwrap();
        world.create("east", "orders", None);
        world.look(lines[0]);
        world.look(lines[1]);
        world.cluster("west").flows.insert("east->west".into(), direct);
        let (changed, problems) = world.look(lines[2]);
        assert!(!changed && problems.is_empty(), "{problems:?}");
        assert!(world.matches(lines[2]).notes()[0].contains("by flow `north->west`"));
        let west = world.cluster("west");
        match how {
            "promoted" => {
                let orders = west.topics.get_mut("orders").unwrap();
                Arc::make_mut(orders).mirror.as_mut().unwrap().promoted = true;
            }
            "removed" => drop(west.flows.remove("north->west")),
            _ => west.flows.get_mut("north->west").unwrap().spec.topics = vec!["no".into()],
        }
        let (changed, problems) = world.look(lines[2]);
        assert!(
            !changed && problems[0].contains("copies it no more"),
            "{how}: {problems:?}"
        );
    }
}

#[test]
fn what_is_left_to_a_flow_that_copies_nothing_any_more_is_told() {
    let lines = [
        ("east", "north", true),
        ("north", "west", true),
        ("east", "west", true),
    ];
    let mut world = World::new(&lines);
    world.create("east", "orders", None);
    assert_eq!(world.settle(0), [""; 0]);
    let west = world.cluster("west");
    west.flows.get_mut("east->west").unwrap().state = FlowState::Promoted;
    let orders = west.topics.get_mut("orders").unwrap();
    Arc::make_mut(orders).mirror.as_mut().unwrap().promoted = true;
    // Clients here write it: what the lost side has beside it is the failback's matter.
    assert_eq!(world.look(lines[1]), (false, vec![]));
    let notes = world.matches(lines[1]).notes();
    assert!(notes[0].contains("taken over"), "{notes:?}");
    // What was never here comes by nobody.
    world.create("east", "late", None);
    world.look(lines[0]);
    let (changed, problems) = world.look(lines[1]);
    assert!(
        !changed && problems[0].starts_with("late: it is left to"),
        "{problems:?}"
    );
}

#[test]
fn what_came_from_here_is_a_note_and_heartbeats_are_none() {
    let mut world = World::new(&[("east", "west", false), ("west", "east", false)]);
    for topic in ["orders", "heartbeats"] {
        world.create("east", topic, None);
    }
    assert_eq!(world.settle(0), [""; 0]);
    let back = ("west", "east", false);
    let told = "not copied: east.orders: came from this cluster";
    assert_eq!(world.matches(back).notes(), [told]);
    let promoted = world.cluster("west").topics.get_mut("east.orders").unwrap();
    Arc::make_mut(promoted).mirror.as_mut().unwrap().promoted = true;
    let notes = world.matches(back).notes();
    assert!(notes[0].contains("clients write there since"), "{notes:?}");
}
