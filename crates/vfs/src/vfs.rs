//! The file system as plain questions and answers.
//!
//! Everything but bytes is answered from the merged tree, so it never waits: only
//! [`Vfs::read`] and [`Vfs::readlink`] may give a [`Reading::Pending`].
//!
//! There is no per-open state: a node is all a read needs. [`Handle`] is there for the state a
//! handle will have one day (a readahead window), and to refuse numbers we never gave out.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex};

use farseek_object::{Digest, MergedTree, Node, NodeKind};
use farseek_reader::{BlobReader, Reader};
use nix::fcntl::OFlag;

use crate::attr::{Attr, NodeId, PREFERRED_READ, Totals, USUAL_NAME_MAX};
use crate::dir::{DirCookie, DirEntries};
use crate::error::{Result, VfsError};
use crate::link_ahead::{self, LinkAhead};
use crate::local::LocalFiles;
use crate::options::VfsOptions;
use crate::reading::Reading;
use crate::stats::{Counters, VfsStats};
use crate::walk_ahead::{WalkOrder, Walks};
use crate::xattr::{self, Attribute, DIGEST_XATTR, Inquiry, Question, STATS_XATTR};

/// An open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle(u64);

impl Handle {
    /// The handle of every file, as long as handles have no state.
    const STATELESS: Self = Self(0);

    /// The handle a caller names by number.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The number to tell a caller.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// Where a seek looks for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// The next byte of data.
    Data,
    /// The next hole. There is one only at the end: where the zeros of a payload are, is not
    /// known without reading it.
    Hole,
}

/// Where all of our attributes are.
const USER_NAMESPACE: &[u8] = b"user.";

/// A merged environment as a read-only file system.
pub struct Vfs {
    tree: MergedTree,
    reader: Reader,
    options: VfsOptions,
    counters: Counters,
    totals: Totals,
    /// The directories that hold directories, in order, and how many.
    subdirectories: Box<[(u32, u32)]>,
    /// What was loaded ahead, by directory. Never held while anything else is locked.
    links: Mutex<HashMap<u32, LinkAhead>>,
    /// The order in which the tree is walked; not made where nothing is loaded ahead.
    walk_order: Option<WalkOrder>,
    /// Never held while anything else is locked.
    walks: Mutex<Walks>,
    local: Option<Arc<LocalFiles>>,
}

impl Vfs {
    /// The file system of `tree`, whose bytes `reader` gives.
    pub fn new(tree: MergedTree, reader: Reader, options: VfsOptions) -> Self {
        let totals = totals(&tree);
        let subdirectories = subdirectories(&tree);
        let walk = &options.walk;
        let walk_order = (walk.files_max > 0 && walk.bytes_max > 0)
            .then(|| WalkOrder::new(&tree, walk.small_max_bytes));
        let local = options.local.clone().map(LocalFiles::new).map(Arc::new);
        Self {
            tree,
            reader,
            options,
            counters: Counters::default(),
            totals,
            subdirectories,
            links: Mutex::default(),
            walk_order,
            walks: Mutex::default(),
            local,
        }
    }

    /// The tree it shows.
    pub fn tree(&self) -> &MergedTree {
        &self.tree
    }

    /// What gives its bytes.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The child `name` of `directory`.
    pub fn lookup(&self, directory: NodeId, name: &OsStr) -> Result<Attr> {
        self.directory(directory)?;
        let child = name
            .to_str()
            .and_then(|name| self.tree.child(directory.position(), name))
            .ok_or_else(|| absent(name))?;
        self.getattr(NodeId::new(child))
    }

    /// The attributes of `id`.
    pub fn getattr(&self, id: NodeId) -> Result<Attr> {
        let node = self.node(id)?;
        let kind = node.kind();
        let is_directory = kind == NodeKind::Directory;
        Ok(Attr {
            node: id,
            kind,
            permissions: (node.mode & 0o7777) as u16,
            size: node.size,
            blocks: if is_directory {
                0
            } else {
                node.size.div_ceil(512)
            },
            links: if is_directory {
                self.subdirectory_count(id).saturating_add(2)
            } else {
                1
            },
            uid: self.options.uid,
            gid: self.options.gid,
            time: self.options.time,
            block_size: PREFERRED_READ,
        })
    }

    /// The entries of `directory` from `cookie` on, in the order of their names.
    pub fn readdir(&self, directory: NodeId, cookie: DirCookie) -> Result<DirEntries<'_>> {
        let node = self.directory(directory)?;
        Ok(DirEntries::new(&self.tree, directory, node, cookie))
    }

    /// The target of a link.
    pub fn readlink(&self, link: NodeId) -> Result<Reading> {
        let node = self.node(link)?;
        match node.kind() {
            NodeKind::Symlink => Reading::of_link(self.open_blob(node)),
            NodeKind::Directory | NodeKind::File => Err(VfsError::Invalid),
        }
    }

    /// The links to load as well, now that the target of `link` was not in memory.
    pub fn links_to_load_with(&self, link: NodeId) -> Vec<BlobReader> {
        let Ok(node) = self.node(link) else {
            return Vec::new();
        };
        let siblings = self.tree.nodes()[node.parent as usize].children();
        let range = {
            let mut links = self.links.lock().expect("no holder of this lock panics");
            let before = links.get(&node.parent);
            let (after, range) = link_ahead::next(before, link.position(), siblings.end);
            links.insert(node.parent, after);
            range
        };
        self.tree.nodes()[range.start as usize..range.end as usize]
            .iter()
            .filter(|sibling| sibling.kind() == NodeKind::Symlink)
            .map(|sibling| self.open_blob(sibling))
            .collect()
    }

    /// The small files to load as well, now that `range` of `file` is read.
    pub fn files_to_load_with(&self, file: NodeId, range: &Range<u64>) -> Vec<BlobReader> {
        // The kernel reads a file from its start; what follows in it is not another file.
        let order = self.walk_order.as_ref().filter(|_| range.start == 0);
        let Some((order, rank)) = order.and_then(|order| Some((order, order.rank(file)?))) else {
            return Vec::new();
        };
        let node_of = |position: &u32| &self.tree.nodes()[*position as usize];
        let size = |rank: u32| node_of(&order.positions(rank..rank + 1)[0]).size;
        let ahead = {
            let mut walks = self.walks.lock().expect("no holder of this lock panics");
            walks.read(rank, &self.options.walk, order.len(), size)
        };
        let nodes = order.positions(ahead).iter().map(node_of);
        nodes.map(|node| self.open_blob(node)).collect()
    }

    /// The local files that payloads may be.
    pub(crate) fn local(&self) -> Option<&Arc<LocalFiles>> {
        self.local.as_ref()
    }

    /// The payload of a file, and its size.
    pub(crate) fn payload(&self, file: NodeId) -> Result<(Digest, u64)> {
        self.node(file).map(|node| (node.payload, node.size))
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What it has done so far.
    pub fn stats(&self) -> VfsStats {
        let walks = self.walks.lock().expect("no holder of this lock panics");
        let (files_ahead, files_ahead_wasted) = walks.counts();
        VfsStats {
            files_ahead,
            files_ahead_wasted,
            ..self.counters.snapshot()
        }
    }

    /// Opens a file for reading.
    pub fn open(&self, file: NodeId, flags: OFlag) -> Result<Handle> {
        let node = self.node(file)?;
        let changes = OFlag::O_WRONLY | OFlag::O_RDWR | OFlag::O_TRUNC | OFlag::O_CREAT;
        if flags.intersects(changes) {
            return Err(VfsError::ReadOnly);
        }
        match node.kind() {
            NodeKind::File if node.size == 0 && node.payload != Digest::EMPTY => {
                Err(VfsError::NotEmpty {
                    digest: node.payload,
                })
            }
            NodeKind::File => Ok(Handle::STATELESS),
            NodeKind::Directory => Err(VfsError::IsDirectory),
            NodeKind::Symlink => Err(VfsError::Invalid),
        }
    }

    /// Bytes of an open file: those of `range` that it has.
    pub fn read(&self, file: NodeId, handle: Handle, range: Range<u64>) -> Result<Reading> {
        let node = self.open_file(file, handle)?;
        let end = range.end.min(node.size);
        let start = range.start.min(end);
        Reading::of_file(self.open_blob(node), start..end)
    }

    /// The first position from `offset` on where there is what `seek` looks for.
    pub fn lseek(&self, file: NodeId, handle: Handle, offset: u64, seek: Seek) -> Result<u64> {
        let node = self.open_file(file, handle)?;
        match seek {
            _ if offset >= node.size => Err(VfsError::BeyondEnd),
            Seek::Data => Ok(offset),
            Seek::Hole => Ok(node.size),
        }
    }

    /// What `df` shows. Counted once, when the file system was made.
    pub fn statfs(&self) -> Totals {
        self.totals
    }

    /// An extended attribute.
    ///
    /// # Errors
    /// `ForeignAttribute` for all but `user.` names: `ls -l` asks every file for three others, and
    /// stops where it hears that there are none of them at all.
    pub fn getxattr(&self, id: NodeId, name: &OsStr) -> Result<Attribute> {
        let node = self.node(id)?;
        if !name.as_bytes().starts_with(USER_NAMESPACE) {
            return Err(VfsError::ForeignAttribute);
        }
        let text = match (node.kind(), &self.options.stats) {
            (NodeKind::Directory, Some(text)) if id == NodeId::ROOT && name == STATS_XATTR => {
                text.write(&self.stats(), &self.reader.stats())
            }
            (NodeKind::File | NodeKind::Symlink, _) if name == DIGEST_XATTR => {
                node.payload.to_string()
            }
            (NodeKind::File, _) => return self.inquire(node, name).map(Attribute::Inquiry),
            _ => return Err(VfsError::NoAttribute),
        };
        Ok(Attribute::Known(text.into_bytes()))
    }

    fn inquire(&self, file: &Node, name: &OsStr) -> Result<Inquiry> {
        let question = Question::parse(name).ok_or(VfsError::NoAttribute)?;
        Ok(Inquiry {
            question,
            blob: self.open_blob(file),
            local: self.local.clone(),
        })
    }

    /// The names of all extended attributes, each closed by a NUL.
    pub fn listxattr(&self, id: NodeId) -> Result<Vec<u8>> {
        let names: &[&str] = match self.node(id)?.kind() {
            _ if !self.options.list_xattrs => &[],
            NodeKind::Directory if id == NodeId::ROOT && self.options.stats.is_some() => {
                &[STATS_XATTR]
            }
            NodeKind::Directory => &[],
            NodeKind::File => &xattr::OF_FILES,
            NodeKind::Symlink => &[DIGEST_XATTR],
        };
        let names = names.iter().flat_map(|name| [name.as_bytes(), b"\0"]);
        Ok(names.flatten().copied().collect())
    }

    fn node(&self, id: NodeId) -> Result<&Node> {
        self.tree
            .node(id.position())
            .ok_or(VfsError::UnknownNode(id))
    }

    fn directory(&self, id: NodeId) -> Result<&Node> {
        match self.node(id)? {
            node if node.kind() == NodeKind::Directory => Ok(node),
            _ => Err(VfsError::NotDirectory),
        }
    }

    fn open_file(&self, id: NodeId, handle: Handle) -> Result<&Node> {
        let node = self.node(id)?;
        match node.kind() {
            _ if handle != Handle::STATELESS => Err(VfsError::BadHandle),
            NodeKind::File => Ok(node),
            NodeKind::Directory => Err(VfsError::IsDirectory),
            NodeKind::Symlink => Err(VfsError::Invalid),
        }
    }

    fn open_blob(&self, node: &Node) -> BlobReader {
        self.reader.open(node.payload, node.size)
    }

    fn subdirectory_count(&self, directory: NodeId) -> u32 {
        self.subdirectories
            .binary_search_by_key(&directory.position(), |(position, _)| *position)
            .map_or(0, |found| self.subdirectories[found].1)
    }
}

/// The kernel passes names on that no file system on a disk takes; programs look for its refusal.
fn absent(name: &OsStr) -> VfsError {
    match name.len() > USUAL_NAME_MAX as usize {
        true => VfsError::NameTooLong,
        false => VfsError::NotFound,
    }
}

fn totals(tree: &MergedTree) -> Totals {
    let payloads = tree
        .nodes()
        .iter()
        .filter(|node| node.kind() != NodeKind::Directory);
    let bytes = payloads.fold(0, |sum: u64, node| sum.saturating_add(node.size));
    Totals {
        bytes,
        nodes: tree.nodes().len() as u64,
    }
}

/// In breadth-first order parents only ever go up, so equal ones are neighbours.
fn subdirectories(tree: &MergedTree) -> Box<[(u32, u32)]> {
    let mut counts: Vec<(u32, u32)> = Vec::new();
    for node in tree
        .nodes()
        .iter()
        .skip(1)
        .filter(|node| node.kind() == NodeKind::Directory)
    {
        match counts.last_mut() {
            Some((parent, count)) if *parent == node.parent => *count += 1,
            _ => counts.push((node.parent, 1)),
        }
    }
    counts.into_boxed_slice()
}
