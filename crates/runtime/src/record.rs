//! Runtime records: who uses which environment on which host, as SPFS keeps them (FORMAT.md
//! section 9.1), so that neither our `clean` nor SPFS's takes away what is in use.
//!
//! A [`RuntimeRecord`] is the stored JSON. [`Runtimes`] keeps records in the local repository,
//! each under two tags. [`judge`] says, from values alone, whether the owner of a record can still
//! be there; in doubt it may be. [`Runtimes::prune`] removes the records whose owners have ended,
//! and what they have left on this host. A [`Reference`] is the record of this process.
//!
//! Deliberately absent: how a runtime is set up and ended.

mod text;
mod json;
mod host;
mod presence;
mod judge;
mod runtimes;
mod leftovers;
mod prune;
mod reference;

pub use host::{Host, Process, ProcessId};
pub use json::{Author, Kind, LiveLayer, Origin, RuntimeConfig, RuntimeRecord, Status};
pub use judge::{Verdict, judge};
pub use leftovers::remove_tree;
pub use presence::{Place, Presence};
pub use prune::{PruneOptions, Pruned};
pub use reference::{Keeper, MountRecords, Reference};
pub use runtimes::{Listed, Runtimes};
