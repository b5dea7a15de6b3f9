//! The reader of a repository's payloads.

use std::sync::Arc;

use farseek_object::Digest;
use farseek_store::Repository;
use tokio::runtime::Handle;

use crate::blob::BlobReader;
use crate::block::PayloadId;
use crate::options::ReaderOptions;
use crate::shared::Shared;
use crate::stats::Stats;

/// Reads the payloads of one repository: make one a process, so that its limits hold. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct Reader(Arc<Shared>);

impl Reader {
    /// A reader of `repository` whose fetches run on `runtime`, which must have its clock and
    /// outlive the reads: a read that is waiting when the runtime ends fails.
    pub fn new(repository: Arc<dyn Repository>, options: ReaderOptions, runtime: Handle) -> Self {
        Self(Arc::new(Shared::new(repository, options, runtime)))
    }

    /// The payload `digest`, believed to have `size` bytes. Asks nobody: whether it is there
    /// shows when it is read.
    pub fn open(&self, digest: Digest, size: u64) -> BlobReader {
        let state = self.0.state(PayloadId { digest, size });
        BlobReader::new(Arc::clone(&self.0), state)
    }

    /// Waits until everything has been done that goes on behind the reads: blocks written to the
    /// disk, payloads hashed and made local.
    pub async fn settle(&self) {
        self.0.background.idle().await;
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.0
    }
}
