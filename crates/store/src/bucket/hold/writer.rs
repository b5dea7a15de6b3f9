//! The holds of this process.
//!
//! Who writes here at the same time shares a key, for the most part. A hold is *lost* when its key
//! could not be written anew for so long that it may not count any more. It stays lost, and while
//! anybody goes on who has it, nobody here puts a tag or takes another hold: so nothing that was
//! found, or sent, under the lost one is ever counted on under one that came after it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

use super::renewed::Renewed;
use super::{CLEAN_COUNTS, CLEANS, Exclusion, HOLD_RENEWED, HOLDS, LOOKED, is_within};
use crate::boot_instant::BootInstant;
use crate::bucket::handle::Bucket;
use crate::error::{Result, StoreError};
use crate::upkeep::Hold;

/// How long after a hold was taken others come to share it. So who never rests and takes a new hold
/// from time to time lets go of keys.
const SHARED: Duration = Duration::from_secs(50 * 60);

/// How long a writer keeps out of the way of a clean, before it makes it stop.
const GIVES_WAY: Duration = Duration::from_secs(60);

/// How long a writer waits for a clean in all.
const WAITS: Duration = Duration::from_secs(60 + 2 * CLEAN_COUNTS.as_secs());

/// A hold of this process, which those have who share it.
#[derive(Debug)]
pub(super) struct Held {
    bucket: Bucket,
    key: Path,
    renewed: Renewed,
    renewing: JoinHandle<()>,
    /// Whether a tag may be yet to come that was given up.
    is_unsettled: AtomicBool,
}

impl Held {
    /// Gives it up.
    async fn release(self) {
        // It must not be written again after it is gone.
        self.renewing.abort();
        if self.is_unsettled.load(Ordering::SeqCst) {
            tracing::info!("a clean waits, for a tag was given up on its way");
            return;
        }
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

/// What is known of a hold by who has no part in it: asking must not make one of those who share it.
#[derive(Debug)]
pub(super) struct Known {
    held: Weak<Held>,
    taken: BootInstant,
    renewed: Renewed,
}

impl Known {
    fn is_there(&self) -> bool {
        self.held.strong_count() > 0
    }
}

impl Exclusion {
    /// The holds that somebody here has, the oldest first.
    fn known(&self) -> MutexGuard<'_, Vec<Known>> {
        let mut known = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(Known::is_there);
        known
    }

    /// Whether this process holds the repository.
    pub(in crate::bucket) fn is_held(&self) -> bool {
        let known = self.known();
        !known.is_empty() && !known.iter().any(|known| known.renewed.is_lost())
    }

    /// That no hold that anybody here has was lost.
    pub(in crate::bucket) fn check(&self) -> Result<()> {
        match self.known().iter().any(|known| known.renewed.is_lost()) {
            false => Ok(()),
            true => Err(lost(&self.bucket.shown(&self.keys.folder(HOLDS)))),
        }
    }

    /// A tag may be yet to come that was given up: the holds of now stay until they count no more.
    pub(in crate::bucket) fn unsettle_holds(&self) {
        let known = self.known();
        // To those who release it meanwhile this is no different from a moment later.
        for held in known.iter().filter_map(|known| known.held.upgrade()) {
            held.is_unsettled.store(true, Ordering::SeqCst);
        }
    }

    /// Holds the repository. Waits for a cleaner who is at it. Where no hold counts that it could go
    /// on from, `begun` is run before anybody counts on the new one.
    ///
    /// # Errors
    /// A hold of this process was lost, and somebody goes on who has it.
    pub(in crate::bucket) async fn hold(&self, begun: impl FnOnce() + Send) -> Result<Hold> {
        // One at a time: those who wait share it then.
        let _turn = self.taking.lock().await;
        self.check()?;
        let held = match self.shared() {
            Some(held) => held,
            None => self.new_hold(begun).await?,
        };
        let (renewed, shown) = (held.renewed.clone(), held.bucket.shown(&held.key));
        let check = move || match renewed.is_lost() {
            false => Ok(()),
            true => Err(lost(&shown)),
        };
        // The last of those who share it removes the key.
        let release = async move {
            if let Some(held) = Arc::into_inner(held) {
                held.release().await;
            }
        };
        Ok(Hold::released_by(release, check))
    }

    /// As if all holds had been taken so long before.
    #[cfg(test)]
    pub(super) fn taken_before(&self, age: Duration) {
        for known in self.known().iter_mut() {
            known.taken = BootInstant::ago(age);
        }
    }

    fn shared(&self) -> Option<Arc<Held>> {
        let known = self.known();
        let newest = known.last().filter(|one| one.taken.elapsed() < SHARED);
        newest.and_then(|one| one.held.upgrade())
    }

    async fn new_hold(&self, begun: impl FnOnce() + Send) -> Result<Arc<Held>> {
        let key = self.keys.at(HOLDS, &Uuid::new_v4().to_string());
        self.stop_sweep().await;
        let entered = self.enter(&key).await;
        let (began, goes_on) = match entered {
            Ok(entered) => entered,
            Err(error) => {
                // It does not keep others from anything for long.
                self.bucket.remove(&key).await.ok();
                return Err(error);
            }
        };
        let renewed = Renewed::new(began);
        let renewing = renew(self.bucket.clone(), key.clone(), renewed.clone());
        let held = Arc::new(Held {
            bucket: self.bucket.clone(),
            key,
            renewed: renewed.clone(),
            renewing: tokio::spawn(renewing),
            is_unsettled: AtomicBool::new(false),
        });
        if !goes_on {
            begun();
        }
        self.known().push(Known {
            held: Arc::downgrade(&held),
            taken: began,
            renewed,
        });
        Ok(held)
    }

    /// Writes a key when no cleaner is at it. Returns since when it counts, and whether an older hold
    /// of ours has counted until then.
    async fn enter(&self, key: &Path) -> Result<(BootInstant, bool)> {
        let arrived = BootInstant::now();
        loop {
            let began = BootInstant::now();
            self.bucket.write(key, Bytes::new()).await?;
            // While one of ours counts no cleaner is at it, though one may wait for us.
            if self.is_held() {
                return Ok((began, true));
            }
            let Some(cleaner) = self.cleaner(key).await? else {
                return Ok((began, false));
            };
            let waited = arrived.elapsed();
            if waited < GIVES_WAY {
                self.bucket.remove(key).await?;
                self.give_way(arrived).await?;
            } else if waited < WAITS {
                sleep(LOOKED).await;
            } else {
                return Err(StoreError::Failed {
                    location: self.bucket.shown(&cleaner),
                    reason: "the clean that has written this does not stop".to_owned(),
                });
            }
        }
    }

    /// Waits, without a key that would be in its way, until no cleaner is at it, or for long enough.
    async fn give_way(&self, arrived: BootInstant) -> Result<()> {
        tracing::warn!(
            "somebody cleans the bucket: waiting for that for up to {} s",
            GIVES_WAY.as_secs()
        );
        while arrived.elapsed() < GIVES_WAY {
            sleep(LOOKED).await;
            if self.list(CLEANS).await?.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// The key of a cleaner that counts, at the time `key` was written.
    async fn cleaner(&self, key: &Path) -> Result<Option<Path>> {
        let cleaners = self.list(CLEANS).await?;
        if cleaners.is_empty() {
            return Ok(None);
        }
        let now = self.time_of(key).await?;
        let mut cleaners = cleaners.into_iter();
        let cleaner = cleaners.find(|(_, written)| is_within(*written, now, CLEAN_COUNTS));
        Ok(cleaner.map(|(key, _)| key))
    }
}

fn lost(location: &str) -> StoreError {
    StoreError::Unavailable {
        location: location.to_owned(),
        reason: "it could not be written to for so long that a clean may have removed what was \
                 sent: run this again"
            .to_owned(),
        source: None,
    }
}

async fn renew(bucket: Bucket, key: Path, renewed: Renewed) {
    loop {
        sleep(HOLD_RENEWED).await;
        let began = BootInstant::now();
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
