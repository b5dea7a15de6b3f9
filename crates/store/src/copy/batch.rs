//! Payloads in batches: many at once, made visible together, then their blob objects, then the
//! manifests of which everything is there.
//!
//! A manifest follows all its blobs out of the [`Source`], so at the end of the batch that holds
//! it, or of an earlier one, all of them are there. While a batch is made visible the next is on
//! its way; batches are made visible one after the other.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use farseek_object::{Digest, Object};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, FuturesUnordered, StreamExt, TryStreamExt};
use futures::{FutureExt, future};

use super::blob::{Brought, bring};
use super::plan::{self, Wanted};
use super::together::bring_together;
use super::{CopyOptions, CopyPolicy, Ends, object, put_objects};
use crate::error::{Result, StoreError};
use crate::task::spawn;

/// Blobs that travel together count as so many that go by themselves: they hold about as much.
const WEIGHT_TOGETHER: usize = 4;

/// What comes next.
enum Work {
    Blob(Wanted),
    /// Small ones, that travel together.
    Blobs(Vec<Wanted>),
    /// All its blobs have come before.
    Manifest(Object),
}

/// All there is to do, in order. Tells how much that is.
struct Source<'a> {
    ends: &'a Ends,
    manifests: BoxStream<'a, Result<Object>>,
    queue: VecDeque<Work>,
    seen: HashSet<Digest>,
    /// Whether both ends may take many at once.
    together: bool,
    items: u64,
    bytes: u64,
}

impl<'a> Source<'a> {
    fn new(ends: &'a Ends, manifests: Vec<Digest>, blobs: Vec<Digest>, ahead: usize) -> Self {
        let read = move |digest| {
            let ends = ends.clone();
            // A task of its own: it must not stand still while payloads are waited for.
            spawn(async move { manifest(&ends, digest).await })
        };
        let manifests = stream::iter(manifests).map(read).buffered(ahead.max(1));
        let mut source = Self {
            ends,
            manifests: manifests.boxed(),
            queue: VecDeque::new(),
            seen: blobs.iter().copied().collect(),
            together: ends.policy < CopyPolicy::Resync
                && ends.from.bulk().is_some()
                && ends.to.bulk().is_some(),
            items: 0,
            bytes: 0,
        };
        let (size, mode) = (None, None);
        let blobs = blobs
            .into_iter()
            .map(|digest| Wanted { digest, size, mode });
        source.add(blobs.collect());
        source
    }

    fn add(&mut self, mut wanted: Vec<Wanted>) {
        self.items += wanted.len() as u64;
        self.bytes += wanted.iter().filter_map(|wanted| wanted.size).sum::<u64>();
        self.ends.progress.found(self.items, self.bytes);
        // The largest first: it must not be what everything waits for in the end.
        wanted.sort_by_key(|wanted| std::cmp::Reverse(wanted.size));
        self.queue.extend(wanted.into_iter().map(Work::Blob));
    }

    /// Something that was thought to be missing is there.
    fn is_there(&mut self, size: Option<u64>) {
        self.items -= 1;
        self.bytes -= size.unwrap_or_default().min(self.bytes);
        self.ends.progress.found(self.items, self.bytes);
    }

    /// The first of the queue, or those that travel together.
    fn pop(&mut self) -> Option<Work> {
        let size = |work: &Work| match work {
            Work::Blob(wanted) => wanted.size,
            Work::Blobs(_) | Work::Manifest(_) => None,
        };
        let count = match self.together {
            true => plan::together(self.queue.iter().map(size)),
            false => 1,
        };
        if count == 1 {
            return self.queue.pop_front();
        }
        let blobs = self.queue.drain(..count).filter_map(|work| match work {
            Work::Blob(wanted) => Some(wanted),
            Work::Blobs(_) | Work::Manifest(_) => None,
        });
        Some(Work::Blobs(blobs.collect()))
    }

    /// What comes next. Nothing is lost when it is given up.
    async fn next(&mut self) -> Result<Option<Work>> {
        loop {
            if let Some(work) = self.pop() {
                return Ok(Some(work));
            }
            let Some(object) = self.manifests.try_next().await? else {
                return Ok(None);
            };
            if let Object::Manifest(manifest) = &object {
                let wanted = plan::wanted(manifest, &mut self.seen);
                self.add(wanted);
            }
            self.queue.push_back(Work::Manifest(object));
        }
    }
}

async fn manifest(ends: &Ends, digest: Digest) -> Result<Object> {
    match object(ends, &digest).await? {
        object @ Object::Manifest(_) => Ok(object),
        other => Err(StoreError::Corrupt {
            location: ends.from.location().to_owned(),
            reason: format!("a layer's manifest {digest} is really a {}", other.kind()),
        }),
    }
}

/// What is stored and not yet visible.
#[derive(Default)]
struct Batch {
    blobs: Vec<Object>,
    manifests: Vec<Object>,
    /// Whether there are payloads, perhaps with their objects.
    payloads: bool,
}

/// Copies `blobs`, and `manifests` with all they name.
pub(super) async fn run(
    ends: &Ends,
    manifests: Vec<Digest>,
    blobs: Vec<Digest>,
    options: &CopyOptions,
) -> Result<()> {
    let mut source = Source::new(ends, manifests, blobs, options.manifests);
    let mut before = Batch::default();
    loop {
        let filling = fill(ends, &mut source, options);
        let (filled, finished) = future::join(filling, finish(ends, before)).await;
        finished?;
        let (batch, end) = filled;
        before = batch;
        match end {
            End::More => {}
            End::Last => return finish(ends, before).await,
            End::Failed(error) => {
                // What has come stays, for whoever tries again. Of a manifest not all may have.
                before.manifests.clear();
                if let Err(other) = finish(ends, before).await {
                    tracing::debug!("and what had come is lost: {other}");
                }
                return Err(error);
            }
        }
    }
}

/// Blobs on their way, and their weight.
type Coming<'a> = BoxFuture<'a, (usize, Result<Vec<Brought>>)>;

/// How a batch has ended.
enum End {
    More,
    Last,
    Failed(StoreError),
}

/// Brings blobs until the batch is full.
async fn fill(ends: &Ends, source: &mut Source<'_>, options: &CopyOptions) -> (Batch, End) {
    let (mut batch, started) = (Batch::default(), Instant::now());
    let (mut items, mut bytes) = (0, 0);
    let mut coming: FuturesUnordered<Coming<'_>> = FuturesUnordered::new();
    let mut weight = 0;
    let mut end = End::More;
    loop {
        let is_open =
            matches!(end, End::More) && plan::takes_more(options, items, bytes, started.elapsed());
        let has_room = weight < options.payloads.max(1);
        tokio::select! {
            Some((held, brought)) = coming.next(), if !coming.is_empty() => {
                weight -= held;
                match brought {
                    Ok(brought) => brought
                        .into_iter()
                        .for_each(|brought| take(ends, source, &mut batch, brought)),
                    Err(error) => end = End::Failed(error),
                }
            }
            work = source.next(), if is_open && has_room => match work {
                Ok(Some(Work::Blob(wanted))) => {
                    items += 1;
                    bytes += wanted.size.unwrap_or_default();
                    weight += 1;
                    let bringing = spawn(bring(ends.clone(), wanted));
                    coming.push(bringing.map(|brought| (1, brought.map(|b| vec![b]))).boxed());
                }
                Ok(Some(Work::Blobs(wanted))) => {
                    items += wanted.len();
                    bytes += wanted.iter().filter_map(|wanted| wanted.size).sum::<u64>();
                    weight += WEIGHT_TOGETHER;
                    let bringing = spawn(bring_together(ends.clone(), wanted));
                    coming.push(bringing.map(|brought| (WEIGHT_TOGETHER, brought)).boxed());
                }
                Ok(Some(Work::Manifest(object))) => {
                    items += entries(&object);
                    batch.manifests.push(object);
                }
                Ok(None) => end = End::Last,
                Err(error) => end = End::Failed(error),
            },
            else => return (batch, end),
        }
        if matches!(end, End::Failed(_)) {
            return (batch, end);
        }
    }
}

fn take(ends: &Ends, source: &mut Source<'_>, batch: &mut Batch, brought: Brought) {
    batch.payloads |= brought.copied;
    match brought.copied {
        true => ends.progress.stored(1, 0),
        false => source.is_there(brought.size),
    }
    batch.blobs.extend(brought.object);
}

fn entries(object: &Object) -> usize {
    match object {
        Object::Manifest(manifest) => {
            let trees = manifest.trees().iter();
            trees.map(|tree| 1 + tree.entries().len()).sum()
        }
        _ => 1,
    }
}

/// Makes a batch visible, children first.
async fn finish(ends: &Ends, batch: Batch) -> Result<()> {
    if batch.payloads || !batch.blobs.is_empty() {
        ends.to.publish().await?;
    }
    put_objects(ends, batch.blobs).await?;
    put_objects(ends, batch.manifests).await
}
