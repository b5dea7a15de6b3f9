//! `farseek init`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use farseek_store::{FsRepository, Location};

use crate::app::App;
use crate::exit::Failure;

const EXAMPLES: &str = "\
Examples:
  farseek init                  # the local repository of the configuration
  farseek init /srv/repository      # or file:///srv/repository
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
    let path = directory(&path)?;
    let options = app.fs_options()?;
    FsRepository::create(&path, options)?;
    app.output.line(format_args!("{} is ready", path.display()))
}

/// Whether it is the address of a bucket. As everywhere, the case of its scheme does not count, and
/// the slashes after it may be missing: a directory of that name is written with `./`.
fn is_bucket(text: &str) -> bool {
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        ["s3", "gs", "az"]
            .iter()
            .any(|bucket| scheme.eq_ignore_ascii_case(bucket))
    })
}

/// The directory that is meant: a path, or the address of one, as everywhere. Any other address would
/// become a directory of that name.
fn directory(path: &Path) -> Result<PathBuf> {
    let Some(text) = path.to_str().filter(|text| is_address(text)) else {
        return Ok(path.to_owned());
    };
    let location: Location = text.parse()?;
    location.path().map(Path::to_owned).ok_or_else(|| {
        Failure::usage(format!(
            "only directories and buckets are made here, and '{location}' is the address of something else"
        ))
    })
}

/// Whether it begins with a scheme: a path of such a name is written with `./`. A name without a
/// slash is a path here, if it is no address.
fn is_address(text: &str) -> bool {
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(is_word)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_told_from_paths() {
        for bucket in ["s3://b/p", "S3://b", "s3:b/p", "gs:b", "Az://b?account=a"] {
            assert!(is_bucket(bucket), "{bucket}");
        }
        for path in ["/s3:b", "./s3:b", "s3", "a/s3://b", "s3x:b"] {
            assert!(!is_bucket(path), "{path}");
        }
        for address in [
            "tar:/a.tar",
            "http://host/a",
            "HTTP:host",
            "s3x://b",
            "file://host/a",
        ] {
            assert!(directory(Path::new(address)).is_err(), "{address}");
        }
        for path in ["a", "./tar:b", "/a", "../a:b", "./file:/x", "a/file:x"] {
            assert_eq!(directory(Path::new(path)).unwrap(), Path::new(path));
        }
        for address in [
            "file:/x/y%20z",
            "file:///x/y%20z",
            "FILE://localhost/x/y%20z",
        ] {
            assert_eq!(directory(Path::new(address)).unwrap(), Path::new("/x/y z"));
        }
    }
}
