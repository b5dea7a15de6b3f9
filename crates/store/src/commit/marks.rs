//! The marks that the kernel's overlay leaves in its upper directory, in extended attributes:
//! `trusted.overlay.*`, or `user.overlay.*` where it was mounted in a namespace of users.
//!
//! Ours are never mounted with `redirect_dir` or `metacopy`; those of others may be, and what they
//! leave is not understood without what is below: it is refused.

use std::path::Path;

use rustix::fs::lgetxattr;
use rustix::io::Errno;

/// Both families of names.
const FAMILIES: [&str; 2] = ["trusted.overlay.", "user.overlay."];

/// More than any value that is compared.
const VALUE_MAX: usize = 8;

/// What a directory of an upper directory says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct DirectoryMarks {
    /// Nothing of what is below it is seen.
    pub(super) opaque: bool,
    /// Empty files in it may stand for deletions.
    pub(super) has_file_whiteouts: bool,
}

/// The marks of the directory at `path`, or why it cannot be understood.
pub(super) fn of_directory(path: &Path) -> Result<DirectoryMarks, String> {
    if value(path, "redirect")?.is_some() {
        return Err("it was moved by reference (redirect_dir), which cannot be stored".to_owned());
    }
    let opaque = value(path, "opaque")?;
    Ok(DirectoryMarks {
        opaque: opaque.as_deref() == Some(b"y"),
        has_file_whiteouts: opaque.as_deref() == Some(b"x"),
    })
}

/// Refuses a file that has only its attributes in the upper directory.
pub(super) fn check_whole(path: &Path) -> Result<(), String> {
    match value(path, "metacopy")? {
        None => Ok(()),
        Some(_) => Err("its contents are still below (metacopy), and cannot be stored".to_owned()),
    }
}

/// Whether the empty file at `path` stands for a deletion.
pub(super) fn is_whiteout(path: &Path) -> Result<bool, String> {
    Ok(value(path, "whiteout")?.is_some())
}

/// The beginning of the attribute `name` of either family.
fn value(path: &Path, name: &str) -> Result<Option<Vec<u8>>, String> {
    for family in FAMILIES {
        let mut buffer = [0; VALUE_MAX];
        match lgetxattr(path, format!("{family}{name}"), &mut buffer) {
            Ok(length) => return Ok(Some(buffer[..length].to_vec())),
            // A long one is there all the same.
            Err(Errno::RANGE) => return Ok(Some(Vec::new())),
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => {}
            Err(error) => return Err(format!("its overlay marks cannot be read: {error}")),
        }
    }
    Ok(None)
}
