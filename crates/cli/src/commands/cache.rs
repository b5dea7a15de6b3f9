//! `farseek cache`.

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use farseek_reader::DiskTier;
use serde_json::json;

use crate::app::App;
use crate::args::JsonArgs;
use crate::exit::Failure;
use crate::size;

const EXAMPLES: &str = "\
Examples:
  farseek cache
  farseek cache trim --max 2GiB
  farseek cache clear

It can be used while environments are mounted: what is gone is fetched again when it is read.
What became part of the local repository is not in this cache and stays.";

/// `farseek cache`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CacheArgs {
    /// What to do
    #[arg(value_enum, default_value = "show", hide_default_value = true)]
    action: Action,
    /// With trim: to at most so much, instead of the configured limit
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    max: Option<u64>,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Print where it is, what it takes and what it may take
    Show,
    /// Remove what was used least recently, until it is within its limit
    Trim,
    /// Remove everything
    Clear,
}

/// What was found and done.
struct Outcome {
    used: u64,
    freed: u64,
}

/// Looks at the disk tier, and makes it smaller where that is asked for.
pub(crate) async fn run(args: CacheArgs, app: &mut App) -> Result<()> {
    if args.max.is_some() && args.action != Action::Trim {
        return Err(Failure::usage("--max goes with `farseek cache trim`"));
    }
    let options = app.disk_options().ok_or_else(|| {
        Failure::usage("there is no place for a disk cache: set cache.directory, or HOME")
    })?;
    let limit = match args.action {
        Action::Show => None,
        Action::Trim => Some(args.max.unwrap_or(options.max_bytes)),
        Action::Clear => Some(0),
    };
    let tier = DiskTier::new(options);
    let working = tokio::task::spawn_blocking(move || {
        let freed = limit.map_or(0, |limit| tier.trim(limit));
        let used = tier.used_bytes();
        Outcome { used, freed }
    });
    let outcome = working.await.context("looking at the cache was given up")?;
    print(&args, app, &outcome)
}

fn print(args: &CacheArgs, app: &mut App, outcome: &Outcome) -> Result<()> {
    let config = app.config.cache.clone();
    let directory = config.directory.as_deref().unwrap_or(Path::new(""));
    let (max, keep_free) = (config.disk_cache_max_bytes, config.disk_cache_keep_free);
    let is_on = config.place().is_some();
    let Outcome { used, freed } = outcome;
    if args.json.json {
        return app.output.json(&json!({
            "enabled": is_on, "directory": directory.to_string_lossy(), "used_bytes": used,
            "max_bytes": max, "keep_free_percent": keep_free.0, "freed_bytes": freed,
        }));
    }
    let (used, freed) = (size::human(*used), size::human(*freed));
    if args.action != Action::Show {
        return app
            .output
            .line(format_args!("freed {freed}; {used} are left"));
    }
    let lines = [
        format!("place   {}", directory.display()),
        format!("used    {used}"),
        match is_on {
            true => format!(
                "limit   {}, {keep_free} of the disk stays free",
                size::human(max)
            ),
            false => "limit   it is turned off".to_owned(),
        },
    ];
    lines.iter().try_for_each(|line| app.output.line(line))
}
