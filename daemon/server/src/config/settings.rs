//! The checked configuration: types without wrong values, and the rules that span several keys.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use config::{Value, ValueKind};
use tradewind_wire::flow::{FlowSource, FlowSpec, Naming};
use tradewind_wire::ids::NodeId;

use super::problem::{Problem, nearest};
use super::units;

/// What one daemon is told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The cluster's name, unique in the mesh.
    pub(crate) cluster: String,
    /// All daemons of the cluster with their mesh addresses; ids are unique and this daemon's is among them.
    pub(crate) nodes: BTreeMap<NodeId, String>,
    /// This daemon's number.
    pub(crate) node: NodeId,
    /// Everything that the daemon keeps.
    pub(crate) data_dir: PathBuf,
    /// What records leave free on the volume of `data_dir`, in bytes.
    pub(crate) disk_reserve: u64,
    /// The failure domain told to clients.
    pub(crate) rack: Option<String>,
    /// How long a drain may take.
    pub(crate) drain_timeout: Duration,
    /// The UDP address to bind.
    pub(crate) mesh_listen: SocketAddr,
    /// Where other daemons reach this one's mesh port.
    pub(crate) mesh_advertise: String,
    /// This daemon's identity.
    pub(crate) tls: MeshTlsFiles,
    /// Where Kafka clients connect; never empty, names and addresses are unique.
    pub(crate) listeners: Vec<ListenerSettings>,
    /// Connections beyond these are closed at once.
    pub(crate) max_connections: usize,
    /// Connections of one address beyond these are closed at once.
    pub(crate) max_connections_per_ip: usize,
    /// What requests may hold in memory, over all connections; at least the longest one.
    pub(crate) queued_request_bytes: usize,
    /// The longest request frame.
    pub(crate) max_request_bytes: usize,
    /// A connection without a request for so long is closed.
    pub(crate) idle_timeout: Duration,
    /// The TCP address of HTTP.
    pub(crate) http_listen: SocketAddr,
    /// What was written in `[topic_defaults]`, as Kafka would have it.
    pub(crate) topic_defaults: BTreeMap<String, String>,
    /// Other clusters by the name that they have here.
    pub(crate) clusters: BTreeMap<String, RemoteCluster>,
    /// Flows into this cluster; at most one per source.
    pub(crate) flows: Vec<FlowSpec>,
}

/// The three files of a daemon's identity; they existed when the configuration was read.
#[derive(Debug, Clone)]
pub(crate) struct MeshTlsFiles {
    /// The authority.
    pub(crate) ca: PathBuf,
    /// The certificate.
    pub(crate) cert: PathBuf,
    /// The private key.
    pub(crate) key: PathBuf,
}

/// One Kafka listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenerSettings {
    /// Its name; the listeners of one name in all daemons belong together.
    pub(crate) name: String,
    /// The TCP address to bind.
    pub(crate) listen: SocketAddr,
    /// Host and port that clients are told; port 0 means the port that was bound.
    pub(crate) advertise: (String, u16),
}

/// Another cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteCluster {
    /// How it is reached.
    pub(crate) source: FlowSource,
    /// Its own authority, if it is not ours.
    pub(crate) ca: Option<PathBuf>,
    /// Whether it may fence topics here, to take them over.
    pub(crate) may_fence: bool,
    /// Whether topics that it could have taken over wait for its word after all daemons here were down.
    pub(crate) boot_guard: bool,
}

impl Settings {
    /// Reads the merged tree; `name` stands for the configuration as a whole where a key is missing.
    pub(crate) fn read(tree: &Value, name: &str, problems: &RefCell<Vec<Problem>>) -> Option<Self> {
        let root = Fields {
            value: tree,
            path: String::new(),
            origin: name,
            problems,
        };
        let cluster = root.table("cluster")?;
        let cluster_name = cluster.name("name");
        let nodes = read_nodes(&cluster);

        let node = root.table("node")?;
        let id = node.integer("id").map(|id| id as NodeId);
        if let (Some(id), Some(nodes)) = (id, &nodes)
            && !nodes.contains_key(&id)
        {
            let known: Vec<String> = nodes.keys().map(NodeId::to_string).collect();
            node.wrong(
                "id",
                format!("`node.id` {id} is not in `cluster.nodes` ({})", known.join(", ")),
            );
        }
        let data_dir = node.path("data_dir");
        let disk_reserve = node.size("disk_reserve", 256 << 20);
        let rack = node.optional("rack");
        let drain_timeout = node.duration("drain_timeout", Duration::from_secs(30));

        let own_mesh = id.and_then(|id| nodes.as_ref()?.get(&id).cloned());
        let mesh = root.table("mesh")?;
        let mesh_listen = mesh.listen("listen", None);
        let mesh_advertise = mesh.optional("advertise").or_else(|| own_mesh.clone());
        let tls = mesh.table("tls").and_then(|tls| {
            let (ca, cert, key) = (tls.existing("ca"), tls.existing("cert"), tls.existing("key"));
            Some(MeshTlsFiles {
                ca: ca?,
                cert: cert?,
                key: key?,
            })
        });

        let kafka = root.table("kafka")?;
        let listeners = read_listeners(&kafka, own_mesh.as_deref());
        let max_connections = kafka.integer_or("max_connections", 10_000);
        let max_request_bytes = kafka.size("max_request_bytes", 100 << 20);
        let max_connections_per_ip = kafka.integer_or("max_connections_per_ip", 1_000_000);
        let queued_request_bytes = kafka.size("queued_request_bytes", 256 << 20);
        if queued_request_bytes < max_request_bytes {
            kafka.wrong(
                "queued_request_bytes",
                "`kafka.queued_request_bytes` is below `kafka.max_request_bytes`: such a request would never be read",
            );
        }
        let idle_timeout = kafka.duration("idle_timeout", Duration::from_secs(600));

        let http_default = SocketAddr::from(([127, 0, 0, 1], 9644));
        let http_listen = match root.optional_table("http") {
            Some(http) => http.listen("listen", Some(http_default)),
            None => Some(http_default),
        };
        let topic_defaults = root
            .optional_table("topic_defaults")
            .map(|table| table.texts())
            .unwrap_or_default();
        let clusters = read_clusters(&root);
        let flows = read_flows(&root, cluster_name.as_deref().unwrap_or(""), &clusters);
        Some(Self {
            cluster: cluster_name?,
            nodes: nodes?,
            node: id?,
            data_dir: data_dir?,
            disk_reserve,
            rack,
            drain_timeout,
            mesh_listen: mesh_listen?,
            mesh_advertise: mesh_advertise?,
            tls: tls?,
            listeners,
            max_connections: max_connections as usize,
            max_connections_per_ip: max_connections_per_ip as usize,
            queued_request_bytes: queued_request_bytes as usize,
            max_request_bytes: max_request_bytes as usize,
            idle_timeout,
            http_listen: http_listen?,
            topic_defaults,
            clusters,
            flows,
        })
    }
}

fn read_nodes(cluster: &Fields<'_>) -> Option<BTreeMap<NodeId, String>> {
    let mut nodes = BTreeMap::new();
    let mut meshes = BTreeSet::new();
    for entry in cluster.tables("nodes", true)? {
        let id = entry.integer("id").map(|id| id as NodeId);
        let mesh = entry.text("mesh");
        if let (Some(id), Some(mesh)) = (id, mesh) {
            if !meshes.insert(mesh.clone()) {
                entry.wrong("mesh", format!("`{mesh}` stands twice in `cluster.nodes`"));
            }
            if nodes.insert(id, mesh).is_some() {
                entry.wrong("id", format!("node id {id} stands twice in `cluster.nodes`"));
            }
        }
    }
    if nodes.is_empty() {
        cluster.wrong("nodes", "`cluster.nodes` is empty: list at least this daemon");
    }
    Some(nodes)
}

fn read_listeners(kafka: &Fields<'_>, own_mesh: Option<&str>) -> Vec<ListenerSettings> {
    let mut listeners: Vec<ListenerSettings> = Vec::new();
    let entries = kafka.tables("listener", true);
    if entries.as_ref().is_some_and(Vec::is_empty) {
        kafka.wrong("listener", "`kafka.listener` is empty: at least one is needed");
    }
    for (i, entry) in entries.into_iter().flatten().enumerate() {
        let security = entry.optional("security").unwrap_or_else(|| "plaintext".into());
        if security != "plaintext" {
            entry.wrong(
                "security",
                format!("security `{security}` is not available yet: only `plaintext` is"),
            );
        }
        let name = entry.optional("name").unwrap_or_else(|| {
            if i == 0 {
                "kafka".into()
            } else {
                format!("kafka-{i}")
            }
        });
        let Some(listen) = entry.listen("listen", None) else {
            continue;
        };
        let advertise = entry
            .optional("advertise")
            .and_then(|text| units::host_port(&text).ok());
        // Nobody can connect to the wildcard address; the mesh address names a host that the others do reach.
        let advertise = advertise.unwrap_or_else(|| {
            let host = own_mesh
                .filter(|_| listen.ip().is_unspecified())
                .and_then(|mesh| units::host_port(mesh).ok());
            (
                host.map_or_else(|| listen.ip().to_string(), |(host, _)| host),
                listen.port(),
            )
        });
        if listeners.iter().any(|other| other.name == name) {
            entry.wrong("name", format!("two listeners have the name `{name}`"));
        }
        if listen.port() != 0 && listeners.iter().any(|other| other.listen == listen) {
            entry.wrong("listen", format!("two listeners bind {listen}"));
        }
        listeners.push(ListenerSettings {
            name,
            listen,
            advertise,
        });
    }
    listeners
}

fn read_clusters(root: &Fields<'_>) -> BTreeMap<String, RemoteCluster> {
    let mut clusters = BTreeMap::new();
    let Some(named) = root.optional_table("clusters") else {
        return clusters;
    };
    for name in named.names() {
        let Some(entry) = named.table(&name) else { continue };
        if entry
            .optional("security")
            .is_some_and(|security| security != "plaintext")
        {
            entry.wrong("security", "only `plaintext` is available yet");
        }
        let ca = entry.optional_table("tls").and_then(|tls| tls.existing("ca"));
        let source = match (entry.list("mesh"), entry.list("kafka")) {
            (Some(mesh), None) => FlowSource::Mesh(mesh),
            (None, Some(kafka)) => FlowSource::Kafka(kafka),
            _ => {
                let message =
                    format!("`clusters.{name}` needs either `mesh` or `kafka`, one or more addresses");
                entry.wrong("", message);
                continue;
            }
        };
        let (FlowSource::Mesh(addresses) | FlowSource::Kafka(addresses)) = &source;
        if addresses.is_empty() {
            entry.wrong("", format!("`clusters.{name}` has no address"));
        }
        let may_fence = entry.flag("may_fence", false);
        if may_fence && matches!(source, FlowSource::Kafka(_)) {
            entry.wrong(
                "may_fence",
                "only a Tradewind cluster, one with `mesh`, may fence topics here",
            );
        }
        if entry.get("boot_guard").is_some() && matches!(source, FlowSource::Kafka(_)) {
            entry.wrong(
                "boot_guard",
                "only a Tradewind cluster, one with `mesh`, can say that it has not taken topics over",
            );
        }
        let remote = RemoteCluster {
            source,
            ca,
            may_fence,
            boot_guard: entry.flag("boot_guard", true),
        };
        clusters.insert(name, remote);
    }
    clusters
}

fn read_flows(
    root: &Fields<'_>,
    own_cluster: &str,
    clusters: &BTreeMap<String, RemoteCluster>,
) -> Vec<FlowSpec> {
    let mut flows: Vec<FlowSpec> = Vec::new();
    let known = root
        .optional_table("clusters")
        .map(|named| named.names())
        .unwrap_or_default();
    for entry in root.tables("mirror", false).into_iter().flatten() {
        let from = entry.text("from");
        let topics = entry.patterns("topics", &[".*"]);
        let topics_exclude = entry.patterns("topics_exclude", &[r".*[\-.]internal", r".*\.replica", "__.*"]);
        let groups = entry.patterns("groups", &[".*"]);
        let groups_exclude = entry.patterns("groups_exclude", &["console-consumer-.*", "connect-.*", "__.*"]);
        let separator = entry.optional("separator").unwrap_or_else(|| ".".into());
        if !separator.chars().all(name_char) {
            entry.wrong(
                "separator",
                "`separator` may hold letters, digits, `.`, `_` and `-`",
            );
        }
        if entry
            .optional("offsets")
            .is_some_and(|offsets| offsets != "preserve")
        {
            entry.wrong(
                "offsets",
                "offsets `append` is not available yet: only `preserve` is",
            );
        }
        let naming = match entry.optional("naming").as_deref() {
            Some("identity") => Naming::Identity,
            _ => Naming::Prefix { separator },
        };
        let Some(from) = from else { continue };
        if from == own_cluster {
            entry.wrong(
                "from",
                format!("`{from}` is this cluster: a flow comes from another one"),
            );
        } else if !known.contains(&from) {
            let near = nearest(&from, known.iter().map(String::as_str));
            let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            entry.wrong("from", format!("there is no `[clusters.{from}]`{near}"));
        }
        if flows.iter().any(|flow| flow.source_cluster == from) {
            entry.wrong(
                "from",
                format!("a second flow from `{from}`: one flow carries all its topics"),
            );
        }
        let Some(remote) = clusters.get(&from) else {
            continue;
        };
        flows.push(FlowSpec {
            source_cluster: from,
            target_cluster: own_cluster.to_owned(),
            source: remote.source.clone(),
            topics,
            topics_exclude,
            groups,
            groups_exclude,
            naming,
        });
    }
    flows
}

/// Reads one table, key by key, and collects what is wrong. A nil value was complained about before.
struct Fields<'a> {
    value: &'a Value,
    path: String,
    /// Where to point if a key is not there.
    origin: &'a str,
    problems: &'a RefCell<Vec<Problem>>,
}

impl<'a> Fields<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        match &self.value.kind {
            ValueKind::Table(table) => table.get(key),
            _ => None,
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn wrong(&self, key: &str, message: impl Into<String>) {
        let origin = self
            .get(key)
            .and_then(Value::origin)
            .or_else(|| self.value.origin());
        self.problems
            .borrow_mut()
            .push(Problem::new(origin.unwrap_or(self.origin).to_owned(), message));
    }

    fn missing(&self, key: &str) {
        let path = self.path_of(key);
        self.wrong(key, format!("`{path}` is missing"));
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = match &self.value.kind {
            ValueKind::Table(table) => table.keys().cloned().collect(),
            _ => Vec::new(),
        };
        names.sort();
        names
    }

    fn texts(&self) -> BTreeMap<String, String> {
        let text = |name: String| Some((name.clone(), self.optional(&name)?));
        self.names().into_iter().filter_map(text).collect()
    }

    fn optional_table(&self, key: &str) -> Option<Self> {
        let path = self.path_of(key);
        let ValueKind::Table(table) = &self.value.kind else {
            return None;
        };
        let value = table.get(key)?;
        Some(Self {
            value,
            path,
            origin: self.origin,
            problems: self.problems,
        })
    }

    fn table(&self, key: &str) -> Option<Self> {
        if self.get(key).is_none() {
            self.missing(key);
        }
        self.optional_table(key)
    }

    fn optional(&self, key: &str) -> Option<String> {
        match &self.get(key)?.kind {
            ValueKind::String(text) => Some(text.clone()),
            _ => None,
        }
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        match self.get(key).map(|value| &value.kind) {
            Some(ValueKind::Boolean(flag)) => *flag,
            _ => default,
        }
    }

    fn text(&self, key: &str) -> Option<String> {
        if self.get(key).is_none() {
            self.missing(key);
        }
        self.optional(key)
    }

    fn name(&self, key: &str) -> Option<String> {
        let text = self.text(key)?;
        if !text.chars().all(name_char) || text.len() > 100 {
            let path = self.path_of(key);
            self.wrong(
                key,
                format!("`{path}` may hold letters, digits, `.`, `_` and `-`, at most 100"),
            );
        }
        Some(text)
    }

    fn integer(&self, key: &str) -> Option<i64> {
        match self.get(key).map(|value| &value.kind) {
            Some(ValueKind::I64(number)) => return Some(*number),
            None => self.missing(key),
            _ => {}
        }
        None
    }

    fn integer_or(&self, key: &str, default: i64) -> i64 {
        if self.get(key).is_some() {
            self.integer(key).unwrap_or(default)
        } else {
            default
        }
    }

    fn duration(&self, key: &str, default: Duration) -> Duration {
        self.optional(key)
            .and_then(|text| units::duration(&text).ok())
            .unwrap_or(default)
    }

    fn size(&self, key: &str, default: u64) -> u64 {
        self.optional(key)
            .and_then(|text| units::size(&text).ok())
            .unwrap_or(default)
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// A path at which a readable file stands.
    fn existing(&self, key: &str) -> Option<PathBuf> {
        let path = self.path(key)?;
        match std::fs::File::open(&path).and_then(|file| file.metadata()) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => self.wrong(
                key,
                format!("`{}`: {} is not a file", self.path_of(key), path.display()),
            ),
            Err(error) => {
                let message = format!("`{}`: cannot read {}: {error}", self.path_of(key), path.display());
                self.wrong(key, message);
                return None;
            }
        }
        Some(path)
    }

    /// An address of this machine; a host name is looked up.
    fn listen(&self, key: &str, default: Option<SocketAddr>) -> Option<SocketAddr> {
        if let (None, Some(default)) = (self.get(key), default) {
            return Some(default);
        }
        let text = self.text(key)?;
        let (host, port) = units::host_port(&text).ok()?;
        match (host.as_str(), port)
            .to_socket_addrs()
            .map(|mut addresses| addresses.next())
        {
            Ok(Some(address)) => Some(address),
            _ => {
                let path = self.path_of(key);
                self.wrong(key, format!("`{path}`: no address is known for `{host}`"));
                None
            }
        }
    }

    fn tables(&self, key: &str, required: bool) -> Option<Vec<Self>> {
        let path = self.path_of(key);
        if required && self.get(key).is_none() {
            self.missing(key);
        }
        let ValueKind::Table(table) = &self.value.kind else {
            return None;
        };
        let ValueKind::Array(items) = &table.get(key)?.kind else {
            return None;
        };
        let entry = |(i, value)| Self {
            value,
            path: format!("{path}[{i}]"),
            ..*self
        };
        let items = items
            .iter()
            .filter(|item| matches!(item.kind, ValueKind::Table(_)));
        Some(items.enumerate().map(entry).collect())
    }

    fn list(&self, key: &str) -> Option<Vec<String>> {
        let ValueKind::Array(items) = &self.get(key)?.kind else {
            return None;
        };
        let text = |item: &Value| match &item.kind {
            ValueKind::String(text) => Some(text.clone()),
            _ => None,
        };
        Some(items.iter().filter_map(text).collect())
    }

    fn patterns(&self, key: &str, default: &[&str]) -> Vec<String> {
        let Some(patterns) = self.list(key) else {
            return default.iter().map(|pattern| (*pattern).to_owned()).collect();
        };
        for (i, pattern) in patterns.iter().enumerate() {
            if let Err(error) = regex::Regex::new(pattern) {
                let reason = error
                    .to_string()
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim()
                    .to_owned();
                let path = self.path_of(key);
                self.wrong(
                    key,
                    format!("`{path}[{i}]`: `{pattern}` is not a regular expression: {reason}"),
                );
            }
        }
        patterns
    }
}

/// What Kafka allows in a topic name, and so in anything that becomes part of one.
fn name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}
