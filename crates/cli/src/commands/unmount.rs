//! `farseek unmount`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use farseek_runtime::record::{Host, MountRecords};
use farseek_runtime::{Detach, unmount};

use crate::app::App;

const EXAMPLES: &str = "\
Examples:
  farseek unmount /mnt/python
  farseek unmount --lazy /mnt/python     # even while it is in use";

/// `farseek unmount`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UnmountArgs {
    /// Where the environment is mounted
    mountpoint: PathBuf,
    /// Take it away even while it is in use: what is open stays readable until it is closed
    #[arg(short, long)]
    lazy: bool,
}

/// Unmounts, and returns when it is gone.
pub(crate) async fn run(args: UnmountArgs, app: &mut App) -> Result<()> {
    let detach = if args.lazy {
        Detach::Lazily
    } else {
        Detach::WhenIdle
    };
    let records = records(app).await;
    let unmounting = tokio::task::spawn_blocking(move || unmount(&args.mountpoint, detach));
    let path = unmounting.await.context("unmounting was given up")??;
    if let Some(records) = records
        && let Err(error) = records.settle(&path, !args.lazy).await
    {
        tracing::debug!("the record of the mount may still be there: {error}");
    }
    app.output
        .line(format_args!("unmounted {}", path.display()))
}

/// The records of this host's mounts. Where there are none to be had, none is looked after.
async fn records(app: &App) -> Option<MountRecords> {
    let runtimes = app.runtimes().ok().flatten()?;
    let here = Host::current().ok()?;
    MountRecords::now(runtimes, here).await.ok()
}
