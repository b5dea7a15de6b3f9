//! Who holds a tag's lock, and whether that process can still be there.
//!
//! SPFS leaves its lock files empty and ignores what is in them. We write one line that names
//! the process beyond doubt: a pid may be used again, and means another process in another PID
//! namespace or on another host.

use std::fmt;
use std::fs;
use std::time::Duration;

use nix::unistd;

use crate::process::Process;

/// A lock that names nobody is left by SPFS, which holds one for milliseconds.
const NAMELESS_AGE: Duration = Duration::from_secs(600);

/// A host needs longer than this to boot, so a younger lock of "another boot" is of another host
/// with the same name.
const BOOT_AGE: Duration = Duration::from_secs(60);

/// A process, at a time, on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    /// Its id in `namespace`.
    pub(super) pid: i32,
    /// When it was started, in clock ticks since boot.
    pub(super) start: u64,
    /// The kernel's random name of the time since boot.
    pub(super) boot: String,
    /// The PID namespace.
    pub(super) namespace: String,
    /// The host's name.
    pub(super) host: String,
}

impl Owner {
    /// This process; `None` where `/proc` does not say who we are.
    pub(super) fn current() -> Option<Self> {
        let Process::Started(start) = Process::look_at("self") else {
            return None;
        };
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
        let host = unistd::gethostname().ok()?;
        Some(Self {
            pid: unistd::getpid().as_raw(),
            start,
            boot: word(boot.trim()),
            namespace: word(&namespace.to_string_lossy()),
            host: word(&host.to_string_lossy()),
        })
    }

    /// Reads what [`fmt::Display`] wrote.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_suffix('\n')?.split(' ');
        let owner = Self {
            pid: words.next()?.parse().ok().filter(|&pid| pid > 0)?,
            host: words.next()?.into(),
            boot: words.next()?.into(),
            start: words.next()?.parse().ok()?,
            namespace: words.next()?.into(),
        };
        words.next().is_none().then_some(owner)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pid,
            start,
            boot,
            namespace,
            host,
        } = self;
        writeln!(f, "{pid} {host} {boot} {start} {namespace}")
    }
}

/// `text` as one word that is not empty.
fn word(text: &str) -> String {
    match text {
        "" => "-".into(),
        text => text.replace(|c: char| c.is_whitespace() || c.is_control(), "_"),
    }
}

/// Whether a lock of `age` that names `owner` has been left behind, as far as `here` can tell;
/// `process` looks up a process id. In doubt it has not.
pub(super) fn is_stale(
    owner: Option<&Owner>,
    here: Option<&Owner>,
    age: Duration,
    process: impl FnOnce(i32) -> Process,
) -> bool {
    let Some(owner) = owner else {
        return age > NAMELESS_AGE;
    };
    let Some(here) = here else { return false };
    if owner.boot != here.boot {
        return owner.host == here.host && age > BOOT_AGE;
    }
    if owner.namespace != here.namespace {
        return false;
    }
    match process(owner.pid) {
        Process::Gone => true,
        Process::Started(start) => start != owner.start,
        Process::Hidden => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner {
            pid: 7,
            start: 99,
            boot: "b1".into(),
            namespace: "pid:[1]".into(),
            host: "here".into(),
        }
    }

    fn stale(owner: &Owner, age: u64, process: Process) -> bool {
        is_stale(
            Some(owner),
            Some(&self::owner()),
            Duration::from_secs(age),
            |_| process,
        )
    }

    #[test]
    fn text_round_trips() {
        assert_eq!(Owner::parse(&owner().to_string()), Some(owner()));
        let me = Owner::current().expect("a Linux with /proc");
        assert_eq!(Owner::parse(&me.to_string()), Some(me.clone()));
        assert_eq!(Process::find(me.pid), Process::Started(me.start));
        for bad in [
            "",
            "\n",
            "7 h b 9 n",
            "7 h b 9\n",
            "x h b 9 n\n",
            "-1 h b 9 n\n",
            "7 h b 9 n x\n",
        ] {
            assert_eq!(Owner::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_what_is_surely_left_behind_is_stale() {
        assert!(!stale(&owner(), 9999, Process::Started(99)));
        assert!(!stale(&owner(), 9999, Process::Hidden));
        assert!(stale(&owner(), 0, Process::Gone));
        assert!(
            stale(&owner(), 0, Process::Started(98)),
            "the pid was used again"
        );
        let elsewhere = Owner {
            namespace: "pid:[2]".into(),
            ..owner()
        };
        assert!(!stale(&elsewhere, 9999, Process::Gone));
        let rebooted = Owner {
            boot: "b0".into(),
            ..owner()
        };
        assert!(stale(&rebooted, 61, Process::Started(99)));
        assert!(!stale(&rebooted, 60, Process::Gone));
        let other_host = Owner {
            boot: "b0".into(),
            host: "there".into(),
            ..owner()
        };
        assert!(!stale(&other_host, 999_999, Process::Gone));
    }

    #[test]
    fn a_lock_without_a_name_is_given_ten_minutes() {
        let nameless = |age| {
            is_stale(None, Some(&owner()), Duration::from_secs(age), |_| {
                Process::Gone
            })
        };
        assert!(!nameless(600));
        assert!(nameless(601));
        let unknown_here = is_stale(Some(&owner()), None, Duration::MAX, |_| Process::Gone);
        assert!(!unknown_here);
    }
}
