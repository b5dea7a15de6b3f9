//! `farseek diff`.

use anyhow::Result;
use clap::Args;
use farseek_object::{Change, Difference, diff};
use farseek_store::Repository;
use serde_json::{Value, json};

use crate::app::App;
use crate::args::{JsonArgs, RepositoryArgs};
use crate::exit::Failure;
use crate::view::{self, Named, View};

const EXAMPLES: &str = "\
Examples:
  farseek diff tools/python~1 tools/python
  farseek diff tools/python tools/python+project/extra --all
  farseek diff a/b c/d --remote origin --json

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
    let (Some(from), Some(to)) = (&args.from, &args.to) else {
        return Err(Failure::usage(
            "the changes of a runtime cannot be compared yet: give two references, as in \
             `farseek diff tools/python~1 tools/python`",
        ));
    };
    let repository = app.repository(args.repository.remote.as_deref()).await?;
    let from = environment(&*repository, from).await?;
    let to = environment(&*repository, to).await?;
    let mut list = Vec::new();
    for found in diff(&from.tree, &to.tree) {
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

async fn environment(repository: &dyn Repository, reference: &str) -> Result<View> {
    match view::find(repository, reference).await? {
        Named::Environment(view) => Ok(view),
        Named::Blob { .. } => Err(Failure::usage(format!(
            "'{reference}' is a single blob: only trees of files can be compared"
        ))),
    }
}

fn path(found: &Difference, from: &View, to: &View) -> String {
    let path = match (found.to, found.from) {
        (Some(at), _) => to.tree.path(at),
        (None, Some(at)) => from.tree.path(at),
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
