//! Commands that ask a daemon over HTTP, and how: `status`, `failover`; those on flows are in `mirror`.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::json;
use tradewind_mirror::status::FailoverReport;
use tradewind_wire::clock::Clock;

use super::args::{FailoverArgs, HttpArgs};
use super::{Failure, Output, mirror, page};
use crate::clock::SystemClock;

/// `status`: exit code 1 if something needs attention.
pub(super) fn status(at: &HttpArgs, output: Output) -> Result<u8, Failure> {
    let status: serde_json::Value = get(at, "/v1/status")?;
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut lines = format!(
        "cluster {} ({})  controller {}  topics {}  partitions {}\n",
        text(&status["cluster"]),
        text(&status["cluster_id"]),
        text(&status["controller"]),
        status["topics"],
        status["partitions"],
    );
    for node in status["nodes"].as_array().into_iter().flatten() {
        lines += &format!(
            "  daemon {}  {}  {}\n",
            node["id"],
            text(&node["state"]),
            text(&node["mesh"])
        );
    }
    for flow in status["flows"].as_array().into_iter().flatten() {
        let lag = flow["lag_records"]
            .as_i64()
            .map_or_else(|| "unknown".to_owned(), |lag| lag.to_string());
        lines += &format!(
            "  flow {}  {}  lag {lag} records\n",
            text(&flow["flow"]),
            text(&flow["state"])
        );
        for paused in flow["paused"].as_array().into_iter().flatten() {
            let told = serde_json::from_value(paused.clone()).map(|paused| mirror::paused(&paused));
            lines += &format!("    {}\n", told.unwrap_or_else(|_| paused.to_string()));
        }
    }
    let attention: Vec<String> = status["attention"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect();
    for sentence in &attention {
        lines += &format!("  ! {sentence}\n");
    }
    if attention.is_empty() {
        lines += "  nothing needs attention\n";
    }
    output.text(&status, &lines)?;
    Ok(u8::from(!attention.is_empty()))
}

/// `failover`: exit code 0 when clients may write.
pub(super) fn failover(args: &FailoverArgs, output: Output) -> Result<u8, Failure> {
    if !args.accept_loss {
        return Err(Failure::Usage(
            "failover gives up every record that has not arrived here; say --accept-loss if that is meant"
                .into(),
        ));
    }
    let body = json!({ "flow": args.flow, "accept_loss": true });
    let clock = SystemClock::new();
    let begun = clock.monotonic();
    let report: FailoverReport = post(&args.at, "/v1/failover", &body, FAILOVER_TIMEOUT)?;
    let took = clock.monotonic().saturating_sub(begun);
    let mut lines = format!("flow {} is promoted: clients may write here\n", report.flow);
    for topic in &report.topics {
        for partition in &topic.partitions {
            lines += &format!(
                "  {}-{}  cut at {}",
                topic.topic, partition.partition, partition.cut
            );
            match partition.lost_records {
                Some(0) => {}
                Some(lost) => lines += &format!("  {lost} records did not arrive"),
                None => lines += "  nobody knows how many records did not arrive",
            }
            lines += "\n";
        }
    }
    for position in &report.groups {
        lines += &format!(
            "  group {}  {}-{}  at {}  {}\n",
            position.group, position.topic, position.partition, position.offset, position.status
        );
    }
    for transaction in &report.aborted {
        lines += &format!(
            "  {}-{}  aborted an open transaction of producer {}, which began at {}\n",
            transaction.topic, transaction.partition, transaction.producer_id, transaction.first_offset
        );
    }
    for open in &report.unanswered {
        lines += &format!(
            "  {}-{}  nobody says yet whether a transaction was open: it has no leader, or too few copies in sync\n",
            open.topic, open.partition
        );
    }
    for paused in &report.paused {
        lines += &format!("  {}: the source may have more\n", mirror::paused(paused));
    }
    output.text(&report, &lines)?;
    page::save(&args.page, || page::moves::failover(&report, took))?;
    Ok(0)
}

pub(super) fn get<T: DeserializeOwned>(at: &HttpArgs, path: &str) -> Result<T, Failure> {
    let url = format!("{}{path}", at.url.trim_end_matches('/'));
    read(&url, agent(QUERY_TIMEOUT).get(&url).call())
}

/// Asks for something to be done.
pub(super) fn post<T: DeserializeOwned>(
    at: &HttpArgs,
    path: &str,
    body: &serde_json::Value,
    timeout: Duration,
) -> Result<T, Failure> {
    let url = format!("{}{path}", at.url.trim_end_matches('/'));
    read(&url, agent(timeout).post(&url).send_json(body))
}

fn read<T: DeserializeOwned>(
    url: &str,
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<T, Failure> {
    let mut answer = answer.map_err(|error| anyhow::anyhow!("{url}: {error}"))?;
    if !answer.status().is_success() {
        let status = answer.status();
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        let reason = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|value| value["error"].as_str().map(str::to_owned))
            .unwrap_or(text);
        return Err(anyhow::anyhow!("{url}: {status}: {reason}").into());
    }
    Ok(answer
        .body_mut()
        .read_json()
        .map_err(|error| anyhow::anyhow!("{url}: {error}"))?)
}

fn agent(timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .build()
        .into()
}

const QUERY_TIMEOUT: Duration = Duration::from_secs(30);
/// A failover waits for every partition's leader to write down its cut.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(180);
