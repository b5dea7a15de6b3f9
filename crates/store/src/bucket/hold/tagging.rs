//! What refers to other things is written under a hold that counts: objects when they are sent, tags
//! also when they have come. So whoever finds an object there finds what is below it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use tokio::time::sleep;
use uuid::Uuid;

use super::{CLEAN_COUNTS, CLEANS, Exclusion, HOLD_TRUSTED, HOLDS, is_within};
use crate::boot_instant::BootInstant;
use crate::bucket::wire;
use crate::error::{Result, StoreError};

/// How long a cleaner is waited for that has been made to stop.
const STOPS: Duration = Duration::from_secs(2 * CLEAN_COUNTS.as_secs());

/// The pause before it is looked whether it has.
const PAUSE: Duration = Duration::from_secs(2);

/// A tag on its way. Where it is given up, or nobody knows what has become of it, it may be yet to
/// come: the keys of its writer stay.
struct OnItsWay {
    exclusion: Arc<Exclusion>,
    is_over: bool,
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        if !self.is_over {
            self.exclusion.unsettle_holds();
        }
    }
}

impl Exclusion {
    /// Does `write`, which counts on what is below it.
    ///
    /// # Errors
    /// A hold was lost before that; or what `write` says.
    pub(in crate::bucket) async fn referring(
        self: &Arc<Self>,
        write: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        self.check()?;
        let exclusion = Arc::clone(self);
        let goes_on = move || exclusion.check().is_ok();
        match wire::minding(goes_on, || (), write).await {
            Ok(()) => Ok(()),
            Err(error) => self.check().and(Err(error)),
        }
    }

    /// Does `write`, which shows others that something is needed. Where a hold is lost while it is
    /// under way, `undo` is done. Where the answer of any attempt was lost, our keys stay.
    ///
    /// # Errors
    /// A hold was lost, before that or meanwhile; or what `write` says.
    pub(in crate::bucket) async fn tagging(
        self: &Arc<Self>,
        write: impl Future<Output = Result<()>>,
        undo: impl Future<Output = ()>,
    ) -> Result<()> {
        self.check()?;
        let mut on_its_way = OnItsWay {
            exclusion: Arc::clone(self),
            is_over: false,
        };
        let exclusion = Arc::clone(self);
        let goes_on = move || exclusion.check().is_ok();
        let was_lost = Arc::new(AtomicBool::new(false));
        let lost = Arc::clone(&was_lost);
        let note_lost = move || lost.store(true, Ordering::SeqCst);
        let written = wire::minding(goes_on, note_lost, write).await;
        let was_lost = was_lost.load(Ordering::SeqCst);
        let counts = self.check();
        if counts.is_err() && (written.is_ok() || was_lost) {
            undo.await;
        }
        // An attempt that comes late writes it again: also when it has been undone, or untagged.
        on_its_way.is_over = !was_lost;
        counts.and(written)
    }

    /// Does `work` while nobody cleans, though a hold of ours was lost: nothing else of ours goes on.
    ///
    /// # Errors
    /// Cleaners cannot be kept away, or could not for as long as that took; or what `work` says.
    pub(in crate::bucket) async fn apart<T>(
        &self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let key = self.keys.at(HOLDS, &Uuid::new_v4().to_string());
        let done = async {
            let began = self.keep_away(&key).await?;
            let done = work.await?;
            match began.elapsed() < HOLD_TRUSTED {
                true => Ok(done),
                false => Err(StoreError::Unavailable {
                    location: self.bucket.shown(&key),
                    reason: "cleans may not wait for this any more".to_owned(),
                    source: None,
                }),
            }
        };
        let done = done.await;
        if let Err(error) = self.bucket.remove(&key).await {
            tracing::info!("a clean waits for a while: {}", error.with_causes());
        }
        done
    }

    /// Writes a key until no cleaner is at it: one who sees it stops. Returns since when it counts.
    async fn keep_away(&self, key: &Path) -> Result<BootInstant> {
        let arrived = BootInstant::now();
        loop {
            let began = BootInstant::now();
            self.bucket.write(key, Bytes::new()).await?;
            let cleaners = self.list(CLEANS).await?;
            if cleaners.is_empty() {
                return Ok(began);
            }
            let now = self.time_of(key).await?;
            let mut cleaners = cleaners.into_iter();
            let cleaner = cleaners.find(|(_, written)| is_within(*written, now, CLEAN_COUNTS));
            let Some((cleaner, _)) = cleaner else {
                return Ok(began);
            };
            if arrived.elapsed() >= STOPS {
                return Err(StoreError::Failed {
                    location: self.bucket.shown(&cleaner),
                    reason: "the clean that has written this does not stop".to_owned(),
                });
            }
            sleep(PAUSE).await;
        }
    }
}
