//! Writers and cleaners keep out of each other's way, by keys.
//!
//! A writer has a key in `holds/` for as long as it writes, a cleaner one in `cleans/` for as long as
//! it removes. Each writes its own and then lists the other's: of two who begin at once, one sees the
//! other at least. A cleaner who sees a writer stops, and removes its key; a writer who sees a cleaner
//! waits until that key is gone, which takes one of the cleaner's steps. Nobody who is killed is in the
//! way for long: a key that is not written anew counts no more after a time, by the server's clock.
//! Whoever was stopped so long that its own key may not count any more does not go on: a cleaner
//! removes nothing, a writer puts no tag.
//!
//! This needs that a listing shows what was written before it, which S3, GCS and Azure promise, and
//! Garage with its usual quorums.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::handle::Bucket;
use super::keys::Keys;
use crate::error::{Result, StoreError};
use crate::upkeep::Hold;

/// The folder of writers.
pub(super) const HOLDS: &str = "holds";

/// The folder of cleaners.
pub(super) const CLEANS: &str = "cleans";

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
pub(super) const REMOVAL_MAX: Duration = Duration::from_secs(60);

/// How often a writer looks whether a cleaner has gone.
const LOOKED: Duration = Duration::from_millis(500);

/// Who writes and who cleans, as this process takes part in it.
#[derive(Debug)]
pub(super) struct Exclusion {
    bucket: Bucket,
    keys: Keys,
    /// The hold of this process, which all who write here share, and when its key was last written.
    /// Taken for moments.
    held: Mutex<(Weak<Held>, Renewed)>,
    /// Our key as a cleaner. Held while it is written anew, so that all removals wait for that.
    sweep: tokio::sync::Mutex<Option<Sweep>>,
}

#[derive(Debug)]
struct Sweep {
    key: Path,
    /// Before it was last written.
    renewed: Instant,
}

impl Exclusion {
    pub(super) fn new(bucket: Bucket, keys: Keys) -> Self {
        Self {
            bucket,
            keys,
            held: Mutex::new((Weak::new(), Renewed(Arc::new(Mutex::new(Instant::now()))))),
            sweep: tokio::sync::Mutex::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, (Weak<Held>, Renewed)> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this process holds the repository.
    pub(super) fn is_held(&self) -> bool {
        // Not by becoming one of those who share it.
        self.held().0.strong_count() > 0
    }

    /// That a hold, where there is one, still counts.
    pub(super) fn check(&self) -> Result<()> {
        let is_lost = self.is_held() && self.held().1.is_lost();
        match is_lost {
            false => Ok(()),
            true => Err(StoreError::Unavailable {
                location: self.bucket.shown(&self.keys.folder(HOLDS)),
                reason: "it could not be written to for so long that a clean may have removed \
                         what was sent: run this again"
                    .to_owned(),
                source: None,
            }),
        }
    }

    /// Holds the repository. Waits for a cleaner who is at it to stop. Where no hold counts that could
    /// be shared, `begun` is run before anybody counts on the new one.
    pub(super) async fn hold(&self, begun: impl FnOnce() + Send) -> Result<Hold> {
        let shared = {
            let held = self.held();
            held.0.upgrade().filter(|_| !held.1.is_lost())
        };
        let held = match shared {
            Some(held) => held,
            None => self.new_hold(begun).await?,
        };
        // The last of those who share it removes the key.
        Ok(Hold::released_by(async move {
            if let Some(held) = Arc::into_inner(held) {
                held.release().await;
            }
        }))
    }

    async fn new_hold(&self, begun: impl FnOnce() + Send) -> Result<Arc<Held>> {
        let key = self.keys.at(HOLDS, &Uuid::new_v4().to_string());
        let began = Instant::now();
        self.end_sweep().await;
        self.bucket.write(&key, Bytes::new()).await?;
        if let Err(error) = self.wait_for_cleaners(&key).await {
            // It does not keep others from anything for long.
            self.bucket.remove(&key).await.ok();
            return Err(error);
        }
        let renewed = Renewed(Arc::new(Mutex::new(began)));
        let renewing = renew(self.bucket.clone(), key.clone(), renewed.clone());
        let held = Arc::new(Held {
            bucket: self.bucket.clone(),
            key,
            renewing: tokio::spawn(renewing),
        });
        begun();
        *self.held() = (Arc::downgrade(&held), renewed);
        Ok(held)
    }

    async fn wait_for_cleaners(&self, key: &Path) -> Result<()> {
        let began = Instant::now();
        loop {
            let cleaners = self.list(CLEANS).await?;
            if cleaners.is_empty() {
                return Ok(());
            }
            let now = self.time_of(key).await?;
            let counts =
                |(_, written): &&(Path, SystemTime)| is_within(*written, now, CLEAN_COUNTS);
            let Some((cleaner, _)) = cleaners.iter().find(counts) else {
                return Ok(());
            };
            if began.elapsed() > CLEAN_COUNTS * 2 {
                return Err(StoreError::Unavailable {
                    location: self.bucket.shown(cleaner),
                    reason: "the clean that has written this does not stop".to_owned(),
                    source: None,
                });
            }
            sleep(LOOKED).await;
            self.bucket.write(key, Bytes::new()).await?;
        }
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
        let meta = meta.ok_or_else(|| StoreError::Unavailable {
            location: self.bucket.shown(key),
            reason: "somebody has removed it while it was needed".to_owned(),
            source: None,
        })?;
        Ok(meta.last_modified.into())
    }

    /// The server's time.
    pub(super) async fn now(&self) -> Result<SystemTime> {
        let key = self.keys.at("probes", &Uuid::new_v4().to_string());
        self.bucket.write(&key, Bytes::new()).await?;
        let now = self.time_of(&key).await;
        self.bucket.remove(&key).await?;
        now
    }

    /// Begins to remove, unless somebody writes.
    pub(super) async fn begin_sweep(&self) -> Result<()> {
        let mut sweep = self.sweep.lock().await;
        let key = match sweep.take() {
            Some(sweep) => sweep.key,
            None => self.keys.at(CLEANS, &Uuid::new_v4().to_string()),
        };
        *sweep = Some(self.renew_sweep(key).await?);
        Ok(())
    }

    /// Writes our key, and looks whether somebody writes. If so, we have stopped.
    async fn renew_sweep(&self, key: Path) -> Result<Sweep> {
        let renewed = Instant::now();
        self.bucket.write(&key, Bytes::new()).await?;
        let writer = self.writer(&key).await;
        let Ok(None) = writer else {
            self.bucket.remove(&key).await?;
            let writer = writer?.expect("otherwise nobody writes");
            return Err(StoreError::Unavailable {
                location: self.bucket.shown(&writer),
                reason: format!(
                    "somebody is writing to the bucket, so nothing more is removed: clean it again \
                     when that has ended (a writer that was killed counts for {} minutes)",
                    HOLD_COUNTS.as_secs() / 60
                ),
                source: None,
            });
        };
        Ok(Sweep { key, renewed })
    }

    async fn writer(&self, key: &Path) -> Result<Option<Path>> {
        let writers = self.list(HOLDS).await?;
        if writers.is_empty() {
            return Ok(None);
        }
        let now = self.time_of(key).await?;
        let mut writers = writers.into_iter();
        let writer = writers.find(|(_, written)| is_within(*written, now, HOLD_COUNTS));
        Ok(writer.map(|(key, _)| key))
    }

    /// That something may be removed now.
    pub(super) async fn permit(&self) -> Result<()> {
        let mut sweep = self.sweep.lock().await;
        let key = match sweep.as_ref() {
            Some(sweep) if sweep.renewed.elapsed() < CLEAN_RENEWED => return Ok(()),
            Some(sweep) if sweep.renewed.elapsed() > CLEAN_TRUSTED => {
                return Err(StoreError::Unavailable {
                    location: self.bucket.shown(&sweep.key),
                    reason:
                        "the clean was stopped for so long that others may not wait for it any \
                             more: clean again"
                            .to_owned(),
                    source: None,
                });
            }
            Some(sweep) => sweep.key.clone(),
            None => self.keys.at(CLEANS, &Uuid::new_v4().to_string()),
        };
        *sweep = None;
        *sweep = Some(self.renew_sweep(key).await?);
        Ok(())
    }

    /// Others need not wait any more.
    pub(super) async fn end_sweep(&self) {
        let Some(sweep) = self.sweep.lock().await.take() else {
            return;
        };
        if let Err(error) = self.bucket.remove(&sweep.key).await {
            tracing::info!("writers wait for a while: {}", error.with_causes());
        }
    }

    /// The keys that count no more: of writers and of cleaners who were killed.
    pub(super) async fn over(&self, now: SystemTime) -> Result<Vec<Path>> {
        let mut over = Vec::new();
        for (folder, counts) in [(HOLDS, HOLD_COUNTS), (CLEANS, CLEAN_COUNTS)] {
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

/// Before a writer's key was last written.
#[derive(Debug, Clone)]
struct Renewed(Arc<Mutex<Instant>>);

impl Renewed {
    fn at(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the key may not count any more.
    fn is_lost(&self) -> bool {
        self.at().elapsed() > HOLD_TRUSTED
    }

    /// The key was written again, before which it was `began`. Returns whether it still counts: what
    /// was lost once stays so, for a clean may have come in between.
    fn renew(&self, began: Instant) -> bool {
        let mut at = self.at();
        let counts = at.elapsed() <= HOLD_TRUSTED;
        if counts {
            *at = began;
        }
        counts
    }
}

async fn renew(bucket: Bucket, key: Path, renewed: Renewed) {
    loop {
        sleep(HOLD_RENEWED).await;
        let began = Instant::now();
        match bucket.write(&key, Bytes::new()).await {
            Ok(()) if renewed.renew(began) => {}
            Ok(()) => {
                tracing::info!("the hold was not renewed in time, and is lost");
                return;
            }
            Err(error) => tracing::info!("the hold is not renewed: {}", error.with_causes()),
        }
    }
}

/// A hold of this process.
#[derive(Debug)]
struct Held {
    bucket: Bucket,
    key: Path,
    renewing: JoinHandle<()>,
}

impl Held {
    /// Gives it up.
    async fn release(self) {
        // It must not be written again after it is gone.
        self.renewing.abort();
        if let Err(error) = self.bucket.remove(&self.key).await {
            tracing::info!("a clean waits for a while: {}", error.with_causes());
        }
    }
}

impl Drop for Held {
    /// The key stays where this is not [released](Self::release): it counts for a while.
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_stops_is_out_of_the_way_before_it_counts_no_more() {
        // What is removed last, and what is on its way then, is gone before a writer begins.
        assert!(CLEAN_TRUSTED + REMOVAL_MAX < CLEAN_COUNTS);
        assert!(HOLD_TRUSTED + HOLD_RENEWED < HOLD_COUNTS);
        let now = SystemTime::now();
        let minute = Duration::from_secs(60);
        assert!(is_within(now, now, minute) && is_within(now + minute, now, minute));
        assert!(!is_within(now - minute, now, minute));
    }
}
