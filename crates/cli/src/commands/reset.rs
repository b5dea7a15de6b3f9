//! `farseek reset`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use farseek_object::EnvSpec;
use farseek_runtime::run::{Request, ask};

use super::edit;
use crate::active::Active;
use crate::app::App;
use crate::exit::Failure;
use crate::specs;

const EXAMPLES: &str = "\
Examples:
  farseek reset                     # in a runtime: undo all changes
  farseek reset /spfs/bin lib/x.so  # undo those of these paths
  farseek reset --ref tools/python~1 --edit  # another environment in the place of this one

With --ref all changes are undone. Programs that run on see what was there when they opened it.
Whoever is in a directory of it, as a shell in /spfs, finds nothing there any more, also after all
changes are undone: change into the directory anew. Live layers stay as they are.";

/// `farseek reset`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ResetArgs {
    /// Paths of which to undo the changes, in /spfs; all changes where none is given
    paths: Vec<PathBuf>,
    /// Show this environment instead: a tag, a digest, or several joined by '+'; '-' for nothing,
    /// which can be written to
    #[arg(
        short = 'r',
        long = "ref",
        value_name = "REF",
        conflicts_with = "paths"
    )]
    reference: Option<EnvSpec>,
    /// Let the environment be written to from now on
    #[arg(short, long)]
    edit: bool,
}

/// Undoes changes of the runtime that this is run in.
pub(crate) async fn run(args: ResetArgs, app: &mut App) -> Result<()> {
    let active = Active::find(app).await?;
    if let Some(reference) = &args.reference {
        show(&active, reference).await?;
    } else if active.record.status.editable || !args.edit {
        undo(&active, &args.paths)?;
    }
    let is_empty = |spec: &EnvSpec| spec.items.is_empty();
    match args.edit || args.reference.as_ref().is_some_and(is_empty) {
        true => edit::allow(&active, None),
        false => Ok(()),
    }
}

/// Puts another environment in the place of the one that is shown.
async fn show(active: &Active, reference: &EnvSpec) -> Result<()> {
    let expanded = specs::expand(reference).await?;
    if let Some((path, _)) = expanded.live.first() {
        let why = "it is shown from the beginning of a runtime on, so start one with `farseek run`";
        return Err(specs::of_runtimes(path, why));
    }
    let spec = expanded.spec;
    Ok(ask(active.directory()?, &Request::Show { spec })?)
}

/// Undoes changes: those of `paths`, or all.
fn undo(active: &Active, paths: &[PathBuf]) -> Result<()> {
    drop(active.upper()?);
    let inside = |path: &PathBuf| inside(path, active.at());
    let paths = paths.iter().map(inside).collect::<Result<_>>()?;
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
