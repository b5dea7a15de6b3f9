//! `farseek reset`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use farseek_runtime::run::{Request, ask};

use crate::active::Active;
use crate::app::App;
use crate::exit::Failure;

const EXAMPLES: &str = "\
Examples:
  farseek reset                     # in a runtime: undo all changes
  farseek reset /spfs/bin lib/x.so  # undo those of these paths";

/// `farseek reset`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ResetArgs {
    /// Paths of which to undo the changes, in /spfs; all changes where none is given
    paths: Vec<PathBuf>,
}

/// Undoes changes of the runtime that this is run in.
pub(crate) async fn run(args: ResetArgs, app: &mut App) -> Result<()> {
    let active = Active::find(app).await?;
    active.upper()?;
    let inside = |path: &PathBuf| inside(path, active.at());
    let paths = args.paths.iter().map(inside).collect::<Result<_>>()?;
    Ok(ask(active.directory()?, &Request::Reset { paths })?)
}

/// `path` from the root of the environment, which is at `at`. The root itself would be everything,
/// which is asked for in another way.
fn inside(path: &Path, at: &Path) -> Result<PathBuf> {
    let within = match path.is_absolute() {
        true => path.strip_prefix(at).ok(),
        false => Some(path),
    };
    let within = within.filter(|path| path.components().next().is_some());
    within.map(Path::to_owned).ok_or_else(|| {
        Failure::usage(format!(
            "{} is not a path in {}: give those of what is in it, or none for everything",
            path.display(),
            at.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_from_the_environment() {
        let at = Path::new("/spfs");
        for (path, expected) in [("/spfs/a/b", "a/b"), ("a/b", "a/b"), ("/spfs/a/", "a")] {
            assert_eq!(inside(Path::new(path), at).unwrap(), Path::new(expected));
        }
        for path in ["/spfs", "/", "/other/a", "/spfsx/a", ""] {
            assert!(inside(Path::new(path), at).is_err(), "{path}");
        }
    }
}
