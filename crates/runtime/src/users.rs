//! Who uses a mount: found by names in `/proc`, so a mount that hangs is never touched.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A process that has something of a mount open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub pid: u32,
    /// Its name, as the kernel shortens it.
    pub name: String,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.pid)
    }
}

/// The processes that use what is mounted at `mountpoint`, as far as this user may see.
pub(crate) fn of_mount(mountpoint: &Path) -> Vec<User> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| uses(&PathBuf::from(format!("/proc/{pid}")), mountpoint))
        .map(|pid: u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            User {
                pid,
                name: name.trim_end().to_owned(),
            }
        })
        .collect()
}

fn uses(process: &Path, mountpoint: &Path) -> bool {
    let below = |link: PathBuf| fs::read_link(link).is_ok_and(|path| path.starts_with(mountpoint));
    ["cwd", "root", "exe"]
        .into_iter()
        .any(|name| below(process.join(name)))
        || fs::read_dir(process.join("fd"))
            .is_ok_and(|files| files.flatten().any(|file| below(file.path())))
        || fs::read_to_string(process.join("maps"))
            .is_ok_and(|maps| mapped_files(&maps).any(|path| path.starts_with(mountpoint)))
}

/// The files in a `/proc/<pid>/maps`: `address perms offset dev inode     path`.
fn mapped_files(maps: &str) -> impl Iterator<Item = &Path> {
    maps.lines()
        .filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_what_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let me = std::process::id();
        let found = |users: Vec<User>| users.into_iter().any(|user| user.pid == me);
        assert!(!found(of_mount(directory.path())));
        let _open = fs::File::create(directory.path().join("file")).unwrap();
        assert!(found(of_mount(directory.path())));
    }

    #[test]
    fn mapped_files_are_found_by_their_paths() {
        let maps = "7f00-7f01 r-xp 00000000 00:2d 5                  /mnt/a b/lib.so\n\
                    7ffd-7ffe rw-p 00000000 00:00 0                  [stack]\n";
        let files: Vec<&Path> = mapped_files(maps).collect();
        assert_eq!(files, [Path::new("/mnt/a b/lib.so")]);
    }
}
