//! Work that waits for the system, off the threads that serve others.

use std::future;
use std::panic;

use tokio::task;

/// What comes of `work`. Where the program ends before it has begun, it is never done, and nobody is
/// left to be told.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(payload) => panic::resume_unwind(payload),
            Err(_) => future::pending().await,
        },
    }
}
