//! Mounting and unmounting without being root: the set-uid helper `fusermount3`.
//!
//! It mounts, and sends the connection back over a socket whose number it finds in its
//! environment. We give it the socket as its standard input, so no descriptor has to be leaked
//! into other children of this process.
//!
//! This is the one file of the crate with `unsafe`: the kernel hands us a descriptor by number.
#![expect(
    unsafe_code,
    reason = "a descriptor received over a socket has to be adopted"
)]

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// The names the helper goes by, newest first; the absolute ones for a `PATH` without `sbin`.
const PROGRAMS: [&str; 4] = [
    "fusermount3",
    "/usr/bin/fusermount3",
    "/bin/fusermount3",
    "fusermount",
];

/// Where the helper looks for the number of the socket.
const SOCKET_VARIABLE: &str = "_FUSE_COMMFD";

/// What the helper can fail with.
pub(super) enum HelperError {
    /// There is no such program.
    Missing,
    /// It ran and refused; in its words.
    Refused(String),
}

/// Mounts at `mountpoint` and returns the connection.
pub(super) fn mount(mountpoint: &Path, options: &str) -> Result<OwnedFd, HelperError> {
    let refused = |error: io::Error| HelperError::Refused(error.to_string());
    let (ours, theirs) = UnixStream::pair().map_err(refused)?;
    let output = run(|command| {
        let stdin = theirs.try_clone()?;
        command
            .env(SOCKET_VARIABLE, "0")
            .stdin(Stdio::from(OwnedFd::from(stdin)));
        command.args(["-o", options, "--"]).arg(mountpoint);
        Ok(())
    })?;
    drop(theirs);
    if !output.status.success() {
        return Err(HelperError::Refused(words(&output)));
    }
    match receive(&ours).map_err(refused)? {
        Some(connection) => Ok(connection),
        None => Err(HelperError::Refused(words(&output))),
    }
}

/// Unmounts what is at `mountpoint`.
pub(super) fn unmount(mountpoint: &Path, lazily: bool) -> Result<(), HelperError> {
    let output = run(|command| {
        command
            .arg("-u")
            .args(lazily.then_some("-z"))
            .arg("--")
            .arg(mountpoint);
        command.stdin(Stdio::null());
        Ok(())
    })?;
    match output.status.success() {
        true => Ok(()),
        false => Err(HelperError::Refused(words(&output))),
    }
}

/// Runs the first of the helpers there is. Messages are asked for in English: we read them.
fn run(prepare: impl Fn(&mut Command) -> io::Result<()>) -> Result<Output, HelperError> {
    for program in PROGRAMS {
        let mut command = Command::new(program);
        command
            .env("LC_ALL", "C")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let result = prepare(&mut command).and_then(|()| command.spawn());
        // The descriptors prepared for the child have to be closed here before it is waited for.
        drop(command);
        match result.and_then(std::process::Child::wait_with_output) {
            Ok(output) => return Ok(output),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(HelperError::Refused(format!("{program}: {error}"))),
        }
    }
    Err(HelperError::Missing)
}

fn words(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    match said.is_empty() {
        true => format!("fusermount3 ended with {}", output.status),
        false => said.to_owned(),
    }
}

/// The descriptor that was sent over `socket`, if one was. Does not wait: the sender has ended.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0u8];
    receive_with(socket, &mut byte, MsgFlags::MSG_DONTWAIT).map(|(_, descriptor)| descriptor)
}

/// The next message over `socket`: how much of `bytes` it filled, and the descriptor with it.
pub(super) fn receive_with(
    socket: &UnixStream,
    bytes: &mut [u8],
    flags: MsgFlags,
) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut buffers = [IoSliceMut::new(bytes)];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | flags;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(descriptor) = descriptors.first()
        {
            // SAFETY: the kernel has just installed this descriptor for us, and for nobody else:
            // the buffer has room for one, and this is the only place that looks at it.
            let descriptor = unsafe { OwnedFd::from_raw_fd(*descriptor) };
            return Ok((message.bytes, Some(descriptor)));
        }
    }
    Ok((message.bytes, None))
}
