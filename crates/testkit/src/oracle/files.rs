//! Operations on an open file, on one side.

use std::fs::{File, OpenOptions};
use std::io::IoSliceMut;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, SpliceFFlags, posix_fadvise, splice};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags};
use nix::sys::sendfile::sendfile;
use nix::sys::uio::{pread, preadv};
use nix::unistd::{Whence, lseek, pipe, read};

use super::action::{Action, Advice, Origin, PAGE};
use super::outcome::{Outcome, errno};
use crate::raw::Mapping;

/// What a pipe holds by default.
const PIPE: usize = 64 << 10;

/// Performs a file's action on one side. `None` where the action is not one on an open file.
pub(super) fn perform(action: &Action, file: &File, path: &Path) -> Option<Outcome> {
    let outcome = match action {
        Action::Pread(range) => pread_range(file, range),
        Action::Preadv(offset, lengths) => preadv_at(file, *offset, lengths),
        Action::Read(from, offset, len) => seek_and_read(file, *from, *offset, *len),
        Action::SeekData(offset) => seek(file, *offset, Whence::SeekData),
        Action::SeekHole(offset) => seek(file, *offset, Whence::SeekHole),
        Action::Map {
            range,
            shared,
            write,
            advice,
        } => map(file, range, *shared, *write, *advice),
        Action::MapToWrite => map_to_write(file),
        Action::Sendfile(range) => sendfile_range(file, range),
        Action::Splice(range) => splice_range(file, range),
        Action::Direct(range) => direct(path, range),
        Action::Advise(range, advice) => advise(file, range, *advice),
        _ => return None,
    };
    Some(outcome.into())
}

fn off(offset: u64) -> nix::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| Errno::EOVERFLOW)
}

fn len_of(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).expect("ranges of one operation are short")
}

fn pread_range(file: &File, range: &Range<u64>) -> nix::Result<Outcome> {
    let mut buffer = vec![0; len_of(range)];
    let read = pread(file, &mut buffer, off(range.start)?)?;
    buffer.truncate(read);
    Ok(Outcome::Bytes(range.start, buffer))
}

fn preadv_at(file: &File, offset: u64, lengths: &[usize]) -> nix::Result<Outcome> {
    let mut buffers: Vec<Vec<u8>> = lengths.iter().map(|&len| vec![0; len]).collect();
    let mut slices: Vec<_> = buffers
        .iter_mut()
        .map(|buffer| IoSliceMut::new(buffer))
        .collect();
    let read = preadv(file, &mut slices, off(offset)?)?;
    let mut bytes = buffers.concat();
    bytes.truncate(read);
    Ok(Outcome::Bytes(offset, bytes))
}

fn seek_and_read(file: &File, from: Origin, offset: i64, len: usize) -> nix::Result<Outcome> {
    let whence = match from {
        Origin::Start => Whence::SeekSet,
        Origin::Current => Whence::SeekCur,
        Origin::End => Whence::SeekEnd,
    };
    let start = lseek(file, offset, whence)?;
    let mut buffer = vec![0; len];
    let bytes = read(file, &mut buffer)?;
    buffer.truncate(bytes);
    let end = lseek(file, 0, Whence::SeekCur)?;
    if end != start + i64::try_from(bytes).expect("a length fits") {
        return Ok(Outcome::Text(format!(
            "{bytes} bytes read at {start}, yet the cursor at {end}"
        )));
    }
    Ok(Outcome::Bytes(start.unsigned_abs(), buffer))
}

fn seek(file: &File, offset: i64, whence: Whence) -> nix::Result<Outcome> {
    lseek(file, offset, whence).map(Outcome::Number)
}

fn map(
    file: &File,
    range: &Range<u64>,
    shared: bool,
    write: bool,
    advice: Advice,
) -> nix::Result<Outcome> {
    let Some(len) = NonZeroUsize::new(len_of(range)) else {
        return Ok(Outcome::Bytes(range.start, Vec::new()));
    };
    let flags = if shared {
        MapFlags::MAP_SHARED
    } else {
        MapFlags::MAP_PRIVATE
    };
    let writable = if write {
        ProtFlags::PROT_WRITE
    } else {
        ProtFlags::empty()
    };
    let mut mapping = Mapping::new(
        file,
        range.start,
        len,
        ProtFlags::PROT_READ | writable,
        flags,
    )?;
    mapping.advise(map_advice(advice))?;
    // A page far in first, then all of them: a fault that is not at the start of anything.
    let probe = mapping.read(len.get() * 2 / 3, 16);
    let bytes = mapping.read(0, len.get());
    if bytes[len.get() * 2 / 3..]
        .iter()
        .zip(&probe)
        .any(|(a, b)| a != b)
    {
        return Ok(Outcome::Text("a map whose bytes changed".to_owned()));
    }
    if write {
        write_to_private(file, range.start, &mut mapping, &bytes)?;
    }
    Ok(Outcome::Bytes(range.start, bytes))
}

/// Changes a byte of a private map: seen there, and not in the file.
fn write_to_private(
    file: &File,
    start: u64,
    mapping: &mut Mapping,
    before: &[u8],
) -> nix::Result<()> {
    let at = before.len() / 2;
    mapping.write(at, !before[at]);
    let changed = mapping.read(at, 1) == [!before[at]];
    let mut byte = [0];
    let read = pread(file, &mut byte, off(start + at as u64)?)?;
    let kept = read == 0 || byte[0] == before[at];
    if changed && kept {
        Ok(())
    } else {
        Err(Errno::EBADE)
    }
}

fn map_advice(advice: Advice) -> MmapAdvise {
    match advice {
        Advice::Normal => MmapAdvise::MADV_NORMAL,
        Advice::Random => MmapAdvise::MADV_RANDOM,
        Advice::Sequential => MmapAdvise::MADV_SEQUENTIAL,
        Advice::WillNeed => MmapAdvise::MADV_WILLNEED,
        Advice::DontNeed => MmapAdvise::MADV_DONTNEED,
    }
}

fn map_to_write(file: &File) -> nix::Result<Outcome> {
    let page = NonZeroUsize::new(PAGE as usize).expect("a page is not empty");
    Mapping::new(file, 0, page, ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED)?;
    Ok(Outcome::Text("a writable map".to_owned()))
}

fn sendfile_range(file: &File, range: &Range<u64>) -> nix::Result<Outcome> {
    let target = File::from(memfd_create(c"sendfile", MFdFlags::MFD_CLOEXEC)?);
    let mut offset = off(range.start)?;
    let mut left = len_of(range);
    let mut sent = 0;
    while left > 0 {
        match sendfile(&target, file, Some(&mut offset), left)? {
            0 => break,
            bytes => {
                left -= bytes;
                sent += bytes;
            }
        }
    }
    let mut bytes = vec![0; sent];
    let read = pread(&target, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Outcome::Bytes(range.start, bytes))
}

fn splice_range(file: &File, range: &Range<u64>) -> nix::Result<Outcome> {
    let (output, input) = pipe()?;
    let mut offset = off(range.start)?;
    let mut bytes = Vec::new();
    let mut piece = vec![0; PIPE];
    let wanted = len_of(range);
    while bytes.len() < wanted {
        let len = (wanted - bytes.len()).min(PIPE);
        let moved = splice(
            file,
            Some(&mut offset),
            &input,
            None,
            len,
            SpliceFFlags::empty(),
        )?;
        if moved == 0 {
            break;
        }
        let mut left = moved;
        while left > 0 {
            let read = read(&output, &mut piece[..left])?;
            bytes.extend_from_slice(&piece[..read]);
            left -= read;
        }
    }
    Ok(Outcome::Bytes(range.start, bytes))
}

/// Reads past the page cache, with a buffer at the start of a page.
fn direct(path: &Path, range: &Range<u64>) -> nix::Result<Outcome> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path);
    let file = match opened {
        // The oracle's own file system may have no such thing.
        Err(error) if errno(&error) == Errno::EINVAL => File::open(path),
        other => other,
    };
    let file = file.map_err(|error| errno(&error))?;
    let mut buffer = vec![0; len_of(range) + PAGE as usize];
    let aligned = buffer.as_ptr().align_offset(PAGE as usize);
    let buffer = &mut buffer[aligned..aligned + len_of(range)];
    let read = pread(&file, buffer, off(range.start)?)?;
    Ok(Outcome::Bytes(range.start, buffer[..read].to_vec()))
}

fn advise(file: &File, range: &Range<u64>, advice: Advice) -> nix::Result<Outcome> {
    let advice = match advice {
        Advice::Normal => PosixFadviseAdvice::POSIX_FADV_NORMAL,
        Advice::Random => PosixFadviseAdvice::POSIX_FADV_RANDOM,
        Advice::Sequential => PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL,
        Advice::WillNeed => PosixFadviseAdvice::POSIX_FADV_WILLNEED,
        Advice::DontNeed => PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    };
    posix_fadvise(
        file,
        off(range.start)?,
        off(range.end - range.start)?,
        advice,
    )?;
    Ok(Outcome::Text("advised".to_owned()))
}
