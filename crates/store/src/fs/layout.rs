//! Where things are in a repository's directory, and whether it is one (FORMAT.md sections 4.1
//! and 4.2).

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::durable::{self, SHARED_FILE, Temp};
use crate::error::{Result, StoreError};

/// The version of SPFS's format that we write.
const VERSION: &str = "0.44.0";

/// Only the first number of a version says whether it can be read.
const MAJOR: u64 = 0;

/// No version is longer.
const MAX_VERSION_BYTES: u64 = 256;

/// The directory of object files.
pub(super) fn objects(root: &Path) -> PathBuf {
    root.join("objects")
}

/// The directory of payload files.
pub(super) fn payloads(root: &Path) -> PathBuf {
    root.join("payloads")
}

/// The directory of tag files.
pub(super) fn tags(root: &Path) -> PathBuf {
    root.join("tags")
}

/// Checks that a repository is at `path` and returns its canonical path.
pub(super) fn open(path: &Path) -> Result<PathBuf> {
    let root = fs::canonicalize(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => invalid(path, nothing_there(path)),
        _ => StoreError::Io {
            action: "open",
            path: path.into(),
            source,
        },
    })?;
    if !is_dir(&root)? {
        return Err(invalid(path, "it is a file, not a directory"));
    }
    for directory in [objects(&root), payloads(&root)] {
        if !is_dir(&directory)? {
            let name = directory.file_name().unwrap_or_default().to_string_lossy();
            let reason = format!("it has no directory '{name}', so it is not an SPFS repository");
            return Err(invalid(path, reason));
        }
    }
    read_version(&root)?;
    Ok(root)
}

/// Makes what is missing of a repository at `path` and returns its canonical path.
pub(super) fn create(path: &Path) -> Result<PathBuf> {
    // Before anything is made: a repository of another format must stay as it is.
    let version = match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => {
            return Err(invalid(path, "it is a file, not a directory"));
        }
        Ok(_) => read_version(path)?,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(source) => {
            return Err(StoreError::Io {
                action: "open",
                path: path.into(),
                source,
            });
        }
    };
    let path = std::path::absolute(path).map_err(StoreError::io("open", path))?;
    for directory in [path.clone(), objects(&path), payloads(&path), tags(&path)] {
        durable::make_dirs(&directory).map_err(StoreError::io("create", &directory))?;
    }
    if !version {
        write_version(&path)?;
    }
    open(&path)
}

fn write_version(root: &Path) -> Result<()> {
    let (mut temp, file) = Temp::create_in(root)?;
    durable::write(&temp, &file, VERSION.as_bytes())?;
    durable::seal(&temp, &file, SHARED_FILE)?;
    durable::sync(&temp, &file)?;
    temp.place(&root.join("VERSION"))?;
    durable::sync_dir(root)
}

/// Checks the version of the repository at `root`. Returns whether it says one.
fn read_version(root: &Path) -> Result<bool> {
    let path = root.join("VERSION");
    let mut text = String::new();
    match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        file => file.and_then(|file| file.take(MAX_VERSION_BYTES).read_to_string(&mut text)),
    }
    .map_err(StoreError::io("read", &path))?;
    check_version(text.trim()).map_err(|reason| StoreError::Invalid {
        what: "repository version",
        text: text.trim().into(),
        reason: format!("{}: {reason}", path.display()),
    })
}

/// Returns whether `text` says a version, which can then be read.
pub(crate) fn check_version(text: &str) -> Result<bool, &'static str> {
    if text.is_empty() {
        return Ok(false);
    }
    let major = text
        .split('.')
        .next()
        .and_then(|major| major.parse::<u64>().ok());
    match major {
        None => Err("it does not begin with a number"),
        Some(MAJOR) => Ok(true),
        Some(_) => Err("the repository's format is too new for this program, which reads 0.x"),
    }
}

fn is_dir(path: &Path) -> Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(StoreError::Io {
            action: "open",
            path: path.into(),
            source,
        }),
    }
}

/// A path may hold a question mark, so what follows one is parameters only where it is known.
fn nothing_there(path: &Path) -> &'static str {
    match path.as_os_str().as_encoded_bytes().contains(&b'?') {
        true => {
            "there is nothing there (after a plain path only the parameters create, lazy, \
             tag_namespace and when are known; anything else counts as part of the path)"
        }
        false => "there is nothing there",
    }
}

fn invalid(path: &Path, reason: impl Into<String>) -> StoreError {
    StoreError::Invalid {
        what: "repository",
        text: path.display().to_string(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::check_version;

    #[test]
    fn versions() {
        assert_eq!(check_version(""), Ok(false));
        assert_eq!(check_version("0.44.0"), Ok(true));
        assert_eq!(check_version("0.1"), Ok(true));
        assert!(check_version("1.0.0").is_err());
        assert!(check_version("99999999999999999999.0").is_err());
        assert!(check_version("new").is_err());
    }
}
