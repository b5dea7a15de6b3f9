//! Deferred writes: files that are complete in `work/` and wait to be made visible together.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::{fs, mem};

use farseek_object::Digest;

use super::durable::Temp;

/// What waits. Dropping it removes the files.
#[derive(Debug, Default)]
pub(super) struct Stage {
    /// In the order in which they were written, which is the order they become visible in.
    files: Vec<(Digest, Temp)>,
    digests: HashSet<Digest>,
    /// Directories that files were renamed into and that have not been synced.
    unsynced: BTreeSet<PathBuf>,
    /// What waited here until somebody else removed its file, and nobody was told so yet.
    lost: Vec<Digest>,
}

impl Stage {
    /// Whether `digest` waits here.
    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.digests.contains(digest)
    }

    /// Adds a complete file; of two for one digest the first is kept.
    pub(super) fn add(&mut self, digest: Digest, temp: Temp) {
        if self.digests.insert(digest) {
            self.files.push((digest, temp));
        }
    }

    /// Takes everything out.
    pub(super) fn take(&mut self) -> Self {
        mem::take(self)
    }

    /// Puts back what `rest` still holds, before anything that came later.
    pub(super) fn put_back(&mut self, rest: Self) {
        let later = mem::replace(self, rest);
        self.unsynced.extend(later.unsynced);
        self.lost.extend(later.lost);
        for (digest, temp) in later.files {
            self.add(digest, temp);
        }
    }

    /// Whether there is nothing to do, and nothing to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.unsynced.is_empty() && self.lost.is_empty()
    }

    /// Gives up what has lost its file. Returns whether there was any such thing.
    pub(super) fn forget_lost(&mut self) -> bool {
        let is_there = |temp: &Temp| fs::symlink_metadata(temp.path()).is_ok();
        let lost = self.files.extract_if(.., |(_, temp)| !is_there(temp));
        let lost: Vec<Digest> = lost.map(|(digest, _)| digest).collect();
        self.lose(&lost);
        !lost.is_empty()
    }

    /// Gives up `digests`, without a word about them.
    pub(super) fn forget(&mut self, digests: &[Digest]) {
        for digest in digests {
            self.digests.remove(digest);
        }
        let digests = &self.digests;
        self.files.retain(|(digest, _)| digests.contains(digest));
    }

    /// Gives up `digests`, which are lost.
    pub(super) fn lose(&mut self, digests: &[Digest]) {
        self.forget(digests);
        self.lost.extend(digests);
    }

    /// What was lost. Each is told once.
    pub(super) fn take_lost(&mut self) -> Vec<Digest> {
        mem::take(&mut self.lost)
    }

    /// The paths of the files that wait.
    pub(super) fn paths(&self) -> Vec<&std::path::Path> {
        self.files.iter().map(|(_, temp)| temp.path()).collect()
    }

    /// Hands every file to `place`, in order, which returns the directories it has changed. What
    /// comes after a failure stays.
    pub(super) fn place_all<E>(
        &mut self,
        mut place: impl FnMut(&Digest, &mut Temp) -> Result<Vec<PathBuf>, E>,
    ) -> Result<(), E> {
        let mut placed = 0;
        let mut result = Ok(());
        for (digest, temp) in &mut self.files {
            match place(digest, temp) {
                Ok(changed) => self.unsynced.extend(changed),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
            placed += 1;
        }
        for (digest, _) in self.files.drain(..placed) {
            self.digests.remove(&digest);
        }
        result
    }

    /// The directories to sync.
    pub(super) fn unsynced(&self) -> Vec<PathBuf> {
        self.unsynced.iter().cloned().collect()
    }

    /// The directories have been synced.
    pub(super) fn mark_synced(&mut self) {
        self.unsynced.clear();
    }
}
