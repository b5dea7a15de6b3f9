//! Fetching many payloads to where they stay, as fast as the disk takes them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use farseek_reader::{ReadError, Reader, Tier};
use farseek_store::{Progress as _, Repository};
use futures::stream::{self, StreamExt as _};
use tokio::sync::Semaphore;

use super::plan::Wanted;
use crate::progress::Progress;

/// Bytes that may be on their way at once. With [`UNWRITTEN`] they fit the queue of what waits
/// for the disk, which would otherwise drop some of what nobody waits with.
const UNDER_WAY: u64 = 24 << 20;

/// What a large file counts for, however large: it waits for the disk by itself.
const LARGE: u64 = 8 << 20;

/// Bytes that may wait for the disk when more are asked for.
const UNWRITTEN: u64 = 8 << 20;

/// The unit that shares of [`UNDER_WAY`] are counted in.
const UNIT: u64 = 1 << 10;

/// Files that are asked for at once.
const FILES: usize = 64;

/// How often the progress is looked at.
const TICK: Duration = Duration::from_millis(100);

/// How long to wait before the disk is looked at again.
const DISK_PAUSE: Duration = Duration::from_millis(2);

/// Questions to the local repository at once.
const QUESTIONS: usize = 32;

/// Where payloads are fetched to.
pub(super) struct Place {
    /// What fetches them.
    pub(super) reader: Reader,
    /// The local repository, where it is one of those that are read.
    pub(super) local: Option<Arc<dyn Repository>>,
}

impl Place {
    /// Those of `list` that are not here.
    pub(super) async fn missing(&self, list: Vec<Wanted>) -> Vec<Wanted> {
        let asked = stream::iter(list).map(|wanted| async move {
            let is_here = self.has(&wanted).await;
            (!is_here).then_some(wanted)
        });
        let answers = asked.buffered(QUESTIONS);
        answers
            .filter_map(|wanted| async { wanted })
            .collect()
            .await
    }

    async fn has(&self, wanted: &Wanted) -> bool {
        if wanted.size == 0 {
            return true;
        }
        if let Some(local) = &self.local
            && let Ok(Some(_)) = local.payload_size(&wanted.payload).await
        {
            return true;
        }
        let blob = self.reader.open(wanted.payload, wanted.size);
        let asking = tokio::task::spawn_blocking(move || blob.where_served().tier);
        matches!(asking.await, Ok(Tier::Disk | Tier::Local))
    }

    /// Fetches `list`, shows how that goes, and returns what could not be had.
    pub(super) async fn fetch(
        &self,
        list: &[Wanted],
        progress: &Progress,
    ) -> Vec<(String, ReadError)> {
        let mut fetching = pin!(self.fetch_all(list, progress));
        let mut ticks = tokio::time::interval(TICK);
        let mut told = self.reader.stats().bytes_fetched;
        loop {
            tokio::select! {
                failures = &mut fetching => return failures,
                _ = ticks.tick() => {}
            }
            let now = self.reader.stats().bytes_fetched;
            progress.stored(0, now - told);
            told = now;
        }
    }

    /// Ends at the first failure that would befall the rest as well.
    async fn fetch_all(&self, list: &[Wanted], progress: &Progress) -> Vec<(String, ReadError)> {
        let share = Semaphore::new((UNDER_WAY / UNIT) as usize);
        let share = &share;
        let fetches = list.iter().map(|wanted| async move {
            let fetched = self.fetch_one(wanted, share).await;
            progress.stored(u64::from(fetched.is_ok()), 0);
            (wanted, fetched)
        });
        let mut fetches = stream::iter(fetches).buffer_unordered(FILES);
        let mut failures = Vec::new();
        while let Some((wanted, fetched)) = fetches.next().await {
            let Err(error) = fetched else { continue };
            let is_last = !is_of_one_payload(&error);
            failures.push((wanted.path.clone(), error));
            if is_last {
                break;
            }
        }
        failures
    }

    async fn fetch_one(&self, wanted: &Wanted, share: &Semaphore) -> Result<(), ReadError> {
        let units = wanted.size.clamp(UNIT, LARGE).div_ceil(UNIT);
        let _share = share.acquire_many(units as u32).await;
        while self.reader.stats().bytes_unwritten > UNWRITTEN {
            tokio::time::sleep(DISK_PAUSE).await;
        }
        self.reader.open(wanted.payload, wanted.size).warm().await
    }
}

/// Whether other payloads may well be had.
fn is_of_one_payload(error: &ReadError) -> bool {
    matches!(
        error,
        ReadError::NotFound { .. } | ReadError::Denied { .. } | ReadError::Corrupt { .. }
    )
}
