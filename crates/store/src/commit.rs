//! A directory on disk becomes a layer of a repository.
//!
//! In this order, and each step complete before the next, so that what is visible never refers to
//! what is not: the walk (which refuses what cannot be stored before anything is written),
//! payloads, blob objects, the manifest, the layer. Tagging it is the caller's. Whoever is stopped
//! on the way leaves unreferenced objects at worst.
//!
//! Every file is read once and hashed while it is stored. A file or directory that changes
//! between the walk and the end of the commit is an error: the layer would be a state that never
//! was.
//!
//! Memory: about 200 bytes for each file, and a few MiB of contents for each unit of concurrency.
//!
//! The upper directory of an overlay is committed as what it changes of what is below it.
//!
//! Whoever tags the layer [holds](Repository::hold) the repository from before the commit until then.
//!
//! The repository to give is the one to write to, or a [`Chain`](crate::Chain), which then writes
//! to its primary.

mod marks;
mod walk;
mod read;
mod payloads;
mod changes;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farseek_object::{
    Annotation, Blob, Digest, DirectoryBuilder, Header, Layer, Manifest, MergedTree, NewEntry,
    Object, Tree,
};
use futures::stream::{self, StreamExt, TryStreamExt};

use self::changes::Changes;
use self::walk::{NodeKind, Scan};
use crate::blocking::run;
use crate::error::{Result, StoreError};
use crate::payload::PutOptions;
use crate::progress::Progress;
use crate::repository::Repository;

/// Trees and entries of the largest manifest that stock SPFS reads back: its FlatBuffers verifier
/// stops at a million tables, of which two are the object's own (FORMAT.md section 2.5).
const MAX_STOCK_ENTRIES: u64 = 999_998;

/// How a directory is committed.
#[derive(Debug, Clone)]
pub struct CommitOptions {
    /// The digest strategy and encoding of every object written.
    pub header: Header,
    /// Files, or batches of small ones, in flight at once.
    pub concurrency: usize,
    /// Paths to leave out, with what is below them, relative to the directory.
    pub exclude: Vec<PathBuf>,
    /// What the layer says of itself, in stored order.
    pub annotations: Vec<Annotation>,
    /// Set where the directory is the upper one of an overlay: what is below it. The layer is what
    /// has changed of that.
    pub base: Option<Arc<MergedTree>>,
}

impl Default for CommitOptions {
    fn default() -> Self {
        // Twice the processors: while one file waits for the disk another is hashed.
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            header: Header::default(),
            concurrency: (2 * processors).clamp(4, 32),
            exclude: Vec::new(),
            annotations: Vec::new(),
            base: None,
        }
    }
}

/// What a commit has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitSummary {
    /// The layer: what to tag.
    pub layer: Digest,
    /// Its manifest.
    pub manifest: Digest,
    /// Regular files.
    pub files: u64,
    /// Directories, without the root.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Whiteouts.
    pub masks: u64,
    /// Bytes of all files and link targets.
    pub bytes: u64,
    /// Payloads that no blob of the repository named before.
    pub new_payloads: u64,
    /// Bytes of those.
    pub new_bytes: u64,
    /// Whether stock SPFS is able to read the manifest.
    pub stock_readable: bool,
}

/// Commits `directory` as a layer.
///
/// # Errors
/// `Unstorable` names what cannot be stored, before anything is written, or what changed
/// meanwhile; anything else is the repository's, or the file system's with the path.
pub async fn commit_directory(
    repository: Arc<dyn Repository>,
    directory: &Path,
    options: CommitOptions,
    progress: &dyn Progress,
) -> Result<CommitSummary> {
    let (root, exclude) = (directory.to_owned(), options.exclude.iter().cloned());
    let exclude = HashSet::from_iter(exclude);
    let is_upper = options.base.is_some();
    let scan = Arc::new(run(move || walk::walk(&root, &exclude, is_upper)).await?);
    let summary = count(&scan);
    progress.found(summary.files + summary.symlinks, summary.bytes);

    // The caller holds it as well, until the layer is tagged.
    let hold = repository.hold().await?;
    let committing = commit_held(&*repository, directory, scan, summary, options, progress);
    let committed = committing.await;
    hold.release().await;
    committed
}

/// Commits what was walked.
async fn commit_held(
    repository: &dyn Repository,
    directory: &Path,
    scan: Arc<Scan>,
    mut summary: CommitSummary,
    options: CommitOptions,
    progress: &dyn Progress,
) -> Result<CommitSummary> {
    let concurrency = options.concurrency.max(1);
    let stored = payloads::store(repository, &scan, concurrency, progress).await?;
    repository.publish().await?;
    put_blobs(repository, &scan, &stored, options.header, &mut summary).await?;
    repository.publish().await?;

    let (header, base) = (options.header, options.base);
    let (manifest, changed) = run(move || {
        scan.check_directories()?;
        let digests: HashMap<u32, Digest> = stored.into_iter().collect();
        match base {
            None => Ok((build_manifest(&scan, &digests, header)?, None)),
            Some(base) => {
                let changes = changes::changes(&scan, &digests, &base);
                let counted = count_changes(&scan, &changes);
                Ok((finish(changes.root, &scan, header)?, Some(counted)))
            }
        }
    })
    .await?;
    if let Some(changed) = changed {
        summary = CommitSummary {
            new_payloads: summary.new_payloads,
            new_bytes: summary.new_bytes,
            ..changed
        };
    }
    summary.stock_readable = is_stock_readable(&manifest);
    if !summary.stock_readable {
        tracing::warn!(
            "{} has more than {MAX_STOCK_ENTRIES} entries: stock SPFS cannot read it back",
            directory.display()
        );
    }
    let put = PutOptions::default();
    summary.manifest = repository
        .put_object(&Object::Manifest(manifest), put)
        .await?;
    let layer = Layer::new(header, Some(summary.manifest), options.annotations)
        .map_err(|source| unencodable(directory, &source))?;
    summary.layer = repository.put_object(&Object::Layer(layer), put).await?;
    Ok(summary)
}

fn unencodable(directory: &Path, error: &farseek_object::ObjectError) -> StoreError {
    StoreError::Unstorable {
        path: directory.to_owned(),
        reason: error.to_string(),
    }
}

/// The part of the summary that the walk tells.
fn count(scan: &Scan) -> CommitSummary {
    let masks = scan.positions(|kind| *kind == NodeKind::Mask).len() as u64;
    count_nodes(scan.nodes.iter().skip(1), masks)
}

/// The same of what an upper directory changes.
fn count_changes(scan: &Scan, changes: &Changes) -> CommitSummary {
    let kept = changes.kept.iter().map(|&at| &scan.nodes[at as usize]);
    count_nodes(kept, changes.masks)
}

fn count_nodes<'a>(nodes: impl Iterator<Item = &'a walk::Node>, masks: u64) -> CommitSummary {
    let (mut files, mut directories, mut symlinks, mut bytes) = (0, 0, 0, 0);
    for node in nodes {
        bytes += node.payload_size();
        match node.kind {
            NodeKind::File => files += 1,
            NodeKind::Directory => directories += 1,
            NodeKind::Symlink(_) => symlinks += 1,
            NodeKind::Mask => {}
        }
    }
    CommitSummary {
        layer: Digest::NULL,
        manifest: Digest::NULL,
        files,
        directories,
        symlinks,
        masks,
        bytes,
        new_payloads: 0,
        new_bytes: 0,
        stock_readable: true,
    }
}

/// Stores the blob object of each payload once, deferred, and counts those that are new.
async fn put_blobs(
    repository: &dyn Repository,
    scan: &Scan,
    stored: &[(u32, Digest)],
    header: Header,
    summary: &mut CommitSummary,
) -> Result<()> {
    let blobs: HashMap<Digest, u64> = stored
        .iter()
        .map(|&(at, digest)| (digest, scan.nodes[at as usize].payload_size()))
        .collect();
    let puts = blobs.into_iter().map(|(payload, size)| async move {
        let known = repository.has_object(&payload).await?;
        let blob = Object::Blob(Blob {
            header,
            payload,
            size,
        });
        // One that is there is put as well: that refreshes its age.
        let put = PutOptions {
            deferred: true,
            ..PutOptions::default()
        };
        repository.put_object(&blob, put).await?;
        Ok::<_, StoreError>((known, size))
    });
    let put: Vec<(bool, u64)> = stream::iter(puts)
        .buffer_unordered(BLOBS_IN_FLIGHT)
        .try_collect()
        .await?;
    for (_, size) in put.into_iter().filter(|(known, _)| !known) {
        summary.new_payloads += 1;
        summary.new_bytes += size;
    }
    Ok(())
}

/// Blob objects are small: many in flight hide the way to them.
const BLOBS_IN_FLIGHT: usize = 32;

/// The canonical manifest of the walked directory.
fn build_manifest(scan: &Scan, digests: &HashMap<u32, Digest>, header: Header) -> Result<Manifest> {
    let mut open: HashMap<u32, DirectoryBuilder> = HashMap::new();
    // Backwards, so that a directory is complete when its own entry is made.
    for (at, node) in scan.nodes.iter().enumerate().rev() {
        let at = at as u32;
        let Some(name) = node.name.clone() else {
            continue;
        };
        let mode = node.mode;
        let entry = match node.kind {
            NodeKind::Mask => NewEntry::Mask { mode },
            NodeKind::Directory => NewEntry::Directory {
                mode,
                contents: open.remove(&at).unwrap_or_default(),
            },
            NodeKind::File | NodeKind::Symlink(_) => {
                let object = digests[&at];
                NewEntry::Blob {
                    object,
                    mode,
                    size: node.payload_size(),
                }
            }
        };
        open.entry(node.parent).or_default().insert(name, entry);
    }
    finish(open.remove(&0).unwrap_or_default(), scan, header)
}

fn finish(root: DirectoryBuilder, scan: &Scan, header: Header) -> Result<Manifest> {
    root.into_manifest(header)
        .map_err(|error| unencodable(&scan.path(0), &error))
}

/// The manifest of the layer that the upper directory `directory` would be committed as, over
/// `base`. Nothing is stored. Reads files and blocks.
///
/// # Errors
/// As for a commit.
pub fn survey_changes(directory: &Path, base: &MergedTree) -> Result<Manifest> {
    let scan = walk::walk(directory, &HashSet::new(), true)?;
    let mut digests = HashMap::new();
    for at in scan.positions(|k| matches!(k, NodeKind::File | NodeKind::Symlink(_))) {
        let node = &scan.nodes[at as usize];
        let digest = match &node.kind {
            NodeKind::Symlink(target) => Digest::of(target.as_bytes()),
            _ => read::hash(&scan.path(at), &node.stamp)?,
        };
        digests.insert(at, digest);
    }
    scan.check_directories()?;
    let changes = changes::changes(&scan, &digests, base);
    finish(changes.root, &scan, Header::default())
}

fn is_stock_readable(manifest: &Manifest) -> bool {
    let entries = manifest
        .trees()
        .iter()
        .map(Tree::entries)
        .map(<[_]>::len)
        .sum::<usize>();
    (manifest.trees().len() + entries) as u64 <= MAX_STOCK_ENTRIES
}
