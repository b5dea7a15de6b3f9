//! `farseek log`.

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;
use farseek_object::{TagName, TagSpec};
use serde_json::{Value, json};

use crate::app::App;
use crate::args::{JsonArgs, RepositoryArgs};

const EXAMPLES: &str = "\
Examples:
  farseek log tools/python
  farseek log tools/python --remote origin --json";

/// `farseek log`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogArgs {
    /// The tag
    tag: TagName,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// The versions of a tag, newest first, in SPFS's lines.
pub(crate) async fn run(args: LogArgs, app: &mut App) -> Result<()> {
    let repository = app.repository(args.repository.remote.as_deref()).await?;
    let stream = repository.read_tag(&args.tag).await?;
    let versions = stream.newest_first().zip(0u64..).map(|(tag, version)| {
        (
            tag,
            TagSpec {
                name: args.tag.clone(),
                version,
            }
            .to_string(),
        )
    });
    if args.json.json {
        let list = versions.map(|(tag, spec)| {
            json!({
                "tag": spec,
                "target": tag.target.to_string(),
                "user": tag.user,
                "time": tag.time.to_rfc3339(),
            })
        });
        return app.output.json(&list.collect::<Value>());
    }
    for (tag, spec) in versions {
        let time = spfs_time(tag.time);
        app.output.line(format_args!(
            "{} {spec} {} {time}",
            tag.target.short(),
            tag.user
        ))?;
    }
    Ok(())
}

/// `2026-11-22 22:41:25.685896 +00:00`.
fn spfs_time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S%.f %:z").to_string()
}
