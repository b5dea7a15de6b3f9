//! The `farseek` command: flags, configuration and output. What is done is done below.
//!
//! From flags to [`Config`](config::Config) to objects, in two steps. Deliberately absent: logic.

mod annotations;
mod app;
mod args;
mod commands;
mod config;
mod environment;
mod exit;
mod log;
mod metrics;
mod output;
mod progress;
mod reading;
mod signals;
mod size;
mod sources;
mod specs;
mod rendering;
mod stored;
mod active;
mod start;
mod stats;
mod transfer;
mod view;

use std::process::ExitCode;

fn main() -> ExitCode {
    exit::conclude(args::Cli::of_process().and_then(start::run))
}
