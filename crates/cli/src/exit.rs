//! What a failure means to the shell and to the person: exit codes and the one line.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use farseek_object::ObjectError;
use farseek_reader::ReadError;
use farseek_runtime::RuntimeError;
use farseek_store::StoreError;
use farseek_vfs::fuse::MountError;

/// Shown below `farseek --help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  anything not listed here
  2  wrong usage: a flag, a reference that cannot be one, the configuration
  3  not found: a tag, a digest, a path, a repository
  4  an abbreviated digest means several objects
  5  a remote cannot be reached, or stopped answering
  6  corrupt data
  7  permission denied
  8  the mount point or FUSE cannot be used
  9  busy: the mount or a tag is in use by another process
  130  interrupted";

/// What the process ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// Anything without a code of its own.
    Other = 1,
    /// A flag, a reference or the configuration is wrong.
    Usage = 2,
    /// Something asked for by name is not there.
    NotFound = 3,
    /// A name means several things.
    Ambiguous = 4,
    /// A remote does not answer.
    Unreachable = 5,
    /// Data is not what it should be.
    Corrupt = 6,
    /// The system or a remote refuses.
    Denied = 7,
    /// The mount point or FUSE cannot be used.
    MountPoint = 8,
    /// Another process holds what is needed.
    Busy = 9,
    /// The person pressed Ctrl-C.
    Interrupted = 130,
}

/// A failure that a command itself found, with its code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What to end with.
    pub(crate) code: Code,
    message: String,
}

impl Failure {
    /// A failure to be returned as an error: what happened, to what, what to do.
    pub(crate) fn error(code: Code, message: impl Into<String>) -> anyhow::Error {
        Self {
            code,
            message: message.into(),
        }
        .into()
    }

    /// Wrong usage.
    pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
        Self::error(Code::Usage, message)
    }

    /// Something that is not there.
    pub(crate) fn not_found(message: impl Into<String>) -> anyhow::Error {
        Self::error(Code::NotFound, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The reader of our standard output has gone: nothing is wrong, and nobody listens.
#[derive(Debug)]
pub(crate) struct OutputClosed;

impl fmt::Display for OutputClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the standard output is closed")
    }
}

impl std::error::Error for OutputClosed {}

/// A process we started failed, and has said why.
#[derive(Debug)]
pub(crate) struct AlreadyTold(pub(crate) u8);

impl fmt::Display for AlreadyTold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the background process ended with exit code {}", self.0)
    }
}

impl std::error::Error for AlreadyTold {}

/// What a command's result means to the shell. A failure is told here, in one line.
pub(crate) fn conclude(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    if error.is::<OutputClosed>() {
        return ExitCode::SUCCESS;
    }
    if let Some(AlreadyTold(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    // A closed standard error is nobody's loss.
    writeln!(io::stderr(), "farseek: {}", message(&error)).ok();
    ExitCode::from(code(&error) as u8)
}

/// The exit code of `error`, from the first cause that has one.
pub(crate) fn code(error: &anyhow::Error) -> Code {
    error.chain().find_map(code_of).unwrap_or(Code::Other)
}

fn code_of(cause: &(dyn std::error::Error + 'static)) -> Option<Code> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(failure.code);
    }
    if let Some(error) = store_error(cause) {
        return code_of_store(error);
    }
    if let Some(error) = cause.downcast_ref::<ReadError>() {
        return code_of_read(error);
    }
    if let Some(error) = cause.downcast_ref::<MountError>() {
        return Some(code_of_mount(error));
    }
    if let Some(error) = cause.downcast_ref::<RuntimeError>() {
        return code_of_runtime(error);
    }
    if let Some(error) = cause.downcast_ref::<ObjectError>() {
        return Some(code_of_object(error));
    }
    code_of_io(cause.downcast_ref::<io::Error>()?)
}

/// A repository's error, also where those who wait for one fetch share it.
fn store_error<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a StoreError> {
    let shared = || cause.downcast_ref::<Arc<StoreError>>().map(Arc::as_ref);
    let of_runtime = || match cause.downcast_ref::<RuntimeError>() {
        Some(RuntimeError::Store(error)) => Some(error),
        _ => None,
    };
    cause
        .downcast_ref::<StoreError>()
        .or_else(shared)
        .or_else(of_runtime)
}

/// `None` where the cause below it says more.
fn code_of_read(error: &ReadError) -> Option<Code> {
    match error {
        ReadError::Stalled { .. } => Some(Code::Unreachable),
        ReadError::Corrupt { .. } => Some(Code::Corrupt),
        _ => None,
    }
}

fn code_of_runtime(error: &RuntimeError) -> Option<Code> {
    match error {
        RuntimeError::Mount(error) => Some(code_of_mount(error)),
        RuntimeError::Busy { .. }
        | RuntimeError::RuntimeExists { .. }
        | RuntimeError::Occupied { .. } => Some(Code::Busy),
        RuntimeError::UnknownRuntime { .. } | RuntimeError::Missing { .. } => Some(Code::NotFound),
        RuntimeError::RuntimeName { .. }
        | RuntimeError::SpecFile { .. }
        | RuntimeError::LiveLayer { .. } => Some(Code::Usage),
        RuntimeError::Record { .. } => Some(Code::Corrupt),
        RuntimeError::Forbidden { .. } => Some(Code::Denied),
        RuntimeError::Mountpoint { .. }
        | RuntimeError::AlreadyMounted { .. }
        | RuntimeError::DeadMount { .. }
        | RuntimeError::NoAnswer { .. }
        | RuntimeError::NotMounted { .. }
        | RuntimeError::NotOurs { .. } => Some(Code::MountPoint),
        _ => None,
    }
}

fn code_of_mount(error: &MountError) -> Code {
    match error {
        MountError::Busy { .. } => Code::Busy,
        MountError::Unprivileged { .. } | MountError::SharingRefused { .. } => Code::Denied,
        _ => Code::MountPoint,
    }
}

fn code_of_store(error: &StoreError) -> Option<Code> {
    match error {
        StoreError::NotFound { .. }
        | StoreError::UnknownTag { .. }
        | StoreError::UnknownReference { .. } => Some(Code::NotFound),
        StoreError::Ambiguous { .. } => Some(Code::Ambiguous),
        StoreError::Unavailable { .. } => Some(Code::Unreachable),
        StoreError::Denied { .. } => Some(Code::Denied),
        StoreError::Corrupt { .. } | StoreError::Undecodable { .. } => Some(Code::Corrupt),
        StoreError::Invalid {
            what: "repository", ..
        } => Some(Code::NotFound),
        StoreError::Invalid { .. } => Some(Code::Usage),
        StoreError::Locked { .. } => Some(Code::Busy),
        StoreError::Unstorable { reason, .. } if reason.contains(REFUSED) => Some(Code::Denied),
        _ => None,
    }
}

/// The system's words where it refuses: a walk of many files tells all it found in words.
const REFUSED: &str = "Permission denied (os error 13)";

fn code_of_object(error: &ObjectError) -> Code {
    match error {
        ObjectError::InvalidDigest { .. } | ObjectError::InvalidSpec { .. } => Code::Usage,
        ObjectError::Malformed { .. } | ObjectError::WrongDigest { .. } => Code::Corrupt,
        _ => Code::Other,
    }
}

fn code_of_io(error: &io::Error) -> Option<Code> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Some(Code::Denied),
        io::ErrorKind::NotFound => Some(Code::NotFound),
        _ => None,
    }
}

/// The one line: what happened, to what, why, and what to do where we know.
pub(crate) fn message(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause
            .to_string()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        if line.is_empty() {
            line = text;
        } else if !text.is_empty() && !line.contains(&text) {
            line = format!("{line}: {text}");
        }
    }
    match error.chain().find_map(hint) {
        Some(hint) => format!("{line}; {hint}"),
        None => line,
    }
}

/// What to do about an error of the floors below, which do not know the commands.
fn hint(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    match store_error(cause)? {
        StoreError::UnknownTag { .. } | StoreError::UnknownReference { .. } => {
            Some("`farseek tags` lists the tags there are")
        }
        StoreError::Ambiguous { .. } => Some("give more characters of it"),
        StoreError::Unavailable { .. } => Some("check the address and the network, then try again"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn not_found() -> anyhow::Error {
        StoreError::UnknownReference {
            reference: "x/y".into(),
            location: "/repo".into(),
        }
        .into()
    }

    #[test]
    fn the_first_cause_with_a_code_decides() {
        let wrapped = not_found().context("cannot mount x/y");
        assert_eq!(code(&wrapped), Code::NotFound);
        assert_eq!(code(&Failure::usage("m").context("n")), Code::Usage);
        assert_eq!(code(&anyhow::anyhow!("anything")), Code::Other);
    }

    #[test]
    fn what_may_not_be_done_has_its_code() {
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        let path = "/m".into();
        let forbidden = RuntimeError::Forbidden { path, source };
        assert_eq!(code(&forbidden.into()), Code::Denied);
    }

    #[test]
    fn a_tree_that_may_not_be_read_is_denied() {
        let unstorable = |reason: &str| StoreError::Unstorable {
            path: "/tree/private".into(),
            reason: reason.to_owned(),
        };
        let denied = io::Error::from_raw_os_error(13);
        let told = unstorable(&format!("it cannot be read: {denied}"));
        assert_eq!(code(&told.into()), Code::Denied);
        assert_eq!(code(&unstorable("it is a socket").into()), Code::Other);
    }

    #[test]
    fn a_cause_is_told_once_and_in_one_line() {
        let error = Err::<(), _>(io::Error::other("no\n such thing"))
            .context("cannot open: no such thing")
            .context("cannot start")
            .unwrap_err();
        assert_eq!(message(&error), "cannot start: cannot open: no such thing");
    }

    #[test]
    fn a_hint_says_what_to_do() {
        assert_eq!(
            message(&not_found()),
            "/repo has nothing called 'x/y'; `farseek tags` lists the tags there are"
        );
    }

    #[test]
    fn every_code_is_documented() {
        let all = [
            Code::Other,
            Code::Usage,
            Code::NotFound,
            Code::Ambiguous,
            Code::Unreachable,
            Code::Corrupt,
            Code::Denied,
            Code::MountPoint,
            Code::Busy,
            Code::Interrupted,
        ];
        for code in all {
            let line = format!("\n  {}  ", code as i32);
            assert!(HELP.contains(&line), "{code:?}");
        }
    }
}
