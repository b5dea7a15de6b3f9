//! Whether the thread that waits for an answer has been killed.

/// A thread, as the kernel names the caller of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ThreadId(u32);

impl ThreadId {
    /// The caller of a request; `None` where it lives in a namespace we cannot see into.
    pub(crate) fn new(pid: u32) -> Option<Self> {
        (pid != 0).then_some(Self(pid))
    }
}

/// The bit of `SIGKILL` in a signal mask.
const SIGKILL_BIT: u64 = 1 << 8;

/// Whether `/proc` numbers threads as the kernel numbers them to us. It does not where it was
/// mounted in another namespace of processes: it then tells about strangers.
pub(crate) fn proc_is_ours() -> bool {
    std::fs::read_link("/proc/self")
        .is_ok_and(|target| target.as_os_str() == std::process::id().to_string().as_str())
}

/// Whether `thread` has been killed and only waits for us to die. A signal that ends a process
/// by default (`SIGINT`, `SIGTERM`) becomes a `SIGKILL` for each of its threads in the kernel.
///
/// A thread that cannot be looked at is taken for alive: if it is gone, nobody waits.
pub(crate) fn is_killed(thread: ThreadId) -> bool {
    std::fs::read(format!("/proc/{}/status", thread.0))
        .is_ok_and(|status| has_pending_kill(&status))
}

/// Whether the text of a `/proc/<id>/status` shows a pending `SIGKILL`, for the thread or its
/// process.
fn has_pending_kill(status: &[u8]) -> bool {
    status
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            line.strip_prefix(b"SigPnd:")
                .or_else(|| line.strip_prefix(b"ShdPnd:"))
        })
        .filter_map(|mask| std::str::from_utf8(mask).ok())
        .filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .any(|mask| mask & SIGKILL_BIT != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(thread: &str, process: &str) -> Vec<u8> {
        format!(
            "Name:\tcat\nSigQ:\t1/63\nSigPnd:\t{thread}\nShdPnd:\t{process}\n\
             SigBlk:\t0000000000000100\nSigIgn:\t0000000000000100\n"
        )
        .into_bytes()
    }

    #[test]
    fn a_pending_kill_is_seen_for_thread_and_process() {
        assert!(has_pending_kill(&status(
            "0000000000000100",
            "0000000000000000"
        )));
        assert!(has_pending_kill(&status(
            "0000000000000000",
            "0000000000004102"
        )));
    }

    #[test]
    fn other_signals_and_masks_are_not_a_kill() {
        assert!(!has_pending_kill(&status(
            "0000000000000000",
            "0000000000000000"
        )));
        assert!(!has_pending_kill(&status(
            "0000000000004002",
            "fffffffffffffeff"
        )));
        assert!(!has_pending_kill(b""));
        assert!(!has_pending_kill(b"SigPnd:\tzz\nShdPnd:\n\xff\xfe"));
    }

    #[test]
    fn this_thread_is_alive_and_nobody_is_thread_zero() {
        assert!(proc_is_ours());
        assert!(!is_killed(ThreadId::new(std::process::id()).unwrap()));
        assert_eq!(ThreadId::new(0), None);
    }
}
