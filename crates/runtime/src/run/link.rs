//! The sockets by which the processes of a runtime talk.
//!
//! While it starts, one between the front and the host is the host's standard output, so that a
//! host that dies is seen to have gone. A
//! message is a count of bytes and then words, each closed by a NUL.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// More than any message of ours.
const MESSAGE_MAX: u32 = 1 << 20;

/// One end of it.
#[derive(Debug)]
pub(super) struct Link(UnixStream);

impl Link {
    /// Both ends.
    pub(super) fn pair() -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self(ours), theirs))
    }

    /// A connection that was made otherwise.
    pub(super) fn over(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// The host's end.
    pub(super) fn of_stdout() -> io::Result<Self> {
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self(UnixStream::from(stdout)))
    }

    /// The socket, for a connection.
    pub(super) fn socket(&self) -> &UnixStream {
        &self.0
    }

    /// Waits until the other end has gone.
    pub(super) fn wait_for_end(&self) -> io::Result<()> {
        loop {
            let mut ends = [PollFd::new(self.0.as_fd(), PollFlags::POLLHUP)];
            match poll(&mut ends, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                result => return Ok(result.map(drop)?),
            }
        }
    }

    /// Sends one message of words without NULs.
    pub(super) fn send(&self, words: &[&[u8]]) -> io::Result<()> {
        let body: Vec<u8> = words.iter().flat_map(|w| [*w, b"\0"].concat()).collect();
        let count = u32::try_from(body.len()).map_err(io::Error::other)?;
        let mut message = count.to_le_bytes().to_vec();
        message.extend(body);
        (&self.0).write_all(&message)
    }

    /// The next message; `None` where the other end has gone.
    pub(super) fn receive(&self) -> io::Result<Option<Vec<Vec<u8>>>> {
        let mut count = [0; 4];
        match (&self.0).read_exact(&mut count) {
            Ok(()) => {}
            Err(error) if has_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        let count = u32::from_le_bytes(count);
        if count > MESSAGE_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; count as usize];
        (&self.0).read_exact(&mut body)?;
        let words = body.split_inclusive(|&byte| byte == 0);
        let words = words.map(|word| word.strip_suffix(b"\0").unwrap_or(word).to_vec());
        Ok(Some(words.collect()))
    }
}

fn has_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_as_they_were_sent() {
        let (ours, theirs) = Link::pair().unwrap();
        let theirs = Link(theirs);
        for words in [&[][..], &[b"".as_slice()], &[b"a b\n", b"", b"\xff"]] {
            theirs.send(words).unwrap();
            assert_eq!(ours.receive().unwrap().unwrap(), words);
        }
        drop(theirs);
        assert_eq!(ours.receive().unwrap(), None);
    }

    #[test]
    fn the_end_is_when_the_other_has_gone() {
        let (ours, theirs) = Link::pair().unwrap();
        Link::over(theirs.try_clone().unwrap())
            .send(&[b"a"])
            .unwrap();
        let waiting = std::thread::spawn(move || ours.wait_for_end().map(|()| ours.receive()));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!waiting.is_finished(), "a message is no end");
        drop(theirs);
        let received = waiting.join().unwrap().unwrap().unwrap();
        assert_eq!(received.unwrap(), [b"a"]);
    }

    #[test]
    fn a_message_of_nonsense_is_refused() {
        let (ours, mut theirs) = Link::pair().unwrap();
        theirs.write_all(&[0xff; 8]).unwrap();
        assert!(ours.receive().is_err());
    }
}
