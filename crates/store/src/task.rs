//! Work that goes on by itself, on any thread, until whoever waits for it goes away.

use std::panic;

use tokio::task::JoinHandle;

use crate::error::{Result, StoreError};

/// Aborts when dropped.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs `work` as a task of its own, from the first time this is polled: several of them run at
/// once, on as many processors as there are. It is given up when this future is dropped.
pub(crate) async fn spawn<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let mut task = Task(tokio::spawn(work));
    match (&mut task.0).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(payload) => panic::resume_unwind(payload),
            Err(_) => Err(StoreError::Unavailable {
                location: "the work".into(),
                reason: "the program is ending".into(),
                source: None,
            }),
        },
    }
}
