//! What to evict: a pure choice.

/// Something that can be evicted by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate<T> {
    /// Names it.
    pub(crate) id: T,
    /// Bytes it really takes on the disk.
    pub(crate) bytes: u64,
    /// When it was last used, in seconds since 1970.
    pub(crate) last_used: u64,
}

/// The state of the disk that decides how much must go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pressure {
    /// The most that the tier may take.
    pub(crate) max_bytes: u64,
    /// The least that must stay free on the file system.
    pub(crate) keep_free: u64,
    /// What is free on it now.
    pub(crate) free: u64,
}

/// Once the limit is passed, this share of it is freed beyond what must be, so that the next
/// block written does not start another scan.
const SLACK_DIVISOR: u64 = 10;

/// Chooses what to evict, least recently used first, so that the rest fits `pressure` with some
/// slack. Nothing is chosen where everything fits.
pub(crate) fn plan<T>(mut candidates: Vec<Candidate<T>>, pressure: Pressure) -> Vec<Candidate<T>> {
    let used: u64 = candidates.iter().map(|c| c.bytes).sum();
    let over_limit = used.saturating_sub(pressure.max_bytes);
    let under_free = pressure.keep_free.saturating_sub(pressure.free);
    let needed = over_limit.max(under_free);
    if needed == 0 {
        return Vec::new();
    }
    let goal = needed.saturating_add(pressure.max_bytes / SLACK_DIVISOR);
    candidates.retain(|c| c.bytes > 0);
    candidates.sort_by_key(|c| c.last_used);
    let mut freed = 0u64;
    let enough = candidates
        .iter()
        .position(|c| {
            let done = freed >= goal;
            freed = freed.saturating_add(c.bytes);
            done
        })
        .unwrap_or(candidates.len());
    candidates.truncate(enough);
    candidates
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidates() -> impl Strategy<Value = Vec<Candidate<usize>>> {
        prop::collection::vec((0u64..1000, 0u64..50), 0..40).prop_map(|list| {
            list.into_iter()
                .enumerate()
                .map(|(id, (bytes, last_used))| Candidate {
                    id,
                    bytes,
                    last_used,
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn a_plan_makes_room_oldest_first_and_no_more_than_needed(
            all in candidates(), max_bytes in 0u64..30_000, keep_free in 0u64..2000, free in 0u64..2000,
        ) {
            let pressure = Pressure { max_bytes, keep_free, free };
            let used: u64 = all.iter().map(|c| c.bytes).sum();
            let evicted = plan(all.clone(), pressure);
            let freed: u64 = evicted.iter().map(|c| c.bytes).sum();
            if used <= max_bytes && free >= keep_free {
                prop_assert!(evicted.is_empty());
                return Ok(());
            }
            let everything = freed == used;
            prop_assert!(everything || used - freed <= max_bytes);
            prop_assert!(everything || free + freed >= keep_free);
            let newest_gone = evicted.iter().map(|c| c.last_used).max().unwrap_or(0);
            for kept in all.iter().filter(|c| c.bytes > 0 && !evicted.contains(c)) {
                prop_assert!(kept.last_used >= newest_gone);
            }
            if let Some(last) = evicted.last() {
                let needed = used.saturating_sub(max_bytes).max(keep_free.saturating_sub(free));
                prop_assert!(freed - last.bytes < needed + max_bytes / SLACK_DIVISOR);
            }
        }
    }
}
