//! What is asked of the host from within its runtime: to make it editable or not, to undo changes,
//! and to show another environment. A user in a namespace of users has no right to mount once it
//! has executed a program; the host, which never has, keeps it.
//!
//! What is done stands in the record, too, which the host changes: it does one thing after the other,
//! so none of two changes that are asked for at the same time is lost.
//!
//! It listens at a socket in the runtime's directory, which is the user's alone. A request is
//! carried out in the namespace of mounts of who asks, if that is the runtime's, by a thread that
//! lives no longer than that: the host must not keep the namespace alive.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use farseek_object::EnvSpec;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::another::Another;
use super::directory::SOCKET;
use super::link::Link;
use crate::error::{Result, RuntimeError};
use crate::kept::KeptId;
use crate::layers;
use crate::live::LiveBind;
use crate::namespace;
use crate::overlay::{Edits, Upper};

/// How long one who asks may take to say what. They say it at once.
const TO_ASK: Duration = Duration::from_secs(5);

const DONE: &[u8] = b"done";
const REFUSED: &[u8] = b"refused";
/// Refused, for what is asked for is not there.
const MISSING: &[u8] = b"missing";

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Let the environment be written to. Changes go to memory, at most as much as is said.
    Edit {
        /// In the words of tmpfs(5).
        size: Option<String>,
    },
    /// Let it be written to no more. What has been changed stays.
    Freeze,
    /// Undo the changes of these paths, relative to the environment's root; of all where none is
    /// given.
    Reset {
        /// The paths.
        paths: Vec<PathBuf>,
    },
    /// Show another environment, and undo all changes.
    Show {
        /// Which: without spec files.
        spec: EnvSpec,
    },
}

impl Request {
    fn words(&self) -> Vec<Cow<'_, [u8]>> {
        let words: Vec<&[u8]> = match self {
            Self::Edit { size: None } => vec![b"edit"],
            Self::Edit { size: Some(size) } => vec![b"edit", size.as_bytes()],
            Self::Freeze => vec![b"freeze"],
            Self::Reset { paths } => {
                let paths = paths.iter().map(|path| path.as_os_str().as_bytes());
                std::iter::once(b"reset".as_slice()).chain(paths).collect()
            }
            Self::Show { spec } => {
                let spec = spec.to_string().into_bytes();
                return vec![b"show".into(), spec.into()];
            }
        };
        words.into_iter().map(Cow::from).collect()
    }

    fn parse(words: Vec<Vec<u8>>) -> Option<Self> {
        let mut words = words.into_iter();
        let path = |word| PathBuf::from(OsString::from_vec(word));
        match words.next()?.as_slice() {
            b"edit" => {
                let size = words.next().map(String::from_utf8).transpose().ok()?;
                Some(Self::Edit { size })
            }
            b"freeze" => Some(Self::Freeze),
            b"reset" => Some(Self::Reset {
                paths: words.map(path).collect(),
            }),
            b"show" => {
                let spec = String::from_utf8(words.next()?).ok()?.parse().ok()?;
                Some(Self::Show { spec })
            }
            _ => None,
        }
    }
}

/// Asks the host of the runtime with the directory `directory`, from within the runtime.
///
/// # Errors
/// It is gone, or says why it cannot be done.
pub fn ask(directory: &Path, request: &Request) -> Result<()> {
    let gone = |source| RuntimeError::Control {
        reason: format!("its background process does not answer: {source}"),
    };
    let stream = UnixStream::connect(directory.join(SOCKET)).map_err(gone)?;
    let link = Link::over(stream);
    let words = request.words();
    let words: Vec<&[u8]> = words.iter().map(|word| &**word).collect();
    link.send(&words).map_err(gone)?;
    let words = link.receive().map_err(gone)?.unwrap_or_default();
    match words.split_first() {
        Some((word, _)) if word == DONE => Ok(()),
        Some((word, why)) if word == REFUSED => Err(RuntimeError::Control {
            reason: String::from_utf8_lossy(&why.concat()).into_owned(),
        }),
        Some((word, why)) if word == MISSING => Err(RuntimeError::Missing {
            reason: String::from_utf8_lossy(&why.concat()).into_owned(),
        }),
        _ => Err(gone(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// The host's side: a socket that is not listened to yet.
#[derive(Debug)]
pub(super) struct Control {
    listener: UnixListener,
}

/// What the host needs to know to do what it is asked.
#[derive(Debug, Clone)]
pub(super) struct Runtime {
    /// Its namespace of mounts.
    pub(super) mounts: String,
    /// Where the environment is in there.
    pub(super) at: PathBuf,
    /// The directory of the runtime.
    pub(super) directory: PathBuf,
    /// How it can be written to when it begins.
    pub(super) upper: Option<Upper>,
    /// Which directory is locked for that, where it is kept.
    pub(super) kept: Option<KeptId>,
    /// What of the host is shown in it.
    pub(super) live: Vec<LiveBind>,
}

impl Control {
    /// Makes the socket in `directory`.
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(directory.join(SOCKET))?;
        Ok(Self { listener })
    }

    /// Listens, one request after the other, until this process ends.
    pub(super) fn listen(self, runtime: Runtime, another: Another) -> io::Result<()> {
        let edits = Edits::new(runtime.upper.clone(), runtime.kept, runtime.live.clone());
        let mut state = State {
            runtime: Arc::new(runtime),
            edits,
            another,
        };
        thread::Builder::new()
            .name("farseek-control".to_owned())
            .spawn(move || {
                for stream in self.listener.incoming().flatten() {
                    state.serve(stream);
                }
            })
            .map(drop)
    }
}

struct State {
    runtime: Arc<Runtime>,
    edits: Edits,
    another: Another,
}

impl State {
    fn serve(&mut self, stream: UnixStream) {
        let peer = getsockopt(&stream, PeerCredentials).map(|peer| peer.pid());
        let prepared = stream.set_read_timeout(Some(TO_ASK));
        let link = Link::over(stream);
        let words = prepared.and_then(|()| link.receive());
        let request = match words {
            Ok(Some(words)) => Request::parse(words),
            _ => return,
        };
        let answer = match (request, peer.ok().and_then(|pid| u32::try_from(pid).ok())) {
            (Some(request), Some(peer)) => self.carry_out(peer, &request),
            _ => Err("it is not understood".to_owned().into()),
        };
        // Whoever has gone meanwhile does not want to know.
        let _ = match answer {
            Ok(()) => link.send(&[DONE]),
            Err(Refusal { word, why }) => link.send(&[word, why.replace('\0', "").as_bytes()]),
        };
    }

    fn carry_out(&mut self, peer: u32, request: &Request) -> Result<(), Refusal> {
        let theirs = namespace::mounts_of(&peer.to_string()).map_err(|e| e.to_string())?;
        if theirs != self.runtime.mounts {
            let why = "it can only be asked for from within the runtime".to_owned();
            return Err(why.into());
        }
        if let Request::Show { spec } = request {
            return self.show(peer, spec);
        }
        let (runtime, edits) = (Arc::clone(&self.runtime), &mut self.edits);
        let done = thread::scope(|scope| {
            let doing = scope.spawn(|| enter_and_do(peer, &runtime, edits, request));
            doing.join()
        });
        done.unwrap_or_else(|_| Err("the background process failed".to_owned()))?;
        match request {
            Request::Edit { .. } => Ok(self.another.note_editable()?),
            _ => Ok(()),
        }
    }

    fn show(&mut self, peer: u32, spec: &EnvSpec) -> Result<(), Refusal> {
        if layers::are_laid_out(&self.runtime.directory) {
            let why = "this runtime reads from renders of its layers: start another for another \
                       environment";
            return Err(why.to_owned().into());
        }
        let prepared = self.another.prepare(spec)?;
        let (at, directory) = (&self.runtime.at, &self.runtime.directory);
        let enter = || enter(peer, &self.runtime.mounts);
        let (another, edits) = (&self.another, &mut self.edits);
        Ok(another.show(prepared, at, directory, edits, enter)?)
    }
}

/// Why something is not done, and the word that says of which kind that is.
struct Refusal {
    word: &'static [u8],
    why: String,
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self { word: REFUSED, why }
    }
}

impl From<RuntimeError> for Refusal {
    fn from(error: RuntimeError) -> Self {
        let is_missing = matches!(&error, RuntimeError::Store(error) if error.is_not_found());
        Self {
            word: if is_missing { MISSING } else { REFUSED },
            why: told(&error),
        }
    }
}

/// An error with its causes.
fn told(error: &RuntimeError) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

/// Puts this thread, which ends afterwards, into the namespace of mounts `mounts`, in which the
/// process `peer` was when it asked.
fn enter(peer: u32, mounts: &str) -> Result<(), String> {
    // Threads share their root and working directory otherwise, and would all have to go along.
    unshare(CloneFlags::CLONE_FS).map_err(|errno| errno.desc().to_owned())?;
    namespace::join_mounts(peer, mounts).map_err(|error| error.to_string())
}

/// In a thread that ends afterwards: it is in the runtime's namespace of mounts then.
fn enter_and_do(
    peer: u32,
    runtime: &Runtime,
    edits: &mut Edits,
    request: &Request,
) -> Result<(), String> {
    enter(peer, &runtime.mounts)?;
    let (at, directory) = (&runtime.at, &runtime.directory);
    match request {
        Request::Edit { size } => {
            let upper = Upper::Memory { size: size.clone() };
            edits.allow(at, &upper, directory)
        }
        Request::Freeze => edits.freeze(at),
        Request::Reset { paths } => edits.reset(at, directory, paths),
        Request::Show { .. } => unreachable!("it is done in another way"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_arrive_as_they_were_sent() {
        let table = [
            Request::Edit { size: None },
            Request::Edit {
                size: Some("2G".to_owned()),
            },
            Request::Freeze,
            Request::Reset { paths: Vec::new() },
            Request::Reset {
                paths: vec!["a b".into(), OsString::from_vec(b"\xff\n".to_vec()).into()],
            },
            Request::Show {
                spec: EnvSpec::default(),
            },
            Request::Show {
                spec: "a/b~1+MAIN".parse().unwrap(),
            },
        ];
        for request in table {
            let words = request.words().into_iter().map(Cow::into_owned).collect();
            assert_eq!(Request::parse(words), Some(request));
        }
        assert_eq!(Request::parse(vec![b"format".to_vec()]), None);
        assert_eq!(Request::parse(Vec::new()), None);
        assert_eq!(
            Request::parse(vec![b"show".to_vec(), b"a b".to_vec()]),
            None
        );
    }
}
