//! `farseek join`.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, Result};
use clap::Args;
use farseek_runtime::record::{Host, RuntimeRecord, Verdict};
use farseek_runtime::run::{STARTUP_FILE, join};
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
    let is_there = record.status.running && may_live(&record)?;
    let namespace = namespace.filter(|_| is_there).ok_or_else(|| {
        Failure::not_found(format!(
            "nobody is in the runtime {}: it cannot be joined",
            args.name
        ))
    })?;
    join(&namespace.to_string_lossy())?;
    let origin = record.farseek.as_ref();
    let at = origin.and_then(|origin| origin.mountpoint.clone());
    let at = at.unwrap_or_else(|| PathBuf::from("/spfs"));
    let startup = startup_file(&record, &app.environment.runtimes_dir());
    let words: Words = words(args.command, &at, startup, app)?;
    let mut process = process::Command::new(&words.program);
    process.args(&words.arguments).env(VARIABLE, args.name);
    process.envs(words.variables.iter().cloned());
    Err(not_executed(&words, &process.exec()))
}

/// Whether the runtime can be there: the number of a namespace means another one once it has ended,
/// or on another host.
fn may_live(record: &RuntimeRecord) -> Result<bool> {
    let (here, origin) = (Host::current()?, record.farseek.as_ref());
    let is_here = match origin {
        Some(origin) => origin.host.boot == here.boot,
        None => record.author.host_name == here.name,
    };
    Ok(is_here && here.judge(record) != Verdict::Ended)
}

/// Where a shell's startup file is to be written: a record is input, and must not say which file of
/// this user is written over. Runtimes have their directories in `directories`.
fn startup_file<'a>(record: &'a RuntimeRecord, directories: &Path) -> Option<&'a Path> {
    let file = record.config.sh_startup_file.as_path();
    let is_its_own = file.parent() == Some(&*directories.join(&record.name));
    (is_its_own && file.file_name() == Some(OsStr::new(STARTUP_FILE))).then_some(file)
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

#[cfg(test)]
mod tests {
    use farseek_runtime::record::{Kind, ProcessId};

    use super::*;

    #[test]
    fn a_record_does_not_say_which_file_is_written_over() {
        let (host, me) = (Host::current().unwrap(), ProcessId::current().unwrap());
        let mut record = RuntimeRecord::new(Some("mine"), Kind::Run, "user", host, me);
        let mut startup = |file: &str| {
            record.config.sh_startup_file = file.into();
            startup_file(&record, Path::new("/run/farseek")).map(Path::to_owned)
        };
        let own = "/run/farseek/mine/startup.sh";
        assert_eq!(startup(own), Some(own.into()));
        for file in [
            "/etc/profile",
            "startup.sh",
            "/run/farseek/startup.sh",
            "/run/farseek/mine/control",
            "/run/farseek/theirs/startup.sh",
            "/run/farseek/mine/../theirs/startup.sh",
        ] {
            assert_eq!(startup(file), None, "{file}");
        }
    }
}
