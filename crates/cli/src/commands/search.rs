//! `farseek search`.

use anyhow::Result;
use clap::Args;
use farseek_store::RepositoryExt as _;
use serde_json::{Value, json};

use crate::app::App;
use crate::args::{JsonArgs, RepositoryArgs};
use crate::config::redact;
use crate::exit::{self, Failure};
use crate::output::note;

const EXAMPLES: &str = "\
Examples:
  farseek search python
  farseek search tools/ --remote origin
  farseek search python --json";

/// `farseek search`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SearchArgs {
    /// What the names of tags contain
    term: String,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// One line a tag: the remote it is in, and its name. A remote that cannot be asked is told, and
/// does not keep the others from being searched; where none can be asked, that is a failure.
pub(crate) async fn run(args: SearchArgs, app: &mut App) -> Result<()> {
    let remotes: Vec<String> = match args.repository.remote {
        Some(remote) => vec![remote],
        None => app.config.remote.keys().cloned().collect(),
    };
    if remotes.is_empty() {
        return Err(Failure::usage(
            "no remote is configured to be searched: say which with --remote NAME|URL|PATH; \
             `farseek tags` lists the tags of the local repository",
        ));
    }
    let mut list = Vec::new();
    let mut failed = None;
    let mut asked = false;
    for remote in &remotes {
        let tags = match tags(app, remote, remotes.len()).await {
            Ok(tags) => tags,
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    note(format_args!(
                        "warning: left out: {}",
                        exit::message(&earlier)
                    ));
                }
                continue;
            }
        };
        asked = true;
        let remote = redact(remote);
        for tag in tags.iter().filter(|tag| tag.contains(&args.term)) {
            match args.json.json {
                true => list.push(json!({ "remote": remote, "tag": tag })),
                false => app.output.line(format_args!("{remote} {tag}"))?,
            }
        }
    }
    match failed {
        Some(error) if !asked => return Err(error),
        Some(error) => note(format_args!("warning: left out: {}", exit::message(&error))),
        None => {}
    }
    match args.json.json {
        true => app.output.json(&Value::Array(list)),
        false => Ok(()),
    }
}

async fn tags(app: &App, remote: &str, remotes: usize) -> Result<Vec<String>> {
    let repository = app.remote_of(remote, remotes).await?;
    let names = repository.walk_tags("").await?;
    Ok(names.iter().map(ToString::to_string).collect())
}
