//! Ages on the wire: what the keeper of a repository knows, as messages of `farseek.proto`.

use std::time::{Duration, SystemTime};

use farseek_object::ObjectKind;

use super::generated_bulk as wire;
use crate::upkeep::Facts;

/// Nanoseconds since 1970; `None` for a time that is centuries away.
pub(crate) fn from_time(time: SystemTime) -> Option<i64> {
    let nanoseconds = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i128::try_from(since.as_nanos()).ok()?,
        Err(before) => -i128::try_from(before.duration().as_nanos()).ok()?,
    };
    i64::try_from(nanoseconds).ok()
}

/// The moment so many nanoseconds after 1970.
pub(crate) fn to_time(nanoseconds: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    match nanoseconds < 0 {
        true => SystemTime::UNIX_EPOCH - distance,
        false => SystemTime::UNIX_EPOCH + distance,
    }
}

/// The message of what is known of something; `None` as of [`from_time`].
pub(crate) fn from_facts(facts: Option<Facts>) -> Option<wire::MaybeFacts> {
    let Some(facts) = facts else {
        return Some(wire::MaybeFacts::default());
    };
    let kind = match facts.kind {
        Some(ObjectKind::Blob) => wire::Kind::Blob,
        Some(ObjectKind::Manifest) => wire::Kind::Manifest,
        Some(ObjectKind::Layer) => wire::Kind::Layer,
        Some(ObjectKind::Platform) => wire::Kind::Platform,
        None => wire::Kind::Unknown,
    };
    Some(wire::MaybeFacts {
        written: Some(from_time(facts.written)?),
        bytes: facts.bytes,
        kind: kind.into(),
    })
}

/// What a message says of something; a kind that is not known counts as none that can be told.
pub(crate) fn to_facts(message: &wire::MaybeFacts) -> Option<Facts> {
    let kind = match message.kind() {
        wire::Kind::Blob => Some(ObjectKind::Blob),
        wire::Kind::Manifest => Some(ObjectKind::Manifest),
        wire::Kind::Layer => Some(ObjectKind::Layer),
        wire::Kind::Platform => Some(ObjectKind::Platform),
        wire::Kind::Unknown => None,
    };
    message.written.map(|written| Facts {
        written: to_time(written),
        bytes: message.bytes,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_arrive_as_they_were_sent() {
        let (second, epoch) = (Duration::from_secs(1), SystemTime::UNIX_EPOCH);
        for time in [
            epoch,
            epoch - second,
            epoch + Duration::from_nanos(1),
            epoch + 1_800_000_000 * second + Duration::from_nanos(123_456_789),
        ] {
            assert_eq!(to_time(from_time(time).unwrap()), time);
        }
        for far in [i64::MIN, i64::MAX] {
            assert_eq!(from_time(to_time(far)), Some(far));
        }
        assert_eq!(from_time(epoch + Duration::from_secs(1 << 40)), None);
    }

    #[test]
    fn facts_arrive_as_they_were_sent() {
        let kinds = [
            None,
            Some(ObjectKind::Blob),
            Some(ObjectKind::Manifest),
            Some(ObjectKind::Layer),
            Some(ObjectKind::Platform),
        ];
        for kind in kinds {
            let facts = Facts {
                written: SystemTime::UNIX_EPOCH + Duration::from_nanos(7),
                bytes: 9,
                kind,
            };
            assert_eq!(to_facts(&from_facts(Some(facts)).unwrap()), Some(facts));
        }
        assert_eq!(to_facts(&from_facts(None).unwrap()), None);
    }
}
