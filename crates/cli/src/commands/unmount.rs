//! `farseek unmount`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
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
    let unmounting = tokio::task::spawn_blocking(move || unmount(&args.mountpoint, detach));
    let path = unmounting.await.context("unmounting was given up")??;
    app.output
        .line(format_args!("unmounted {}", path.display()))
}
