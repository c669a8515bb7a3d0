//! The assignors of the coordinator: `uniform` and `range`, under Kafka's names.
//!
//! Both give every partition of every topic to exactly one member that reads the topic. `uniform` balances the number of
//! partitions per member and moves as few as that allows; `range` gives each member a run of each topic's partitions, the
//! same run of all topics with as many partitions. They are pure: the same members and topics give the same assignment.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tradewind_wire::ids::TopicId;

use super::records::Partitions;

/// How often the balancing of members with different subscriptions goes over all topics at most.
const MAX_ROUNDS: usize = 16;

/// An assignor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignor {
    /// As many partitions for every member as can be, moving few.
    Uniform,
    /// Runs of partitions, the same for all topics.
    Range,
}

impl Assignor {
    /// All there are; the first is used unless members ask for another.
    pub const ALL: [Self; 2] = [Self::Uniform, Self::Range];

    /// Kafka's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// The assignor of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|assignor| assignor.name() == name)
    }

    /// What each of `members` shall hold; `counts` are the partitions of the topics they read.
    pub(super) fn assign(
        self,
        members: &BTreeMap<&str, Reader<'_>>,
        counts: &BTreeMap<TopicId, i32>,
    ) -> BTreeMap<String, Partitions> {
        if members.is_empty() {
            return BTreeMap::new();
        }
        match self {
            Self::Uniform => Uniform::new(members, counts).assign(),
            Self::Range => range(members, counts),
        }
    }
}

/// What an assignor knows of a member.
pub(super) struct Reader<'a> {
    /// Its static instance id.
    pub(super) instance_id: Option<&'a str>,
    /// The topics that it reads, of those that exist.
    pub(super) topics: BTreeSet<TopicId>,
    /// What it was to hold so far.
    pub(super) target: Option<&'a Partitions>,
}

fn range(
    members: &BTreeMap<&str, Reader<'_>>,
    counts: &BTreeMap<TopicId, i32>,
) -> BTreeMap<String, Partitions> {
    // Static members first, by their instance ids: those stay when member ids change.
    let mut order: Vec<(&str, &Reader<'_>)> = members.iter().map(|(id, reader)| (*id, reader)).collect();
    order.sort_by_key(|(id, reader)| {
        (
            reader.instance_id.is_none(),
            reader.instance_id.unwrap_or(id).to_owned(),
        )
    });
    let mut readers: HashMap<TopicId, i32> = HashMap::new();
    for reader in members.values() {
        for topic in &reader.topics {
            *readers.entry(*topic).or_default() += 1;
        }
    }
    // Per topic: where the next run begins, and how many members still get one more than the least.
    let mut next: HashMap<TopicId, (i32, i32)> = HashMap::new();
    let mut all = BTreeMap::new();
    for (id, reader) in order {
        let mut assignment = Partitions::new();
        for topic in &reader.topics {
            let (Some(count), Some(readers)) = (counts.get(topic), readers.get(topic)) else {
                continue;
            };
            let (from, extra) = next.entry(*topic).or_insert((0, count % readers));
            let size = count / readers + i32::from(*extra > 0);
            *extra -= 1;
            let run: BTreeSet<i32> = (*from..(*from + size).min(*count)).collect();
            *from += size;
            if !run.is_empty() {
                assignment.insert(*topic, run);
            }
        }
        all.insert(id.to_owned(), assignment);
    }
    all
}

/// The state of the uniform assignor: members by number, in the order of their ids.
struct Uniform<'a> {
    members: Vec<(&'a str, &'a Reader<'a>)>,
    counts: &'a BTreeMap<TopicId, i32>,
    /// Who reads a topic.
    readers: BTreeMap<TopicId, Vec<usize>>,
    /// Who is to hold each partition of a topic.
    owners: BTreeMap<TopicId, Vec<Option<usize>>>,
    /// How many partitions each member is to hold.
    loads: Vec<i32>,
}

impl<'a> Uniform<'a> {
    fn new(members: &'a BTreeMap<&str, Reader<'a>>, counts: &'a BTreeMap<TopicId, i32>) -> Self {
        let members: Vec<(&str, &Reader<'_>)> = members.iter().map(|(id, reader)| (*id, reader)).collect();
        let mut readers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
        for (number, (_, reader)) in members.iter().enumerate() {
            for topic in reader.topics.iter().filter(|topic| counts.contains_key(*topic)) {
                readers.entry(*topic).or_default().push(number);
            }
        }
        let unowned = |topic: &TopicId| vec![None; usize::try_from(counts[topic]).unwrap_or(0)];
        let owners = readers.keys().map(|topic| (*topic, unowned(topic))).collect();
        let loads = vec![0; members.len()];
        Self {
            members,
            counts,
            readers,
            owners,
            loads,
        }
    }

    fn assign(mut self) -> BTreeMap<String, Partitions> {
        self.keep();
        let alike = self
            .members
            .windows(2)
            .all(|pair| pair[0].1.topics == pair[1].1.topics);
        if alike {
            self.level();
        } else {
            self.fill();
            self.balance();
        }
        let mut all: BTreeMap<String, Partitions> = BTreeMap::new();
        for (id, _) in &self.members {
            all.insert((*id).to_owned(), Partitions::new());
        }
        for (topic, owners) in &self.owners {
            for (partition, owner) in (0..).zip(owners) {
                let Some(assignment) = owner.and_then(|owner| all.get_mut(self.members[owner].0)) else {
                    continue;
                };
                assignment.entry(*topic).or_default().insert(partition);
            }
        }
        all
    }

    /// Leaves with every member what it had, as far as it still may.
    fn keep(&mut self) {
        for (number, (_, reader)) in self.members.iter().enumerate() {
            for (topic, partitions) in reader.target.into_iter().flatten() {
                let Some(owners) = self
                    .owners
                    .get_mut(topic)
                    .filter(|_| reader.topics.contains(topic))
                else {
                    continue;
                };
                for partition in partitions {
                    let slot = usize::try_from(*partition).ok().and_then(|at| owners.get_mut(at));
                    if let Some(slot @ None) = slot {
                        *slot = Some(number);
                        self.loads[number] += 1;
                    }
                }
            }
        }
    }

    /// Members that all read the same: each gets its share, and those who had one more than the least keep it first.
    fn level(&mut self) {
        let total: i32 = self.readers.keys().map(|topic| self.counts[topic]).sum();
        let size = i32::try_from(self.members.len()).unwrap_or(i32::MAX);
        let (least, mut extra) = (total / size, total % size);
        let mut quotas = vec![least; self.members.len()];
        let had_more = (0..self.members.len()).filter(|number| self.loads[*number] > least);
        let others = (0..self.members.len()).filter(|number| self.loads[*number] <= least);
        for number in had_more.chain(others).collect::<Vec<_>>() {
            if extra > 0 {
                quotas[number] += 1;
                extra -= 1;
            }
        }
        let mut free = Vec::new();
        for (topic, owners) in &mut self.owners {
            for (at, slot) in owners.iter_mut().enumerate().rev() {
                let over = slot.is_some_and(|owner| self.loads[owner] > quotas[owner]);
                if let Some(owner) = slot.take_if(|_| over) {
                    self.loads[owner] -= 1;
                }
                if slot.is_none() {
                    free.push((*topic, at));
                }
            }
        }
        let mut takers = (0..self.members.len()).flat_map(|number| {
            let missing = quotas[number] - self.loads[number];
            (0..missing.max(0)).map(move |_| number)
        });
        free.sort_unstable();
        let mut given = Vec::new();
        for (topic, at) in free {
            if let (Some(owners), Some(number)) = (self.owners.get_mut(&topic), takers.next()) {
                owners[at] = Some(number);
                given.push(number);
            }
        }
        given.into_iter().for_each(|number| self.loads[number] += 1);
    }

    /// The topics, those first whose partitions press most on their readers.
    fn by_pressure(&self) -> Vec<TopicId> {
        let mut topics: Vec<TopicId> = self.readers.keys().copied().collect();
        topics.sort_by(|a, b| {
            let part = |topic: &TopicId| (i64::from(self.counts[topic]), self.readers[topic].len() as i64);
            let ((a_count, a_readers), (b_count, b_readers)) = (part(a), part(b));
            let pressure = (b_count * a_readers).cmp(&(a_count * b_readers));
            pressure.then(a_readers.cmp(&b_readers)).then(a.cmp(b))
        });
        topics
    }

    /// Members that read different things: what nobody holds goes to the least loaded reader.
    fn fill(&mut self) {
        for topic in self.by_pressure() {
            let readers = &self.readers[&topic];
            let Some(owners) = self.owners.get_mut(&topic) else {
                continue;
            };
            // Least loaded first; a heap's worth of order kept by re-inserting.
            let mut queue: BTreeSet<(i32, usize)> = readers
                .iter()
                .map(|reader| (self.loads[*reader], *reader))
                .collect();
            for slot in owners.iter_mut().filter(|slot| slot.is_none()) {
                let Some((load, reader)) = queue.pop_first() else {
                    continue;
                };
                *slot = Some(reader);
                self.loads[reader] = load + 1;
                queue.insert((load + 1, reader));
            }
        }
    }

    /// Moves partitions from readers with many to readers with few while that evens them out.
    fn balance(&mut self) {
        let topics = self.by_pressure();
        for _ in 0..MAX_ROUNDS {
            let mut moved = false;
            for topic in &topics {
                moved |= self.balance_topic(*topic);
            }
            if !moved {
                return;
            }
        }
    }

    fn balance_topic(&mut self, topic: TopicId) -> bool {
        let readers = &self.readers[&topic];
        let Some(owners) = self.owners.get_mut(&topic) else {
            return false;
        };
        let mut held: HashMap<usize, Vec<usize>> = HashMap::new();
        for (at, owner) in owners.iter().enumerate() {
            if let Some(owner) = owner {
                held.entry(*owner).or_default().push(at);
            }
        }
        let mut queue: BTreeSet<(i32, usize)> = readers
            .iter()
            .map(|reader| (self.loads[*reader], *reader))
            .collect();
        let mut moved = false;
        while let Some(&(low, taker)) = queue.first() {
            // The most loaded reader that has a partition of this topic to give.
            let giver = queue
                .iter()
                .rev()
                .find(|(_, reader)| held.get(reader).is_some_and(|all| !all.is_empty()));
            let Some(&(high, giver)) = giver.filter(|(high, _)| high - low > 1) else {
                break;
            };
            let Some(at) = held.get_mut(&giver).and_then(Vec::pop) else {
                break;
            };
            owners[at] = Some(taker);
            self.loads[giver] -= 1;
            self.loads[taker] += 1;
            queue.remove(&(high, giver));
            queue.remove(&(low, taker));
            queue.insert((high - 1, giver));
            queue.insert((low + 1, taker));
            moved = true;
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(number: u8) -> TopicId {
        TopicId([number; 16])
    }

    type Readers = BTreeMap<String, BTreeSet<u8>>;

    /// The assignment of `readers`, starting from `before`.
    fn assign(
        assignor: Assignor,
        readers: &Readers,
        counts: &BTreeMap<TopicId, i32>,
        before: &BTreeMap<String, Partitions>,
    ) -> BTreeMap<String, Partitions> {
        let members = readers.iter().map(|(id, topics)| {
            let reader = Reader {
                instance_id: None,
                topics: topics.iter().map(|number| topic(*number)).collect(),
                target: before.get(id),
            };
            (id.as_str(), reader)
        });
        assignor.assign(&members.collect(), counts)
    }

    fn load(partitions: &Partitions) -> usize {
        partitions.values().map(BTreeSet::len).sum()
    }

    /// How many partitions of `before` are with another member afterwards.
    fn moves(before: &BTreeMap<String, Partitions>, after: &BTreeMap<String, Partitions>) -> usize {
        let left = |(id, partitions): (&String, &Partitions)| {
            let now = after.get(id);
            let gone = |(topic, all): (&TopicId, &BTreeSet<i32>)| {
                let now = now.and_then(|now| now.get(topic));
                all.iter()
                    .filter(|partition| now.is_none_or(|now| !now.contains(partition)))
                    .count()
            };
            partitions.iter().map(gone).sum::<usize>()
        };
        before.iter().map(left).sum()
    }

    fn everyone(members: &[&str], topics: &[u8]) -> Readers {
        members
            .iter()
            .map(|id| ((*id).to_owned(), topics.iter().copied().collect()))
            .collect()
    }

    #[test]
    fn range_gives_runs_that_are_the_same_for_every_topic() {
        let counts = BTreeMap::from([(topic(1), 3), (topic(2), 3)]);
        let all = assign(
            Assignor::Range,
            &everyone(&["a", "b"], &[1, 2]),
            &counts,
            &BTreeMap::new(),
        );
        let run = |run: &[i32]| Partitions::from([1, 2].map(|t| (topic(t), run.iter().copied().collect())));
        assert_eq!(all["a"], run(&[0, 1]));
        assert_eq!(all["b"], run(&[2]));
    }

    #[test]
    fn uniform_moves_no_more_than_a_newcomer_needs() {
        let counts = BTreeMap::from([(topic(1), 6), (topic(2), 6)]);
        let two = assign(
            Assignor::Uniform,
            &everyone(&["b", "c"], &[1, 2]),
            &counts,
            &BTreeMap::new(),
        );
        let three = assign(
            Assignor::Uniform,
            &everyone(&["a", "b", "c"], &[1, 2]),
            &counts,
            &two,
        );
        assert_eq!(moves(&two, &three), 4, "the newcomer's share and nothing else");
        let back = assign(
            Assignor::Uniform,
            &everyone(&["b", "c"], &[1, 2]),
            &counts,
            &three,
        );
        assert_eq!(moves(&three, &back), 4, "what the leaver had and nothing else");
    }

    proptest! {
        #[test]
        fn every_partition_goes_to_one_reader_and_loads_are_even(
            members in prop::collection::btree_map("[a-f]", prop::collection::btree_set(0u8..4, 1..4), 1..6),
            others in prop::collection::btree_map("[a-f]", prop::collection::btree_set(0u8..4, 1..4), 1..6),
            partitions in prop::collection::vec(0i32..9, 4),
        ) {
            let counts: BTreeMap<TopicId, i32> = (0u8..).zip(&partitions).map(|(t, count)| (topic(t), *count)).collect();
            for assignor in Assignor::ALL {
                let before = assign(assignor, &others, &counts, &BTreeMap::new());
                let after = assign(assignor, &members, &counts, &before);
                let mut seen = BTreeMap::new();
                for (id, held) in &after {
                    for (topic, partitions) in held {
                        prop_assert!(members[id].contains(&topic.0[0]), "only what it reads");
                        for partition in partitions {
                            prop_assert!(*partition < counts[topic]);
                            prop_assert_eq!(seen.insert((*topic, *partition), id), None, "one owner");
                        }
                    }
                }
                let read = |t: u8| members.values().any(|topics| topics.contains(&t));
                let due: i32 = (0u8..).zip(&partitions).filter(|(t, _)| read(*t)).map(|(_, count)| count).sum();
                prop_assert_eq!(seen.len() as i32, due, "nothing is left over");
                if assignor == Assignor::Uniform {
                    let first = members.values().next();
                    let alike = members.values().all(|topics| Some(topics) == first);
                    let loads: Vec<usize> = after.values().map(load).collect();
                    let spread = loads.iter().max().unwrap() - loads.iter().min().unwrap();
                    prop_assert!(!alike || spread <= 1, "{loads:?}");
                    let again = assign(assignor, &members, &counts, &after);
                    prop_assert_eq!(&again, &after, "settled assignments stay");
                }
            }
        }
    }
}
