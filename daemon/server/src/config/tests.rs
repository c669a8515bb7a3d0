//! Wrong configurations and what is said about them; layers; the shipped files.

use std::path::{Path, PathBuf};

use super::problem::Problem;
use super::*;

const GOOD: &str = r#"
[cluster]
name = "east"
nodes = [ { id = 1, mesh = "127.0.0.1:7100" }, { id = 2, mesh = "127.0.0.1:7101" } ]
[node]
id = 1
data_dir = "data"
[mesh]
listen = "127.0.0.1:7100"
tls = { ca = "ca.pem", cert = "node.pem", key = "node.key" }
[[kafka.listener]]
listen = "127.0.0.1:9092"
"#;

struct Room(tempfile::TempDir);

impl Room {
    /// A directory with the three certificate files.
    fn new() -> Self {
        let room = Self(tempfile::tempdir().unwrap());
        for name in ["ca.pem", "node.pem", "node.key"] {
            room.write(name, "");
        }
        room
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn load(&self, text: &str, overrides: &Overrides) -> Result<Settings, Vec<String>> {
        let path = self.write("t.toml", text);
        let shorten = |problem: &Problem| {
            problem
                .to_string()
                .replace(&format!("{}/", self.0.path().display()), "")
        };
        match load(&path, overrides) {
            Ok(loaded) => Ok(loaded.settings),
            Err(problems) => Err(problems.0.iter().map(shorten).collect()),
        }
    }
}

fn set(arguments: &[&str]) -> Overrides {
    Overrides {
        environment: Vec::new(),
        set: arguments.iter().map(|text| (*text).to_owned()).collect(),
    }
}

fn refused(text: &str) -> Vec<String> {
    Room::new().load(text, &Overrides::default()).unwrap_err()
}

#[test]
fn the_required_keys_are_enough_and_the_rest_has_defaults() {
    let room = Room::new();
    let settings = room.load(GOOD, &Overrides::default()).unwrap();
    assert_eq!(settings.data_dir, room.0.path().join("data"));
    assert_eq!(settings.tls.ca, room.0.path().join("ca.pem"));
    assert_eq!(settings.mesh_advertise, "127.0.0.1:7100");
    assert_eq!(settings.listeners[0].advertise, ("127.0.0.1".to_owned(), 9092));
    assert_eq!(settings.http_listen.to_string(), "127.0.0.1:9644");
    assert!(settings.flows.is_empty());
}

#[test]
fn every_mistake_is_named_with_its_place_and_all_of_them_at_once() {
    let text = GOOD
        .replace("[mesh]\nlisten", "[mesh]\nlissten")
        .replace("id = 1\n", "id = \"one\"\n")
        .replace("node.key", "gone.key")
        + "[kafka]\nidle_timeout = \"10 parsecs\"\nmax_request_bytes = 64\n";
    let problems = refused(&text);
    let expect = [
        "t.toml:6:6: `node.id` must be a whole number, not text",
        "t.toml:9:1: unknown key `mesh.lissten`; did you mean `listen`?",
        "t.toml:14:16: `kafka.idle_timeout` is wrong: `10 parsecs` is not a duration",
        "t.toml:15:21: `kafka.max_request_bytes` has no unit: write for example \"64MiB\"",
        "t.toml:10:49: `mesh.tls.key`: cannot read ",
        "`mesh.listen` is missing",
    ];
    for expect in expect {
        assert!(
            problems.iter().any(|problem| problem.contains(expect)),
            "{expect} in {problems:#?}"
        );
    }
    assert_eq!(problems.len(), expect.len(), "{problems:#?}");
}

#[test]
fn an_id_twice_or_an_own_id_that_is_not_listed_is_refused() {
    let problems = refused(&GOOD.replace("id = 2", "id = 1"));
    assert!(
        problems[0].contains("node id 1 stands twice in `cluster.nodes`"),
        "{problems:?}"
    );
    assert!(problems[0].starts_with("t.toml:4:"), "{problems:?}");
    let problems = refused(&GOOD.replace("\nid = 1", "\nid = 7"));
    assert_eq!(
        problems,
        ["t.toml:6:6: `node.id` 7 is not in `cluster.nodes` (1, 2)"]
    );
}

#[test]
fn broken_syntax_has_a_place() {
    let problems = refused(&GOOD.replace("[node]", "[node"));
    assert!(problems[0].starts_with("t.toml:5:"), "{problems:?}");
}

#[test]
fn flows_are_read_and_their_mistakes_named() {
    let flows =
        "[clusters.west]\nmesh = [\"10.9.1.1:7100\"]\n[[mirror]]\nfrom = \"west\"\ntopics = [\"orders.*\"]\n";
    let settings = Room::new()
        .load(&format!("{GOOD}{flows}"), &Overrides::default())
        .unwrap();
    assert_eq!(settings.flows[0].name(), "west->east");
    assert_eq!(settings.flows[0].topics, ["orders.*"]);

    let wrong = flows
        .replace("\"west\"\n", "\"wset\"\n")
        .replace("orders.*", "orders.(")
        + "offsets = \"append\"\n";
    let problems = refused(&format!("{GOOD}{wrong}"));
    for expect in [
        "is not a regular expression",
        "did you mean `west`?",
        "offsets `append` is not available yet",
    ] {
        assert!(
            problems.iter().any(|problem| problem.contains(expect)),
            "{expect} in {problems:#?}"
        );
    }
}

#[test]
fn a_cluster_that_may_fence_is_waited_for_unless_the_file_says_otherwise() {
    let west = "[clusters.west]\nmesh = [\"10.9.1.1:7100\"]\n";
    let guarded = |more: &str| {
        let text = format!("{GOOD}{west}{more}");
        let settings = Room::new().load(&text, &Overrides::default()).unwrap();
        let west = &settings.clusters["west"];
        (west.may_fence, west.boot_guard)
    };
    assert_eq!(guarded("may_fence = true\n"), (true, true));
    assert_eq!(guarded("may_fence = true\nboot_guard = false\n"), (true, false));
    let line = format!("{GOOD}{west}").lines().count() + 1;
    let problems = refused(&format!("{GOOD}{west}boot_guard = \"yes\"\n"));
    assert!(
        problems[0].starts_with(&format!("t.toml:{line}:")),
        "{problems:?}"
    );
    let kafka = west.replace("mesh", "kafka");
    let problems = refused(&format!("{GOOD}{kafka}boot_guard = true\n"));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(
        problems[0].starts_with(&format!("t.toml:{line}:")),
        "{problems:?}"
    );
    assert!(problems[0].contains("only a Tradewind cluster"), "{problems:?}");
}

#[test]
fn what_is_planned_is_not_called_unknown() {
    let problems = refused(&format!("{GOOD}security = \"tls\"\n"));
    assert!(
        problems[0].contains("security `tls` is not available yet"),
        "{problems:?}"
    );
    let problems = refused(&format!("{GOOD}[clusters.a]\nkafka = [\"a:1\"]\nsasl = {{}}\n"));
    assert!(
        problems[0].contains("`clusters.a.sasl` is not available yet"),
        "{problems:?}"
    );
}

#[test]
fn kafka_settings_take_numbers_and_units() {
    let text = format!(
        "{GOOD}[topic_defaults]\n\"retention.ms\" = \"7d\"\n\"num.partitions\" = 6\n\"segment.bytes\" = \"64MiB\"\n"
    );
    let settings = Room::new().load(&text, &Overrides::default()).unwrap();
    assert_eq!(settings.topic_defaults["retention.ms"], "604800000");
    assert_eq!(settings.topic_defaults["num.partitions"], "6");
    assert_eq!(settings.topic_defaults["segment.bytes"], "67108864");
    let problems = refused(&format!(
        "{GOOD}[topic_defaults]\n\"retention.sm\" = 1\n\"segment.bytes\" = \"64 MiBs\"\n"
    ));
    assert!(
        problems[0].contains("did you mean `retention.ms`?"),
        "{problems:?}"
    );
    assert!(problems[1].contains("is not a size"), "{problems:?}");
}

#[test]
fn later_layers_win_and_remember_where_they_were_written() {
    let room = Room::new();
    room.write(
        "conf.d/10.toml",
        "[node]\nrack = \"a\"\n[http]\nlisten = \"127.0.0.1:1000\"\n",
    );
    room.write("conf.d/20.toml", "[http]\nlisten = \"127.0.0.1:2000\"\n");
    let mut overrides = set(&["node.id=2", "topic_defaults.num.partitions=9"]);
    overrides.environment = vec![
        ("TRADEWIND__NODE__ID".into(), "7".into()),
        ("TRADEWIND__NODE__RACK".into(), "b".into()),
        (
            "TRADEWIND__TOPIC_DEFAULTS__MIN_INSYNC_REPLICAS".into(),
            "1".into(),
        ),
        ("PATH".into(), "/bin".into()),
    ];
    let settings = room.load(GOOD, &overrides).unwrap();
    assert_eq!(settings.node, 2);
    assert_eq!(settings.rack.as_deref(), Some("b"));
    assert_eq!(settings.http_listen.port(), 2000);
    assert_eq!(settings.topic_defaults["num.partitions"], "9");
    assert_eq!(settings.topic_defaults["min.insync.replicas"], "1");

    let loaded = load(&room.0.path().join("t.toml"), &overrides).unwrap();
    let shown = show(&loaded.written);
    let origin = |key: &str| {
        shown
            .iter()
            .find(|shown| shown.key == key)
            .unwrap()
            .origin
            .clone()
    };
    assert_eq!(origin("node.id"), "--set node.id=2");
    assert_eq!(origin("node.rack"), "TRADEWIND__NODE__RACK");
    assert!(
        origin("http.listen").ends_with("20.toml:2:10"),
        "{}",
        origin("http.listen")
    );
    assert_eq!(origin("kafka.idle_timeout"), "default");

    let problems = room
        .load(GOOD, &set(&["node.idd=2", "node.id=x", "node"]))
        .unwrap_err();
    assert!(problems[0].contains("unknown key `node.idd`"), "{problems:?}");
    assert!(problems[1].starts_with("--set node.id=x: "), "{problems:?}");
    assert!(problems[2].contains("write KEY=VALUE"), "{problems:?}");
}

#[test]
fn the_template_is_a_valid_configuration() {
    Room::new().load(&template(), &Overrides::default()).unwrap();
    // And with every key that is commented out written.
    let text: String = template()
        .lines()
        .filter(|line| {
            !line.starts_with("# \"") && !line.contains("kafka = [") && !line.contains("advertise = \"this")
        })
        .map(|line| {
            let bare = line.strip_prefix("# ").unwrap_or(line);
            let key = bare.starts_with('[') || bare.split(' ').nth(1) == Some("=");
            format!("{}\n", if key { bare } else { line })
        })
        .collect();
    let room = Room::new();
    room.write("west-ca.pem", "");
    room.load(&text, &Overrides::default())
        .unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"));
}

#[test]
fn the_shipped_files_load() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let mut seen = 0;
    for entry in std::fs::read_dir(shipped).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let room = Room::new();
        for name in ["east-1.pem", "east-1.key", "west-1.pem", "west-1.key"] {
            room.write(name, "");
        }
        room.load(&text, &Overrides::default())
            .unwrap_or_else(|problems| panic!("{}: {problems:#?}", path.display()));
        seen += 1;
    }
    assert!(seen >= 3, "{seen}");
}
