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
  farseek init s3://bucket/prefix   # marks the place; no push needs it";

/// `farseek init`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InitArgs {
    /// Where, a path or the address of a bucket; SPFS's form with the word `repo` before the path is understood too
    #[arg(value_name = "[repo] PATH", num_args = 0..=2)]
    path: Vec<PathBuf>,
}

/// Creates the repository. One that is there already is left as it is.
pub(crate) async fn run(args: InitArgs, app: &mut App) -> Result<()> {
    let path = chosen(&args.path)?
        .unwrap_or(&app.config.storage.root)
        .to_owned();
    if let Some(address) = path.to_str().filter(|text| is_bucket(text)) {
        let joint = if address.contains('?') { '&' } else { '?' };
        let bucket = app.remote(&format!("{address}{joint}create=true")).await?;
        return app
            .output
            .line(format_args!("{} is ready", bucket.location()));
    }
    let options = app.fs_options()?;
    FsRepository::create(&path, options)?;
    app.output.line(format_args!("{} is ready", path.display()))
}

/// Whether it is the address of a bucket, which no path begins like.
fn is_bucket(text: &str) -> bool {
    ["s3://", "gs://", "az://"]
        .iter()
        .any(|scheme| text.starts_with(scheme))
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
