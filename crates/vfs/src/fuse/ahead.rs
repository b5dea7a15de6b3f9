//! Loading what nobody waits for yet, without being in the way of those who wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use farseek_reader::BlobReader;
use tokio::runtime::Handle as Runtime;
use tokio::sync::Semaphore;

/// Files that are loaded at once. The reader makes more requests than that at once, so whoever
/// waits for a file still gets one.
const AT_ONCE: usize = 32;

/// Loads blobs in tasks of their own.
#[derive(Debug)]
pub(super) struct Ahead {
    runtime: Runtime,
    permits: Arc<Semaphore>,
    /// How many loads have failed.
    failures: Arc<AtomicU64>,
}

impl Ahead {
    pub(super) fn new(runtime: Runtime) -> Self {
        Self {
            runtime,
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            failures: Arc::default(),
        }
    }

    /// Loads all of `blobs`.
    pub(super) fn load_all(&self, blobs: Vec<BlobReader>) {
        for blob in blobs {
            self.runtime.spawn(async move { load(&blob).await });
        }
    }

    /// Loads `blobs` in their order, some at once; none any more when a load has failed: what is
    /// asked for ahead must not add up where a source is in trouble.
    pub(super) fn load_some(&self, blobs: Vec<BlobReader>) {
        if blobs.is_empty() {
            return;
        }
        let (permits, failures) = (Arc::clone(&self.permits), Arc::clone(&self.failures));
        let before = failures.load(Ordering::Relaxed);
        self.runtime.spawn(async move {
            for blob in blobs {
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                    return;
                };
                if failures.load(Ordering::Relaxed) != before {
                    return;
                }
                let failures = Arc::clone(&failures);
                tokio::spawn(async move {
                    if !load(&blob).await {
                        failures.fetch_add(1, Ordering::Relaxed);
                    }
                    drop(permit);
                });
            }
        });
    }
}

/// Returns whether it went well. What went wrong shows when somebody reads the blob.
async fn load(blob: &BlobReader) -> bool {
    blob.read_at(0..blob.size()).await.is_ok()
}
