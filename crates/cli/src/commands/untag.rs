//! `farseek untag`.

use anyhow::{Context as _, Result};
use clap::Args;
use farseek_object::TagSpec;
use farseek_store::{Repository, RepositoryExt as _};

use crate::app::App;
use crate::args::RepositoryArgs;
use crate::exit::Failure;

const EXAMPLES: &str = "\
Examples:
  farseek untag tools/python --latest    # the version before becomes the newest
  farseek untag tools/python~3           # that one version
  farseek untag tools/python --all       # the tag with its history";

/// `farseek untag`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UntagArgs {
    /// The tag, or one version of it (`name~n`)
    tag: TagSpec,
    /// Remove the newest version
    #[arg(long, conflicts_with = "all")]
    latest: bool,
    /// Remove every version
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
}

/// Removes what was named. What the tag pointed to stays.
pub(crate) async fn run(args: UntagArgs, app: &mut App) -> Result<()> {
    let UntagArgs {
        tag: spec,
        latest,
        all,
        repository,
    } = args;
    if spec.version > 0 && (latest || all) {
        let message = format!("'{spec}' names one version: leave out --latest and --all");
        return Err(Failure::usage(message));
    }
    if spec.version == 0 && !latest && !all {
        let message = format!("say --latest for the newest version of '{spec}', --all for all");
        return Err(Failure::usage(message));
    }
    let remote = repository.remote.as_deref();
    let namespace = app.namespace(remote)?;
    let repository = app.repository(remote).await?;
    let removed = remove(&*repository, &spec, all).await;
    let line = match &namespace {
        None => removed?,
        // The same tag outside of it is another one, and still there.
        Some(namespace) => {
            let removed = removed.with_context(|| {
                format!("cannot remove '{spec}' in the tag namespace '{namespace}'")
            })?;
            format!("{removed}, in the tag namespace {namespace}")
        }
    };
    app.output.line(line)
}

/// Removes a version, or all of them, and says what was removed.
async fn remove(repository: &dyn Repository, spec: &TagSpec, all: bool) -> Result<String> {
    if all {
        repository.read_tag(&spec.name).await?;
        repository.remove_tag_stream(&spec.name).await?;
        return Ok(format!("removed {} with its history", spec.name));
    }
    let tag = repository.resolve_tag(spec).await?;
    repository.remove_tag(&tag).await?;
    Ok(format!("removed {spec} (it named {})", tag.target))
}
