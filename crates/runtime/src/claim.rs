//! Who has the directory of a runtime: its host, by a lock on the directory itself.
//!
//! The kernel drops the lock when the host has ended, however it ended, so it needs no judging: a
//! directory whose lock is held is in use, whatever a record says, which others may have written;
//! one whose lock is free is nobody's, also where no record names it, because the host was killed
//! before it had written one, or after it had removed it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

/// How often a directory may be taken away by another before it is claimed. Whoever takes away
/// what is nobody's does so once.
const TRIES: usize = 100;

/// The claim of this process on a directory, until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    lock: Flock<File>,
}

impl Claim {
    /// Makes the directory `path`, for this user alone, and claims it.
    ///
    /// # Errors
    /// It is there, or the system refuses.
    pub(crate) fn make(path: &Path) -> io::Result<Self> {
        for _ in 0..TRIES {
            DirBuilder::new().mode(0o700).create(path)?;
            // Until it is claimed it is nobody's, and may be taken away as such.
            match open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => {
                    let lock = Flock::lock(file?, FlockArg::LockExclusive);
                    let claim = Self {
                        lock: lock.map_err(|(_, errno)| errno)?,
                    };
                    if claim.is_of(path)? {
                        return Ok(claim);
                    }
                }
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// Claims the directory `path`, which is there. `None` where another process has it.
    ///
    /// # Errors
    /// It is not there, or is none.
    pub(crate) fn take(path: &Path) -> io::Result<Option<Self>> {
        match Flock::lock(open(path)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                let claim = Self { lock };
                let is_there = claim.is_of(path)?;
                is_there
                    .then_some(Some(claim))
                    .ok_or_else(|| io::ErrorKind::NotFound.into())
            }
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }

    /// Whether another process has the directory `path`. Who only asks is in nobody's way who asks,
    /// too.
    pub(crate) fn is_taken(path: &Path) -> bool {
        let asked = open(path).map(|file| Flock::lock(file, FlockArg::LockSharedNonblock));
        matches!(asked, Ok(Err((_, Errno::EWOULDBLOCK))))
    }

    /// Whether `path` still is the directory that was claimed.
    fn is_of(&self, path: &Path) -> io::Result<bool> {
        let ours = self.lock.metadata()?;
        match fs::symlink_metadata(path) {
            Ok(found) => Ok((found.dev(), found.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.bits()).open(path)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn a_directory_is_one_process_s_until_that_has_ended() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("name");
        assert!(Claim::take(&path).is_err());
        let claim = Claim::make(&path).unwrap();
        assert!(Claim::make(&path).is_err());
        assert!(Claim::take(&path).unwrap().is_none());
        assert!(Claim::is_taken(&path));
        drop(claim);
        assert!(!Claim::is_taken(&path));
        assert!(Claim::take(&path).unwrap().is_some());
        fs::write(base.path().join("file"), "").unwrap();
        assert!(Claim::take(&base.path().join("file")).is_err());
    }

    #[test]
    fn who_makes_one_and_who_takes_away_what_is_nobodys_do_not_meet() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("name");
        let is_over = AtomicBool::new(false);
        let make = || loop {
            match Claim::make(&path) {
                // The other never rests, as nobody does who takes away what is nobody's.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                made => return made,
            }
        };
        thread::scope(|scope| {
            let _end = End(&is_over);
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    if let Ok(Some(_claim)) = Claim::take(&path) {
                        let _ = fs::remove_dir(&path);
                    }
                }
            });
            for _ in 0..2_000 {
                let claim = make().unwrap();
                fs::write(path.join("file"), "").unwrap();
                assert!(claim.is_of(&path).unwrap());
                fs::remove_dir_all(&path).unwrap();
            }
        });
    }

    /// Says that it is over, also where a test fails.
    struct End<'a>(&'a AtomicBool);

    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
