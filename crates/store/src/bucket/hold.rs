//! Writers and cleaners keep out of each other's way, by keys.
//!
//! A writer has a key in `holds/` for as long as it writes, a cleaner one in `cleans/` for as long as
//! it removes. Each writes its own and then lists the other's: of two who begin at once, one sees the
//! other at least. A cleaner who sees a writer stops, and removes its key; a writer who sees a cleaner
//! waits until that key is gone, which takes one of the cleaner's steps. Nobody who is killed is in the
//! way for long: a key that is not written anew counts no more after a time, by the server's clock.
//! Whoever was stopped so long that its own key may not count any more does not go on: a cleaner
//! removes nothing, a writer puts no tag. A cleaner's key stays until all removals have ended; where
//! one was given up on its way it is not removed at all, and writers wait until it counts no more.
//!
//! This needs that a listing shows what was written before it, which S3, GCS and Azure promise, and
//! Garage with its usual quorums.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::task::{AbortHandle, JoinHandle};
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
    /// Read by each removal that is under way. Who waits for all of them has `sweep` as well, so that
    /// none begins meanwhile.
    removals: Arc<RwLock<()>>,
}

#[derive(Debug)]
struct Sweep {
    key: Path,
    /// Before the key was last written, nobody having been seen to write then.
    renewed: Option<Instant>,
    /// What writes the key anew where the sweep was begun, and so will be ended; otherwise somebody
    /// just removes something.
    renewing: Option<Renewing>,
    /// Why nothing more is removed, where that is so.
    stopped: Option<Stopped>,
    /// Whether a removal was given up of which nobody knows whether it is yet to happen.
    is_unsettled: Arc<AtomicBool>,
}

impl Sweep {
    /// Whether the key may not count any more.
    fn is_lost(&self) -> bool {
        self.renewed.is_some_and(|at| at.elapsed() > CLEAN_TRUSTED)
    }
}

/// Why a sweep has stopped.
#[derive(Debug, Clone)]
struct Stopped {
    location: String,
    reason: String,
}

impl Stopped {
    fn error(self) -> StoreError {
        let Self { location, reason } = self;
        StoreError::Failed { location, reason }
    }
}

/// A task that ends with this.
#[derive(Debug)]
struct Renewing(AbortHandle);

impl Drop for Renewing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Writes the key of a sweep anew also while nothing is removed.
async fn keep(exclusion: Weak<Exclusion>) {
    loop {
        sleep(CLEAN_RENEWED).await;
        let Some(exclusion) = exclusion.upgrade() else {
            return;
        };
        let mut sweeps = exclusion.sweep.lock().await;
        let Some(sweep) = sweeps.as_mut().filter(|sweep| sweep.stopped.is_none()) else {
            return;
        };
        if let Err(error) = exclusion.keep_sweep(sweep).await {
            tracing::info!("the sweep is not renewed: {}", error.with_causes());
        }
    }
}

/// That something may be removed: the sweep does not end before this does.
#[derive(Debug)]
pub(super) struct Permit {
    is_unsettled: Arc<AtomicBool>,
    is_done: bool,
    _removal: OwnedRwLockReadGuard<()>,
}

impl Permit {
    /// The removal has ended: nothing of it is yet to happen.
    pub(super) fn done(mut self) {
        self.is_done = true;
    }

    /// The same, where the outcome says so: whoever got no answer knows nothing.
    pub(super) fn done_with(self, outcome: &Result<()>) {
        if let Ok(()) | Err(StoreError::Denied { .. }) = outcome {
            self.done();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Before others may go on.
        if !self.is_done {
            self.is_unsettled.store(true, Ordering::SeqCst);
        }
    }
}

impl Exclusion {
    pub(super) fn new(bucket: Bucket, keys: Keys) -> Self {
        Self {
            bucket,
            keys,
            held: Mutex::new((Weak::new(), Renewed(Arc::new(Mutex::new(Instant::now()))))),
            sweep: tokio::sync::Mutex::default(),
            removals: Arc::default(),
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
        self.stop_sweep().await;
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
                return Err(StoreError::Failed {
                    location: self.bucket.shown(cleaner),
                    reason: "the clean that has written this does not stop".to_owned(),
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
        let meta = meta.ok_or_else(|| StoreError::Failed {
            location: self.bucket.shown(key),
            reason: "somebody has removed it while it was needed".to_owned(),
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
    pub(super) async fn begin_sweep(self: &Arc<Self>) -> Result<()> {
        let mut sweeps = self.sweep.lock().await;
        if let Some(stopped) = sweeps.take_if(|sweep| sweep.stopped.is_some()) {
            self.remove_key(&stopped).await;
        }
        let sweep = sweeps.get_or_insert_with(|| self.new_sweep());
        if sweep.renewing.is_none() {
            let renewing = tokio::spawn(keep(Arc::downgrade(self)));
            sweep.renewing = Some(Renewing(renewing.abort_handle()));
        }
        self.renew_sweep(sweep).await
    }

    fn new_sweep(&self) -> Sweep {
        Sweep {
            key: self.keys.at(CLEANS, &Uuid::new_v4().to_string()),
            renewed: None,
            renewing: None,
            stopped: None,
            is_unsettled: Arc::default(),
        }
    }

    /// Writes our key, and looks whether somebody writes. If so, we have stopped.
    async fn renew_sweep(&self, sweep: &mut Sweep) -> Result<()> {
        let renewed = Instant::now();
        self.bucket.write(&sweep.key, Bytes::new()).await?;
        if let Some(writer) = self.writer(&sweep.key).await? {
            let stopped = Stopped {
                location: self.bucket.shown(&writer),
                reason: format!(
                    "somebody is writing to the bucket, so nothing more is removed: clean it again \
                     when that has ended (a writer that was killed counts for {} minutes)",
                    HOLD_COUNTS.as_secs() / 60
                ),
            };
            sweep.stopped = Some(stopped.clone());
            self.remove_key(sweep).await;
            return Err(stopped.error());
        }
        sweep.renewed = Some(renewed);
        match sweep.is_lost() {
            true => Err(self.lost(sweep)),
            false => Ok(()),
        }
    }

    /// The same where it is time to, and never too late.
    async fn keep_sweep(&self, sweep: &mut Sweep) -> Result<()> {
        if let Some(stopped) = &sweep.stopped {
            return Err(stopped.clone().error());
        }
        if sweep.is_lost() {
            return Err(self.lost(sweep));
        }
        let last = sweep.renewed;
        if last.is_some_and(|at| at.elapsed() < CLEAN_RENEWED) {
            return Ok(());
        }
        self.renew_sweep(sweep).await?;
        // A writer may have come and gone before the key was there again.
        match last.is_some_and(|at| at.elapsed() > CLEAN_TRUSTED) {
            true => Err(self.lost(sweep)),
            false => Ok(()),
        }
    }

    /// Stops a sweep whose key may not count any more.
    fn lost(&self, sweep: &mut Sweep) -> StoreError {
        let stopped = Stopped {
            location: self.bucket.shown(&sweep.key),
            reason: "the clean was stopped for so long that others may not wait for it any more: \
                     clean again"
                .to_owned(),
        };
        sweep.stopped = Some(stopped.clone());
        stopped.error()
    }

    /// Others need not wait for a sweep any more: waits for its removals, and removes its key.
    async fn remove_key(&self, sweep: &Sweep) {
        let _all = self.removals.write().await;
        if sweep.is_unsettled.load(Ordering::SeqCst) {
            tracing::info!(
                "writers wait for {} s, for a removal was given up on its way",
                CLEAN_COUNTS.as_secs()
            );
            return;
        }
        if let Err(error) = self.bucket.remove(&sweep.key).await {
            tracing::info!("writers wait for a while: {}", error.with_causes());
        }
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
    pub(super) async fn permit(&self) -> Result<Permit> {
        let mut sweeps = self.sweep.lock().await;
        // Who only removes something now and then begins anew, having read no tags.
        let is_over = |sweep: &mut Sweep| {
            sweep.renewing.is_none() && (sweep.stopped.is_some() || sweep.is_lost())
        };
        if let Some(over) = sweeps.take_if(is_over) {
            self.remove_key(&over).await;
        }
        let sweep = sweeps.get_or_insert_with(|| self.new_sweep());
        self.keep_sweep(sweep).await?;
        Ok(Permit {
            is_unsettled: Arc::clone(&sweep.is_unsettled),
            is_done: false,
            _removal: Arc::clone(&self.removals).read_owned().await,
        })
    }

    /// One of ours writes: a sweep that was begun goes no further.
    async fn stop_sweep(&self) {
        let mut sweeps = self.sweep.lock().await;
        let Some(sweep) = sweeps.as_mut() else {
            return;
        };
        if sweep.stopped.is_none() {
            sweep.stopped = Some(Stopped {
                location: self.bucket.shown(&self.keys.folder(HOLDS)),
                reason: "this process has begun to write to the bucket, so nothing more is \
                         removed: clean it again"
                    .to_owned(),
            });
        }
        self.remove_key(sweep).await;
    }

    /// Others need not wait any more.
    pub(super) async fn end_sweep(&self) {
        let mut sweeps = self.sweep.lock().await;
        if let Some(sweep) = sweeps.take() {
            self.remove_key(&sweep).await;
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
    use std::pin::pin;

    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_sweep_does_not_end_before_its_removals() {
        let bucket = Bucket::new(Arc::new(InMemory::new()), "s3://bucket");
        let keys = Keys::new("site", None).unwrap();
        let exclusion = Arc::new(Exclusion::new(bucket, keys));
        exclusion.begin_sweep().await.unwrap();
        let permit = exclusion.permit().await.unwrap();
        let mut ending = pin!(exclusion.end_sweep());
        assert!(futures::poll!(ending.as_mut()).is_pending());
        assert_eq!(exclusion.list(CLEANS).await.unwrap().len(), 1);
        permit.done();
        ending.await;
        assert_eq!(exclusion.list(CLEANS).await.unwrap().len(), 0);
        // One that was given up may be yet to happen.
        exclusion.begin_sweep().await.unwrap();
        drop(exclusion.permit().await.unwrap());
        exclusion.end_sweep().await;
        assert_eq!(exclusion.list(CLEANS).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_sweep_that_was_stopped_removes_nothing_until_it_is_begun_again() {
        let bucket = Bucket::new(Arc::new(InMemory::new()), "s3://bucket");
        let keys = Keys::new("site", None).unwrap();
        let exclusion = Arc::new(Exclusion::new(bucket, keys));
        exclusion.begin_sweep().await.unwrap();
        exclusion.permit().await.unwrap().done();
        let mut is_new = false;
        let hold = exclusion.hold(|| is_new = true).await.unwrap();
        assert!(is_new);
        assert!(exclusion.permit().await.is_err());
        hold.release().await;
        assert!(exclusion.permit().await.is_err());
        exclusion.begin_sweep().await.unwrap();
        exclusion.permit().await.unwrap().done();
    }

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
