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
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

use super::entering::Entering;
use super::renewed::Renewed;
use super::seen::Seen;
use super::{CLEAN_COUNTS, CLEANS, Exclusion, HOLD_RENEWED, HOLDS, LOOKED};
use crate::boot_instant::BootInstant;
use crate::bucket::handle::Bucket;
use crate::error::{Result, StoreError};
use crate::lingering::Lingering;
use crate::upkeep::Hold;

/// How long after a hold was taken others come to share it. So who never rests and takes a new hold
/// from time to time lets go of keys.
const SHARED: Duration = Duration::from_secs(50 * 60);

/// How long a writer keeps out of the way of a clean, before it makes it stop.
const GIVES_WAY: Duration = Duration::from_secs(60);

/// How often a writer who makes a clean stop writes its key, which some object stores let nobody do
/// more than once a second. It is there all the time.
const REWRITTEN: Duration = Duration::from_secs(2);

/// How long a writer waits for a clean in all.
const WAITS: Duration = Duration::from_secs(60 + 2 * CLEAN_COUNTS.as_secs());

/// A hold of this process, which those have who share it. The key stays where it is not
/// [released](Self::release): it counts for a while.
#[derive(Debug)]
pub(super) struct Held {
    bucket: Bucket,
    key: Path,
    renewed: Renewed,
    renewing: JoinHandle<()>,
    /// Dropped when the key is to be written anew no more.
    renews: oneshot::Sender<()>,
    /// Whether a tag may be yet to come that was given up.
    is_unsettled: AtomicBool,
    _lingering: Lingering,
}

impl Held {
    /// Gives it up.
    async fn release(self) {
        // It must not be written again after it is gone: what is on its way is waited for.
        drop(self.renews);
        self.renewing.await.ok();
        if self.is_unsettled.load(Ordering::SeqCst) {
            tracing::info!("a clean waits, for a tag was given up on its way");
            return;
        }
        match self.bucket.remove(&self.key).await {
            Ok(()) => {}
            Err(error @ StoreError::Denied { .. }) => {
                tracing::warn!("a clean waits for ten minutes: {}", error.with_causes());
            }
            Err(error) => tracing::info!("a clean waits for a while: {}", error.with_causes()),
        }
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
        let mut entering = Entering::new(self.bucket.clone(), key);
        let (began, goes_on) = match self.enter(&mut entering).await {
            Ok(entered) => entered,
            Err(error) => {
                // It does not keep others from anything for long.
                entering.remove().await.ok();
                return Err(error);
            }
        };
        let (key, lingering) = entering.entered();
        let renewed = Renewed::new(began);
        let (renews, stopped) = oneshot::channel();
        let renewing = renew(self.bucket.clone(), key.clone(), renewed.clone(), stopped);
        let held = Arc::new(Held {
            bucket: self.bucket.clone(),
            key,
            renewed: renewed.clone(),
            renewing: tokio::spawn(renewing),
            renews,
            is_unsettled: AtomicBool::new(false),
            _lingering: lingering,
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
    pub(super) async fn enter(&self, entering: &mut Entering) -> Result<(BootInstant, bool)> {
        let arrived = BootInstant::now();
        let mut began = entering.write().await?;
        let mut is_told = false;
        loop {
            // While one of ours counts no cleaner is at it, though one may wait for us.
            if self.is_held() {
                return Ok((began, true));
            }
            let Some(cleaner) = self.cleaner(entering.key()).await? else {
                return Ok((began, false));
            };
            if !std::mem::replace(&mut is_told, true) {
                self.tell_of(&cleaner);
            }
            let waited = arrived.elapsed();
            if waited < GIVES_WAY {
                entering.remove().await?;
                self.give_way(cleaner, arrived).await?;
            } else if waited < WAITS {
                sleep(LOOKED).await;
            } else {
                return Err(StoreError::Failed {
                    location: self.bucket.shown(cleaner.key()),
                    reason: "the clean that has written this does not stop".to_owned(),
                });
            }
            if !entering.is_there() || began.elapsed() >= REWRITTEN {
                began = entering.write().await?;
            }
        }
    }

    fn tell_of(&self, cleaner: &Seen) {
        tracing::warn!(
            "somebody cleans the bucket (by {}): waiting for that for a minute, or until it counts no \
             more ({} minutes)",
            self.bucket.shown(cleaner.key()),
            CLEAN_COUNTS.as_secs() / 60
        );
    }

    /// Waits, without a key that would be in its way, until `cleaner` is not at it, or for long
    /// enough. Keys of others, who were killed perhaps, are not waited for.
    async fn give_way(&self, mut cleaner: Seen, arrived: BootInstant) -> Result<()> {
        while arrived.elapsed() < GIVES_WAY {
            sleep(LOOKED).await;
            let listed = self.list(CLEANS).await?;
            match cleaner.again(&listed, CLEAN_COUNTS) {
                Some(again) => cleaner = again,
                None => break,
            }
        }
        Ok(())
    }

    /// The key of a cleaner that counts, at the time `key` was written.
    async fn cleaner(&self, key: &Path) -> Result<Option<Seen>> {
        let cleaners = self.list(CLEANS).await?;
        if cleaners.is_empty() {
            return Ok(None);
        }
        let now = self.time_of(key).await?;
        Ok(Seen::find(cleaners, now, CLEAN_COUNTS))
    }
}

pub(super) fn lost(location: &str) -> StoreError {
    StoreError::Unavailable {
        location: location.to_owned(),
        reason: "it could not be written to for so long that a clean may have removed what was \
                 sent: run this again"
            .to_owned(),
        source: None,
    }
}

/// Writes the key anew until it is `stopped`; what it has begun to write then it ends.
async fn renew(bucket: Bucket, key: Path, renewed: Renewed, mut stopped: oneshot::Receiver<()>) {
    loop {
        tokio::select! {
            () = sleep(HOLD_RENEWED) => {}
            _ = &mut stopped => return,
        }
        // What is lost stays lost: its key would be in the way of a clean for nothing.
        if renewed.is_lost() {
            tracing::info!("the hold was not renewed in time, and is lost");
            return;
        }
        let began = BootInstant::now();
        match bucket.write(&key, Bytes::new()).await {
            Ok(()) => {
                renewed.renew(began);
            }
            Err(error) => tracing::info!("the hold is not renewed: {}", error.with_causes()),
        }
    }
}
