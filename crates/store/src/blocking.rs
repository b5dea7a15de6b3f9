//! The one way from async code to blocking file operations.

use std::panic;

use tokio::task;

use crate::error::{Result, StoreError};

/// Runs `work` where blocking is allowed. Once begun it is finished, even when nobody awaits it.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match task::spawn_blocking(work).await {
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
