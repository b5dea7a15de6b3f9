//! Logs through `tracing`: to the standard error, or appended to a file.

use std::fs::OpenOptions;
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;

/// Starts logging: `-v` is info, `-vv` debug, `-vvv` trace, over the configured
/// filter; `quiet` is the filter where nothing is said.
pub(crate) fn start(verbosity: u8, quiet: &str, config: &LogConfig) -> Result<()> {
    let configured = config.filter.as_deref().unwrap_or(quiet);
    let directive = match verbosity {
        0 => configured,
        1 => "info",
        2 => "debug,hyper=info,reqwest=info",
        _ => "trace",
    };
    let filter = EnvFilter::try_new(directive)
        .with_context(|| format!("log.filter: '{directive}' is not a log filter"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(verbosity > 1);
    match config.file.as_deref() {
        None => builder.with_writer(std::io::stderr).without_time().init(),
        Some(path) => {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .with_context(|| format!("cannot write the log file {}", path.display()))?;
            builder
                .with_writer(Mutex::new(file))
                .with_ansi(false)
                .init();
        }
    }
    Ok(())
}
