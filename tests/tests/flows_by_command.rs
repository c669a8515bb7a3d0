//! A flow that is planned, changed and removed by command, while the file of its daemon says otherwise and is read again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tradewind_tests::{Kafka, Mesh, Naming, load, program, wait};
use tradewind_wire::compression::Codec;

const FLOW: &str = "east->west";

struct World {
    mesh: Mesh,
    east: Kafka,
    west: Kafka,
    /// The file with which flows are changed.
    file: PathBuf,
}

impl World {
    fn write(&mut self, topic: &str) -> Result<i64> {
        let first = u64::try_from(self.east.end(topic, 0)?)?;
        let batch = load::numbered_batch(Codec::Zstd, None, 0, first)?;
        wait::until("a batch is written", 30, || {
            self.east.append(topic, 0, batch.clone()).map(Some)
        })?;
        wait::until("it is committed", 30, || {
            let end = self.east.end(topic, 0)?;
            Ok((end > i64::try_from(first)?).then_some(end))
        })
    }

    fn wait_end(&mut self, topic: &str, end: i64) -> Result<()> {
        wait::until_true(&format!("{topic} is copied"), 30, || {
            let here = self.west.end(topic, 0)?;
            ensure!(here == end, "it ends at {here}, not {end}");
            Ok(true)
        })
    }

    /// `mirror VERB --file FILE` with more: whether it went well, and what it printed.
    fn verb(&self, verb: &str, more: &[&str]) -> Result<(bool, String)> {
        let url = self.mesh.west.daemons[0].url();
        let file = self.file.to_str().context("a path in UTF-8")?;
        let command = ["mirror", verb, "--file", file, "--url", &url, "-o", "json"];
        let output = program::run(&[&command[..], more].concat())?;
        let printed = [output.stdout, output.stderr].concat();
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&printed).into_owned(),
        ))
    }

    fn plan(&self) -> Result<(bool, Value)> {
        let (well, printed) = self.verb("plan", &[])?;
        let plans: Value = serde_json::from_str(&printed).context(printed)?;
        Ok((well, plans[0].clone()))
    }

    fn restart(&mut self) -> Result<()> {
        self.mesh.west.kill_all();
        self.mesh.west.start_all()?;
        // Connections to the process that was killed are of no more use.
        self.west = self.mesh.west.kafka();
        wait::until("the flow is told of", 30, || self.mesh.status().map(Some))?;
        Ok(())
    }
}

/// The daemon's own file, with one line more in its flow.
fn changed_file(folder: &Path, line: &str) -> Result<PathBuf> {
    let mut text = fs::read_to_string(folder.join("tradewind.toml"))?;
    if line.contains("naming") {
        text = text.replace("naming = \"prefix\"\n", "");
    }
    let file = folder.join("changed.toml");
    fs::write(
        &file,
        text.replace("[[mirror]]\n", &format!("[[mirror]]\n{line}\n")),
    )?;
    Ok(file)
}

#[test]
fn a_flow_is_changed_and_removed_by_command_and_no_file_undoes_that() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mesh = Mesh::start(folder.path(), 1, Naming::Prefix)?;
    let own = mesh.west.daemons[0].folder.clone();
    let file = changed_file(&own, "topics = [\"a.*\"]")?;
    let (east, west) = (mesh.east.kafka(), mesh.west.kafka());
    let mut world = World {
        mesh,
        east,
        west,
        file,
    };
    for topic in ["a", "b"] {
        world.east.create_topic(topic, 1, &[])?;
        let end = world.write(topic)?;
        world.wait_end(&format!("east.{topic}"), end)?;
    }

    // The plan says it and does not do it; two applies do it once.
    world.east.create_topic("a-late-one", 3, &[])?;
    wait::until("the late topic is mirrored", 30, || {
        world.west.end("east.a-late-one", 2).map(Some)
    })?;
    let (well, plan) = world.plan()?;
    ensure!(
        well && plan["change"] == "changed" && plan["fields"][0]["field"] == "topics",
        "{plan}"
    );
    ensure!(plan["stops"] == serde_json::json!(["east.b"]), "{plan}");
    ensure!(plan["creates"] == serde_json::json!([]), "{plan}");
    for _ in 0..2 {
        let (well, printed) = world.verb("apply", &[])?;
        ensure!(well, "{printed}");
    }
    let (_, plan) = world.plan()?;
    ensure!(plan["change"] == "unchanged", "{plan}");
    let status = world.mesh.status()?;
    ensure!(
        status["notes"].to_string().contains("says otherwise (topics)"),
        "{status}"
    );

    // A topic that the flow takes no more stays as it is, and the daemon's own file brings nothing back.
    let left = world.west.end("east.b", 0)?;
    world.restart()?;
    world.write("b")?;
    let end = world.write("a")?;
    world.wait_end("east.a", end)?;
    let (_, plan) = world.plan()?;
    ensure!(plan["change"] == "unchanged", "{plan}");
    ensure!(world.west.end("east.b", 0)? == left);

    // A name that is taken is told before anything begins, and so are other names for what is here.
    world.west.create_topic("east.taken", 1, &[])?;
    world.east.create_topic("taken", 1, &[])?;
    for (line, told) in [
        ("topics = [\"a.*\", \"taken\"]", "`east.taken` exists here"),
        ("topics = [\"a.*\"]\nnaming = \"identity\"", "another naming"),
    ] {
        changed_file(&own, line)?;
        let (well, plan) = world.plan()?;
        ensure!(!well && plan["problems"].to_string().contains(told), "{plan}");
        let (well, printed) = world.verb("apply", &[])?;
        ensure!(!well && printed.contains("nothing was changed"), "{printed}");
    }
    changed_file(&own, "topics = [\"a.*\"]")?;

    // MirrorMaker 2's file is planned like ours; what of it is not taken over is told beside the answer.
    let properties = folder.path().join("mm2.properties");
    let servers = world.mesh.east.daemons[0].kafka;
    let lines = [
        "clusters = east, west",
        "east->west.enabled = true",
        "east->west.topics = a.*",
    ];
    let more = format!("east.bootstrap.servers = {servers}\ntasks.max = 4\n");
    fs::write(&properties, lines.join("\n") + "\n" + &more)?;
    let properties = properties.to_str().context("a path in UTF-8")?;
    let url = world.mesh.west.daemons[0].url();
    let output = program::run(&["mirror", "plan", "--mm2", properties, "--url", &url, "-o", "json"])?;
    let plans: Value = serde_json::from_slice(&output.stdout).context("a plan")?;
    let fields = plans[0]["fields"].to_string();
    ensure!(
        fields.contains("\"source\"") && !fields.contains("\"topics\""),
        "{plans}"
    );
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(
        told.contains("line 5: `tasks.max = 4` is not taken over"),
        "{told}"
    );

    // Removed: read-only, told of, and not begun again by a file.
    for _ in 0..2 {
        let removed = world.mesh.west.ask(&["mirror", "remove", FLOW])?;
        ensure!(removed["topics"].to_string().contains("east.a\""), "{removed}");
    }
    let refused = load::numbered_batch(Codec::None, None, 0, 0)?;
    ensure!(world.west.append("east.a", 0, refused).is_err());
    // What was on its way arrives; a daemon that starts begins nothing.
    world.restart()?;
    let end = world.write("a")?;
    world.restart()?;
    let status = world.mesh.status()?;
    ensure!(status["state"] == "removed", "{status}");
    ensure!(world.west.end("east.a", 0)? < end);
    let unknown = program::run(&["mirror", "remove", "north->west", "--url", &url])?;
    ensure!(String::from_utf8_lossy(&unknown.stderr).contains("no flow `north->west`"));

    // Declared again it goes on where its topics stand.
    let (well, printed) = world.verb("apply", &["--force"])?;
    ensure!(well, "{printed}");
    world.wait_end("east.a", end)
}
