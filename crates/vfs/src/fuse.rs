//! The only code that knows FUSE: the adapter of [`Vfs`](crate::Vfs), and a mount's life.
//!
//! The modules, bottom-up: what the kernel tells about mounts (`mountinfo`) and threads
//! (`thread_state`), how to get a connection (`fusermount`, `device`), what the kernel does by
//! itself (`readahead`, `passthrough`) and lets us do (`capability`), what is loaded before it is asked for (`ahead`), the
//! requests that wait (`watch`), the answers (`adapter`), and all of it alive: in one process
//! (`mount`), or mounted by one and served by another (`handover`).
//!
//! The library that speaks the protocol could mount by itself; we do it, because it unmounts
//! whatever lies at the path when its session ends, and that may be somebody else's mount by then.

mod error;
mod options;
mod mountinfo;
mod thread_state;
mod fusermount;
mod device;
mod unmount;
mod readahead;
mod capability;
mod passthrough;
mod ahead;
mod watch;
mod answer;
mod adapter;
mod mount;
mod handover;

pub use capability::{is_admin, is_in_first_users};
pub use error::MountError;
pub use handover::{
    Attached, Connected, attach, receive_connection, see_it_answer, serve_connection,
};
pub use mount::{Mount, Unmounter, mount};
pub use mountinfo::{FS_TYPE, MountEntry, parse as parse_mountinfo, read as read_mountinfo};
pub use options::MountOptions;
pub use unmount::{Detach, unmount_path};
