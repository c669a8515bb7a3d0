//! Members of a consumer group and what the group makes of what they send.

use std::collections::{BTreeMap, BTreeSet};

use tradewind_wire::ids::TopicId;

use super::super::error::GroupError;
use super::group::ConsumerState;
use super::heartbeat::{LEAVE, LEAVE_FOR_A_WHILE};
use super::records::MemberState;
use super::*;

/// Topics that a test makes.
#[derive(Default)]
pub(in super::super) struct Shelf {
    version: u64,
    topics: BTreeMap<String, (TopicId, i32)>,
    /// Settings of groups, by their names.
    pub(in super::super) settings: BTreeMap<&'static str, &'static str>,
}

impl Shelf {
    /// Makes a topic, or changes how many partitions it has; none removes it.
    pub(in super::super) fn put(&mut self, name: &str, partitions: i32) -> TopicId {
        self.version += 1;
        let next = TopicId([self.version as u8; 16]);
        let topic = self.topics.entry(name.to_owned()).or_insert((next, 0));
        topic.1 = partitions;
        let id = topic.0;
        if partitions == 0 {
            self.topics.remove(name);
        }
        id
    }

    pub(in super::super) fn copy(&self) -> Self {
        Self {
            version: self.version,
            topics: self.topics.clone(),
            settings: self.settings.clone(),
        }
    }
}

impl Topics for Shelf {
    fn version(&self) -> u64 {
        self.version
    }

    fn topic(&self, name: &str) -> Option<(TopicId, i32)> {
        self.topics.get(name).copied()
    }

    fn name(&self, id: TopicId) -> Option<String> {
        let mut all = self.topics.iter();
        all.find(|(_, (topic, _))| *topic == id)
            .map(|(name, _)| name.clone())
    }

    fn names(&self) -> Vec<String> {
        self.topics.keys().cloned().collect()
    }

    fn group_config(&self, _: &str, key: &str) -> Option<String> {
        self.settings.get(key).map(|value| (*value).to_owned())
    }
}

/// One group, its topics, its clock, and its log.
struct Lab {
    group: ConsumerGroup,
    config: ConsumerConfig,
    shelf: Shelf,
    now: i64,
    log: Vec<Record>,
}

/// A client that does as it is told, one heartbeat at a time.
struct Client {
    id: String,
    instance: Option<String>,
    epoch: i32,
    topics: BTreeSet<String>,
    regex: Option<String>,
    owned: Partitions,
}

impl Client {
    fn new(id: &str, topics: &[&str]) -> Self {
        Self {
            id: id.into(),
            instance: None,
            epoch: 0,
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            regex: None,
            owned: Partitions::new(),
        }
    }

    fn request(&self) -> Heartbeat {
        let joins = self.epoch == 0;
        Heartbeat {
            member_id: self.id.clone(),
            epoch: self.epoch,
            instance_id: self.instance.clone(),
            rebalance_timeout_ms: joins.then_some(60_000),
            topics: joins.then(|| self.topics.clone()),
            regex: self.regex.clone().filter(|_| joins),
            owned: Some(self.owned.clone()),
            ..Heartbeat::default()
        }
    }

    /// Sends a heartbeat and takes over what comes back.
    fn beat(&mut self, lab: &mut Lab) -> HeartbeatReply {
        let reply = lab.send(self.request()).expect("not refused");
        self.epoch = reply.epoch;
        if let Some(assignment) = &reply.assignment {
            self.owned.clone_from(assignment);
        }
        reply
    }

    fn holds(&self) -> usize {
        self.owned.values().map(BTreeSet::len).sum()
    }
}

impl Lab {
    fn new(topics: &[(&str, i32)]) -> Self {
        let mut shelf = Shelf::default();
        for (name, partitions) in topics {
            shelf.put(name, *partitions);
        }
        Self {
            group: ConsumerGroup::new(),
            config: ConsumerConfig::default(),
            shelf,
            now: 0,
            log: Vec::new(),
        }
    }

    fn send(&mut self, request: Heartbeat) -> Result<HeartbeatReply, GroupError> {
        let reply = self
            .group
            .heartbeat(&self.config, &self.shelf, request, self.now, self.now);
        assert!(
            reply.is_ok() || self.group.unwritten().next().is_none(),
            "a refusal writes nothing"
        );
        self.store();
        reply.map_err(|refusal| refusal.error)
    }

    /// Writes down what there is to write; what the log says is what the group is.
    fn store(&mut self) {
        self.log.extend(self.group.unwritten().cloned());
        self.group.settle();
        let mut replayed = ConsumerGroup::new();
        for record in &self.log {
            replayed.apply(record.clone());
        }
        assert_eq!(facts(&replayed), facts(&self.group));
    }

    fn pass(&mut self, ms: i64) {
        self.now += ms;
        self.group.tick(&self.config, &self.shelf, self.now);
        self.store();
    }

    /// Lets all clients send heartbeats until nothing moves any more.
    fn settle(&mut self, clients: &mut [&mut Client]) {
        for _ in 0..20 {
            for client in clients.iter_mut() {
                client.beat(self);
            }
        }
        assert_eq!(self.group.state(), ConsumerState::Stable);
    }
}

/// Everything durable about a group.
pub(in super::super) fn facts(group: &ConsumerGroup) -> String {
    let currents: BTreeMap<_, _> = group.currents.iter().collect();
    let targets: BTreeMap<_, _> = group.targets.iter().collect();
    let numbers = (group.epoch, group.topics_hash, group.target_epoch);
    format!(
        "{numbers:?} {:?} {currents:?} {targets:?} {:?}",
        group.members, group.regexes
    )
}

#[test]
fn partitions_are_given_up_before_they_are_given_away() {
    let mut lab = Lab::new(&[("t", 4)]);
    let (mut a, mut b) = (Client::new("a", &["t"]), Client::new("b", &["t"]));
    let reply = a.beat(&mut lab);
    assert_eq!((reply.epoch, a.holds()), (1, 4));
    assert_eq!(lab.group.state(), ConsumerState::Stable);
    let reply = b.beat(&mut lab);
    assert_eq!((reply.epoch, b.holds()), (2, 0), "all is still with the first");
    assert_eq!(lab.group.state(), ConsumerState::Reconciling);
    // The first is told at its epoch what to keep; until it says that the rest is gone it stays there.
    let held = a.owned.clone();
    let reply = a.beat(&mut lab);
    assert_eq!((reply.epoch, a.holds()), (1, 2));
    let mut slow = a.request();
    slow.owned = Some(held);
    assert_eq!(lab.send(slow).unwrap().epoch, 1);
    assert_eq!((b.beat(&mut lab).epoch, b.holds()), (2, 0));
    assert_eq!((a.beat(&mut lab).epoch, a.holds()), (2, 2));
    assert_eq!((b.beat(&mut lab).epoch, b.holds()), (2, 2));
    assert_eq!(lab.group.state(), ConsumerState::Stable);
    // When nothing changes, nothing is said and nothing is written.
    let log = lab.log.len();
    assert_eq!(a.beat(&mut lab).assignment, None);
    assert_eq!(lab.log.len(), log);
    // Who leaves makes room at once.
    b.epoch = LEAVE;
    assert_eq!(lab.send(b.request()).unwrap().epoch, LEAVE);
    assert_eq!(lab.group.state(), ConsumerState::Assigning);
    assert_eq!((a.beat(&mut lab).epoch, a.holds()), (3, 4));
}

#[test]
fn epochs_are_checked_and_a_lost_answer_is_forgiven() {
    let mut lab = Lab::new(&[("t", 2)]);
    let mut a = Client::new("a", &["t"]);
    a.beat(&mut lab);
    let with = |epoch: i32, owned: Option<Partitions>| Heartbeat {
        member_id: "a".into(),
        epoch,
        owned,
        ..Heartbeat::default()
    };
    assert_eq!(lab.send(with(2, None)), Err(GroupError::FencedEpoch));
    assert_eq!(
        lab.send(
            Client {
                id: "x".into(),
                epoch: 1,
                ..Client::new("x", &[])
            }
            .request()
        ),
        Err(GroupError::UnknownMember)
    );
    lab.shelf.put("t", 4);
    a.beat(&mut lab);
    assert_eq!(a.epoch, 2);
    // It comes with the epoch before: fine as long as it holds nothing that is not its own.
    assert_eq!(lab.send(with(1, None)), Err(GroupError::FencedEpoch));
    assert_eq!(lab.send(with(1, Some(a.owned.clone()))).unwrap().epoch, 2);
    let foreign = Partitions::from([(TopicId([99; 16]), BTreeSet::from([0]))]);
    assert_eq!(lab.send(with(1, Some(foreign))), Err(GroupError::FencedEpoch));
    assert_eq!(lab.send(with(LEAVE, None)).map(|reply| reply.epoch), Ok(LEAVE));
    assert_eq!(lab.send(with(2, None)), Err(GroupError::UnknownMember));
    // Who was fenced joins again under its old id.
    a.epoch = 0;
    a.owned.clear();
    a.beat(&mut lab);
    assert_eq!(a.holds(), 4);
    a.epoch = 0;
    a.owned.clear();
    let reply = a.beat(&mut lab);
    assert_eq!(
        reply.assignment.map(|all| all.len()),
        Some(1),
        "told everything, though nothing changed"
    );
}

#[test]
fn a_static_member_leaves_for_a_while_and_comes_back_to_its_partitions() {
    let mut lab = Lab::new(&[("t", 4)]);
    let (mut a, mut b) = (Client::new("a", &["t"]), Client::new("b", &["t"]));
    a.instance = Some("i".into());
    lab.settle(&mut [&mut a, &mut b]);
    let (held, epoch) = (a.owned.clone(), a.epoch);
    let mut next = Client::new("a2", &["t"]);
    next.instance.clone_from(&a.instance);
    assert_eq!(lab.send(next.request()), Err(GroupError::UnreleasedInstance));
    let mut gone = a.request();
    gone.epoch = LEAVE_FOR_A_WHILE;
    assert_eq!(lab.send(gone).unwrap().epoch, LEAVE_FOR_A_WHILE);
    assert_eq!(lab.send(a.request()), Err(GroupError::FencedEpoch));
    b.beat(&mut lab);
    assert_eq!((b.epoch, b.holds()), (epoch, 2), "nobody else is moved");
    next.beat(&mut lab);
    assert_eq!((next.epoch, &next.owned), (epoch, &held));
    assert_eq!(lab.send(a.request()), Err(GroupError::FencedInstance));
    // One that does not come back in time is gone like any other.
    let mut gone = next.request();
    gone.epoch = LEAVE_FOR_A_WHILE;
    lab.send(gone).unwrap();
    lab.pass(lab.config.session_timeout_ms - 1);
    b.beat(&mut lab);
    lab.pass(1);
    b.beat(&mut lab);
    assert_eq!(b.holds(), 4);
}

#[test]
fn an_expression_reads_topics_that_come_later() {
    let mut lab = Lab::new(&[("orders-a", 2), ("other", 2)]);
    let mut a = Client::new("a", &[]);
    a.regex = Some("orders-.*".into());
    a.beat(&mut lab);
    assert_eq!(a.holds(), 2);
    lab.shelf.put("unrelated", 3);
    assert_eq!((a.beat(&mut lab).assignment, a.epoch), (None, 1));
    lab.shelf.put("orders-b", 3);
    a.beat(&mut lab);
    assert_eq!((a.holds(), a.epoch), (5, 2));
    lab.shelf.put("orders-a", 0);
    lab.settle(&mut [&mut a]);
    assert_eq!(a.holds(), 3, "what is no more is read no more");
    // Names and an expression at once, then neither.
    let mut both = a.request();
    both.topics = Some(["other".to_owned()].into());
    let reply = lab.send(both).unwrap();
    (a.epoch, a.owned) = (reply.epoch, reply.assignment.unwrap());
    assert_eq!(a.holds(), 5);
    let mut none = a.request();
    (none.topics, none.regex) = (Some(BTreeSet::new()), Some(String::new()));
    let reply = lab.send(none).unwrap();
    assert_eq!(reply.assignment, Some(Partitions::new()));
    assert!(
        lab.group.regexes.is_empty(),
        "an expression that nobody has is forgotten"
    );
    let mut broken = Client::new("b", &[]);
    broken.regex = Some("(".into());
    assert_eq!(lab.send(broken.request()), Err(GroupError::InvalidRegex));
}

#[test]
fn members_with_different_expressions_each_read_what_matches() {
    let mut lab = Lab::new(&[("a1", 2), ("b1", 2)]);
    let (mut a, mut b) = (Client::new("a", &[]), Client::new("b", &[]));
    (a.regex, b.regex) = (Some("a.*".into()), Some("b.*".into()));
    lab.settle(&mut [&mut a, &mut b]);
    assert_eq!((a.holds(), b.holds()), (2, 2));
    let new = lab.shelf.put("b2", 3);
    lab.settle(&mut [&mut a, &mut b]);
    assert_eq!((a.holds(), b.holds()), (2, 5));
    assert!(b.owned.contains_key(&new));
}

#[test]
fn who_is_silent_or_does_not_give_up_is_dropped() {
    let mut lab = Lab::new(&[("t", 4)]);
    let (mut a, mut b) = (Client::new("a", &["t"]), Client::new("b", &["t"]));
    a.beat(&mut lab);
    b.beat(&mut lab);
    let all = a.owned.clone();
    a.beat(&mut lab);
    assert_eq!(lab.group.current("a").state, MemberState::Unrevoked);
    // It lives, but does not let go.
    for _ in 0..3 {
        lab.pass(20_000);
        let mut stubborn = a.request();
        stubborn.owned = Some(all.clone());
        let reply = lab.send(stubborn);
        assert!(reply.is_ok() || lab.now == 60_000);
        b.beat(&mut lab);
    }
    assert_eq!(lab.send(a.request()), Err(GroupError::UnknownMember));
    lab.settle(&mut [&mut b]);
    assert_eq!(b.holds(), 4);
    assert_eq!(
        lab.group.deadline(),
        Some(lab.now + lab.config.session_timeout_ms)
    );
    lab.pass(lab.config.session_timeout_ms);
    assert_eq!(lab.group.state(), ConsumerState::Empty);
    assert_eq!(lab.group.deadline(), None);
}

#[test]
fn the_assignor_that_most_members_ask_for_is_used() {
    let mut lab = Lab::new(&[("t", 3), ("u", 3)]);
    let (mut a, mut b) = (Client::new("a", &["t", "u"]), Client::new("b", &["t", "u"]));
    let mut request = a.request();
    request.assignor = Some("range".into());
    let reply = lab.send(request).unwrap();
    (a.epoch, a.owned) = (reply.epoch, reply.assignment.unwrap());
    lab.settle(&mut [&mut a, &mut b]);
    assert_eq!(lab.group.assignor().name(), "range");
    assert_eq!((a.holds(), b.holds()), (4, 2), "the same run of both topics");
    let mut unheard = Client::new("c", &["t"]).request();
    unheard.assignor = Some("sticky".into());
    assert_eq!(lab.send(unheard), Err(GroupError::UnsupportedAssignor));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut lab = Lab::new(&[("t", 1)]);
    lab.config.max_size = 1;
    let good = Client::new("a", &["t"]).request();
    let mut refused = |change: fn(&mut Heartbeat)| {
        let mut request = good.clone();
        change(&mut request);
        lab.send(request).unwrap_err()
    };
    let invalid = GroupError::InvalidRequest;
    assert_eq!(refused(|r| r.member_id.clear()), invalid);
    assert_eq!(refused(|r| r.instance_id = Some(String::new())), invalid);
    assert_eq!(refused(|r| r.rack_id = Some(String::new())), invalid);
    assert_eq!(refused(|r| r.epoch = -3), invalid);
    assert_eq!(refused(|r| r.epoch = LEAVE_FOR_A_WHILE), invalid);
    assert_eq!(refused(|r| r.rebalance_timeout_ms = None), invalid);
    assert_eq!(refused(|r| r.owned = None), invalid);
    assert_eq!(refused(|r| r.topics = None), invalid);
    assert_eq!(refused(|r| r.epoch = 1), GroupError::UnknownMember);
    assert!(lab.send(good).is_ok());
    assert_eq!(
        lab.send(Client::new("b", &["t"]).request()),
        Err(GroupError::GroupFull)
    );
}

#[test]
fn commits_and_reads_carry_the_epoch() {
    let mut lab = Lab::new(&[("t", 2)]);
    let commit = |lab: &Lab, member: &str, epoch: i32, partition: i32| {
        let positions = [("t", partition)].into_iter();
        lab.group.check_commit(member, epoch, true, positions, &lab.shelf)
    };
    assert_eq!(commit(&lab, "", -1, 0), Ok(()), "nobody is in");
    let mut a = Client::new("a", &["t"]);
    a.beat(&mut lab);
    assert_eq!(commit(&lab, "", -1, 0), Err(GroupError::UnknownMember));
    assert_eq!(commit(&lab, "a", 1, 0), Ok(()));
    assert_eq!(commit(&lab, "a", 2, 0), Err(GroupError::StaleEpoch));
    assert_eq!(lab.group.check_fetch(None, -1), Ok(()));
    assert_eq!(lab.group.check_fetch(Some("a"), 1), Ok(()));
    assert_eq!(lab.group.check_fetch(Some("a"), 0), Err(GroupError::StaleEpoch));
    assert_eq!(
        lab.group.check_fetch(Some("x"), 1),
        Err(GroupError::UnknownMember)
    );
    let old = lab.group.check_commit("a", 1, false, [].into_iter(), &lab.shelf);
    assert_eq!(old, Err(GroupError::UnsupportedVersion));
    // Held since epoch 1, so a commit of epoch 1 is as good as one of epoch 2; the new partition came with epoch 2.
    lab.shelf.put("t", 3);
    a.beat(&mut lab);
    assert_eq!(a.epoch, 2);
    assert_eq!(commit(&lab, "a", 1, 0), Ok(()));
    assert_eq!(commit(&lab, "a", 1, 2), Err(GroupError::StaleEpoch));
    assert_eq!(commit(&lab, "a", 2, 2), Ok(()));
}

#[test]
fn what_cannot_be_written_did_not_happen() {
    let mut lab = Lab::new(&[("t", 4)]);
    let (mut a, b) = (Client::new("a", &["t"]), Client::new("b", &["t"]));
    a.beat(&mut lab);
    let before = facts(&lab.group);
    lab.group
        .heartbeat(&lab.config, &lab.shelf, b.request(), 0, 0)
        .unwrap();
    lab.group.roll_back(&lab.config, 0);
    assert!(facts(&lab.group) == before);
    assert_eq!(lab.group.deadline(), Some(lab.config.session_timeout_ms));
    lab.settle(&mut [&mut a]);
    assert_eq!(a.holds(), 4);
}
