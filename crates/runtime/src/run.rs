//! A command in an environment: which processes there are, and how they end.
//!
//! ```text
//!   farseek run REF -- CMD            the front: one thread, becomes CMD
//!     |  starts, and is left by
//!   farseek --in-background ...       the host: serves the mount, outlives CMD
//! ```
//!
//! - The **front** starts the host, waits until it has resolved the environment, enters the
//!   host's namespace of users (there is none for root), makes a namespace of mounts, mounts
//!   there, gives the connection to the host and *executes* CMD. So CMD has the process number,
//!   the parent, the terminal, the process group and the open files that it would have had
//!   without us: signals, job control and its exit status need no passing on.
//! - The **host** is no child of CMD (it is started twice removed, in a session of its own) and is
//!   not in the namespace of mounts. When the last process in there has ended, CMD or what it left
//!   in the background, however it ended, the kernel drops the namespace with its mounts and ends
//!   the connection: that is the event the host waits for. No process is watched, counted or
//!   listed. It then removes the runtime's record and directory, and ends.
//!
//! What takes the right to mount while the runtime is used (`edit`, `reset`) is asked of the host at
//! a socket (`control`), and done by a thread of its own that enters the namespace for that long.
//! So is another environment in the place of the first (`another`).
//!
//! Killed with `SIGKILL`: of CMD, the namespace goes with its last process, as above. Of the host,
//! whoever is in the environment gets `ENOTCONN` from it, unless it is read from renders, which need
//! no host; the record and the directory are left, for the next command to remove when nobody is in
//! there any more: it knows them by a mount in the namespace, the runtime's directory onto itself. Of
//! all at once, the same: no mount is left, since the namespace is gone.
//!
//! Where the environment is to be read from renders, the host makes those, and the front mounts an
//! overlay of them over the mount, which stays for what is above: it is how the end is told.
//!
//! Deliberately absent: passing signals on, waiting for CMD, a host that looks for processes.

mod link;
mod directory;
mod inherited;
mod locked;
mod another;
mod control;
mod renders;
mod request;
mod front;
mod opening;
mod hosted;
mod host;

use std::io;

pub use control::{Request, ask};
pub use directory::STARTUP_FILE;
pub(crate) use directory::is_of_runtime;
pub use front::{Entrance, Front, Started, join};
pub use host::Host;
pub use hosted::Hosted;
pub use renders::RenderBackend;
pub use request::HostRequest;

use crate::error::RuntimeError;

fn failed(source: io::Error) -> RuntimeError {
    RuntimeError::Daemon {
        action: "serve the runtime",
        source,
    }
}
