//! `farseek edit`.

use anyhow::Result;
use clap::Args;
use farseek_runtime::run::{Request, ask};

use super::run::tmpfs_size;
use crate::active::Active;
use crate::app::App;

const EXAMPLES: &str = "\
Examples:
  farseek edit            # in a runtime: its environment can be written to from now on
  farseek edit --off      # no more; what has been changed stays

Programs that run on see what was there when they opened it; change into the directory anew.";

/// `farseek edit`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EditArgs {
    /// Let it be written to no more
    #[arg(long, conflicts_with = "tmpfs_size")]
    off: bool,
    /// The most that changes may take in memory, such as 2G or 50% of it
    #[arg(long, value_name = "SIZE", env = "SPFS_FILESYSTEM_TMPFS_SIZE", hide_env = true,
        value_parser = tmpfs_size)]
    tmpfs_size: Option<String>,
}

/// Makes the runtime that this is run in editable or not.
pub(crate) async fn run(args: EditArgs, app: &mut App) -> Result<()> {
    let active = Active::find(app).await?;
    match args.off {
        // What was changed once can be committed, whether it can still be changed or not.
        true => Ok(ask(active.directory()?, &Request::Freeze)?),
        false => allow(&active, args.tmpfs_size),
    }
}

/// Lets the runtime that this is run in be written to, and changes take `size` in memory at most. Its
/// host writes it down.
pub(super) fn allow(active: &Active, size: Option<String>) -> Result<()> {
    Ok(ask(active.directory()?, &Request::Edit { size })?)
}
