//! Writers and cleaners keep out of each other's way, by keys.
//!
//! A writer has a key in `holds/` for as long as it writes, a cleaner one in `cleans/` for as long as
//! it removes. Each writes its own and then lists the other's: of two who begin at once, one sees the
//! other at least, and who sees the other does not go on.
//!
//! - *A cleaner who begins* keeps its key and waits for the writers it sees, for a minute. If they are
//!   not gone then, it removes its key and tells who it was.
//! - *A writer who sees a cleaner* removes its key again and waits, for a minute. So writers who come
//!   one after the other do not keep a bucket from ever being cleaned. After that it leaves its key
//!   there and waits: a cleaner who is under way and sees a key that stays stops after one of its
//!   steps. It waits for the keys of cleaners that count, and for no other.
//! - *Nobody who was killed* is in the way for long: a key that is not written anew counts no more
//!   after a time, by the server's clock. Whoever was stopped so long that its own key may not count
//!   any more does not go on: a cleaner removes nothing, a writer puts no tag. That time is counted
//!   while the machine sleeps, too.
//! - *What may be yet to happen*: a cleaner's key stays until all removals have ended; where one was
//!   given up on its way, or an attempt at it had no answer, it is not removed at all, and writers
//!   wait until it counts no more. So with a tag that was given up, and the key of its writer.
//!
//! - *Who may not do all of this* does not write: a writer who may not remove its key, or not list
//!   those of cleaners, cannot go out of anybody's way. There is no writing without a hold.
//! - *Who is given up on its way in* takes its key away again, after what was on its way has ended.
//!
//! Neither can wait for the other for ever: a writer who waits has no key at first, and a cleaner who
//! waits gives up. All of it is explored in `model.rs`, where each rule is shown to be needed.
//!
//! It needs that a listing shows what was written before it, which S3, GCS and Azure promise, and
//! Garage with its usual quorums.

mod renewed;
mod seen;
mod entering;
mod sweep;
mod tagging;
mod writer;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use tokio::sync::RwLock;
use uuid::Uuid;

pub(super) use self::sweep::Permit;
use self::sweep::Sweep;
use self::writer::Known;
use super::handle::Bucket;
use super::keys::Keys;
use crate::error::{Result, StoreError};

/// The folder of writers.
pub(super) const HOLDS: &str = "holds";

/// The folder of cleaners.
pub(super) const CLEANS: &str = "cleans";

/// The folder of those who ask for the time.
pub(super) const PROBES: &str = "probes";

/// How long a writer's key counts.
pub(super) const HOLD_COUNTS: Duration = Duration::from_secs(10 * 60);

/// How often it is written anew.
const HOLD_RENEWED: Duration = Duration::from_secs(60);

/// How long a writer goes on that could not write its key anew.
const HOLD_TRUSTED: Duration = Duration::from_secs(5 * 60);

/// How long a cleaner's key counts: longer than it goes on without writing it anew, and than the
/// removal takes that it began last.
pub(super) const CLEAN_COUNTS: Duration = Duration::from_secs(3 * 60);

/// When it is written anew.
const CLEAN_RENEWED: Duration = Duration::from_secs(20);

/// How long a cleaner goes on that has not written it anew.
const CLEAN_TRUSTED: Duration = Duration::from_secs(60);

/// How long one removal may take.
const REMOVAL_MAX: Duration = Duration::from_secs(60);

/// How often a writer looks whether a cleaner has gone.
const LOOKED: Duration = Duration::from_millis(500);

/// How long a sweep waits for those who write when it begins.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who writes and who cleans, as this process takes part in it.
#[derive(Debug)]
pub(super) struct Exclusion {
    bucket: Bucket,
    keys: Keys,
    /// How long a sweep waits for those who write when it begins.
    patience: Duration,
    /// The holds of this process. Taken for moments.
    held: Mutex<Vec<Known>>,
    /// Held by who takes a hold.
    taking: tokio::sync::Mutex<()>,
    /// Our key as a cleaner. Held while it is written anew, so that all removals wait for that.
    sweep: tokio::sync::Mutex<Option<Sweep>>,
    /// Read by each removal that is under way. Who waits for all of them has `sweep` as well, so that
    /// none begins meanwhile.
    removals: Arc<RwLock<()>>,
}

impl Exclusion {
    pub(super) fn new(bucket: Bucket, keys: Keys) -> Self {
        Self {
            bucket,
            keys,
            patience: PATIENCE,
            held: Mutex::default(),
            taking: tokio::sync::Mutex::default(),
            sweep: tokio::sync::Mutex::default(),
            removals: Arc::default(),
        }
    }

    /// The same, with a sweep that waits for so long.
    pub(super) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// What is in a folder, and when it was written.
    async fn list(&self, folder: &str) -> Result<Vec<(Path, SystemTime)>> {
        let listed = self.bucket.list(&self.keys.folder(folder));
        let listed = listed.map_ok(|meta| (meta.location, meta.last_modified.into()));
        listed.try_collect().await
    }

    /// When a key of ours was written, by the server's clock.
    async fn time_of(&self, key: &Path) -> Result<SystemTime> {
        let meta = self.bucket.look(key).await?;
        let meta = meta.ok_or_else(|| StoreError::Failed {
            location: self.bucket.shown(key),
            reason: "somebody has removed it while it was needed".to_owned(),
        })?;
        Ok(meta.last_modified.into())
    }

    /// The server's time.
    pub(super) async fn now(&self) -> Result<SystemTime> {
        let key = self.keys.at(PROBES, &Uuid::new_v4().to_string());
        self.bucket.write(&key, Bytes::new()).await?;
        let now = self.time_of(&key).await;
        self.bucket.remove(&key).await?;
        now
    }

    /// The keys that count no more: of writers, of cleaners and of who asked for the time, who were
    /// killed.
    pub(super) async fn over(&self, now: SystemTime) -> Result<Vec<Path>> {
        let mut over = Vec::new();
        let counts = [
            (HOLDS, HOLD_COUNTS),
            (CLEANS, CLEAN_COUNTS),
            (PROBES, HOLD_COUNTS),
        ];
        for (folder, counts) in counts {
            let listed = self.list(folder).await?.into_iter();
            let is_over = |written: SystemTime| !is_within(written, now, counts * 2);
            over.extend(listed.filter(|(_, at)| is_over(*at)).map(|(key, _)| key));
        }
        Ok(over)
    }
}

/// Whether something was written less than `age` before `now`, or after it.
fn is_within(written: SystemTime, now: SystemTime, age: Duration) -> bool {
    now.duration_since(written).unwrap_or_default() < age
}
