//! An environment alive on a host: from a spec to a mount that answers, and to its end.
//!
//! The mount point is checked, the environment resolved and merged, the file system mounted and
//! asked a question through the kernel ([`mount()`]); then it is served until somebody unmounts
//! it or a signal comes ([`serve()`]). [`unmount()`] and [`list_mounts`] work from the kernel's
//! own list, which cannot go stale. What is used is kept from being cleaned by records
//! ([`record`]). Deliberately absent: parsing of flags, printing, kinds of repository.

pub mod daemon;
mod environment;
mod error;
mod mount;
mod mountpoint;
mod mounts;
pub mod namespace;
mod live;
pub mod specs;
mod upper;
mod private;
mod kept;
mod overlay;
mod layers;
mod patience;
mod place;
mod blocking;
mod claim;
pub mod record;
pub mod startup;
pub mod run;
mod serve;
mod unmount;
mod users;

pub use environment::load as load_environment;
pub use error::{Result, RuntimeError};
pub use farseek_vfs::fuse::Detach;
pub use farseek_vfs::{STATS_XATTR, StatsText, VfsStats};
pub use kept::remove_kept;
pub use live::{LiveBind, LiveLayer};
pub use mount::{MountRequest, MountedEnvironment, mount};
pub use mountpoint::{MountpointOptions, check as check_mountpoint};
pub use mounts::{FarseekMount, list as list_mounts};
pub use overlay::{Changes, Upper, UpperDirs};
pub use serve::{ServeOptions, serve};
pub use unmount::unmount;
pub use users::User;
