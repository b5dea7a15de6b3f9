//! The kernel's list of mounts: `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
//!
//! Reading it never touches a mounted file system, so a dead one cannot make us hang.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::error::MountError;

/// The file system type our mounts have.
pub const FS_TYPE: &str = "fuse.farseek";

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// The number of the mount, unique while it is there.
    pub id: u64,
    /// The number of the mount it is mounted on.
    pub parent: u64,
    /// The device number of the file system, as `major:minor`.
    pub device: String,
    /// Where it is.
    pub mountpoint: PathBuf,
    /// Whether nobody may write to it here, whatever its file system allows.
    pub read_only: bool,
    /// The type of the file system.
    pub fs_type: String,
    /// What it says it is mounted from.
    pub source: String,
}

impl MountEntry {
    /// Whether it is one of ours.
    pub fn is_farseek(&self) -> bool {
        self.fs_type == FS_TYPE
    }

    /// The minor device number, by which the kernel names a FUSE connection.
    pub(crate) fn minor(&self) -> Option<&str> {
        self.device.split_once(':').map(|(_, minor)| minor)
    }
}

/// The mounts this process sees, in the kernel's order.
pub fn read() -> Result<Vec<MountEntry>, MountError> {
    let bytes = std::fs::read(MOUNTINFO).map_err(|source| MountError::MountInfo {
        path: MOUNTINFO.into(),
        source,
    })?;
    Ok(parse(&bytes))
}

/// Parses the list. A line of another form is left out: the format may grow.
pub fn parse(bytes: &[u8]) -> Vec<MountEntry> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// The mount that a path lookup at `mountpoint` ends in: the last one mounted there.
pub(crate) fn topmost<'a>(entries: &'a [MountEntry], mountpoint: &Path) -> Option<&'a MountEntry> {
    entries.iter().rfind(|entry| entry.mountpoint == mountpoint)
}

/// `36 35 98:0 /root /mountpoint options [tag:value]... - type source options`
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut text = || {
        fields
            .next()
            .map(|field| String::from_utf8_lossy(&unescape(field)).into_owned())
    };
    let id = text()?.parse().ok()?;
    let parent = text()?.parse().ok()?;
    let device = text()?;
    let _root = text()?;
    let mountpoint = OsString::from_vec(unescape(fields.next()?)).into();
    let options = fields.next()?;
    let read_only = options
        .split(|byte| *byte == b',')
        .any(|option| option == b"ro");
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let mut text = || {
        rest.next()
            .map(|field| String::from_utf8_lossy(&unescape(field)).into_owned())
    };
    Some(MountEntry {
        id,
        parent,
        device,
        mountpoint,
        read_only,
        fs_type: text()?,
        source: text()?,
    })
}

/// Undoes the kernel's `\ooo` for space, tab, newline, backslash and `#`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let (byte, left) = match escaped(rest) {
            Some(byte) => (byte, &rest[4..]),
            None => (first, after),
        };
        plain.push(byte);
        rest = left;
    }
    plain
}

fn escaped(at: &[u8]) -> Option<u8> {
    let [b'\\', digits @ ..] = at.get(..4)? else {
        return None;
    };
    digits.iter().try_fold(0u8, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
        _ => None,
    })
}

/// `path` as `fusermount3` options carry it: commas and backslashes escaped.
pub(crate) fn escape_option(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,")
}

/// Whether a path can be told to programs at all.
pub(crate) fn has_nul(path: &Path) -> bool {
    path.as_os_str().as_bytes().contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
36 22 0:45 / /mnt/with\\040space\\134 ro,nosuid shared:7 master:1 - fuse.farseek farseek:a/b rw,user_id=0\n\
37 36 0:46 / /mnt/with\\040space\\134 rw - tmpfs tmpfs rw\n\
not a line\n\
38 22 0:47 / /dead - fuse.farseek\n";

    #[test]
    fn lines_are_parsed_and_escapes_undone() {
        let entries = parse(LIST);
        assert_eq!(entries.len(), 3);
        let ours = &entries[1];
        assert_eq!(
            (ours.id, ours.parent, ours.device.as_str()),
            (36, 22, "0:45")
        );
        assert_eq!(ours.mountpoint, Path::new("/mnt/with space\\"));
        assert_eq!(ours.source, "farseek:a/b");
        assert!(ours.is_farseek());
        assert!(ours.read_only && !entries[0].read_only);
        assert_eq!(ours.minor(), Some("45"));
        assert_eq!(
            topmost(&entries, &ours.mountpoint).map(|entry| entry.id),
            Some(37)
        );
        assert_eq!(topmost(&entries, Path::new("/none")), None);
    }

    #[test]
    fn half_an_escape_is_kept() {
        assert_eq!(unescape(b"a\\04"), b"a\\04");
        assert_eq!(unescape(b"a\\999b"), b"a\\999b");
        assert_eq!(unescape(b"\\777"), b"\\777");
    }

    #[test]
    fn the_real_list_holds_the_root() {
        let entries = read().unwrap();
        assert!(
            entries
                .iter()
                .any(|entry| entry.mountpoint == Path::new("/"))
        );
    }

    #[test]
    fn option_values_are_escaped() {
        assert_eq!(escape_option("a,b\\c"), "a\\,b\\\\c");
    }
}
