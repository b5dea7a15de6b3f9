//! `farseek runtime prune`.

use anyhow::Result;
use clap::Args;
use farseek_runtime::record::{Host, PruneOptions, Pruned};
use serde_json::{Value, json};

use super::{records, state};
use crate::app::App;
use crate::args::{JsonArgs, RepositoryArgs};
use crate::exit::{self, Code, Failure};
use crate::output::note;

const EXAMPLES: &str = "\
Examples:
  farseek runtime prune                       # those of this user that have ended
  farseek runtime prune --from-before-boot    # also those that cannot be judged, but are older";

/// `farseek runtime prune`.
///
/// What may still be in use stays: also on another host, which cannot be seen from here.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PruneArgs {
    /// Also those of other users
    #[arg(long)]
    ignore_user: bool,
    /// Also those that cannot be judged from here, if they were made before this host was started,
    /// on a host of its name
    #[arg(long)]
    from_before_boot: bool,
    /// With --from-before-boot: on any host
    #[arg(long)]
    ignore_host: bool,
    /// With --from-before-boot: also where a process has the number of the runtime's monitor
    #[arg(long)]
    ignore_monitor: bool,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    pub(super) repository: RepositoryArgs,
}

pub(super) async fn run(args: PruneArgs, app: &mut App) -> Result<()> {
    let user = app.config.user.name.clone();
    let options = PruneOptions {
        user: (!args.ignore_user).then_some(user),
        from_before_boot: args.from_before_boot,
        ignore_host: args.ignore_host,
        // Its number means nothing on another host.
        ignore_monitor: args.ignore_monitor || args.ignore_host,
        root: Some(app.environment.runtimes_dir()),
        ..PruneOptions::default()
    };
    let runtimes = records(app, &args.repository).await?;
    let pruned = runtimes.prune(&Host::current()?, &options).await?;
    if args.json.json {
        app.output.json(&value(&pruned))?;
    } else {
        for name in pruned.removed.iter().chain(&pruned.directories) {
            app.output.line(format_args!("removed {name}"))?;
        }
    }
    complain(pruned)
}

fn value(pruned: &Pruned) -> Value {
    let kept = pruned.kept.iter();
    let failed = pruned.failed.iter();
    json!({
        "removed": pruned.removed,
        "directories": pruned.directories,
        "kept": kept
            .map(|(name, verdict)| json!({ "name": name, "state": state(*verdict) }))
            .collect::<Value>(),
        "failed": failed
            .map(|(name, error)| json!({ "name": name, "error": error.to_string() }))
            .collect::<Value>(),
    })
}

/// Tells each failure; the last one is the command's.
fn complain(pruned: Pruned) -> Result<()> {
    let count = pruned.failed.len();
    for (name, error) in pruned.failed {
        note(format_args!(
            "warning: {name}: {}",
            exit::message(&error.into())
        ));
    }
    match count {
        0 => Ok(()),
        _ => Err(Failure::error(
            Code::Other,
            format!("{count} records could not be read, or not be removed"),
        )),
    }
}
