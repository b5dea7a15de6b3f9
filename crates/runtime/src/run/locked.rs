//! The lock on a directory of changes that is kept.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Result, RuntimeError};
use crate::kept::{Kept, KeptId};
use crate::overlay::Upper;

/// How long the host of a runtime that has ended may take to tidy up.
const TO_TIDY_UP: Duration = Duration::from_secs(7);

/// How often to look whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Claims an upper directory that is kept: two overlays must not share one. Waits a little for a
/// runtime that has ended and is tidied up.
pub(super) async fn lock(upper: Option<&Upper>) -> Result<Option<(Flock<File>, KeptId)>> {
    let Some(Upper::Kept(place)) = upper else {
        return Ok(None);
    };
    let refused = |error: &dyn std::fmt::Display| RuntimeError::Overlay {
        path: place.clone(),
        reason: error.to_string(),
    };
    let (mut file, id) = lock_file(place).map_err(|error| refused(&error))?;
    let deadline = Instant::now() + TO_TIDY_UP;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some((lock, id))),
            Err((back, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file = back,
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(refused(&"it is in use by another runtime"));
            }
            Err((_, errno)) => return Err(refused(&errno.desc())),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The file that claims the upper directory `place`, both of which are made if need be, and which
/// directory that is.
fn lock_file(place: &Path) -> io::Result<(File, KeptId)> {
    let kept = Kept::make(place)?;
    Ok((kept.file("lock")?, kept.id()?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_kept_directory_leads_nowhere_else() {
        let base = tempfile::tempdir().unwrap();
        let (place, foreign) = (base.path().join("kept/name"), base.path().join("foreign"));
        lock_file(&place).unwrap();
        lock_file(&place).unwrap();
        fs::write(&foreign, "theirs").unwrap();
        let lock = place.join("lock");
        fs::remove_file(&lock).unwrap();
        std::os::unix::fs::symlink(&foreign, &lock).unwrap();
        assert!(lock_file(&place).is_err());
        assert_eq!(fs::read_to_string(&foreign).unwrap(), "theirs");
        let link = place.with_file_name("link");
        std::os::unix::fs::symlink(base.path(), &link).unwrap();
        assert!(lock_file(&link).is_err());
        assert!(!base.path().join("lock").exists());
    }
}
