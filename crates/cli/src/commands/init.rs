//! `farseek init`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use farseek_store::FsRepository;

use crate::app::App;
use crate::exit::Failure;

const EXAMPLES: &str = "\
Examples:
  farseek init                  # the local repository of the configuration
  farseek init /srv/repository
  farseek init repo /srv/repository";

/// `farseek init`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InitArgs {
    /// Where; SPFS's form with the word `repo` before the path is understood too
    #[arg(value_name = "[repo] PATH", num_args = 0..=2)]
    path: Vec<PathBuf>,
}

/// Creates the repository. One that is there already is left as it is.
pub(crate) async fn run(args: InitArgs, app: &mut App) -> Result<()> {
    let path = chosen(&args.path)?
        .unwrap_or(&app.config.storage.root)
        .to_owned();
    refuse_address(&path)?;
    let options = app.fs_options()?;
    FsRepository::create(&path, options)?;
    app.output.line(format_args!("{} is ready", path.display()))
}

/// An address would become a directory of that name.
fn refuse_address(path: &Path) -> Result<()> {
    if path.to_string_lossy().contains("://") {
        return Err(Failure::usage(format!(
            "only directories are made here, and '{}' is an address: a bucket becomes a repository \
             with the first push to it",
            path.display()
        )));
    }
    Ok(())
}

fn chosen(words: &[PathBuf]) -> Result<Option<&Path>> {
    match words {
        [] => Ok(None),
        [word] if word == Path::new("repo") => Ok(None),
        [path] => Ok(Some(path)),
        [word, path] if word == Path::new("repo") => Ok(Some(path)),
        _ => Err(Failure::usage("give one path: `farseek init [repo] PATH`")),
    }
}
