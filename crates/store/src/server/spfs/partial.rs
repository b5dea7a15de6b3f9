//! Uploads that broke off, kept to be gone on with: one file each, named by the payload's digest.
//!
//! Whoever has the payload goes on where another stopped, for its name says what it has to be; and
//! nothing becomes a payload before all of it is hashed and is what its name says. The state of the
//! hash is kept with the file while the server runs, and counts while the file is as it was left;
//! otherwise it is taken from the file once, for another server may be at it as well.
//!
//! Bounded: how many there are, how many bytes they have or are going to have, how old. A file is locked while it is written, so
//! two who send the same payload do not meet: the second one sends it as a whole, elsewhere. A file
//! that is lost or damaged costs sending it again, and nothing else: one that nobody has gone on with
//! for a day goes with the next upload, or the next clean of the repository.

use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use farseek_object::{Digest, Hasher};

use crate::error::{Result, StoreError};
use crate::fs::durable::{self, UPLOAD_PREFIX};

/// Bytes that are read at a time.
const BATCH: usize = 1 << 20;

/// Where uploads that broke off are kept, and how many.
#[derive(Debug, Clone)]
pub struct PartialUploads {
    /// In the file system of a repository on disk, which takes the files over.
    pub directory: PathBuf,
    /// Files at once.
    pub most: usize,
    /// Bytes of all of them.
    pub most_bytes: u64,
    /// How long one that nobody goes on with is kept.
    pub age: Duration,
}

impl PartialUploads {
    /// In `directory`: up to 64 of them, 64 GiB in all, for a day.
    pub fn in_directory(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            most: 64,
            most_bytes: 64 << 30,
            age: Duration::from_secs(86_400),
        }
    }
}

/// The uploads that broke off.
#[derive(Debug)]
pub(super) struct Partials {
    options: PartialUploads,
    /// The hash of a file that looks so. Nothing is done while it is held.
    hashed: Mutex<HashMap<Digest, (Looks, Hasher)>>,
    /// How many bytes those will have that are going on here. Nothing is done while it is held.
    going_on: Mutex<HashMap<Digest, u64>>,
    /// Held by who looks whether there is room, until it has taken it.
    admission: Mutex<()>,
}

/// What tells whether a file is the one that was left, and as it was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Looks {
    length: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Looks {
    fn of(metadata: &Metadata) -> Self {
        Self {
            length: metadata.len(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What becomes of one who wants to go on.
pub(super) enum Begun {
    /// It may.
    Open(Partial),
    /// So many bytes are there, which is not where it wants to go on.
    At(u64),
    /// Somebody else does, or there is no room.
    Elsewhere,
}

/// The room of an upload that is going on, or about to.
struct Room {
    partials: Arc<Partials>,
    digest: Digest,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.partials.going_on().remove(&self.digest);
    }
}

/// An upload that is going on. What has been written stays when it is dropped.
pub(super) struct Partial {
    partials: Arc<Partials>,
    digest: Digest,
    path: PathBuf,
    file: File,
    length: u64,
    /// How much of it is hashed: all, or less while the rest is being written.
    hashed: u64,
    hasher: Hasher,
    /// Nothing where somebody only looks.
    room: Option<Box<Room>>,
}

impl Partials {
    pub(super) fn new(options: PartialUploads) -> Arc<Self> {
        Arc::new(Self {
            options,
            hashed: Mutex::default(),
            going_on: Mutex::default(),
            admission: Mutex::default(),
        })
    }

    fn going_on(&self) -> MutexGuard<'_, HashMap<Digest, u64>> {
        self.going_on.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hashed(&self) -> MutexGuard<'_, HashMap<Digest, (Looks, Hasher)>> {
        self.hashed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.options
            .directory
            .join(format!("{UPLOAD_PREFIX}{digest}"))
    }

    /// Where to go on with `digest`; `None` where somebody does already. What is there is hashed,
    /// so that who goes on need not wait for that.
    pub(super) fn begun(self: &Arc<Self>, digest: &Digest) -> Result<Option<u64>> {
        if !self.path(digest).exists() {
            return Ok(Some(0));
        }
        Ok(self.open(digest)?.map(|partial| partial.length))
    }

    /// Goes on with `digest`, of `size` bytes, after `start` of them.
    pub(super) fn go_on(self: &Arc<Self>, digest: &Digest, size: u64, start: u64) -> Result<Begun> {
        let Some(room) = self.room(digest, size)? else {
            return Ok(Begun::Elsewhere);
        };
        let Some(mut partial) = self.open(digest)? else {
            return Ok(Begun::Elsewhere);
        };
        partial.room = Some(Box::new(room));
        if partial.length > size {
            partial.restart()?;
        }
        if partial.length != start {
            return Ok(Begun::At(partial.length));
        }
        Ok(Begun::Open(partial))
    }

    /// Takes room for `digest`; `None` where there is none, or somebody has taken it.
    fn room(self: &Arc<Self>, digest: &Digest, size: u64) -> Result<Option<Room>> {
        let _turn = self
            .admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.going_on().contains_key(digest) || !self.make_room(digest, size)? {
            return Ok(None);
        }
        self.going_on().insert(*digest, size);
        Ok(Some(Room {
            partials: Arc::clone(self),
            digest: *digest,
        }))
    }

    /// Opens the file of `digest`, which may be new, and locks it; `None` where it is locked.
    fn open(self: &Arc<Self>, digest: &Digest) -> Result<Option<Partial>> {
        let path = self.path(digest);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("create", &path))?;
        if !lock(&path, &file)? {
            return Ok(None);
        }
        let metadata = file.metadata().map_err(StoreError::io("look at", &path))?;
        let (length, looks) = (metadata.len(), Looks::of(&metadata));
        let known = self.hashed().remove(digest);
        let known = known.filter(|(left, _)| *left == looks);
        let (hashed, hasher) = known.map_or_else(Default::default, |(_, hasher)| (length, hasher));
        let mut partial = Partial {
            partials: Arc::clone(self),
            digest: *digest,
            path,
            file,
            length,
            hashed,
            hasher,
            room: None,
        };
        partial.hash()?;
        Ok(Some(partial))
    }

    /// Removes what is too old, and the oldest where there are too many. Returns whether `digest`, of
    /// `size` bytes, has room beside the others then.
    fn make_room(&self, digest: &Digest, size: u64) -> Result<bool> {
        let mut found = self.found()?;
        found.retain(|found| found.digest != Some(*digest));
        found.sort_by_key(|found| found.written);
        let limit = SystemTime::now().checked_sub(self.options.age);
        // Those that are going on take all the room they have asked for, begun or not.
        let going_on = self.going_on().clone();
        let is_going_on = |found: &Found| found.digest.is_some_and(|d| going_on.contains_key(&d));
        found.retain(|found| !is_going_on(found));
        let mut left = found.len() + going_on.len();
        let found_bytes = found.iter().map(|found| found.bytes);
        let mut bytes: u64 = found_bytes.chain(going_on.values().copied()).sum();
        for old in &found {
            let expired = limit.is_some_and(|limit| old.written < limit);
            let fits = left < self.options.most && self.fits(bytes, size);
            if fits && !expired {
                break;
            }
            if remove_unlocked(&old.path)? {
                left -= 1;
                bytes -= old.bytes;
            }
        }
        Ok(left < self.options.most && self.fits(bytes, size))
    }

    fn fits(&self, bytes: u64, size: u64) -> bool {
        bytes
            .checked_add(size)
            .is_some_and(|bytes| bytes <= self.options.most_bytes)
    }

    fn found(&self) -> Result<Vec<Found>> {
        let directory = &self.options.directory;
        durable::make_dirs(directory).map_err(StoreError::io("create", directory))?;
        let entries = fs::read_dir(directory).map_err(StoreError::io("list", directory))?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StoreError::io("list", directory))?;
            if !entry
                .file_name()
                .to_string_lossy()
                .starts_with(UPLOAD_PREFIX)
            {
                continue;
            }
            // One that is gone meanwhile takes no room.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let name = entry.file_name();
            let digest = name
                .to_str()
                .and_then(|name| name.strip_prefix(UPLOAD_PREFIX));
            let digest = digest.and_then(|digest| digest.parse::<Digest>().ok());
            found.push(Found {
                digest,
                path: entry.path(),
                bytes: metadata.len(),
                written: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            });
        }
        Ok(found)
    }
}

struct Found {
    /// What it is to be, where its name says so.
    digest: Option<Digest>,
    path: PathBuf,
    bytes: u64,
    written: SystemTime,
}

/// Locks `file`, and returns whether it is ours and still the one at `path`.
fn lock(path: &Path, file: &File) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", path)(error)),
    }
    let ours = file.metadata().map_err(StoreError::io("look at", path))?;
    Ok(fs::metadata(path).is_ok_and(|there| there.ino() == ours.ino()))
}

/// Removes the file at `path` unless somebody writes it.
fn remove_unlocked(path: &Path) -> Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        file => file.map_err(StoreError::io("open", path))?,
    };
    if !lock(path, &file)? {
        return Ok(false);
    }
    fs::remove_file(path).map_err(StoreError::io("remove", path))?;
    Ok(true)
}

impl Partial {
    /// Hashes what is there and is not hashed yet.
    fn hash(&mut self) -> Result<()> {
        let failed = || StoreError::io("read", &self.path);
        let start = SeekFrom::Start(self.hashed);
        (&self.file).seek(start).map_err(failed())?;
        let mut buffer = vec![0; BATCH];
        loop {
            let read = (&self.file).read(&mut buffer).map_err(failed())?;
            if read == 0 {
                self.length = self.hashed;
                return Ok(());
            }
            self.hasher.update(&buffer[..read]);
            self.hashed += read as u64;
        }
    }

    fn restart(&mut self) -> Result<()> {
        let failed = || StoreError::io("write", &self.path);
        self.file.set_len(0).map_err(failed())?;
        (&self.file).seek(SeekFrom::Start(0)).map_err(failed())?;
        (self.length, self.hashed, self.hasher) = (0, 0, Hasher::new());
        Ok(())
    }

    /// What it is to be.
    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Bytes that are there.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The file it is in, and where that is.
    pub(super) fn file(&self) -> (&File, &Path) {
        (&self.file, &self.path)
    }

    /// Adds bytes. Whoever hashes them meanwhile says so [afterwards](Self::hashed).
    pub(super) fn write(&mut self, pieces: &[Bytes]) -> Result<()> {
        for piece in pieces {
            if let Err(error) = self.file.write_all(piece) {
                // A part of it may be there.
                let _ = self.file.set_len(self.length);
                return Err(StoreError::io("write", &self.path)(error));
            }
            self.length += piece.len() as u64;
        }
        Ok(())
    }

    /// The hash of what is there, to which that of what is added next is added elsewhere.
    pub(super) fn hasher(&self) -> Hasher {
        debug_assert_eq!(self.hashed, self.length, "nothing is left out");
        self.hasher.clone()
    }

    /// Takes the hash of all that is there.
    pub(super) fn hashed(&mut self, hasher: Hasher) {
        (self.hashed, self.hasher) = (self.length, hasher);
    }

    /// Where the complete payload is; `None` where it is not what it is named, and gone.
    pub(super) fn complete(&mut self) -> Result<Option<PathBuf>> {
        if self.hashed != self.length {
            self.hash()?;
        }
        if self.hasher.clone().finish() == self.digest {
            return Ok(Some(self.path.clone()));
        }
        fs::remove_file(&self.path).map_err(StoreError::io("remove", &self.path))?;
        Ok(None)
    }

    /// Throws away what is there: what the disk has of it is not known.
    pub(super) fn throw_away(&self) {
        let _ = fs::remove_file(&self.path);
    }

    /// Keeps the hash of what is there, where it is that of all, while there are not more than there
    /// may be.
    fn remember(&self) {
        // The file has our lock: nobody has changed it since.
        let Ok(metadata) = self.file.metadata() else {
            return;
        };
        let is_all = self.hashed == self.length && metadata.len() == self.length;
        if self.length == 0 || !is_all || !self.path.exists() {
            return;
        }
        let mut hashed = self.partials.hashed();
        if hashed.len() >= self.partials.options.most {
            hashed.clear();
        }
        let looks = Looks::of(&metadata);
        hashed.insert(self.digest, (looks, self.hasher.clone()));
    }
}

impl Drop for Partial {
    /// What is written stays, for who goes on with it.
    fn drop(&mut self) {
        self.remember();
        // Whoever sends it to the disk still has a descriptor of the file, and with it the lock.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;

    use tempfile::TempDir;

    use super::*;

    fn partials(most: usize, most_bytes: u64) -> (TempDir, Arc<Partials>) {
        let directory = tempfile::tempdir().unwrap();
        let options = PartialUploads {
            most,
            most_bytes,
            ..PartialUploads::in_directory(directory.path())
        };
        (directory, Partials::new(options))
    }

    fn begin(partials: &Arc<Partials>, bytes: &[u8], size: u64) -> Option<Partial> {
        match partials.go_on(&Digest::of(bytes), size, 0).unwrap() {
            Begun::Open(partial) => Some(partial),
            Begun::At(_) | Begun::Elsewhere => None,
        }
    }

    fn write(partial: &mut Partial, bytes: &'static [u8]) {
        partial.write(&[Bytes::from_static(bytes)]).unwrap();
    }

    #[test]
    fn what_broke_off_goes_on_here_and_in_the_next_server() {
        let (directory, first) = partials(4, 100);
        let digest = Digest::of(b"one two three");
        write(&mut begin(&first, b"one two three", 13).unwrap(), b"one ");
        assert_eq!(first.begun(&digest).unwrap(), Some(4));
        assert!(matches!(first.go_on(&digest, 13, 3).unwrap(), Begun::At(4)));
        let Begun::Open(mut partial) = first.go_on(&digest, 13, 4).unwrap() else {
            panic!("it goes on");
        };
        write(&mut partial, b"two ");
        assert_eq!(first.begun(&digest).unwrap(), None, "somebody writes it");
        assert!(matches!(
            first.go_on(&digest, 13, 8).unwrap(),
            Begun::Elsewhere
        ));
        drop(partial);
        let next = Partials::new(PartialUploads::in_directory(directory.path()));
        let Begun::Open(mut partial) = next.go_on(&digest, 13, 8).unwrap() else {
            panic!("it goes on");
        };
        write(&mut partial, b"three");
        let path = partial.complete().unwrap().unwrap();
        assert_eq!(fs::read(path).unwrap(), b"one two three");
    }

    #[test]
    fn a_hash_counts_for_all_that_is_there() {
        let (_directory, partials) = partials(4, 100);
        let digest = Digest::of(b"one two");
        let mut partial = begin(&partials, b"one two", 7).unwrap();
        write(&mut partial, b"one ");
        // As a write that fails midway may leave it.
        let mut there = OpenOptions::new().append(true).open(&partial.path).unwrap();
        there.write_all(b"xx").unwrap();
        drop(partial);
        let Begun::Open(partial) = partials.go_on(&digest, 7, 6).unwrap() else {
            panic!("it goes on");
        };
        assert_eq!(partial.hasher().finish(), Digest::of(b"one xx"));
    }

    #[test]
    fn what_another_server_has_made_of_it_is_hashed_anew() {
        let (directory, first) = partials(4, 100);
        let digest = Digest::of(b"one two");
        write(&mut begin(&first, b"one two", 7).unwrap(), b"one ");
        let next = Partials::new(PartialUploads::in_directory(directory.path()));
        let Begun::Open(mut partial) = next.go_on(&digest, 7, 4).unwrap() else {
            panic!("it goes on");
        };
        // As long as it was, and something else.
        partial.restart().unwrap();
        write(&mut partial, b"two!");
        drop(partial);
        let Begun::Open(mut partial) = first.go_on(&digest, 7, 4).unwrap() else {
            panic!("it goes on");
        };
        write(&mut partial, b"two");
        assert_eq!(
            partial.complete().unwrap(),
            None,
            "it is not what it is named"
        );
    }

    #[test]
    fn what_is_not_what_it_is_named_is_gone() {
        let (directory, partials) = partials(4, 100);
        let mut partial = begin(&partials, b"right", 5).unwrap();
        write(&mut partial, b"wrong");
        assert_eq!(partial.complete().unwrap(), None);
        drop(partial);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert_eq!(partials.begun(&Digest::of(b"right")).unwrap(), Some(0));
    }

    #[test]
    fn there_are_no_more_than_there_may_be() {
        let (directory, partials) = partials(2, 100);
        assert!(begin(&partials, b"large", 101).is_none());
        for (name, age) in [(&b"a"[..], 10), (b"b", 20)] {
            let mut partial = begin(&partials, name, 30).unwrap();
            write(&mut partial, b"0123456789");
            let written = SystemTime::now() - Duration::from_secs(age);
            let times = FileTimes::new().set_modified(written);
            partial.file.set_times(times).unwrap();
        }
        // The oldest makes room, for the number as for the bytes.
        write(&mut begin(&partials, b"c", 30).unwrap(), b"0123456789");
        let left = |name: &[u8]| partials.path(&Digest::of(name)).exists();
        assert!(left(b"a") && !left(b"b") && left(b"c"));
        let busy = begin(&partials, b"d", 85).unwrap();
        assert!(!left(b"a"));
        // Who is writing is left alone, and all that it is going to write counts.
        assert!(begin(&partials, b"e", 16).is_none());
        assert!(!left(b"c") && left(b"d"));
        assert!(begin(&partials, b"f", 15).is_some());
        drop(busy);
        assert!(begin(&partials, b"g", 95).is_some());
        let old = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
        for entry in fs::read_dir(directory.path()).unwrap() {
            let file = File::open(entry.unwrap().path()).unwrap();
            file.set_times(old).unwrap();
        }
        assert!(partials.make_room(&Digest::of(b"h"), 1).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn of_two_who_begin_at_once_one_gets_the_last_room() {
        let (_directory, partials) = partials(4, 100);
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        // Nothing of it is in the directory yet.
        let room = partials.room(&one, 60).unwrap().unwrap();
        assert!(partials.room(&two, 60).unwrap().is_none());
        assert!(partials.room(&one, 60).unwrap().is_none(), "it is taken");
        // Who only looks takes it from nobody.
        fs::write(partials.path(&one), b"on").unwrap();
        assert_eq!(partials.begun(&one).unwrap(), Some(2));
        assert!(partials.room(&two, 60).unwrap().is_none());
        drop(room);
        assert!(partials.room(&two, 60).unwrap().is_some());
    }
}
