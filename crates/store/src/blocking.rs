//! The one way from async code to blocking file operations.

use std::panic;

use tokio::task::{self, JoinHandle};

use crate::error::{Result, StoreError};

/// Runs `work` where blocking is allowed. Once begun it is finished, even when nobody awaits it.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    begun(work).await
}

/// Does the same, and begins before it is awaited.
pub(crate) fn begun<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> impl Future<Output = Result<T>> + Send + 'static {
    finished(task::spawn_blocking(work))
}

async fn finished<T>(work: JoinHandle<Result<T>>) -> Result<T> {
    match work.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(payload) => panic::resume_unwind(payload),
            Err(_) => Err(StoreError::Unavailable {
                location: "the file system".into(),
                reason: "the program is ending".into(),
                source: None,
            }),
        },
    }
}
