//! What whoever asks for something minds about its requests, beyond what they are.

use std::time::Duration;

use super::Trouble;

/// Bytes that a store copies within itself in a second, at least.
const COPIED_PER_SECOND: u64 = 20 << 20;

tokio::task_local! {
    /// How long the copy that is asked for may take beyond the stall deadline.
    static COPYING: Duration;
}

/// Asks for a copy of `size` bytes within the store: some say nothing before they have made it.
pub(in crate::bucket) async fn copying<T>(size: u64, copy: impl Future<Output = T>) -> T {
    let takes = Duration::from_secs(size / COPIED_PER_SECOND);
    COPYING.scope(takes, copy).await
}

/// How much longer than others a request may take.
pub(super) fn extra_time() -> Duration {
    COPYING.try_with(|takes| *takes).unwrap_or_default()
}

struct Minded {
    goes_on: Box<dyn Fn() -> bool + Send + Sync>,
    was_lost: Box<dyn Fn() + Send + Sync>,
}

tokio::task_local! {
    static MINDED: Minded;
}

/// Asks for a `change`. No attempt at it is sent unless it `goes_on`, which is asked right before
/// each: the first may be late too. `was_lost` is called when an attempt has failed that may be yet
/// to happen.
pub(in crate::bucket) async fn minding<T>(
    goes_on: impl Fn() -> bool + Send + Sync + 'static,
    was_lost: impl Fn() + Send + Sync + 'static,
    change: impl Future<Output = T>,
) -> T {
    let minded = Minded {
        goes_on: Box::new(goes_on),
        was_lost: Box::new(was_lost),
    };
    MINDED.scope(minded, change).await
}

/// Whether an attempt may be sent.
pub(super) fn goes_on() -> bool {
    MINDED.try_with(|minded| (minded.goes_on)()).unwrap_or(true)
}

/// An attempt has failed.
pub(super) fn failed(trouble: &Trouble) {
    if may_yet_happen(trouble) {
        // Nobody may mind.
        MINDED.try_with(|minded| (minded.was_lost)()).ok();
    }
}

/// Whether what was asked for may be done later: whoever refuses in so many words does not do it,
/// but a server in between that has waited long enough knows as little as we.
fn may_yet_happen(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Refused { status, code, .. } => {
            let is_busy = code.as_deref() == Some("SlowDown");
            !(400..500).contains(status) && !is_busy
        }
        Trouble::Page { .. } | Trouble::Silent(_) | Trouble::Broken(_) => true,
        // It was not sent.
        Trouble::NoCredentials { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_copy_has_time_by_its_size() {
        let takes = copying(5 << 30, async { COPYING.try_with(|takes| *takes).ok() });
        assert_eq!(takes.await, Some(Duration::from_secs(256)));
        assert!(COPYING.try_with(|_| ()).is_err(), "nothing is copied");
    }

    #[test]
    fn who_refuses_does_not_do_it_later() {
        let refused = |status, code: &str| Trouble::Refused {
            status,
            code: Some(code.to_owned()),
            message: None,
        };
        assert!(!may_yet_happen(&refused(403, "AccessDenied")));
        assert!(!may_yet_happen(&refused(503, "SlowDown")));
        assert!(may_yet_happen(&refused(500, "InternalError")));
        assert!(may_yet_happen(&refused(504, "")));
        assert!(may_yet_happen(&Trouble::Silent(Duration::ZERO)));
        assert!(may_yet_happen(&Trouble::Broken(String::new())));
    }
}
