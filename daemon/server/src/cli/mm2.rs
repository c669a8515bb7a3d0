//! MirrorMaker 2's properties file as a source of flows: what of it a flow into this cluster can be, and, line by line, what of
//! it cannot be taken over. Pure: text comes in, declarations and sentences go out.
//!
//! The file is Java's: `key=value`, `key: value` or `key value`, `#` and `!` begin comments, a backslash at the end of a line goes
//! on in the next one, and before any other character is dropped. Keys of a flow (`A->B.topics`) win over keys for all flows.

use std::collections::BTreeMap;

use tradewind_mirror::naming::{DEFAULT_GROUPS_EXCLUDE, DEFAULT_TOPICS_EXCLUDE};
use tradewind_wire::flow::{FlowSource, FlowSpec, Naming};

/// What a file comes to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct TakenOver {
    /// Enabled flows into this cluster.
    pub(super) flows: Vec<FlowSpec>,
    /// What is not taken over, or is otherwise here, one sentence each, in the order of the lines.
    pub(super) told: Vec<String>,
}

/// Reads a file as of the cluster `alias` in it, whose name is `own` here. The error is for a person: there is a line that no
/// flow can do justice to.
pub(super) fn read(text: &str, alias: &str, own: &str) -> Result<TakenOver, String> {
    let mut file = File::parse(text)?;
    let clusters = list(&file.take("clusters").unwrap_or_default());
    if !clusters.iter().any(|cluster| cluster == alias) {
        return Err(format!(
            "none of its clusters ({}) is called `{alias}`: --into says which of them this cluster is",
            clusters.join(", ")
        ));
    }
    let mut out = TakenOver::default();
    let sources = clusters.iter().filter(|cluster| *cluster != alias);
    for source in sources {
        let flow = format!("{source}->{alias}");
        let enabled = format!("{flow}.enabled");
        if file
            .see(&enabled)
            .is_none_or(|known| known.value.trim() != "true")
        {
            continue;
        }
        file.take(&enabled);
        let flow = taken(&mut file, source, (alias, own))?;
        out.told.push(format!(
            "flow {}: settings, positions of groups and new topics are followed as they change, and records are copied under their \
             own offsets; no interval or `tasks.max` is needed for that",
            flow.name()
        ));
        out.flows.push(flow);
    }
    if out.flows.is_empty() {
        return Err(format!(
            "it enables no flow into `{alias}`: `SOURCE->{alias}.enabled = true` does"
        ));
    }
    out.told.extend(file.left(alias));
    Ok(out)
}

/// The declaration of one flow.
fn taken(file: &mut File, source: &str, (alias, own): (&str, &str)) -> Result<FlowSpec, String> {
    let flow = format!("{source}->{alias}");
    let addresses = list(
        &file
            .take(&format!("{source}.bootstrap.servers"))
            .unwrap_or_default(),
    );
    if addresses.is_empty() {
        return Err(format!("flow {flow}: `{source}.bootstrap.servers` is missing"));
    }
    let places = [
        "",
        &format!("{source}."),
        &format!("{source}.consumer."),
        &format!("{source}.admin."),
    ];
    for place in places {
        let Some(protocol) = file
            .see(&format!("{place}security.protocol"))
            .filter(|protocol| protocol.value.trim() != "PLAINTEXT")
        else {
            continue;
        };
        return Err(format!(
            "line {}: `{source}` asks for {}, and a Kafka is read in PLAINTEXT only: no TLS and no SASL yet",
            protocol.line,
            protocol.value.trim()
        ));
    }
    let separator = file.of(&flow, &["replication.policy.separator"]);
    let naming = match file.of(&flow, &["replication.policy.class"]) {
        None => prefix(separator),
        Some(class) => match class.trim().rsplit('.').next().unwrap_or_default() {
            "DefaultReplicationPolicy" => prefix(separator),
            "IdentityReplicationPolicy" => Naming::Identity,
            _ => {
                return Err(format!(
                    "flow {flow}: `replication.policy.class = {}` is no policy that names topics here: DefaultReplicationPolicy and \
                     IdentityReplicationPolicy are",
                    class.trim()
                ));
            }
        },
    };
    let mut patterns = |keys: &[&str], default: &[&str]| {
        let given = file.of(&flow, keys).map(|value| list(&value));
        given.unwrap_or_else(|| default.iter().map(|pattern| (*pattern).to_owned()).collect())
    };
    let none = |excluded: Vec<String>| {
        if excluded.is_empty() {
            vec![NOTHING.to_owned()]
        } else {
            excluded
        }
    };
    Ok(FlowSpec {
        topics: patterns(&["topics"], &[".*"]),
        topics_exclude: none(patterns(
            &["topics.exclude", "topics.blacklist"],
            &DEFAULT_TOPICS_EXCLUDE,
        )),
        groups: patterns(&["groups"], &[".*"]),
        groups_exclude: none(patterns(
            &["groups.exclude", "groups.blacklist"],
            &DEFAULT_GROUPS_EXCLUDE,
        )),
        source_cluster: source.to_owned(),
        target_cluster: own.to_owned(),
        source: FlowSource::Kafka(addresses),
        naming,
    })
}

/// A pattern that takes nothing. There a list of exclusions that is given and empty excludes nothing; here an empty one stands for
/// the defaults.
const NOTHING: &str = "[a&&b]";

fn prefix(separator: Option<String>) -> Naming {
    let separator = separator.map_or_else(|| ".".to_owned(), |separator| separator.trim().to_owned());
    Naming::Prefix { separator }
}

/// A list as MirrorMaker 2 splits it.
fn list(value: &str) -> Vec<String> {
    let items = value.split(',').map(str::trim);
    items.filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// One key of a file.
struct Entry {
    line: usize,
    value: String,
    /// Whether a flow has it now.
    taken: bool,
}

struct File(BTreeMap<String, Entry>);

impl File {
    fn parse(text: &str) -> Result<Self, String> {
        let mut entries = BTreeMap::new();
        let mut lines = (1..).zip(text.lines());
        while let Some((line, first)) = lines.next() {
            let first = first.trim_start();
            if first.is_empty() || first.starts_with(['#', '!']) {
                continue;
            }
            let mut whole = first.to_owned();
            while continues(&whole) {
                whole.pop();
                let Some((_, next)) = lines.next() else { break };
                whole += next.trim_start();
            }
            let (key, value) = halves(&whole).map_err(|reason| format!("line {line}: {reason}"))?;
            // The last of two wins, as in Java.
            let taken = false;
            entries.insert(key, Entry { line, value, taken });
        }
        Ok(Self(entries))
    }

    fn see(&self, key: &str) -> Option<&Entry> {
        self.0.get(key)
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let entry = self.0.get_mut(key)?;
        entry.taken = true;
        Some(entry.value.clone())
    }

    /// The value of the first of these keys that the flow has, or else that all flows have.
    fn of(&mut self, flow: &str, keys: &[&str]) -> Option<String> {
        let of_flow: Vec<String> = keys.iter().map(|key| format!("{flow}.{key}")).collect();
        let of_all = keys.iter().map(|key| (*key).to_owned());
        let all: Vec<String> = of_flow.into_iter().chain(of_all).collect();
        let found = all.iter().find(|key| self.0.contains_key(*key))?;
        self.take(found)
    }

    /// What no flow has taken, one sentence each.
    fn left(&self, alias: &str) -> Vec<String> {
        let mut left: Vec<(&String, &Entry)> = self.0.iter().filter(|(_, entry)| !entry.taken).collect();
        left.sort_by_key(|(_, entry)| entry.line);
        let told = left.into_iter().map(|(key, entry)| {
            let value = if secret(key) { "..." } else { entry.value.trim() };
            format!(
                "line {}: `{key} = {value}` is not taken over: {}",
                entry.line,
                why(key, alias)
            )
        });
        told.collect()
    }
}

/// Whether a value must not be printed.
fn secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "secret", "jaas", "credential", "token"]
        .iter()
        .any(|word| key.contains(word))
}

/// Why a key has no counterpart, or what is there instead.
fn why(key: &str, alias: &str) -> &'static str {
    if let Some((flow, _)) = key.split_once("->").and_then(|(_, rest)| rest.split_once('.'))
        && flow != alias
    {
        return "it is of a flow into another cluster, where it is to be planned";
    }
    if key.contains("->") && key.ends_with(".enabled") && key.matches('.').count() == 1 {
        return "that flow is not enabled";
    }
    if key.split_once('.').is_some_and(|(cluster, _)| cluster == alias) {
        return "it is of clients of this cluster, and a flow into it has none";
    }
    if ["topics", "groups"]
        .iter()
        .any(|list| key == *list || key.starts_with(&format!("{list}.")))
        || key.starts_with("replication.policy.")
    {
        return "the flow has another line of its own, or none that asks for it";
    }
    let ends = |with: &str| key == with || key.ends_with(&format!(".{with}"));
    if ends("auto.offset.reset") {
        return "a flow begins with the first record";
    }
    if ends("sync.topic.acls.enabled") {
        return "there are no ACLs here to copy to";
    }
    if ends("sync.topic.configs.enabled") {
        return "settings of topics are always followed";
    }
    if ends("config.properties.exclude") || ends("config.properties.blacklist") || ends("use.defaults.from") {
        return "which settings are followed is fixed: all that the topic has of its own, but throttles, the unclean election, \
                `message.timestamp.difference.max.ms` and `min.insync.replicas`";
    }
    if ends("sync.group.offsets.enabled") || ends("emit.checkpoints.enabled") {
        return "positions of the groups that the flow takes are always written here, and checkpoints with them; `groups` says which";
    }
    if ends("emit.heartbeats.enabled") || ends("heartbeats.replication.enabled") {
        return "heartbeats are always written and mirrored";
    }
    if key.ends_with(".interval.seconds") || ends("refresh.topics.enabled") || ends("refresh.groups.enabled")
    {
        return "changes are followed as they come, within seconds";
    }
    if key.ends_with("replication.factor") {
        return "topics here have this cluster's `default.replication.factor`";
    }
    if key.contains("offset-syncs") || ends("offset.lag.max") {
        return "offsets are the same on both sides: nothing has to be translated";
    }
    if ends("exactly.once.source.support") {
        return "nothing is copied twice in any case";
    }
    if [
        "topic.filter.class",
        "group.filter.class",
        "config.property.filter.class",
        "forwarding.admin.class",
    ]
    .iter()
    .any(|class| ends(class))
    {
        return "classes cannot be loaded: patterns say what is taken";
    }
    "it has no counterpart in a flow"
}

/// Whether a line goes on in the next: an odd number of backslashes ends it.
fn continues(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// Key and value of a whole line, without escapes.
fn halves(line: &str) -> Result<(String, String), String> {
    let mut end = line.len();
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        if !escaped && (c == '=' || c == ':' || c.is_ascii_whitespace()) {
            end = at;
            break;
        }
        escaped = c == '\\' && !escaped;
    }
    let rest = line[end..].trim_start();
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start();
    Ok((plain(&line[..end])?, plain(rest)?))
}

fn plain(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16)
                    .ok()
                    .filter(|_| digits.len() == 4);
                let c = code.and_then(char::from_u32);
                out.push(c.ok_or_else(|| format!("`\\u{digits}` is no character"))?);
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# two regions\n\
        clusters = primary, backup\n\
        primary.bootstrap.servers = p1:9092, \\\n    p2:9092\n\
        backup.bootstrap.servers: b1:9092\n\
        primary->backup.enabled = true\n\
        primary->backup.topics = orders.*, pay\\\\.ments\n\
        topics = never\n\
        topics.exclude = .*[\\-\\.]internal\n\
        groups.blacklist batch-.*\n\
        backup->primary.enabled = true\n\
        primary.consumer.auto.offset.reset = latest\n\
        primary.sasl.jaas.config = user=\"u\" password=\"geheim\"\n\
        sync.topic.acls.enabled = true\n\
        refresh.topics.interval.seconds = 60\n\
        tasks.max = 8\n";

    #[test]
    fn a_properties_file_is_taken_over_and_what_is_not_is_said_with_its_line() {
        let taken = read(FILE, "backup", "west").unwrap();
        let flow = &taken.flows[0];
        assert_eq!((taken.flows.len(), flow.name().as_str()), (1, "primary->west"));
        let addresses = ["p1:9092", "p2:9092"].map(str::to_owned);
        assert_eq!(flow.source, FlowSource::Kafka(addresses.into()));
        assert_eq!(flow.topics, ["orders.*", "pay\\.ments"]);
        // Java drops a backslash before what needs none.
        assert_eq!(flow.topics_exclude, [".*[-.]internal"]);
        assert_eq!(
            (&flow.groups[..], &flow.groups_exclude[..]),
            (&[".*".to_owned()][..], &["batch-.*".to_owned()][..])
        );
        assert_eq!(flow.naming, prefix(None));
        let told = taken.told.join("\n");
        for (line, why) in [
            (5, "clients of this cluster"),
            (8, "of its own"),
            (11, "into another cluster"),
            (12, "begins with the first record"),
            (13, "no counterpart"),
            (14, "no ACLs"),
            (15, "within seconds"),
            (16, "no counterpart"),
        ] {
            let of_line = |told: &&String| told.starts_with(&format!("line {line}: "));
            let sentence = taken
                .told
                .iter()
                .find(of_line)
                .unwrap_or_else(|| panic!("{line}: {told}"));
            assert!(sentence.contains(why), "{sentence}");
        }
        assert!(!told.contains("geheim"), "{told}");
    }

    #[test]
    fn policies_name_topics_and_what_no_flow_can_do_is_refused() {
        let with = |more: &str| read(&format!("{FILE}{more}\n"), "backup", "west");
        let identity = "replication.policy.class = org.apache.kafka.connect.mirror.IdentityReplicationPolicy";
        assert_eq!(with(identity).unwrap().flows[0].naming, Naming::Identity);
        let separated = with("primary->backup.replication.policy.separator = _").unwrap();
        assert_eq!(separated.flows[0].naming, prefix(Some("_".into())));
        for (more, told) in [
            ("replication.policy.class = com.example.Own", "com.example.Own"),
            ("primary.security.protocol = SASL_SSL", "line 17"),
            ("primary.admin.security.protocol = SSL", "line 17"),
            ("security.protocol = SSL", "line 17"),
            ("primary->backup.enabled = false", "enables no flow"),
            ("x = \\u12", "line 17"),
        ] {
            let refused = with(more).unwrap_err();
            assert!(refused.contains(told), "{refused}");
        }
        let other = read(FILE, "west", "west").unwrap_err();
        assert!(other.contains("--into"), "{other}");
    }
}
