//! Which topics and groups a flow takes, and what they are called here.
//!
//! Pure: regular expressions and names. Filters match **whole** names, as MirrorMaker 2's do. What cannot be mirrored under
//! its name is said, topic by topic, and never made to fit.

use regex::Regex;
use tradewind_wire::flow::{FlowSpec, HEARTBEATS_TOPIC, Naming};

/// Kafka's longest topic name, in bytes.
pub const MAX_TOPIC_NAME: usize = 249;

/// Topics that are never mirrored unless a flow says otherwise: MirrorMaker 2's `topics.exclude`.
pub const DEFAULT_TOPICS_EXCLUDE: [&str; 3] = [r".*[\-\.]internal", r".*\.replica", "__.*"];

/// Groups that are never mirrored unless a flow says otherwise: MirrorMaker 2's `groups.exclude`.
pub const DEFAULT_GROUPS_EXCLUDE: [&str; 3] = ["console-consumer-.*", "connect-.*", "__.*"];

/// A regular expression of a flow that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("flow `{flow}`, {list}: `{pattern}` is not a regular expression: {reason}")]
pub struct FilterError {
    /// The flow.
    pub flow: String,
    /// Which of its lists.
    pub list: &'static str,
    /// The text.
    pub pattern: String,
    /// What the parser says.
    pub reason: String,
}

/// What a flow takes and what it calls it.
#[derive(Debug, Clone)]
pub struct Names {
    source_cluster: String,
    target_cluster: String,
    naming: Naming,
    topics: Filter,
    groups: Filter,
}

impl Names {
    /// Compiles a flow's filters. An empty exclude list stands for MirrorMaker 2's defaults.
    pub fn new(spec: &FlowSpec) -> Result<Self, FilterError> {
        let flow = spec.name();
        let topics_exclude = or_default(&spec.topics_exclude, &DEFAULT_TOPICS_EXCLUDE);
        let groups_exclude = or_default(&spec.groups_exclude, &DEFAULT_GROUPS_EXCLUDE);
        Ok(Self {
            source_cluster: spec.source_cluster.clone(),
            target_cluster: spec.target_cluster.clone(),
            naming: spec.naming.clone(),
            topics: Filter::new(&flow, ["topics", "topics_exclude"], &spec.topics, &topics_exclude)?,
            groups: Filter::new(&flow, ["groups", "groups_exclude"], &spec.groups, &groups_exclude)?,
        })
    }

    /// What a topic is called here of a source that does not say which of its topics are mirrors, or why it is not mirrored.
    /// `internal` is the source's own word for it.
    pub fn topic(&self, topic: &str, internal: bool) -> Result<String, NotMirrored> {
        if self.takes_topic(topic, internal) && self.came_from_here(topic) {
            return Err(NotMirrored::Loop);
        }
        self.named(topic, internal)
    }

    /// Whether the filters take a source topic.
    pub fn takes_topic(&self, topic: &str, internal: bool) -> bool {
        let filtered = !internal && self.topics.takes(topic) && !self.is_remote_heartbeats(topic);
        self.is_heartbeats(topic) || filtered
    }

    /// What a source topic is called here, wherever it comes from, or why it cannot be mirrored.
    pub fn named(&self, topic: &str, internal: bool) -> Result<String, NotMirrored> {
        if !self.takes_topic(topic, internal) {
            return Err(NotMirrored::Unmatched);
        }
        if self.is_heartbeats(topic) {
            return Ok(format!("{}{}{topic}", self.source_cluster, self.separator()));
        }
        let name = self.naming.target_topic(&self.source_cluster, topic);
        if name.len() > MAX_TOPIC_NAME {
            return Err(NotMirrored::TooLong { name });
        }
        Ok(name)
    }

    /// What the source is called.
    pub fn source_cluster(&self) -> &str {
        &self.source_cluster
    }

    /// Whether topics are called here what they are called at the source.
    pub fn keep_names(&self) -> bool {
        self.naming == Naming::Identity
    }

    /// Whether a group's positions are mirrored.
    pub fn takes_group(&self, group: &str) -> bool {
        self.groups.takes(group)
    }

    /// Whether this is the source's own heartbeats topic: mirrored whatever the filters say, always prefixed, and never
    /// counted as data.
    pub fn is_heartbeats(&self, topic: &str) -> bool {
        topic == HEARTBEATS_TOPIC
    }

    /// Under identity naming another cluster's heartbeats would arrive as `east.heartbeats`, which is also what this
    /// flow's own mirror of `heartbeats` may be called; they are a liveness signal of the next hop only.
    fn is_remote_heartbeats(&self, topic: &str) -> bool {
        self.naming == Naming::Identity
            && topic
                .strip_suffix(HEARTBEATS_TOPIC)
                .is_some_and(|rest| rest.ends_with(self.separator()) && rest.len() > self.separator().len())
    }

    /// With prefixes the name says where a topic came from: what came from here must not return (MirrorMaker 2's cycle
    /// rule). Identity names say nothing; there the binding of the existing topic refuses it. Only for topics of clusters that
    /// say nothing better.
    pub fn came_from_here(&self, topic: &str) -> bool {
        let Naming::Prefix { separator } = &self.naming else {
            return false;
        };
        if separator.is_empty() {
            return false;
        }
        let mut hops: Vec<&str> = topic.split(separator.as_str()).collect();
        hops.pop();
        hops.contains(&self.target_cluster.as_str())
    }

    fn separator(&self) -> &str {
        match &self.naming {
            Naming::Prefix { separator } if !separator.is_empty() => separator,
            _ => ".",
        }
    }
}

/// Why a source topic is not mirrored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotMirrored {
    /// The flow's filters do not take it.
    #[error("not taken by the flow's filters")]
    Unmatched,
    /// It was mirrored from this cluster.
    #[error("it comes from this cluster")]
    Loop,
    /// Its name here would be too long.
    #[error("`{name}` is longer than {MAX_TOPIC_NAME} characters")]
    TooLong {
        /// The name that it would have.
        name: String,
    },
}

fn or_default(list: &[String], default: &[&str]) -> Vec<String> {
    if list.is_empty() {
        return default.iter().map(|pattern| (*pattern).to_owned()).collect();
    }
    list.to_vec()
}

/// Two lists of regular expressions over whole names; exclusion wins.
#[derive(Debug, Clone)]
struct Filter {
    include: Vec<Regex>,
    exclude: Vec<Regex>,
}

impl Filter {
    fn new(
        flow: &str,
        lists: [&'static str; 2],
        include: &[String],
        exclude: &[String],
    ) -> Result<Self, FilterError> {
        let compile = |list, patterns: &[String]| -> Result<Vec<Regex>, FilterError> {
            patterns
                .iter()
                .map(|pattern| whole(flow, list, pattern))
                .collect()
        };
        Ok(Self {
            include: compile(lists[0], include)?,
            exclude: compile(lists[1], exclude)?,
        })
    }

    fn takes(&self, name: &str) -> bool {
        let any = |patterns: &[Regex]| patterns.iter().any(|pattern| pattern.is_match(name));
        any(&self.include) && !any(&self.exclude)
    }
}

fn whole(flow: &str, list: &'static str, pattern: &str) -> Result<Regex, FilterError> {
    Regex::new(&format!("^(?:{pattern})$")).map_err(|error| FilterError {
        flow: flow.to_owned(),
        list,
        pattern: pattern.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use tradewind_wire::flow::FlowSource;

    use super::*;

    fn spec(naming: Naming) -> FlowSpec {
        FlowSpec {
            source_cluster: "east".into(),
            target_cluster: "west".into(),
            source: FlowSource::Kafka(vec!["127.0.0.1:1".into()]),
            topics: vec![".*".into()],
            topics_exclude: vec![],
            groups: vec![".*".into()],
            groups_exclude: vec![],
            naming,
        }
    }

    fn dotted() -> Naming {
        Naming::Prefix {
            separator: ".".into(),
        }
    }

    #[test]
    fn a_pattern_matches_whole_names_only() {
        let mut spec = spec(dotted());
        spec.topics = vec!["orders".into(), "pay.*|ref".into()];
        let names = Names::new(&spec).unwrap();
        assert_eq!(names.topic("orders", false).unwrap(), "east.orders");
        assert_eq!(names.topic("payments", false).unwrap(), "east.payments");
        for other in ["orders2", "my-orders", "refund", "xref"] {
            assert_eq!(names.topic(other, false), Err(NotMirrored::Unmatched), "{other}");
        }
    }

    #[test]
    fn the_default_excludes_are_mirrormakers() {
        let names = Names::new(&spec(dotted())).unwrap();
        for excluded in [
            "__consumer_offsets",
            "mm2-offsets.a.internal",
            "x-internal",
            "a.replica",
        ] {
            assert_eq!(
                names.topic(excluded, false),
                Err(NotMirrored::Unmatched),
                "{excluded}"
            );
        }
        assert_eq!(names.topic("secret", true), Err(NotMirrored::Unmatched));
        for group in ["console-consumer-1", "connect-sink", "__probe"] {
            assert!(!names.takes_group(group), "{group}");
        }
        assert!(names.takes_group("billing"));
    }

    #[test]
    fn heartbeats_are_prefixed_in_both_namings_and_taken_despite_filters() {
        for naming in [dotted(), Naming::Identity] {
            let mut spec = spec(naming);
            spec.topics = vec!["orders".into()];
            let names = Names::new(&spec).unwrap();
            assert_eq!(names.topic("heartbeats", false).unwrap(), "east.heartbeats");
        }
        let identity = Names::new(&spec(Naming::Identity)).unwrap();
        assert_eq!(
            identity.topic("north.heartbeats", false),
            Err(NotMirrored::Unmatched)
        );
        let prefix = Names::new(&spec(dotted())).unwrap();
        assert_eq!(
            prefix.topic("north.heartbeats", false).unwrap(),
            "east.north.heartbeats"
        );
    }

    #[test]
    fn what_came_from_here_does_not_return() {
        let names = Names::new(&spec(dotted())).unwrap();
        for cycle in [
            "west.orders",
            "west.north.orders",
            "north.west.orders",
            "west.heartbeats",
        ] {
            assert_eq!(names.topic(cycle, false), Err(NotMirrored::Loop), "{cycle}");
        }
        assert_eq!(names.topic("north.orders", false).unwrap(), "east.north.orders");
        assert_eq!(names.topic("west", false).unwrap(), "east.west");
    }

    #[test]
    fn a_name_over_249_characters_is_refused() {
        let names = Names::new(&spec(dotted())).unwrap();
        assert!(names.topic(&"a".repeat(244), false).is_ok());
        assert!(matches!(
            names.topic(&"a".repeat(245), false),
            Err(NotMirrored::TooLong { .. })
        ));
    }

    #[test]
    fn a_wrong_expression_is_named_with_its_list() {
        let mut spec = spec(dotted());
        spec.groups_exclude = vec!["(".into()];
        let error = Names::new(&spec).unwrap_err();
        assert_eq!((error.list, error.pattern.as_str()), ("groups_exclude", "("));
    }
}
