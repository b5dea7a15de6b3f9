//! `farseek config`.

use anyhow::Result;
use clap::Args;

use crate::app::App;
use crate::args::JsonArgs;

const EXAMPLES: &str = "\
Examples:
  farseek config
  FARSEEK_READER_STALL_SECONDS=5 farseek config

Read, later ones over earlier ones: SPFS's own files (/etc/spfs.*, ~/.config/spfs/spfs.*) and
SPFS_* variables, /etc/farseek.toml, ~/.config/farseek/farseek.toml, FARSEEK_* variables.";

/// `farseek config`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConfigArgs {
    // It is JSON anyway; scripts may say so.
    #[command(flatten)]
    _json: JsonArgs,
}

/// Prints the effective configuration, without secrets.
pub(crate) fn run(_args: ConfigArgs, app: &mut App) -> Result<()> {
    let config = app.config.redacted();
    app.output.json(&config)
}
