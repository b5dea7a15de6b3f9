//! Sweep: what the plan names goes, unless it has become young.

use std::collections::HashSet;
use std::sync::Arc;

use farseek_object::{Digest, ObjectKind};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::runtime::Handle;

use super::mark::{self, Kept};
use super::plan::{CleanPlan, Packed, PrunedTag, rank};
use super::roots::{self, World};
use super::{CleanOptions, CleanSummary, PruneRules, survey};
use crate::error::{Result, StoreError};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::upkeep::Upkeep;

/// Does what `plan` says, which is for this repository.
///
/// # Errors
/// The first thing that cannot be removed, or cannot be read though it has to stay with all below
/// it. What has gone by then needed nothing that is there.
pub async fn sweep(
    repository: &Arc<dyn Repository>,
    plan: &CleanPlan,
    options: &CleanOptions,
    progress: &dyn Progress,
) -> Result<CleanSummary> {
    let mut sweep = Sweep {
        repository,
        plan,
        options,
        progress,
        spared: Kept::default(),
        summary: CleanSummary::default(),
    };
    let things = plan.objects.len() + plan.payloads.len() + plan.leftovers.len();
    progress.found(things as u64, plan.bytes());
    let ending = Ending(Some(Arc::clone(repository)));
    let swept = sweep.all().await;
    ending.now().await;
    swept.map(|()| sweep.summary)
}

/// Tells the keeper that the sweep has ended: also where it is given up, as soon as may be.
struct Ending(Option<Arc<dyn Repository>>);

impl Ending {
    async fn now(mut self) {
        if let Some(repository) = &self.0 {
            finish(Arc::clone(repository)).await;
        }
        self.0 = None;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let (Some(repository), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(finish(repository));
        }
    }
}

async fn finish(repository: Arc<dyn Repository>) {
    if let Some(upkeep) = repository.upkeep() {
        upkeep.finish().await;
    }
}

/// Removals that are prepared at once: each takes some hundred bytes.
const PREPARED: usize = 4096;

struct Sweep<'a> {
    repository: &'a Arc<dyn Repository>,
    plan: &'a CleanPlan,
    options: &'a CleanOptions,
    progress: &'a dyn Progress,
    /// What has come, has become young or was tagged since the plan, and all below it.
    spared: Kept,
    summary: CleanSummary,
}

impl Sweep<'_> {
    async fn all(&mut self) -> Result<()> {
        if let Some(upkeep) = self.repository.upkeep() {
            match upkeep.restore().await {
                // A server that was not asked for its keeper before, and has none.
                Err(StoreError::Unsupported { .. }) if !upkeep.is_at_hand() => {}
                restored => restored?,
            }
        }
        self.spare_what_is_new().await?;
        let worlds = roots::worlds(self.repository).await?;
        self.tags(&worlds).await?;
        self.spare_what_was_tagged(&worlds).await?;
        self.objects().await?;
        self.payloads().await?;
        self.leftovers().await;
        Ok(())
    }

    /// Where writers and sweeps exclude each other, what a writer finds need not become young: nothing
    /// goes while it writes. What it has written by then, and the plan has never seen, keeps all below
    /// it. Who has written nothing has refreshed the one thing it counts on.
    async fn spare_what_is_new(&mut self) -> Result<()> {
        let upkeep = self.repository.upkeep();
        if !upkeep.is_some_and(Upkeep::is_exclusive) {
            return Ok(());
        }
        let objects = self.plan.objects.packed().iter();
        let mut planned: Vec<Digest> = objects.map(|object| object.digest).collect();
        planned.sort_unstable();
        let listed = self.repository.list_objects(None);
        let mut new = survey::unkept(listed, &self.plan.marked).await?;
        new.retain(|object| planned.binary_search(object).is_err());
        drop(planned);
        self.spare(new).await
    }

    async fn tags(&mut self, worlds: &[World]) -> Result<()> {
        for PrunedTag { namespace, tag, .. } in &self.plan.tags {
            let world = worlds.iter().find(|world| world.namespace == *namespace);
            let Some(world) = world else { continue };
            match world.repository.remove_tag(tag).await {
                Ok(()) => self.summary.tags += 1,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads the tags again. Our own writers need no such look; those who tag what is old without
    /// refreshing it, as SPFS does, are seen at least if they have done so by now.
    async fn spare_what_was_tagged(&mut self, worlds: &[World]) -> Result<()> {
        let unpruned = CleanOptions {
            rules: PruneRules::default(),
            without: HashSet::new(),
            ..self.options.clone()
        };
        let roots = roots::read(worlds, &unpruned).await?;
        let kept = &self.plan.marked;
        let new: Vec<Digest> = roots
            .targets
            .into_iter()
            .filter(|d| !kept.has_read(d))
            .collect();
        self.spare(new).await
    }

    async fn spare(&mut self, digests: Vec<Digest>) -> Result<()> {
        let concurrency = self.options.discoveries;
        mark::keep(self.repository, digests, &mut self.spared, concurrency, &()).await
    }

    /// Parents first, a kind at a time, platforms one by one: whoever finds something there, and
    /// has refreshed it, finds what is below it there as well.
    async fn objects(&mut self) -> Result<()> {
        let plan = self.plan;
        let together = |a: &Packed, b: &Packed| {
            rank(a.kind()) == rank(b.kind()) && a.kind() != Some(ObjectKind::Platform)
        };
        let groups = plan.objects.packed().chunk_by(together);
        for group in groups.flat_map(|group| group.chunks(PREPARED)) {
            let left = self.remove_objects(group).await?;
            self.summary.left += left.len() as u64;
            self.spare(left).await?;
        }
        Ok(())
    }

    /// Gives those that are still there, or may be.
    async fn remove_objects(&mut self, group: &[Packed]) -> Result<Vec<Digest>> {
        let (repository, limit) = (self.repository, self.plan.limit);
        let doomed = group
            .iter()
            .filter(|object| !self.spared.contains(&object.digest));
        let removals = doomed.map(|object| async move {
            let removal = repository.remove_object_if_older_than(&object.digest, limit);
            Ok::<_, StoreError>((object, removal.await?))
        });
        let removals: Vec<_> = removals.collect();
        let spared = (group.len() - removals.len()) as u64;
        let mut removals = stream::iter(removals).buffer_unordered(self.options.removals.max(1));
        let mut left = Vec::new();
        while let Some((object, removed)) = removals.try_next().await? {
            if !removed {
                left.push(object.digest);
                continue;
            }
            let bytes = object.bytes().unwrap_or_default();
            self.summary.objects += 1;
            self.summary.bytes += bytes;
            self.progress.stored(1, bytes);
        }
        self.summary.left += spared;
        Ok(left)
    }

    async fn payloads(&mut self) -> Result<()> {
        let plan = self.plan;
        for group in plan.payloads.packed().chunks(PREPARED) {
            self.remove_payloads(group).await?;
        }
        Ok(())
    }

    async fn remove_payloads(&mut self, group: &[Packed]) -> Result<()> {
        let (repository, limit) = (self.repository, self.plan.limit);
        let doomed = group.iter();
        let doomed = doomed.filter(|payload| !self.spared.contains(&payload.digest));
        let removals = doomed.map(|payload| async move {
            let removal = repository.remove_payload_if_older_than(&payload.digest, limit);
            Ok::<_, StoreError>((payload, removal.await?))
        });
        let removals: Vec<_> = removals.collect();
        self.summary.left += (group.len() - removals.len()) as u64;
        let mut removals = stream::iter(removals).buffer_unordered(self.options.removals.max(1));
        while let Some((payload, removed)) = removals.try_next().await? {
            if !removed {
                self.summary.left += 1;
                continue;
            }
            let bytes = payload.bytes().unwrap_or_default();
            self.summary.payloads += 1;
            self.summary.bytes += bytes;
            self.progress.stored(1, bytes);
        }
        Ok(())
    }

    /// What cannot be removed, being another user's, is told and left.
    async fn leftovers(&mut self) {
        let Some(upkeep) = self.repository.upkeep() else {
            return;
        };
        for leftover in &self.plan.leftovers {
            match upkeep.remove_leftover(leftover, self.plan.limit).await {
                Ok(true) => {
                    self.summary.leftovers += 1;
                    self.summary.bytes += leftover.bytes;
                    self.progress.stored(1, leftover.bytes);
                }
                Ok(false) => self.summary.left += 1,
                Err(error) => {
                    self.summary.left += 1;
                    tracing::warn!("left where it is: {}", error.with_causes());
                }
            }
        }
    }
}
