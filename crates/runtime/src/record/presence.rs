//! Whether somebody is where a record says that its runtime is.
//!
//! A namespace's number is given again as soon as it is free, and whoever is in a runtime may make
//! namespaces of its own, which have the same mounts. So a runtime of ours has a mark in its list of
//! mounts, its own directory mounted onto itself ([`namespace::mark`](crate::namespace::mark)), and
//! everybody may read the list of every process, root's too. SPFS's runtimes have none: of them the
//! number has to do, and who may not look at everybody cannot tell.
//!
//! Where `/proc` hides other users nothing can be told. Who is not shown to us from outside of this
//! PID namespace could have entered a runtime of ours as root only.
//!
//! The list of a process with a root of its own (`chroot`) has no mark: such a one is known by the
//! number of its namespace. Not found is who has made another root of mounts for itself
//! (`pivot_root`) in a namespace of its own and has let go of ours, once all others have ended.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use farseek_vfs::fuse::parse_mountinfo;
use nix::errno::Errno;

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
    /// Wherever this directory of a runtime of ours is mounted: a path without links.
    Directory(&'a Path),
    /// In the mount namespace of this name, with a root of one's own.
    Confined(&'a str),
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
            Place::Directory(_) | Place::Confined(_) => Ok(match Seen::now().users_of(place) {
                Presence::Nobody => Seen::now().users_of(place),
                looked => looked,
            }),
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

/// What the processes of this host have mounted, as far as we are shown: one look at all of them.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Where anything is mounted to anybody.
    points: HashSet<PathBuf>,
    /// The namespaces of mounts of those that have a root of their own.
    confined: HashSet<PathBuf>,
    /// Whether we were shown everybody, and what they have.
    saw_all: bool,
}

impl Seen {
    /// Looks at every process.
    pub(super) fn now() -> Self {
        let Ok(processes) = processes() else {
            return Self::default();
        };
        let mut seen = Self {
            saw_all: true,
            ..Self::default()
        };
        let (mut saw_first, mut namespaces, mut lists) = (false, HashSet::new(), HashSet::new());
        for pid in processes {
            saw_first |= pid == FIRST_PROCESS;
            let process = PathBuf::from(format!("/proc/{pid}"));
            // Most processes are in a few namespaces; but one with a root of its own sees less.
            let root = fs::read_link(process.join("root")).ok();
            let is_plain = root.as_deref().map(|root| root == Path::new("/"));
            let namespace = fs::read_link(process.join("ns/mnt")).ok();
            match (is_plain, &namespace) {
                (Some(true), Some(namespace)) if namespaces.contains(namespace) => continue,
                (Some(false), Some(namespace)) => drop(seen.confined.insert(namespace.clone())),
                _ => {}
            }
            match mounts_of(&process) {
                Ok(Some(list)) => {
                    if !lists.contains(&list) {
                        let mounts = parse_mountinfo(&list).into_iter();
                        seen.points.extend(mounts.map(|mount| mount.mountpoint));
                        lists.insert(list);
                    }
                    namespaces.extend(namespace.filter(|_| is_plain == Some(true)));
                }
                // It has ended.
                Ok(None) => {}
                Err(_) => seen.saw_all = false,
            }
        }
        // Who is not shown the first process is not shown all the others either.
        seen.saw_all &= saw_first;
        seen
    }

    /// Whether anybody was in `place` then. Of a namespace alone it says nothing.
    pub(super) fn users_of(&self, place: Place<'_>) -> Presence {
        let is_there = match place {
            Place::Directory(directory) => self.points.contains(directory),
            Place::Confined(namespace) => self.confined.contains(Path::new(namespace)),
            Place::Namespace(_) => return Presence::Unknown,
        };
        match (is_there, self.saw_all) {
            (true, _) => Presence::Somebody,
            (false, true) => Presence::Nobody,
            (false, false) => Presence::Unknown,
        }
    }
}

/// The list of mounts of `process`, or, where its first thread has ended, of another. `None` where
/// nobody is left to have mounts.
fn mounts_of(process: &Path) -> io::Result<Option<Vec<u8>>> {
    if let Some(list) = unless_ended(fs::read(process.join("mountinfo")))? {
        return Ok(Some(list));
    }
    let Some(threads) = unless_ended(fs::read_dir(process.join("task")))? else {
        return Ok(None);
    };
    for thread in threads.flatten() {
        if let Some(list) = unless_ended(fs::read(thread.path().join("mountinfo")))? {
            return Ok(Some(list));
        }
    }
    Ok(None)
}

/// What `/proc` answers, but for what it says of who has ended.
fn unless_ended<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    let has_ended = |error: &io::Error| {
        let errno = error.raw_os_error().map(Errno::from_raw);
        matches!(errno, Some(Errno::ENOENT | Errno::ESRCH | Errno::EINVAL))
    };
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if has_ended(&error) => Ok(None),
        Err(error) => Err(error),
    }
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
        // Every process has this one.
        let place = tempfile::tempdir().unwrap();
        assert_eq!(users(Path::new("/proc")), Presence::Somebody);
        assert_eq!(users(place.path()), Presence::Nobody);
        assert_eq!(users(&place.path().join("none")), Presence::Nobody);
    }

    #[test]
    fn what_is_hidden_is_not_nobody() {
        let directory = Place::Directory(Path::new("/run/r"));
        let mut seen = Seen {
            saw_all: true,
            ..Seen::default()
        };
        assert_eq!(seen.users_of(directory), Presence::Nobody);
        seen.saw_all = false;
        assert_eq!(seen.users_of(directory), Presence::Unknown);
        seen.points.insert("/run/r".into());
        assert_eq!(seen.users_of(directory), Presence::Somebody);
        let refused = |errno: Errno| unless_ended::<()>(Err(errno.into()));
        assert!(refused(Errno::ESRCH).unwrap().is_none());
        assert!(refused(Errno::EACCES).is_err() && refused(Errno::EPERM).is_err());
    }
}
