//! A flow, or one topic of it, stands still: nothing is copied, no position is moved, any restart keeps it; then it goes on
//! at the same offset. Also failed over while it stands.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tradewind_tests::{Kafka, Mesh, Naming, load, program, wait};
use tradewind_wire::compression::Codec;

const FLOW: &str = "east->west";
const GROUP: &str = "billing";

struct World {
    mesh: Mesh,
    east: Kafka,
    west: Kafka,
    written: u64,
}

impl World {
    /// One more batch in both topics, and the group at the end of both.
    fn write(&mut self) -> Result<()> {
        let id = self.east.producer_id()?;
        let mut end = 0;
        for topic in ["a", "b"] {
            let batch = load::numbered_batch(Codec::Zstd, Some(id), 0, self.written)?;
            wait::until("a batch is written", 30, || {
                self.east.append(topic, 0, batch.clone()).map(Some)
            })?;
            end = self.east.end(topic, 0)?;
            wait::until("a position is committed", 30, || {
                self.east.commit(GROUP, topic, &[(0, end)]).map(Some)
            })?;
        }
        self.written = u64::try_from(end)?;
        Ok(())
    }

    /// The mirror's end and the group's position there.
    fn here(&mut self, topic: &str) -> Result<(i64, i64)> {
        let mirrored = self.mesh.naming.mirrored(topic);
        let end = self.west.end(&mirrored, 0)?;
        let committed = self.west.committed(GROUP, &mirrored, 1)?;
        Ok((end, committed[0]))
    }

    fn wait_even(&mut self, topic: &str) -> Result<()> {
        let end = self.east.end(topic, 0)?;
        wait::until_true("topic and group are as at the source", 30, || {
            let here = self.here(topic)?;
            ensure!(here == (end, end), "{here:?}, not {end}");
            Ok(true)
        })
    }

    fn verb(&self, verb: &str, more: &[&str]) -> Result<Value> {
        self.mesh.west.ask(&[&["mirror", verb, FLOW], more].concat())
    }
}

#[test]
fn what_is_paused_stands_still_and_goes_on_where_it_stood() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mesh = Mesh::start(folder.path(), 1, Naming::Prefix)?;
    let (east, west) = (mesh.east.kafka(), mesh.west.kafka());
    let mut world = World {
        mesh,
        east,
        west,
        written: 0,
    };
    for topic in ["a", "b"] {
        world.east.create_topic(topic, 1, &[])?;
    }
    world.write()?;
    world.mesh.wait_mirrored(2, 60)?;
    world.wait_even("a")?;
    let before = (world.here("a")?, world.here("b")?);

    // The whole flow, twice, and through a crash.
    world.verb("pause", &["--reason", "maintenance"])?;
    world.verb("pause", &["--reason", "again"])?;
    world.write()?;
    world.mesh.west.kill_all();
    world.mesh.west.start_all()?;
    let status = wait::until("the source's news are known", 30, || {
        let status = world.mesh.status()?;
        Ok((status["lag_records"].as_i64() > Some(0)).then_some(status))
    })?;
    ensure!(
        status["state"] == "paused" && status["paused"][0]["reason"] == "maintenance",
        "{status}"
    );
    ensure!(
        status["paused"][0]["since_ms"].as_i64() > Some(1_700_000_000_000),
        "{status}"
    );
    let now = wait::until("groups are loaded", 30, || {
        Ok(Some((world.here("a")?, world.here("b")?)))
    })?;
    ensure!(now == before, "{now:?}, before {before:?}");
    world.verb("resume", &[])?;
    world.verb("resume", &[])?;
    world.wait_even("a")?;
    world.wait_even("b")?;

    // One topic, by its name at the source; the other goes on.
    let a = world.here("a")?;
    world.verb("pause", &["--topic", "a"])?;
    world.write()?;
    world.wait_even("b")?;
    ensure!(world.here("a")? == a, "a paused topic has moved");
    let status = world.mesh.status()?;
    ensure!(
        status["state"] == "active" && status["paused"][0]["topic"] == "east.a",
        "{status}"
    );
    ensure!(
        status["groups"]["exact"] == 1 && status["groups"]["total"] == 2,
        "{status}"
    );
    world.verb("resume", &["--topic", "east.a"])?;
    world.wait_even("a")?;
    let url = world.mesh.west.daemons[0].url();
    for wrong in [
        ["mirror", "pause", "north->west", "--url", &url].as_slice(),
        &["mirror", "pause", FLOW, "--topic", "c", "--url", &url],
    ] {
        ensure!(!program::run(wrong)?.status.success(), "{wrong:?}");
    }

    // Failed over while it stands: at what is here, and the report says so.
    let a = world.here("a")?;
    world.verb("pause", &[])?;
    world.write()?;
    let report = world.mesh.fail_over()?;
    ensure!(report["paused"][0]["topic"].is_null(), "{report}");
    let cut = report["topics"]
        .as_array()
        .and_then(|all| all.iter().find(|topic| topic["topic"] == "east.a"))
        .map(|topic| topic["partitions"][0]["cut"].clone())
        .with_context(|| format!("no cut of east.a in {report}"))?;
    ensure!(cut == a.0, "{cut}, not {}", a.0);
    let batch = load::numbered_batch(Codec::None, None, 0, 0)?;
    ensure!(world.west.append("east.a", 0, batch)? == a.0);
    ensure!(
        !program::run(&["mirror", "resume", FLOW, "--url", &url])?
            .status
            .success()
    );
    Ok(())
}
