//! Rendering: an environment as plain directories and files (FORMAT.md section 4.5).
//!
//! Two places, two ways:
//! - **A directory of somebody's** gets copies. A hard link there would be a name of the payload
//!   itself: whoever writes to the file, or changes its mode, would change the repository for
//!   everybody. Files and directories are dated as every mount dates them.
//! - **The repository's own store of renders** ([`RenderStore`]) gets hard links, for it is read
//!   through overlays alone, which copy a file before they let it be written to.
//!
//! *Confined*: everything is made by the descriptor of its parent and one name without a slash, and
//! no link is ever followed: what `openat2` would refuse with `RESOLVE_BENEATH` cannot be said. A
//! directory belongs to nobody else, mode 0700, until all that is in it is there; then it gets its
//! mode.
//!
//! One that is there already is left open to those who use it; its names are another's to give away
//! while it is filled, so it is to be in the hands of whoever renders.
//!
//! *Harmless*: a file in a directory of somebody's is no set-user-ID or set-group-ID program, unless
//! that is asked for ([`RenderOptions::set_id`]). Whoever could push it to a repository would
//! otherwise have everybody run it as the user, root, who renders. SPFS gives those bits; a mount
//! shows them and gives them no meaning.
//!
//! *Verified*: a copy is hashed as it is made. A payload that is linked is not read: whoever stored
//! it in the repository has hashed it (a commit, a copy, a promotion), and its size and mode are
//! compared.
//!
//! *Bounded*: so many threads, a buffer each, and descriptors for the directories on the way down.
//! Memory: the merged tree, and a digest for each payload that a store of renders had to copy.
//!
//! Deliberately absent: ownership, extended attributes, masks (what they hide is not rendered).

mod directory;
mod source;
mod proxies;
mod pool;
mod fill;
mod target;
mod renders;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use farseek_object::{MergedTree, NodeKind};

pub use renders::{RenderStore, Rendered};
pub use source::RenderSource;
pub use target::render_directory;

use crate::progress::Progress;

/// How files come into a store of renders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RenderStrategy {
    /// As hard links of one copy for each payload and mode, which is the payload itself where that
    /// has the mode and is the user's.
    #[default]
    HardLink,
    /// As hard links of payloads that have the mode and are the user's, otherwise as copies.
    HardLinkNoProxy,
    /// As copies.
    Copy,
}

/// How an environment is rendered.
#[derive(Debug, Clone, Copy)]
pub struct RenderOptions {
    /// How files come into a store of renders; a directory of somebody's gets copies.
    pub strategy: RenderStrategy,
    /// Files in flight at once; each has a thread and a buffer.
    pub concurrency: usize,
    /// Whether the directory may hold something already: what the environment has as well is
    /// replaced, everything else stays.
    pub allow_existing: bool,
    /// Whether files in a directory of somebody's may be set-user-ID and set-group-ID programs, which
    /// run as the user who renders.
    pub set_id: bool,
    /// Whether another user's payloads are linked, where everybody may read them.
    pub share_payloads: bool,
}

impl Default for RenderOptions {
    fn default() -> Self {
        // Twice the processors: while one file waits for the disk another is hashed.
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            strategy: RenderStrategy::default(),
            concurrency: (2 * processors).clamp(4, 16),
            allow_existing: false,
            set_id: false,
            share_payloads: false,
        }
    }
}

/// What was rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RenderSummary {
    /// Regular files.
    pub files: u64,
    /// Directories, without the root.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files that are hard links.
    pub linked: u64,
}

impl RenderSummary {
    /// What `tree` holds, none of it linked.
    fn of(tree: &MergedTree) -> Self {
        let mut summary = Self::default();
        for node in tree.nodes().iter().skip(1) {
            match node.kind() {
                NodeKind::Directory => summary.directories += 1,
                NodeKind::Symlink => summary.symlinks += 1,
                NodeKind::File => {
                    summary.files += 1;
                    summary.bytes = summary.bytes.saturating_add(node.size);
                }
            }
        }
        summary
    }

    /// This and `other` together.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            files: self.files + other.files,
            directories: self.directories + other.directories,
            symlinks: self.symlinks + other.symlinks,
            bytes: self.bytes.saturating_add(other.bytes),
            linked: self.linked + other.linked,
        }
    }

    fn announce(&self, progress: &Arc<dyn Progress>) {
        progress.found(self.files + self.symlinks, self.bytes);
    }
}
