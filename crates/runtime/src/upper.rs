//! Undoing changes in the upper directory of an overlay, which must not be mounted meanwhile.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::lgetxattr;

/// The attributes by which an overlay marks a directory through which nothing is seen.
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// What is in an upper directory at some path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    /// A directory that is shown together with what is below it.
    Merged,
    /// A directory through which nothing below is seen.
    Opaque,
    /// Anything else: what is below is hidden.
    Other,
}

/// What to do about a path.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Go on into the directory.
    Descend,
    /// Remove what is here.
    Remove,
    /// There is nothing to undo.
    Nothing,
    /// The change is one of this directory as a whole.
    Higher,
}

fn step(found: Found, is_last: bool) -> Step {
    match (found, is_last) {
        (Found::Nothing, _) => Step::Nothing,
        (_, true) => Step::Remove,
        (Found::Merged, false) => Step::Descend,
        (Found::Opaque | Found::Other, false) => Step::Higher,
    }
}

/// Undoes what `upper` changes at `path`, relative to its root, and below it.
pub(crate) fn undo(upper: &Path, path: &Path) -> Result<(), String> {
    let names = names(path)?;
    let mut at = upper.to_owned();
    for (position, name) in names.iter().enumerate() {
        at.push(name);
        let found = look_at(&at).map_err(|error| told(path, &error))?;
        match step(found, position + 1 == names.len()) {
            Step::Descend => {}
            Step::Nothing => return Ok(()),
            Step::Remove => return remove(&at).map_err(|error| told(path, &error)),
            Step::Higher => {
                let whole: PathBuf = names[..=position].iter().collect();
                return Err(format!(
                    "{} has been replaced or removed as a whole: reset that",
                    whole.display()
                ));
            }
        }
    }
    Ok(())
}

fn told(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// The names of a path within the environment.
fn names(path: &Path) -> Result<Vec<&OsStr>, String> {
    let parts = path.components();
    let names = parts.filter(|part| !matches!(part, Component::CurDir));
    let names = names.map(|part| match part {
        Component::Normal(name) => Ok(name),
        _ => Err(format!("{} is not within the environment", path.display())),
    });
    names.collect()
}

fn look_at(path: &Path) -> io::Result<Found> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        found => found?,
    };
    if !metadata.is_dir() {
        return Ok(Found::Other);
    }
    let is_opaque = |name| {
        let mut value = [0; 1];
        matches!(lgetxattr(path, name, &mut value), Ok(1) if value == *b"y")
    };
    Ok(match OPAQUE.into_iter().any(is_opaque) {
        true => Found::Opaque,
        false => Found::Merged,
    })
}

/// Removes a file or a directory with all that is in it, whatever its modes.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return fs::remove_file(path);
    }
    open_up(path)?;
    fs::remove_dir_all(path)
}

/// Lets the owner into every directory. Links are not followed.
pub(crate) fn open_up(directory: &Path) -> io::Result<()> {
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        if fs::symlink_metadata(&directory)?.mode() & 0o700 != 0o700 {
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        }
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_undone_where_it_was_made() {
        use Found::{Merged, Nothing, Opaque, Other};
        for found in [Merged, Opaque, Other] {
            assert_eq!(step(found, true), Step::Remove, "{found:?}");
        }
        assert_eq!(step(Merged, false), Step::Descend);
        assert_eq!(step(Opaque, false), Step::Higher);
        assert_eq!(step(Other, false), Step::Higher);
        assert_eq!(step(Nothing, false), Step::Nothing);
        assert_eq!(step(Nothing, true), Step::Nothing);
    }

    #[test]
    fn only_paths_within_are_undone() {
        let upper = tempfile::tempdir().unwrap();
        let file = |name: &str| upper.path().join(name);
        fs::create_dir_all(file("a/b")).unwrap();
        fs::write(file("a/b/c"), "x").unwrap();
        fs::write(file("a/d"), "x").unwrap();
        for path in ["..", "a/../a", "/a"] {
            let said = undo(upper.path(), Path::new(path)).unwrap_err();
            assert!(said.contains("within"), "{said}");
        }
        undo(upper.path(), Path::new("./a/b")).unwrap();
        undo(upper.path(), Path::new("a/none/x")).unwrap();
        assert!(!file("a/b").exists() && file("a/d").exists());
        let said = undo(upper.path(), Path::new("a/d/x")).unwrap_err();
        assert!(said.contains("a/d"), "{said}");
    }

    #[test]
    fn directories_that_are_closed_go_as_well() {
        let upper = tempfile::tempdir().unwrap();
        let closed = upper.path().join("closed");
        fs::create_dir_all(closed.join("x/y")).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        remove(&closed).unwrap();
        assert_eq!(fs::read_dir(upper.path()).unwrap().count(), 0);
    }
}
