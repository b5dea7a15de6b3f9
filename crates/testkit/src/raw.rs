//! Memory maps and raw directory reads: what the safe libraries do not offer.
#![expect(
    unsafe_code,
    reason = "mmap and getdents64 have no safe form; all of it is here"
)]

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};

/// A mapping of a file. The file may change or fail under it: bytes only ever leave it by copy.
pub(crate) struct Mapping {
    start: NonNull<libc::c_void>,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes of `file` at `offset`, a multiple of the page size.
    pub(crate) fn new(
        file: &File,
        offset: u64,
        len: NonZeroUsize,
        protection: ProtFlags,
        flags: MapFlags,
    ) -> nix::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        // SAFETY: the kernel chooses the place, so that nothing that exists is mapped over.
        let start = unsafe { mmap(None, len, protection, flags, file, offset) }?;
        Ok(Self {
            start,
            len: len.get(),
        })
    }

    /// Tells the kernel how the mapping will be read.
    pub(crate) fn advise(&self, advice: MmapAdvise) -> nix::Result<()> {
        // SAFETY: the range is this mapping's; the advices in use change no contents.
        unsafe { madvise(self.start, self.len, advice) }
    }

    /// Copies bytes out, as far as the mapping goes.
    ///
    /// Dies of `SIGBUS` where the file has ended or cannot be read: the parent process reports it.
    pub(crate) fn read(&self, at: usize, len: usize) -> Vec<u8> {
        let at = at.min(self.len);
        let mut bytes = vec![0; len.min(self.len - at)];
        // SAFETY: source and target are valid for `bytes.len()` and apart from each other.
        unsafe {
            let source = self.start.as_ptr().cast::<u8>().add(at);
            source.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len());
        }
        bytes
    }

    /// Changes one byte of a mapping that was made writable.
    pub(crate) fn write(&mut self, at: usize, byte: u8) {
        assert!(at < self.len, "within the mapping");
        // SAFETY: in bounds; callers pass only mappings made with `PROT_WRITE`.
        unsafe {
            self.start
                .as_ptr()
                .cast::<u8>()
                .add(at)
                .write_volatile(byte)
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone and nothing refers into it.
        unsafe { munmap(self.start, self.len) }.expect("a mapping can be unmapped");
    }
}

/// Fills `buffer` with raw directory entries and returns how many bytes; 0 at the end.
pub(crate) fn getdents(directory: &File, buffer: &mut [u8]) -> nix::Result<usize> {
    let fd = directory.as_raw_fd();
    // SAFETY: the kernel writes at most `buffer.len()` bytes to the buffer.
    let read =
        unsafe { libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer.len()) };
    Ok(usize::try_from(Errno::result(read)?).expect("not negative"))
}
