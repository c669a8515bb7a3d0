//! How the leader of a group shares partitions out among the members: Kafka's `range` and `roundrobin`.
//!
//! Pure functions over names and numbers, with the same results as the Java client's, so that members in other languages
//! may lead in turn.

use std::collections::{BTreeMap, BTreeSet};

/// A topic and one of its partitions.
pub type TopicPartition = (String, i32);

/// A strategy that this client offers when it joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Assignor {
    /// Contiguous ranges, topic by topic: partition n of several topics goes to the same member.
    Range,
    /// One partition after the other over all topics, to each member in turn.
    RoundRobin,
}

impl Assignor {
    /// The protocol name that members agree on.
    pub fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
        }
    }

    /// The strategy of this protocol name.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Range, Self::RoundRobin]
            .into_iter()
            .find(|assignor| assignor.name() == name)
    }

    /// Shares the `partitions` (count per topic) among the `members`. Every member is in the result, if only with nothing.
    pub fn assign(
        self,
        members: &[Member],
        partitions: &BTreeMap<String, i32>,
    ) -> BTreeMap<String, Vec<TopicPartition>> {
        let mut shares: BTreeMap<String, Vec<TopicPartition>> = members
            .iter()
            .map(|member| (member.id.clone(), Vec::new()))
            .collect();
        let mut members: Vec<&Member> = members.iter().collect();
        members.sort_by_key(|member| member.sort_key());
        match self {
            Self::Range => range(&members, partitions, &mut shares),
            Self::RoundRobin => round_robin(&members, partitions, &mut shares),
        }
        shares
    }
}

/// A member and what it subscribes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The id that the coordinator gave it.
    pub id: String,
    /// Its static id, if it has one: stands before members without one, and orders those that have.
    pub instance_id: Option<String>,
    /// The topics.
    pub topics: BTreeSet<String>,
}

impl Member {
    fn sort_key(&self) -> (bool, &str) {
        match &self.instance_id {
            Some(instance) => (false, instance),
            None => (true, &self.id),
        }
    }
}

fn range(
    members: &[&Member],
    partitions: &BTreeMap<String, i32>,
    shares: &mut BTreeMap<String, Vec<TopicPartition>>,
) {
    for (topic, count) in partitions {
        let takers: Vec<_> = members
            .iter()
            .filter(|member| member.topics.contains(topic))
            .collect();
        let Ok(taker_count) = i32::try_from(takers.len()) else {
            continue;
        };
        if taker_count == 0 {
            continue;
        }
        let (each, extra) = (count / taker_count, count % taker_count);
        let mut next = 0;
        for (i, member) in (0..).zip(takers) {
            let end = next + each + i32::from(i < extra);
            if let Some(share) = shares.get_mut(&member.id) {
                share.extend((next..end).map(|partition| (topic.clone(), partition)));
            }
            next = end;
        }
    }
}

fn round_robin(
    members: &[&Member],
    partitions: &BTreeMap<String, i32>,
    shares: &mut BTreeMap<String, Vec<TopicPartition>>,
) {
    let wanted = |topic: &String| members.iter().any(|member| member.topics.contains(topic));
    let mut turn = 0;
    for (topic, count) in partitions.iter().filter(|(topic, _)| wanted(topic)) {
        for partition in 0..*count {
            while !members[turn % members.len()].topics.contains(topic) {
                turn += 1;
            }
            if let Some(share) = shares.get_mut(&members[turn % members.len()].id) {
                share.push((topic.clone(), partition));
            }
            turn += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, topics: &[&str]) -> Member {
        Member {
            id: id.into(),
            instance_id: None,
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        }
    }

    fn topics(counts: &[(&str, i32)]) -> BTreeMap<String, i32> {
        counts
            .iter()
            .map(|(topic, count)| ((*topic).to_owned(), *count))
            .collect()
    }

    fn shares(assignor: Assignor, members: &[Member], counts: &[(&str, i32)]) -> Vec<String> {
        let assigned = assignor.assign(members, &topics(counts));
        assigned
            .into_iter()
            .map(|(id, share)| {
                let share: Vec<_> = share
                    .iter()
                    .map(|(topic, partition)| format!("{topic}{partition}"))
                    .collect();
                format!("{id}: {}", share.join(" "))
            })
            .collect()
    }

    #[test]
    fn range_gives_contiguous_shares_topic_by_topic() {
        let members = [member("b", &["t", "u"]), member("a", &["t", "u"])];
        assert_eq!(
            shares(Assignor::Range, &members, &[("t", 3), ("u", 3)]),
            ["a: t0 t1 u0 u1", "b: t2 u2"]
        );
    }

    #[test]
    fn round_robin_deals_over_all_topics() {
        let members = [member("a", &["t", "u"]), member("b", &["t", "u"])];
        assert_eq!(
            shares(Assignor::RoundRobin, &members, &[("t", 3), ("u", 3)]),
            ["a: t0 t2 u1", "b: t1 u0 u2"]
        );
    }

    #[test]
    fn members_get_only_what_they_subscribe_to() {
        // The example in the documentation of Kafka's RoundRobinAssignor.
        let members = [
            member("c0", &["t0"]),
            member("c1", &["t0", "t1"]),
            member("c2", &["t0", "t1", "t2"]),
        ];
        let counts = [("t0", 1), ("t1", 2), ("t2", 3)];
        assert_eq!(
            shares(Assignor::RoundRobin, &members, &counts),
            ["c0: t00", "c1: t10", "c2: t11 t20 t21 t22"]
        );
        assert_eq!(
            shares(Assignor::Range, &members, &counts),
            ["c0: t00", "c1: t10", "c2: t11 t20 t21 t22"]
        );
    }

    #[test]
    fn static_members_come_first_and_spare_members_get_nothing() {
        let mut fixed = member("z", &["t"]);
        fixed.instance_id = Some("one".into());
        let members = [member("a", &["t"]), fixed, member("c", &["t"])];
        assert_eq!(
            shares(Assignor::Range, &members, &[("t", 2)]),
            ["a: t1", "c: ", "z: t0"]
        );
        assert_eq!(
            shares(Assignor::RoundRobin, &members, &[("other", 2)]),
            ["a: ", "c: ", "z: "]
        );
    }
}
