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
use std::sync::Mutex;

use farseek_object::{MergedTree, Node, NodeKind};
use farseek_reader::{BlobReader, Reader};
use nix::fcntl::OFlag;

use crate::attr::{Attr, NodeId, PREFERRED_READ, Totals, USUAL_NAME_MAX, VfsOptions};
use crate::dir::{DirCookie, DirEntries};
use crate::error::{Result, VfsError};
use crate::link_ahead::{self, LinkAhead};
use crate::reading::Reading;

/// The extended attribute that names a file's payload.
pub const DIGEST_XATTR: &str = "user.farseek.digest";

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

/// A merged environment as a read-only file system.
pub struct Vfs {
    tree: MergedTree,
    reader: Reader,
    options: VfsOptions,
    totals: Totals,
    /// The directories that hold directories, in order, and how many.
    subdirectories: Box<[(u32, u32)]>,
    /// What was loaded ahead, by directory. Never held while anything else is locked.
    links: Mutex<HashMap<u32, LinkAhead>>,
}

impl Vfs {
    /// The file system of `tree`, whose bytes `reader` gives.
    pub fn new(tree: MergedTree, reader: Reader, options: VfsOptions) -> Self {
        let totals = totals(&tree);
        let subdirectories = subdirectories(&tree);
        Self {
            tree,
            reader,
            options,
            totals,
            subdirectories,
            links: Mutex::default(),
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

    /// Opens a file for reading.
    pub fn open(&self, file: NodeId, flags: OFlag) -> Result<Handle> {
        let node = self.node(file)?;
        let changes = OFlag::O_WRONLY | OFlag::O_RDWR | OFlag::O_TRUNC | OFlag::O_CREAT;
        if flags.intersects(changes) {
            return Err(VfsError::ReadOnly);
        }
        match node.kind() {
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

    /// The value of an extended attribute.
    pub fn getxattr(&self, id: NodeId, name: &OsStr) -> Result<Vec<u8>> {
        let node = self.node(id)?;
        if node.kind() == NodeKind::Directory || name != DIGEST_XATTR {
            return Err(VfsError::NoAttribute);
        }
        Ok(node.payload.to_string().into_bytes())
    }

    /// The names of all extended attributes, each closed by a NUL.
    pub fn listxattr(&self, id: NodeId) -> Result<Vec<u8>> {
        match self.node(id)?.kind() {
            NodeKind::Directory => Ok(Vec::new()),
            NodeKind::File | NodeKind::Symlink => Ok(format!("{DIGEST_XATTR}\0").into_bytes()),
        }
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
