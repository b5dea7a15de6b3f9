//! `farseek layers`.

use anyhow::Result;
use clap::Args;
use farseek_object::ObjectKind;

use crate::app::App;
use crate::args::RepositoryArgs;
use crate::stored::{self, StoredArgs};

const EXAMPLES: &str = "\
Examples:
  farseek layers --tags
  farseek layers --short --remote tar:/srv/packed.tar
  farseek layers --tags --json";

/// `farseek layers`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LayersArgs {
    #[command(flatten)]
    shown: StoredArgs,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
}

/// One line a layer.
pub(crate) async fn run(args: LayersArgs, app: &mut App) -> Result<()> {
    stored::list(ObjectKind::Layer, &args.shown, &args.repository, app).await
}
