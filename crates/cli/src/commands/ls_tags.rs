//! `farseek ls-tags`.

use anyhow::Result;
use clap::Args;
use farseek_store::{RepositoryExt as _, TagEntry};

use crate::app::App;
use crate::args::RepositoryArgs;
use crate::exit::Failure;

const EXAMPLES: &str = "\
Examples:
  farseek ls-tags
  farseek ls-tags tools --recursive";

/// `farseek ls-tags`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LsTagsArgs {
    /// The folder to list
    #[arg(default_value = "/")]
    path: String,
    /// List every tag below it
    #[arg(long)]
    recursive: bool,
    #[command(flatten)]
    repository: RepositoryArgs,
}

/// One line an entry; folders end in a slash.
pub(crate) async fn run(args: LsTagsArgs, app: &mut App) -> Result<()> {
    let folder = args.path.trim_matches('/');
    let repository = app.repository(args.repository.remote.as_deref()).await?;
    if args.recursive {
        let names = repository.walk_tags(folder).await?;
        return names.iter().try_for_each(|name| app.output.line(name));
    }
    let entries = repository.list_tags(folder).await?;
    if entries.is_empty() && !folder.is_empty() {
        let message = format!("{} has no folder of tags '{folder}'", repository.location());
        return Err(Failure::not_found(message));
    }
    for entry in entries {
        match entry {
            TagEntry::Folder(name) => app.output.line(format_args!("{name}/"))?,
            TagEntry::Tag(name) => app.output.line(name)?,
            TagEntry::Namespace(name) => app.output.line(format_args!("{name}#ns"))?,
        }
    }
    Ok(())
}
