//! The program under test: where it is, and running one of its commands to the end.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The path of `tradewind`: `TRADEWIND_BIN` if that is set, else built now in the profile of the running test.
pub fn path() -> &'static PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        std::env::var_os("TRADEWIND_BIN").map_or_else(|| build().expect("the program builds"), PathBuf::from)
    })
}

/// Builds the program beside the running test and says where it is.
fn build() -> Result<PathBuf> {
    let me = std::env::current_exe().context("the path of the running test")?;
    // target/PROFILE/deps/test-hash, or target/PROFILE/mesh
    let profile = me
        .ancestors()
        .find(|folder| {
            folder
                .file_name()
                .is_some_and(|name| name == "debug" || name == "release")
        })
        .context("the test does not run from a target folder; set TRADEWIND_BIN")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "build",
        "--quiet",
        "-p",
        "tradewind-server",
        "--bin",
        "tradewind",
        "--target-dir",
    ]);
    cargo.arg(profile.parent().context("a target folder has a parent")?);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("cargo build")?;
    ensure!(status.success(), "cargo build: {status}");
    Ok(profile.join("tradewind"))
}

/// Runs a command to its end.
pub fn run(args: &[&str]) -> Result<Output> {
    let mut command = Command::new(path());
    command
        .args(args)
        .output()
        .with_context(|| format!("tradewind {}", args.join(" ")))
}

/// Runs a command that must succeed, and returns what it printed.
pub fn stdout(args: &[&str]) -> Result<String> {
    let output = run(args)?;
    ensure!(
        output.status.success(),
        "tradewind {}: {}: {}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a command that must succeed with `-o json`, and returns what it printed.
pub fn json(args: &[&str]) -> Result<Value> {
    let text = stdout(&[args, &["-o", "json"]].concat())?;
    serde_json::from_str(&text).with_context(|| format!("tradewind {}: not JSON: {text}", args.join(" ")))
}
