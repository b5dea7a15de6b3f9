//! The walk of a directory that is to be committed: everything in it, before anything is written.
//!
//! What cannot be stored is collected with its path, so that one attempt names every problem. A
//! file's identity and times are kept as a [`Stamp`]: reading compares, and so notices a file that
//! was changed, replaced, or reached through a directory that was swapped for a link.
//!
//! In the upper directory of an overlay, the overlay's own marks are read as well.
//!
//! Deliberately absent: extended attributes, ownership, times and hard-link identity (the format
//! has no place for them).

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use farseek_object::EntryName;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use super::marks::{self, DirectoryMarks};
use crate::error::{Result, StoreError};

/// Problems that are listed; more are counted.
const MAX_PROBLEMS: usize = 20;

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    /// Bytes of the file.
    pub(super) size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of a file in the state that `metadata` describes.
    pub(super) fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What a node of the walk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NodeKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link and its target.
    Symlink(Box<str>),
    /// A whiteout: a deletion of what is below.
    Mask,
}

/// Something in the directory.
#[derive(Debug)]
pub(super) struct Node {
    /// Position of the directory that holds it; the root holds itself.
    pub(super) parent: u32,
    /// Its name; `None` for the root.
    pub(super) name: Option<EntryName>,
    /// What it is.
    pub(super) kind: NodeKind,
    /// `st_mode`.
    pub(super) mode: u32,
    /// The state it was seen in.
    pub(super) stamp: Stamp,
    /// Whether it is a directory of an overlay through which nothing below is seen.
    pub(super) opaque: bool,
}

impl Node {
    /// Bytes of its payload, if it has one.
    pub(super) fn payload_size(&self) -> u64 {
        match &self.kind {
            NodeKind::File => self.stamp.size,
            NodeKind::Symlink(target) => target.len() as u64,
            NodeKind::Directory | NodeKind::Mask => 0,
        }
    }
}

/// Everything in a directory: the root first, a directory before what it holds.
#[derive(Debug)]
pub(super) struct Scan {
    root: PathBuf,
    /// The nodes; positions are their names in this module.
    pub(super) nodes: Vec<Node>,
}

impl Scan {
    /// The path of the node at `position`.
    pub(super) fn path(&self, position: u32) -> PathBuf {
        let mut names = Vec::new();
        let mut node = &self.nodes[position as usize];
        while let Some(name) = &node.name {
            names.push(name.as_str());
            node = &self.nodes[node.parent as usize];
        }
        let mut path = self.root.clone();
        path.extend(names.iter().rev());
        path
    }

    /// The positions of all nodes of which `wanted` is true.
    pub(super) fn positions(&self, wanted: impl Fn(&NodeKind) -> bool) -> Vec<u32> {
        let all = self.nodes.iter().enumerate();
        all.filter(|(_, node)| wanted(&node.kind))
            .map(|(at, _)| at as u32)
            .collect()
    }

    /// Notices a directory in which something was added, removed or renamed since the walk.
    pub(super) fn check_directories(&self) -> Result<()> {
        for position in self.positions(|kind| *kind == NodeKind::Directory) {
            let path = self.path(position);
            let metadata = match position {
                0 => fs::metadata(&path),
                _ => fs::symlink_metadata(&path),
            };
            let metadata = metadata.map_err(StoreError::io("look at", &path))?;
            if Stamp::new(&metadata) != self.nodes[position as usize].stamp {
                return Err(changed(path));
            }
        }
        Ok(())
    }
}

/// The error for something that changed under the commit.
pub(super) fn changed(path: PathBuf) -> StoreError {
    let reason = "it changed while it was being committed: try again when it is at rest";
    StoreError::Unstorable {
        path,
        reason: reason.to_owned(),
    }
}

/// Walks `root`, leaving out the paths of `exclude`, which are relative to it. `is_upper` says
/// that it is the upper directory of an overlay.
///
/// # Errors
/// The root is not a directory that can be read, or something in it cannot be stored.
pub(super) fn walk(root: &Path, exclude: &HashSet<PathBuf>, is_upper: bool) -> Result<Scan> {
    let metadata = fs::metadata(root).map_err(StoreError::io("commit", root))?;
    if !metadata.is_dir() {
        let reason = "only a directory can be committed".to_owned();
        return Err(StoreError::Unstorable {
            path: root.to_owned(),
            reason,
        });
    }
    let node = Node {
        parent: 0,
        name: None,
        kind: NodeKind::Directory,
        mode: metadata.mode(),
        stamp: Stamp::new(&metadata),
        opaque: false,
    };
    let scan = Scan {
        root: root.to_owned(),
        nodes: vec![node],
    };
    let mut walk = Walk {
        scan,
        problems: Problems::default(),
        exclude,
        is_upper,
    };
    let mut pending = vec![(0, root.to_owned())];
    while let Some((position, path)) = pending.pop() {
        let found = walk.directory(position, &path)?;
        // Last in, first out: the first directory by name is walked next.
        pending.extend(found.into_iter().rev());
    }
    walk.problems.into_result(root)?;
    Ok(walk.scan)
}

struct Walk<'a> {
    scan: Scan,
    problems: Problems,
    exclude: &'a HashSet<PathBuf>,
    is_upper: bool,
}

impl Walk<'_> {
    /// Adds what is in the directory at `position` and returns the directories among it.
    fn directory(&mut self, position: u32, path: &Path) -> Result<Vec<(u32, PathBuf)>> {
        let entries = match fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => entries,
            Err(error) => {
                self.problems
                    .add(path.to_owned(), format!("it cannot be read: {error}"));
                return Ok(Vec::new());
            }
        };
        let mut entries: Vec<_> = entries.into_iter().map(|e| (e.file_name(), e)).collect();
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        let marks = self.marks(position, path);
        let mut directories = Vec::new();
        for (name, entry) in entries {
            let path = entry.path();
            if self.is_excluded(&path) {
                continue;
            }
            let node = entry
                .metadata()
                .map_err(|error| format!("it cannot be read: {error}"))
                .and_then(|metadata| node(position, name.to_str(), &path, &metadata))
                .and_then(|node| match self.is_upper {
                    true => as_marked(node, &path, marks),
                    false => Ok(node),
                });
            match node {
                Err(reason) => self.problems.add(path, reason),
                Ok(node) => {
                    let at = self.push(node)?;
                    if self.scan.nodes[at as usize].kind == NodeKind::Directory {
                        directories.push((at, path));
                    }
                }
            }
        }
        Ok(directories)
    }

    /// What the directory at `position` says of itself, where that has a meaning.
    fn marks(&mut self, position: u32, path: &Path) -> DirectoryMarks {
        if !self.is_upper {
            return DirectoryMarks::default();
        }
        let marks = marks::of_directory(path).unwrap_or_else(|reason| {
            self.problems.add(path.to_owned(), reason);
            DirectoryMarks::default()
        });
        self.scan.nodes[position as usize].opaque = marks.opaque;
        marks
    }

    fn is_excluded(&self, path: &Path) -> bool {
        !self.exclude.is_empty()
            && path
                .strip_prefix(&self.scan.root)
                .is_ok_and(|path| self.exclude.contains(path))
    }

    fn push(&mut self, node: Node) -> Result<u32> {
        let position = u32::try_from(self.scan.nodes.len()).map_err(|_| {
            let reason = "it holds more than four billion files".to_owned();
            StoreError::Unstorable {
                path: self.scan.root.clone(),
                reason,
            }
        })?;
        self.scan.nodes.push(node);
        Ok(position)
    }
}

/// What is at `path`, or why it cannot be stored.
fn node(parent: u32, name: Option<&str>, path: &Path, metadata: &Metadata) -> Result<Node, String> {
    let name = name.ok_or("its name is not valid UTF-8")?;
    let name = EntryName::new(name).map_err(|error| error.to_string())?;
    let kind = kind(path, metadata)?;
    Ok(Node {
        parent,
        name: Some(name),
        kind,
        mode: metadata.mode(),
        stamp: Stamp::new(metadata),
        opaque: false,
    })
}

/// What `node` is by the marks of an overlay, in a directory with the marks `within`.
fn as_marked(mut node: Node, path: &Path, within: DirectoryMarks) -> Result<Node, String> {
    if node.kind == NodeKind::File {
        marks::check_whole(path)?;
        let may_be_whiteout = within.has_file_whiteouts && node.stamp.size == 0;
        if may_be_whiteout && marks::is_whiteout(path)? {
            node.kind = NodeKind::Mask;
        }
    }
    Ok(node)
}

fn kind(path: &Path, metadata: &Metadata) -> Result<NodeKind, String> {
    let file_type = metadata.file_type();
    if file_type.is_dir() {
        return Ok(NodeKind::Directory);
    }
    if file_type.is_file() {
        return readable(path).map(|()| NodeKind::File);
    }
    if file_type.is_symlink() {
        let target = fs::read_link(path).map_err(|error| format!("it cannot be read: {error}"))?;
        let target = target.to_str().ok_or("its target is not valid UTF-8")?;
        return Ok(NodeKind::Symlink(target.into()));
    }
    if file_type.is_char_device() && metadata.rdev() == 0 {
        return Ok(NodeKind::Mask);
    }
    let what = match () {
        () if file_type.is_fifo() => "a named pipe",
        () if file_type.is_socket() => "a socket",
        () if file_type.is_block_device() => "a block device",
        () if file_type.is_char_device() => "a character device",
        () => "of an unknown type",
    };
    Err(format!("it is {what}, which cannot be stored"))
}

/// Asks before anything is written, by the ids that will open the file.
fn readable(path: &Path) -> Result<(), String> {
    faccessat(AT_FDCWD, path, AccessFlags::R_OK, AtFlags::AT_EACCESS)
        .map_err(|error| format!("it cannot be read: {}", std::io::Error::from(error)))
}

/// What cannot be stored, and why.
#[derive(Default)]
struct Problems {
    listed: Vec<(PathBuf, String)>,
    more: usize,
}

impl Problems {
    fn add(&mut self, path: PathBuf, reason: String) {
        if self.listed.len() < MAX_PROBLEMS {
            self.listed.push((path, reason));
        } else {
            self.more += 1;
        }
    }

    fn into_result(mut self, root: &Path) -> Result<()> {
        match self.listed.len() {
            0 => Ok(()),
            1 => {
                let (path, reason) = self.listed.swap_remove(0);
                Err(StoreError::Unstorable { path, reason })
            }
            listed => {
                let total = listed + self.more;
                let mut reason = format!("{total} things in it cannot be stored");
                for (path, why) in &self.listed {
                    reason.push_str(&format!("\n  {}: {why}", path.display()));
                }
                if self.more > 0 {
                    reason.push_str(&format!("\n  and {} more", self.more));
                }
                Err(StoreError::Unstorable {
                    path: root.to_owned(),
                    reason,
                })
            }
        }
    }
}
