//! Reading of files that are committed: once, and noticing when they change meanwhile.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use farseek_object::{Digest, Hasher};
use futures::stream::{self, StreamExt};
use nix::fcntl::OFlag;
use tokio::sync::mpsc;

use super::walk::{Stamp, changed};
use crate::error::{Result, StoreError};
use crate::payload::Body;

/// Bytes of one piece of a large file: large enough that handing it on costs nothing.
const PIECE: usize = 1 << 20;

/// Pieces read ahead of the hash: reading, hashing and writing overlap.
const PIECES_AHEAD: usize = 4;

/// Opens the file at `path` if it is still the one that was seen.
///
/// Never follows a link in its place and never blocks on a pipe in its place.
fn open(path: &Path, seen: &Stamp) -> Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path);
    let file = opened.map_err(StoreError::io("read", path))?;
    check(&file, path, seen)?;
    Ok(file)
}

/// Fails if the open file is not in the state it was seen in.
fn check(file: &File, path: &Path, seen: &Stamp) -> Result<()> {
    let metadata = file.metadata().map_err(StoreError::io("look at", path))?;
    if !metadata.is_file() || Stamp::new(&metadata) != *seen {
        return Err(changed(path.to_owned()));
    }
    Ok(())
}

/// Reads a small file whole.
pub(super) fn read_small(path: &Path, seen: &Stamp) -> Result<Bytes> {
    let file = open(path, seen)?;
    let mut bytes = Vec::with_capacity(seen.size as usize);
    // One byte more than expected is enough to see that it grew.
    (&file)
        .take(seen.size + 1)
        .read_to_end(&mut bytes)
        .map_err(StoreError::io("read", path))?;
    if bytes.len() as u64 != seen.size {
        return Err(changed(path.to_owned()));
    }
    check(&file, path, seen)?;
    Ok(Bytes::from(bytes))
}

/// The digest of a file of any size.
pub(super) fn hash(path: &Path, seen: &Stamp) -> Result<Digest> {
    let mut file = open(path, seen)?;
    let mut hasher = Hasher::new();
    let mut piece = vec![0; PIECE];
    let mut total = 0;
    // One that grows as fast as it is read must not be read for ever.
    while total <= seen.size {
        let length = file
            .read(&mut piece)
            .map_err(StoreError::io("read", path))?;
        if length == 0 {
            break;
        }
        hasher.update(&piece[..length]);
        total += length as u64;
    }
    check(&file, path, seen)?;
    Ok(hasher.finish())
}

/// A large file as a stream, read by a thread of its own a few pieces ahead.
///
/// The stream ends with an error if the file changed. `advanced` is told of every piece's size.
pub(super) fn stream_large(
    path: PathBuf,
    seen: Stamp,
    advanced: mpsc::UnboundedSender<u64>,
) -> Body {
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = send_pieces(&path, &seen, &sender, &advanced) {
            // Nobody listens any more only when the commit has failed already.
            let _ = sender.blocking_send(Err(error));
        }
    });
    stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    })
    .boxed()
}

fn send_pieces(
    path: &Path,
    seen: &Stamp,
    pieces: &mpsc::Sender<Result<Bytes>>,
    advanced: &mpsc::UnboundedSender<u64>,
) -> Result<()> {
    let file = open(path, seen)?;
    let mut total = 0;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        (&file)
            .take(PIECE as u64)
            .read_to_end(&mut piece)
            .map_err(StoreError::io("read", path))?;
        if piece.is_empty() {
            break;
        }
        let length = piece.len() as u64;
        total += length;
        // A file that grows as fast as it is read must not be read for ever.
        if total > seen.size {
            return Err(changed(path.to_owned()));
        }
        if pieces.blocking_send(Ok(Bytes::from(piece))).is_err() {
            return Ok(());
        }
        // Only the progress shown depends on it.
        let _ = advanced.send(length);
    }
    if total != seen.size {
        return Err(changed(path.to_owned()));
    }
    check(&file, path, seen)
}
