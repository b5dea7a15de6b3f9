//! `farseek shell`.

use clap::Args;
use farseek_object::EnvSpec;

use super::run::{RunArgs, RunOptions};

const EXAMPLES: &str = "\
Examples:
  farseek shell tools/python
  farseek shell --edit tools/python       # change what is in /spfs, then `farseek commit layer`
  farseek shell                           # an empty environment, to be filled";

/// `farseek shell`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ShellArgs {
    /// A tag, a digest, the absolute path of a spec file, or several joined by '+', the topmost
    /// last; nothing where none is given
    #[arg(value_name = "REF", default_value = "-", hide_default_value = true)]
    reference: EnvSpec,
    #[command(flatten)]
    options: RunOptions,
}

impl From<ShellArgs> for RunArgs {
    /// A run without a command.
    fn from(args: ShellArgs) -> Self {
        Self {
            reference: args.reference,
            command: Vec::new(),
            options: args.options,
        }
    }
}
