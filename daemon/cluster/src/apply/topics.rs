//! Topics are created, grown and deleted, with Kafka's checks and words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tradewind_wire::flow::{Origin, of_origin};
use tradewind_wire::ids::{NodeId, TopicId};

use super::reassignment::MAX_REPLICAS;
use super::{Position, topic};
use crate::command::{CreateTopic, GrowTopic, MetaError, MirrorBinding, Outcome};
use crate::config;
use crate::image::{FlowState, Image, MirrorState, MirrorTopic, Partition, Topic};
use crate::placement::{candidates, place, too_many};

/// The longest topic name that Kafka allows.
pub const MAX_TOPIC_NAME: usize = 249;

/// How many partitions a topic may have.
const MAX_PARTITIONS: i32 = 10_000;

/// How many deleted topics are remembered.
const MAX_TOMBSTONES: usize = 1_000;

/// Creates a topic.
pub(super) fn create(image: &mut Image, at: Position, create: &CreateTopic) -> Result<Outcome, MetaError> {
    validate_name(&create.name).map_err(MetaError::InvalidTopic)?;
    if let Some(existing) = image.topic(&create.name) {
        if existing.id == create.id {
            return Ok(described(existing));
        }
        return Err(MetaError::TopicExists(create.name.clone()));
    }
    if create.id.is_zero() || image.topics.contains_key(&create.id) {
        return Err(MetaError::InvalidTopic(format!(
            "topic id {} is taken or zero",
            create.id
        )));
    }
    collides(image, &create.name)?;
    let mut configs = BTreeMap::new();
    for (key, value) in &create.configs {
        let value = config::parse(key, value).map_err(MetaError::InvalidConfig)?;
        configs.insert(key.clone(), value);
    }
    let mirror = bind(image, create)?;
    let replicas = match &create.assignment {
        Some(assignment) => assigned(image, assignment, None)?,
        None => placed(image, at, create)?,
    };
    let topic = Topic {
        id: create.id,
        name: create.name.clone(),
        partitions: replicas
            .into_iter()
            .map(|replicas| new_partition(image, replicas))
            .collect(),
        configs,
        mirror,
        internal: create.internal,
        fence: None,
    };
    super::configs::fits_together(image, &topic)?;
    let outcome = described(&topic);
    image.names.insert(topic.name.clone(), topic.id);
    image.topics.insert(topic.id, Arc::new(topic));
    Ok(outcome)
}

/// Deletes a topic. Data directories remove its files when they see it gone.
pub(super) fn delete(image: &mut Image, at: Position, id: TopicId) -> Result<Outcome, MetaError> {
    let topic = topic(image, id)?;
    super::region_source::not_fenced(&topic)?;
    super::failback_source::is_not_needed(image, &topic)?;
    image.topics.remove(&id);
    image.names.remove(&topic.name);
    image.tombstones.insert(id, at.index);
    while image.tombstones.len() > MAX_TOMBSTONES {
        let oldest = image.tombstones.iter().min_by_key(|&(_, &index)| index);
        let oldest = oldest.map(|(&id, _)| id);
        oldest.and_then(|id| image.tombstones.remove(&id));
    }
    if let Some(mirror) = &topic.mirror {
        super::flows::promote_if_all_cut(image, &mirror.flow);
    }
    Ok(Outcome::Done)
}

/// Adds partitions.
pub(super) fn grow(image: &mut Image, at: Position, grow: &GrowTopic) -> Result<Outcome, MetaError> {
    let topic = topic(image, grow.id)?;
    super::region_source::not_fenced(&topic)?;
    if let Some(mirror) = topic.mirror.as_ref().filter(|_| topic.is_mirroring()) {
        if grow.flow.as_deref() != Some(mirror.flow.as_str()) {
            return Err(MetaError::MirrorTopic {
                topic: topic.name.clone(),
                flow: mirror.flow.clone(),
            });
        }
        flow_is_open(image, &mirror.flow)?;
    }
    let have = topic.partitions.len();
    let count = usize::try_from(grow.count).unwrap_or(0);
    if count <= have || grow.count > MAX_PARTITIONS {
        let what = match count {
            _ if grow.count > MAX_PARTITIONS => {
                format!("a topic has at most {MAX_PARTITIONS} partitions")
            }
            _ if count == have => format!("Topic already has {have} partition(s)."),
            _ => format!(
                "The topic {} currently has {have} partition(s); {} would not be an increase.",
                topic.name, grow.count
            ),
        };
        return Err(MetaError::InvalidPartitions(what));
    }
    let factor = topic.partitions.first().map_or(1, Partition::replication_factor);
    let new = match &grow.assignment {
        Some(assignment) if assignment.len() != count - have => {
            return Err(MetaError::InvalidAssignment(format!(
                "Attempted to add {} additional partition(s), but only {} assignment(s) were specified.",
                count - have,
                assignment.len()
            )));
        }
        Some(assignment) => assigned(image, assignment, Some(factor))?,
        None => {
            let factor = factor.min(candidates(image).len());
            place(image, count - have, factor, at.index + have as u64)?
        }
    };
    let mut topic = Topic::clone(&topic);
    let new = new.into_iter().map(|replicas| new_partition(image, replicas));
    topic.partitions.extend(new);
    let outcome = described(&topic);
    image.topics.insert(topic.id, Arc::new(topic));
    Ok(outcome)
}

/// Says what is wrong with a topic name, in Kafka's words.
pub fn validate_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("Topic name is invalid: the empty string is not allowed".to_owned());
    }
    if name == "." || name == ".." {
        return Err(format!("Topic name is invalid: '{name}' is not allowed"));
    }
    if name.len() > MAX_TOPIC_NAME {
        return Err(format!(
            "Topic name is invalid: the length of '{}...' is longer than the max allowed length {MAX_TOPIC_NAME}",
            name.chars().take(32).collect::<String>()
        ));
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !name.bytes().all(legal) {
        return Err(format!(
            "Topic name is invalid: '{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' \
             and '-'"
        ));
    }
    Ok(())
}

/// Kafka refuses two names that differ only in periods and underscores, which its metrics cannot tell apart.
fn collides(image: &Image, name: &str) -> Result<(), MetaError> {
    if !name.contains(['.', '_']) {
        return Ok(());
    }
    let folded = name.replace('.', "_");
    let other = image
        .names
        .keys()
        .find(|other| other.len() == name.len() && other.replace('.', "_") == folded);
    other.map_or(Ok(()), |other| {
        Err(MetaError::InvalidTopic(format!(
            "Topic '{name}' collides with existing topic: {other}"
        )))
    })
}

fn bind(image: &Image, create: &CreateTopic) -> Result<Option<MirrorTopic>, MetaError> {
    let Some(binding) = &create.mirror else {
        return Ok(None);
    };
    flow_is_open(image, &binding.flow)?;
    binding.origin.as_ref().map_or(Ok(()), super::flows::fits)?;
    comes_once(image, create, binding)?;
    Ok(Some(MirrorTopic {
        flow: binding.flow.clone(),
        source_topic: binding.source_topic.clone(),
        source_topic_id: binding.source_topic_id,
        state: MirrorState::Mirroring,
        paused: None,
        origin: binding.origin.clone(),
    }))
}

/// Two flows may find the same topic at the same moment, each as a copy that its source has of it: only one is made. What
/// is first written at a flow's source is that flow's to copy.
fn comes_once(image: &Image, create: &CreateTopic, binding: &MirrorBinding) -> Result<(), MetaError> {
    let from_there = |origin: &&Origin| origin.is_first_hand(&binding.source_topic, binding.source_topic_id);
    let Some(origin) = binding.origin.as_ref().filter(|origin| !from_there(origin)) else {
        return Ok(());
    };
    let topics = image.topics.values();
    let mut same = of_origin(topics, |topic| topic.mirror.as_ref()?.origin.as_ref(), origin);
    if same.next().is_some() {
        return Err(MetaError::TopicExists(create.name.clone()));
    }
    Ok(())
}

fn flow_is_open(image: &Image, name: &str) -> Result<(), MetaError> {
    let flow = image
        .flows
        .get(name)
        .ok_or_else(|| MetaError::UnknownFlow(name.to_owned()))?;
    match flow.state {
        FlowState::Active | FlowState::Paused => Ok(()),
        state => Err(MetaError::FlowState {
            flow: name.to_owned(),
            state,
        }),
    }
}

fn placed(image: &Image, at: Position, create: &CreateTopic) -> Result<Vec<Vec<NodeId>>, MetaError> {
    if create.partitions < 1 {
        return Err(MetaError::InvalidPartitions(
            "Number of partitions was set to an invalid non-positive value.".to_owned(),
        ));
    }
    if create.partitions > MAX_PARTITIONS {
        return Err(MetaError::InvalidPartitions(format!(
            "a topic has at most {MAX_PARTITIONS} partitions"
        )));
    }
    let factor = usize::try_from(create.replication_factor).unwrap_or(0);
    if factor == 0 {
        return Err(MetaError::InvalidReplicationFactor(
            "Replication factor was set to an invalid non-positive value.".to_owned(),
        ));
    }
    let daemons = candidates(image).len();
    let factor = if create.clamp { factor.min(daemons) } else { factor };
    if factor > daemons {
        return Err(too_many(factor, daemons));
    }
    place(image, create.partitions as usize, factor, at.index)
}

/// Checks replicas that a client chose.
fn assigned(
    image: &Image,
    assignment: &[Vec<NodeId>],
    factor: Option<usize>,
) -> Result<Vec<Vec<NodeId>>, MetaError> {
    let known = candidates(image);
    let factor = factor.or_else(|| assignment.first().map(Vec::len)).unwrap_or(0);
    let refuse = |what: String| Err(MetaError::InvalidAssignment(what));
    if assignment.is_empty() || assignment.len() > MAX_PARTITIONS as usize || factor > MAX_REPLICAS {
        return refuse("The manual partition assignment names no partitions, or too many.".to_owned());
    }
    for replicas in assignment {
        if replicas.is_empty() {
            return refuse("The manual partition assignment includes an empty replica list.".to_owned());
        }
        if replicas.len() != factor {
            return refuse(format!(
                "The manual partition assignment includes a partition with {} replica(s), but this is not consistent \
                 with previous partitions, which have {factor} replica(s).",
                replicas.len()
            ));
        }
        if replicas.iter().collect::<BTreeSet<_>>().len() != replicas.len() {
            return refuse("The manual partition assignment names a replica twice.".to_owned());
        }
        if let Some(stranger) = replicas.iter().find(|node| !known.contains(node)) {
            return refuse(format!(
                "The manual partition assignment includes broker {stranger}, but no such broker is registered."
            ));
        }
        if !replicas.iter().any(|&node| image.is_active(node)) {
            return refuse(
                "All brokers specified in the manual partition assignment are fenced or in controlled shutdown."
                    .to_owned(),
            );
        }
    }
    Ok(assignment.to_vec())
}

/// A partition without records: every active replica is in sync.
fn new_partition(image: &Image, replicas: Vec<NodeId>) -> Partition {
    let isr: Vec<NodeId> = replicas
        .iter()
        .copied()
        .filter(|&node| image.is_active(node))
        .collect();
    Partition {
        leader: isr.first().copied(),
        isr,
        replicas,
        ..Partition::default()
    }
}

fn described(topic: &Topic) -> Outcome {
    Outcome::Topic {
        id: topic.id,
        partitions: topic.partitions.len() as i32,
        replication_factor: topic
            .partitions
            .first()
            .map_or(0, |partition| partition.replication_factor() as i16),
    }
}
