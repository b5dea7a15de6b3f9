//! `farseek push`.

use anyhow::Result;
use clap::Args;

use crate::app::App;
use crate::transfer::{self, TransferArgs};

const EXAMPLES: &str = "\
Examples:
  farseek push tools/python                       # to the remote 'origin'
  farseek push tools/python --sync                # also where the tag is there already
  farseek push tools/python QZ6LL4L4T4 --to /srv/repository

It may be interrupted: what has arrived stays, and the next time the rest is copied.";

/// `farseek push`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PushArgs {
    /// Copy from this repository instead of the local one: a configured name, a URL or a path
    #[arg(long, value_name = "NAME|URL|PATH")]
    from: Option<String>,
    /// Copy to this repository instead of 'origin'
    #[arg(
        short = 'r',
        long,
        visible_alias = "remote",
        value_name = "NAME|URL|PATH"
    )]
    to: Option<String>,
    #[command(flatten)]
    pub(crate) transfer: TransferArgs,
}

/// Copies from the local repository to a remote.
pub(crate) async fn run(args: PushArgs, app: &mut App) -> Result<()> {
    let from = app.repository(args.from.as_deref()).await?;
    let to = transfer::remote(app, args.to.as_deref(), "--to").await?;
    transfer::run(args.transfer, app, "pushing", from, to, false).await
}
