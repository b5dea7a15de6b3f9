//! The core's values in the words of the FUSE library.

use std::time::SystemTime;

use farseek_object::NodeKind;
use fuser::{
    BackingId, Errno, FileAttr, FileHandle, FileType, FopenFlags, INodeNo, ReplyOpen, ReplyXattr,
};

use crate::attr::{Attr, NodeId};
use crate::error::{Result, VfsError};
use crate::opens::Mode;
use crate::vfs::{Handle, Vfs};

/// The node the kernel names. One it cannot name is one we never told it of.
pub(super) fn node(inode: INodeNo) -> Result<NodeId> {
    NodeId::from_inode(inode.0).ok_or(VfsError::NotFound)
}

pub(super) fn reply_opened(vfs: &Vfs, handle: Handle, mode: &Mode<BackingId>, reply: ReplyOpen) {
    let handle = FileHandle(handle.number());
    match mode {
        Mode::Cached => {
            vfs.counters().opened(false);
            let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
            reply.opened(handle, flags);
        }
        // The kernel refuses to keep the page cache as well. What it drops for that, no read
        // fills any more: those keep the inode open, and in the other mode.
        Mode::Backed(backing) => {
            vfs.counters().opened(true);
            reply.opened_passthrough(handle, FopenFlags::FOPEN_NOFLUSH, backing);
        }
    }
}

pub(super) fn fuse_errno(error: &VfsError) -> Errno {
    if matches!(
        error,
        VfsError::CorruptLink { .. } | VfsError::ShortRead { .. }
    ) {
        tracing::error!(%error, "answered EIO");
    } else if let VfsError::Read(cause) = error {
        tracing::warn!(error = %cause, "answered EIO");
    }
    Errno::from_i32(crate::errno::errno(error) as i32)
}

pub(super) fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::Directory => FileType::Directory,
        NodeKind::File => FileType::RegularFile,
        NodeKind::Symlink => FileType::Symlink,
    }
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.node.inode()),
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.time,
        mtime: attr.time,
        ctime: attr.time,
        crtime: attr.time,
        kind: file_type(attr.kind),
        perm: attr.permissions,
        nlink: attr.links,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: attr.block_size,
        flags: 0,
    }
}

/// Inode 0 means: there is no such name, and you may remember that.
pub(super) fn no_entry() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// The way of POSIX to tell a size first: with no room, only the size is told.
pub(super) fn reply_xattr(value: Result<Vec<u8>>, room: u32, reply: ReplyXattr) {
    match value {
        Err(error) => reply.error(fuse_errno(&error)),
        Ok(value) if room == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > room as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
    }
}
