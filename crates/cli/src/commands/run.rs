//! `farseek run`.
//!
//! Two processes run this command: the front, which is the one the person started, and the host,
//! which the front starts: see [`farseek_runtime::run`].

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use farseek_object::{EnvItem, EnvSpec, TagName};
use farseek_runtime::daemon::Background;
use farseek_runtime::record::{self, PruneOptions, RuntimeRecord, Runtimes};
use farseek_runtime::run::{Entrance, Front, Host, HostRequest, Started};
use farseek_runtime::startup::{self, Words};
use farseek_runtime::{LiveLayer, MountRequest, Upper};
use farseek_store::Repository;
use nix::unistd::getuid;
use tokio::task::JoinHandle;

use crate::active::{KEPT, VARIABLE};
use crate::annotations::{self, AnnotationArgs};
use crate::app::App;
use crate::args::IN_BACKGROUND;
use crate::exit::{self, AlreadyTold, Failure};
use crate::output::note;
use crate::reading::ReadingArgs;
use crate::rendering::{BackendName, backend};
use crate::signals::{Signals, interrupted};
use crate::sources::SourceArgs;
use crate::specs;
use crate::stats;

const EXAMPLES: &str = "\
Examples:
  farseek run tools/python -- python3 -c 'print(1)'
  farseek run --edit tools/python -- make install      # /spfs can be written to
  farseek run - -- sh                                   # an empty environment, to be filled

The command has the environment at /spfs; nobody else sees it. It needs no privilege. What it
leaves in the background keeps the environment; it is gone with the last of it.

An item of REF may be the absolute path of a spec file, or of a directory with a layer.spfs.yaml: a
live layer shows files beside it as they are, a run spec stands for the items it lists.";

/// How long those may go on who are in the runtime when the host is asked to end.
const GRACE: Duration = Duration::from_secs(10);

/// `farseek run`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// A tag, a digest, the absolute path of a spec file, or several joined by '+', the topmost
    /// last; '-' for nothing
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
    annotations: AnnotationArgs,
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
    process.envs(words.variables.iter().cloned());
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
    Ok(after_scripts(Words::new(program, command), at, app))
}

/// What executes `command` after the startup scripts that are written for the user's shell; where
/// there are none for `csh`, after those for others.
fn after_scripts(command: Words, at: &Path, app: &App) -> Words {
    let shell = app.environment.variable("SHELL").map(Path::new);
    let csh = shell.filter(|shell| startup::is_csh(shell) && shell.exists());
    let of_csh = startup::csh_scripts(at);
    match csh {
        Some(csh) if !of_csh.is_empty() => {
            startup::after_csh_scripts(command, &of_csh, csh, &script_shell())
        }
        _ => {
            let scripts = startup::scripts(at);
            startup::after_scripts(command, scripts.as_deref(), &script_shell())
        }
    }
}

/// The user's shell.
fn interactive(at: &Path, startup_file: Option<&Path>, app: &App) -> Result<Words> {
    let shell = match app.environment.variable("SHELL") {
        Some(shell) => PathBuf::from(shell),
        None => script_shell(),
    };
    let Some(startup_file) = startup_file else {
        return Ok(after_scripts(
            Words::new(&shell, [] as [OsString; 0]),
            at,
            app,
        ));
    };
    // One that is given a script reads no startup file.
    if startup::is_bash(&shell) && io::stdin().is_terminal() {
        let text = startup::startup_file(&startup::scripts_path(at), &preserved(app));
        write(startup_file, &text)?;
        return Ok(startup::interactive(&shell, startup_file));
    }
    let of_csh = startup::csh_scripts(at);
    let directory = startup_file.parent().unwrap_or(Path::new("/"));
    // Scripts for others are read before it where there are no others.
    if startup::is_csh(&shell) && (!of_csh.is_empty() || startup::scripts(at).is_none()) {
        let home = app.environment.variables.get("HOME").map(String::as_str);
        let text = startup::csh_startup_file(home, &of_csh, &preserved(app));
        write(&directory.join(startup::CSH_STARTUP_FILE), &text)?;
        return Ok(startup::interactive_csh(&shell, directory));
    }
    Ok(after_scripts(
        Words::new(&shell, [] as [OsString; 0]),
        at,
        app,
    ))
}

/// The variables that a startup file sets again.
fn preserved(app: &App) -> Vec<(String, String)> {
    let names = app.config.environment.variable_names_to_preserve.iter();
    let preserved = names.filter_map(|name| {
        let value = app.environment.variables.get(name)?;
        Some((name.clone(), value.clone()))
    });
    preserved.collect()
}

fn write(startup_file: &Path, text: &str) -> Result<()> {
    std::fs::write(startup_file, text)
        .with_context(|| format!("cannot write {}", startup_file.display()))
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
    let (mut spec, live) = match &kept {
        Some(record) => (stack_of(record), live_layers(record)?),
        None => {
            let expanded = specs::expand(&args.reference).await?;
            let live = expanded.live_layers();
            (expanded.spec, live)
        }
    };
    let reference = match &kept {
        Some(_) => spec.to_string(),
        None => args.reference.to_string(),
    };
    let annotations = args.options.annotations.read()?;
    let _hold = match annotations.is_empty() {
        true => None,
        false => {
            let repository = repository_of(runtimes.as_ref())?;
            // Until the record names them.
            let hold = repository.hold().await?;
            let layers = annotations::store_layers(app, &**repository, annotations).await?;
            spec.items.extend(layers.into_iter().map(EnvItem::Digest));
            Some(hold)
        }
    };
    let mount = MountRequest {
        reader: app.reader_options(&sources)?,
        threads: Some(app.config.fuse.worker_threads),
        passthrough: app.config.fuse.passthrough,
        stats: Some(stats::text(&sources.repository)),
        list_xattrs: false,
        ..MountRequest::new(spec, args.options.at()?)
    };
    let reaping = runtimes.clone();
    let request = HostRequest {
        upper: args.options.upper(&args.reference, app),
        renders: match args.options.backend {
            BackendName::Fuse => None,
            BackendName::Renders if !live.is_empty() => {
                return Err(Failure::usage(
                    "--backend renders has no place for live layers: leave one of the two out",
                ));
            }
            BackendName::Renders => Some(backend(&sources, &args.reference, app)?),
        },
        mount,
        reference,
        live,
        kept,
        name: args.options.runtime_name.clone(),
        directories: app.environment.runtimes_dir(),
        runtimes,
        user: app.config.user.name.clone(),
        command: in_words(&args.command),
        secondary_repositories: Vec::new(),
    };
    // Given up, it sees that the front has gone and leaves nothing. A remote may take its time.
    let mut is_stopped = false;
    let stop = async {
        signals.next().await;
        is_stopped = true;
    };
    let opened = host.open(sources.repository, request, background, stop);
    let Some(mut hosted) = opened.await? else {
        return if is_stopped {
            Err(interrupted())
        } else {
            Ok(())
        };
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

/// Where what a runtime has of its own is kept.
fn repository_of(runtimes: Option<&Runtimes>) -> Result<&Arc<dyn Repository>> {
    let runtimes = runtimes.ok_or_else(|| {
        Failure::usage(
            "annotations are kept in the local repository, which is not there or not used: \
             `farseek init` makes it",
        )
    })?;
    Ok(runtimes.repository())
}

/// What was shown in a runtime.
fn live_layers(record: &RuntimeRecord) -> Result<Vec<LiveLayer>> {
    let layers = record.config.live_layers.iter().map(LiveLayer::of_record);
    Ok(layers.collect::<Result<_, _>>()?)
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
