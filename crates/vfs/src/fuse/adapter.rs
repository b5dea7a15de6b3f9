//! The kernel's questions turned into the core's, and its answers into replies.
//!
//! What is in memory is answered on the thread that was asked. What is not moves the reply into
//! one task: the only bridge between these threads and asynchronous code.
//!
//! Nothing ever changes, so the kernel is told to remember everything: names (also those that are
//! not there), attributes, directories, targets of links, and pages. Files are never opened with
//! `FOPEN_DIRECT_IO`, `FOPEN_STREAM` or `FOPEN_NONSEEKABLE`: each takes away something a file on
//! a disk can do.

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};
use nix::fcntl::OFlag;
use tokio::runtime::Handle as Runtime;

use super::ahead::Ahead;
use super::answer::{file_attr, file_type, fuse_errno, no_entry, node, reply_opened, reply_xattr};
use super::passthrough::Passthrough;
use super::thread_state::ThreadId;
use super::watch::{Interrupt, Watch};
use crate::attr::{Attr, NodeId, USUAL_NAME_MAX};
use crate::dir::DirCookie;
use crate::error::{Result, VfsError};
use crate::local::LocalFiles;
use crate::opens::Mode;
use crate::reading::{PendingRead, Reading};
use crate::vfs::{Handle, Seek, Vfs};
use crate::xattr::Attribute;

/// For ever, in a form no kernel's arithmetic overflows on: 68 years.
const FOREVER: Duration = Duration::from_secs(i32::MAX as u64);

/// Inode numbers are never used for a second file.
const GENERATION: Generation = Generation(0);

/// Bytes of the largest request. It bounds reads too, through the pages of a request.
const REQUEST_MAX: u32 = 1024 * 1024;

/// Requests without a waiting caller (readahead) the kernel sends at most. Each may wait for a
/// remote, so this bounds how much of a long link they can fill.
const BACKGROUND_MAX: u16 = 64;

/// The longest name the kernel takes in a directory: one longer fails the whole listing.
const NAME_MAX: usize = 1024;

/// What we ask the kernel for, each only if it is offered.
const WANTED: [InitFlags; 7] = [
    // Readers wait for pages, not for requests: they can be killed.
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
];

/// The file system as the FUSE library wants it.
pub(super) struct Adapter {
    vfs: Arc<Vfs>,
    runtime: Runtime,
    watch: Watch<ReplyData>,
    passthrough: Arc<Passthrough>,
    ahead: Ahead,
}

impl Interrupt for ReplyData {
    fn interrupt(self) {
        self.error(Errno::EINTR);
    }
}

impl Adapter {
    pub(super) fn new(
        vfs: Arc<Vfs>,
        runtime: Runtime,
        watch: Watch<ReplyData>,
        passthrough: Arc<Passthrough>,
    ) -> Self {
        Self {
            ahead: Ahead::new(runtime.clone()),
            vfs,
            runtime,
            watch,
            passthrough,
        }
    }

    /// Answers now or, from a task, later.
    fn reply_bytes(&self, request: &Request, reading: Result<Reading>, reply: ReplyData) {
        match reading {
            Ok(Reading::Ready(bytes)) => reply.data(&bytes),
            Ok(Reading::Pending(pending)) => self.wait(request, pending, reply),
            Err(error) => reply.error(fuse_errno(&error)),
        }
    }

    fn wait(&self, request: &Request, pending: PendingRead, reply: ReplyData) {
        let ticket = self.watch.wait(ThreadId::new(request.pid()), reply);
        self.runtime.spawn(async move {
            let result = pending.wait().await;
            ticket.answer(|reply| match &result {
                Ok(bytes) => reply.data(bytes),
                Err(error) => reply.error(fuse_errno(error)),
            });
        });
    }

    /// Opens `file` with a local file behind it, if there is one. To look for that is to wait.
    fn open_local(&self, local: &Arc<LocalFiles>, file: NodeId, handle: Handle, reply: ReplyOpen) {
        if let Some(mode) = self.passthrough.join(file) {
            return reply_opened(&self.vfs, handle, &mode, reply);
        }
        let (digest, size) = match self.vfs.payload(file) {
            Ok(payload) => payload,
            Err(error) => return reply.error(fuse_errno(&error)),
        };
        let look = Arc::clone(local).find(digest, size);
        let (vfs, passthrough) = (Arc::clone(&self.vfs), Arc::clone(&self.passthrough));
        self.runtime.spawn(async move {
            let found = look.await;
            let mode = passthrough.enter(file, found, &reply);
            reply_opened(&vfs, handle, &mode, reply);
        });
    }

    /// The local files that are of use to the kernel.
    fn local(&self) -> Option<&Arc<LocalFiles>> {
        self.vfs.local().filter(|_| self.passthrough.is_on())
    }

    fn lookup_attr(&self, parent: INodeNo, name: &OsStr) -> Result<Attr> {
        self.vfs.lookup(node(parent)?, name)
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let offered = config.capabilities();
        for wanted in WANTED
            .into_iter()
            .filter(|wanted| offered.contains(*wanted))
        {
            config
                .add_capabilities(wanted)
                .expect("the kernel offers it");
        }
        config
            .set_max_write(REQUEST_MAX)
            .expect("it is within the library's limit");
        config
            .set_max_background(BACKGROUND_MAX)
            .expect("it is not zero");
        if self.vfs.local().is_some() {
            self.passthrough.negotiate(config);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.lookup_attr(parent, name) {
            Ok(attr) => reply.entry(&FOREVER, &file_attr(&attr), GENERATION),
            Err(VfsError::NotFound) => reply.entry(&FOREVER, &no_entry(), GENERATION),
            Err(error) => reply.error(fuse_errno(&error)),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match node(ino).and_then(|node| self.vfs.getattr(node)) {
            Ok(attr) => reply.attr(&FOREVER, &file_attr(&attr)),
            Err(error) => reply.error(fuse_errno(&error)),
        }
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let link = node(ino);
        let reading = link.clone().and_then(|link| self.vfs.readlink(link));
        // What comes next is found out before the answer lets the caller ask for it.
        let ahead = match (&link, &reading) {
            (Ok(link), Ok(Reading::Pending(_))) => self.vfs.links_to_load_with(*link),
            _ => Vec::new(),
        };
        self.reply_bytes(request, reading, reply);
        self.ahead.load_all(ahead);
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let flags = OFlag::from_bits_truncate(flags.0);
        let opened = node(ino).and_then(|file| Ok((file, self.vfs.open(file, flags)?)));
        match (opened, self.local()) {
            (Ok((file, handle)), Some(local)) => self.open_local(local, file, handle, reply),
            (Ok((_, handle)), None) => reply_opened(&self.vfs, handle, &Mode::Cached, reply),
            (Err(error), _) => reply.error(fuse_errno(&error)),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        if let (Some(_), Ok(file)) = (self.local(), node(ino)) {
            self.passthrough.leave(file);
        }
        reply.ok();
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let range = offset..offset.saturating_add(u64::from(size));
        let handle = Handle::from_number(fh.0);
        let file = node(ino);
        let reading = file
            .clone()
            .and_then(|file| self.vfs.read(file, handle, range.clone()));
        // What comes next is found out before the answer lets the caller ask for it.
        let ahead = file.map(|file| self.vfs.files_to_load_with(file, &range));
        self.reply_bytes(request, reading, reply);
        self.ahead.load_some(ahead.unwrap_or_default());
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let seek = match whence {
            nix::libc::SEEK_DATA => Seek::Data,
            nix::libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else {
            return reply.error(Errno::ENXIO);
        };
        let handle = Handle::from_number(fh.0);
        match node(ino).and_then(|node| self.vfs.lseek(node, handle, offset, seek)) {
            Ok(position) => reply.offset(position as i64),
            Err(error) => reply.error(fuse_errno(&error)),
        }
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
        reply.opened(FileHandle(0), flags);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let cookie = DirCookie::from_number(offset);
        match node(ino).and_then(|node| self.vfs.readdir(node, cookie)) {
            Err(error) => reply.error(fuse_errno(&error)),
            Ok(entries) => {
                for entry in entries.filter(|entry| entry.name.len() <= NAME_MAX) {
                    let inode = INodeNo(entry.node.inode());
                    if reply.add(
                        inode,
                        entry.next.number(),
                        file_type(entry.kind),
                        entry.name,
                    ) {
                        break;
                    }
                }
                reply.ok();
            }
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let cookie = DirCookie::from_number(offset);
        match node(ino).and_then(|node| self.vfs.readdir(node, cookie)) {
            Err(error) => reply.error(fuse_errno(&error)),
            Ok(entries) => {
                for entry in entries.filter(|entry| entry.name.len() <= NAME_MAX) {
                    let Ok(attr) = self.vfs.getattr(entry.node) else {
                        continue;
                    };
                    let (inode, next) = (INodeNo(entry.node.inode()), entry.next.number());
                    let attr = file_attr(&attr);
                    if reply.add(inode, next, entry.name, &FOREVER, &attr, GENERATION) {
                        break;
                    }
                }
                reply.ok();
            }
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let totals = self.vfs.statfs();
        let unit = totals.block_size();
        reply.statfs(
            totals.blocks(),
            0,
            0,
            totals.nodes,
            0,
            unit,
            USUAL_NAME_MAX,
            unit,
        );
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let file = node(ino);
        let attribute = file.clone().and_then(|file| self.vfs.getxattr(file, name));
        match (attribute, file) {
            (Ok(Attribute::Known(value)), _) => reply_xattr(Ok(value), size, reply),
            (Ok(Attribute::Inquiry(inquiry)), Ok(file)) => {
                let kernel = self.passthrough.reads(file);
                self.runtime.spawn(async move {
                    reply_xattr(Ok(inquiry.answer(kernel).await), size, reply);
                });
            }
            (Err(error), _) | (_, Err(error)) => reply.error(fuse_errno(&error)),
        }
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = node(ino).and_then(|node| self.vfs.listxattr(node));
        reply_xattr(names, size, reply);
    }

    // What follows is answered without the core. `ENOSYS` tells the kernel not to ask again, and
    // it then does what is right for a file system without the operation.

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        // The kernel decides by the permission bits itself.
        reply.error(Errno::ENOSYS);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    // The mount is read-only, so the kernel refuses all of these itself, until somebody remounts
    // it writable.

    fn setattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &std::path::Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: INodeNo,
        _: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn create(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: &[u8],
        _: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }
}
