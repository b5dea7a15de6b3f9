//! Going to the background without `fork`: a process with threads cannot be forked safely, so the
//! program starts itself again.
//!
//! The parent runs the program and writes its arguments to the child's standard input: the command
//! line of a process is there for everybody to read, as long as it lives, and an argument may hold
//! a password. What is on the command line is a hidden flag and what tells the process from
//! others. The parent waits on a pipe, which is the child's standard output. The child leaves the session, does what
//! may fail with its messages still going to the terminal, and calls [`Background::ready`]: the
//! parent is told and goes, and the child's standard streams lead to a log file or nowhere. If
//! the child ends before that, the parent ends the same way. If the parent is gone by then, say
//! by `Ctrl-C`, the child's `ready` fails, and the child is to undo what it did.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use crate::error::{Result, RuntimeError};

/// What the child says when it is up.
const READY: &[u8] = b"ready\n";

/// How a child that was to go to the background fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spawned {
    /// It is up, with this process number.
    Ready(u32),
    /// It ended with this exit code, and has said why.
    Failed(u8),
}

/// Runs `program` with `shown` as its command line, as a child that goes to the background, gives
/// it `arguments`, and waits until it is up or has failed.
///
/// # Errors
/// The program cannot be run.
pub fn spawn(program: &Path, shown: &[OsString], arguments: &[OsString]) -> Result<Spawned> {
    let failed = |source| RuntimeError::Daemon {
        action: "start the background process",
        source,
    };
    let mut child = Command::new(program)
        .args(shown)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(stdin) = child.stdin.take() {
        give_arguments(stdin, arguments);
    }
    let mut pipe = child.stdout.take().expect("it was asked to be a pipe");
    let mut said = [0; READY.len()];
    match pipe.read_exact(&mut said) {
        Ok(()) if said == READY => Ok(Spawned::Ready(child.id())),
        Ok(()) => {
            // It is not the program we take it for; it has nothing mounted that it told us of.
            let _ = child.kill();
            let _ = child.wait();
            let source = io::Error::new(io::ErrorKind::InvalidData, "it said something else");
            Err(failed(source))
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Ok(Spawned::Failed(exit_code(child.wait().map_err(failed)?)))
        }
        Err(error) => Err(failed(error)),
    }
}

/// Writes `arguments` to the standard input of a child that reads them with [`arguments`].
pub(crate) fn give_arguments(mut stdin: ChildStdin, arguments: &[OsString]) {
    // It fails where the child has ended already, which its parent sees.
    let _ = stdin.write_all(&joined(arguments));
}

/// The child's side of [`spawn`]: the arguments that were given to it.
///
/// # Errors
/// The standard input cannot be read.
pub fn arguments() -> Result<Vec<OsString>> {
    let mut bytes = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut bytes);
    read.map_err(|source| RuntimeError::Daemon {
        action: "read the arguments from the parent process",
        source,
    })?;
    Ok(parted(&bytes))
}

/// Each argument with a NUL after it, which none can hold.
fn joined(arguments: &[OsString]) -> Vec<u8> {
    let words = arguments.iter().map(|word| word.as_bytes());
    words.flat_map(|word| [word, b"\0"].concat()).collect()
}

/// The arguments that [`joined`] joined.
fn parted(bytes: &[u8]) -> Vec<OsString> {
    let words = bytes.split_inclusive(|&byte| byte == 0);
    let words = words.map(|word| word.strip_suffix(b"\0").unwrap_or(word));
    words
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect()
}

/// The exit code to pass on, in the manner of shells. Never 0: the child did not get ready.
fn exit_code(status: ExitStatus) -> u8 {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(1),
        (None, signal) => {
            128u8.saturating_add(signal.and_then(|s| u8::try_from(s).ok()).unwrap_or(0))
        }
    };
    code.max(1)
}

/// The child's side: a process on its way to the background.
#[derive(Debug)]
pub struct Background {
    log: File,
}

impl Background {
    /// Leaves the session of the terminal. What is written to the standard streams after
    /// [`ready`](Self::ready) is appended to `log_file`, if there is one.
    ///
    /// # Errors
    /// The log file cannot be opened.
    pub fn enter(log_file: Option<&Path>) -> Result<Self> {
        let path = log_file.unwrap_or(Path::new("/dev/null"));
        let log = OpenOptions::new()
            .append(true)
            .create(log_file.is_some())
            .open(path)
            .map_err(|source| RuntimeError::Daemon {
                action: "open the log file",
                source,
            })?;
        // It fails for the leader of a process group, which no child of `spawn` is. One that was
        // started by hand stays where it is.
        let _ = setsid();
        Ok(Self { log })
    }

    /// Tells the parent that all is well, and lets go of the terminal.
    ///
    /// # Errors
    /// The parent is gone: whoever waited for this has given up.
    pub fn ready(self) -> Result<()> {
        self.leave(READY)
    }

    /// Lets go of the terminal, with `words` as the last that go to the standard output.
    pub(crate) fn leave(self, words: &[u8]) -> Result<()> {
        let failed = |source| RuntimeError::Daemon {
            action: "report to the parent process",
            source,
        };
        // Not before now: paths the program was given may be relative.
        std::env::set_current_dir("/").map_err(failed)?;
        let nothing = File::open("/dev/null").map_err(failed)?;
        dup2_stdin(&nothing).map_err(|errno| failed(errno.into()))?;
        dup2_stderr(&self.log).map_err(|errno| failed(errno.into()))?;
        let mut stdout = io::stdout();
        stdout
            .write_all(words)
            .and_then(|()| stdout.flush())
            .map_err(failed)?;
        dup2_stdout(&self.log).map_err(|errno| failed(errno.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<Spawned> {
        spawn(Path::new("/bin/sh"), &["-c".into(), script.into()], &[])
    }

    #[test]
    fn a_child_that_is_ready_is_left_alone() {
        let spawned = shell("echo ready; exec sleep 0.1 >/dev/null 2>&1").unwrap();
        assert!(
            matches!(spawned, Spawned::Ready(pid) if pid > 0),
            "{spawned:?}"
        );
    }

    #[test]
    fn the_exit_code_of_a_child_that_fails_is_passed_on() {
        assert_eq!(shell("exit 17").unwrap(), Spawned::Failed(17));
        assert_eq!(shell("kill -9 $$").unwrap(), Spawned::Failed(137));
        assert_eq!(shell("exit 0").unwrap(), Spawned::Failed(1));
    }

    #[test]
    fn other_words_are_not_taken_for_ready() {
        assert!(shell("echo nothing").is_err());
        assert!(spawn(Path::new("/no/such/program"), &[], &[]).is_err());
    }

    #[test]
    fn arguments_come_through_the_standard_input_as_they_are() {
        let tables: [&[&[u8]]; 4] = [&[], &[b""], &[b"a", b"", b"b c\n", b"\xff"], &[b"", b""]];
        for words in tables {
            let words: Vec<_> = words
                .iter()
                .map(|w| OsString::from_vec(w.to_vec()))
                .collect();
            assert_eq!(parted(&joined(&words)), words);
        }
        let script = "test \"$(tr '\\0' ' ')\" = 'one two ' && echo ready";
        let shown = ["-c".into(), script.into()];
        let arguments = ["one".into(), "two".into()];
        let spawned = spawn(Path::new("/bin/sh"), &shown, &arguments).unwrap();
        assert!(matches!(spawned, Spawned::Ready(_)), "{spawned:?}");
    }

    #[test]
    fn a_child_that_ends_without_its_arguments_is_no_hang() {
        let shown = ["-c".into(), "exec <&-; exit 17".into()];
        let long = OsString::from_vec(vec![b'x'; 1 << 20]);
        let spawned = spawn(Path::new("/bin/sh"), &shown, &[long]).unwrap();
        assert_eq!(spawned, Spawned::Failed(17));
    }
}
