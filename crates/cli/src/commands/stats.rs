//! `farseek stats`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use farseek_runtime::{FarseekMount, STATS_XATTR, list_mounts};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::app::App;
use crate::args::JsonArgs;
use crate::exit::{self, Code, Failure};
use crate::output::note;
use crate::signals::Signals;
use crate::stats::Report;

const EXAMPLES: &str = "\
Examples:
  farseek stats                       # every mount there is
  farseek stats /mnt/python --watch 5
  farseek stats /mnt/python --json";

/// How long a mount may take to answer a question about itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest value of an extended attribute that Linux hands out.
const VALUE_MAX: usize = 64 << 10;

/// `farseek stats`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatsArgs {
    /// A mount, or anything in it; every mount where it is left out
    mountpoint: Option<PathBuf>,
    /// Go on every so many seconds (2 where it is not said) until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86400))]
    watch: Option<u64>,
    #[command(flatten)]
    json: JsonArgs,
}

/// Asks mounts what they have done, and prints it.
pub(crate) async fn run(args: StatsArgs, app: &mut App) -> Result<()> {
    let Some(seconds) = args.watch else {
        return once(&args, app).await;
    };
    let mut signals = Signals::listen()?;
    let mut ticks = tokio::time::interval(Duration::from_secs(seconds));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = signals.next() => return Ok(()),
        }
        signals.unless(once(&args, app)).await?;
        app.output.finish()?;
    }
}

/// Prints every mount that was meant. One that does not answer does not hide the others.
async fn once(args: &StatsArgs, app: &mut App) -> Result<()> {
    let one = args.mountpoint.as_deref();
    let mounts = chosen(list_mounts()?, one)?;
    let mut list = Vec::new();
    for mount in mounts {
        match (report(&mount.mountpoint).await, one) {
            (Ok(report), _) if args.json.json => list.push(describe(&mount, &report)),
            (Ok(report), _) => print(&mount, &report, app)?,
            (Err(error), Some(_)) => return Err(error),
            (Err(error), None) if args.json.json => list.push(json!({
                "mountpoint": mount.mountpoint.to_string_lossy(), "reference": mount.reference,
                "error": exit::message(&error),
            })),
            (Err(error), None) => note(exit::message(&error)),
        }
    }
    match (args.json.json, one, list.as_slice()) {
        (false, ..) => Ok(()),
        (true, Some(_), [value]) => json_line(args, app, value),
        (true, ..) => json_line(args, app, &Value::Array(list)),
    }
}

/// Indented once, a line each time where it goes on.
fn json_line(args: &StatsArgs, app: &mut App, value: &Value) -> Result<()> {
    match args.watch {
        Some(_) => app.output.line(value),
        None => app.output.json(value),
    }
}

fn describe(mount: &FarseekMount, report: &Report) -> Value {
    json!({
        "mountpoint": mount.mountpoint.to_string_lossy(),
        "reference": mount.reference,
        "amplification": report.amplification(),
        "stats": report,
    })
}

fn print(mount: &FarseekMount, report: &Report, app: &mut App) -> Result<()> {
    let FarseekMount {
        mountpoint,
        reference,
    } = mount;
    let (mountpoint, pid) = (mountpoint.display(), report.pid);
    app.output
        .line(format_args!("{reference} at {mountpoint} (process {pid})"))?;
    let mut lines = report.lines().into_iter();
    lines.try_for_each(|line| app.output.line(line))?;
    app.output.line("")
}

/// The mount that `path` is in, or all of them.
fn chosen(mounts: Vec<FarseekMount>, path: Option<&Path>) -> Result<Vec<FarseekMount>> {
    let Some(path) = path else {
        return Ok(mounts);
    };
    let absolute = std::path::absolute(path)
        .map_err(|_| Failure::usage("the mount point is empty: say which directory"))?;
    // The last that was mounted hides the others. A dead mount can be named, but not looked at.
    let real = path.canonicalize().unwrap_or_else(|_| absolute.clone());
    let holds = |mount: &&FarseekMount| real.starts_with(&mount.mountpoint);
    let depth = |mount: &FarseekMount| mount.mountpoint.components().count();
    let found = mounts.iter().filter(holds).max_by_key(|mount| depth(mount));
    let found = found.ok_or_else(|| {
        let message = format!("no mount of farseek's is at {}", absolute.display());
        Failure::error(Code::MountPoint, message)
    })?;
    Ok(vec![found.clone()])
}

/// Asks a mount. One that hangs is not waited for.
async fn report(mountpoint: &Path) -> Result<Report> {
    let path = mountpoint.to_owned();
    let asking = tokio::task::spawn_blocking(move || {
        let mut value = vec![0; VALUE_MAX];
        let length = rustix::fs::getxattr(&path, STATS_XATTR, value.as_mut_slice())?;
        value.truncate(length);
        Ok::<_, Errno>(value)
    });
    let shown = mountpoint.display();
    let refused = |message: String| Failure::error(Code::MountPoint, message);
    match tokio::time::timeout(PATIENCE, asking).await {
        Err(_) => Err(refused(format!("{shown} does not answer"))),
        Ok(answer) => match answer.context("asking was given up")? {
            Ok(value) => serde_json::from_slice(&value)
                .with_context(|| format!("{shown} tells its statistics in another form")),
            Err(Errno::NOTCONN) => Err(refused(format!(
                "{shown} is a mount whose server has died: `farseek unmount {shown}` removes it"
            ))),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Err(refused(format!(
                "{shown} keeps no statistics: another version of farseek serves it"
            ))),
            Err(errno) => Err(std::io::Error::from(errno))
                .with_context(|| format!("cannot ask {shown} for its statistics")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_means_the_innermost_mount_it_is_in() {
        let mount = |path: &str| FarseekMount {
            mountpoint: path.into(),
            reference: format!("of {path}"),
        };
        let mounts = || vec![mount("/no/a"), mount("/no/a/b"), mount("/no/c")];
        let names = |path: Option<&str>| -> Vec<String> {
            let found = chosen(mounts(), path.map(Path::new)).unwrap_or_default();
            found.into_iter().map(|mount| mount.reference).collect()
        };
        assert_eq!(names(None).len(), 3);
        assert_eq!(names(Some("/no/a")), ["of /no/a"]);
        assert_eq!(names(Some("/no/a/b/file")), ["of /no/a/b"]);
        assert_eq!(names(Some("/no/ab")), [] as [String; 0]);
    }
}
