//! Where replicas shall be: the file of kafka-reassign-partitions, and plans that spread replicas and move few of them.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tradewind_client::TopicMetadata;
use tradewind_client::consumer::assignor::TopicPartition;

/// The brokers of each partition, the preferred leader first.
pub(super) type Placement = BTreeMap<TopicPartition, Vec<i32>>;

/// Where these topics are.
pub(super) fn placement(topics: &BTreeMap<String, TopicMetadata>) -> Placement {
    let mut placement = Placement::new();
    for topic in topics.values() {
        for (number, partition) in &topic.partitions {
            placement.insert((topic.name.clone(), *number), partition.replicas.clone());
        }
    }
    placement
}

/// A plan as a file.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    version: i64,
    partitions: Vec<FilePartition>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FilePartition {
    topic: String,
    partition: i32,
    replicas: Vec<i32>,
    /// Which directory each replica goes to; only `any` can be asked for.
    #[serde(default, skip_serializing)]
    log_dirs: Vec<String>,
}

/// Reads a plan.
pub(super) fn read(text: &str) -> Result<Placement, String> {
    let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if file.version != 1 {
        return Err(format!("version {} is not known: it is 1", file.version));
    }
    let mut placement = Placement::new();
    for one in file.partitions {
        let name = format!("{}-{}", one.topic, one.partition);
        let distinct: BTreeSet<_> = one.replicas.iter().collect();
        if one.replicas.is_empty() || distinct.len() != one.replicas.len() {
            return Err(format!("{name} needs brokers, each once, not {:?}", one.replicas));
        }
        if one.log_dirs.iter().any(|folder| folder != "any") {
            return Err(format!("{name}: directories cannot be chosen"));
        }
        if placement
            .insert((one.topic, one.partition), one.replicas)
            .is_some()
        {
            return Err(format!("{name} is named twice"));
        }
    }
    Ok(placement)
}

/// Writes a plan.
pub(super) fn write(placement: &Placement) -> impl Serialize + use<> {
    let partition = |((topic, partition), replicas): (&TopicPartition, &Vec<i32>)| FilePartition {
        topic: topic.clone(),
        partition: *partition,
        replicas: replicas.clone(),
        log_dirs: Vec::new(),
    };
    File {
        version: 1,
        partitions: placement.iter().map(partition).collect(),
    }
}

/// Spreads partitions evenly over `brokers` (with their racks), with `replication_factor` replicas each (`None`: as many
/// as each has). A replica stays where it is unless its broker is not among them, has more than its share, or shares a
/// rack with another replica while a rack is free. Preferred leaders are spread evenly too.
pub(super) fn spread(
    now: &Placement,
    brokers: &BTreeMap<i32, Option<String>>,
    replication_factor: Option<usize>,
) -> Result<Placement, String> {
    let wanted = |replicas: &Vec<i32>| replication_factor.unwrap_or(replicas.len());
    let most = now.values().map(wanted).max().unwrap_or(0);
    if most > brokers.len() {
        return Err(format!(
            "{most} replicas need {most} brokers, and there are {}",
            brokers.len()
        ));
    }
    let racks = Racks(brokers);
    let mut plan = Placement::new();
    for (at, replicas) in now {
        let mut stay = Vec::new();
        for id in replicas {
            let fits = stay.len() < wanted(replicas) && brokers.contains_key(id);
            if fits && !racks.crowds(*id, &stay) {
                stay.push(*id);
            }
        }
        plan.insert(at.clone(), stay);
    }
    let load = fill(&mut plan, now, brokers, wanted);
    level(load, |from, to| {
        let place = plan.values_mut().find_map(|replicas| {
            let index = replicas.iter().position(|id| *id == from)?;
            let others: Vec<i32> = replicas.iter().copied().filter(|id| *id != from).collect();
            let fits = !others.contains(&to) && !racks.crowds(to, &others);
            fits.then(|| &mut replicas[index])
        });
        place.map(|place| *place = to).is_some()
    });
    let leads = count(brokers, plan.values().filter_map(|replicas| replicas.first()));
    level(leads, |from, to| {
        let led = plan.values_mut().find_map(|replicas| {
            let index = replicas.iter().position(|id| *id == to)?;
            (replicas.first() == Some(&from)).then_some((replicas, index))
        });
        led.map(|(replicas, index)| replicas.swap(0, index)).is_some()
    });
    Ok(plan)
}

/// Takes every replica from `leaving` and gives it to the one of `brokers` that has least, racks apart. Nothing else moves:
/// the replicas that stay keep their order, and come first.
pub(super) fn vacate(
    now: &Placement,
    brokers: &BTreeMap<i32, Option<String>>,
    leaving: i32,
) -> Result<Placement, String> {
    let mut plan = now.clone();
    for replicas in plan.values_mut() {
        replicas.retain(|id| *id != leaving);
    }
    fill(&mut plan, now, brokers, Vec::len);
    match plan.iter().find(|(at, chosen)| chosen.len() < now[*at].len()) {
        Some(((topic, partition), _)) => Err(format!(
            "no other daemon can take the replica of {topic}-{partition} on {leaving}: it has {} replicas, and {} daemons \
             may hold them",
            now[&(topic.clone(), *partition)].len(),
            brokers.len()
        )),
        None => Ok(plan),
    }
}

/// Gives each partition the replicas that it lacks, where there are brokers for them; how many each broker has then.
fn fill(
    plan: &mut Placement,
    now: &Placement,
    brokers: &BTreeMap<i32, Option<String>>,
    wanted: impl Fn(&Vec<i32>) -> usize,
) -> BTreeMap<i32, usize> {
    let racks = Racks(brokers);
    let mut load = count(brokers, plan.values().flatten());
    for (at, chosen) in plan {
        let before = &now[at];
        while chosen.len() < wanted(before) {
            let free = brokers.keys().filter(|id| !chosen.contains(id));
            // A free rack first, then the least load; where the partition is already before where it is not.
            let best =
                free.min_by_key(|id| (racks.crowds(**id, chosen), load[*id], !before.contains(id), **id));
            let Some(best) = best.copied() else { break };
            chosen.push(best);
            *load.entry(best).or_default() += 1;
        }
    }
    load
}

/// Moves one from whoever has most to whoever has least, as long as that makes it more even. Each step lowers the sum of
/// the squares, so there is an end.
fn level(mut load: BTreeMap<i32, usize>, mut shift: impl FnMut(i32, i32) -> bool) {
    loop {
        let mut pairs: Vec<(usize, i32, i32)> = Vec::new();
        for (from, has) in &load {
            for (to, other) in &load {
                let gap = has.saturating_sub(*other);
                if gap >= 2 {
                    pairs.push((gap, *from, *to));
                }
            }
        }
        pairs.sort_by_key(|(gap, from, to)| (std::cmp::Reverse(*gap), *from, *to));
        let Some((_, from, to)) = pairs.into_iter().find(|(_, from, to)| shift(*from, *to)) else {
            return;
        };
        *load.entry(from).or_default() -= 1;
        *load.entry(to).or_default() += 1;
    }
}

fn count<'a>(
    brokers: &BTreeMap<i32, Option<String>>,
    ids: impl Iterator<Item = &'a i32>,
) -> BTreeMap<i32, usize> {
    let mut counts: BTreeMap<i32, usize> = brokers.keys().map(|id| (*id, 0)).collect();
    for id in ids {
        *counts.entry(*id).or_default() += 1;
    }
    counts
}

/// Which broker is in which rack.
#[derive(Clone, Copy)]
struct Racks<'a>(&'a BTreeMap<i32, Option<String>>);

impl Racks<'_> {
    /// Whether a broker's rack has one of these replicas already while another rack has none.
    fn crowds(self, id: i32, replicas: &[i32]) -> bool {
        let rack = |id: &i32| self.0.get(id).and_then(Option::as_ref);
        let taken: BTreeSet<_> = replicas.iter().filter_map(rack).collect();
        let all: BTreeSet<_> = self.0.values().flatten().collect();
        rack(&id).is_some_and(|own| taken.contains(own)) && taken.len() < all.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(partitions: &[&[i32]]) -> Placement {
        let one = |(replicas, number): (&&[i32], i32)| (("t".to_owned(), number), replicas.to_vec());
        partitions.iter().zip(0..).map(one).collect()
    }

    fn brokers(racks: &[(i32, &str)]) -> BTreeMap<i32, Option<String>> {
        let rack = |rack: &str| (!rack.is_empty()).then(|| rack.to_owned());
        racks.iter().map(|(id, name)| (*id, rack(name))).collect()
    }

    fn counts(plan: &Placement, of: impl Fn(&Vec<i32>) -> Vec<i32>) -> BTreeMap<i32, usize> {
        let mut counts = BTreeMap::new();
        for replicas in plan.values() {
            for id in of(replicas) {
                *counts.entry(id).or_default() += 1;
            }
        }
        counts
    }

    #[test]
    fn what_is_spread_evenly_stays() {
        let now = placement(&[&[1, 2], &[2, 3], &[3, 1]]);
        let all = brokers(&[(1, ""), (2, ""), (3, "")]);
        assert_eq!(spread(&now, &all, None).unwrap(), now);
    }

    #[test]
    fn a_new_broker_gets_its_share_and_little_moves() {
        let now = placement(&[&[1, 2], &[2, 1], &[1, 2], &[2, 1], &[1, 2], &[2, 1]]);
        let plan = spread(&now, &brokers(&[(1, ""), (2, ""), (3, "")]), None).unwrap();
        assert_eq!(
            counts(&plan, Clone::clone),
            BTreeMap::from([(1, 4), (2, 4), (3, 4)])
        );
        assert_eq!(
            counts(&plan, |replicas| vec![replicas[0]]),
            BTreeMap::from([(1, 2), (2, 2), (3, 2)])
        );
        let moved = now
            .iter()
            .map(|(at, old)| plan[at].iter().filter(|id| !old.contains(id)).count());
        assert_eq!(moved.sum::<usize>(), 4);
    }

    #[test]
    fn leaders_that_are_even_keep_their_order() {
        let now = placement(&[&[1, 2], &[1, 2], &[2, 1], &[2, 1]]);
        assert_eq!(spread(&now, &brokers(&[(1, ""), (2, "")]), None).unwrap(), now);
        let uneven = placement(&[&[1, 2], &[1, 2], &[1, 2], &[1, 2]]);
        let plan = spread(&uneven, &brokers(&[(1, ""), (2, "")]), None).unwrap();
        assert_eq!(
            counts(&plan, |replicas| vec![replicas[0]]),
            BTreeMap::from([(1, 2), (2, 2)])
        );
    }

    #[test]
    fn brokers_that_go_are_emptied_and_the_factor_changes() {
        let now = placement(&[&[1, 2], &[2, 3], &[3, 1]]);
        let plan = spread(&now, &brokers(&[(2, ""), (3, "")]), None).unwrap();
        assert!(
            plan.values()
                .all(|replicas| !replicas.contains(&1) && replicas.len() == 2)
        );
        let one = spread(&now, &brokers(&[(1, ""), (2, ""), (3, "")]), Some(1)).unwrap();
        assert_eq!(
            counts(&one, Clone::clone),
            BTreeMap::from([(1, 1), (2, 1), (3, 1)])
        );
        assert!(spread(&now, &brokers(&[(2, "")]), None).is_err());
    }

    #[test]
    fn a_broker_is_vacated_and_nothing_else_moves() {
        let now = placement(&[&[1, 2], &[2, 3], &[3, 1], &[2, 4]]);
        let plan = vacate(&now, &brokers(&[(2, ""), (3, ""), (4, "")]), 1).unwrap();
        assert_eq!(plan, placement(&[&[2, 4], &[2, 3], &[3, 4], &[2, 4]]));
        let apart = brokers(&[(2, "a"), (3, "b"), (4, "b")]);
        let plan = vacate(&placement(&[&[1, 3]]), &apart, 1).unwrap();
        assert_eq!(plan, placement(&[&[3, 2]]));
        let told = vacate(&now, &brokers(&[(2, "")]), 1).unwrap_err();
        assert!(told.contains("t-0"), "{told}");
    }

    #[test]
    fn racks_are_used_before_one_is_used_twice() {
        let now = placement(&[&[1, 2], &[2, 1], &[3, 4], &[4, 3]]);
        let all = brokers(&[(1, "a"), (2, "a"), (3, "b"), (4, "b")]);
        let plan = spread(&now, &all, None).unwrap();
        for replicas in plan.values() {
            let racks: BTreeSet<_> = replicas.iter().map(|id| all[id].clone()).collect();
            assert_eq!(racks.len(), 2, "{plan:?}");
        }
        assert_eq!(
            counts(&plan, Clone::clone),
            BTreeMap::from([(1, 2), (2, 2), (3, 2), (4, 2)])
        );
    }

    #[test]
    fn a_plan_is_written_as_it_is_read_and_nonsense_is_refused() {
        let plan = placement(&[&[1, 2], &[2, 3]]);
        let text = serde_json::to_string(&write(&plan)).unwrap();
        assert_eq!(read(&text).unwrap(), plan);
        for wrong in [
            r#"{"version": 2, "partitions": []}"#,
            r#"{"version": 1, "partitions": [{"topic": "t", "partition": 0, "replicas": []}]}"#,
            r#"{"version": 1, "partitions": [{"topic": "t", "partition": 0, "replicas": [1, 1]}]}"#,
            r#"{"version": 1, "partitions": [{"topic": "t", "partition": 0, "replicas": [1], "log_dirs": ["/a"]}]}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
