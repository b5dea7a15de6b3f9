//! What of the host's files that are shown may be written to: what may be on the host.

use std::path::{Path, PathBuf};

use farseek_object::BindDest;
use farseek_vfs::fuse::MountEntry;

use super::LiveBind;

/// Which of the mounts at `dest`, in the environment at `at`, and below it may be written to, by
/// their paths from there: those of which the same place on the host is in no read-only mount.
/// `mounts` are all that the runtime sees, which are the host's, too.
pub(super) fn writable(
    mounts: &[MountEntry],
    at: &Path,
    dest: &BindDest,
    binds: &[LiveBind],
) -> Vec<PathBuf> {
    let root = at.join(dest.relative());
    let shown = mounts.iter().filter_map(|mount| {
        let path = mount.mountpoint.strip_prefix(&root).ok()?;
        let source = source(&mount.mountpoint, at, binds)?;
        (!is_read_only(mounts, &source)).then(|| path.to_owned())
    });
    shown.collect()
}

/// What of the host is shown at `path`: of the bind that was shown last there.
fn source(path: &Path, at: &Path, binds: &[LiveBind]) -> Option<PathBuf> {
    let mut last_first = binds.iter().rev();
    last_first.find_map(|bind| {
        let below = path.strip_prefix(at.join(bind.dest.relative())).ok()?;
        Some(bind.source.join(below))
    })
}

/// Whether the mount that `path` is in is read-only: the innermost, and of several at one place the
/// last.
fn is_read_only(mounts: &[MountEntry], path: &Path) -> bool {
    let around = mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.mountpoint));
    let innermost = around.max_by_key(|mount| mount.mountpoint.components().count());
    innermost.is_none_or(|mount| mount.read_only)
}

#[cfg(test)]
mod tests {
    use farseek_vfs::fuse::parse_mountinfo;

    use super::*;

    #[test]
    fn what_is_read_only_on_the_host_stays_so() {
        let mounts = parse_mountinfo(
            b"1 0 0:1 / / rw - ext4 x rw\n\
            2 1 0:2 / /host/ro ro - ext4 x rw\n\
            3 1 0:3 / /host/src/below ro - ext4 x rw\n\
            4 1 0:3 / /host/src/open rw - ext4 x rw\n\
            5 1 0:3 / /host/src/covered ro - ext4 x rw\n\
            6 1 0:3 / /host/src/covered rw - ext4 x rw\n\
            10 1 0:9 / /spfs ro - fuse.farseek x rw\n\
            11 10 0:1 / /spfs/a ro - ext4 x rw\n\
            12 11 0:3 / /spfs/a/below ro - ext4 x rw\n\
            13 11 0:3 / /spfs/a/open ro - ext4 x rw\n\
            14 11 0:3 / /spfs/a/covered ro - ext4 x rw\n\
            15 11 0:2 / /spfs/a/inner ro - ext4 x rw\n\
            16 10 0:2 / /spfs/b ro - ext4 x rw\n",
        );
        let bind = |source: &str, dest: &str| LiveBind {
            source: source.into(),
            is_directory: true,
            dest: dest.parse().unwrap(),
        };
        let binds = [
            bind("/host/src", "a"),
            bind("/host/ro/x", "a/inner"),
            bind("/host/ro", "/spfs/b"),
        ];
        let of = |dest: &str| {
            let dest = dest.parse().unwrap();
            writable(&mounts, Path::new("/spfs"), &dest, &binds)
        };
        assert_eq!(of("a"), ["", "open", "covered"].map(PathBuf::from));
        assert_eq!(of("b"), [] as [PathBuf; 0]);
    }
}
