//! Hard links of payloads, and of copies of payloads with other modes: the store of proxies
//! (FORMAT.md section 4.5).
//!
//! `proxy/<AA>/<rest>/<mode>` is a name of the payload, where that has the mode and is the user's,
//! or a copy. A copy is made in `proxy/work/`, and linked from there; it gets its name in the store
//! after it is on the disk ([`Proxies::publish`]), for whoever finds it there takes it to be whole.
//!
//! A clean may take a proxy away at any time: then it is made anew. Where the file system has no
//! more links for a file, or gives none, a copy takes its place.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use farseek_object::{Digest, Node};
use nix::unistd::geteuid;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use uuid::Uuid;

use super::directory::{Directory, finish_file};
use super::source::Bytes;
use super::{RenderOptions, RenderStrategy};
use crate::error::{Result, StoreError};
use crate::fs::{FsRepository, durable};

/// How often something that a clean has taken away is made anew.
const RETRIES: usize = 3;

/// Gives the file at a path another name in a directory.
pub(super) type Link = fn(&Path, &Directory, &str) -> Result<(), Errno>;

/// As the system does it.
pub(super) fn link(from: &Path, directory: &Directory, name: &str) -> Result<(), Errno> {
    directory.link(from, name)
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Linked,
    /// What was to be linked is not there, or not any more.
    Gone,
    /// There is no link to be had.
    Refused,
}

/// Where files are linked from.
#[derive(Debug)]
pub(super) struct Proxies {
    /// `renders/<user>/proxy`.
    root: PathBuf,
    strategy: RenderStrategy,
    share: bool,
    user: u32,
    link: Link,
    /// Copies without a place, by payload and mode. No other lock is taken while it is held.
    made: Mutex<HashMap<(Digest, u32), Uuid>>,
}

impl Proxies {
    /// Those in the directory `root`, which is made when it is missing.
    pub(super) fn new(root: PathBuf, options: &RenderOptions, link: Link) -> Result<Self> {
        let work = root.join("work");
        durable::make_dirs(&work).map_err(StoreError::io("create", work))?;
        Ok(Self {
            root,
            strategy: options.strategy,
            share: options.share_payloads,
            user: geteuid().as_raw(),
            link,
            made: Mutex::default(),
        })
    }

    /// Makes `name` in `directory` a name of the payload of `node`, with its mode. Returns whether
    /// that could be done; where not, nothing is there.
    pub(super) fn place(
        &self,
        repository: &FsRepository,
        bytes: &Bytes,
        node: &Node,
        directory: &Directory,
        name: &str,
    ) -> Result<bool> {
        for _ in 0..=RETRIES {
            let outcome = match self.strategy {
                RenderStrategy::Copy => Outcome::Refused,
                RenderStrategy::HardLinkNoProxy => {
                    self.link_payload(repository, node, directory, name)?
                }
                RenderStrategy::HardLink => {
                    match self.link_proxy(node, directory, name)? {
                        // The next round links it.
                        Outcome::Gone if self.provide(repository, bytes, node)? => continue,
                        Outcome::Gone => Outcome::Refused,
                        outcome => outcome,
                    }
                }
            };
            match outcome {
                Outcome::Linked => return Ok(true),
                Outcome::Refused => return Ok(false),
                Outcome::Gone => {}
            }
        }
        // The copy will say what is missing.
        Ok(false)
    }

    /// Links the payload itself, if it is as the file has to be.
    fn link_payload(
        &self,
        repository: &FsRepository,
        node: &Node,
        directory: &Directory,
        name: &str,
    ) -> Result<Outcome> {
        let path = repository.payload_path(&node.payload);
        match look(&path)? {
            None => Ok(Outcome::Gone),
            Some(payload) if self.is_linkable(&payload, node) => {
                self.link(&path, node, directory, name)
            }
            Some(_) => Ok(Outcome::Refused),
        }
    }

    fn link_proxy(&self, node: &Node, directory: &Directory, name: &str) -> Result<Outcome> {
        let made = self.made().get(&(node.payload, node.mode)).copied();
        let path = match made {
            Some(copy) => self.work(copy),
            None => self.path(&node.payload, node.mode),
        };
        self.link(&path, node, directory, name)
    }

    /// Links what is at `path`, and looks at what has been linked: it must be what it is taken for.
    fn link(&self, path: &Path, node: &Node, directory: &Directory, name: &str) -> Result<Outcome> {
        match (self.link)(path, directory, name) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(Outcome::Gone),
            // None left, or not for this file, or not here.
            Err(Errno::MLINK | Errno::PERM | Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return Ok(Outcome::Refused);
            }
            Err(errno) => return Err(directory.failed("create", name)(errno)),
        }
        let stat = directory.stat(name);
        let stat = stat.map_err(directory.failed("look at", name))?;
        if stat.st_mode == node.mode && stat.st_size as u64 == node.size {
            return Ok(Outcome::Linked);
        }
        let removed = directory.unlink(name);
        removed.map_err(directory.failed("remove", name))?;
        tracing::warn!("{} is damaged, and is made anew", path.display());
        match path.starts_with(&self.root) {
            true => remove(path).map(|()| Outcome::Gone),
            false => Ok(Outcome::Refused),
        }
    }

    /// Makes the proxy that is not there. Returns whether it could.
    fn provide(&self, repository: &FsRepository, bytes: &Bytes, node: &Node) -> Result<bool> {
        let payload = repository.payload_path(&node.payload);
        let is_linkable = look(&payload)?.is_some_and(|there| self.is_linkable(&there, node));
        if is_linkable {
            let path = self.path(&node.payload, node.mode);
            let shelf = path.parent().expect("it is in a directory");
            durable::make_dirs(shelf).map_err(StoreError::io("create", shelf))?;
            match fs::hard_link(&payload, &path) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(true),
                // Whatever it is, a copy can be had.
                Err(error) => tracing::debug!("{} is not linked: {error}", payload.display()),
            }
        }
        self.copy(bytes, node).map(|()| true)
    }

    /// Makes a copy, to be linked until it is published.
    fn copy(&self, bytes: &Bytes, node: &Node) -> Result<()> {
        let name = Uuid::new_v4();
        let work = Directory::open(&self.root.join("work"))?;
        let text = name.to_string();
        let mut file = work.create(&text).map_err(work.failed("create", &text))?;
        let written = bytes.write(node, &mut file);
        let written = written.map_err(|failure| failure.into_error(|| work.path_of(&text)));
        let sealed = written.and_then(|()| {
            finish_file(&file, node.mode, false).map_err(work.failed("set the mode of", &text))
        });
        // Another thread may have been faster.
        let is_first = sealed.is_ok() && {
            let mut made = self.made();
            let is_first = !made.contains_key(&(node.payload, node.mode));
            if is_first {
                made.insert((node.payload, node.mode), name);
            }
            is_first
        };
        if !is_first {
            work.unlink(&text).ok();
        }
        sealed
    }

    /// Gives the copies their places, which are on the disk by now. Those that are taken have been
    /// made by others meanwhile.
    pub(super) fn publish(&self) -> Result<()> {
        let made: Vec<_> = self.made().drain().collect();
        for ((digest, mode), copy) in made {
            let (from, to) = (self.work(copy), self.path(&digest, mode));
            let shelf = to.parent().expect("it is in a directory");
            let placed = durable::make_dirs(shelf).and_then(|()| {
                let placed =
                    rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE);
                match placed {
                    // What it may replace is equal.
                    Err(Errno::INVAL | Errno::NOSYS) => fs::rename(&from, &to),
                    placed => Ok(placed?),
                }
            });
            // The render has its own name of it: that the next one has to make it anew is no loss.
            if let Err(error) = placed {
                tracing::debug!("{} gets no place: {error}", from.display());
                fs::remove_file(&from).ok();
            }
        }
        Ok(())
    }

    /// Whether a payload is as the file `node` has to be, and may be linked: the kernel lets users
    /// link what is theirs, and another's could be changed by that user.
    fn is_linkable(&self, payload: &Metadata, node: &Node) -> bool {
        let is_ours = payload.uid() == self.user || self.share && payload.mode() & 0o004 != 0;
        is_ours && payload.mode() == node.mode && payload.len() == node.size
    }

    fn path(&self, digest: &Digest, mode: u32) -> PathBuf {
        let mut path = super::renders::sharded(&self.root, digest);
        path.push(mode.to_string());
        path
    }

    fn work(&self, copy: Uuid) -> PathBuf {
        self.root.join("work").join(copy.to_string())
    }

    fn made(&self) -> MutexGuard<'_, HashMap<(Digest, u32), Uuid>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Proxies {
    /// Removes copies that were not published.
    fn drop(&mut self) {
        let made: Vec<Uuid> = self.made().drain().map(|(_, copy)| copy).collect();
        for copy in made {
            fs::remove_file(self.work(copy)).ok();
        }
    }
}

fn look(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        metadata => metadata.map(Some).map_err(StoreError::io("look at", path)),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(StoreError::io("remove", path)),
    }
}
