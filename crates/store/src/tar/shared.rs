//! The archive that a repository shows now, less what was removed from it, and its replacement.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farseek_object::Digest;

use super::archive::Archive;
use super::index::Slot;
use super::pack::{self, Changes, Removed, TagChange};
use super::work::Work;
use crate::error::Result;

/// An archive and what is known of it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) path: PathBuf,
    /// Held for the whole of a pack: one may go on when nobody awaits it any more. Taken before
    /// `state`.
    packing: Mutex<()>,
    /// Never held across an `.await` or while a file is read or written.
    state: Mutex<State>,
}

/// What changes while it is open.
#[derive(Debug)]
pub(super) struct State {
    pub(super) archive: Option<Arc<Archive>>,
    /// What is no longer to be seen and still in the archive.
    pub(super) removed: Removed,
}

/// The two kinds of files that are named by digests.
#[derive(Debug, Clone, Copy)]
pub(super) enum Store {
    Objects,
    Payloads,
}

impl Shared {
    /// The archive at `path`, where there is one.
    pub(super) fn new(path: PathBuf, archive: Option<Archive>) -> Self {
        let state = State {
            archive: archive.map(Arc::new),
            removed: Removed::default(),
        };
        Self {
            path,
            packing: Mutex::default(),
            state: Mutex::new(state),
        }
    }

    /// What is known now. Not to be held for long.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where `digest` is in the archive, unless it was removed.
    pub(super) fn find(&self, store: Store, digest: &Digest) -> Option<(Arc<Archive>, Slot)> {
        let state = self.state();
        let archive = state.archive.as_ref()?;
        let (slots, removed) = match store {
            Store::Objects => (&archive.index.objects, &state.removed.objects),
            Store::Payloads => (&archive.index.payloads, &state.removed.payloads),
        };
        let slot = slots.get(digest).filter(|_| !removed.contains(digest))?;
        Some((Arc::clone(archive), slot.clone()))
    }

    /// The digests in the archive that were not removed.
    pub(super) fn digests(&self, store: Store) -> Vec<Digest> {
        let state = self.state();
        let Some(archive) = &state.archive else {
            return Vec::new();
        };
        let (slots, removed) = match store {
            Store::Objects => (&archive.index.objects, &state.removed.objects),
            Store::Payloads => (&archive.index.payloads, &state.removed.payloads),
        };
        let digests = slots.keys().filter(|digest| !removed.contains(*digest));
        digests.copied().collect()
    }

    /// Puts what waits in `work`, and the change of a tag, into a new archive, if there is
    /// anything to do.
    pub(super) fn pack(&self, work: &Work, tag: Option<TagChange>) -> Result<()> {
        let _one_at_a_time = self.packing.lock().unwrap_or_else(PoisonError::into_inner);
        let (old, removed) = {
            let state = self.state();
            (state.archive.clone(), state.removed.clone())
        };
        let changes = Changes {
            // Objects first: one that is there by now has its payload there by the next look.
            objects: work.added("objects")?,
            payloads: work.added("payloads")?,
            removed,
            tag,
        };
        if changes.is_empty() {
            return Ok(());
        }
        pack::pack(&self.path, old.as_deref(), work, &changes)?;
        let new = Archive::open(&self.path)?;
        {
            let mut state = self.state();
            state.archive = new.map(Arc::new);
            state.removed = Removed::default();
        }
        // Only now: a reader that does not find a file here looks into the archive next.
        for added in changes.objects.iter().chain(&changes.payloads) {
            if let Err(error) = std::fs::remove_file(&added.path) {
                tracing::debug!(path = %added.path.display(), %error, "packed file left behind");
            }
        }
        Ok(())
    }
}
