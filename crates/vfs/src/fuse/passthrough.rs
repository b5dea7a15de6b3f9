//! Files that the kernel reads by itself: `FUSE_PASSTHROUGH`.
//!
//! An inode whose payload is a local file is opened with that file behind it, and the kernel no
//! longer asks us for its bytes: `read`, `mmap`, `splice` and `execve` are as fast as on the file
//! system below. The file is registered once for an inode and shared by all who have it open; it
//! is given back with the last of them. We keep no descriptor of it.
//!
//! It takes a kernel that has it (6.9) and `CAP_SYS_ADMIN` on the machine, not in a user namespace
//! only. Both are found out when the mount is made, by registering a file; without them all files
//! are opened cached. The mount takes one level of stacking, of the two the kernel allows: an
//! overlay may be put on it, and the files behind it may not lie on an overlay themselves.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use fuser::{BackingId, InitFlags, KernelConfig, ReplyOpen};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::capability;
use crate::attr::NodeId;
use crate::opens::{Mode, Opens};
use crate::xattr::KernelReads;

/// An overlay can still be put on the mount, and only plain files be behind it.
const STACK_DEPTH: u32 = 1;

/// The inodes of a mount that are open, and whether the kernel may read any by itself.
#[derive(Debug, Default)]
pub(super) struct Passthrough {
    /// Whether the kernel was asked for it, and agreed.
    agreed: AtomicBool,
    /// Set once, before the first open.
    is_on: OnceLock<bool>,
    /// Never held while anything else is locked, or while a file is registered or given back.
    opens: Mutex<Opens<BackingId>>,
    /// Whether it has been told that a file cannot be registered.
    told: AtomicBool,
}

impl Passthrough {
    /// Asks the kernel for it, where it can be of use.
    pub(super) fn negotiate(&self, config: &mut KernelConfig) {
        let offered = config.capabilities().contains(InitFlags::FUSE_PASSTHROUGH);
        if !offered || !may_register() {
            tracing::debug!(
                offered,
                "no passthrough: the kernel or our privileges lack it"
            );
            return;
        }
        let agreed = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(STACK_DEPTH).is_ok();
        self.agreed.store(agreed, Ordering::Relaxed);
    }

    /// Finds out whether a file can be registered with `connection`. Returns whether one can.
    pub(super) fn probe(&self, connection: impl AsFd) -> bool {
        *self.is_on.get_or_init(|| {
            let told = |error: &std::io::Error| tracing::info!(%error, "no passthrough");
            self.agreed.load(Ordering::Relaxed) && try_it(connection).inspect_err(told).is_ok()
        })
    }

    /// Whether it is worth while to look for a local file.
    pub(super) fn is_on(&self) -> bool {
        self.is_on.get().copied().unwrap_or(false)
    }

    /// Counts one more handle of `node`, if it is open, and gives its mode.
    pub(super) fn join(&self, node: NodeId) -> Option<Mode<BackingId>> {
        self.opens().join(node)
    }

    /// Counts a handle of `node`, with `file` behind it if that can be. Gives the mode it has.
    pub(super) fn enter(
        &self,
        node: NodeId,
        file: Option<File>,
        reply: &ReplyOpen,
    ) -> Mode<BackingId> {
        let backing = file.and_then(|file| self.register(&file, reply));
        let mode = match backing {
            Some(backing) => Mode::Backed(Arc::new(backing)),
            None => Mode::Cached,
        };
        // Of two that register a file at once, the second one's is given back with the clone, when
        // nothing is locked.
        let _unlocked = mode.clone();
        self.opens().enter(node, mode)
    }

    /// Counts one handle of `node` less.
    pub(super) fn leave(&self, node: NodeId) {
        let ended = self.opens().leave(node);
        drop(ended);
    }

    /// How the kernel reads `node`.
    pub(super) fn reads(&self, node: NodeId) -> KernelReads {
        match self.opens().mode(node) {
            _ if !self.is_on() => KernelReads::ThroughUs,
            Some(Mode::Backed(_)) => KernelReads::ByItself,
            Some(Mode::Cached) => KernelReads::ThroughUs,
            None => KernelReads::ByItselfIfLocal,
        }
    }

    fn register(&self, file: &File, reply: &ReplyOpen) -> Option<BackingId> {
        let registered = reply.open_backing(file);
        if let Err(error) = &registered
            && !self.told.swap(true, Ordering::Relaxed)
        {
            tracing::info!(%error, "a local payload cannot be passed through: it may be on an overlay");
        }
        registered.ok()
    }

    fn opens(&self) -> MutexGuard<'_, Opens<BackingId>> {
        self.opens.lock().expect("no holder of this lock panics")
    }
}

/// Registers a file in memory. It cannot be given back, and stays until the mount ends.
fn try_it(connection: impl AsFd) -> std::io::Result<()> {
    let file = memfd_create(c"farseek-probe", MFdFlags::MFD_CLOEXEC)?;
    BackingId::create_raw(connection, file).map(drop)
}

/// Whether this process has the capability that registering takes, where it counts.
fn may_register() -> bool {
    capability::is_in_first_users().is_ok_and(|first| first) && capability::is_admin()
}
