//! `farseek run`.
//!
//! Two processes run this command: the front, which is the one the person started, and the host,
//! which the front starts: see [`farseek_runtime::run`].

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use farseek_object::EnvSpec;
use farseek_runtime::daemon::Background;
use farseek_runtime::record::{self, PruneOptions, Runtimes};
use farseek_runtime::run::{Entrance, Front, Host, HostRequest, Started};
use farseek_runtime::startup::{self, Words};
use farseek_runtime::{MountRequest, StatsText, Upper};
use nix::unistd::getuid;
use tokio::task::JoinHandle;

use crate::active::VARIABLE;
use crate::app::App;
use crate::args::IN_BACKGROUND;
use crate::exit::{self, AlreadyTold, Failure};
use crate::output::note;
use crate::reading::ReadingArgs;
use crate::signals::Signals;
use crate::sources::SourceArgs;
use crate::stats::Report;

const EXAMPLES: &str = "\
Examples:
  farseek run tools/python -- python3 -c 'print(1)'
  farseek run --edit tools/python -- make install      # /spfs can be written to
  farseek run - -- sh                                   # an empty environment, to be filled

The command has the environment at /spfs; nobody else sees it. It needs no privilege. What it
leaves in the background keeps the environment; it is gone with the last of it.";

/// How long those may go on who are in the runtime when the host is asked to end.
const GRACE: Duration = Duration::from_secs(10);

/// `farseek run`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// A tag, a digest, or several joined by '+', the topmost last; '-' for nothing
    #[arg(value_name = "REF")]
    pub(crate) reference: EnvSpec,
    /// The command; a shell where there is none
    #[arg(value_name = "CMD", last = true)]
    pub(crate) command: Vec<OsString>,
    #[command(flatten)]
    pub(crate) options: RunOptions,
}

/// What `run` and `shell` have in common.
#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    /// Let the environment be written to (always so for an empty one)
    #[arg(short, long, overrides_with = "no_edit")]
    edit: bool,
    /// Do not let it be written to
    #[arg(long, overrides_with = "edit")]
    no_edit: bool,
    /// The most that changes may take in memory, such as 2G or 50% of it
    #[arg(long, value_name = "SIZE", env = "SPFS_FILESYSTEM_TMPFS_SIZE", hide_env = true,
        value_parser = tmpfs_size)]
    tmpfs_size: Option<String>,
    /// Show the environment at this directory
    #[arg(long, value_name = "DIR", default_value = "/spfs")]
    at: PathBuf,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    reading: ReadingArgs,
}

impl RunOptions {
    fn upper(&self, reference: &EnvSpec) -> Option<Upper> {
        let editable = self.edit || reference.items.is_empty() && !self.no_edit;
        editable.then(|| Upper::Memory {
            size: self.tmpfs_size.clone(),
        })
    }

    fn at(&self) -> Result<PathBuf> {
        std::path::absolute(&self.at)
            .map_err(|_| Failure::usage("--at is empty: say which directory"))
    }
}

/// What tmpfs(5) takes for a size.
pub(super) fn tmpfs_size(text: &str) -> Result<String, String> {
    let digits = text.trim_end_matches(|c: char| "kKmMgG%".contains(c));
    let is_size = !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && text.len() <= digits.len() + 1;
    match is_size {
        true => Ok(text.to_owned()),
        false => Err("a size is a number with k, m, g or % after it".to_owned()),
    }
}

/// The part of the process that was started: returns only where something is in the way.
pub(crate) fn front(args: RunArgs, app: &mut App) -> Result<()> {
    let RunArgs {
        reference,
        command,
        options,
    } = args;
    let at = options.at()?;
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let shown = [OsString::from(IN_BACKGROUND), at.clone().into()];
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let front = match Front::start(&program, &shown, &arguments)? {
        Started::Ready(front) => front,
        Started::Failed(code) => return Err(AlreadyTold(code).into()),
    };
    let entrance = Entrance {
        at,
        reference: reference.to_string(),
        allow_other: getuid().is_root(),
        upper: options.upper(&reference),
    };
    let (name, startup_file) = (front.name.clone(), front.startup_file());
    let at = front.enter(&entrance)?;
    let words = words(command, &at, &startup_file, app)?;
    let mut process = process::Command::new(&words.program);
    process.args(&words.arguments).env(VARIABLE, name);
    Err(not_executed(&words, &process.exec()))
}

/// What is executed.
pub(super) fn words(
    command: Vec<OsString>,
    at: &Path,
    startup_file: &Path,
    app: &App,
) -> Result<Words> {
    let mut command = command.into_iter();
    let Some(program) = command.next() else {
        return interactive(at, startup_file, app);
    };
    let scripts = startup::scripts(at);
    let command = Words::new(program, command);
    Ok(startup::after_scripts(
        command,
        scripts.as_deref(),
        &script_shell(),
    ))
}

/// The user's shell.
fn interactive(at: &Path, startup_file: &Path, app: &App) -> Result<Words> {
    let shell = match app.environment.variable("SHELL") {
        Some(shell) => PathBuf::from(shell),
        None => script_shell(),
    };
    if startup::is_bash(&shell) {
        let text = startup::startup_file(&startup::scripts_path(at), &[]);
        std::fs::write(startup_file, text)
            .with_context(|| format!("cannot write {}", startup_file.display()))?;
        return Ok(startup::interactive(&shell, startup_file));
    }
    let scripts = startup::scripts(at);
    let shell = startup::interactive(&shell, Path::new(""));
    Ok(startup::after_scripts(
        shell,
        scripts.as_deref(),
        &script_shell(),
    ))
}

/// The shell that reads startup scripts.
fn script_shell() -> PathBuf {
    let known = ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"];
    let bash = known.into_iter().map(Path::new).find(|path| path.exists());
    bash.unwrap_or(Path::new("/bin/sh")).to_owned()
}

/// As shells tell it: 127 for a command that is not there, 126 for one that cannot be executed.
pub(super) fn not_executed(words: &Words, error: &io::Error) -> anyhow::Error {
    note(format_args!(
        "farseek: cannot run '{}': {error}",
        words.program.display()
    ));
    AlreadyTold(match error.kind() {
        io::ErrorKind::NotFound => 127,
        _ => 126,
    })
    .into()
}

/// Prepares this process for being the host, as long as it has one thread.
pub(crate) fn begin_host() -> Result<Host> {
    let host = Host::of_process()?;
    match host.detach() {
        Ok(()) => Ok(host),
        Err(error) => {
            let error = anyhow::Error::from(error);
            host.fail(exit::code(&error) as u8);
            Err(error)
        }
    }
}

/// Serves the runtime to its end.
pub(crate) async fn host(args: RunArgs, app: &mut App) -> Result<()> {
    let host = app
        .host
        .take()
        .context("this is for the background process")?;
    let served = serve(&host, args, app).await;
    if let Err(error) = &served {
        host.fail(exit::code(error) as u8);
    }
    served
}

async fn serve(host: &Host, args: RunArgs, app: &mut App) -> Result<()> {
    args.options.reading.overlay(&mut app.config)?;
    let mut signals = Signals::listen()?;
    let background = Background::enter(app.config.log.file.as_deref())?;
    let sources = args.options.sources.open(app).await?;
    let mount = MountRequest {
        reader: app.reader_options(&sources)?,
        threads: Some(app.config.fuse.worker_threads),
        passthrough: app.config.fuse.passthrough,
        stats: Some(StatsText::new(|vfs, reader| Report::of(vfs, reader).json())),
        list_xattrs: false,
        ..MountRequest::new(args.reference.clone(), args.options.at()?)
    };
    // Without a local repository no file becomes local, and nothing has to be kept.
    let runtimes = match sources.local {
        Some(_) => app.runtimes()?,
        None => None,
    };
    let reaping = runtimes.clone();
    let request = HostRequest {
        upper: args.options.upper(&args.reference),
        mount,
        name: None,
        directories: app.environment.runtimes_dir(),
        runtimes,
        user: app.config.user.name.clone(),
        command: in_words(&args.command),
        secondary_repositories: Vec::new(),
    };
    // Given up, it sees that the front has gone and leaves nothing.
    let opening = host.open(sources.repository, request, background);
    let Some(mut hosted) = opening.await? else {
        return Ok(());
    };
    tracing::info!("serving {} as {}", args.reference, hosted.record().name);
    let reaping = reaping.map(|runtimes| reap(runtimes, app));
    let ended = tokio::select! {
        ended = hosted.ended() => ended,
        () = signals.next() => tokio::select! {
            ended = hosted.ended() => ended,
            () = signals.next() => Ok(()),
            () = tokio::time::sleep(GRACE) => Ok(()),
        },
    };
    if let Some(reaping) = reaping {
        reaping.abort();
    }
    hosted.close().await;
    Ok(ended?)
}

/// Removes, in its own time, what runtimes of this user have left which were killed.
fn reap(runtimes: Runtimes, app: &App) -> JoinHandle<()> {
    let options = PruneOptions {
        user: Some(app.config.user.name.clone()),
        root: Some(app.environment.runtimes_dir()),
        ..PruneOptions::default()
    };
    tokio::spawn(async move {
        let Ok(here) = record::Host::current() else {
            return;
        };
        match runtimes.prune(&here, &options).await {
            Ok(pruned) => tracing::debug!("removed {:?}", pruned.removed),
            Err(error) => tracing::debug!("no record was pruned: {error}"),
        }
    })
}

fn in_words(command: &[OsString]) -> Vec<String> {
    let words = command.iter().map(|word| word.to_string_lossy());
    words.map(|word| word.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_what_the_kernel_takes() {
        for size in ["1", "10k", "2G", "50%"] {
            assert_eq!(tmpfs_size(size).as_deref(), Ok(size));
        }
        for size in ["", "G", "1GB", "-1", "1,mode=777", "1 G"] {
            assert!(tmpfs_size(size).is_err(), "{size}");
        }
    }
}
