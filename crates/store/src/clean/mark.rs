//! Mark: everything that can be reached from some digests is kept.
//!
//! Manifests, layers and platforms are read, each once; what manifests and annotations name are
//! blobs, which are kept without looking at them, and their payloads with them, whether their
//! objects are there or not. What is missing is passed over; anything else that cannot be read ends
//! the mark, for nobody knows what is below it.

use std::collections::HashSet;
use std::sync::Arc;

use farseek_object::{Digest, Object};
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};

use crate::error::{Result, StoreError};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::task::spawn;

/// Digests that stay: 32 bytes each and little more.
#[derive(Debug, Default)]
pub(super) struct Kept {
    all: HashSet<Digest>,
    /// Those that were read or are about to be: of a blob it is enough to be kept, but a digest
    /// that a manifest names as a blob may be named elsewhere as more than that.
    read: HashSet<Digest>,
}

impl Kept {
    /// Whether it stays: an object, and a payload as well.
    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.all.contains(digest)
    }

    /// Whether what is below it stays, too.
    pub(super) fn has_read(&self, digest: &Digest) -> bool {
        self.read.contains(digest)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Keeps what has nothing below it.
    pub(super) fn keep_leaves(&mut self, leaves: impl IntoIterator<Item = Digest>) {
        self.all.extend(leaves);
    }

    /// Keeps `digest`. Returns whether it has to be read.
    fn add(&mut self, digest: Digest) -> bool {
        self.all.insert(digest);
        self.read.insert(digest)
    }
}

/// What is below an object.
struct Below {
    /// To be read in turn.
    objects: Vec<Digest>,
    /// To be kept, no more.
    blobs: Vec<Digest>,
}

impl Below {
    fn of(object: &Object) -> Self {
        let children = object.children();
        let (objects, blobs) = match object {
            Object::Blob(_) => (Vec::new(), Vec::new()),
            Object::Manifest(_) => (Vec::new(), children),
            Object::Platform(_) => (children, Vec::new()),
            Object::Layer(layer) => {
                let manifest = layer.manifest();
                children.into_iter().partition(|d| Some(*d) == manifest)
            }
        };
        Self { objects, blobs }
    }
}

/// Keeps `roots` and all below them, reading so many objects at once.
///
/// # Errors
/// An object that is there cannot be read, which its error names.
pub(super) async fn keep(
    repository: &Arc<dyn Repository>,
    roots: impl IntoIterator<Item = Digest>,
    kept: &mut Kept,
    concurrency: usize,
    progress: &dyn Progress,
) -> Result<()> {
    let mut queue: Vec<Digest> = roots.into_iter().filter(|root| kept.add(*root)).collect();
    let mut reading = FuturesUnordered::new();
    loop {
        while reading.len() < concurrency.max(1)
            && let Some(digest) = queue.pop()
        {
            reading.push(read(Arc::clone(repository), digest).boxed());
        }
        let Some(below) = reading.next().await else {
            return Ok(());
        };
        let Below { objects, blobs } = below?;
        kept.all.extend(blobs);
        queue.extend(objects.into_iter().filter(|child| kept.add(*child)));
        progress.stored(1, 0);
        progress.found(kept.len() as u64, 0);
    }
}

/// What is below `digest`; nothing where that is missing.
async fn read(repository: Arc<dyn Repository>, digest: Digest) -> Result<Below> {
    let nothing = Below {
        objects: Vec::new(),
        blobs: Vec::new(),
    };
    // A task of its own decodes where there is a processor, and lets go of the object.
    spawn(async move {
        match repository.get_object(&digest).await {
            Ok(object) => Ok(Below::of(&object)),
            Err(StoreError::NotFound { .. }) => Ok(nothing),
            Err(error) => Err(error),
        }
    })
    .await
}
