//! `farseek tags`.

use anyhow::Result;
use clap::Args;
use farseek_store::{RepositoryExt as _, StoreError};
use serde_json::{Value, json};

use crate::app::App;
use crate::args::{JsonArgs, RepositoryArgs};

const EXAMPLES: &str = "\
Examples:
  farseek tags
  farseek tags --target --short
  farseek tags --remote origin --json";

/// `farseek tags`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TagsArgs {
    /// Also show the digest each tag names
    #[arg(long)]
    target: bool,
    /// Shorten digests
    #[arg(long)]
    short: bool,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// One line a tag.
pub(crate) async fn run(args: TagsArgs, app: &mut App) -> Result<()> {
    let repository = app.repository(args.repository.remote.as_deref()).await?;
    let names = repository.walk_tags("").await?;
    let mut list = Vec::with_capacity(names.len());
    for name in names {
        if !args.target && !args.json.json {
            app.output.line(name)?;
            continue;
        }
        let head = match repository.read_tag(&name).await {
            Ok(stream) => stream.head().cloned(),
            // Removed since it was listed.
            Err(StoreError::UnknownTag { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let Some(head) = head else { continue };
        let target = if args.short {
            head.target.short()
        } else {
            head.target.to_string()
        };
        if args.json.json {
            list.push(json!({ "tag": name.as_str(), "target": target }));
        } else {
            app.output.line(format_args!("{name} {target}"))?;
        }
    }
    if args.json.json {
        app.output.json(&Value::Array(list))
    } else {
        Ok(())
    }
}
