//! Naming topics and partitions on the command line: `orders`, `orders.*`, `orders:0,2-4`, `orders:0:1000`.
//!
//! A name that could be a topic's stands for that topic alone; anything else is a regular expression of whole names. So
//! `a.b` never means `axb`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::FromStr;

use regex::Regex;
use tradewind_client::consumer::assignor::TopicPartition;
use tradewind_client::{Client, ClientError, TopicMetadata};

/// Topics by name or by a regular expression.
#[derive(Debug, Clone)]
pub(crate) struct TopicSelection {
    text: String,
    /// `None` if the text is a name.
    pattern: Option<Regex>,
}

impl TopicSelection {
    /// Whether this topic is meant.
    pub(crate) fn matches(&self, topic: &str) -> bool {
        match &self.pattern {
            None => self.text == topic,
            Some(pattern) => pattern.is_match(topic),
        }
    }
}

impl FromStr for TopicSelection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let of_names = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if text.is_empty() {
            return Err("a topic has a name".to_owned());
        }
        let pattern = if text.chars().all(of_names) {
            None
        } else {
            let whole = Regex::new(&format!("^(?:{text})$"));
            Some(whole.map_err(|error| format!("neither a topic's name nor a regular expression: {error}"))?)
        };
        Ok(Self {
            text: text.to_owned(),
            pattern,
        })
    }
}

/// Topics, and perhaps only some of their partitions.
#[derive(Debug, Clone)]
pub(crate) struct PartitionSelection {
    /// The topics.
    pub(crate) topic: TopicSelection,
    /// The partitions; `None` for all.
    partitions: Option<Vec<RangeInclusive<i32>>>,
}

impl PartitionSelection {
    /// Whether this partition of a topic that matches is meant.
    pub(crate) fn has(&self, partition: i32) -> bool {
        match &self.partitions {
            None => true,
            Some(ranges) => ranges.iter().any(|range| range.contains(&partition)),
        }
    }

    /// What stood on the command line before the partitions.
    pub(crate) fn topic_text(&self) -> &str {
        &self.topic.text
    }

    /// The first partition that is named and not one of `count`.
    fn beyond(&self, is_there: impl Fn(i32) -> bool) -> Option<i32> {
        let ranges = self.partitions.iter().flatten();
        let mut named = ranges.flat_map(|range| [*range.start(), *range.end()]);
        named.find(|partition| !is_there(*partition))
    }
}

impl FromStr for PartitionSelection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let partitions = |text: &str| text.chars().all(|c| c.is_ascii_digit() || ",-".contains(c));
        match text.rsplit_once(':') {
            Some((topic, numbers)) if partitions(numbers) => Ok(Self {
                topic: topic.parse()?,
                partitions: Some(numbers.split(',').map(range).collect::<Result<_, _>>()?),
            }),
            _ => Ok(Self {
                topic: text.parse()?,
                partitions: None,
            }),
        }
    }
}

fn range(text: &str) -> Result<RangeInclusive<i32>, String> {
    let wrong = || format!("`{text}` is no partition: write 0 or 2-4");
    let number = |text: &str| text.parse::<i32>().map_err(|_| wrong());
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first > last {
        return Err(wrong());
    }
    Ok(first..=last)
}

/// A place in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordPosition {
    /// The topic.
    pub(crate) topic: String,
    /// The partition.
    pub(crate) partition: i32,
    /// The offset; -1 for the end.
    pub(crate) offset: i64,
}

impl FromStr for RecordPosition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.rsplitn(3, ':');
        let offset = parts.next().and_then(|offset| offset.parse().ok());
        let partition = parts.next().and_then(|partition| partition.parse().ok());
        match (parts.next(), partition, offset) {
            (Some(topic), Some(partition), Some(offset))
                if !topic.is_empty() && partition >= 0 && offset >= -1 =>
            {
                Ok(Self {
                    topic: topic.to_owned(),
                    partition,
                    offset,
                })
            }
            _ => Err(
                "write TOPIC:PARTITION:OFFSET, such as orders:0:1000, with offset -1 for the end".to_owned(),
            ),
        }
    }
}

/// Topics that were asked for.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Those that are there, by name.
    pub(super) topics: BTreeMap<String, TopicMetadata>,
    /// A sentence about each that is not.
    pub(super) missing: Vec<String>,
}

impl Found {
    /// Says what is missing on standard error; the exit code that follows from it.
    pub(super) fn complain(&self) -> u8 {
        for sentence in &self.missing {
            eprintln!("{sentence}");
        }
        u8::from(!self.missing.is_empty())
    }
}

/// The topics that are selected; all if nothing is.
pub(super) async fn topics(client: &Client, selections: &[TopicSelection]) -> Result<Found, ClientError> {
    let mut found = Found::default();
    let names: Vec<&str> = selections
        .iter()
        .map(|selection| selection.text.as_str())
        .collect();
    let only_names = !names.is_empty() && selections.iter().all(|selection| selection.pattern.is_none());
    let known = if only_names {
        client.metadata(&names).await?
    } else {
        client.metadata_of_all().await?
    };
    if selections.is_empty() {
        found.topics.clone_from(&known.topics);
        return Ok(found);
    }
    for selection in selections {
        let matching = known
            .topics
            .values()
            .filter(|topic| selection.matches(&topic.name) && topic.error.is_none());
        let mut any = false;
        for topic in matching {
            any = true;
            found.topics.insert(topic.name.clone(), topic.clone());
        }
        if !any {
            let sentence = if selection.pattern.is_none() {
                let all = client.metadata_of_all().await?;
                let hint = nearest(&selection.text, all.topics.keys().map(String::as_str));
                format!("there is no topic {}{hint}", selection.text)
            } else {
                format!("no topic's name is like {}", selection.text)
            };
            found.missing.push(sentence);
        }
    }
    Ok(found)
}

/// The partitions that are selected, with their topics; those of all topics if nothing is.
pub(super) async fn partitions(
    client: &Client,
    selections: &[PartitionSelection],
) -> Result<(Found, Vec<TopicPartition>), ClientError> {
    let of_topics: Vec<TopicSelection> = selections.iter().map(|one| one.topic.clone()).collect();
    let mut found = topics(client, &of_topics).await?;
    let mut partitions = Vec::new();
    for topic in found.topics.values() {
        for partition in topic.partitions.keys() {
            let is_meant = |one: &PartitionSelection| one.topic.matches(&topic.name) && one.has(*partition);
            if selections.is_empty() || selections.iter().any(is_meant) {
                partitions.push((topic.name.clone(), *partition));
            }
        }
        // A pattern may well name partitions that only some of its topics have.
        for named in selections.iter().filter(|one| one.topic.text == topic.name) {
            if let Some(partition) = named.beyond(|number| topic.partitions.contains_key(&number)) {
                let count = topic.partitions.len();
                found.missing.push(format!(
                    "{} has no partition {partition}: it has {count}",
                    topic.name
                ));
            }
        }
    }
    Ok((found, partitions))
}

/// `; did you mean NAME?`, if a name is close.
pub(super) fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> String {
    let close = names
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|(distance, _)| *distance <= 2 && *distance < wrong.len())
        .min();
    close.map_or_else(String::new, |(_, name)| format!("; did you mean {name}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(text: &str) -> TopicSelection {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_means_itself_and_everything_else_is_a_pattern_of_whole_names() {
        assert!(topics("a.b").matches("a.b"));
        assert!(!topics("a.b").matches("axb"));
        assert!(topics("a.*").matches("a.b"));
        assert!(!topics("a.*").matches("ba.b"));
        assert!(topics("a|b").matches("b"));
        assert!(!topics("a|b").matches("bc"));
        assert!("(".parse::<TopicSelection>().is_err());
        assert!("".parse::<TopicSelection>().is_err());
    }

    #[test]
    fn partitions_are_numbers_and_ranges() {
        let some: PartitionSelection = "orders:0,2-4".parse().unwrap();
        let has: Vec<i32> = (0..6).filter(|partition| some.has(*partition)).collect();
        assert_eq!(has, [0, 2, 3, 4]);
        assert_eq!(some.topic_text(), "orders");
        assert_eq!(some.beyond(|number| number < 4), Some(4));
        let all: PartitionSelection = "orders".parse().unwrap();
        assert!(all.has(0) && all.has(i32::MAX));
        // A colon in a regular expression is no partition.
        let pattern: PartitionSelection = "(?:a|b)".parse().unwrap();
        assert!(pattern.topic.matches("a") && pattern.has(7));
        for wrong in [
            "orders:",
            "orders:4-2",
            "orders:1,,2",
            "orders:-1",
            "orders:9999999999",
        ] {
            assert!(wrong.parse::<PartitionSelection>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_position_has_three_parts() {
        let position: RecordPosition = "orders:3:-1".parse().unwrap();
        assert_eq!(
            (position.topic.as_str(), position.partition, position.offset),
            ("orders", 3, -1)
        );
        for wrong in [
            "orders",
            "orders:0",
            ":0:1",
            "orders:x:1",
            "orders:-1:1",
            "orders:0:-2",
            "orders:0:1.5",
        ] {
            assert!(wrong.parse::<RecordPosition>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_close_name_is_suggested() {
        let names = ["orders", "payments"];
        assert_eq!(nearest("order", names.into_iter()), "; did you mean orders?");
        assert_eq!(nearest("shipments", names.into_iter()), "");
        assert_eq!(nearest("ab", ["c"].into_iter()), "");
    }
}
