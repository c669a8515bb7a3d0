//! The whole mirror over a cluster and a source in memory.

use tradewind_tests::wait;

use super::*;
use crate::declaring::DeclareError;
use crate::fakes::{FLOW, FakeSource, FakeTarget, spec};

struct World {
    target: Arc<FakeTarget>,
    source: Arc<FakeSource>,
    mirror: Mirror,
}

fn world() -> World {
    world_with(vec![])
}

/// Of a daemon whose configuration says this of flows.
fn world_with(in_file: Vec<FlowSpec>) -> World {
    world_of(FakeTarget::new(), Arc::new(FakeSource::default()), in_file)
}

fn world_of(target: Arc<FakeTarget>, source: Arc<FakeSource>, in_file: Vec<FlowSpec>) -> World {
    let shared = source.clone();
    let often = Pace {
        mesh: Duration::from_millis(50),
        kafka: Duration::from_millis(50),
    };
    let mirror = Mirror::start_at(target.clone(), Arc::new(move |_| shared.clone()), in_file, often);
    World {
        target,
        source,
        mirror,
    }
}

impl World {
    /// Asks for the status until it is as wanted, for at most a minute.
    async fn until(&self, wanted: impl Fn(&FlowStatus) -> bool) -> FlowStatus {
        let look = async || match self.mirror.status().await.into_iter().next() {
            Some(status) if wanted(&status) => Ok(status),
            other => Err(format!("{other:?}")),
        };
        let found = wait::until_async("the status is as wanted", 60, look).await;
        found.unwrap()
    }
}

fn even(status: &FlowStatus) -> bool {
    status.lag_records == Some(0) && status.groups.exact == status.groups.total
}

#[tokio::test]
async fn topics_records_and_groups_arrive_as_they_are() {
    let world = world();
    world.source.create("orders", 1, 2);
    world.source.create("private", 2, 1);
    world.source.produce("orders", 0, &["a", "b"]);
    world.source.produce("orders", 0, &["c"]);
    world.source.produce("orders", 1, &["x"]);
    world.source.commit("billing", "orders", 0, 2);
    world.source.commit("billing", "private", 0, 1);
    world.target.declare(spec());
    let status = world.until(even).await;
    assert_eq!((status.state.as_str(), status.topics), ("active", 1));
    assert_eq!((status.groups.exact, status.groups.total), (1, 1));
    assert_eq!(
        world.target.bytes("east.orders", 0),
        world.source.bytes("orders", 0)
    );
    assert_eq!(
        world.target.bytes("east.orders", 1),
        world.source.bytes("orders", 1)
    );
    assert_eq!(world.target.stored("billing", "east.orders", 0), Some(2));
    let beating = |_: &FlowStatus| !world.target.bytes("heartbeats", 0).is_empty();
    world.until(beating).await;
    assert!(!world.target.bytes("east.checkpoints.internal", 0).is_empty());

    // Growth, a topic created later, more records, a rewind.
    world.source.create("orders", 1, 3);
    world.source.create("orders-late", 5, 1);
    world.source.produce("orders", 2, &["z"]);
    world.source.produce("orders-late", 0, &["l"]);
    world.source.commit("billing", "orders", 0, 1);
    assert_ne!(
        world.mirror.status().await[0].lag_records,
        Some(0),
        "what is new counts at once"
    );
    let status = world.until(even).await;
    assert_eq!(status.topics, 2);
    assert_eq!(
        world.target.bytes("east.orders", 2),
        world.source.bytes("orders", 2)
    );
    assert_eq!(world.target.stored("billing", "east.orders", 0), Some(1));
    world.mirror.stop().await;
}

#[tokio::test]
async fn a_lost_region_is_failed_over_and_the_report_can_be_had_again() {
    let world = world();
    world.source.create("orders", 1, 1);
    world.source.produce("orders", 0, &["a", "b", "c"]);
    world.source.commit("billing", "orders", 0, 2);
    world.source.commit("here", "orders", 0, 2);
    world.target.commit("here", "east.orders", 0, 1);
    world.target.declare(spec());
    world
        .until(|status| status.lag_records == Some(0) && status.groups.exact == 1)
        .await;
    world.source.kill();
    let status = world.until(|status| status.state == "source-unreachable").await;
    assert_eq!((status.lag_records, status.groups.total), (Some(0), 2));

    let report = world.mirror.failover(FLOW).await.unwrap();
    assert_eq!(report.topics.len(), 1);
    let cut = &report.topics[0].partitions[0];
    assert_eq!((cut.partition, cut.cut, cut.lost_records), (0, 3, Some(0)));
    assert_eq!(report.groups.len(), 1);
    let group = &report.groups[0];
    assert_eq!(
        (group.group.as_str(), group.offset, group.status.as_str()),
        ("billing", 2, "exact")
    );
    assert_eq!(
        world.target.stored("here", "east.orders", 0),
        Some(1),
        "a group used here is left alone"
    );
    assert_eq!(world.mirror.failover(FLOW).await.unwrap(), report);
    assert!(report.unanswered.is_empty());
    // Long afterwards a partition has no leader: that is named, and holds nothing else up.
    let target: Arc<dyn Target> = world.target.clone();
    world.target.change(|view| {
        let topic = view.topics.get_mut("east.orders").unwrap();
        Arc::make_mut(topic).partitions[0].leader = None;
    });
    let (aborted, unanswered) = transactions::aborted_everywhere(&target, FLOW, Duration::ZERO).await;
    let unanswered: Vec<_> = unanswered
        .iter()
        .map(|of| (of.topic.as_str(), of.partition))
        .collect();
    assert_eq!((aborted.len(), unanswered), (0, vec![("east.orders", 0)]));
    assert_eq!(world.mirror.status().await[0].state, "promoted");
    assert!(matches!(
        world.mirror.failover("a->b").await,
        Err(FailoverError::UnknownFlow(_))
    ));
    world.mirror.stop().await;
}

#[tokio::test]
async fn a_source_that_was_never_seen_has_no_lag_to_report() {
    let world = world();
    world.source.kill();
    world.target.declare(spec());
    let status = world.until(|status| status.state == "source-unreachable").await;
    assert_eq!(
        (status.lag_records, status.lag_seconds, status.topics),
        (None, None, 0)
    );
    world.mirror.stop().await;
}

#[tokio::test]
async fn a_topic_created_again_is_a_problem_and_never_written_over() {
    let world = world();
    world.source.create("orders", 1, 1);
    world.source.produce("orders", 0, &["a"]);
    world.source.produce("orders", 0, &["b", "c"]);
    world.source.commit("billing", "orders", 0, 3);
    world.target.declare(spec());
    world.until(even).await;
    let before = world.target.bytes("east.orders", 0);
    world.source.recreate("orders", 9);
    world
        .source
        .produce("orders", 0, &["other", "records", "of", "it"]);
    world.source.commit("billing", "orders", 0, 1);
    let status = world.until(|status| status.state == "degraded").await;
    assert!(
        status
            .problems
            .iter()
            .any(|problem| problem.contains("created again")),
        "{status:?}"
    );
    assert_eq!(world.target.bytes("east.orders", 0), before);
    let status = world.mirror.status().await.remove(0);
    assert_ne!(status.lag_records, Some(0));
    assert_eq!(world.target.stored("billing", "east.orders", 0), Some(3));
    assert_eq!(
        (status.groups.exact, status.groups.total),
        (0, 1),
        "it says nothing of what is here"
    );
    world.mirror.stop().await;
}

#[tokio::test]
async fn a_topic_whose_configs_the_source_keeps_to_itself_holds_up_no_other() {
    let world = world();
    world.source.create("orders", 1, 1);
    world.source.create("orders-secret", 2, 1);
    world.source.hide("orders-secret");
    world.source.produce("orders", 0, &["a"]);
    world.target.declare(spec());
    let status = world
        .until(|status| {
            status
                .problems
                .iter()
                .any(|problem| problem.contains("orders-secret"))
        })
        .await;
    assert_eq!(status.state, "degraded");
    world
        .until(|_| world.target.bytes("east.orders", 0) == world.source.bytes("orders", 0))
        .await;
    world.mirror.stop().await;
}

#[tokio::test]
async fn a_group_that_the_source_keeps_to_itself_is_named_with_the_reason_and_holds_up_no_other() {
    let world = world();
    world.source.create("orders", 1, 1);
    world.source.produce("orders", 0, &["a", "b"]);
    world.source.commit("billing", "orders", 0, 1);
    world.source.commit("secret", "orders", 0, 2);
    world.source.hide("secret");
    world.target.declare(spec());
    let named = |status: &FlowStatus| {
        status
            .problems
            .iter()
            .any(|said| said.starts_with("group secret: "))
    };
    let status = world
        .until(|status| named(status) && status.groups.exact == 1)
        .await;
    assert!(
        status.problems[0].contains("GROUP_AUTHORIZATION_FAILED"),
        "{status:?}"
    );
    assert!(!status.problems[0].contains("coordinator"), "{status:?}");
    world.mirror.stop().await;
}

#[test]
fn a_gap_alone_does_not_keep_a_flow_from_being_moved() {
    let gap = "orders/0 is gapped: the source had removed offsets 3 to 6 before they were copied";
    let status = |problems: &[&str]| {
        let known = Known {
            observation: Some(Observation::default()),
            problems: problems.iter().map(|problem| (*problem).to_owned()).collect(),
            ..Known::default()
        };
        flow_status(FLOW, FlowState::Active, &known, 0)
    };
    assert_eq!(switchover::may_move(&status(&[])), Ok(()));
    assert_eq!(status(&[gap]).state, "degraded");
    assert_eq!(switchover::may_move(&status(&[gap])), Ok(()));
    let refusal = switchover::may_move(&status(&[gap, "orders/1 has failed: x"])).unwrap_err();
    assert!(
        refusal.contains("orders/1") && !refusal.contains("gapped"),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_config_that_is_refused_here_is_named_and_the_others_apply() {
    let world = world();
    world.source.create("orders", 1, 1);
    world.target.declare(spec());
    world.until(even).await;
    world.source.set_config("retention.ms", "77");
    world.source.set_config("unheard.of", "1");
    let status = world.until(|status| status.state == "degraded").await;
    assert!(status.problems[0].contains("unheard.of"), "{status:?}");
    let view = world.target.view();
    assert_eq!(
        view.topics["east.orders"]
            .configs
            .get("retention.ms")
            .map(String::as_str),
        Some("77")
    );
    world.mirror.stop().await;
}

#[tokio::test]
async fn a_plan_says_what_would_be_made_and_makes_nothing_and_an_apply_makes_it() {
    let given = FlowSpec {
        topics: vec![".*".into()],
        ..spec()
    };
    let world = world_with(vec![given.clone()]);
    world.source.create("orders", 1, 2);
    world.source.create(&"x".repeat(245), 2, 1);
    let plan = world.mirror.plan(std::slice::from_ref(&given)).await.remove(0);
    assert_eq!((plan.change.as_str(), plan.creates.len()), ("added", 1));
    assert_eq!(
        (plan.creates[0].here.as_str(), plan.creates[0].partitions),
        ("east.orders", 2)
    );
    assert!(plan.problems[0].contains("longer than 249"), "{plan:?}");
    let refused = world.mirror.apply(std::slice::from_ref(&given), false).await;
    assert!(matches!(refused, Err(DeclareError::Problems(_))), "{refused:?}");
    assert!(world.target.view().flows.is_empty());

    // What is declared holds, and the file's other word is told without making the flow a bad one.
    world.mirror.apply(&[spec()], true).await.unwrap();
    let status = world.until(|status| status.state == "active").await;
    assert!(status.notes[0].contains("says otherwise (topics)"), "{status:?}");
    let plan = world.mirror.plan(std::slice::from_ref(&given)).await.remove(0);
    assert_eq!((plan.change.as_str(), plan.fields.len()), ("changed", 1));
    let other = world.mirror.plan(&[]).await.remove(0);
    assert_eq!((other.flow.as_str(), other.change.as_str()), (FLOW, "not-given"));

    world
        .until(|_| world.target.view().topics.contains_key("east.orders"))
        .await;
    let removed = world.mirror.remove(FLOW, false).await.unwrap();
    assert_eq!(removed.topics, ["east.orders"]);
    let status = world.mirror.status().await.remove(0);
    assert_eq!((status.state.as_str(), status.topics), ("removed", 1));
    assert_eq!(world.mirror.remove(FLOW, false).await, Ok(removed));
    let unknown = world.mirror.remove("north->west", false).await;
    assert!(
        matches!(unknown, Err(DeclareError::UnknownFlow(_))),
        "{unknown:?}"
    );
    let elsewhere = FlowSpec {
        target_cluster: "north".into(),
        ..spec()
    };
    let invalid = world.mirror.apply(&[elsewhere], true).await;
    assert!(matches!(invalid, Err(DeclareError::Invalid(_))), "{invalid:?}");
    world.source.kill();
    let plan = world.mirror.plan(&[spec()]).await.remove(0);
    assert!(plan.problems[0].contains("cannot be looked at"), "{plan:?}");
    world.mirror.stop().await;
}

#[tokio::test]
async fn a_target_that_refuses_writes_is_told_and_goes_on_by_itself() {
    let world = world();
    world.source.create("orders", 1, 1);
    world.source.produce("orders", 0, &["a"]);
    world.target.declare(spec());
    world.until(even).await;
    world
        .target
        .refuse(Some(crate::target::LogError::NotEnoughReplicas));
    world.source.produce("orders", 0, &["b"]);
    world.until(|status| status.lag_records == Some(1)).await;
    let retrying = |_: &FlowStatus| {
        let flow = world.mirror.inner.flow(FLOW).unwrap();
        let partitions = flow.board.partitions();
        partitions
            .iter()
            .any(|(_, facts)| facts.health == Health::Retrying)
    };
    world.until(retrying).await;
    world.target.skip_ms(11_000);
    let status = world.until(|status| status.state == "degraded").await;
    assert!(
        status.problems[0].starts_with("east.orders/0 has tried again for ")
            && status.problems[0].ends_with("not enough in-sync replicas"),
        "{status:?}"
    );
    assert_eq!(status.lag_records, Some(1));
    world.target.refuse(None);
    let status = world.until(even).await;
    assert_eq!((status.state.as_str(), status.problems.len()), ("active", 0));
    world.mirror.stop().await;
}

#[tokio::test]
async fn no_position_is_written_on_a_partition_that_was_not_compared_since_a_start() {
    let World {
        target,
        source,
        mirror,
    } = {
        let world = world();
        world.source.create("orders", 1, 1);
        world.source.produce("orders", 0, &["a", "b", "c"]);
        world.source.commit("billing", "orders", 0, 1);
        world.target.declare(spec());
        world.until(even).await;
        world
    };
    mirror.stop().await;
    source.keep_epochs(true);
    source.commit("billing", "orders", 0, 2);
    let world = world_of(target, source, vec![]);
    // A status of a flow that runs asks for a pass and waits for it.
    let status = world.until(|status| status.groups.total == 1).await;
    assert_eq!(status.groups.exact, 0, "{status:?}");
    assert_eq!(world.target.stored("billing", "east.orders", 0), Some(1));
    world.source.keep_epochs(false);
    world.until(even).await;
    assert_eq!(world.target.stored("billing", "east.orders", 0), Some(2));
    world.mirror.stop().await;
}

/// What `docs/operate/problems.md` advises for a topic that was created again at the source.
#[tokio::test]
async fn positions_on_a_mirror_that_was_deleted_and_copied_anew_are_those_of_the_new_one() {
    let world = world();
    world.source.create("orders", 1, 1);
    world.source.produce("orders", 0, &["a", "b", "c", "d"]);
    world.source.commit("billing", "orders", 0, 4);
    world.target.declare(spec());
    world.until(even).await;
    world.source.recreate("orders", 9);
    world.source.produce("orders", 0, &["x", "y"]);
    world.source.produce("orders", 0, &["z"]);
    world.source.commit("billing", "orders", 0, 3);
    world.until(|status| status.state == "degraded").await;
    assert_eq!(world.target.stored("billing", "east.orders", 0), Some(4));
    // Its new mirror takes nothing yet: the group has nothing to read here.
    world
        .target
        .refuse(Some(crate::target::LogError::NotEnoughReplicas));
    world.target.delete("east.orders");
    let copied = |topic: &crate::target::TopicView| {
        let bound = topic.mirror.as_ref();
        bound.is_some_and(|bound| bound.source_topic_id.0[0] == 9)
    };
    let pending = |status: &FlowStatus| {
        let anew = world
            .target
            .view()
            .topics
            .get("east.orders")
            .is_some_and(|topic| copied(topic));
        anew && status.groups.total == 1 && status.lag_records == Some(3)
    };
    let status = world.until(pending).await;
    assert_eq!(status.groups.exact, 0, "{status:?}");
    assert_ne!(world.target.stored("billing", "east.orders", 0), Some(3));
    world.target.refuse(None);
    // The group stays idle: nothing but the mirror changes.
    world.until(even).await;
    assert_eq!(world.target.stored("billing", "east.orders", 0), Some(3));
    world.mirror.stop().await;
}

#[tokio::test]
async fn a_source_that_does_not_say_what_a_new_topic_is_holds_up_nothing_else() {
    let world = world();
    world.source.says_own(&[1]);
    world.source.create("orders", 1, 1);
    world.target.declare(spec());
    world.until(|status| status.state == "active").await;
    world.source.mute(true);
    world.source.create("orders-late", 2, 1);
    world.source.produce("orders", 0, &["a"]);
    let waits = |status: &FlowStatus| {
        let told = |problem: &String| problem.starts_with("orders-late: the source has not said");
        status.lag_records == Some(0) && status.problems.iter().any(told)
    };
    let status = world.until(waits).await;
    assert_eq!(status.state, "degraded", "{status:?}");
    assert_eq!(
        world.target.bytes("east.orders", 0),
        world.source.bytes("orders", 0)
    );
    assert!(!world.target.view().topics.contains_key("east.orders-late"));
    world.source.says_own(&[1, 2]);
    world.source.mute(false);
    // Nobody asks for a status: it is heard beside the looks.
    let made = async || {
        let view = world.target.view();
        let known = view.topics.contains_key("east.orders-late");
        known.then_some(()).ok_or("the topic is not there yet")
    };
    wait::until_async("the new topic is copied", 30, made)
        .await
        .unwrap();
    let status = world.until(|status| status.state == "active").await;
    assert_eq!(status.topics, 2);
    world.mirror.stop().await;
}

#[tokio::test]
async fn histories_of_many_partitions_are_compared_with_one_question() {
    let world = world();
    world.source.create("orders", 1, 40);
    (0..40).for_each(|partition| world.source.produce("orders", partition, &["a"]));
    world.target.declare(spec());
    world.until(even).await;
    let World {
        target,
        source,
        mirror,
    } = world;
    mirror.stop().await;
    let before = source.questions.load(std::sync::atomic::Ordering::Relaxed);
    (0..40).for_each(|partition| source.produce("orders", partition, &["b"]));
    let world = world_of(target, source, vec![]);
    world.until(even).await;
    let after = world.source.questions.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(after - before, 1);
    world.mirror.stop().await;
}

#[tokio::test]
async fn a_source_that_takes_long_over_its_first_word_is_heard_all_the_same() {
    let world = world();
    world.source.says_own(&[1]);
    world.source.ponders(Duration::from_millis(2_300));
    world.source.create("orders", 1, 1);
    world.target.declare(spec());
    let status = world.until(|status| status.state == "active").await;
    assert_eq!(status.topics, 1);
    world.mirror.stop().await;
}
