//! Logs through `tracing`: to the standard error, or appended to a file.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Mutex;

use anyhow::Result;
use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;
use crate::exit::{Code, Failure};

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
    let filter = EnvFilter::try_new(directive).map_err(|error| {
        Failure::usage(format!(
            "log.filter: '{directive}' is not a log filter: {error}"
        ))
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(verbosity > 1);
    match config.file.as_deref() {
        None => builder.with_writer(std::io::stderr).without_time().init(),
        Some(path) => {
            let file = open(path)?;
            builder
                .with_writer(Mutex::new(file))
                .with_ansi(false)
                .init();
        }
    }
    Ok(())
}

/// That its directory is not there does not mean that what the command is asked for is not.
fn open(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|error| {
        let code = match error.kind() {
            ErrorKind::PermissionDenied => Code::Denied,
            _ => Code::Other,
        };
        let path = path.display();
        Failure::error(code, format!("cannot write the log file {path}: {error}"))
    })
}
