//! A cleaner's key, as a writer has seen it.
//!
//! A writer that has no key of its own does not know the server's time. So it knows how old the key
//! was by the server when it was found, and how long ago that was here.

use std::time::{Duration, SystemTime};

use object_store::path::Path;

use super::is_within;
use crate::boot_instant::BootInstant;

/// A key that counted when it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    key: Path,
    written: SystemTime,
    /// How old it was.
    age: Duration,
    at: BootInstant,
}

impl Seen {
    pub(super) fn key(&self) -> &Path {
        &self.key
    }

    /// One of `keys` that counts at the server's time `now`: for so long after it was written.
    pub(super) fn find(
        keys: Vec<(Path, SystemTime)>,
        now: SystemTime,
        counts: Duration,
    ) -> Option<Self> {
        let mut keys = keys.into_iter();
        let (key, written) = keys.find(|(_, written)| is_within(*written, now, counts))?;
        Some(Self {
            key,
            written,
            age: now.duration_since(written).unwrap_or_default(),
            at: BootInstant::now(),
        })
    }

    /// The same key among those that are there now; `None` where it is gone, or counts no more.
    pub(super) fn again(self, keys: &[(Path, SystemTime)], counts: Duration) -> Option<Self> {
        let (_, written) = keys.iter().find(|(key, _)| *key == self.key)?;
        if *written != self.written {
            return Some(Self {
                written: *written,
                age: Duration::ZERO,
                at: BootInstant::now(),
                ..self
            });
        }
        (self.age + self.at.elapsed() < counts).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot_instant::asleep;

    const COUNTS: Duration = Duration::from_secs(180);

    #[test]
    fn a_key_is_waited_for_until_it_is_gone_or_counts_no_more() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let ago = |seconds| now - Duration::from_secs(seconds);
        let key = |name: &str, seconds| (Path::from(name), ago(seconds));
        let old = key("old", 3000);
        assert_eq!(Seen::find(vec![old.clone()], now, COUNTS), None);
        let found = || Seen::find(vec![old.clone(), key("new", 100)], now, COUNTS).unwrap();
        assert_eq!(found().key(), &Path::from("new"));
        // That of another is no reason to wait.
        assert_eq!(found().again(std::slice::from_ref(&old), COUNTS), None);
        let there = [old.clone(), key("new", 100)];
        let seen = found();
        asleep::sleep(Duration::from_secs(79));
        let seen = seen.again(&there, COUNTS).unwrap();
        let seen = seen.again(&[key("new", 21)], COUNTS).unwrap();
        asleep::sleep(Duration::from_secs(179));
        let seen = seen.again(&[key("new", 21)], COUNTS).unwrap();
        asleep::sleep(Duration::from_secs(1));
        assert_eq!(seen.again(&[key("new", 21)], COUNTS), None);
    }
}
