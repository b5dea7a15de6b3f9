//! A merged tree fills an open directory.
//!
//! A step makes some entries of one directory, or enters one. A directory gets its mode with the
//! last step that needs it open, which is before what is below it is done: that is made by
//! descriptors of its own.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use farseek_object::{MergedTree, Node, NodeKind};
use rustix::io::Errno;

use super::directory::{Directory, finish_file};
use super::pool;
use super::proxies::Proxies;
use super::source::Bytes;
use crate::error::{Result, StoreError};
use crate::fs::FsRepository;
use crate::progress::Progress;

/// Entries that one step makes: enough to make taking it cheap, few enough for all to have work.
const ENTRIES: u32 = 32;

/// No path is longer: what is deeper nobody could open.
const PATH_MAX: usize = 4095;

/// The bits that make a program run as its owner, or as its group.
const SET_ID: u32 = 0o6000;

/// What is rendered, and how.
pub(super) struct Fill {
    /// What is rendered.
    pub(super) tree: Arc<MergedTree>,
    /// Where its payloads are.
    pub(super) bytes: Bytes,
    /// Where files are linked, and the repository whose payloads those are; otherwise they are
    /// copied.
    pub(super) links: Option<(Arc<FsRepository>, Proxies)>,
    /// The mode of the root, which no manifest has; `None` leaves it as it is.
    pub(super) root_mode: Option<u32>,
    /// Whether everything is dated as in a mount.
    pub(super) dated: bool,
    /// Whether programs may run as the user that the files are made by.
    pub(super) set_id: bool,
    /// Whether what is there makes room.
    pub(super) existing: bool,
    /// Who is told.
    pub(super) progress: Arc<dyn Progress>,
    /// Files that were linked.
    pub(super) linked: AtomicU64,
}

/// A directory that things are made in.
struct Open {
    directory: Directory,
    position: u32,
    /// Steps that need it.
    pending: AtomicUsize,
}

/// What is to be done.
enum Step {
    /// Make these, which are in the directory.
    Make(Arc<Open>, Range<u32>),
    /// Open this one, which was made in the directory.
    Enter(Arc<Open>, u32),
}

/// Fills `root` on so many threads.
///
/// # Errors
/// The first thing that cannot be made. What has been made is there.
pub(super) async fn fill(fill: Arc<Fill>, root: Directory, threads: usize) -> Result<()> {
    check_depth(&fill.tree)?;
    let first = fill.begin(root, 0)?;
    pool::run(first, threads, move |step| fill.take(step)).await
}

/// Refuses a tree whose paths nobody could use.
fn check_depth(tree: &MergedTree) -> Result<()> {
    // Breadth first: a parent comes before what is in it.
    let mut lengths: Vec<u32> = Vec::with_capacity(tree.nodes().len());
    for (position, node) in tree.nodes().iter().enumerate() {
        let above = lengths
            .get(node.parent as usize)
            .map_or(0, |above| above + 1);
        let length = above + tree.name(node).len() as u32;
        if length as usize > PATH_MAX {
            return Err(StoreError::Invalid {
                what: "environment to render",
                text: tree.path(position as u32).chars().take(60).collect(),
                reason: format!("a path in it has more than {PATH_MAX} bytes"),
            });
        }
        lengths.push(length);
    }
    Ok(())
}

impl Fill {
    /// The steps that a directory needs which was opened.
    fn begin(&self, directory: Directory, position: u32) -> Result<Vec<Step>> {
        let node = self.node(position);
        let children = node.children();
        let is_directory = |at: &u32| self.node(*at).kind() == NodeKind::Directory;
        let below = children.clone().filter(is_directory).count();
        let pieces = children.len().div_ceil(ENTRIES as usize);
        let open = Arc::new(Open {
            directory,
            position,
            pending: AtomicUsize::new(below + pieces),
        });
        if children.is_empty() {
            self.finish(&open)?;
        }
        let starts = children.clone().step_by(ENTRIES as usize);
        let piece = |start: u32| start..children.end.min(start + ENTRIES);
        Ok(starts
            .map(|start| Step::Make(Arc::clone(&open), piece(start)))
            .collect())
    }

    fn take(&self, step: Step) -> Result<Vec<Step>> {
        let (open, steps) = match step {
            Step::Make(open, children) => {
                let mut steps = Vec::new();
                for at in children {
                    self.make(&open.directory, at)?;
                    if self.node(at).kind() == NodeKind::Directory {
                        steps.push(Step::Enter(Arc::clone(&open), at));
                    }
                }
                (open, steps)
            }
            Step::Enter(open, at) => {
                let name = self.tree.name(self.node(at));
                let directory = open.directory.enter(name, self.existing)?;
                let steps = self.begin(directory, at)?;
                (open, steps)
            }
        };
        if open.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finish(&open)?;
        }
        Ok(steps)
    }

    fn finish(&self, open: &Open) -> Result<()> {
        let mode = match open.position {
            0 => self.root_mode,
            position => Some(self.node(position).mode),
        };
        // A directory that held something is somebody's.
        let is_theirs = open.position == 0 && self.existing;
        open.directory.finish(mode, self.dated && !is_theirs)
    }

    fn make(&self, directory: &Directory, at: u32) -> Result<()> {
        let node = self.node(at);
        let name = self.tree.name(node);
        match node.kind() {
            NodeKind::Directory => return directory.make(name, self.existing),
            NodeKind::Symlink => self.symlink(directory, node, name)?,
            NodeKind::File => self.file(directory, node, name)?,
        }
        let bytes = match node.kind() {
            NodeKind::File => node.size,
            _ => 0,
        };
        self.progress.stored(1, bytes);
        Ok(())
    }

    fn symlink(&self, directory: &Directory, node: &Node, name: &str) -> Result<()> {
        let target = self.bytes.target(node)?;
        let made = self.in_place(directory, name, || directory.symlink(&target, name));
        made.map_err(directory.failed("create", name))?;
        match self.dated {
            true => directory.date_symlink(name),
            false => Ok(()),
        }
    }

    fn file(&self, directory: &Directory, node: &Node, name: &str) -> Result<()> {
        if let Some((repository, proxies)) = &self.links
            && proxies.place(repository, &self.bytes, node, directory, name)?
        {
            self.linked.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let made = self.in_place(directory, name, || directory.create(name));
        let mut file = made.map_err(directory.failed("create", name))?;
        let written = self.bytes.write(node, &mut file);
        written.map_err(|failure| failure.into_error(|| directory.path_of(name)))?;
        let mode = match self.set_id {
            true => node.mode,
            false => node.mode & !SET_ID,
        };
        let finished = finish_file(&file, mode, self.dated);
        finished.map_err(directory.failed("set the mode of", name))
    }

    /// Makes `name`, where something is that makes room: once.
    fn in_place<T>(
        &self,
        directory: &Directory,
        name: &str,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match make() {
            Err(Errno::EXIST) if self.existing => {
                directory.unlink(name)?;
                make()
            }
            made => made,
        }
    }

    fn node(&self, position: u32) -> &Node {
        self.tree
            .node(position)
            .expect("it is a position of the tree")
    }
}
