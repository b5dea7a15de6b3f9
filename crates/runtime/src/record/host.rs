//! Which host this is, since when, and who is on it: what a record says, and what it is judged by.

use std::fs;
use std::io;

use chrono::{DateTime, Utc};
pub use farseek_store::Process;
use nix::unistd::{gethostname, getpid};
use serde::{Deserialize, Serialize};

use crate::error::{Result, RuntimeError};

/// A host, at a time since its boot, as the processes of one PID namespace see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// What `/etc/machine-id` says, where it does. Hosts that were copied may share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// The kernel's random name of the time since boot: no two boots of any hosts share it.
    pub boot: String,
    /// When that was: of this host, for judging. Never in a record, for clocks are set.
    #[serde(skip)]
    pub booted: Option<DateTime<Utc>>,
    /// The PID namespace, like `pid:[4026531836]`: numbers mean something in it alone.
    pub pid_namespace: String,
    /// The time namespace, where there are any: start times are shifted by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_namespace: Option<String>,
}

/// A process beyond doubt: numbers are used again, but not with the same start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    /// When it was started, in clock ticks since boot.
    pub start: u64,
}

impl Host {
    /// This host as this process sees it.
    ///
    /// # Errors
    /// `/proc` does not say who we are.
    pub fn current() -> Result<Self> {
        let failed = |source| RuntimeError::Daemon {
            action: "find out which host this is",
            source,
        };
        let number = fs::read_link("/proc/self").map_err(failed)?;
        if number.to_str() != Some(getpid().to_string().as_str()) {
            let words = "/proc is of another PID namespace";
            return Err(failed(io::Error::other(words)));
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(failed)?;
        let pid_namespace = fs::read_link("/proc/self/ns/pid").map_err(failed)?;
        let name = gethostname().map_err(|errno| failed(errno.into()))?;
        let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let machine = Some(machine.trim().to_owned()).filter(|id| !id.is_empty());
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            machine,
            boot: boot.trim().to_owned(),
            booted: fs::read_to_string("/proc/stat")
                .ok()
                .and_then(|stat| boot_time(&stat)),
            pid_namespace: pid_namespace.to_string_lossy().into_owned(),
            time_namespace: link("/proc/self/ns/time"),
        })
    }

    /// This process's mount namespace.
    pub(super) fn mount_namespace(&self) -> Option<String> {
        link("/proc/self/ns/mnt")
    }

    /// Looks up a process number of this process's PID namespace.
    pub fn process(&self, pid: i32) -> Process {
        if pid <= 0 {
            return Process::Gone;
        }
        Process::find(pid)
    }
}

impl ProcessId {
    /// This process.
    ///
    /// # Errors
    /// `/proc` does not say who we are.
    pub fn current() -> Result<Self> {
        Self::of(getpid().as_raw()).ok_or_else(|| RuntimeError::Daemon {
            action: "find out who this process is",
            source: io::Error::from(io::ErrorKind::NotFound),
        })
    }

    /// The process with the number `pid`, where it is there and may be looked at.
    pub fn of(pid: i32) -> Option<Self> {
        match Process::look_at(&pid.to_string()) {
            Process::Started(start) => Some(Self { pid, start }),
            _ => None,
        }
    }
}

fn link(path: &str) -> Option<String> {
    Some(fs::read_link(path).ok()?.to_string_lossy().into_owned())
}

/// The line `btime` of `/proc/stat`: seconds since 1970.
fn boot_time(stat: &str) -> Option<DateTime<Utc>> {
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    DateTime::from_timestamp(seconds.trim().parse().ok()?, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_here() {
        let host = Host::current().unwrap();
        let me = ProcessId::current().unwrap();
        assert_eq!(host.process(me.pid), Process::Started(me.start));
        assert_eq!(host.process(0), Process::Gone);
        assert_eq!(host.process(-1), Process::Gone);
        let booted = host.booted.unwrap();
        assert!(
            booted < Utc::now() && booted > DateTime::UNIX_EPOCH,
            "{booted}"
        );
    }

    #[test]
    fn a_process_that_has_ended_is_gone_before_it_is_waited_for() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let host = Host::current().unwrap();
        let is_gone = || host.process(pid) == Process::Gone;
        farseek_testkit::wait_until("it is gone", std::time::Duration::from_secs(60), is_gone);
        child.wait().unwrap();
        assert_eq!(host.process(pid), Process::Gone);
    }

    #[test]
    fn the_boot_has_a_time() {
        let time = boot_time("cpu 1 2\nbtime 1000000000\nprocesses 3\n").unwrap();
        assert_eq!(time.to_rfc3339(), "2001-09-09T01:46:40+00:00");
        assert_eq!(boot_time("cpu 1 2\n"), None);
    }
}
