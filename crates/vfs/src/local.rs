//! Payloads that are files of this machine, for the kernel to read by itself.
//!
//! A look is an `open` somewhere, maybe on a file system that hangs. So it is made off the
//! threads that serve the kernel, few are made at once, each is waited for only so long, and
//! after one that took too long none is made for a while: the file is then read through the
//! reader, which has deadlines of its own.
//!
//! What is found must have the right size. Its bytes are trusted, as everything in a local
//! repository is, unless the mount is [`strict`](LocalOptions::strict): then a file is hashed as a
//! whole first, in the background, and only a later open gets it; until then the reader serves,
//! which hashes for itself what it fetches.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use farseek_object::{Digest, Hasher};
use farseek_store::Repository;
use tokio::sync::Semaphore;
use tokio::task;
use tokio::time::timeout;

/// Looks under way at once. One that hangs keeps its place until it ends.
const LOOKS_MAX: usize = 16;

/// How long an open waits for a look.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long no look is made after one that took too long.
const PAUSE: Duration = Duration::from_secs(10);

/// Bytes hashed at a time.
const PIECE: usize = 256 * 1024;

/// Where payloads may be found as files.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// What is asked for them, in this order.
    pub repositories: Vec<Arc<dyn Repository>>,
    /// Whether a file is hashed before it is trusted.
    pub strict: bool,
}

/// Finds payloads as files.
#[derive(Debug)]
pub(crate) struct LocalFiles {
    options: LocalOptions,
    looks: Arc<Semaphore>,
    /// Until when no look is made.
    paused: Mutex<Option<Instant>>,
    /// Whether a file of the wrong size has been told of.
    told: AtomicBool,
    /// The files that were hashed, and whether they were right; `None` while that is done. Never
    /// held while anything else is locked.
    hashed: Mutex<HashMap<Digest, Option<(Identity, bool)>>>,
}

/// What a file was when it was hashed. A repository's files are never written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl LocalFiles {
    pub(crate) fn new(options: LocalOptions) -> Self {
        Self {
            options,
            looks: Arc::new(Semaphore::new(LOOKS_MAX)),
            paused: Mutex::default(),
            told: AtomicBool::new(false),
            hashed: Mutex::default(),
        }
    }

    /// Whether what it finds has been hashed.
    pub(crate) fn is_strict(&self) -> bool {
        self.options.strict
    }

    /// The payload `digest` of `size` bytes, if it is a file that may be served as it is.
    pub(crate) async fn find(self: Arc<Self>, digest: Digest, size: u64) -> Option<File> {
        if size == 0 || self.is_paused(Instant::now()) {
            return None;
        }
        let look = {
            let files = Arc::clone(&self);
            // A task of its own: what it holds is held until the file system has answered, also
            // when nobody waits for that any more.
            async move {
                let looks = Arc::clone(&files.looks);
                let permit = looks.acquire_owned().await.ok()?;
                let look = task::spawn(async move {
                    let found = files.look(digest, size).await;
                    drop(permit);
                    found
                });
                look.await.ok().flatten()
            }
        };
        match timeout(PATIENCE, look).await {
            Ok(found) => self.judge(digest, found?),
            Err(_) => {
                self.pause(Instant::now());
                None
            }
        }
    }

    async fn look(self: Arc<Self>, digest: Digest, size: u64) -> Option<(File, Metadata)> {
        let file = self.open(&digest).await?;
        let asked = task::spawn_blocking(move || {
            let metadata = file.metadata();
            metadata.map(|metadata| (file, metadata))
        });
        let (file, metadata) = asked.await.ok()?.ok()?;
        if metadata.is_file() && metadata.len() == size {
            return Some((file, metadata));
        }
        if !self.told.swap(true, Ordering::Relaxed) {
            let found = metadata.len();
            tracing::warn!(%digest, size, found, "a local payload has the wrong size: not used");
        }
        None
    }

    async fn open(&self, digest: &Digest) -> Option<File> {
        for repository in &self.options.repositories {
            match repository.payload_file(digest).await {
                Ok(Some(file)) => return Some(file),
                Ok(None) => {}
                Err(error) => tracing::debug!(%digest, %error, "no look at a local payload"),
            }
        }
        None
    }

    /// Whether the file may be served now.
    fn judge(self: &Arc<Self>, digest: Digest, (file, metadata): (File, Metadata)) -> Option<File> {
        if !self.options.strict {
            return Some(file);
        }
        let identity = Identity::of(&metadata);
        {
            let mut hashed = self.hashed.lock().expect("no holder of this lock panics");
            match hashed.get(&digest) {
                Some(None) => return None,
                Some(Some((known, right))) if *known == identity => return right.then_some(file),
                _ => hashed.insert(digest, None),
            };
        }
        let files = Arc::clone(self);
        task::spawn_blocking(move || files.hash(digest, file, identity));
        None
    }

    fn hash(&self, digest: Digest, file: File, identity: Identity) {
        let found = digest_of(&file);
        match &found {
            Ok(found) if *found == digest => {}
            Ok(_) => tracing::error!(%digest, "a local payload is corrupt: not used"),
            Err(error) => tracing::warn!(%digest, %error, "cannot read a local payload"),
        }
        let right = found.is_ok_and(|found| found == digest);
        // Of a file that has changed meanwhile, nothing is known.
        let same = file
            .metadata()
            .is_ok_and(|metadata| Identity::of(&metadata) == identity);
        let mut hashed = self.hashed.lock().expect("no holder of this lock panics");
        match same {
            true => hashed.insert(digest, Some((identity, right))),
            false => hashed.remove(&digest),
        };
    }

    fn is_paused(&self, now: Instant) -> bool {
        let paused = self.paused.lock().expect("no holder of this lock panics");
        paused.is_some_and(|until| now < until)
    }

    fn pause(&self, now: Instant) {
        tracing::warn!("no answer on local payloads: they are not looked for, for a while");
        *self.paused.lock().expect("no holder of this lock panics") = Some(now + PAUSE);
    }
}

fn digest_of(mut file: &File) -> std::io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&piece[..read]),
        }
    }
}
