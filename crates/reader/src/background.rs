//! What goes on behind the reads, so that one can wait for its end.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts what goes on.
#[derive(Debug, Clone)]
pub(crate) struct Background(Arc<watch::Sender<usize>>);

/// Something that goes on until it is dropped.
#[derive(Debug)]
pub(crate) struct Going(Background);

impl Background {
    /// Nothing goes on.
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// Something begins. To hand over to what it leads to, begin that first.
    pub(crate) fn begin(&self) -> Going {
        self.0.send_modify(|going| *going += 1);
        Going(self.clone())
    }

    /// Waits until nothing goes on.
    pub(crate) async fn idle(&self) {
        let mut going = self.0.subscribe();
        // An error would mean that nobody can count any more, which is idle, too.
        let _ = going.wait_for(|going| *going == 0).await;
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.0.0.send_modify(|going| *going -= 1);
    }
}
