//! Whether somebody is where a record says that its runtime is.
//!
//! A namespace's number is given again as soon as it is free, and whoever is in a runtime may make
//! namespaces of its own, which have the same mounts. So a runtime of ours has a mark in its list of
//! mounts, its own directory mounted onto itself ([`namespace::mark`](crate::namespace::mark)), and
//! everybody may read the list of every process, root's too. SPFS's runtimes have none: of them the
//! number has to do, and who may not look at everybody cannot tell.
//!
//! Who is not shown to us at all, in a `/proc` that hides other users or from outside of this PID
//! namespace, could have entered a runtime of ours as root only.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use farseek_vfs::fuse::parse_mountinfo;

use super::host::Host;

/// The PID namespace that every process of a host is in: `PROC_PID_INIT_INO` of Linux.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// The process that a host starts with.
const FIRST_PROCESS: u32 = 1;

/// Where a runtime is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// In the mount namespace of this name, like `mnt:[4026532177]`.
    Namespace(&'a str),
    /// Wherever this directory of a runtime of ours is mounted.
    Directory(&'a Path),
}

/// Whether somebody is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Somebody is.
    Somebody,
    /// Nobody is: every process was looked at.
    Nobody,
    /// We may not look at everybody.
    Unknown,
}

impl Host {
    /// Whether a process of this host is in `place`.
    pub fn users_of(&self, place: Place<'_>) -> Presence {
        let looked = match place {
            Place::Namespace(namespace) => self.users_of_namespace(namespace),
            // Who has ended when we come to it may have started one that we have passed.
            Place::Directory(directory) => match users_of_directory(directory) {
                Ok(Presence::Nobody) => users_of_directory(directory),
                looked => looked,
            },
        };
        looked.unwrap_or(Presence::Unknown)
    }

    fn users_of_namespace(&self, namespace: &str) -> io::Result<Presence> {
        let (mut saw_first, mut saw_all) = (false, true);
        for pid in processes()? {
            saw_first |= pid == FIRST_PROCESS;
            match fs::read_link(format!("/proc/{pid}/ns/mnt")) {
                Ok(link) if link.to_str() == Some(namespace) => {
                    return Ok(Presence::Somebody);
                }
                Ok(_) => {}
                // It has ended meanwhile, or is about to.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // It was there before any runtime was, and may have more rights than we.
                Err(_) if pid == FIRST_PROCESS => {}
                Err(_) => saw_all = false,
            }
        }
        // Who is not shown the first process is not shown all the others either.
        Ok(
            match saw_first && saw_all && self.pid_namespace == FIRST_PID_NAMESPACE {
                true => Presence::Nobody,
                false => Presence::Unknown,
            },
        )
    }
}

/// The numbers of all processes that we are shown.
fn processes() -> io::Result<impl Iterator<Item = u32>> {
    let names = fs::read_dir("/proc")?.flatten();
    Ok(names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

fn users_of_directory(directory: &Path) -> io::Result<Presence> {
    // The list has no links. One that is gone is compared as it was written down.
    let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let mut seen = HashSet::new();
    for pid in processes()? {
        let process = PathBuf::from(format!("/proc/{pid}"));
        // Most processes are in a few namespaces; but one with a root of its own sees less.
        let is_plain = fs::read_link(process.join("root")).is_ok_and(|root| root == Path::new("/"));
        let namespace = fs::read_link(process.join("ns/mnt")).ok();
        let namespace = namespace.filter(|_| is_plain);
        if namespace.as_ref().is_some_and(|name| seen.contains(name)) {
            continue;
        }
        match is_marked(&process, &directory) {
            Some(true) => return Ok(Presence::Somebody),
            Some(false) => seen.extend(namespace),
            // It has ended.
            None => {}
        }
    }
    Ok(Presence::Nobody)
}

/// Whether `directory` is a mount to `process`, or, where its first thread has ended, to another.
/// `None` where nobody is left to have mounts.
fn is_marked(process: &Path, directory: &Path) -> Option<bool> {
    if let Ok(list) = fs::read(process.join("mountinfo")) {
        return Some(has(&list, directory));
    }
    let threads = fs::read_dir(process.join("task")).ok()?.flatten();
    let mut lists = threads.filter_map(|thread| fs::read(thread.path().join("mountinfo")).ok());
    lists.next().map(|list| has(&list, directory))
}

fn has(list: &[u8], directory: &Path) -> bool {
    let mounts = parse_mountinfo(list);
    mounts.iter().any(|mount| mount.mountpoint == directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_in_its_own_namespace() {
        let host = Host::current().unwrap();
        let mine = host.mount_namespace().unwrap();
        let users = |name: &str| host.users_of(Place::Namespace(name));
        assert_eq!(users(&mine), Presence::Somebody);
        assert_ne!(users("mnt:[1]"), Presence::Somebody);
    }

    #[test]
    fn whoever_has_a_directory_mounted_is_in_it() {
        let host = Host::current().unwrap();
        let users = |path: &Path| host.users_of(Place::Directory(path));
        // Every process has this one, with and without a link on the way.
        let place = tempfile::tempdir().unwrap();
        let link = place.path().join("link");
        std::os::unix::fs::symlink("/proc", &link).unwrap();
        assert_eq!(users(Path::new("/proc")), Presence::Somebody);
        assert_eq!(users(&link), Presence::Somebody);
        assert_eq!(users(place.path()), Presence::Nobody);
        assert_eq!(users(&place.path().join("none")), Presence::Nobody);
    }
}
