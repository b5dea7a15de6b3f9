//! `farseek pull`.

use anyhow::Result;
use clap::Args;

use crate::app::App;
use crate::transfer::{self, TransferArgs};

const EXAMPLES: &str = "\
Examples:
  farseek pull tools/python                       # from the remote 'origin'
  farseek pull tools/python --sync                # also where the tag is here already
  farseek pull base+tools/python~1 --from https://packages.example/repo

It may be interrupted: what has come stays, and the next time the rest is copied.";

/// `farseek pull`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PullArgs {
    /// Copy from this repository instead of 'origin': a configured name, a URL or a path
    #[arg(
        short = 'r',
        long,
        visible_alias = "remote",
        value_name = "NAME|URL|PATH"
    )]
    from: Option<String>,
    /// Copy to this repository instead of the local one
    #[arg(long, value_name = "NAME|URL|PATH")]
    to: Option<String>,
    #[command(flatten)]
    pub(crate) transfer: TransferArgs,
}

/// Copies from a remote to the local repository, which is made where it is not there yet.
pub(crate) async fn run(args: PullArgs, app: &mut App) -> Result<()> {
    let from = transfer::remote(app, args.from.as_deref(), "--from").await?;
    let to = app.writable(args.to.as_deref()).await?;
    // What has been mounted from here has left its objects, without its files.
    let partial = args.to.is_none();
    transfer::run(args.transfer, app, "pulling", from, to, partial).await
}
