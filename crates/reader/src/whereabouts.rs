//! Where a payload's bytes would come from, for whoever wonders.

use crate::payload::PayloadState;
use crate::shared::Shared;

/// What has a payload's bytes, the farthest that a read of all of it would need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// All of it is in memory.
    Memory,
    /// All of it is in the disk tier.
    Disk,
    /// The local repository.
    Local,
    /// A source, for some of it at least.
    Source,
}

/// Where a payload is served from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whereabouts {
    /// How much of it is here, in percent, rounded down.
    pub cached_percent: u8,
    /// What has all of it.
    pub tier: Tier,
    /// Whether its bytes are verified before they are served.
    pub verified: bool,
}

pub(crate) fn whereabouts(shared: &Shared, state: &PayloadState) -> Whereabouts {
    let hashed = state.is_hashed(shared.options.verify);
    let verified = hashed && !state.is_condemned();
    let here = |tier| Whereabouts {
        cached_percent: 100,
        tier,
        verified,
    };
    if state.is_local() {
        return Whereabouts {
            verified: true,
            ..here(Tier::Local)
        };
    }
    let size = state.layout.size();
    let in_memory = shared.cache.bytes_of(&state.id);
    if in_memory >= size {
        return here(Tier::Memory);
    }
    let geometry = state.geometry();
    let blocks = shared
        .disk_of(state)
        .map_or(0, |disk| disk.present(geometry));
    if blocks >= geometry.blocks() {
        return here(Tier::Disk);
    }
    let percent = percent(in_memory, size).max(percent(blocks, geometry.blocks()));
    Whereabouts {
        cached_percent: percent,
        tier: Tier::Source,
        verified,
    }
}

/// Below 100 as long as anything is missing.
fn percent(part: u64, whole: u64) -> u8 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u8::try_from(percent.min(100)).unwrap_or(100)
}
