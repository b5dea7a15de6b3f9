//! The front: from the command line into the environment. See [`run`](super).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use farseek_object::BindDest;
use farseek_vfs::fuse::{MountOptions, attach, see_it_answer};

use super::directory::STARTUP_FILE;
use super::link::Link;
use crate::daemon;
use crate::error::{Result, RuntimeError};
use crate::kept::KeptId;
use crate::layers;
use crate::live::{self, LiveBind};
use crate::namespace;
use crate::overlay::{self, Upper};
use crate::place;

/// What the host says when the environment can be mounted: its number, the name and the directory
/// of the runtime, which directory it has locked for changes that are kept, if any, and for each that is to be shown a source, what it is, and where.
pub(super) const PREPARED: &[u8] = b"prepared";

/// What it says when it serves the mount.
pub(super) const SERVING: &[u8] = b"serving";

/// What it says, with an exit code, when it has told the person why it cannot go on.
pub(super) const FAILED: &[u8] = b"failed";

/// How an environment is entered.
#[derive(Debug, Clone)]
pub struct Entrance {
    /// The directory where it is to appear: absolute.
    pub at: PathBuf,
    /// What the list of mounts calls it.
    pub reference: String,
    /// Whether other users may use it.
    pub allow_other: bool,
    /// Where changes go; a runtime without is read-only.
    pub upper: Option<Upper>,
    /// Whether it is read from renders, which the host has made.
    pub renders: bool,
}

/// A host that has the environment ready, seen by the process that is to enter it.
#[derive(Debug)]
pub struct Front {
    link: Link,
    host: u32,
    /// The name of the runtime.
    pub name: OsString,
    /// The directory of the runtime.
    pub directory: PathBuf,
    /// Which directory is locked for changes that are kept.
    kept: Option<KeptId>,
    /// What of the host is shown in the environment.
    live: Vec<LiveBind>,
}

impl Front {
    /// Where the startup file of an interactive shell is to be.
    pub fn startup_file(&self) -> PathBuf {
        self.directory.join(STARTUP_FILE)
    }
}

/// How the start of a host went.
#[derive(Debug)]
pub enum Started {
    /// It is ready.
    Ready(Front),
    /// It has ended with this exit code, and has said why.
    Failed(u8),
}

impl Front {
    /// Starts `program` as a host, gives it `arguments`, and waits until it has resolved the
    /// environment. Its command line shows `shown`.
    ///
    /// # Errors
    /// The program cannot be run, or it is not the one we take it for.
    pub fn start(program: &Path, shown: &[OsString], arguments: &[OsString]) -> Result<Started> {
        let (link, theirs) = Link::pair().map_err(failed)?;
        let mut child = Command::new(program)
            .args(shown)
            .stdin(Stdio::piped())
            .stdout(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .spawn()
            .map_err(failed)?;
        if let Some(stdin) = child.stdin.take() {
            daemon::give_arguments(stdin, arguments);
        }
        let Some(words) = link.receive().map_err(failed)? else {
            return Ok(Started::Failed(code_of(child)));
        };
        // It has left a child of its own, which is nobody's child by now.
        child.wait().map_err(failed)?;
        let mut words = words.into_iter();
        let (word, number) = (words.next(), words.next().and_then(number));
        match (word.as_deref(), number, words.next(), words.next()) {
            (Some(PREPARED), Some(host), Some(name), Some(directory)) => {
                let kept = words.next().and_then(|word| kept_of(&word));
                let live =
                    live_of(words).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
                Ok(Started::Ready(Self {
                    link,
                    host,
                    name: OsString::from_vec(name),
                    directory: OsString::from_vec(directory).into(),
                    kept,
                    live,
                }))
            }
            (Some(FAILED), code, ..) => {
                // It tells why before it goes.
                link.receive().map_err(failed)?;
                let code = code.and_then(|code| u8::try_from(code).ok());
                Ok(Started::Failed(code.unwrap_or(1).max(1)))
            }
            _ => Err(failed(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Enters the environment: from here on this process sees it at the path that is returned.
    ///
    /// This process must have one thread. The runtime lives as long as it, and all that it starts.
    ///
    /// # Errors
    /// Whatever is in the way. The host undoes its part when this process ends.
    pub fn enter(self, entrance: &Entrance) -> Result<PathBuf> {
        namespace::join_users(self.host)?;
        namespace::new_mounts()?;
        let at = place::provide(&entrance.at)?;
        match namespace::mark(&self.directory) {
            // It goes with the host.
            Err(RuntimeError::Namespace { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                return Err(failed(io::Error::other("it has gone")));
            }
            marked => marked?,
        }
        let options = MountOptions {
            allow_other: entrance.allow_other,
            ..MountOptions::new(&entrance.reference)
        };
        attach(&at, &options)?
            .send(self.link.socket())
            .map_err(failed)?;
        let mounts = namespace::mounts_of("self").map_err(failed)?;
        let words = [mounts.as_bytes(), at.as_os_str().as_bytes()];
        self.link.send(&words).map_err(failed)?;
        match self.link.receive().map_err(failed)? {
            Some(words) if words.first().is_some_and(|word| word == SERVING) => {}
            _ => return Err(failed(io::Error::other("it has gone"))),
        }
        see_it_answer(&at, &options)?;
        if entrance.renders {
            layers::mount(&at, &self.directory)?;
        }
        if let Some(upper) = &entrance.upper {
            overlay::make_editable(&at, upper, self.kept, &self.directory)?;
        }
        live::show(&at, &self.live, entrance.upper.is_some())?;
        Ok(at)
    }
}

/// Puts this process, which must have one thread, into the runtime whose namespace of mounts is
/// called `mounts`. It keeps the runtime alive from then on.
///
/// # Errors
/// Nobody is in it, or it is somebody else's.
pub fn join(mounts: &str) -> Result<()> {
    let Some(member) = namespace::member_of(mounts) else {
        return Err(RuntimeError::Namespace {
            action: "join the runtime: no process that this user may see is in it",
            source: io::ErrorKind::NotFound.into(),
        });
    };
    let here = std::env::current_dir();
    namespace::join_users(member)?;
    namespace::join_mounts(member, mounts)?;
    // Where we were is where we are, if that is to be seen in there.
    if let Ok(here) = here {
        std::env::set_current_dir(here).ok();
    }
    Ok(())
}

/// The exit code of a host that ended before it could say anything.
fn code_of(mut child: Child) -> u8 {
    let status = child.wait().ok();
    let code = status.and_then(|status| u8::try_from(status.code()?).ok());
    code.unwrap_or(1).max(1)
}

/// A live bind in a message.
pub(super) fn words_of(bind: &LiveBind) -> [&[u8]; 3] {
    let kind: &[u8] = match bind.is_directory {
        true => b"directory",
        false => b"file",
    };
    let source = bind.source.as_os_str().as_bytes();
    [source, kind, bind.dest.as_str().as_bytes()]
}

/// The locked directory that a word names, where it names one.
fn kept_of(word: &[u8]) -> Option<KeptId> {
    KeptId::parse(std::str::from_utf8(word).ok()?)
}

/// The live binds that the rest of a message names.
fn live_of(mut words: impl Iterator<Item = Vec<u8>>) -> Option<Vec<LiveBind>> {
    let mut live = Vec::new();
    while let Some(source) = words.next() {
        let is_directory = words.next()? == b"directory";
        let dest: BindDest = String::from_utf8(words.next()?).ok()?.parse().ok()?;
        live.push(LiveBind {
            source: OsString::from_vec(source).into(),
            is_directory,
            dest,
        });
    }
    Some(live)
}

fn number(word: Vec<u8>) -> Option<u32> {
    String::from_utf8(word).ok()?.parse().ok()
}

fn failed(source: io::Error) -> RuntimeError {
    RuntimeError::Daemon {
        action: "work with the background process",
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_binds_arrive_as_they_were_sent() {
        let bind = |source: &str, is_directory, dest: &str| LiveBind {
            source: source.into(),
            is_directory,
            dest: dest.parse().unwrap(),
        };
        let live = vec![bind("/a b", true, "/spfs/c"), bind("/d", false, "e/f")];
        let words = live.iter().flat_map(words_of).map(<[u8]>::to_vec);
        let words: Vec<_> = words.collect();
        assert_eq!(live_of(words.clone().into_iter()), Some(live));
        assert_eq!(live_of(words.into_iter().take(5)), None);
        assert_eq!(live_of(std::iter::empty()), Some(Vec::new()));
    }
}
