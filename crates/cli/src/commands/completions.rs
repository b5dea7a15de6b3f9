//! `farseek completions`.

use anyhow::Result;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::app::App;
use crate::args::Cli;

const EXAMPLES: &str = "\
Examples:
  farseek completions bash > ~/.local/share/bash-completion/completions/farseek
  farseek completions fish > ~/.config/fish/completions/farseek.fish";

/// `farseek completions`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell to complete in
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: CompletionsArgs, app: &mut App) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "farseek", &mut script);
    app.output.bytes(&script)
}
