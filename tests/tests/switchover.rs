//! A region moves and moves back under load, and loses nothing: every acknowledged record is there once, in order, and no
//! group reads again what it had committed. Daemons are killed in the middle; the source is never left writable beside the
//! target.

use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail, ensure};
use tradewind_tests::moving::{BACK, Clients, FLOW, TOPIC, begin, has_left, promoted, refusal, wait_active};
use tradewind_tests::{Cluster, Mesh, load, program, wait};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;

fn back_and_forth(daemons: i32, times: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mesh = begin(folder.path(), daemons)?;
    let clients = Clients::start(&mesh);
    clients.go_on(10)?;
    let all = [(FLOW, &mesh.west, &mesh.east), (BACK, &mesh.east, &mesh.west)];
    for number in 0..times {
        let (flow, target, source) = all[number % 2];
        wait_active(target, flow)?;
        promoted(&target.ask(&["switchover", flow])?)?;
        clients.go_on(10)?;
        has_left(source)?;
        // Said again it says the same and changes nothing.
        promoted(&target.ask(&["switchover", flow])?)?;
    }
    clients.go_on(5)?;
    let seen = clients.stop()?;
    seen.ensure_changed(times as u64)?;
    let last = all[(times - 1) % 2];
    seen.holds(last.1)?;
    // What was left has become the mirror, to the last record.
    wait::until("the flow back has copied all", 60, || {
        seen.holds(last.2).map(Some)
    })
}

#[test]
fn a_region_of_one_daemon_moves_and_moves_back_under_load() -> Result<()> {
    back_and_forth(1, 3)
}

#[test]
fn a_region_of_three_daemons_moves_under_load() -> Result<()> {
    back_and_forth(3, 2)
}

/// Waits until the switchover of the flow is at one of these steps.
fn wait_step(target: &Cluster, steps: &[&str]) -> Result<String> {
    wait::until("the step is reached", 60, || {
        let status = target.ask(&["mirror", "status"])?;
        let step = status[0]["switchover"]["step"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        ensure!(steps.contains(&step.as_str()), "{status}");
        Ok(Some(step))
    })
}

/// Begins a switchover that waits for a group which stands at its beginning, and leaves it at that.
fn begin_and_hold(mesh: &Mesh) -> Result<JoinHandle<Result<std::process::Output>>> {
    mesh.east.kafka().commit("slow", TOPIC, &[(0, 0)])?;
    let url = mesh.west.daemons[0].url();
    let begun = thread::spawn(move || {
        program::run(&[
            "switchover",
            FLOW,
            "--group-drain",
            "4s",
            "--url",
            &url,
            "-o",
            "json",
        ])
    });
    wait_step(&mesh.west, &["draining"])?;
    Ok(begun)
}

#[test]
fn a_daemon_of_either_side_that_is_killed_in_the_middle_only_delays_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut mesh = begin(folder.path(), 1)?;
    let clients = Clients::start(&mesh);
    clients.go_on(10)?;
    let begun = begin_and_hold(&mesh)?;
    mesh.west.kill_all();
    // The fence outlives whoever asked for it, and its own daemon.
    mesh.east.kill_all();
    mesh.east.start_all()?;
    let batch = load::numbered_batch(Codec::None, None, 7, 0)?;
    let refused = wait::until("the source answers", 30, || {
        match mesh.east.kafka().append(TOPIC, 0, batch.clone()) {
            Ok(at) => bail!("a fenced topic took a batch at {at}"),
            Err(error) => Ok(refusal(&error)),
        }
    })?;
    ensure!(refused == ErrorCode::NotLeaderOrFollower, "{refused:?}");
    mesh.west.start_all()?;
    promoted(&wait::until("the command goes on", 30, || {
        mesh.west.ask(&["switchover", FLOW]).map(Some)
    })?)?;
    drop(begun.join());
    clients.go_on(10)?;
    has_left(&mesh.east)?;
    let seen = clients.stop()?;
    seen.ensure_changed(1)?;
    seen.holds(&mesh.west)?;
    wait::until("the flow back has copied all", 60, || {
        seen.holds(&mesh.east).map(Some)
    })
}

#[test]
fn what_is_given_up_leaves_everything_as_it_was() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mesh = begin(folder.path(), 1)?;
    let clients = Clients::start(&mesh);
    clients.go_on(10)?;
    let begun = begin_and_hold(&mesh)?;
    let report = mesh.west.ask(&["switchover", FLOW, "--abort"])?;
    ensure!(
        report["promoted"] == false && report["step"] == "aborted",
        "{report}"
    );
    let output = begun.join().ok().context("the command panicked")??;
    ensure!(output.status.code() == Some(1), "{output:?}");
    clients.go_on(10)?;
    let seen = AtomicI64::new(mesh.east.kafka().end(TOPIC, 0)?);
    wait::until_true("clients write in the east again", 30, || {
        Ok(mesh.east.kafka().end(TOPIC, 0)? > seen.load(Ordering::Relaxed))
    })?;
    // And then it is done after all.
    wait_active(&mesh.west, FLOW)?;
    promoted(&mesh.west.ask(&["switchover", FLOW])?)?;
    clients.go_on(10)?;
    clients.stop()?.holds(&mesh.west)
}

#[test]
fn what_cannot_be_switched_over_is_refused_before_anything_changes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut mesh = begin(folder.path(), 1)?;
    let url = mesh.west.daemons[0].url();
    let refused = |args: &[&str], word: &str| -> Result<()> {
        let output = program::run(&[&["switchover"], args, &["--url", &url]].concat())?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            !output.status.success() && told.contains(word),
            "{args:?}: {told}"
        );
        Ok(())
    };
    refused(&["north->west"], "no flow")?;
    refused(&[FLOW, "--abort"], "never switched over")?;
    mesh.west.ask(&["mirror", "pause", FLOW])?;
    refused(&[FLOW], "paused")?;
    mesh.west.ask(&["mirror", "resume", FLOW])?;
    mesh.forbid_fences()?;
    mesh.east.kill_all();
    mesh.east.start_all()?;
    wait_active(&mesh.west, FLOW)?;
    refused(&[FLOW], "may_fence")?;
    let status = mesh.status()?;
    ensure!(
        status["state"] == "active" && status["switchover"].is_null(),
        "{status}"
    );
    let batch = load::numbered_batch(Codec::None, None, 7, 0)?;
    wait::until("the east takes writes", 30, || {
        mesh.east.kafka().append(TOPIC, 0, batch.clone()).map(Some)
    })?;
    Ok(())
}
