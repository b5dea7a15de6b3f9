//! A writer's key on its way to be a hold.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use tokio::runtime::Handle;

use crate::boot_instant::BootInstant;
use crate::bucket::handle::Bucket;
use crate::error::{Result, StoreError};
use crate::lingering::Lingering;

/// A key in `holds/` that may be there and is taken away where this is dropped, unless it has become
/// a hold.
pub(super) struct Entering {
    bucket: Bucket,
    key: Path,
    /// Whether it may be there.
    is_there: bool,
    /// What writes it, of which no answer has come.
    writing: Option<BoxFuture<'static, Result<()>>>,
    lingering: Option<Lingering>,
}

impl Entering {
    pub(super) fn new(bucket: Bucket, key: Path) -> Self {
        Self {
            bucket,
            key,
            is_there: false,
            writing: None,
            lingering: Some(Lingering::new()),
        }
    }

    pub(super) fn key(&self) -> &Path {
        &self.key
    }

    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    /// Writes it. Returns the moment before that.
    pub(super) async fn write(&mut self) -> Result<BootInstant> {
        let began = BootInstant::now();
        let (bucket, key) = (self.bucket.clone(), self.key.clone());
        let writing = async move { bucket.write(&key, Bytes::new()).await }.boxed();
        let was_there = std::mem::replace(&mut self.is_there, true);
        let written = self.writing.insert(writing).await;
        self.writing = None;
        // Who may not write has written nothing.
        if let Err(StoreError::Denied { .. }) = written {
            self.is_there = was_there;
        }
        written.map(|()| began)
    }

    /// Takes it away, where it may be there.
    pub(super) async fn remove(&mut self) -> Result<()> {
        if self.is_there {
            self.bucket.remove(&self.key).await?;
            self.is_there = false;
        }
        Ok(())
    }

    /// It is a hold from now on: the key, and what says that others see it.
    pub(super) fn entered(mut self) -> (Path, Lingering) {
        self.is_there = false;
        let lingering = self.lingering.take();
        (self.key.clone(), lingering.expect("it is taken once"))
    }
}

impl Drop for Entering {
    /// A request that was given up may be done by the server yet, and after a removal that follows
    /// it. So it is gone on with until it has ended.
    fn drop(&mut self) {
        let Some(runtime) = Handle::try_current().ok().filter(|_| self.is_there) else {
            return;
        };
        let (bucket, key) = (self.bucket.clone(), self.key.clone());
        let (writing, lingering) = (self.writing.take(), self.lingering.take());
        runtime.spawn(async move {
            if let Some(writing) = writing {
                writing.await.ok();
            }
            if let Err(error) = bucket.remove(&key).await {
                tracing::info!("a clean waits for a while: {}", error.with_causes());
            }
            drop(lingering);
        });
    }
}
