//! Directories that nobody else can put anything into.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::geteuid;

/// Sees that `directory` is one, and this user's alone to write to. In one of others, they could
/// put something else in the place of what is made there or taken away.
///
/// # Errors
/// It is not, or it is not there.
pub(crate) fn check(directory: &Path) -> io::Result<()> {
    check_metadata(&fs::symlink_metadata(directory)?, directory)
}

/// As [`check`], of the directory of a runtime, and of the one that is in.
///
/// # Errors
/// One of them is not.
pub(crate) fn check_runtime(directory: &Path) -> io::Result<()> {
    check(directory.parent().unwrap_or(Path::new("/")))?;
    check(directory)
}

/// As [`check`], of a directory that is open; errors call it `shown`.
///
/// # Errors
/// It is not.
pub(crate) fn check_open(directory: &File, shown: &Path) -> io::Result<()> {
    check_metadata(&directory.metadata()?, shown)
}

fn check_metadata(metadata: &Metadata, directory: &Path) -> io::Result<()> {
    let is_ours =
        metadata.is_dir() && metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o022 == 0;
    match is_ours {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} is not this user's alone to write to",
                directory.display()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_a_directory_that_nobody_else_may_write_to_is_private() {
        let base = tempfile::tempdir().unwrap();
        let (path, link) = (base.path().join("a"), base.path().join("b"));
        fs::create_dir(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o755);
        check(&path).unwrap();
        assert!(check(&link).is_err());
        for open in [0o775, 0o757, 0o777] {
            mode(open);
            assert!(check(&path).is_err(), "{open:o}");
        }
        assert!(check(&base.path().join("none")).is_err());
    }
}
