//! Holds: who writes something that no tag names yet says so, and nothing written since goes.
//!
//! `holds/<uuid>` in the repository, made and owned as the [lock](super::lock) of a tag is, and
//! removed when the work is done. SPFS does not look there. A hold whose owner has ended counts no
//! more; one of another host, of which nobody here knows that, counts for a day.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::durable::Temp;
use super::file::names_in;
use super::lock::{self, Standing, TagLock};
use crate::error::{Result, StoreError};

/// How long a hold counts of which nobody can tell whether its owner lives.
const UNJUDGED_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long to wait for a name that nobody else has.
const PATIENCE: Duration = Duration::from_secs(5);

/// The name of the directory.
const HOLDS: &str = "holds";

/// Where holds are in the repository `root`.
pub(super) fn directory(root: &Path) -> PathBuf {
    root.join(HOLDS)
}

/// Whether `path` is where a hold is.
pub(super) fn is_hold(path: &Path) -> bool {
    path.parent().and_then(Path::file_name) == Some(OsStr::new(HOLDS))
}

/// Holds the repository `root` until dropped.
pub(super) fn take(root: &Path) -> Result<TagLock> {
    let path = directory(root).join(Uuid::new_v4().to_string());
    TagLock::acquire(&path, PATIENCE)
}

/// A moment such that nothing is written before it from now on, and nothing was written before it
/// by who holds the repository `root` now: by the clock that files there are dated by.
pub(super) fn horizon(root: &Path, work: &Path) -> Result<SystemTime> {
    // In this order: who takes hold after we have looked writes after the moment of the probe.
    let now = probe(work)?;
    let directory = directory(root);
    let mut horizon = now;
    for name in names_in(&directory)? {
        let path = directory.join(name);
        let Some((standing, since)) = lock::judge(&path)? else {
            continue;
        };
        let age = now.duration_since(since).unwrap_or_default();
        let counts = match standing {
            Standing::LeftBehind => false,
            Standing::Held => true,
            Standing::Unknown => age < UNJUDGED_AGE,
        };
        horizon = if counts { horizon.min(since) } else { horizon };
    }
    Ok(horizon)
}

/// The time that a file made now is given.
fn probe(work: &Path) -> Result<SystemTime> {
    let (temp, file) = Temp::create_in(work)?;
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    modified.map_err(StoreError::io("look at", temp.path()))
}

/// The holds of the repository `root` that count no more.
pub(super) fn over(root: &Path) -> Result<Vec<PathBuf>> {
    let directory = directory(root);
    let mut over = Vec::new();
    for name in names_in(&directory)? {
        let path = directory.join(name);
        let is_over = match lock::judge(&path)? {
            None | Some((Standing::Held, _)) => false,
            Some((Standing::LeftBehind, _)) => true,
            Some((Standing::Unknown, since)) => since.elapsed().is_ok_and(|age| age > UNJUDGED_AGE),
        };
        over.extend(is_over.then_some(path));
    }
    Ok(over)
}

/// Bytes of a file that is left.
pub(super) fn size(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.len())
}
