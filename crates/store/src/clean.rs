//! Cleaning: mark, plan, sweep.
//!
//! *Mark*: from the targets of all tags of all namespaces that survive pruning, everything that can
//! be reached is kept. *Plan*: what is left, and old, goes; a pure value, which `--dry-run` prints.
//! What is left and young stays, with all below it. *Sweep*: what the plan names goes, parents before
//! what they refer to. A root, or anything that has to stay, that is there and cannot be read ends it
//! before anything is removed.
//!
//! # Why nothing in use goes
//!
//! Writers, taggers and other cleaners go on meanwhile, and are never made to wait. What follows
//! holds for any threshold, zero included, where all of them are ours and at hand; the interleavings
//! are explored in `clean/model.rs`, where each rule is shown to be needed.
//!
//! 1. **Old** means: last written or refreshed before the *limit*, the least of: now less the
//!    threshold; the start of the clean, by the clock of the file system; and the start of every
//!    [hold](crate::Repository::hold) there is. Who commits, copies or promotes holds the repository
//!    until its tag is there. Holds are read before tags: a hold that is not seen has ended, and then
//!    its tag is seen, or has begun since, and then what it covers is younger than the start.
//! 2. **A writer refreshes what it finds**, and then looks whether it is still there; if not, it
//!    writes it. **A removal puts the file aside, and judges it there**: refreshed before it lost its
//!    name, it is seen to be young and put back; after that, the writer does not find it.
//! 3. **Parents go first**, and one that turns out to be young keeps all below it. So a writer who
//!    has refreshed a parent, and found it there, need not look at what is below: no cleaner has
//!    gone past the parent, and none will.
//! 4. **A tag is written, and then its target refreshed.** A clean that did not see the tag began
//!    before it was there, hence before the refresh, and 3. applies. Of two cleaners, what one has
//!    put aside is, for the other, there: what is below it stays.
//! 5. **Nothing is missed meanwhile or lost in a crash**: readers look where files are put aside,
//!    and the next clean puts back what a killed one has left there. A sweep that is broken off has
//!    removed no child of anything that is there.
//!
//! Where writers and sweeps exclude each other, as in a bucket, 2. does not hold for blobs and need
//! not: nothing goes while anybody writes. A plan may be older than what was written last, so when a
//! sweep has begun, objects are listed again: those that the plan has never seen stay, with all below.
//!
//! Stock SPFS refreshes nothing and holds nothing: the threshold, fifteen minutes unless said
//! otherwise, is all that protects its writers, and who tags old things with it. For what has been
//! tagged so since the mark, tags are read again before the sweep. Through a stock server the threshold
//! is the protection too, by the server's clock; and SPFS's protocol tells no age of payloads, so there
//! those stay. Our own server does for a cleaner what a directory does: it tells ages, holds and what is
//! put aside, and removes by age, all by its own clock. It holds the repository itself while clients
//! write through it, for they cannot.
//!
//! Memory: a digest for all that is kept, forty bytes for all that goes, and a few manifests: below
//! 300 MiB for a million objects and as many payloads, however many of them go. Deliberately absent: eviction from caches, runtimes' records (their makers remove them), `durable_edits`.

mod prune;
mod mark;
mod plan;
mod roots;
mod survey;
mod sweep;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use farseek_object::{Digest, TagName};

pub use plan::{CleanPlan, Doomed, DoomedList, PrunedTag};
pub use prune::PruneRules;
pub use sweep::sweep;

use self::mark::Kept;
use crate::error::{Result, StoreError};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::upkeep::{Leftover, LeftoverOptions};

/// By how much the clock of a remote may differ from ours, that does not tell the time.
const CLOCK_MARGIN: Duration = Duration::from_secs(60);

/// How a repository is cleaned.
#[derive(Debug, Clone)]
pub struct CleanOptions {
    /// What is younger than this stays.
    pub threshold: Duration,
    /// Which versions of tags go first.
    pub rules: PruneRules,
    /// Tags outside of namespaces that count as gone: who made them removes them before the sweep,
    /// or what they name stays.
    pub without: HashSet<TagName>,
    /// Whether tags in namespaces are pruned too.
    pub prune_all_namespaces: bool,
    /// Whether copies of payloads for renders stay that no render has.
    pub keep_proxies_with_no_links: bool,
    /// Tags that are read at once.
    pub tags: usize,
    /// Objects that are read at once; each may be a manifest.
    pub discoveries: usize,
    /// Objects or payloads that are removed at once.
    pub removals: usize,
}

impl Default for CleanOptions {
    fn default() -> Self {
        // Twice the processors: while one manifest waits for the disk another is decoded.
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            threshold: Duration::from_secs(15 * 60),
            rules: PruneRules::default(),
            without: HashSet::new(),
            prune_all_namespaces: false,
            keep_proxies_with_no_links: false,
            tags: 16,
            discoveries: (2 * processors).clamp(4, 16),
            removals: 32,
        }
    }
}

/// What a clean has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CleanSummary {
    /// Versions of tags that were removed.
    pub tags: u64,
    /// Objects that were removed.
    pub objects: u64,
    /// Payloads that were removed.
    pub payloads: u64,
    /// Leftovers that were removed.
    pub leftovers: u64,
    /// Bytes of all these.
    pub bytes: u64,
    /// Of the plan, what stays: somebody has refreshed or tagged it meanwhile, or was faster, or, of
    /// leftovers, it could not be removed.
    pub left: u64,
}

/// Finds out what would go. Changes nothing.
///
/// # Errors
/// `Unsupported` where the repository cannot remove by age, or is a view of others; and whatever
/// keeps a tag, or an object that has to stay, from being read.
pub async fn plan_clean(
    repository: &Arc<dyn Repository>,
    options: &CleanOptions,
    progress: &dyn Progress,
) -> Result<CleanPlan> {
    check_support(&**repository).await?;
    // Before anything is read.
    let limit = limit(&**repository, options.threshold).await?;
    plan_older_than(repository, limit, options, progress).await
}

async fn plan_older_than(
    repository: &Arc<dyn Repository>,
    limit: SystemTime,
    options: &CleanOptions,
    progress: &dyn Progress,
) -> Result<CleanPlan> {
    let worlds = roots::worlds(repository).await?;
    let roots = roots::read(&worlds, options).await?;
    let mut kept = Kept::default();
    let concurrency = options.discoveries;
    mark::keep(repository, roots.targets, &mut kept, concurrency, progress).await?;

    let marked = kept.len() as u64;
    let objects = list_objects(repository, &mut kept, concurrency).await?;
    let objects = survey::objects(repository, objects, limit).await?;
    let young = objects.young();
    kept.keep_leaves(objects.young_leaves);
    mark::keep(repository, objects.young, &mut kept, concurrency, progress).await?;
    let platforms = survey::platforms(repository, &objects.old).await?;
    let objects = plan::doomed_objects(objects.old, &kept, &platforms);

    let payloads = survey::unkept(repository.list_payloads(), &kept).await?;
    let payloads = survey::payloads(repository, payloads, limit).await?;
    let young = young + payloads.young();
    let ageless = payloads.ageless;
    let payloads = plan::doomed_payloads(payloads.old, &kept);
    let kept = Arc::new(kept);
    Ok(CleanPlan {
        limit,
        tags: roots.pruned,
        objects,
        payloads,
        leftovers: leftovers(&**repository, &kept, limit, options).await?,
        kept: marked,
        young,
        ageless,
        marked: kept,
    })
}

/// Whether it removes things by their age, and is one repository.
async fn check_support(repository: &dyn Repository) -> Result<()> {
    if let Some(upkeep) = repository.upkeep() {
        // A server may turn out to know none of this, and says then that it has no keeper.
        match upkeep.horizon().await {
            Err(StoreError::Unsupported { .. }) if !upkeep.is_at_hand() => {}
            asked => return asked.map(drop),
        }
    }
    // Nothing has this digest, and nothing is so old: this only asks whether it can be done.
    let asked = repository.remove_object_if_older_than(&Digest::NULL, SystemTime::UNIX_EPOCH);
    let cannot = |operation| {
        Err(StoreError::Unsupported {
            operation,
            location: repository.location().to_owned(),
        })
    };
    match asked.await {
        Err(StoreError::Unsupported { .. }) => {
            cannot("be cleaned: it does not remove things by their age")
        }
        Err(error) => Err(error),
        // A remote tells no ages; a chain tells those of its first member.
        Ok(_) if repository.object_written(&Digest::NULL).await.is_ok() => {
            cannot("be cleaned as one: clean its members, each by itself")
        }
        Ok(_) => Ok(()),
    }
}

/// What was written since this moment stays.
async fn limit(repository: &dyn Repository, threshold: Duration) -> Result<SystemTime> {
    let (now, horizon) = match repository.upkeep() {
        Some(upkeep) => {
            let horizon = upkeep.horizon().await?;
            (upkeep.now().await?, horizon)
        }
        None => (SystemTime::now() - CLOCK_MARGIN, SystemTime::now()),
    };
    let old = now.checked_sub(threshold).unwrap_or(SystemTime::UNIX_EPOCH);
    Ok(old.min(horizon))
}

/// The objects that are not kept. Those that another cleaner has put aside are kept, with all below
/// them; a listing that was made while others were put back may lack those, and is made again.
async fn list_objects(
    repository: &Arc<dyn Repository>,
    kept: &mut Kept,
    concurrency: usize,
) -> Result<Vec<Digest>> {
    let Some(upkeep) = repository.upkeep() else {
        return survey::unkept(repository.list_objects(None), kept).await;
    };
    let began = upkeep.horizon().await?;
    let mut objects = survey::unkept(repository.list_objects(None), kept).await?;
    let aside = upkeep.aside().await?;
    mark::keep(repository, aside, kept, concurrency, &()).await?;
    if upkeep
        .aside_changed()
        .await?
        .is_some_and(|changed| changed >= began)
    {
        objects.extend(survey::unkept(repository.list_objects(None), kept).await?);
        objects.sort_unstable();
        objects.dedup();
    }
    objects.retain(|object| !kept.contains(object));
    Ok(objects)
}

async fn leftovers(
    repository: &dyn Repository,
    kept: &Arc<Kept>,
    limit: SystemTime,
    options: &CleanOptions,
) -> Result<Vec<Leftover>> {
    let Some(upkeep) = repository.upkeep() else {
        return Ok(Vec::new());
    };
    let kept = Arc::clone(kept);
    let options = LeftoverOptions {
        limit,
        keeps: Arc::new(move |digest| kept.contains(digest)),
        keep_proxies_with_no_links: options.keep_proxies_with_no_links,
    };
    upkeep.leftovers(options).await
}
