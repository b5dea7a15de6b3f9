//! Operations on names, directories and programs, on one side.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Whence, lseek};

use super::action::{Action, Change};
use super::outcome::{Outcome, errno};
use crate::raw::getdents;

/// A name that no tree holds.
const ABSENT: &str = "no such name \u{2205}";

/// Performs any action that is not on an open file, on one side.
pub(super) fn perform(action: &Action, path: &Path) -> Outcome {
    match action {
        Action::Stat => stat(fs::symlink_metadata(path)),
        Action::StatThrough => stat(fs::metadata(path)),
        Action::Readlink => from_io(
            fs::read_link(path).map(|t| Outcome::Bytes(0, t.as_os_str().as_bytes().to_vec())),
        ),
        Action::List(buffer, pick) => list(path, *buffer, *pick).into(),
        Action::Execute(arguments) => execute(path, arguments),
        Action::Open(flags) => open_with(path, *flags).into(),
        Action::Missing => stat(fs::symlink_metadata(path.join(ABSENT))),
        Action::Change(change) => {
            // Some file systems say that another process runs the program before they say that
            // they are read-only.
            let changed = while_free(|| change_something(*change, path));
            from_io(changed.map(|()| Outcome::Text("a change".to_owned())))
        }
        other => Outcome::Text(format!("{other:?} is not an action on a name")),
    }
}

fn from_io(result: io::Result<Outcome>) -> Outcome {
    result.unwrap_or_else(|error| Outcome::Failed(errno(&error)))
}

fn stat(metadata: io::Result<fs::Metadata>) -> Outcome {
    from_io(metadata.map(|metadata| Outcome::Text(describe(&metadata))))
}

/// What of an entry's attributes is the same on both sides.
///
/// The number of links is left out: hard links become files of their own in a commit.
pub(super) fn describe(metadata: &fs::Metadata) -> String {
    let mode = metadata.mode();
    if metadata.is_dir() {
        return format!("directory, mode {mode:o}");
    }
    format!("mode {mode:o}, {} bytes", metadata.len())
}

fn open_with(path: &Path, flags: OFlag) -> nix::Result<Outcome> {
    open(
        path,
        flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK,
        Mode::empty(),
    )
    .map(|_| Outcome::Text("an open file".to_owned()))
}

/// An entry of a raw directory read.
struct RawEntry {
    /// Where a listing goes on after this entry.
    next: i64,
    kind: u8,
    name: Vec<u8>,
}

/// Lists a directory, and once more from a cookie, in another open file.
fn list(path: &Path, buffer: usize, pick: u64) -> nix::Result<Outcome> {
    let all = read_from(path, buffer, 0)?;
    if let Some(missing) = [b".".as_slice(), b".."]
        .into_iter()
        .find(|dots| all.iter().filter(|entry| entry.name == *dots).count() != 1)
    {
        let missing = String::from_utf8_lossy(missing).into_owned();
        return Ok(Outcome::Text(format!(
            "a listing in which '{missing}' is not there once"
        )));
    }
    let from = usize::try_from(pick % all.len() as u64).expect("below a length");
    let rest = read_from(path, buffer, all[from].next)?;
    if !rest
        .iter()
        .map(|entry| &entry.name)
        .eq(all[from + 1..].iter().map(|entry| &entry.name))
    {
        return Ok(Outcome::Text(format!(
            "{} entries of {} from the cookie of entry {from}",
            rest.len(),
            all.len()
        )));
    }
    let mut lines: Vec<_> = all
        .iter()
        .map(|entry| {
            format!(
                "{:?} of kind {}",
                String::from_utf8_lossy(&entry.name),
                entry.kind
            )
        })
        .collect();
    lines.sort_unstable();
    Ok(Outcome::Text(lines.join(", ")))
}

fn read_from(path: &Path, buffer: usize, cookie: i64) -> nix::Result<Vec<RawEntry>> {
    let directory = File::open(path).map_err(|error| errno(&error))?;
    lseek(&directory, cookie, Whence::SeekSet)?;
    let mut buffer = vec![0; buffer];
    let mut entries = Vec::new();
    loop {
        match getdents(&directory, &mut buffer)? {
            0 => return Ok(entries),
            read => parse(&buffer[..read], &mut entries)?,
        }
    }
}

/// Parses `struct linux_dirent64`: inode, cookie, length, kind, name and padding.
fn parse(mut bytes: &[u8], entries: &mut Vec<RawEntry>) -> nix::Result<()> {
    const NAME: usize = 19;
    while let Some(header) = bytes.first_chunk::<NAME>() {
        let next = i64::from_ne_bytes(*header[8..].first_chunk().expect("19 bytes"));
        let len = usize::from(u16::from_ne_bytes([header[16], header[17]]));
        let (entry, rest) = bytes.split_at_checked(len).ok_or(Errno::EPROTO)?;
        let name = entry.get(NAME..).ok_or(Errno::EPROTO)?;
        let name = name
            .split(|&byte| byte == 0)
            .next()
            .unwrap_or_default()
            .to_vec();
        entries.push(RawEntry {
            next,
            kind: header[18],
            name,
        });
        bytes = rest;
    }
    Ok(())
}

fn execute(path: &Path, arguments: &[String]) -> Outcome {
    // A child of another thread may have inherited the program while it was written.
    let output = while_free(|| {
        Command::new(path)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
    });
    from_io(output.map(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Outcome::Text(format!("{} and {text:?}", output.status))
    }))
}

/// Does `work`, again for a second at the most as long as a program is busy.
fn while_free<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..50 {
        match work() {
            Err(error) if errno(&error) == Errno::ETXTBSY => {
                thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
    work()
}

/// Tries to change something. Called only where the mount is read-only.
fn change_something(change: Change, path: &Path) -> io::Result<()> {
    let new = path.join(ABSENT);
    match change {
        Change::OpenToWrite => OpenOptions::new().write(true).open(path).map(drop),
        Change::OpenToReadAndWrite => OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map(drop),
        Change::Truncate => OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(path)
            .map(drop),
        Change::CreateFile => File::create_new(new).map(drop),
        Change::CreateDirectory => fs::create_dir(new),
        Change::CreateLink => symlink("target", new),
        Change::HardLink => fs::hard_link(path, path.with_file_name(ABSENT)),
        Change::Remove => fs::remove_file(path),
        Change::Rename => fs::rename(path, path.with_file_name(ABSENT)),
        Change::Mode => fs::set_permissions(path, fs::Permissions::from_mode(0o777)),
        // Needs no permission to write the file, unlike opening it.
        Change::Times => {
            let now = SystemTime::now();
            let times = fs::FileTimes::new().set_modified(now).set_accessed(now);
            File::open(path)?.set_times(times)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::{Action, Outcome, list, perform};

    #[test]
    fn programs_differ_by_what_they_print_and_by_their_status() {
        let dir = tempfile::tempdir().unwrap();
        let outcome = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            perform(&Action::Execute(vec!["word".to_owned()]), &path)
        };
        let same = outcome("a", "#!/bin/sh\necho $1; exit 7\n");
        assert_eq!(
            same,
            Outcome::Text("exit status: 7 and \"word\\n\"".to_owned())
        );
        assert_ne!(same, outcome("b", "#!/bin/sh\necho $1; exit 8\n"));
        assert_ne!(same, outcome("c", "#!/bin/sh\nexit 7\n"));
        let nothing = outcome("d", "#!/no/such/interpreter\n");
        assert_eq!(nothing, Outcome::Failed(nix::errno::Errno::ENOENT));
    }

    #[test]
    fn a_listing_holds_every_name_with_any_buffer_and_from_any_cookie() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..100 {
            std::fs::write(dir.path().join(format!("file {number}")), "").unwrap();
        }
        for (buffer, pick) in [(320, 0), (512, 57), (32_768, 101)] {
            let Outcome::Text(text) = list(dir.path(), buffer, pick).unwrap() else {
                panic!()
            };
            assert_eq!(text.matches(" of kind ").count(), 102, "{text}");
            assert!(text.contains("\"file 99\" of kind 8"), "{text}");
        }
    }

    #[test]
    fn a_missing_name_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let outcome = perform(&Action::Missing, dir.path());
        assert_eq!(outcome, Outcome::Failed(nix::errno::Errno::ENOENT));
    }
}
