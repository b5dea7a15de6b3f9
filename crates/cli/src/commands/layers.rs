//! `farseek layers` and `farseek platforms`.

use anyhow::Result;
use clap::Args;
use farseek_object::ObjectKind;

use crate::app::App;
use crate::args::RepositoryArgs;
use crate::stored::{self, StoredArgs};

const EXAMPLES: &str = "\
Examples:
  farseek layers --tags
  farseek platforms --short --remote tar:/srv/packed.tar
  farseek platforms --tags --json";

/// `farseek layers` and `farseek platforms`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct KindArgs {
    #[command(flatten)]
    shown: StoredArgs,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
}

/// One line an object of the kind.
pub(crate) async fn run(kind: ObjectKind, args: KindArgs, app: &mut App) -> Result<()> {
    stored::list(kind, &args.shown, &args.repository, app).await
}
