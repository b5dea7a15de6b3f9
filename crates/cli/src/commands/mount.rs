//! `farseek mount`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use farseek_object::EnvSpec;
use farseek_reader::ReaderOptions;
use farseek_runtime::daemon::Background;
use farseek_runtime::record::{Host, Keeper, PruneOptions};
use farseek_runtime::{MountRequest, MountpointOptions, mount};
use serde_json::json;

use crate::app::{App, spawn_in_background};
use crate::args::JsonArgs;
use crate::exit::{self, Failure};
use crate::metrics::{self, Listening};
use crate::output::note;
use crate::reading::ReadingArgs;
use crate::signals::{Signals, end};
use crate::size;
use crate::sources::{SourceArgs, Sources};
use crate::specs;
use crate::stats::{self, Report};

const EXAMPLES: &str = "\
Examples:
  farseek mount tools/python /mnt/python
  farseek mount --remote https://packages.example/repo tools/python+project/extra /mnt/env
  farseek mount --foreground --no-local -r origin -vv tools/python /mnt/python

Looked at in this order: the local repository (unless --no-local), then the remotes. It goes to
the background once the mount answers; `farseek unmount MOUNTPOINT` ends it.";

/// How long the process goes on after its mount to put away what it has fetched.
const TO_SETTLE: Duration = Duration::from_secs(5);

/// `farseek mount`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MountArgs {
    /// A tag, a digest, or several joined by '+', the topmost last
    #[arg(value_name = "REF")]
    reference: EnvSpec,
    /// An empty directory
    mountpoint: PathBuf,
    /// Stay in the foreground; interrupt to unmount
    #[arg(short, long)]
    foreground: bool,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    reading: ReadingArgs,
    #[command(flatten)]
    advanced: AdvancedArgs,
}

/// What rarely needs to be set.
#[derive(Debug, Args)]
#[command(next_help_heading = "Advanced")]
struct AdvancedArgs {
    /// Mount over a directory that is not empty
    #[arg(long)]
    nonempty: bool,
    /// Let other users in, as permissions allow (the default for root)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    allow_other: Option<bool>,
    /// Threads that answer the kernel
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..1024))]
    threads: Option<u64>,
    /// Do not let the kernel read local files by itself
    #[arg(long)]
    no_passthrough: bool,
    /// Tell a monitoring system what the mount does, at http://ADDR/metrics: a port on loopback,
    /// or an address with its port
    #[arg(long, value_name = "ADDR")]
    metrics: Option<String>,
}

/// Mounts, and serves the mount here or in the background.
pub(crate) async fn run(args: MountArgs, app: &mut App) -> Result<()> {
    overlay(&args, app)?;
    if !args.foreground && !app.in_background {
        let pid = spawn_in_background(&args.mountpoint, &[]).await?;
        let mountpoint = args.mountpoint.canonicalize();
        let mountpoint = mountpoint.unwrap_or_else(|_| args.mountpoint.clone());
        return announce(&args, app, &mountpoint, pid);
    }
    let mut signals = Signals::listen()?;
    let listening = listen(&args).await?;
    let sources = args.sources.open(app).await?;
    let spec = specs::mountable(&args.reference).await?;
    let request = request(&args, spec, app, &sources)?;
    let background = match app.in_background {
        true => Some(Background::enter(app.config.log.file.as_deref())?),
        false => None,
    };
    let reaping = tokio::spawn(reap(request.keeper.clone(), app.environment.runtimes_dir()));
    let from = sources.repository.location().to_owned();
    let limits = in_words(&request.reader);
    let mut mounted = signals.mounted(mount(sources.repository, request)).await?;
    let reference = mounted.take_reference();
    let mountpoint = mounted.mount().mountpoint().to_owned();
    let at = mountpoint.display();
    tracing::info!("mounted {} at {at}, read from {from}", args.reference);
    tracing::info!("{limits}");
    let vfs = Arc::downgrade(mounted.vfs());
    let metrics = move || {
        // While the mount ends, somebody may still ask.
        let report = vfs.upgrade();
        let report = report.map(|vfs| Report::of(&vfs.stats(), &vfs.reader().stats()));
        report.unwrap_or_default().prometheus()
    };
    let _endpoint = listening.map(|listening| listening.serve(metrics));
    let told = match background {
        Some(background) => background.ready().map_err(Into::into),
        None => {
            announce(&args, app, &mountpoint, std::process::id()).and_then(|()| app.output.finish())
        }
    };
    let reader = mounted.vfs().reader().clone();
    let served = match told {
        Ok(()) => signals.serve(mounted).await,
        // Nobody knows of it.
        Err(error) => {
            end(mounted).await;
            Err(error)
        }
    };
    if let Some(reference) = reference {
        reference.release().await;
    }
    reaping.abort();
    // What has been fetched is to stay: it may still be on its way to the disk.
    tokio::time::timeout(TO_SETTLE, reader.settle()).await.ok();
    match &served {
        Ok(()) => tracing::info!("unmounted {at}"),
        Err(error) => tracing::info!("{at} ended: {}", exit::message(error)),
    }
    served
}

/// Removes, in its own time, records that mounts of this user have left which were killed.
async fn reap(keeper: Option<Keeper>, root: PathBuf) {
    let (Some(Keeper { runtimes, user }), Ok(here)) = (keeper, Host::current()) else {
        return;
    };
    let options = PruneOptions {
        user: Some(user),
        records_only: true,
        root: Some(root),
        ..PruneOptions::default()
    };
    match runtimes.prune(&here, &options).await {
        Ok(pruned) if !pruned.removed.is_empty() => {
            tracing::info!(
                "removed records of ended mounts: {}",
                pruned.removed.join(" ")
            );
        }
        Ok(_) => {}
        Err(error) => tracing::debug!("no record was pruned: {error}"),
    }
}

/// What is logged of a reader's options.
fn in_words(limits: &ReaderOptions) -> String {
    let disk = match &limits.disk {
        Some(disk) => format!(
            "disk cache {} up to {}",
            disk.directory.display(),
            size::human(disk.max_bytes)
        ),
        None => "no disk cache".to_owned(),
    };
    format!(
        "blocks of {}, files up to {} whole, memory {}, verify {:?}, promote {:?} {}, \
         readahead {} of {}, {} requests at once, stall {:?}, {disk}",
        size::human(limits.block_size.bytes()),
        size::human(limits.whole_fetch_max_bytes),
        size::human(limits.blob_cache_max_bytes),
        limits.verify,
        limits.promote,
        match limits.local {
            Some(_) => "into the local repository",
            None => "nowhere",
        },
        size::human(limits.readahead_max_bytes),
        size::human(limits.readahead_budget_bytes),
        limits.max_fetches,
        limits.stall,
    )
}

/// Listens before anything is mounted, so that an address that is taken is told at once.
async fn listen(args: &MountArgs) -> Result<Option<Listening>> {
    let Some(address) = &args.advanced.metrics else {
        return Ok(None);
    };
    let listening = metrics::listen(address).await?;
    let address = listening.address();
    note(format_args!("metrics at http://{address}/metrics"));
    if !address.ip().is_loopback() {
        note(format_args!(
            "warning: {address} is not loopback: whoever can connect can see what is read"
        ));
    }
    Ok(Some(listening))
}

/// Flags lie over the configuration.
fn overlay(args: &MountArgs, app: &mut App) -> Result<()> {
    if let Some(threads) = args.advanced.threads {
        app.config.fuse.worker_threads = usize::try_from(threads)?;
    }
    app.config.fuse.passthrough &= !args.advanced.no_passthrough;
    args.reading.overlay(&mut app.config)
}

fn announce(args: &MountArgs, app: &mut App, mountpoint: &Path, pid: u32) -> Result<()> {
    let reference = args.reference.to_string();
    if args.json.json {
        let mountpoint = mountpoint.to_string_lossy();
        return app.output.json(&json!({
            "reference": reference, "mountpoint": mountpoint, "pid": pid,
        }));
    }
    app.output.line(format_args!(
        "mounted {reference} at {}",
        mountpoint.display()
    ))
}

fn request(args: &MountArgs, spec: EnvSpec, app: &App, sources: &Sources) -> Result<MountRequest> {
    // The background process works in another directory.
    let mountpoint = std::path::absolute(&args.mountpoint)
        .map_err(|_| Failure::usage("the mount point is empty: say which directory"))?;
    Ok(MountRequest {
        mountpoint_options: MountpointOptions {
            allow_nonempty: args.advanced.nonempty,
        },
        reader: ReaderOptions {
            // One thread is left for what is in memory.
            reads_here: app.config.fuse.worker_threads.saturating_sub(1),
            ..app.reader_options(sources)?
        },
        allow_other: args.advanced.allow_other,
        threads: Some(app.config.fuse.worker_threads),
        passthrough: app.config.fuse.passthrough,
        keeper: keeper(app, sources)?,
        stats: Some(stats::text(&sources.repository)),
        ..MountRequest::new(spec, mountpoint)
    })
}

/// What keeps the mount's files from being cleaned. Without a local repository none becomes local.
fn keeper(app: &App, sources: &Sources) -> Result<Option<Keeper>> {
    let runtimes = match sources.local {
        Some(_) => app.runtimes()?,
        None => None,
    };
    let user = app.config.user.name.clone();
    Ok(runtimes.map(|runtimes| Keeper { runtimes, user }))
}
