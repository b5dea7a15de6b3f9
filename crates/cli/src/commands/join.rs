//! `farseek join`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, Result};
use clap::Args;
use farseek_runtime::record::RuntimeRecord;
use farseek_runtime::run::join;
use farseek_runtime::startup::Words;

use super::run::{not_executed, words};
use crate::active::{self, VARIABLE};
use crate::app::App;
use crate::exit::Failure;

const EXAMPLES: &str = "\
Examples:
  farseek join 6d0f… -- ls /spfs     # names are those of `farseek runtime list`
  farseek join 6d0f…                 # a shell";

/// `farseek join`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct JoinArgs {
    /// The name of the runtime
    #[arg(value_name = "RUNTIME")]
    name: String,
    /// The command; a shell where there is none
    #[arg(value_name = "CMD", last = true)]
    command: Vec<OsString>,
}

/// Enters a runtime that is there, and becomes the command. This process has one thread.
pub(crate) fn run(args: JoinArgs, app: &mut App) -> Result<()> {
    let record = load(&args.name, app)?;
    let namespace = record.config.mount_namespace.as_deref();
    let namespace = namespace.filter(|_| record.status.running).ok_or_else(|| {
        Failure::not_found(format!(
            "nobody is in the runtime {}: it cannot be joined",
            args.name
        ))
    })?;
    join(&namespace.to_string_lossy())?;
    let origin = record.farseek.as_ref();
    let at = origin.and_then(|origin| origin.mountpoint.clone());
    let at = at.unwrap_or_else(|| PathBuf::from("/spfs"));
    let startup: &Path = &record.config.sh_startup_file;
    let words: Words = words(args.command, &at, startup, app)?;
    let mut process = process::Command::new(&words.program);
    process.args(&words.arguments).env(VARIABLE, args.name);
    Err(not_executed(&words, &process.exec()))
}

/// Reads the record without leaving a thread behind.
fn load(name: &str, app: &App) -> Result<RuntimeRecord> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot wait for the repository")?;
    let record = runtime.block_on(async { Ok(active::runtimes(app)?.load(name).await?) });
    // Its threads, where it had any, have ended when this returns.
    drop(runtime);
    record
}
