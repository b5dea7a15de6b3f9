//! What is written to a large file goes to the disk while more comes, so that little is left to wait
//! for at the end.

use std::fs::File;
use std::io;
use std::path::Path;

use tokio::task::{JoinHandle, spawn_blocking};

use crate::error::{Result, StoreError};

/// Bytes that go to the disk together.
const FLUSH_BYTES: u64 = 32 << 20;

/// One file's way to the disk. The kernel tells a failure once, so whoever asks for it here has to
/// [settle](Self::settle): a later sync of the file may well succeed.
#[derive(Debug, Default)]
pub(crate) struct Flush {
    /// How much of it is on its way.
    flushed: u64,
    running: Option<JoinHandle<io::Result<()>>>,
}

impl Flush {
    /// Of a file that has `size` bytes already.
    pub(crate) fn after(size: u64) -> Self {
        Self {
            flushed: size,
            running: None,
        }
    }

    /// So much of `file`, at `path`, has been written. Nobody waits here for what is sent to the disk.
    ///
    /// # Errors
    /// What was sent before could not be written.
    pub(crate) async fn written(&mut self, file: &File, path: &Path, size: u64) -> Result<()> {
        let running = self.running.as_ref();
        let busy = running.is_some_and(|last| !last.is_finished());
        if busy || size - self.flushed < FLUSH_BYTES {
            return Ok(());
        }
        self.settle(path).await?;
        let file = file.try_clone().map_err(StoreError::io("open", path))?;
        self.flushed = size;
        self.running = Some(spawn_blocking(move || file.sync_data()));
        Ok(())
    }

    /// Waits for what is sent to the disk.
    ///
    /// # Errors
    /// It could not be written.
    pub(crate) async fn settle(&mut self, path: &Path) -> Result<()> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        let written = running.await.map_err(io::Error::other);
        let written = written.and_then(|written| written);
        written.map_err(StoreError::io("write", path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_that_is_told_once_is_not_lost() {
        let path = Path::new("/dev/full");
        let mut flush = Flush {
            flushed: 0,
            running: Some(spawn_blocking(|| Err(io::Error::other("no space")))),
        };
        let failed = flush.settle(path).await.unwrap_err();
        assert!(failed.to_string().contains("/dev/full"), "{failed}");
        flush.settle(path).await.unwrap();
    }
}
