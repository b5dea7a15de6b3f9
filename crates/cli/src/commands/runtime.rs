//! `farseek runtime`: who uses which environment.

mod list;
mod prune;
mod remove;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use farseek_runtime::record::{Host, Listed, RuntimeRecord, Runtimes, Verdict};
use serde_json::{Value, json};

use super::info::show_annotations;
use crate::annotations::AnnotationViewArgs;
use crate::app::App;
use crate::args::RepositoryArgs;
use crate::exit::Failure;

const EXAMPLES: &str = "\
Examples:
  farseek runtime list
  farseek runtime info 9b45806f-32b6-49c6-8359-a169d78acbc4
  farseek runtime prune

Every mount has a record as long as it lives, so that no clean takes away what it reads. A record
whose process was killed is removed by the next mount or unmount, or by prune.";

/// The variable that names the runtime a process is in.
const ACTIVE: &str = "SPFS_RUNTIME";

/// `farseek runtime`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RuntimeArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the runtimes there are
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Print all that is recorded of a runtime, as JSON
    Info(InfoArgs),
    /// Remove records of runtimes, by name
    #[command(visible_alias = "rm")]
    Remove(remove::RemoveArgs),
    /// Remove the records of runtimes that have ended, and what they have left
    Prune(prune::PruneArgs),
}

const INFO_EXAMPLES: &str = "\
Examples:
  farseek runtime info                                         # in a runtime: of this one
  farseek runtime info 9b45806f-32b6-49c6-8359-a169d78acbc4
  farseek runtime info --get-all                               # its annotations alone";

#[derive(Debug, Args)]
#[command(after_help = INFO_EXAMPLES)]
struct InfoArgs {
    /// The runtime: else the one this process is in ($SPFS_RUNTIME)
    name: Option<String>,
    #[command(flatten)]
    annotations: AnnotationViewArgs,
    #[command(flatten)]
    repository: RepositoryArgs,
}

impl RuntimeArgs {
    /// Which repository it works on.
    pub(crate) fn repository(&self) -> &RepositoryArgs {
        match &self.action {
            Action::List(args) => &args.repository,
            Action::Info(args) => &args.repository,
            Action::Remove(args) => &args.repository,
            Action::Prune(args) => &args.repository,
        }
    }
}

/// Does one of its things.
pub(crate) async fn run(args: RuntimeArgs, app: &mut App) -> Result<()> {
    match args.action {
        Action::List(args) => list::run(args, app).await,
        Action::Info(args) => info(args, app).await,
        Action::Remove(args) => remove::run(args, app).await,
        Action::Prune(args) => prune::run(args, app).await,
    }
}

async fn info(args: InfoArgs, app: &mut App) -> Result<()> {
    let active = app.environment.variable(ACTIVE).map(str::to_owned);
    let name = args.name.or(active).ok_or_else(|| {
        Failure::usage(format!(
            "this process is in no runtime ({ACTIVE} is not set): say which one"
        ))
    })?;
    let runtimes = records(app, &args.repository).await?;
    let record = runtimes.load(&name).await?;
    if args.annotations.is_asked() {
        let stack: Vec<_> = record.status.stack.iter().rev().copied().collect();
        let repository = &**runtimes.repository();
        let found = args.annotations.find(repository, &stack, &name).await?;
        return show_annotations(&args.annotations, &found, app);
    }
    let state = state(judge(record.clone()).await?);
    let mut value = serde_json::to_value(&record).context("the record cannot be JSON")?;
    value["state"] = state.into();
    app.output.json(&value)
}

/// The records that a command works on.
async fn records(app: &App, args: &RepositoryArgs) -> Result<Runtimes> {
    match args.remote.as_deref() {
        Some(remote) => Ok(app.runtimes_in(Arc::clone(&app.remote(remote).await?))),
        None => app.runtimes()?.ok_or_else(|| {
            let root = app.config.storage.root.display();
            Failure::not_found(format!("there is no local repository at {root} yet"))
        }),
    }
}

async fn judge(record: RuntimeRecord) -> Result<Verdict> {
    let judging = tokio::task::spawn_blocking(move || Ok(Host::current()?.judge(&record)));
    judging.await.context("looking at processes was given up")?
}

/// Those of `found` that can be read, judged, in their order.
async fn judge_all(found: &[Listed]) -> Result<Vec<Verdict>> {
    let records = found.iter().filter_map(|found| found.record.as_ref().ok());
    let records: Vec<_> = records.cloned().collect();
    let judging = move || Ok(Host::current()?.judge_all(&records));
    let judging = tokio::task::spawn_blocking(judging);
    judging.await.context("looking at processes was given up")?
}

/// A verdict as it is shown.
fn state(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Alive => "alive",
        Verdict::Ended => "ended",
        Verdict::Unknown => "unknown",
    }
}

/// What lists and removals show of a record.
fn describe(record: &RuntimeRecord) -> Value {
    let origin = record.farseek.as_ref();
    let mountpoint = origin.and_then(|origin| origin.mountpoint.as_ref());
    json!({
        "name": record.name,
        "user": record.author.user_name,
        "host": record.author.host_name,
        "created": record.author.created,
        "owner": record.status.owner,
        "editable": record.status.editable,
        "durable": record.config.durable,
        "reference": origin.and_then(|origin| origin.reference.clone()),
        "mountpoint": mountpoint.map(|path| path.to_string_lossy()),
    })
}
