//! The tradewind program: one binary for daemon, command line and demo.
//!
//! `main` only sets up what must be there before anything else; [`cli`] reads the command line and goes on from there.
//! A daemon's life is in [`boot`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod boot;
mod cli;
mod clock;
mod config;
mod connection;
mod demo;
mod flows;
mod gauges;
mod guard;
mod http;
mod listener;
mod logging;
mod metrics;
mod notify;
mod regions;
mod service;
mod signals;
mod target;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
