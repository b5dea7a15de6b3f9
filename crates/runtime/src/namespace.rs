//! Namespaces of users and of mounts: what `run` needs to show an environment to some processes
//! and to nobody else.
//!
//! Root makes a namespace of mounts and needs no more. Anybody else first makes a namespace of
//! users, in which the user is mapped to itself: every program sees the user it was started by,
//! and the kernel grants the right to mount to whoever made the namespace, until it executes a
//! program. Users and groups other than its own appear as `nobody` there, and set-user-ID
//! programs do not change the user.
//!
//! All of this takes a process with one thread.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use farseek_vfs::fuse::{is_admin, is_in_first_users};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid};

use crate::error::{Result, RuntimeError};

/// Whether this process may make mounts without a namespace of users of its own.
pub fn may_mount() -> bool {
    is_admin()
}

/// Whether this process is in another namespace of users than the machine's own.
pub fn is_of_users() -> bool {
    is_in_first_users().is_ok_and(|first| !first)
}

/// The namespace of mounts of the process `pid` (`self` for this one), as SPFS's records name it:
/// `mnt:[4026531840]`.
///
/// # Errors
/// There is no such process, or it is none of ours.
pub fn mounts_of(pid: &str) -> io::Result<String> {
    let link = fs::read_link(format!("/proc/{pid}/ns/mnt"))?;
    Ok(link.to_string_lossy().into_owned())
}

/// A process in the namespace of mounts `mounts`, of those that this user may see.
pub(crate) fn member_of(mounts: &str) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.find(|number: &u32| mounts_of(&number.to_string()).is_ok_and(|name| name == mounts))
}

/// Puts this process into a new namespace of users, as the user it is.
///
/// # Errors
/// The system lets users make none.
pub fn new_users() -> Result<()> {
    // To be read before: inside, nobody is anybody until there are maps.
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(refused)?;
    let write = |file: &str, text: String| {
        fs::write(Path::new("/proc/self").join(file), text).map_err(|source| {
            RuntimeError::Namespace {
                action: "map this user into a namespace",
                source,
            }
        })
    };
    // Without it no group can be mapped: a group may also be what keeps somebody out.
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{user} {user} 1"))?;
    write("gid_map", format!("{group} {group} 1"))
}

fn refused(errno: Errno) -> RuntimeError {
    RuntimeError::Namespace {
        action: "make a namespace of users, which mounting without being root needs (it may be \
                 turned off: see the sysctls user.max_user_namespaces and \
                 kernel.apparmor_restrict_unprivileged_userns)",
        source: errno.into(),
    }
}

/// Puts this process into the namespace of users of the process `pid`, if it is not there.
///
/// # Errors
/// That process is gone, or is somebody else's.
pub(crate) fn join_users(pid: u32) -> Result<()> {
    if same(pid, "user") {
        return Ok(());
    }
    let join = || -> io::Result<()> {
        let file = fs::File::open(format!("/proc/{pid}/ns/user"))?;
        Ok(setns(file, CloneFlags::CLONE_NEWUSER)?)
    };
    join().map_err(not_entered)
}

/// Puts this process into the namespace of mounts `mounts`, in which the process `pid` is.
///
/// # Errors
/// That process is gone, also where another has its number by now, or is somebody else's.
pub(crate) fn join_mounts(pid: u32, mounts: &str) -> Result<()> {
    let join = || -> io::Result<()> {
        let file = fs::File::open(format!("/proc/{pid}/ns/mnt"))?;
        // What is open is looked at: it stays what it is.
        let name = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        match name == Path::new(mounts) {
            true => Ok(setns(file, CloneFlags::CLONE_NEWNS)?),
            false => Err(io::Error::other("the process that was in them has ended")),
        }
    };
    join().map_err(not_entered)
}

fn same(pid: u32, kind: &str) -> bool {
    let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
    matches!((link("self"), link(&pid.to_string())), (Ok(ours), Ok(theirs)) if ours == theirs)
}

fn not_entered(source: io::Error) -> RuntimeError {
    RuntimeError::Namespace {
        action: "enter the namespaces of the runtime",
        source,
    }
}

/// Puts this process into a new namespace of mounts. What is mounted inside is not seen outside;
/// what is mounted outside still appears inside.
///
/// # Errors
/// The system refuses.
pub(crate) fn new_mounts() -> Result<()> {
    let failed = |errno: Errno| RuntimeError::Namespace {
        action: "make a namespace of mounts",
        source: errno.into(),
    };
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(failed)
}

/// Mounts `directory` onto itself, in the namespace of mounts of this process: whoever is in it, or
/// in one that was made from it, is known by that.
///
/// # Errors
/// The system refuses.
pub(crate) fn mark(directory: &Path) -> Result<()> {
    let (kind, data) = (None::<&str>, None::<&str>);
    let marked = mount(Some(directory), directory, kind, MsFlags::MS_BIND, data);
    marked.map_err(|errno| RuntimeError::Namespace {
        action: "mark the namespace of mounts as the runtime's",
        source: errno.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_of_mounts_has_a_name() {
        let name = mounts_of("self").unwrap();
        assert!(name.starts_with("mnt:[") && name.ends_with(']'), "{name}");
        assert_eq!(mounts_of(&std::process::id().to_string()).unwrap(), name);
        assert!(mounts_of("0").is_err());
        assert!(join_mounts(std::process::id(), "mnt:[0]").is_err());
    }
}
