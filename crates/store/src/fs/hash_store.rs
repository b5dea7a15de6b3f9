//! A directory of files named by their digests: `objects/` or `payloads/`.
//!
//! `<AA>/<54 characters>` for a file, `work/<uuid>` for one being written (FORMAT.md sections 4.1
//! and 4.3). A file that is there is left where it is as good, and its age refreshed; where that
//! is refused it is replaced by an equal one, so that whoever has put a file may count on a young
//! one. A file that waited to be placed is as young as its place. Deliberately absent: what the
//! files hold.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use farseek_object::{Digest, DigestPrefix};

use super::aside;
use super::durable::{self, Temp};
use super::file::{names_in, regular_size};
use super::stage::Stage;
use crate::error::{Result, StoreError};

/// Characters of a digest that name its directory.
const SHARD_LEN: usize = 2;

/// Objects or payloads on disk.
#[derive(Debug)]
pub(super) struct HashStore {
    root: PathBuf,
    what: &'static str,
    location: String,
    /// Deferred writes. No other lock is taken while it is held.
    stage: Mutex<Stage>,
    /// Held for the whole of a publish: one that finds nothing to do must not return before the
    /// one that is doing it.
    publishing: Mutex<()>,
    /// Held by who writes many small files. All of them are made in one directory, where the
    /// kernel lets one at a time: those who wait for it there spend more on waiting than the one
    /// spends on its work, and those who wait here sleep.
    writing: Mutex<()>,
}

impl HashStore {
    /// The store in `root`, of `what`s, in the repository at `location`.
    pub(super) fn new(root: PathBuf, what: &'static str, location: String) -> Self {
        Self {
            root,
            what,
            location,
            stage: Mutex::default(),
            publishing: Mutex::default(),
            writing: Mutex::default(),
        }
    }

    /// Where the file of `digest` is.
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        let text = digest.to_string();
        let (shard, rest) = text.split_at(SHARD_LEN);
        self.root.join(shard).join(rest)
    }

    /// Bytes of the file of `digest`, where it is there.
    pub(super) fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => regular_size(&path, &metadata).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io {
                action: "look at",
                path,
                source,
            }),
        }
    }

    /// Opens the file of `digest`, which is `size` bytes long.
    pub(super) fn open(&self, digest: &Digest) -> Result<(File, u64)> {
        let opened = aside::open(&self.root, &self.path(digest), digest)?;
        opened.ok_or_else(|| StoreError::NotFound {
            what: self.what,
            digest: *digest,
            location: self.location.clone(),
        })
    }

    /// Whether a file for `digest` is there that `is_good`, given its path and size, accepts. If
    /// so, it is as young as if it had been written now.
    pub(super) fn reuse(
        &self,
        digest: &Digest,
        is_good: impl FnOnce(&Path, u64) -> bool,
    ) -> Result<bool> {
        let Some(size) = self.size(digest)? else {
            return Ok(false);
        };
        let path = self.path(digest);
        // A cleaner may have taken it away between being found and being refreshed: what counts
        // is that it is there afterwards. See `aside`.
        let refreshed = is_good(&path, size) && durable::refresh(&path);
        Ok(refreshed && self.size(digest)?.is_some())
    }

    /// Whether a deferred write of `digest` waits.
    pub(super) fn is_staged(&self, digest: &Digest) -> bool {
        self.stage().contains(digest)
    }

    /// The turn to write many small files.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a new file.
    pub(super) fn begin(&self) -> Result<(Temp, File)> {
        Temp::create_in(&self.root.join("work"))
    }

    /// Takes the complete file at `path` over as that of `digest`, which it is known to be. It is
    /// gone from `path` afterwards.
    pub(super) fn adopt(&self, digest: &Digest, path: &Path, mode: u32) -> Result<()> {
        let length = fs::metadata(path)
            .map_err(StoreError::io("look at", path))?
            .len();
        if self.reuse(digest, |_, size| size == length)? {
            return fs::remove_file(path).map_err(StoreError::io("remove", path));
        }
        let (temp, file) = Temp::take_over(&self.root.join("work"), path)?;
        self.finish(digest, temp, file, mode, false)
    }

    /// Makes the complete file `temp` that of `digest`, now or at the next [`publish`].
    ///
    /// [`publish`]: Self::publish
    pub(super) fn finish(
        &self,
        digest: &Digest,
        mut temp: Temp,
        file: File,
        mode: u32,
        deferred: bool,
    ) -> Result<()> {
        durable::seal(&temp, &file, mode)?;
        if deferred {
            self.stage().add(*digest, temp);
            return Ok(());
        }
        durable::sync(&temp, &file)?;
        drop(file);
        let changed = self.place(digest, &mut temp)?;
        changed
            .iter()
            .try_for_each(|directory| durable::sync_dir(directory))
    }

    /// Renames a file into its shard. Returns the directories to sync.
    fn place(&self, digest: &Digest, temp: &mut Temp) -> Result<Vec<PathBuf>> {
        let path = self.path(digest);
        // It was written when it was begun, deferred or cached, which may be long ago.
        durable::refresh(temp.path());
        let shard = path.parent().expect("a file is in a shard");
        // Nearly always the shard is there: that is found out by using it.
        let made = match temp.place(&path) {
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                let made = durable::make_dir(shard).map_err(StoreError::io("create", shard))?;
                temp.place(&path)?;
                made
            }
            placed => placed.map(|()| false)?,
        };
        let mut changed = vec![shard.to_path_buf()];
        changed.extend(made.then(|| self.root.clone()));
        Ok(changed)
    }

    /// Makes every deferred write durable, then visible, then its name durable.
    ///
    /// What could not be done stays for the next call, or is removed with the store. What has lost
    /// its file, by somebody else, is given up, and returned once.
    pub(super) fn publish(&self) -> Result<Vec<Digest>> {
        self.publish_after(|| Ok(Vec::new()))
    }

    /// Does so once `before` is done, and only with what waited before that; what `before` returns is
    /// given up as well.
    pub(super) fn publish_after(
        &self,
        before: impl FnOnce() -> Result<Vec<Digest>>,
    ) -> Result<Vec<Digest>> {
        let _one_at_a_time = self
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut batch = self.stage().take();
        let result = before().and_then(|given_up| {
            batch.lose(&given_up);
            self.stage().forget(&given_up);
            self.publish_batch(&mut batch)?;
            Ok(batch.take_lost())
        });
        if !batch.is_empty() {
            self.stage().put_back(batch);
        }
        result
    }

    fn publish_batch(&self, batch: &mut Stage) -> Result<()> {
        batch.forget_lost();
        // What is lost only now fails, and is found out by that.
        while let Err(error) = self.place_batch(batch) {
            if !batch.forget_lost() {
                return Err(error);
            }
        }
        Ok(())
    }

    fn place_batch(&self, batch: &mut Stage) -> Result<()> {
        durable::sync_each(&batch.paths(), &self.root)?;
        batch.place_all(|digest, temp| self.place(digest, temp))?;
        durable::sync_each(&batch.unsynced(), &self.root)?;
        batch.mark_synced();
        Ok(())
    }

    /// Removes the file of `digest`, if it is there.
    pub(super) fn remove(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result.map_err(StoreError::io("remove", path)),
        }
    }

    /// When the file of `digest` was last written or refreshed, where it is there.
    pub(super) fn written(&self, digest: &Digest) -> Result<Option<SystemTime>> {
        aside::modified(&self.path(digest))
    }

    /// Removes the file of `digest` if it was last written or refreshed before `time`. Returns
    /// whether it has. See [`aside`].
    pub(super) fn remove_if_older_than(&self, digest: &Digest, time: SystemTime) -> Result<bool> {
        aside::remove_if_older_than(&self.root, &self.path(digest), digest, time)
    }

    /// Puts back what cleaners have put aside.
    pub(super) fn restore(&self) -> Result<()> {
        aside::restore(&self.root, |digest| self.path(digest))
    }

    /// Where the store is.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The directories that can hold digests that start with `prefix`.
    pub(super) fn shards(&self, prefix: Option<&DigestPrefix>) -> Result<BTreeSet<String>> {
        match prefix.and_then(|prefix| prefix.as_str().get(..SHARD_LEN)) {
            Some(shard) => Ok(BTreeSet::from([shard.to_owned()])),
            None => {
                let is_shard =
                    |name: &String| name.len() == SHARD_LEN && name.parse::<DigestPrefix>().is_ok();
                Ok(names_in(&self.root)?.into_iter().filter(is_shard).collect())
            }
        }
    }

    /// The digests in one directory. Names that are no digests are skipped, as SPFS does.
    pub(super) fn digests(&self, shard: &str) -> Result<Vec<Digest>> {
        let names = names_in(&self.root.join(shard))?;
        Ok(names
            .iter()
            .filter_map(|name| format!("{shard}{name}").parse().ok())
            .collect())
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &HashStore, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let (temp, file) = store.begin().unwrap();
        durable::write(&temp, &file, bytes).unwrap();
        let mode = durable::SHARED_FILE;
        store.finish(&digest, temp, file, mode, true).unwrap();
        digest
    }

    #[test]
    fn what_comes_before_others_are_published_is_not_published_with_them() {
        let root = tempfile::tempdir().unwrap();
        let store = HashStore::new(root.path().to_owned(), "object", "here".into());
        let is_there = |digest| store.size(digest).unwrap().is_some();
        let first = put(&store, b"first");
        let failed = store.publish_after(|| {
            assert!(!is_there(&first), "what has to come before it has not");
            Err(StoreError::Failed {
                location: "here".into(),
                reason: "the disk is full".into(),
            })
        });
        assert!(failed.is_err() && !is_there(&first));
        let mut second = None;
        let published = store.publish_after(|| {
            second = Some(put(&store, b"second"));
            Ok(Vec::new())
        });
        published.unwrap();
        let second = second.expect("it was put");
        assert!(is_there(&first) && !is_there(&second));
        store.publish().unwrap();
        assert!(is_there(&second));
    }
}
