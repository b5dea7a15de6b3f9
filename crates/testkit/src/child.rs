//! Children that never outlive the test that started them.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const POLL: Duration = Duration::from_millis(5);

/// A child that is killed, and waited for, when the guard goes.
#[derive(Debug)]
pub struct ChildGuard {
    child: Child,
}

impl ChildGuard {
    /// Guards `child`.
    pub fn new(child: Child) -> Self {
        Self { child }
    }

    /// Starts `command` under guard.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        command.spawn().map(Self::new)
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process number.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("process numbers are small"))
    }

    /// Sends `signal` to it.
    ///
    /// # Errors
    /// It has been waited for already.
    pub fn signal(&self, signal: Signal) -> nix::Result<()> {
        kill(self.pid(), signal)
    }

    /// How it ended, where it has.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// How it ends, within `deadline`.
    ///
    /// # Errors
    /// `TimedOut` where it still runs then.
    pub fn wait_within(&mut self, deadline: Duration) -> io::Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > deadline {
                let text = format!("process {} still runs after {deadline:?}", self.pid());
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // A stopped child does not hear of anything but these two.
        let _ = self.child.kill();
        // One that is stuck in the kernel must not stop the test's own end.
        let _ = self.wait_within(Duration::from_secs(5));
    }
}

/// Runs `command` to its end within `deadline`, with its output; kills it after that.
///
/// # Errors
/// It cannot be started, or `TimedOut`.
pub fn output_within(command: &mut Command, deadline: Duration) -> io::Result<Output> {
    let files = [tempfile::tempfile()?, tempfile::tempfile()?];
    command
        .stdin(Stdio::null())
        .stdout(files[0].try_clone()?)
        .stderr(files[1].try_clone()?);
    let mut child = ChildGuard::spawn(command)?;
    let status = child.wait_within(deadline).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("{}: {error}", command.get_program().display()),
        )
    })?;
    let [stdout, stderr] = files.map(read_all);
    Ok(Output {
        status,
        stdout: stdout?,
        stderr: stderr?,
    })
}

fn read_all(mut file: std::fs::File) -> io::Result<Vec<u8>> {
    use std::io::{Read, Seek};
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a process was ended by SIGKILL.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::SIGKILL as i32)
}

/// Waits until `condition` holds.
///
/// # Panics
/// It does not within `deadline`.
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < deadline,
            "after {deadline:?} still not: {what}"
        );
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use nix::sys::signal::kill;

    use super::{ChildGuard, output_within, wait_until, was_killed};

    #[test]
    fn a_guarded_child_ends_with_its_guard() {
        let mut child = ChildGuard::spawn(Command::new("sleep").arg("1000")).unwrap();
        assert!(child.wait_within(Duration::from_millis(20)).is_err());
        let pid = child.pid();
        drop(child);
        wait_until("the child is gone", Duration::from_secs(2), || {
            kill(pid, None).is_err()
        });
    }

    #[test]
    fn a_command_that_takes_too_long_is_killed() {
        let long = output_within(Command::new("sleep").arg("1000"), Duration::from_millis(20));
        assert_eq!(long.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        let short = output_within(Command::new("echo").arg("word"), Duration::from_secs(5));
        let short = short.unwrap();
        assert_eq!(short.stdout, b"word\n");
        assert!(!was_killed(short.status));
    }
}
