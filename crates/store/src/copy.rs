//! Whole graphs go from one repository to another: `push`, `pull`, and repairs.
//!
//! What is visible never refers to what is not: a payload comes before its blob object, a child
//! before its parent, a tag last. Each step is published before the next begins, so whoever is
//! killed on the way leaves unreferenced data at worst, and whoever starts again copies only what
//! is still missing.
//!
//! Platforms and layers are small, and are read first, to know what there is to do. Manifests are
//! then read a few at a time; the payloads they name travel in batches, many at once, and while one
//! batch is made visible the next is on its way. Payloads are hashed as they pass: one that is not
//! what it is named never becomes a payload of the destination.
//!
//! Memory: the platforms and layers, a digest for everything met, a few manifests, and some MiB for
//! each payload in flight. Deliberately absent: what to print.

mod plan;
mod hashing;
mod ranges;
mod incoming;
mod blob;
mod together;
mod walk;
mod batch;
mod tags;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use farseek_object::{Digest, EnvItem, Object, Tag};
use futures::stream::{self, StreamExt, TryStreamExt};
use nix::errno::Errno;

pub(crate) use incoming::{Incoming, PAYLOAD_MAX};

use crate::error::{Result, StoreError};
use crate::payload::PutOptions;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::upkeep::Hold;

/// Objects are small: many in flight hide the way to them.
const OBJECTS_IN_FLIGHT: usize = 32;

/// Blob objects that are stored at once: some hundred bytes each.
const OBJECTS_TOGETHER: usize = 4096;

/// What is copied though it, or something of its name, is there. Each includes the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum CopyPolicy {
    /// Only what is missing. What is below an object that is there is taken to be there, and a tag
    /// that is there stays as it is.
    #[default]
    Missing,
    /// Tags that are there get the version of the source.
    LatestTags,
    /// Objects that are there are descended into, and what is missing below them is copied.
    Check,
    /// Everything that is there is read and hashed, and what is damaged is copied again.
    Resync,
}

/// How a graph is copied.
#[derive(Debug, Clone, Copy)]
pub struct CopyOptions {
    /// What is copied though it is there.
    pub policy: CopyPolicy,
    /// Whether of what is there something below it may be missing, whatever the policy says: where
    /// environments are mounted, their objects are there and few of their files. Then what is there
    /// is read there, and descended into; unless all that is asked for is named there by its tags.
    pub partial: bool,
    /// Payloads in flight at once; each may hold some MiB.
    pub payloads: usize,
    /// Manifests in memory at once.
    pub manifests: usize,
    /// A batch of payloads ends with the one that brings it to this many bytes: what is lost where
    /// the copy is killed,
    pub batch_bytes: u64,
    /// or with this many blobs or entries of manifests.
    pub batch_items: usize,
}

impl Default for CopyOptions {
    /// Thirty-two payloads hide a long way to small ones; four manifests suffice to have the next
    /// one ready. A batch of 256 MiB, or of some MiB of memory, costs far more than to make it
    /// durable: four thousand files are a second's work, of which a part is waiting for the disk.
    fn default() -> Self {
        Self {
            policy: CopyPolicy::default(),
            partial: false,
            payloads: 32,
            manifests: 4,
            batch_bytes: 256 << 20,
            batch_items: 4096,
        }
    }
}

/// What has become of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagOutcome {
    /// The source's version was added and is the newest.
    Updated,
    /// The source's version was added, below a newer one that the destination has.
    Older,
    /// The destination has this very version.
    Unchanged,
    /// The destination has the tag, and keeps it as it is: the policy says so. It names this.
    Kept(Digest),
}

/// One of the things that were to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedItem {
    /// As it was asked for.
    pub item: EnvItem,
    /// What it means in the source.
    pub digest: Digest,
    /// Where it was named by a tag: the source's version, and what has become of it.
    pub tag: Option<(Tag, TagOutcome)>,
}

/// What a copy has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopySummary {
    /// What was asked for, in that order.
    pub items: Vec<CopiedItem>,
    /// Objects that were stored.
    pub objects: u64,
    /// Payloads that were stored.
    pub payloads: u64,
    /// Bytes of those.
    pub bytes: u64,
}

/// Both ends of a copy and what is counted on the way.
#[derive(Clone)]
struct Ends {
    from: Arc<dyn Repository>,
    to: Arc<dyn Repository>,
    policy: CopyPolicy,
    partial: bool,
    progress: Arc<dyn Progress>,
    counts: Arc<Counts>,
}

/// What has been stored.
#[derive(Debug, Default)]
struct Counts {
    objects: AtomicU64,
    payloads: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

/// Copies `items` with all they need from one repository to another.
///
/// An item that is a tag becomes a tag of the destination: exactly the version it means in the
/// source is added to what the destination has, with its time, its user and its parent. Its history
/// is not copied, so its parent may be a version that the destination has never seen. Versions are
/// ordered by time, so in a destination whose newest version is newer it goes below that one.
///
/// # Errors
/// What either repository says, naming it and the digest. `Corrupt` or `Undecodable` where the
/// source sends what is not what it is named: nothing of that is kept.
pub async fn copy(
    from: Arc<dyn Repository>,
    to: Arc<dyn Repository>,
    items: &[EnvItem],
    options: CopyOptions,
    progress: Arc<dyn Progress>,
) -> Result<CopySummary> {
    let ends = Ends {
        from,
        to,
        policy: options.policy,
        partial: options.partial,
        progress,
        counts: Arc::default(),
    };
    let roots = tags::resolve(&ends, items).await?;
    // What tags name there already is not cleaned, and nothing else is counted on.
    let is_named = roots.iter().all(tags::Root::is_named_there);
    let hold = match is_named && options.policy < CopyPolicy::Check {
        true => Hold::default(),
        // Until the tags are there.
        false => ends.to.hold().await?,
    };
    let copied = copy_held(ends, roots, &options).await;
    hold.release().await;
    copied
}

async fn copy_held(
    ends: Ends,
    roots: Vec<tags::Root>,
    options: &CopyOptions,
) -> Result<CopySummary> {
    let ends = Ends {
        partial: options.partial && !roots.iter().all(tags::Root::is_named_there),
        ..ends
    };
    let wanted = roots.iter().filter_map(tags::Root::wanted).collect();
    let found = walk::walk(&ends, wanted).await?;
    batch::run(&ends, found.manifests, found.blobs, options).await?;
    put_in_order(&ends, found.stacks).await?;
    let items = tags::insert(&*ends.to, roots).await?;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(CopySummary {
        items,
        objects: count(&ends.counts.objects),
        payloads: count(&ends.counts.payloads),
        bytes: count(&ends.counts.bytes),
    })
}

/// An object of the source, or of the destination where it is there, if anything of it may be.
async fn object(ends: &Ends, digest: &Digest) -> Result<Object> {
    if ends.partial
        && ends.policy < CopyPolicy::Check
        && let Ok(object) = ends.to.get_object(digest).await
    {
        return Ok(object);
    }
    ends.from.get_object(digest).await
}

/// Stores platforms and layers, those first that others refer to.
async fn put_in_order(ends: &Ends, mut stacks: HashMap<Digest, Object>) -> Result<()> {
    let edges = stacks
        .iter()
        .map(|(digest, object)| (*digest, object.children()))
        .collect();
    for round in plan::rounds(edges) {
        let objects = round.iter().filter_map(|digest| stacks.remove(digest));
        put_objects(ends, objects.collect()).await?;
    }
    Ok(())
}

/// Stores objects whose children are there, and makes them visible.
async fn put_objects(ends: &Ends, objects: Vec<Object>) -> Result<()> {
    if objects.is_empty() || put_together(ends, &objects).await? {
        return Ok(());
    }
    stream::iter(objects.into_iter().map(|object| put_object(ends, object)))
        .buffer_unordered(OBJECTS_IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    ends.to.publish().await
}

/// Does the same for blob objects where the destination takes many at once. Returns whether it
/// has done so.
async fn put_together(ends: &Ends, objects: &[Object]) -> Result<bool> {
    let is_blob = |object: &Object| matches!(object, Object::Blob(_));
    let plain = ends.policy < CopyPolicy::Check && objects.iter().all(is_blob);
    let Some(to) = ends
        .to
        .bulk()
        .filter(|_| plain && plan::is_many(objects.len()))
    else {
        return Ok(false);
    };
    for objects in objects.chunks(OBJECTS_TOGETHER) {
        match to.put_objects(objects.to_vec()).await {
            Err(StoreError::Unsupported { .. }) => return Ok(false),
            stored => stored?,
        }
        Counts::add(&ends.counts.objects, objects.len() as u64);
    }
    ends.to.publish().await?;
    Ok(true)
}

/// Stores an object, to be visible once it is published.
async fn put_object(ends: &Ends, object: Object) -> Result<()> {
    let digest = object.digest();
    match ends.policy {
        CopyPolicy::Missing | CopyPolicy::LatestTags if !ends.partial => {}
        CopyPolicy::Missing | CopyPolicy::LatestTags | CopyPolicy::Check => {
            // It becomes as young as a new one.
            if ends.to.refresh_object(&digest).await? {
                return Ok(());
            }
        }
        CopyPolicy::Resync => match ends.to.get_object(&digest).await {
            Ok(there) if there == object && ends.to.refresh_object(&digest).await? => return Ok(()),
            Err(error) if error.is_not_found() => {}
            Err(error) if !is_damage(&error) => return Err(error),
            // A repository leaves what is there, also where that is damaged.
            _ => ends.to.remove_object(&digest).await?,
        },
    }
    let deferred = PutOptions {
        deferred: true,
        ..PutOptions::default()
    };
    ends.to.put_object(&object, deferred).await?;
    Counts::add(&ends.counts.objects, 1);
    Ok(())
}

/// Whether an error says that what is there is wrong, rather than that it cannot be had: of the
/// system's words only those of a disk or file system that is damaged, or of something in the
/// place of a file.
pub(crate) fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Corrupt { .. } | StoreError::Undecodable { .. } => true,
        StoreError::Io { source, .. } => matches!(
            source.raw_os_error().map(Errno::from_raw),
            Some(
                Errno::EIO
                    | Errno::EUCLEAN
                    | Errno::EBADMSG
                    | Errno::EISDIR
                    | Errno::ENXIO
                    | Errno::ELOOP
            )
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use super::*;

    #[test]
    fn only_what_is_wrong_in_itself_is_damage() {
        let of_system = |number: Errno| {
            let source = Error::from_raw_os_error(number as i32);
            StoreError::io("read", "/a/file")(source)
        };
        assert!(is_damage(&of_system(Errno::EIO)));
        for number in [Errno::EACCES, Errno::EMFILE, Errno::ENOSPC, Errno::ENOMEM] {
            assert!(!is_damage(&of_system(number)), "{number}");
        }
        let corrupt = StoreError::Corrupt {
            location: "here".into(),
            reason: "it is".into(),
        };
        assert!(is_damage(&corrupt));
    }
}
