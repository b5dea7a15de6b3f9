//! `farseek ls-tags`.

use anyhow::Result;
use clap::Args;
use farseek_store::{RepositoryExt as _, TagEntry};

use crate::app::App;
use crate::args::{JsonArgs, RepositoryArgs};
use crate::exit::Failure;

const EXAMPLES: &str = "\
Examples:
  farseek ls-tags
  farseek ls-tags tools --recursive
  farseek ls-tags --json";

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
    pub(crate) repository: RepositoryArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// One line an entry, or one string an entry in JSON; folders end in a slash.
pub(crate) async fn run(args: LsTagsArgs, app: &mut App) -> Result<()> {
    let folder = args.path.trim_matches('/');
    let repository = app.repository(args.repository.remote.as_deref()).await?;
    let lines: Vec<String> = match args.recursive {
        true => {
            let names = repository.walk_tags(folder).await?;
            names.iter().map(ToString::to_string).collect()
        }
        false => {
            let entries = repository.list_tags(folder).await?;
            if entries.is_empty() && !folder.is_empty() {
                let message = format!("{} has no folder of tags '{folder}'", repository.location());
                return Err(Failure::not_found(message));
            }
            entries.iter().map(line).collect()
        }
    };
    if args.json.json {
        return app.output.json(&lines);
    }
    lines.iter().try_for_each(|line| app.output.line(line))
}

fn line(entry: &TagEntry) -> String {
    match entry {
        TagEntry::Folder(name) => format!("{name}/"),
        TagEntry::Tag(name) => name.to_string(),
        TagEntry::Namespace(name) => format!("{name}#ns"),
    }
}
