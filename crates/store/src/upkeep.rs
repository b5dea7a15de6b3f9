//! What a clean asks of a repository that is at hand, or that a server of ours has at hand, beyond
//! what every repository can do.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use farseek_object::{Digest, ObjectKind};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Handle;

use crate::error::Result;

/// Keeps what is written to a repository, while it is there, from being cleaned before something
/// refers to it. Whoever writes more than one thing takes it first and drops it when the tag is
/// there: see [`Repository::hold`](crate::Repository::hold).
#[derive(Default)]
pub struct Hold {
    _guard: Option<Box<dyn Any + Send + Sync>>,
    /// Where it may come to count no more: whether that has happened.
    check: Option<Check>,
    /// In a lock only because it is otherwise for one thread at a time.
    release: Mutex<Option<BoxFuture<'static, ()>>>,
}

type Check = Box<dyn Fn() -> Result<()> + Send + Sync>;

impl Hold {
    /// A hold that ends when `guard` is dropped.
    pub(crate) fn of(guard: impl Any + Send + Sync) -> Self {
        Self {
            _guard: Some(Box::new(guard)),
            check: None,
            release: Mutex::default(),
        }
    }

    /// A hold that ends at once when `release` has run to its end, and after a while where it is
    /// dropped; whether it [has counted](Self::check) until now says `check`.
    pub(crate) fn released_by(
        release: impl Future<Output = ()> + Send + 'static,
        check: impl Fn() -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            _guard: None,
            check: Some(Box::new(check)),
            release: Mutex::new(Some(release.boxed())),
        }
    }

    /// That it has counted without a gap since it was taken: what was found or written since then
    /// is there.
    ///
    /// # Errors
    /// `Unavailable` where others may have taken it for the hold of somebody who was killed. That
    /// is so for good: what depends on it begins anew.
    pub fn check(&self) -> Result<()> {
        self.check.as_ref().map_or(Ok(()), |check| check())
    }

    /// Ends it, for everybody, at once. That goes without saying where it is kept on this machine;
    /// a remote repository has to be told.
    pub async fn release(mut self) {
        if let Some(release) = self.take() {
            release.await;
        }
    }

    fn take(&mut self) -> Option<BoxFuture<'static, ()>> {
        let release = self.release.get_mut();
        release.unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Hold {
    /// Ends it as soon as may be, where it was not [released](Self::release).
    fn drop(&mut self) {
        if let (Some(release), Ok(runtime)) = (self.take(), Handle::try_current()) {
            runtime.spawn(release);
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}

/// Objects or payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// Objects.
    Objects,
    /// Payloads.
    Payloads,
}

/// What can be told of an object or a payload without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// When it was last written, or found by who was about to write it.
    pub written: SystemTime,
    /// Bytes of it as it is stored.
    pub bytes: u64,
    /// What its header says an object is; `None` where it says nothing, and for payloads.
    pub kind: Option<ObjectKind>,
}

/// What a leftover is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftoverKind {
    /// What somebody was writing who was killed.
    Unfinished,
    /// A lock of a process that is gone.
    Lock,
    /// A directory that was made from a manifest that nothing needs any more.
    Render,
    /// Copies of a payload for renders: that nothing needs, or that no render has.
    Proxy,
}

/// Something in a repository's directory that is neither object, nor payload, nor tag, and that
/// nobody needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// What it is.
    pub kind: LeftoverKind,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes that it alone takes.
    pub bytes: u64,
}

/// Which leftovers are looked for.
#[derive(Clone)]
pub struct LeftoverOptions {
    /// Only what is older.
    pub limit: SystemTime,
    /// What is made from one of these stays.
    pub keeps: Arc<dyn Fn(&Digest) -> bool + Send + Sync>,
    /// Whether copies of payloads stay that no render has, where the payload is needed.
    pub keep_proxies_with_no_links: bool,
}

impl fmt::Debug for LeftoverOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeftoverOptions")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// A repository whose keeper we are, or are in touch with.
///
/// # Errors
/// All of them: `Unsupported` where the keeper turns out to know none of this; from then on
/// [`Repository::upkeep`](crate::Repository::upkeep) says so.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Whether the repository is on this machine, with what else it keeps beside objects, payloads
    /// and tags.
    fn is_at_hand(&self) -> bool {
        true
    }

    /// The time, by the clock of the machine that keeps it.
    async fn now(&self) -> Result<SystemTime> {
        Ok(SystemTime::now())
    }

    /// A moment such that nothing is written before it from now on, and that is before whatever
    /// those have written who [hold](crate::Repository::hold) the repository now; by the clock that
    /// ages are told by.
    async fn horizon(&self) -> Result<SystemTime>;

    /// What is known of each of `digests`; `None` for what is not there.
    async fn facts(&self, shelf: Shelf, digests: Vec<Digest>) -> Result<Vec<Option<Facts>>>;

    /// Objects that another cleaner is judging, or was killed over: listings may lack them.
    async fn aside(&self) -> Result<Vec<Digest>> {
        Ok(Vec::new())
    }

    /// When an object was last put aside or taken back, if ever.
    async fn aside_changed(&self) -> Result<Option<SystemTime>> {
        Ok(None)
    }

    /// Makes ready for a sweep: puts back what is [aside](Self::aside), payloads as well; and where
    /// writers and sweeps have to exclude each other, keeps writers away from now on.
    async fn restore(&self) -> Result<()> {
        Ok(())
    }

    /// Whether a sweep keeps writers away, and so has to be [ended](Self::finish).
    fn is_exclusive(&self) -> bool {
        false
    }

    /// A sweep has ended, in whatever way.
    async fn finish(&self) {}

    /// What else nobody needs.
    async fn leftovers(&self, options: LeftoverOptions) -> Result<Vec<Leftover>> {
        let _ = options;
        Ok(Vec::new())
    }

    /// Removes one of them. Returns whether it has: what somebody has been at since `limit` stays.
    async fn remove_leftover(&self, leftover: &Leftover, limit: SystemTime) -> Result<bool> {
        let _ = (leftover, limit);
        Ok(false)
    }
}
