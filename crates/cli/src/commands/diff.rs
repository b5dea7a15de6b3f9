//! `farseek diff`.

use anyhow::{Context as _, Result};
use clap::Args;
use farseek_object::{Change, Difference, MergedTree, diff};
use farseek_store::{Repository, survey_changes};
use serde_json::{Value, json};

use crate::active::{Active, merged};
use crate::app::App;
use crate::args::{JsonArgs, RepositoryArgs};
use crate::exit::Failure;
use crate::view::{self, Named, View};

const EXAMPLES: &str = "\
Examples:
  farseek diff tools/python~1 tools/python
  farseek diff tools/python tools/python+project/extra --all
  farseek diff                              # in a runtime: what has changed in it

Each line is a path and what became of it: + added, - removed, ~ changed, = unchanged.";

/// `farseek diff`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DiffArgs {
    /// What was: a tag, a digest, or several joined by '+'
    from: Option<String>,
    /// What became of it
    to: Option<String>,
    /// Show what is unchanged too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// One line a path that differs.
pub(crate) async fn run(args: DiffArgs, app: &mut App) -> Result<()> {
    let (from, to) = match (&args.from, &args.to) {
        (Some(from), Some(to)) => {
            let repository = app.repository(args.repository.remote.as_deref()).await?;
            let from = environment(&*repository, from).await?;
            (from.tree, environment(&*repository, to).await?.tree)
        }
        (None, _) if args.repository.remote.is_none() => changes(app).await?,
        _ => {
            return Err(Failure::usage(
                "give two references, as in `farseek diff tools/python~1 tools/python`; or none, in \
                 a runtime, for what has changed in it",
            ));
        }
    };
    let mut list = Vec::new();
    for found in diff(&from, &to) {
        if found.change == Change::Unchanged && !args.all {
            continue;
        }
        let path = path(&found, &from, &to);
        match args.json.json {
            true => list.push(json!({ "change": word(found.change), "path": path })),
            false => app
                .output
                .line(format_args!("{} {path}", found.change.sign()))?,
        }
    }
    match args.json.json {
        true => app.output.json(&Value::Array(list)),
        false => Ok(()),
    }
}

/// The environment of the runtime that this is run in, without what has changed, and with it.
async fn changes(app: &App) -> Result<(MergedTree, MergedTree)> {
    let active = Active::find(app).await?;
    let upper = active.upper()?;
    let manifests = active.manifests().await?;
    let comparing = tokio::task::spawn_blocking(move || {
        let from = merged(&manifests)?;
        let layer = survey_changes(upper.path(), &from)?;
        let to = merged(manifests.iter().chain([&layer]))?;
        Ok((from, to))
    });
    comparing.await.context("comparing was given up")?
}

async fn environment(repository: &dyn Repository, reference: &str) -> Result<View> {
    match view::find(repository, reference).await? {
        Named::Environment(view) => Ok(view),
        Named::Blob { .. } => Err(Failure::usage(format!(
            "'{reference}' is a single blob: only trees of files can be compared"
        ))),
    }
}

fn path(found: &Difference, from: &MergedTree, to: &MergedTree) -> String {
    let path = match (found.to, found.from) {
        (Some(at), _) => to.path(at),
        (None, Some(at)) => from.path(at),
        (None, None) => String::new(),
    };
    format!("/{path}")
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Unchanged => "unchanged",
        Change::Changed => "changed",
        Change::Added => "added",
        Change::Removed => "removed",
    }
}
