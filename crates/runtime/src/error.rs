//! The one error enum of this crate: each says what happened, to what, and what to do about it.

use std::io;
use std::path::PathBuf;

use farseek_object::ObjectError;
use farseek_store::StoreError;
use farseek_vfs::fuse::MountError;

use crate::users::User;

/// The result of every fallible function of this crate.
pub type Result<T, E = RuntimeError> = std::result::Result<T, E>;

/// Why a mount cannot be made, ended, or put into the background.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The mount point cannot be used.
    #[error("cannot mount at {}: {reason}", path.display())]
    Mountpoint {
        /// Where.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The user may not mount there.
    #[error("you have no permission to mount at {}", path.display())]
    Forbidden {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// One of ours is mounted there.
    #[error(
        "{} is already a mount of '{source_name}': unmount it first (farseek unmount)",
        path.display()
    )]
    AlreadyMounted {
        /// Where.
        path: PathBuf,
        /// What it is a mount of.
        source_name: String,
    },
    /// A mount is there whose server is gone.
    #[error(
        "{} is a mount whose server has died: remove it first (farseek unmount, or fusermount3 -u)",
        path.display()
    )]
    DeadMount {
        /// Where.
        path: PathBuf,
    },
    /// The file system the path leads to does not answer.
    #[error(
        "{} does not answer: the file system it is on hangs, or a mount on the way to it does",
        path.display()
    )]
    NoAnswer {
        /// The path.
        path: PathBuf,
    },
    /// The environment cannot be resolved.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The layers of the environment cannot be merged.
    #[error("the layers cannot be merged")]
    Merge(#[source] ObjectError),
    /// Mounting or unmounting failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Nothing is mounted there.
    #[error("nothing is mounted at {}", path.display())]
    NotMounted {
        /// Where.
        path: PathBuf,
    },
    /// Something is mounted there that is not ours.
    #[error("{} is a mount of type {fs_type}, not one of farseek's: it is left alone", path.display())]
    NotOurs {
        /// Where.
        path: PathBuf,
        /// The type of its file system.
        fs_type: String,
    },
    /// The mount is in use.
    #[error("{} is in use{}: end that first, or unmount lazily", path.display(), by(users))]
    Busy {
        /// Where.
        path: PathBuf,
        /// Who uses it, as far as we may see.
        users: Vec<User>,
    },
    /// A namespace cannot be made or entered.
    #[error("cannot {action}")]
    Namespace {
        /// What was tried, as a verb.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The directory of a runtime cannot be made.
    #[error("cannot make {} for the runtime", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The overlay that makes a runtime editable cannot be mounted.
    #[error("cannot make {} editable: {reason}", path.display())]
    Overlay {
        /// Where the environment is.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The overlay of renders that an environment is read from cannot be mounted.
    #[error("cannot show the renders of the layers at {}: {reason}", path.display())]
    Renders {
        /// Where the environment is to be.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A spec file cannot be used.
    #[error("cannot use the spec file {}: {reason}", path.display())]
    SpecFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A live layer cannot be shown.
    #[error("{reason}")]
    LiveLayer {
        /// Which, and why not.
        reason: String,
    },
    /// The host of a runtime does not do what it is asked.
    #[error("the runtime cannot be changed: {reason}")]
    Control {
        /// Why not.
        reason: String,
    },
    /// What the host of a runtime is asked to show is not there.
    #[error("the runtime cannot be changed: {reason}")]
    Missing {
        /// What is not.
        reason: String,
    },
    /// There is a runtime of that name.
    #[error(
        "there is a runtime '{name}' already: choose another name, or remove it first (farseek runtime remove)"
    )]
    RuntimeExists {
        /// The name.
        name: String,
    },
    /// Somebody is in the runtime of that name, or cannot be told not to be.
    #[error("somebody is still in the runtime {name}: `farseek join {name}`, or end that first")]
    Occupied {
        /// The name.
        name: String,
    },
    /// There is no runtime of that name.
    #[error("there is no runtime '{name}': `farseek runtime list` lists those there are")]
    UnknownRuntime {
        /// The name.
        name: String,
    },
    /// A runtime cannot be called so.
    #[error("'{name}' cannot be the name of a runtime: use letters, digits, '-', '_' and '.'")]
    RuntimeName {
        /// The name.
        name: String,
    },
    /// A runtime's record cannot be read or written.
    #[error("the record of the runtime '{name}' cannot be understood or written")]
    Record {
        /// The runtime.
        name: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// Something that an ended runtime has left cannot be taken away.
    #[error("cannot remove {}, which an ended runtime has left", path.display())]
    Leftover {
        /// What.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Going to the background failed.
    #[error("cannot {action}")]
    Daemon {
        /// What was tried, as a verb.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Users that a message names; the rest is counted.
const NAMED: usize = 5;

fn by(users: &[User]) -> String {
    if users.is_empty() {
        return String::new();
    }
    let named: Vec<String> = users.iter().take(NAMED).map(User::to_string).collect();
    let more = match users.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(" by {}{more}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_mount_names_its_users() {
        let users = (1..=7)
            .map(|pid| User {
                pid,
                name: "vim".to_owned(),
            })
            .collect();
        let error = RuntimeError::Busy {
            path: "/m".into(),
            users,
        };
        let text = error.to_string();
        assert!(
            text.starts_with("/m is in use by vim (1), vim (2)"),
            "{text}"
        );
        assert!(text.contains("vim (5) and 2 more"), "{text}");
        let error = RuntimeError::Busy {
            path: "/m".into(),
            users: Vec::new(),
        };
        assert!(error.to_string().starts_with("/m is in use: "));
    }
}
