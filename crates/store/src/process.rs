//! Whether a process is here, and since when: what a lock, or a record, that names one is judged by.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal;
use nix::unistd::Pid;

/// What is known of a process id here and now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// There is none, or what it was has ended and waits to be taken note of.
    Gone,
    /// It was started at this time.
    Started(u64),
    /// It is there, but we may not look at it.
    Hidden,
}

impl Process {
    /// Looks up a process id.
    pub fn find(pid: i32) -> Self {
        // A signal says whether it is there even where /proc hides the processes of others.
        match signal::kill(Pid::from_raw(pid), None) {
            Err(Errno::ESRCH) => Process::Gone,
            _ => Self::look_at(&pid.to_string()),
        }
    }

    /// The same by its directory in `/proc`, without a signal: `self` is this one.
    pub fn look_at(process: &str) -> Self {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"));
        stat.map_or(Process::Hidden, |stat| read_stat(&stat))
    }
}

/// Of `/proc/<pid>/stat` the state, the number of threads and the start time: its fields 3, 20 and
/// 22. The second is the program's name, in parentheses and with anything in it.
fn read_stat(stat: &str) -> Process {
    let fields = || {
        let (_, after_name) = stat.rsplit_once(')')?;
        let mut fields = after_name.split_whitespace();
        let state = fields.next()?;
        let threads: u64 = fields.nth(16)?.parse().ok()?;
        let start: u64 = fields.nth(1)?.parse().ok()?;
        Some((state, threads, start))
    };
    match fields() {
        None => Process::Hidden,
        // Killed, and its parent has not taken note, perhaps for as long as that lives. Where it has
        // threads left, they go on.
        Some(("Z" | "X", 0 | 1, _)) => Process::Gone,
        Some((_, _, start)) => Process::Started(start),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stat(state: &str, threads: u64) -> String {
        let mut fields: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        fields[0] = state.to_owned();
        fields[17] = threads.to_string();
        format!("12 (a) b) 9 (x) {}", fields.join(" "))
    }

    #[test]
    fn start_time_survives_hostile_names() {
        assert_eq!(read_stat(&stat("S", 1)), Process::Started(22));
        assert_eq!(read_stat("12 (a) S 4"), Process::Hidden);
        assert_eq!(read_stat(""), Process::Hidden);
    }

    #[test]
    fn what_only_waits_to_be_taken_note_of_holds_nothing() {
        assert_eq!(read_stat(&stat("Z", 1)), Process::Gone);
        assert_eq!(read_stat(&stat("X", 0)), Process::Gone);
        assert_eq!(read_stat(&stat("Z", 3)), Process::Started(22));
    }

    #[test]
    fn a_process_that_was_killed_is_gone_before_it_is_waited_for() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(matches!(Process::find(pid), Process::Started(_)));
        child.kill().unwrap();
        let is_gone = || Process::find(pid) == Process::Gone;
        farseek_testkit::wait_until("it is gone", Duration::from_secs(60), is_gone);
        child.wait().unwrap();
    }
}
