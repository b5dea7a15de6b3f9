//! Which members of a chain are worth asking, and what several failures together mean.
//!
//! Pure but for the lock in [`Health`]: the time is the caller's.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::error::StoreError;

/// When a member was last found unreachable, if it has not answered since.
///
/// The lock guards one small value, is held for a few instructions, and no other lock is taken
/// under it.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Option<Instant>>);

/// How an answer changed what is known of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing to say.
    None,
    /// It answered before and does not now.
    Lost,
    /// It did not answer before and does now.
    Back,
}

impl Health {
    /// Whether the member did not answer at most `memory` ago.
    pub(super) fn is_down(&self, now: Instant, memory: Duration) -> bool {
        let failed = *self.0.lock().expect("nothing panics under this lock");
        failed.is_some_and(|at| now.saturating_duration_since(at) < memory)
    }

    /// Notes whether the member answered.
    pub(super) fn note(&self, answered: bool, now: Instant) -> Change {
        let mut failed = self.0.lock().expect("nothing panics under this lock");
        let before = std::mem::replace(&mut *failed, (!answered).then_some(now));
        match (before.is_some(), answered) {
            (false, false) => Change::Lost,
            (true, true) => Change::Back,
            _ => Change::None,
        }
    }
}

/// What the next member is to be asked for after this error, or that it is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The member answered, and does not have it.
    Absent,
    /// The member did not answer.
    Unreachable,
    /// The member answered and cannot serve this: another may.
    Failed,
}

/// Sorts an error of one member.
pub(super) fn verdict(error: &StoreError) -> Verdict {
    match error {
        error if error.is_not_found() => Verdict::Absent,
        StoreError::Unavailable { .. } => Verdict::Unreachable,
        _ => Verdict::Failed,
    }
}

/// The one error that stands for what every member of the chain at `location` said.
///
/// "Not found" only where every member that could have it said so. Where one member could not be
/// reached "not found" would be a guess, so the answer is then `Unavailable`, which a caller may
/// try again. A single failure stands for itself.
pub(super) fn combine(location: &str, mut errors: Vec<StoreError>) -> Option<StoreError> {
    let failures = errors.iter().filter(|e| matters(e)).count();
    if failures <= 1 {
        let at = errors
            .iter()
            .position(matters)
            .or((!errors.is_empty()).then_some(0))?;
        return Some(nowhere(location, errors.swap_remove(at)));
    }
    errors.retain(matters);
    let reason = errors
        .iter()
        .map(StoreError::to_string)
        .collect::<Vec<_>>()
        .join("; ");
    let location = location.to_owned();
    let any = |test: fn(&StoreError) -> bool| errors.iter().any(test);
    Some(if any(StoreError::is_transient) {
        StoreError::Unavailable {
            location,
            reason,
            source: None,
        }
    } else if any(|e| {
        matches!(
            e,
            StoreError::Corrupt { .. } | StoreError::Undecodable { .. }
        )
    }) {
        StoreError::Corrupt { location, reason }
    } else if any(|e| matches!(e, StoreError::Denied { .. })) {
        StoreError::Denied { location, reason }
    } else {
        errors.swap_remove(0)
    })
}

/// What one member does not have, none has: says so. Other errors stay as they are.
fn nowhere(chain: &str, error: StoreError) -> StoreError {
    let location = chain.to_owned();
    match error {
        StoreError::NotFound { what, digest, .. } => StoreError::NotFound {
            what,
            digest,
            location,
        },
        StoreError::UnknownTag { tag, .. } => StoreError::UnknownTag { tag, location },
        error => error,
    }
}

/// Whether an error says more than "not here": what a member cannot do at all is no failure.
fn matters(error: &StoreError) -> bool {
    !error.is_not_found() && !matches!(error, StoreError::Unsupported { .. })
}

#[cfg(test)]
mod tests {
    use farseek_object::Digest;

    use super::*;

    fn absent(location: &str) -> StoreError {
        let location = location.to_owned();
        StoreError::NotFound {
            what: "object",
            digest: Digest::NULL,
            location,
        }
    }

    fn unreachable(location: &str) -> StoreError {
        let (location, reason) = (location.to_owned(), "no answer".to_owned());
        StoreError::Unavailable {
            location,
            reason,
            source: None,
        }
    }

    fn corrupt(location: &str) -> StoreError {
        StoreError::Corrupt {
            location: location.to_owned(),
            reason: "torn".to_owned(),
        }
    }

    #[test]
    fn a_failure_is_remembered_for_a_while_and_said_once() {
        let (health, start, memory) = (Health::default(), Instant::now(), Duration::from_secs(15));
        assert!(!health.is_down(start, memory));
        assert_eq!(health.note(true, start), Change::None);
        assert_eq!(health.note(false, start), Change::Lost);
        assert!(health.is_down(start + Duration::from_secs(14), memory));
        assert!(!health.is_down(start + Duration::from_secs(15), memory));
        assert_eq!(
            health.note(false, start + Duration::from_secs(16)),
            Change::None
        );
        assert!(health.is_down(start + Duration::from_secs(30), memory));
        assert_eq!(
            health.note(true, start + Duration::from_secs(30)),
            Change::Back
        );
        assert!(!health.is_down(start + Duration::from_secs(30), memory));
    }

    #[test]
    fn not_found_needs_every_member_to_say_so() {
        assert!(combine("chain", Vec::new()).is_none());
        let all = combine("chain", vec![absent("a"), absent("b")]).expect("an error");
        assert!(all.is_not_found(), "{all}");
        assert!(all.to_string().starts_with("chain has no object"), "{all}");
        let guess = combine("chain", vec![absent("a"), unreachable("b")]).expect("an error");
        assert_eq!(guess.to_string(), "b cannot be reached: no answer");
    }

    #[test]
    fn several_failures_are_all_told() {
        let both = combine("chain", vec![corrupt("a"), absent("b"), unreachable("c")]);
        let both = both.expect("an error");
        assert!(both.is_transient());
        let text = both.to_string();
        assert!(
            text.contains("a is corrupt: torn; c cannot be reached: no answer"),
            "{text}"
        );
        let torn = combine("chain", vec![corrupt("a"), corrupt("b")]).expect("an error");
        assert!(matches!(torn, StoreError::Corrupt { .. }), "{torn}");
    }
}
