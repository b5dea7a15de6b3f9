//! `farseek run`.
//!
//! Two processes run this command: the front, which is the one the person started, and the host,
//! which the front starts: see [`farseek_runtime::run`].

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use farseek_object::{EnvItem, EnvSpec, TagName};
use farseek_runtime::daemon::Background;
use farseek_runtime::record::{self, PruneOptions, RuntimeRecord, Runtimes};
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
use crate::rendering::{BackendName, backend};
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

/// Where SPFS keeps upper directories, in the repository.
const KEPT: &str = "durable_edits";

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
    /// Keep what is changed when the runtime ends: `--rerun` goes on with it
    #[arg(short, long, visible_alias = "keep-runtime", conflicts_with_all = ["tmpfs_size", "no_edit"])]
    keep: bool,
    /// Go on with a runtime that was kept, by its name; REF is '-' then
    #[arg(long, value_name = "NAME", conflicts_with_all = ["tmpfs_size", "no_edit", "runtime_name"])]
    rerun: Option<String>,
    /// The name of the runtime, which no other may have
    #[arg(long, value_name = "NAME", value_parser = runtime_name)]
    runtime_name: Option<String>,
    /// Show the environment at this directory
    #[arg(long, value_name = "DIR", default_value = "/spfs")]
    at: PathBuf,
    /// What it is read from: a mount that fetches what is read (fuse), or directories that are made
    /// of its layers before it starts (renders)
    #[arg(long, value_name = "HOW", value_enum, default_value_t = BackendName::Fuse,
        hide_possible_values = true)]
    backend: BackendName,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    reading: ReadingArgs,
}

impl RunOptions {
    fn upper(&self, reference: &EnvSpec, app: &App) -> Option<Upper> {
        if self.keep || self.rerun.is_some() {
            return Some(Upper::Kept(app.config.storage.root.join(KEPT)));
        }
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

/// A name of a runtime is a part of a tag's, and names a directory.
fn runtime_name(text: &str) -> Result<String, String> {
    match text.parse::<TagName>() {
        Ok(_) if !text.contains('/') => Ok(text.to_owned()),
        _ => Err("a name has letters, digits, '-', '_' and '.'".to_owned()),
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
    let upper = options.upper(&reference, app);
    let entrance = Entrance {
        at,
        reference: reference.to_string(),
        allow_other: getuid().is_root(),
        upper: upper.map(|upper| upper.of_runtime(&front.name)),
        renders: options.backend == BackendName::Renders,
    };
    let (name, startup_file) = (front.name.clone(), front.startup_file());
    let at = front.enter(&entrance)?;
    let words = words(command, &at, Some(&startup_file), app)?;
    let mut process = process::Command::new(&words.program);
    process.args(&words.arguments).env(VARIABLE, name);
    Err(not_executed(&words, &process.exec()))
}

/// What is executed.
pub(super) fn words(
    command: Vec<OsString>,
    at: &Path,
    startup_file: Option<&Path>,
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
fn interactive(at: &Path, startup_file: Option<&Path>, app: &App) -> Result<Words> {
    let shell = match app.environment.variable("SHELL") {
        Some(shell) => PathBuf::from(shell),
        None => script_shell(),
    };
    // One that is given a script reads no startup file.
    if let Some(startup_file) = startup_file
        && startup::is_bash(&shell)
        && io::stdin().is_terminal()
    {
        let names = app.config.environment.variable_names_to_preserve.iter();
        let preserved = names.filter_map(|name| {
            let value = app.environment.variables.get(name)?;
            Some((name.clone(), value.clone()))
        });
        let preserved: Vec<_> = preserved.collect();
        let text = startup::startup_file(&startup::scripts_path(at), &preserved);
        std::fs::write(startup_file, text)
            .with_context(|| format!("cannot write {}", startup_file.display()))?;
        return Ok(startup::interactive(&shell, startup_file));
    }
    let scripts = startup::scripts(at);
    let shell = Words::new(&shell, [] as [OsString; 0]);
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
    let is_there = error.kind() != io::ErrorKind::NotFound && is_anywhere(&words.program);
    let why = match is_there {
        true => error.to_string(),
        false => "there is no such command".to_owned(),
    };
    let program = words.program.display();
    note(format_args!("farseek: cannot run '{program}': {why}"));
    AlreadyTold(if is_there { 126 } else { 127 }).into()
}

/// Whether a command is there: directories of the `PATH` that may not be looked into make the
/// system say that it must not be executed.
fn is_anywhere(program: &OsStr) -> bool {
    if program.as_encoded_bytes().contains(&b'/') {
        return true;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
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
    let opening = host.unless_alone(args.options.sources.open(app));
    let Some(sources) = signals.unless(opening).await? else {
        return Ok(());
    };
    // Without a local repository no file becomes local, and nothing has to be kept.
    let runtimes = match sources.local {
        Some(_) => app.runtimes()?,
        None => None,
    };
    let kept = kept(&args, runtimes.as_ref()).await?;
    let reference = kept.as_ref().map_or(args.reference.clone(), stack_of);
    let mount = MountRequest {
        reader: app.reader_options(&sources)?,
        threads: Some(app.config.fuse.worker_threads),
        passthrough: app.config.fuse.passthrough,
        stats: Some(StatsText::new(|vfs, reader| Report::of(vfs, reader).json())),
        list_xattrs: false,
        ..MountRequest::new(reference, args.options.at()?)
    };
    let reaping = runtimes.clone();
    let request = HostRequest {
        upper: args.options.upper(&args.reference, app),
        renders: match args.options.backend {
            BackendName::Fuse => None,
            BackendName::Renders => Some(backend(&sources, &args.reference, app)?),
        },
        mount,
        kept,
        name: args.options.runtime_name.clone(),
        directories: app.environment.runtimes_dir(),
        runtimes,
        user: app.config.user.name.clone(),
        command: in_words(&args.command),
        secondary_repositories: Vec::new(),
    };
    // Given up, it sees that the front has gone and leaves nothing. A remote may take its time.
    let opening = async { Ok(host.open(sources.repository, request, background).await?) };
    let Some(mut hosted) = signals.unless(opening).await? else {
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

/// The runtime that is to be run again.
async fn kept(args: &RunArgs, runtimes: Option<&Runtimes>) -> Result<Option<RuntimeRecord>> {
    let Some(name) = &args.options.rerun else {
        return Ok(None);
    };
    if !args.reference.items.is_empty() {
        return Err(Failure::usage(format!(
            "{name} has its own environment: say '-' for REF"
        )));
    }
    let runtimes =
        runtimes.context("runtimes are kept in the local repository, which is not used")?;
    let record = runtimes.load(name).await?;
    match record.config.durable {
        true => Ok(Some(record)),
        false => Err(Failure::usage(format!(
            "{name} was not kept: only what was run with --keep can be run again"
        ))),
    }
}

/// What a runtime was made of.
fn stack_of(record: &RuntimeRecord) -> EnvSpec {
    let items = record.status.stack.iter().rev().copied();
    EnvSpec {
        items: items.map(EnvItem::Digest).collect(),
    }
}

fn in_words(command: &[OsString]) -> Vec<String> {
    let words = command.iter().map(|word| word.to_string_lossy());
    words.map(|word| word.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_directory() {
        for name in ["mine", "a.b-c_9"] {
            assert_eq!(runtime_name(name).as_deref(), Ok(name));
        }
        for name in ["", ".", "..", "a/b", "a b", "a\n"] {
            assert!(runtime_name(name).is_err(), "{name:?}");
        }
    }

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
