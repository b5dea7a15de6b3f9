//! Whether all is there that a tag would lead to, found out once for all who ask.
//!
//! That may take longer than a client waits. So it goes on where a call is given up, and that all was
//! there is remembered for as long as the repository is held from then on: who comes again finds it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farseek_object::Digest;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::answer::Shared;
use super::holder::Holder;
use crate::error::{Result, StoreError};
use crate::whole;

/// Roots that are looked into, or are remembered.
const ROOTS_MAX: usize = 64;

/// When all was found; or why not.
type Found = Result<Instant, Arc<StoreError>>;

/// What was asked about a root. The work ends with this.
struct Asked {
    /// When a hold was last lost by then: where that has changed, what was found counts no more.
    lost: Option<Instant>,
    found: watch::Receiver<Option<Found>>,
    work: AbortHandle,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Asked {
    fn is_under_way(&self) -> bool {
        self.found.borrow().is_none() && self.found.has_changed().is_ok()
    }
}

/// The roots that were asked about.
pub(super) struct Wholes {
    repository: Shared,
    holder: Arc<Holder>,
    /// Taken for moments.
    asked: Mutex<HashMap<Digest, Asked>>,
}

impl Wholes {
    pub(super) fn new(repository: Shared, holder: Arc<Holder>) -> Self {
        Self {
            repository,
            holder,
            asked: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Digest, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds all that is below `root`. Called by who writes: the repository is held.
    ///
    /// # Errors
    /// `Failed` where something is missing; `Unavailable` where nobody knows.
    pub(super) async fn check(&self, root: Digest) -> Result<()> {
        let lost = self.holder.lost();
        let mut found = self.ask(root, lost)?;
        let found = match found.wait_for(Option::is_some).await {
            Ok(found) => found.clone(),
            Err(_) => None,
        };
        match found {
            Some(Ok(_)) if self.holder.lost() == lost => Ok(()),
            Some(Err(error)) => Err(self.told(&error)),
            _ => Err(self.unknown("the repository could not be held".to_owned())),
        }
    }

    fn told(&self, error: &StoreError) -> StoreError {
        match error {
            StoreError::Failed { location, reason } => StoreError::Failed {
                location: location.clone(),
                reason: reason.clone(),
            },
            error => self.unknown(error.with_causes()),
        }
    }

    fn unknown(&self, reason: String) -> StoreError {
        StoreError::Unavailable {
            location: self.repository.location().to_owned(),
            reason: format!("whether all is there that a tag leads to is not known: {reason}"),
            source: None,
        }
    }

    /// Where it will be said what was found.
    fn ask(&self, root: Digest, lost: Option<Instant>) -> Result<watch::Receiver<Option<Found>>> {
        let (now, quiet) = (Instant::now(), self.holder.quiet());
        let mut known = self.known();
        known.retain(|_, asked| {
            let is_remembered = match &*asked.found.borrow() {
                Some(Ok(at)) => now.duration_since(*at) < quiet,
                _ => false,
            };
            asked.lost == lost && (is_remembered || asked.is_under_way())
        });
        if let Some(asked) = known.get(&root) {
            return Ok(asked.found.clone());
        }
        if known.len() >= ROOTS_MAX {
            let mut ended = known.iter().filter(|(_, asked)| !asked.is_under_way());
            let ended = ended.next().map(|(root, _)| *root);
            let busy = || self.unknown("that is asked of too many, try again later".to_owned());
            known.remove(&ended.ok_or_else(busy)?);
        }
        let asked = self.begin(root, lost);
        let found = asked.found.clone();
        known.insert(root, asked);
        Ok(found)
    }

    fn begin(&self, root: Digest, lost: Option<Instant>) -> Asked {
        let (repository, holder) = (Arc::clone(&self.repository), Arc::clone(&self.holder));
        let (to, found) = watch::channel(None);
        let work = tokio::spawn(async move {
            let looking = async {
                // Held until it is known, and quiet for a while from then on.
                let _writing = holder.writing().await?;
                whole::check(&*repository, root).await?;
                Ok(Instant::now())
            };
            let looked: Result<Instant> = looking.await;
            to.send_replace(Some(looked.map_err(Arc::new)));
        });
        let work = work.abort_handle();
        Asked { lost, found, work }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use farseek_object::{Header, Object, Platform};
    use object_store::memory::InMemory;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};

    use super::super::holder::QUIET;
    use super::*;
    use crate::boot_instant::asleep;
    use crate::bucket::BucketRepository;
    use crate::payload::PutOptions;

    type Slow = Arc<ThrottledStore<InMemory>>;

    /// Two platforms in a bucket, the upper one first, and who looks into them.
    async fn wholes(quiet: Duration) -> (Slow, Shared, [Digest; 2], Wholes) {
        let store = ThrottledStore::new(InMemory::new(), ThrottleConfig::default());
        let store = Arc::new(store);
        let bucket = BucketRepository::over(Arc::clone(&store), "s3://bucket", "", None);
        let repository: Shared = Arc::new(bucket.unwrap());
        let mut stored = Vec::new();
        for _ in 0..2 {
            let header = Header::default();
            let layers = stored.to_vec();
            let platform = Object::Platform(Platform { header, layers });
            let put = repository.put_object(&platform, PutOptions::default());
            stored.push(put.await.unwrap());
        }
        let holder = Holder::new(Arc::clone(&repository), quiet);
        let wholes = Wholes::new(Arc::clone(&repository), holder);
        (store, repository, [stored[1], stored[0]], wholes)
    }

    fn reads_take(store: &Slow, time: Duration) {
        store.config_mut(|config| config.wait_get_per_call = time);
    }

    #[tokio::test]
    async fn who_comes_again_finds_what_was_looked_into_meanwhile() {
        let (store, repository, [root, below], wholes) = wholes(QUIET).await;
        reads_take(&store, Duration::from_millis(20));
        {
            let mut asking = std::pin::pin!(wholes.check(root));
            assert!(futures::poll!(asking.as_mut()).is_pending());
        }
        // The call was given up.
        let mut found = wholes.ask(root, None).unwrap();
        found.wait_for(Option::is_some).await.unwrap();
        reads_take(&store, Duration::from_secs(3600));
        wholes.check(root).await.unwrap();
        // Until a hold is lost.
        reads_take(&store, Duration::ZERO);
        repository.remove_object(&below).await.unwrap();
        wholes.check(root).await.unwrap();
        asleep::sleep(Duration::from_secs(20 * 60));
        drop(wholes.holder.writing().await.unwrap());
        let said = wholes.check(root).await.unwrap_err().to_string();
        assert!(said.contains(&below.to_string()), "{said}");
    }

    #[tokio::test]
    async fn it_is_remembered_no_longer_than_the_repository_is_held() {
        let (_store, repository, [root, below], wholes) = wholes(Duration::ZERO).await;
        wholes.check(root).await.unwrap();
        repository.remove_object(&below).await.unwrap();
        let said = wholes.check(root).await.unwrap_err().to_string();
        assert!(said.contains(&below.to_string()), "{said}");
    }

    #[tokio::test]
    async fn no_more_than_so_many_are_remembered() {
        let (store, _repository, [root, _], wholes) = wholes(QUIET).await;
        wholes.check(root).await.unwrap();
        reads_take(&store, Duration::from_secs(3600));
        for n in 0..ROOTS_MAX as u32 {
            wholes.ask(Digest::of(&n.to_le_bytes()), None).unwrap();
        }
        // What has been found out makes room; what is under way does not.
        assert!(!wholes.known().contains_key(&root));
        assert!(wholes.ask(root, None).is_err());
    }
}
