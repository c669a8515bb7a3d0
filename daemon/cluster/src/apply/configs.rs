//! Configuration changes, and what they mean for elections at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{change_partitions, topic};
use crate::command::{ConfigChange, ConfigResource, MetaError, Outcome};
use crate::config::{self, ConfigKind};
use crate::election::Cause;
use crate::image::{Image, Topic};

/// Changes the configuration of a topic, of the cluster, or of one daemon: all keys or none.
pub(super) fn alter(
    image: &mut Image,
    resource: &ConfigResource,
    replace: bool,
    changes: &BTreeMap<String, ConfigChange>,
) -> Result<Outcome, MetaError> {
    let before = match resource {
        ConfigResource::Topic(id) => topic(image, *id)?.configs.clone(),
        ConfigResource::Broker(None) => image.cluster_configs.clone(),
        ConfigResource::Broker(Some(node)) if !image.nodes.contains_key(node) => {
            return Err(MetaError::UnknownNode(*node));
        }
        ConfigResource::Broker(Some(node)) => image.node_configs.get(node).cloned().unwrap_or_default(),
    };
    let mut after = if replace { BTreeMap::new() } else { before.clone() };
    for (key, change) in changes {
        alter_key(&before, &mut after, key, change).map_err(MetaError::InvalidConfig)?;
    }
    if after == before {
        return Ok(Outcome::Done);
    }
    let differs = |key: &str| before.get(key) != after.get(key);
    let min_isr_changed = differs("min.insync.replicas");
    let elections = min_isr_changed || differs("unclean.leader.election.enable");
    match resource {
        ConfigResource::Topic(id) => {
            if let Some(topic) = image.topics.get_mut(id) {
                Arc::make_mut(topic).configs = after;
            }
        }
        ConfigResource::Broker(None) => image.cluster_configs = after,
        ConfigResource::Broker(Some(node)) => {
            image.node_configs.insert(*node, after);
        }
    }
    if elections {
        let concerned = |topic: &Topic| match resource {
            ConfigResource::Topic(id) => topic.id == *id,
            ConfigResource::Broker(_) => true,
        };
        change_partitions(
            image,
            |topic, _| concerned(topic),
            |_, _, partition, _| {
                if min_isr_changed {
                    // The watermark may move under the new minimum without the eligible replicas.
                    partition.eligible.clear();
                }
                Cause::Change
            },
        );
    }
    Ok(Outcome::Done)
}

fn alter_key(
    before: &BTreeMap<String, String>,
    after: &mut BTreeMap<String, String>,
    key: &str,
    change: &ConfigChange,
) -> Result<(), String> {
    let known = config::topic_config(key);
    let list = || match known {
        Some(config) if matches!(config.kind, ConfigKind::ListOf(_)) => {
            let value = before.get(key).map_or(config.default, String::as_str);
            let words = value.split(',').map(str::trim).filter(|word| !word.is_empty());
            Ok(words.map(str::to_owned).collect::<Vec<_>>())
        }
        _ => Err(format!(
            "Can't append to or subtract from {key}: it is not a list."
        )),
    };
    let value = match change {
        ConfigChange::Delete => {
            if known.is_none() {
                return Err(format!("Unknown topic config name: {key}"));
            }
            after.remove(key);
            return Ok(());
        }
        ConfigChange::Set(value) => value.clone(),
        ConfigChange::Append(word) => {
            let mut words = list()?;
            if !words.contains(word) {
                words.push(word.clone());
            }
            words.join(",")
        }
        ConfigChange::Subtract(word) => {
            let mut words = list()?;
            words.retain(|have| have != word);
            words.join(",")
        }
    };
    config::validate(key, &value)?;
    after.insert(key.to_owned(), value);
    Ok(())
}
