//! Where the bytes of rendered files come from: payloads at hand, or those of remotes, which are
//! fetched straight to where they are wanted. All of them are hashed on the way.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;

use farseek_object::{Digest, Hasher, Node};
use futures::TryStreamExt as _;
use tokio::runtime::Handle;

use crate::copy::Incoming;
use crate::error::{Result, StoreError};
use crate::fs::FsRepository;
use crate::progress::Progress;
use crate::repository::Repository;

/// Bytes that are read at a time.
const BUFFER: u64 = 256 << 10;

/// Bytes of the longest target that a link can have (`PATH_MAX`, with its NUL).
const TARGET_MAX: u64 = 4095;

/// Repositories that payloads are rendered from.
#[derive(Clone)]
pub struct RenderSource {
    /// The one on this machine, where there is one: looked into first.
    pub local: Option<Arc<FsRepository>>,
    /// All of them.
    pub all: Arc<dyn Repository>,
}

impl fmt::Debug for RenderSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RenderSource").field(&self.all).finish()
    }
}

/// The same, for threads that may block.
#[derive(Debug)]
pub(super) struct Bytes {
    source: RenderSource,
    handle: Handle,
}

impl Bytes {
    /// Those of `source`; called where there is a runtime.
    pub(super) fn new(source: RenderSource) -> Self {
        Self {
            source,
            handle: Handle::current(),
        }
    }

    /// Writes the payload of `node` to `file`.
    ///
    /// # Errors
    /// It is nowhere, or not what its name and its manifest say.
    pub(super) fn write(&self, node: &Node, file: &mut File) -> Result<(), Failure> {
        match self.open(&node.payload)? {
            Some(payload) => copy(payload, node, file),
            None => self.handle.block_on(self.fetch(node, file)),
        }
    }

    /// The target of the link `node`.
    ///
    /// # Errors
    /// As for a file; and where it can be no target.
    pub(super) fn target(&self, node: &Node) -> Result<Vec<u8>> {
        let corrupt = |reason: &str| StoreError::Corrupt {
            location: format!("the symbolic link's target {}", node.payload),
            reason: reason.to_owned(),
        };
        if node.size > TARGET_MAX {
            return Err(corrupt("it is longer than a path can be"));
        }
        let mut text = Vec::new();
        let written = match self.open(&node.payload)? {
            Some(payload) => copy(payload, node, &mut text),
            None => self.handle.block_on(self.fetch(node, &mut text)),
        };
        written.map_err(|failure| failure.into_error(|| "/dev/null".into()))?;
        match text.is_empty() || text.contains(&0) {
            true => Err(corrupt("it is empty, or has a NUL in it")),
            false => Ok(text),
        }
    }

    /// The payload as a file of this machine, if it is one.
    fn open(&self, digest: &Digest) -> Result<Option<File>> {
        if let Some(local) = &self.source.local {
            match local.open_payload(digest) {
                Err(error) if error.is_not_found() => {}
                opened => return opened.map(|(file, _)| Some(file)),
            }
        }
        self.handle.block_on(self.source.all.payload_file(digest))
    }

    /// Fetches it from a remote.
    async fn fetch(&self, node: &Node, to: &mut impl io::Write) -> Result<(), Failure> {
        let silent: Arc<dyn Progress> = Arc::new(());
        let incoming =
            Incoming::open(&self.source.all, node.payload, Some(node.size), &silent).await?;
        let mut body = incoming.into_body(node.size);
        while let Some(bytes) = body.try_next().await? {
            to.write_all(&bytes).map_err(Failure::Write)?;
        }
        Ok(())
    }
}

/// Why a payload is not where it is wanted.
#[derive(Debug)]
pub(super) enum Failure {
    /// It cannot be had.
    Source(StoreError),
    /// It cannot be written.
    Write(io::Error),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Source(error)
    }
}

impl Failure {
    /// What a person is told, who is told `path` where it cannot be written.
    pub(super) fn into_error(self, path: impl FnOnce() -> std::path::PathBuf) -> StoreError {
        match self {
            Self::Source(error) => error,
            Self::Write(error) => StoreError::io("write", path())(error),
        }
    }
}

/// Copies a payload of this machine, which is hashed on the way.
fn copy(mut payload: File, node: &Node, to: &mut impl io::Write) -> Result<(), Failure> {
    let corrupt = |reason: String| StoreError::Corrupt {
        location: format!("the payload {}", node.payload),
        reason: format!("{reason}; `farseek check --pull` brings it anew"),
    };
    // One byte more, so that the end is seen without another buffer.
    let length = usize::try_from(node.size.saturating_add(1).min(BUFFER)).expect("it is small");
    let (mut buffer, mut hasher, mut copied) = (vec![0; length], Hasher::new(), 0);
    loop {
        let read = match payload.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let path = format!("the payload {}", node.payload);
                return Err(StoreError::io("read", path)(error).into());
            }
            Ok(0) => break,
            Ok(read) => read,
        };
        copied += read as u64;
        if copied > node.size {
            let reason = format!("it is longer than the {} bytes it has to be", node.size);
            return Err(corrupt(reason).into());
        }
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read]).map_err(Failure::Write)?;
    }
    if copied != node.size {
        let reason = format!("it ends after {copied} of {} bytes", node.size);
        return Err(corrupt(reason).into());
    }
    match hasher.finish() {
        found if found == node.payload => Ok(()),
        found => Err(corrupt(format!("its bytes are those of {found}")).into()),
    }
}
