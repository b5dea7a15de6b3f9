//! `farseek tag`.

use anyhow::{Result, bail};
use clap::Args;
use farseek_object::{Reference, TagName, TagSpec};
use farseek_store::RepositoryExt as _;

use crate::app::App;
use crate::args::RepositoryArgs;
use crate::exit::Failure;

const EXAMPLES: &str = "\
Examples:
  farseek tag tools/python tools/python-stable
  farseek tag QZ6LL4L4T4 tools/python tools/latest
  farseek tag tools/python~1 tools/python        # back to the version before";

/// `farseek tag`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TagArgs {
    /// What to tag: a tag, a digest or the beginning of one
    target: Reference,
    /// The tags that shall name it
    #[arg(required = true)]
    tags: Vec<TagSpec>,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
}

/// Pushes each tag.
pub(crate) async fn run(args: TagArgs, app: &mut App) -> Result<()> {
    let names = writable_names(&args.tags)?;
    let repository = app.repository(args.repository.remote.as_deref()).await?;
    let target = repository.resolve(&args.target).await?;
    let is_there = repository.refresh_object(&target).await?;
    for name in names {
        let tag = repository
            .push_tag(&name, &target, &app.config.signature())
            .await?;
        if tag.target != target {
            bail!("the tag '{name}' was changed by someone else meanwhile");
        }
        // A clean that did not see the tag may have been about to remove what it names.
        if is_there && !repository.has_object(&target).await? {
            repository.remove_tag(&tag).await?;
            bail!("{target} was cleaned away before '{name}' could name it");
        }
        app.output.line(format_args!("{name} -> {target}"))?;
    }
    Ok(())
}

/// The names of tags that are to be written: only the newest version can be.
pub(crate) fn writable_names(tags: &[TagSpec]) -> Result<Vec<TagName>> {
    let name = |tag: &TagSpec| match tag.version {
        0 => Ok(tag.name.clone()),
        _ => Err(Failure::usage(format!(
            "'{tag}' is a version of the past and cannot be written; use '{}'",
            tag.name
        ))),
    };
    tags.iter().map(name).collect()
}
