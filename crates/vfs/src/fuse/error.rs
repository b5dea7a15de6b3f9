//! Why a file system cannot be mounted or unmounted, in words for the person who asked.

use std::io;
use std::path::PathBuf;

/// Why a mount cannot be made or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The kernel has no FUSE, or the container does not show it.
    #[error(
        "there is no /dev/fuse: load the kernel module 'fuse', or give the container the device"
    )]
    NoDevice,
    /// The mount point cannot be used.
    #[error("cannot mount at {}: {reason}", path.display())]
    Mountpoint {
        /// Where.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// This user cannot mount, and the program that can is missing.
    #[error(
        "mounting at {} needs to be root, or the program 'fusermount3' (package fuse3): {reason}",
        path.display()
    )]
    Unprivileged {
        /// Where.
        path: PathBuf,
        /// What was refused.
        reason: String,
    },
    /// The administrator does not let users share their mounts.
    #[error(
        "mounting at {} for other users is refused: 'user_allow_other' is not set in \
         /etc/fuse.conf; mount without sharing, or as root",
        path.display()
    )]
    SharingRefused {
        /// Where.
        path: PathBuf,
    },
    /// The kernel or `fusermount3` refused.
    #[error("mounting at {} was refused: {reason}", path.display())]
    Refused {
        /// Where.
        path: PathBuf,
        /// In its words.
        reason: String,
    },
    /// The mount is there, but the kernel and we did not come to terms.
    #[error("the mount at {} does not start", path.display())]
    Start {
        /// Where.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Serving the kernel ended by an error, not by an unmount.
    #[error("the mount at {} broke down: {reason}", path.display())]
    Broken {
        /// Where.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// Files of the mount are open, or a process works in it.
    #[error(
        "{} is in use: leave it and close what is open in it ('fuser -vm' lists who), or unmount lazily",
        path.display()
    )]
    Busy {
        /// Where.
        path: PathBuf,
    },
    /// Another file system has been mounted over ours.
    #[error("something else is mounted over {}: unmount that first", path.display())]
    Covered {
        /// Where.
        path: PathBuf,
    },
    /// Unmounting failed.
    #[error("cannot unmount {}: {reason}", path.display())]
    Unmount {
        /// Where.
        path: PathBuf,
        /// In the system's words.
        reason: String,
    },
    /// The list of mounts cannot be read.
    #[error("cannot read {}", path.display())]
    MountInfo {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
