//! `farseek platforms`.

use anyhow::Result;
use clap::Args;
use farseek_object::ObjectKind;

use crate::app::App;
use crate::args::RepositoryArgs;
use crate::stored::{self, StoredArgs};

const EXAMPLES: &str = "\
Examples:
  farseek platforms --tags
  farseek platforms --short --remote tar:/srv/packed.tar
  farseek platforms --tags --json";

/// `farseek platforms`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PlatformsArgs {
    #[command(flatten)]
    shown: StoredArgs,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
}

/// One line a platform.
pub(crate) async fn run(args: PlatformsArgs, app: &mut App) -> Result<()> {
    stored::list(ObjectKind::Platform, &args.shown, &args.repository, app).await
}
