//! The sweep of this process: when something may be removed, and when it has been.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use object_store::path::Path;
use tokio::sync::OwnedRwLockReadGuard;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use uuid::Uuid;

use super::{
    CLEAN_COUNTS, CLEAN_RENEWED, CLEAN_TRUSTED, CLEANS, Exclusion, HOLD_COUNTS, HOLDS, LOOKED,
    REMOVAL_MAX, is_within,
};
use crate::boot_instant::BootInstant;
use crate::bucket::wire;
use crate::error::{Result, StoreError};

/// How long a sweep that is under way waits for a writer to go that may only have looked whether
/// somebody cleans.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// How often one that is to begin looks whether writers have gone.
const LOOKED_FIRST: Duration = Duration::from_secs(1);

/// Our key as a cleaner.
#[derive(Debug)]
pub(super) struct Sweep {
    key: Path,
    /// Before the key was last written, nobody having been seen to write then.
    renewed: Option<BootInstant>,
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

/// Whether a removal that was permitted then may still be sent.
fn is_current(given: BootInstant) -> bool {
    given.elapsed().as_secs() <= REMOVAL_MAX.as_secs()
}

/// That something may be removed: the sweep does not end before this does.
#[derive(Debug)]
pub(in crate::bucket) struct Permit {
    given: BootInstant,
    is_unsettled: Arc<AtomicBool>,
    is_done: bool,
    _removal: OwnedRwLockReadGuard<()>,
}

impl Permit {
    /// Removes something, `shown` so, which takes no longer than others wait for it: nothing is sent
    /// after that, by a machine that has slept meanwhile either. An attempt whose answer was lost may
    /// be yet to happen, also where a later one has succeeded.
    pub(in crate::bucket) async fn removing(
        &self,
        shown: String,
        removal: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let given = self.given;
        let goes_on = move || is_current(given);
        let is_unsettled = Arc::clone(&self.is_unsettled);
        let was_lost = move || is_unsettled.store(true, Ordering::SeqCst);
        let removal = wire::minding(goes_on, was_lost, removal);
        let removal = tokio::time::timeout(REMOVAL_MAX, removal);
        removal.await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable {
                location: shown,
                reason: "its removal takes too long".to_owned(),
                source: None,
            })
        })
    }

    #[cfg(test)]
    pub(super) fn is_current(&self) -> bool {
        is_current(self.given)
    }

    /// The removal has ended: nothing of it is yet to happen.
    pub(in crate::bucket) fn done(mut self) {
        self.is_done = true;
    }

    /// The same, where the outcome says so: whoever got no answer knows nothing.
    pub(in crate::bucket) fn done_with(self, outcome: &Result<()>) {
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
    /// Begins to remove, as soon as nobody writes any more: who comes from now on waits for us.
    ///
    /// # Errors
    /// `Failed` where somebody goes on writing.
    pub(in crate::bucket) async fn begin_sweep(self: &Arc<Self>) -> Result<()> {
        let mut sweeps = self.sweep.lock().await;
        if let Some(stopped) = sweeps.take_if(|sweep| sweep.stopped.is_some()) {
            self.remove_key(&stopped).await;
        }
        let sweep = sweeps.get_or_insert_with(|| self.new_sweep());
        if sweep.renewing.is_none() {
            let renewing = tokio::spawn(keep(Arc::downgrade(self)));
            sweep.renewing = Some(Renewing(renewing.abort_handle()));
        }
        // Our own hold does not go while we wait for it.
        let patience = match self.is_held() {
            true => Duration::ZERO,
            false => self.patience,
        };
        self.renew_sweep(sweep, patience, LOOKED_FIRST).await
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

    /// Writes our key, and looks whether somebody writes. If that does not end in time, we have
    /// stopped.
    async fn renew_sweep(
        &self,
        sweep: &mut Sweep,
        patience: Duration,
        pause: Duration,
    ) -> Result<()> {
        let began = BootInstant::now();
        let mut is_told = patience <= LOOK_MAX;
        loop {
            let renewed = BootInstant::now();
            self.bucket.write(&sweep.key, Bytes::new()).await?;
            let Some((writer, age)) = self.writer(&sweep.key).await? else {
                sweep.renewed = Some(renewed);
                break;
            };
            if began.elapsed() >= patience {
                return Err(self.stop_for(sweep, &writer, age).await);
            }
            if !std::mem::replace(&mut is_told, true) {
                tracing::warn!(
                    "somebody is writing to the bucket ({}): waiting for that for up to {} s",
                    self.bucket.shown(&writer),
                    patience.as_secs()
                );
            }
            sleep(pause).await;
        }
        match sweep.is_lost() {
            true => Err(self.lost(sweep)),
            false => Ok(()),
        }
    }

    async fn stop_for(&self, sweep: &mut Sweep, writer: &Path, age: Duration) -> StoreError {
        let stopped = Stopped {
            location: self.bucket.shown(writer),
            reason: format!(
                "somebody is writing to the bucket (by this key, written {} s ago), so nothing more is \
                 removed: clean it again when that has ended (a writer that was killed counts for {} \
                 minutes)",
                age.as_secs(),
                HOLD_COUNTS.as_secs() / 60
            ),
        };
        sweep.stopped = Some(stopped.clone());
        self.remove_key(sweep).await;
        stopped.error()
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
        self.renew_sweep(sweep, LOOK_MAX, LOOKED).await?;
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

    /// The key of a writer that counts, at the time `key` was written, and how old it is then.
    async fn writer(&self, key: &Path) -> Result<Option<(Path, Duration)>> {
        let writers = self.list(HOLDS).await?;
        if writers.is_empty() {
            return Ok(None);
        }
        let now = self.time_of(key).await?;
        let age = |written: SystemTime| now.duration_since(written).unwrap_or_default();
        let mut writers = writers.into_iter();
        let writer = writers.find(|(_, written)| is_within(*written, now, HOLD_COUNTS));
        Ok(writer.map(|(key, written)| (key, age(written))))
    }

    /// That something may be removed now.
    pub(in crate::bucket) async fn permit(&self) -> Result<Permit> {
        let mut sweeps = self.sweep.lock().await;
        // Who only removes something now and then begins anew, having read no tags.
        let is_over = |sweep: &mut Sweep| {
            sweep.renewing.is_none() && (sweep.stopped.is_some() || sweep.is_lost())
        };
        if let Some(over) = sweeps.take_if(is_over) {
            self.remove_key(&over).await;
        }
        let sweep = sweeps.get_or_insert_with(|| self.new_sweep());
        self.permitted(sweep).await
    }

    /// The same where a sweep of ours was begun; `None` where none was.
    pub(in crate::bucket) async fn permit_in_sweep(&self) -> Result<Option<Permit>> {
        let mut sweeps = self.sweep.lock().await;
        match sweeps.as_mut().filter(|sweep| sweep.renewing.is_some()) {
            Some(sweep) => self.permitted(sweep).await.map(Some),
            None => Ok(None),
        }
    }

    async fn permitted(&self, sweep: &mut Sweep) -> Result<Permit> {
        self.keep_sweep(sweep).await?;
        Ok(Permit {
            given: BootInstant::now(),
            is_unsettled: Arc::clone(&sweep.is_unsettled),
            is_done: false,
            _removal: Arc::clone(&self.removals).read_owned().await,
        })
    }

    /// One of ours writes: a sweep that was begun goes no further.
    pub(super) async fn stop_sweep(&self) {
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
    pub(in crate::bucket) async fn end_sweep(&self) {
        let mut sweeps = self.sweep.lock().await;
        if let Some(sweep) = sweeps.take() {
            self.remove_key(&sweep).await;
        }
    }
}
