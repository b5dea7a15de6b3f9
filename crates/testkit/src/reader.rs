//! Processes that read once, in each of the ways in which a reader waits in the kernel.
//!
//! A reader that waits for a remote must die when it is killed, and how it waits decides whether
//! it can: on a page, or on a request that the kernel cannot take back. Readers are the calling
//! test binary started again: it needs a test called `reader_worker` that calls [`reader`].

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::libc;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags};

use crate::child::ChildGuard;
use crate::raw::Mapping;

const KIND: &str = "FARSEEK_READER_KIND";
const PATH: &str = "FARSEEK_READER_PATH";
const OFFSET: &str = "FARSEEK_READER_OFFSET";
const PAGE: usize = 4096;

/// How to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadKind {
    /// `pread` of a byte.
    Read,
    /// `pread` past the page cache.
    Direct,
    /// A page fault.
    Fault,
    /// A page fault of a map that is read at random: the kernel does not read ahead for it.
    RandomFault,
    /// `readlink`.
    Readlink,
    /// `execve`.
    Execute,
}

impl ReadKind {
    /// Every way.
    pub const ALL: [Self; 6] = [
        Self::Read,
        Self::Direct,
        Self::Fault,
        Self::RandomFault,
        Self::Readlink,
        Self::Execute,
    ];
}

/// A process that reads once and ends: with status 0, or with the errno as its status.
#[derive(Debug, Clone)]
pub struct Reader {
    /// How it reads.
    pub kind: ReadKind,
    /// What it reads.
    pub path: PathBuf,
    /// Where, for the kinds that read bytes of a file.
    pub offset: u64,
}

impl Reader {
    /// Starts it.
    ///
    /// # Errors
    /// The calling program cannot be started again.
    pub fn spawn(&self) -> io::Result<ChildGuard> {
        let kind = format!("{:?}", self.kind);
        let mut command = Command::new(env::current_exe()?);
        command
            .args([
                "reader_worker",
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(KIND, kind)
            .env(PATH, &self.path)
            .env(OFFSET, self.offset.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        ChildGuard::spawn(&mut command)
    }
}

/// Reads once and ends the process, where it was started to; else says that it was not.
///
/// # Panics
/// The request makes no sense.
pub fn reader() -> bool {
    let Some(kind) = env::var_os(KIND) else {
        return false;
    };
    let kind = ReadKind::ALL
        .into_iter()
        .find(|known| *kind == *format!("{known:?}"));
    let path = PathBuf::from(env::var_os(PATH).expect("a path is passed"));
    let offset = env::var(OFFSET).ok().and_then(|offset| offset.parse().ok());
    let result = read_once(
        kind.expect("a known kind"),
        &path,
        offset.expect("an offset is passed"),
    );
    let status = match result {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(255),
    };
    std::process::exit(status)
}

/// Reads one byte (a target, a program) in this process. [`ReadKind::Execute`] returns only to
/// tell why it could not.
///
/// # Errors
/// What the kernel says. A page fault that fails is no error but `SIGBUS`.
pub fn read_once(kind: ReadKind, path: &Path, offset: u64) -> io::Result<Option<u8>> {
    match kind {
        ReadKind::Read => {
            let mut byte = [0];
            let read = File::open(path)?.read_at(&mut byte, offset)?;
            Ok((read == 1).then_some(byte[0]))
        }
        ReadKind::Direct => direct(path, offset),
        ReadKind::Fault => fault(path, offset, MmapAdvise::MADV_NORMAL).map(Some),
        ReadKind::RandomFault => fault(path, offset, MmapAdvise::MADV_RANDOM).map(Some),
        ReadKind::Readlink => fs::read_link(path).map(|_| None),
        ReadKind::Execute => Err(Command::new(path).exec()),
    }
}

fn page_of(offset: u64) -> (u64, usize) {
    let within = offset % PAGE as u64;
    (
        offset - within,
        usize::try_from(within).expect("less than a page"),
    )
}

fn direct(path: &Path, offset: u64) -> io::Result<Option<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)?;
    let (start, within) = page_of(offset);
    let mut buffer = vec![0; 2 * PAGE];
    let aligned = buffer.as_ptr().align_offset(PAGE);
    let page = &mut buffer[aligned..aligned + PAGE];
    let read = file.read_at(page, start)?;
    Ok(page[..read].get(within).copied())
}

fn fault(path: &Path, offset: u64, advice: MmapAdvise) -> io::Result<u8> {
    let (start, within) = page_of(offset);
    let len = NonZeroUsize::new(PAGE).expect("a page is not empty");
    let (read, private) = (ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE);
    let mapping = Mapping::new(&File::open(path)?, start, len, read, private)?;
    mapping.advise(advice)?;
    Ok(mapping.read(within, 1)[0])
}

#[cfg(test)]
mod tests {
    use super::{ReadKind, read_once};

    #[test]
    fn every_way_of_reading_a_byte_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..20_000_u32)
            .map(|n| u8::try_from(n % 251).unwrap())
            .collect();
        std::fs::write(&path, &bytes).unwrap();
        for kind in &ReadKind::ALL[..4] {
            assert_eq!(
                read_once(*kind, &path, 12_345).unwrap(),
                Some(bytes[12_345]),
                "{kind:?}"
            );
        }
        let error = read_once(ReadKind::Execute, &path, 0).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        assert!(read_once(ReadKind::Readlink, &path, 0).is_err());
    }
}
