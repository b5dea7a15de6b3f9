//! What others see of this process, and what it takes away again before it ends: keys in buckets.
//!
//! Work that is given up cannot wait for that itself, so whoever ends the process does. The count is
//! the process's own, and no repository's: nobody else knows all that it has open when it is to end.
//! Deliberately absent: any other use of it.

use std::sync::LazyLock;

use tokio::sync::watch;

static COUNT: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::Sender::new(0));

/// Something that others see, until this is dropped.
#[derive(Debug)]
pub(crate) struct Lingering(());

impl Lingering {
    pub(crate) fn new() -> Self {
        COUNT.send_modify(|count| *count += 1);
        Self(())
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        COUNT.send_modify(|count| *count -= 1);
    }
}

/// Waits until all is taken away that others would wait for after this process has ended: its holds
/// of buckets, and what it has begun to send there. Whoever ends a runtime waits for this before,
/// and no longer than for some seconds: what is left counts no more after a while.
pub async fn nothing_lingers() {
    let mut count = COUNT.subscribe();
    // It never fails: what sends is never dropped.
    count.wait_for(|count| *count == 0).await.ok();
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn who_ends_waits_for_what_lingers() {
        let lingering = Lingering::new();
        let mut waiting = pin!(nothing_lingers());
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(lingering);
        waiting.await;
    }
}
