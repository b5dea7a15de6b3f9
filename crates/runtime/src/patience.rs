//! Questions to file systems that may never answer.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long a file system may take to say what a path is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Runs `question` on a thread of its own, and gives up on it after `limit`.
///
/// The thread is left behind then: there is no way to call it back from the kernel.
pub(crate) fn ask<T: Send + 'static>(
    limit: Duration,
    question: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let asked = thread::Builder::new()
        .name("farseek-ask".to_owned())
        .spawn(move || {
            // Nobody listens any more if it took too long.
            let _ = sender.send(question());
        });
    asked.ok().and_then(|_| receiver.recv_timeout(limit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_time_are_given_and_others_are_not_waited_for() {
        assert_eq!(ask(PATIENCE, || 7), Some(7));
        let (_keep, never) = mpsc::channel::<()>();
        assert_eq!(
            ask(Duration::from_millis(20), move || never.recv().is_ok()),
            None
        );
    }
}
