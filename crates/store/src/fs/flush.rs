//! What is written to a large file goes to the disk while more comes, so that little is left to wait
//! for at the end.

use std::fs::File;
use std::path::Path;

use tokio::task::{JoinHandle, spawn_blocking};

use crate::error::{Result, StoreError};

/// Bytes that go to the disk together.
const FLUSH_BYTES: u64 = 32 << 20;

/// One file's way to the disk.
#[derive(Debug, Default)]
pub(crate) struct Flush {
    /// How much of it is on its way.
    flushed: u64,
    running: Option<JoinHandle<()>>,
}

impl Flush {
    /// Of a file that has `size` bytes already.
    pub(crate) fn after(size: u64) -> Self {
        Self {
            flushed: size,
            running: None,
        }
    }

    /// So much of `file`, at `path`, has been written. Nobody waits here for what is sent to the
    /// disk, and whether that succeeds shows at the end.
    pub(crate) fn written(&mut self, file: &File, path: &Path, size: u64) -> Result<()> {
        let busy = self
            .running
            .as_ref()
            .is_some_and(|last| !last.is_finished());
        if busy || size - self.flushed < FLUSH_BYTES {
            return Ok(());
        }
        let file = file.try_clone().map_err(StoreError::io("open", path))?;
        self.flushed = size;
        self.running = Some(spawn_blocking(move || drop(file.sync_data())));
        Ok(())
    }
}
