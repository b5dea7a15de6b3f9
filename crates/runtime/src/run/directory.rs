//! The directory of a runtime on the host: where its memory is mounted inside its namespace, and
//! its startup file. It is the user's alone; seen from outside it holds that file, and what an overlay
//! of renders needs, where there is one.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::claim::Claim;
use crate::error::{Result, RuntimeError};
use crate::layers;
use crate::private;
use crate::record::remove_tree;
use crate::startup::CSH_STARTUP_FILE;

/// The startup file of an interactive shell, in the runtime's directory.
pub const STARTUP_FILE: &str = "startup.sh";

/// The name of the socket at which the host is asked for something.
pub(super) const SOCKET: &str = "control";

/// A runtime's directory, claimed by this process, and removed when this goes.
#[derive(Debug)]
pub(super) struct RuntimeDirectory {
    path: PathBuf,
    /// Whether it stays.
    left: bool,
    /// Dropped when the directory is gone.
    _claim: Claim,
}

impl RuntimeDirectory {
    /// Makes the directory `name` in `base`, which is made too if need be.
    ///
    /// # Errors
    /// `base` is somebody else's, or there is a runtime of this name, which somebody may be in.
    pub(super) fn create(base: &Path, name: &str) -> Result<Self> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => RuntimeError::Occupied {
                name: name.to_owned(),
            },
            _ => RuntimeError::Directory {
                path: base.join(name),
                source,
            },
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(base)
            .map_err(failed)?;
        private::check(base).map_err(failed)?;
        // As lists of mounts name it, whoever reads them.
        let path = base.canonicalize().map_err(failed)?.join(name);
        let claim = Claim::make(&path).map_err(failed)?;
        Ok(Self {
            path,
            left: false,
            _claim: claim,
        })
    }

    /// Leaves it where it is, claimed by nobody.
    pub(super) fn leave(mut self) {
        self.left = true;
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether `path` may be the directory of a runtime: it is empty, or something of one is in it.
/// Others may have put theirs beside it.
pub(crate) fn is_of_runtime(path: &Path) -> bool {
    let names = [SOCKET, STARTUP_FILE, CSH_STARTUP_FILE, layers::LIST];
    let is_there = |name: &str| path.join(name).symlink_metadata().is_ok();
    let is_directory = path.symlink_metadata().is_ok_and(|found| found.is_dir());
    let is_empty = || fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    is_directory && (names.into_iter().any(is_there) || is_empty())
}

impl Drop for RuntimeDirectory {
    fn drop(&mut self) {
        if !self.left
            && let Err(error) = remove(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "left behind");
        }
    }
}

/// Removes the directory of a runtime that has ended. One that is gone is no error.
///
/// # Errors
/// The system refuses.
fn remove(path: &Path) -> io::Result<()> {
    // It may hold directories that even their owner may not look into.
    remove_tree(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn it_goes_with_its_guard() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().join("a/b");
        let directory = RuntimeDirectory::create(&base, "name").unwrap();
        fs::write(directory.path().join("startup.sh"), "").unwrap();
        assert_eq!(
            fs::metadata(directory.path()).unwrap().mode() & 0o777,
            0o700
        );
        let error = RuntimeDirectory::create(&base, "name").unwrap_err();
        assert!(error.to_string().contains("runtime name:"), "{error}");
        drop(directory);
        assert_eq!(fs::read_dir(&base).unwrap().count(), 0);
        remove(&base.join("name")).unwrap();
    }

    #[test]
    fn it_is_called_as_lists_of_mounts_call_it() {
        let base = tempfile::tempdir().unwrap();
        let real = base.path().canonicalize().unwrap();
        fs::create_dir(real.join("real")).unwrap();
        std::os::unix::fs::symlink("real", real.join("link")).unwrap();
        let directory = RuntimeDirectory::create(&real.join("link/base"), "name").unwrap();
        assert_eq!(directory.path(), real.join("real/base/name"));
    }

    #[test]
    fn what_is_of_no_runtime_is_told_from_what_is() {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| base.path().join(name);
        for name in ["empty", "left", "theirs"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("left").join(SOCKET), "").unwrap();
        fs::write(at("theirs").join("file"), "").unwrap();
        fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink(at("left"), at("link")).unwrap();
        assert!(is_of_runtime(&at("empty")) && is_of_runtime(&at("left")));
        for name in ["theirs", "file", "link", "none"] {
            assert!(!is_of_runtime(&at(name)), "{name}");
        }
    }

    #[test]
    fn a_base_that_others_may_write_to_is_refused() {
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(RuntimeDirectory::create(base.path(), "name").is_err());
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }
}
