//! `farseek mount`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use farseek_object::EnvSpec;
use farseek_runtime::daemon::Background;
use farseek_runtime::{MountRequest, MountpointOptions, mount};
use farseek_store::{Chain, ChainOptions, Repository};
use serde_json::json;

use crate::app::{App, spawn_in_background};
use crate::args::JsonArgs;
use crate::exit::Failure;
use crate::output::note;
use crate::signals::Signals;
use crate::size;

const EXAMPLES: &str = "\
Examples:
  farseek mount tools/python /mnt/python
  farseek mount --remote https://packages.example/repo tools/python+project/extra /mnt/env
  farseek mount --foreground --no-local -r origin -vv tools/python /mnt/python

Looked at in this order: the local repository (unless --no-local), then the remotes. It goes to
the background once the mount answers; `farseek unmount MOUNTPOINT` ends it.";

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
    /// Read from this repository too: a configured name, a URL or a path. May be given several
    /// times; replaces the configured ones
    #[arg(short, long = "remote", value_name = "NAME|URL|PATH")]
    remotes: Vec<String>,
    /// Do not read from the local repository
    #[arg(long)]
    no_local: bool,
    /// Give up on a remote that has sent nothing for so long
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    stall: Option<u64>,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    advanced: AdvancedArgs,
}

/// What rarely needs to be set. Everything has its key in the configuration.
#[derive(Debug, Args)]
#[command(next_help_heading = "Advanced")]
struct AdvancedArgs {
    /// Mount over a directory that is not empty
    #[arg(long)]
    nonempty: bool,
    /// Let other users in, as permissions allow (the default for root)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    allow_other: Option<bool>,
    /// Bytes of a block: a power of two from 4K to 16M
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    block_size: Option<u64>,
    /// Memory for blocks of files
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    cache_size: Option<u64>,
    /// Files up to this size are fetched whole and verified first
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    whole_fetch_max: Option<u64>,
    /// Requests that may be under way at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..65536))]
    max_fetches: Option<u64>,
    /// Threads that answer the kernel
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..1024))]
    threads: Option<u64>,
}

/// Mounts, and serves the mount here or in the background.
pub(crate) async fn run(args: MountArgs, app: &mut App) -> Result<()> {
    overlay(&args, app)?;
    if !args.foreground && !app.in_background {
        let pid = spawn_in_background(&[]).await?;
        let mountpoint = args.mountpoint.canonicalize();
        let mountpoint = mountpoint.unwrap_or_else(|_| args.mountpoint.clone());
        return announce(&args, app, &mountpoint, pid);
    }
    let mut signals = Signals::listen()?;
    let repository = repository(&args, app).await?;
    let request = request(&args, app)?;
    let background = match app.in_background {
        true => Some(Background::enter(app.config.log.file.as_deref())?),
        false => None,
    };
    let mounted = signals.mounted(mount(repository, request)).await?;
    let mountpoint = mounted.mount().mountpoint().to_owned();
    match background {
        Some(background) => background.ready()?,
        None => {
            announce(&args, app, &mountpoint, std::process::id())?;
            app.output.finish()?;
        }
    }
    signals.serve(mounted).await
}

/// Flags lie over the configuration.
fn overlay(args: &MountArgs, app: &mut App) -> Result<()> {
    let config = &mut app.config;
    let advanced = &args.advanced;
    let set = |value: Option<u64>, at: &mut u64| *at = value.unwrap_or(*at);
    set(args.stall, &mut config.reader.stall_seconds);
    set(advanced.block_size, &mut config.reader.block_size);
    set(
        advanced.whole_fetch_max,
        &mut config.reader.whole_fetch_max_bytes,
    );
    set(advanced.cache_size, &mut config.fuse.blob_cache_max_bytes);
    if let Some(fetches) = advanced.max_fetches {
        config.reader.max_fetches = usize::try_from(fetches)?;
    }
    if let Some(threads) = advanced.threads {
        config.fuse.worker_threads = usize::try_from(threads)?;
    }
    config
        .check()
        .map_err(|error| Failure::usage(error.to_string()))
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

fn request(args: &MountArgs, app: &App) -> Result<MountRequest> {
    // The background process works in another directory.
    let mountpoint = std::path::absolute(&args.mountpoint)
        .map_err(|_| Failure::usage("the mount point is empty: say which directory"))?;
    Ok(MountRequest {
        mountpoint_options: MountpointOptions {
            allow_nonempty: args.advanced.nonempty,
        },
        reader: app.reader_options()?,
        allow_other: args.advanced.allow_other,
        threads: Some(app.config.fuse.worker_threads),
        ..MountRequest::new(args.reference.clone(), mountpoint)
    })
}

/// The repositories the mount reads, in order, as one.
async fn repository(args: &MountArgs, app: &App) -> Result<Arc<dyn Repository>> {
    let mut members: Vec<Arc<dyn Repository>> = Vec::new();
    if !args.no_local {
        members.extend(app.local()?);
    }
    let mut refused = None;
    let by_name = !args.remotes.is_empty();
    let remotes = match by_name {
        true => &args.remotes,
        false => &app.config.filesystem.secondary_repositories,
    };
    for remote in remotes {
        match app.remote_of(remote, remotes.len()).await {
            Ok(remote) => members.push(remote),
            Err(error) if by_name => return Err(error),
            // A remote nobody asked for by name must not keep the others from being used.
            Err(error) => refused = Some(error),
        }
    }
    let mut members = members.into_iter();
    let (first, rest) = (members.next(), members.collect::<Vec<_>>());
    match (first, refused) {
        (None, Some(error)) => Err(error),
        (None, None) => Err(nothing_to_read(args, app)),
        (Some(first), refused) => {
            if let Some(error) = refused {
                note(format_args!(
                    "warning: left out: {}",
                    crate::exit::message(&error)
                ));
            }
            if rest.is_empty() {
                return Ok(first);
            }
            let options = ChainOptions {
                include_secondary_tags: app.config.fuse.include_secondary_tags,
                ..ChainOptions::default()
            };
            Ok(Arc::new(Chain::new(first, rest, options)))
        }
    }
}

fn nothing_to_read(args: &MountArgs, app: &App) -> anyhow::Error {
    let root = app.config.storage.root.display();
    let local = if args.no_local {
        "--no-local leaves out the local repository".to_owned()
    } else {
        format!("there is no local repository at {root} yet")
    };
    Failure::not_found(format!(
        "there is no repository to read from: {local}, and no remote is given or configured; \
         say which with --remote NAME|URL|PATH"
    ))
}
