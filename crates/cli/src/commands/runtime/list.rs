//! `farseek runtime list`.

use anyhow::Result;
use clap::Args;
use farseek_runtime::record::{Listed, RuntimeRecord, Verdict};
use serde_json::{Value, json};

use super::{describe, judge_all, records, state};
use crate::app::App;
use crate::args::{JsonArgs, RepositoryArgs};
use crate::exit;

const EXAMPLES: &str = "\
Examples:
  farseek runtime list
  farseek runtime list --quiet                        # names alone
  farseek runtime list --json --remote /shows/spfs    # of another repository";

/// `farseek runtime list`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ListArgs {
    /// Print names alone
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    pub(super) repository: RepositoryArgs,
}

pub(super) async fn run(args: ListArgs, app: &mut App) -> Result<()> {
    let found = records(app, &args.repository).await?.list().await?;
    if args.quiet && !args.json.json {
        return found
            .iter()
            .try_for_each(|found| app.output.line(&found.name));
    }
    let mut verdicts = judge_all(&found).await?.into_iter();
    let mut values = Vec::new();
    for Listed { name, record, .. } in found {
        match record {
            Err(error) => {
                let message = exit::message(&error.into());
                values.push(json!({ "name": name, "state": "unreadable", "error": message }));
                if !args.json.json {
                    app.output
                        .line(format_args!("{name}  unreadable: {message}"))?;
                }
            }
            Ok(record) => {
                let verdict = verdicts.next().unwrap_or(Verdict::Unknown);
                values.push(value(&record, verdict));
                if !args.json.json {
                    app.output.line(in_words(&record, verdict))?;
                }
            }
        }
    }
    match args.json.json {
        true => app.output.json(&Value::Array(values)),
        false => Ok(()),
    }
}

fn value(record: &RuntimeRecord, verdict: Verdict) -> Value {
    let mut value = describe(record);
    value["state"] = state(verdict).into();
    value
}

/// `NAME  alive  user@host  tools/python at /mnt/python`.
fn in_words(record: &RuntimeRecord, verdict: Verdict) -> String {
    let origin = record.farseek.as_ref();
    let reference = origin.and_then(|origin| origin.reference.as_deref());
    let what = match (reference, record.status.command.as_slice()) {
        (Some(reference), _) => reference.to_owned(),
        (None, []) => "-".to_owned(),
        (None, command) => command.join(" "),
    };
    let place = origin.and_then(|origin| origin.mountpoint.as_ref());
    let place = place.map_or_else(String::new, |path| format!(" at {}", path.display()));
    let author = &record.author;
    format!(
        "{}  {}  {}@{}  {what}{place}",
        record.name,
        state(verdict),
        author.user_name,
        author.host_name
    )
}
