//! A wrong configuration ends the daemon with exit code 2 and a message that names the mistake, with nothing listening.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tradewind_tests::{Cluster, program, wait};

/// A prepared, valid one-daemon cluster that is not started.
fn prepared() -> Result<(TempDir, Cluster, String)> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::prepare(folder.path(), "east", 1)?;
    cluster.configure("")?;
    let text = fs::read_to_string(cluster.daemons[0].folder.join("tradewind.toml"))?;
    Ok((folder, cluster, text))
}

/// `tradewind start` with this text as its configuration, which must end by itself.
fn start(cluster: &Cluster, text: &str) -> Result<Output> {
    let file = cluster.daemons[0].folder.join("tradewind.toml");
    fs::write(&file, text)?;
    let mut child = Command::new(program::path())
        .args(["start", "--config"])
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let ended = wait::until("the daemon refuses its configuration", 20, || {
        Ok(child.try_wait()?)
    });
    if ended.is_err() {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    ended.map(|_| output)
}

/// Expects exit code 2, a message with each of `words`, and free ports.
fn refused(cluster: &Cluster, text: &str, words: &[&str]) -> Result<()> {
    let output = start(cluster, text)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(2),
        "{}, not exit code 2: {said}",
        output.status
    );
    for word in words {
        ensure!(said.contains(word), "the message does not name `{word}`: {said}");
    }
    ensure!(said.lines().count() < 20, "more a log than a message: {said}");
    let daemon = &cluster.daemons[0];
    for address in [daemon.kafka, daemon.http] {
        let refused = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1));
        ensure!(refused.is_err(), "{address} still listens");
    }
    Ok(())
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_a_suggestion() -> Result<()> {
    let (_folder, cluster, text) = prepared()?;
    let wrong = text.replace("data_dir", "data_dri");
    refused(&cluster, &wrong, &["tradewind.toml:", "data_dri", "data_dir"])
}

#[test]
fn every_mistake_is_told_at_once() -> Result<()> {
    let (_folder, cluster, text) = prepared()?;
    let wrong = text
        .replace("name = \"east\"", "nmae = \"east\"")
        .replace("data_dir", "data_dri");
    refused(&cluster, &wrong, &["nmae", "data_dri"])
}

#[test]
fn a_wrong_unit_is_named() -> Result<()> {
    let (_folder, cluster, text) = prepared()?;
    let wrong = text.replace("[node]", "[node]\ndrain_timeout = \"30 parsecs\"");
    refused(&cluster, &wrong, &["drain_timeout", "30 parsecs"])
}

#[test]
fn a_missing_certificate_is_named() -> Result<()> {
    let (_folder, cluster, text) = prepared()?;
    refused(&cluster, &text.replace("node.pem", "absent.pem"), &["absent.pem"])
}

#[test]
fn a_certificate_of_another_daemon_is_refused() -> Result<()> {
    let (_folder, cluster, text) = prepared()?;
    let mesh = cluster.daemons[0].mesh.to_string();
    let other = tradewind_tests::ports::free().to_string();
    let nodes = format!("{{ id = 2, mesh = \"{mesh}\" }}, {{ id = 1, mesh = \"{other}\" }}");
    let from = text.find("nodes = [").context("nodes")? + "nodes = [".len();
    let to = from + text[from..].find(']').context("nodes end")?;
    let wrong = format!("{}{nodes}{}", &text[..from], &text[to..]).replace("\nid = 1\n", "\nid = 2\n");
    refused(&cluster, &wrong, &["node.pem"])
}

#[test]
fn a_port_in_use_is_named() -> Result<()> {
    let (_folder, cluster, text) = prepared()?;
    let daemon = &cluster.daemons[0];
    let taken = TcpListener::bind(daemon.kafka)?;
    let output = start(&cluster, &text)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(2), "{}: {said}", output.status);
    ensure!(said.contains(&daemon.kafka.to_string()), "{said}");
    drop(taken);

    let taken = UdpSocket::bind(daemon.mesh)?;
    refused(&cluster, &text, &[&daemon.mesh.to_string()])?;
    drop(taken);
    Ok(())
}

#[test]
fn a_daemon_id_twice_is_named() -> Result<()> {
    let (_folder, cluster, text) = prepared()?;
    let mesh = tradewind_tests::ports::free();
    let wrong = text.replace(
        "nodes = [",
        &format!("nodes = [{{ id = 1, mesh = \"{mesh}\" }}, "),
    );
    refused(&cluster, &wrong, &["nodes", "1"])
}

#[test]
fn what_is_not_built_yet_is_refused_clearly() -> Result<()> {
    let (_folder, cluster, text) = prepared()?;
    let flow =
        "\n[clusters.west]\nkafka = [\"127.0.0.1:1\"]\n\n[[mirror]]\nfrom = \"west\"\noffsets = \"append\"\n";
    refused(&cluster, &(text + flow), &["append"])
}

#[test]
fn config_check_agrees_with_start() -> Result<()> {
    let (_folder, cluster, text) = prepared()?;
    let file = cluster.daemons[0].folder.join("tradewind.toml");
    let path = file.to_str().context("UTF-8")?;
    program::stdout(&["config", "check", "--config", path])?;
    fs::write(&file, text.replace("data_dir", "data_dri"))?;
    let output = program::run(&["config", "check", "--config", path])?;
    ensure!(output.status.code() == Some(2), "{}", output.status);
    Ok(())
}
