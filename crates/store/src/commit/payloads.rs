//! The payloads of a walked directory, read and stored with bounded concurrency.
//!
//! Small files are read a batch at a time, so that a thread is changed to once for many; each
//! large one is a stream of its own. Large files start first: the longest of them must not be what
//! everything waits for in the end. At most `concurrency` batches or pieces of streams are in
//! memory at once.

use std::sync::Arc;

use bytes::Bytes;
use farseek_object::Digest;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use super::read;
use super::walk::{NodeKind, Scan, changed};
use crate::blocking::run;
use crate::error::Result;
use crate::payload::PutOptions;
use crate::progress::Progress;
use crate::repository::Repository;

/// A file of at most this many bytes is read whole.
const SMALL: u64 = 256 << 10;

/// A batch ends with the file that brings it to this many bytes,
const BATCH_BYTES: u64 = 1 << 20;

/// or this many files.
const BATCH_FILES: usize = 64;

/// Something to be done at once, by the positions of nodes.
#[derive(Debug, PartialEq, Eq)]
enum Job {
    Large(u32),
    Batch(Vec<u32>),
}

/// Groups files, given with their sizes, into jobs: the largest first, then batches in order.
fn plan(files: impl IntoIterator<Item = (u32, u64)>) -> Vec<Job> {
    let mut large = Vec::new();
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut bytes = 0;
    for (position, size) in files {
        if size > SMALL {
            large.push((position, size));
            continue;
        }
        batch.push(position);
        bytes += size;
        if bytes >= BATCH_BYTES || batch.len() >= BATCH_FILES {
            batches.push(Job::Batch(std::mem::take(&mut batch)));
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        batches.push(Job::Batch(batch));
    }
    large.sort_by_key(|&(_, size)| std::cmp::Reverse(size));
    large
        .into_iter()
        .map(|(position, _)| Job::Large(position))
        .chain(batches)
        .collect()
}

/// Stores the payloads of all files and links, deferred, and returns each with its position.
pub(super) async fn store(
    repository: &dyn Repository,
    scan: &Arc<Scan>,
    concurrency: usize,
    progress: &dyn Progress,
) -> Result<Vec<(u32, Digest)>> {
    let positions = scan.positions(|k| matches!(k, NodeKind::File | NodeKind::Symlink(_)));
    let jobs = plan(
        positions
            .iter()
            .map(|&at| (at, scan.nodes[at as usize].payload_size())),
    );
    let jobs = jobs.into_iter().map(|job| async move {
        match job {
            Job::Large(at) => Ok(vec![(at, large(repository, scan, at, progress).await?)]),
            Job::Batch(batch) => small(repository, scan, batch, progress).await,
        }
    });
    let stored = stream::iter(jobs)
        .buffer_unordered(concurrency)
        .try_collect::<Vec<_>>();
    Ok(stored.await?.into_iter().flatten().collect())
}

async fn small(
    repository: &dyn Repository,
    scan: &Arc<Scan>,
    batch: Vec<u32>,
    progress: &dyn Progress,
) -> Result<Vec<(u32, Digest)>> {
    let reader = Arc::clone(scan);
    let read = move || {
        let read = batch
            .into_iter()
            .map(|at| Ok((at, read_node(&reader, at)?)));
        read.collect::<Result<Vec<_>>>()
    };
    let mut stored = Vec::new();
    for (at, bytes) in run(read).await? {
        let size = bytes.len() as u64;
        let body = stream::iter([Ok(bytes)]).boxed();
        let (digest, _) = repository.put_payload(body, put_options(scan, at)).await?;
        progress.stored(1, size);
        stored.push((at, digest));
    }
    Ok(stored)
}

fn read_node(scan: &Scan, position: u32) -> Result<Bytes> {
    let node = &scan.nodes[position as usize];
    match &node.kind {
        NodeKind::Symlink(target) => Ok(Bytes::copy_from_slice(target.as_bytes())),
        _ => read::read_small(&scan.path(position), &node.stamp),
    }
}

async fn large(
    repository: &dyn Repository,
    scan: &Scan,
    position: u32,
    progress: &dyn Progress,
) -> Result<Digest> {
    let stamp = scan.nodes[position as usize].stamp;
    let path = scan.path(position);
    let (sender, mut advanced) = mpsc::unbounded_channel();
    let body = read::stream_large(path.clone(), stamp, sender);
    let mut put = repository.put_payload(body, put_options(scan, position));
    let (digest, size) = loop {
        tokio::select! {
            biased;
            Some(bytes) = advanced.recv() => progress.stored(0, bytes),
            stored = &mut put => break stored?,
        }
    };
    if size != stamp.size {
        return Err(changed(path));
    }
    while let Ok(bytes) = advanced.try_recv() {
        progress.stored(0, bytes);
    }
    progress.stored(1, 0);
    Ok(digest)
}

fn put_options(scan: &Scan, position: u32) -> PutOptions {
    let node = &scan.nodes[position as usize];
    let mode = (node.kind == NodeKind::File).then_some(node.mode);
    PutOptions {
        mode,
        deferred: true,
        ..PutOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_go_in_batches_and_large_ones_first() {
        assert_eq!(plan([]), []);
        let jobs = plan([(1, 10), (2, SMALL + 1), (3, 0), (4, SMALL + 2), (5, SMALL)]);
        assert_eq!(
            jobs,
            [Job::Large(4), Job::Large(2), Job::Batch(vec![1, 3, 5])]
        );
    }

    #[test]
    fn batches_are_bounded_in_files_and_bytes() {
        let jobs = plan((0..130).map(|at| (at, 1)));
        let sizes = |jobs: &[Job]| -> Vec<usize> {
            jobs.iter()
                .map(|job| if let Job::Batch(b) = job { b.len() } else { 0 })
                .collect()
        };
        assert_eq!(sizes(&jobs), [64, 64, 2]);
        assert_eq!(sizes(&plan((0..10).map(|at| (at, SMALL)))), [4, 4, 2]);
    }
}
