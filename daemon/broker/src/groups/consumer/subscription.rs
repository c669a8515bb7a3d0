//! What topics there are, and which of them a group reads.

use std::collections::BTreeSet;

use regex::Regex;
use tradewind_wire::ids::TopicId;

/// The topics of the cluster, as far as assignments need to know them, and the settings of groups. A snapshot: it never
/// changes.
pub trait Topics: Send + Sync {
    /// A number that differs whenever a name, an id, or a partition count does.
    fn version(&self) -> u64;

    /// The id and the number of partitions of a topic.
    fn topic(&self, name: &str) -> Option<(TopicId, i32)>;

    /// The name of a topic.
    fn name(&self, id: TopicId) -> Option<String>;

    /// All names.
    fn names(&self) -> Vec<String>;

    /// Whether groups may not commit on a topic here, because it moves to another cluster, has moved, or is arriving.
    fn moves(&self, _name: &str) -> bool {
        false
    }

    /// Whether a topic moves to another cluster, or has: what groups committed on it here gives way to what they do there.
    fn has_left(&self, _name: &str) -> bool {
        false
    }

    /// Whether there is any topic that groups may not commit on.
    fn any_moves(&self) -> bool {
        false
    }

    /// A setting of one group (`consumer.session.timeout.ms`, ...), if it has one of its own.
    fn group_config(&self, _group: &str, _key: &str) -> Option<String> {
        None
    }
}

/// A cluster without topics.
#[derive(Debug, Clone, Copy)]
pub struct NoTopics;

impl Topics for NoTopics {
    fn version(&self) -> u64 {
        0
    }

    fn topic(&self, _: &str) -> Option<(TopicId, i32)> {
        None
    }

    fn name(&self, _: TopicId) -> Option<String> {
        None
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A member's regular expression, which has to match a whole name. In time linear to the name, whatever the expression.
///
/// The syntax is RE2's as far as Rust's `regex` has it; `\Q...\E`, which clients write for literal text, is understood.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    let mut text = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((before, quoted)) = split_quote(rest) {
        text.push_str(before);
        let (literal, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
        text.push_str(&regex::escape(literal));
        rest = after;
    }
    text.push_str(rest);
    let build = |text: &str| {
        let built = regex::RegexBuilder::new(text).size_limit(1 << 20).build();
        built.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
            error => {
                // The last line says what is wrong; those above draw the whole expression.
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                last.trim_start_matches("error: ").to_owned()
            }
        })
    };
    // By itself first: what is only an expression between our brackets is none.
    build(&text)?;
    build(&format!("^(?:{text})$"))
}

/// Splits at the first `\Q` whose backslash is not itself escaped.
fn split_quote(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at + 1 < bytes.len() {
        if bytes[at] != b'\\' {
            at += 1;
        } else if bytes[at + 1] == b'Q' {
            return Some((&text[..at], &text[at + 2..]));
        } else {
            at += 2;
        }
    }
    None
}

/// The names that `pattern` matches; none if it cannot be compiled.
pub(super) fn resolve(pattern: &str, topics: &dyn Topics) -> BTreeSet<String> {
    let Ok(regex) = compile(pattern) else {
        return BTreeSet::new();
    };
    topics
        .names()
        .into_iter()
        .filter(|name| regex.is_match(name))
        .collect()
}

/// A hash of topics with their ids and partition counts: 0 if none of them exists, the same on every daemon (FNV-1a).
pub(super) fn hash<'a>(names: impl Iterator<Item = &'a str>, topics: &dyn Topics) -> i64 {
    let mut hash: u64 = 0;
    for name in names {
        let Some((id, partitions)) = topics.topic(name) else {
            continue;
        };
        if hash == 0 {
            hash = 0xcbf2_9ce4_8422_2325;
        }
        let bytes = name
            .bytes()
            .chain([0])
            .chain(id.0)
            .chain(partitions.to_be_bytes());
        for byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_match_whole_names() {
        let matches = |pattern: &str, name: &str| compile(pattern).unwrap().is_match(name);
        assert!(matches("orders-.*", "orders-eu") && !matches("orders-.*", "old-orders-eu"));
        assert!(matches("a|b", "b") && !matches("a|b", "ab"));
        assert!(matches(r"\Qa.b\E-\d+", "a.b-12") && !matches(r"\Qa.b\E-\d+", "axb-12"));
        assert!(matches(r"\Qa.b", "a.b") && matches(r"a\\Q", "a\\Q"));
        for broken in ["(", "a)|(b", "[", "a**(", r"(?=a)", "(a{1000}){1000}{1000}"] {
            assert!(compile(broken).is_err(), "{broken}");
        }
    }
}
