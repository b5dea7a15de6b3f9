//! What lies in a repository's directory and is nobody's: files of writers that were killed, locks
//! of processes that are gone, renders and their copies of payloads (FORMAT.md sections 4.1 and 4.5)
//! of what nothing needs.
//!
//! Only what has a place in the format is looked at; anything else in the directory is somebody's.
//! Renders that cannot be looked into, being of other users, are passed over. What of renders is taken
//! away is so in directories that are open ([`Beneath`]): root cleans those of others, too.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use farseek_object::Digest;
use nix::errno::Errno;
use uuid::Uuid;

use super::beneath::Beneath;
use super::durable::UPLOAD_PREFIX;
use super::file::names_in;
use super::lock::{self, Standing, TagLock};
use super::{durable, hold, layout, open_tree};
use crate::error::{Result, StoreError};
use crate::upkeep::{Leftover, LeftoverKind, LeftoverOptions};

/// The end of a tag stream that is being rewritten.
const WORK: &str = ".tag.work";

/// Where renders are.
const RENDERS: &str = "renders";

/// The end of a tag's lock.
const LOCK: &str = ".tag.lock";

/// How long the beginning of a payload is kept, for who may send the rest.
const UPLOAD_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// A search through one repository.
struct Search<'a> {
    options: &'a LeftoverOptions,
    found: Vec<Leftover>,
}

/// Everything of the repository `root` that can go.
pub(super) fn find(root: &Path, options: &LeftoverOptions) -> Result<Vec<Leftover>> {
    let mut search = Search {
        options,
        found: Vec::new(),
    };
    for store in [layout::objects(root), layout::payloads(root)] {
        search.unfinished(&store.join("work"), false)?;
    }
    search.tags(&layout::tags(root), 0)?;
    for path in hold::over(root)? {
        search.add(LeftoverKind::Lock, path);
    }
    let renders = root.join(RENDERS);
    for user in names_in(&renders)? {
        if !is_directory(&renders.join(&user))? {
            continue;
        }
        if let Err(error) = search.renders(&renders.join(&user)) {
            tracing::info!("the renders of {user} are passed over: {error}");
        }
    }
    search
        .found
        .sort_by(|a, b| (a.kind, &a.path).cmp(&(b.kind, &b.path)));
    Ok(search.found)
}

/// Folders of tags are not nested deeper by anybody.
const MAX_DEPTH: usize = 64;

impl Search<'_> {
    fn add(&mut self, kind: LeftoverKind, path: PathBuf) {
        let bytes = match kind {
            LeftoverKind::Render | LeftoverKind::Proxy => own_bytes(&path),
            LeftoverKind::Lock => 0,
            LeftoverKind::Unfinished => hold::size(&path),
        };
        self.found.push(Leftover { kind, path, bytes });
    }

    fn is_old(&self, metadata: &Metadata) -> bool {
        let modified = metadata.modified();
        modified.is_ok_and(|modified| modified < self.options.limit)
    }

    /// Files, or directories, of a directory of unfinished things.
    fn unfinished(&mut self, work: &Path, directories: bool) -> Result<()> {
        for name in names_in(work)? {
            let path = work.join(&name);
            // Ours and SPFS's are named so; what else is there is not looked at.
            let is_name = Uuid::try_parse(&name).is_ok() || is_upload(&name);
            let Some(metadata) = look(&path)?.filter(|_| is_name) else {
                continue;
            };
            let is_kind = metadata.is_file() || (directories && metadata.is_dir());
            let is_kept = is_upload(&name) && !is_abandoned(&metadata);
            if is_kind && !is_kept && self.is_old(&metadata) {
                self.add(LeftoverKind::Unfinished, path);
            }
        }
        Ok(())
    }

    /// Rewrites of tags that were broken off, and locks of who is gone.
    fn tags(&mut self, folder: &Path, depth: usize) -> Result<()> {
        for name in names_in(folder)? {
            let path = folder.join(&name);
            let Some(metadata) = look(&path)? else {
                continue;
            };
            if metadata.is_dir() && depth < MAX_DEPTH {
                self.tags(&path, depth + 1)?;
            }
            if !metadata.is_file() || !self.is_old(&metadata) {
                continue;
            }
            if name.ends_with(LOCK) && is_left_behind(&path)? {
                self.add(LeftoverKind::Lock, path);
            } else if let Some(tag) = name.strip_suffix(WORK) {
                let lock = folder.join(format!("{tag}{LOCK}"));
                // Whoever holds the lock is about to rename it.
                if look(&lock)?.is_none() || is_left_behind(&lock)? {
                    self.add(LeftoverKind::Unfinished, path);
                }
            }
        }
        Ok(())
    }

    fn renders(&mut self, user: &Path) -> Result<()> {
        self.unfinished(&user.join("work"), true)?;
        self.unfinished(&user.join("proxy/work"), true)?;
        for (digest, path, metadata) in sharded(user)? {
            if !(self.options.keeps)(&digest) && self.is_old(&metadata) {
                self.add(LeftoverKind::Render, path);
            }
        }
        for (digest, path, metadata) in sharded(&user.join("proxy"))? {
            let is_kept = (self.options.keeps)(&digest);
            let stays = is_kept && (self.options.keep_proxies_with_no_links || is_linked(&path)?);
            if !stays && self.is_old(&metadata) {
                self.add(LeftoverKind::Proxy, path);
            }
        }
        Ok(())
    }
}

/// The directories named by digests below `root`.
fn sharded(root: &Path) -> Result<Vec<(Digest, PathBuf, Metadata)>> {
    let mut found = Vec::new();
    for shard in names_in(root)?.iter().filter(|name| name.len() == 2) {
        if !is_directory(&root.join(shard))? {
            continue;
        }
        for name in names_in(&root.join(shard))? {
            let path = root.join(shard).join(&name);
            let digest = format!("{shard}{name}").parse::<Digest>();
            if let (Ok(digest), Some(metadata)) = (digest, look(&path)?)
                && metadata.is_dir()
            {
                found.push((digest, path, metadata));
            }
        }
    }
    Ok(found)
}

/// Whether a render has one of the copies in `proxy`: it has more names than its own and the
/// payload's, which it may be a name of.
fn is_linked(proxy: &Path) -> Result<bool> {
    for name in names_in(proxy)? {
        let Some(metadata) = look(&proxy.join(name))? else {
            continue;
        };
        // Of one that is the payload itself, two names are there without any render. Which it is
        // cannot be seen from here, so a copy with one render more may stay: the cautious side.
        if metadata.nlink() > 1 && !is_payload_alone(proxy, &metadata)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a copy is a name of its payload, and has no third.
fn is_payload_alone(proxy: &Path, copy: &Metadata) -> Result<bool> {
    // <root>/renders/<user>/proxy/<AA>/<rest>
    let mut names = proxy.iter().rev();
    let (rest, shard) = (names.next(), names.next());
    let root = proxy.ancestors().nth(5);
    let (Some(rest), Some(shard), Some(root)) = (rest, shard, root) else {
        return Ok(false);
    };
    let payload = look(&layout::payloads(root).join(shard).join(rest))?;
    Ok(payload.is_some_and(|payload| {
        (payload.dev(), payload.ino()) == (copy.dev(), copy.ino()) && copy.nlink() == 2
    }))
}

/// Whether `name` is that of the beginning of a payload.
fn is_upload(name: &str) -> bool {
    let digest = name.strip_prefix(UPLOAD_PREFIX);
    digest.is_some_and(|digest| digest.parse::<Digest>().is_ok())
}

/// Whether nobody has gone on with the beginning of a payload for long.
fn is_abandoned(upload: &Metadata) -> bool {
    let limit = SystemTime::now().checked_sub(UPLOAD_AGE);
    let modified = upload.modified().ok();
    modified
        .zip(limit)
        .is_some_and(|(modified, limit)| modified < limit)
}

fn is_left_behind(lock: &Path) -> Result<bool> {
    Ok(lock::judge(lock)?.is_some_and(|(standing, _)| standing == Standing::LeftBehind))
}

fn look(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        metadata => metadata.map(Some).map_err(StoreError::io("look at", path)),
    }
}

fn is_directory(path: &Path) -> Result<bool> {
    Ok(look(path)?.is_some_and(|found| found.is_dir()))
}

/// Bytes of the files below `path` that have no other name.
fn own_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => own_bytes(&entry.path()),
        Ok(metadata) if metadata.nlink() == 1 => metadata.len(),
        _ => 0,
    };
    entries.flatten().map(bytes).fold(0, u64::saturating_add)
}

/// Removes a leftover of the repository `root`, unless somebody has been at it since `limit`. Returns
/// whether it has.
pub(super) fn remove(root: &Path, leftover: &Leftover, limit: SystemTime) -> Result<bool> {
    let path = &leftover.path;
    let parent = path
        .parent()
        .and_then(|parent| parent.strip_prefix(root).ok());
    let name = path.file_name().unwrap_or_default();
    match parent.filter(|parent| parent.starts_with(RENDERS)) {
        Some(parent) => remove_of_renders(root, parent, name, leftover.kind, limit)
            .map_err(|error| told_of(path, error)),
        None => remove_at(path, leftover.kind, limit),
    }
}

fn remove_at(path: &Path, kind: LeftoverKind, limit: SystemTime) -> Result<bool> {
    if kind != LeftoverKind::Lock && !is_old(path, limit)? {
        return Ok(false);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match kind {
        // No two holds have one name: what was judged is what is there.
        LeftoverKind::Lock if hold::is_hold(path) => remove_file(path),
        LeftoverKind::Lock => lock::remove_stale(path),
        LeftoverKind::Unfinished => match name.strip_suffix(WORK) {
            Some(tag) => remove_rewrite(path, &path.with_file_name(format!("{tag}{LOCK}"))),
            None if is_upload(&name) => remove_upload(path),
            None if path.is_dir() && !path.is_symlink() => open_tree::remove(path),
            None => remove_file(path),
        },
        // They are in no other place.
        LeftoverKind::Render | LeftoverKind::Proxy => Ok(false),
    }
}

/// Removes `name` in the directory `parent` of renders, in `root`.
fn remove_of_renders(
    root: &Path,
    parent: &Path,
    name: &OsStr,
    kind: LeftoverKind,
    limit: SystemTime,
) -> Result<bool> {
    let directory = match Beneath::open(root, parent) {
        // Or something else is in its place by now.
        Err(error) if is_gone(&error) => return Ok(false),
        opened => opened.map_err(StoreError::io("open", root.join(parent)))?,
    };
    let path = directory.path(name);
    match kind {
        LeftoverKind::Render | LeftoverKind::Proxy if is_old(&path, limit)? => {
            let store = parent.parent().expect("it is in a shard of a store");
            remove_made(root, store, &path, limit)
        }
        LeftoverKind::Render | LeftoverKind::Proxy => Ok(false),
        LeftoverKind::Lock | LeftoverKind::Unfinished => remove_at(&path, kind, limit),
    }
}

/// A failure as a person is told it: `path` is where it is to them.
fn told_of(path: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Io { action, source, .. } => StoreError::io(action, path)(source),
        error => error,
    }
}

/// Whether there is no such directory: a link is none.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP)
    )
}

/// Removes a rewrite that was broken off, while nobody else can begin one.
fn remove_rewrite(path: &Path, lock: &Path) -> Result<bool> {
    match TagLock::acquire(lock, Duration::ZERO) {
        Ok(_lock) => remove_file(path),
        Err(StoreError::Locked { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the beginning of a payload, unless somebody is going on with it.
fn remove_upload(path: &Path) -> Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        file => file.map_err(StoreError::io("open", path))?,
    };
    match file.try_lock() {
        Ok(()) => remove_file(path),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", path)(error)),
    }
}

/// Takes a render, or the copies of a payload, out of its place at `path`, and then apart; unless
/// somebody who has found it there has made it young meanwhile, which is judged where nobody finds it
/// any more: in the work directory of its `store`, in `root`.
fn remove_made(root: &Path, store: &Path, path: &Path, limit: SystemTime) -> Result<bool> {
    let failed = |error| StoreError::io("create", root.join(store).join("work"))(error);
    let opened = Beneath::open(root, store).map_err(failed)?;
    durable::make_dirs(&opened.path("work")).map_err(failed)?;
    let work = Beneath::open(root, &store.join("work")).map_err(failed)?;
    let aside = work.path(Uuid::new_v4().to_string());
    match fs::rename(path, &aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io("remove", path)(error)),
        Ok(()) if is_old(&aside, limit)? => open_tree::remove(&aside),
        Ok(()) => put_back(&aside, path).map(|()| false),
    }
}

/// Gives what was taken away its name again, unless it has been made anew meanwhile.
fn put_back(aside: &Path, path: &Path) -> Result<()> {
    // A directory takes the place of an empty one at most, which is as good.
    match fs::rename(aside, path) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty
            ) =>
        {
            open_tree::remove(aside).map(|_| ())
        }
        result => result.map_err(StoreError::io("put back", path)),
    }
}

fn remove_file(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        removed => removed
            .map(|()| true)
            .map_err(StoreError::io("remove", path)),
    }
}

fn is_old(path: &Path, limit: SystemTime) -> Result<bool> {
    let modified = look(path)?.and_then(|metadata| metadata.modified().ok());
    Ok(modified.is_some_and(|modified| modified < limit))
}
