//! `farseek runtime remove`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use farseek_runtime::record::{Host, Listed, PruneOptions, RuntimeRecord, Runtimes, Verdict};
use farseek_runtime::remove_kept;

use super::{judge, records};
use crate::active::KEPT;
use crate::app::App;
use crate::args::RepositoryArgs;
use crate::exit::{Code, Failure};

const EXAMPLES: &str = "\
Examples:
  farseek runtime remove 9b45806f-32b6-49c6-8359-a169d78acbc4
  farseek runtime remove --remove-durable mine     # one that was kept, with its changes";

/// How long the host of a runtime that has ended may take to tidy up.
const TO_TIDY_UP: Duration = Duration::from_secs(7);

/// How often to look whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// `farseek runtime remove`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RemoveArgs {
    /// Their names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Whoever made it, wherever, and whether it is in use or not: what it reads may then be cleaned
    #[arg(short, long)]
    force: bool,
    /// Also one of another user
    #[arg(long)]
    ignore_user: bool,
    /// Also one of another host
    #[arg(long)]
    ignore_host: bool,
    /// Also one that is in use
    #[arg(long)]
    ignore_monitor: bool,
    /// Also a durable one, with what was changed in it
    #[arg(long)]
    remove_durable: bool,
    #[command(flatten)]
    pub(super) repository: RepositoryArgs,
}

pub(super) async fn run(args: RemoveArgs, app: &mut App) -> Result<()> {
    let runtimes = records(app, &args.repository).await?;
    for name in &args.names {
        remove(&args, app, &runtimes, name).await?;
        app.output.line(format_args!("removed {name}"))?;
    }
    Ok(())
}

async fn remove(args: &RemoveArgs, app: &App, runtimes: &Runtimes, name: &str) -> Result<()> {
    let found = find(runtimes, name).await?;
    // What cannot be read is nobody's for all we know.
    if let Ok(record) = &found.record {
        let here = Host::current()?;
        let verdict = judge(record.clone()).await?;
        if let Some(reason) = objection(args, app, record, &here, verdict) {
            let message = format!("the runtime '{name}' stays: {reason}");
            return Err(Failure::error(Code::Busy, message));
        }
        if verdict == Verdict::Ended {
            let options = PruneOptions {
                root: Some(app.environment.runtimes_dir()),
                ..PruneOptions::default()
            };
            let is_gone = runtimes.take_leftovers_of(&here, &options, record).await?;
            if !is_gone && !args.force && !args.ignore_monitor {
                let message = format!(
                    "the runtime '{name}' stays: its record says that it has ended, but a process \
                     has its directory: end that first, or --ignore-monitor"
                );
                return Err(Failure::error(Code::Busy, message));
            }
        }
        if record.config.durable && args.repository.remote.is_none() {
            remove_changes(app, &found).await?;
        }
    }
    runtimes.remove_listed(&found).await?;
    Ok(())
}

/// The record with this name. Waits a little for a runtime that has ended and is tidied up.
async fn find(runtimes: &Runtimes, name: &str) -> Result<Listed> {
    let deadline = Instant::now() + TO_TIDY_UP;
    loop {
        let found = runtimes.find(name).await?;
        let Ok(record) = found.record.as_ref().cloned() else {
            return Ok(found);
        };
        let looking =
            tokio::task::spawn_blocking(move || Ok(Host::current()?.is_tidied_up(&record)));
        let is_tidied_up: Result<bool> =
            looking.await.context("looking at processes was given up")?;
        if !is_tidied_up? || Instant::now() >= deadline {
            return Ok(found);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Why a record is left alone, and what to do.
fn objection(
    args: &RemoveArgs,
    app: &App,
    record: &RuntimeRecord,
    here: &Host,
    verdict: Verdict,
) -> Option<String> {
    let author = &record.author;
    let is_ended = verdict == Verdict::Ended;
    let is_elsewhere = !is_ended && author.host_name != here.name;
    let (user, host) = (&author.user_name, &author.host_name);
    if record.config.durable && !args.remove_durable {
        return Some("it is durable: --remove-durable removes it with its changes".to_owned());
    }
    if args.force {
        return None;
    }
    if *user != app.config.user.name && !args.ignore_user {
        return Some(format!(
            "it belongs to {user}: --ignore-user removes it all the same"
        ));
    }
    if is_elsewhere && !args.ignore_host {
        return Some(format!(
            "it was made on {host}: --ignore-host removes it all the same"
        ));
    }
    let is_in_doubt =
        record.config.durable && verdict == Verdict::Unknown && !record.is_laid_down();
    if is_in_doubt && !args.ignore_monitor {
        return Some(
            "whether somebody is in it cannot be told from here: --ignore-monitor removes it all \
             the same"
                .to_owned(),
        );
    }
    if verdict == Verdict::Alive && !args.ignore_monitor {
        return Some("it is in use: end that first, or --ignore-monitor".to_owned());
    }
    None
}

/// Removes what was changed in a durable runtime (FORMAT.md section 4.1).
async fn remove_changes(app: &App, found: &Listed) -> Result<()> {
    // A name with a slash would lead elsewhere.
    if found.name.contains('/') {
        return Ok(());
    }
    let kept = app.config.storage.root.join(KEPT);
    let changes = kept.join(&found.name);
    let removing = tokio::task::spawn_blocking(move || {
        remove_kept(&changes).with_context(|| format!("cannot remove {}", changes.display()))
    });
    removing.await.context("removing was given up")?
}
