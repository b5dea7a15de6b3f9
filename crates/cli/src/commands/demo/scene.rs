//! What the demo commits: an executable, a script, a symlinked tree and one large file.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result};

/// What the script says.
pub(super) const GREETING: &str = "hello from an environment that is not here";

/// The name of the large file.
pub(super) const LARGE: &str = "data/large.bin";

/// Bytes that are made at random once; the file repeats them, each time with its place stamped in.
const PIECE: usize = 1 << 20;

/// Distance between stamps: every page has its own, so no page is like another.
const STAMP_EVERY: usize = 4096;

/// Parents first, each made by itself: what an interrupt has removed must not be made again.
const DIRECTORIES: [&str; 8] = [
    "",
    "bin",
    "data",
    "lib",
    "lib/python",
    "lib/python/1.0",
    "share",
    "share/doc",
];

/// Builds the tree at `root`, whose parent is there; `program` becomes its executable. `go_on` is
/// asked now and then.
pub(super) fn build(
    root: &Path,
    program: &Path,
    size: u64,
    go_on: &dyn Fn() -> bool,
) -> Result<()> {
    for directory in DIRECTORIES {
        let path = root.join(directory);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    let script = format!("#!/bin/sh\necho '{GREETING}'\n");
    write(root, "bin/hello", script.as_bytes(), 0o755)?;
    for number in 0..20 {
        let text = format!("chapter {number}\n");
        write(
            root,
            &format!("share/doc/{number:02}.txt"),
            text.as_bytes(),
            0o644,
        )?;
    }
    write(
        root,
        "lib/python/1.0/module.py",
        b"print('a module')\n",
        0o644,
    )?;
    let links = [
        ("lib/python/current", "1.0"),
        ("lib/module.py", "python/current/module.py"),
        ("bin/hi", "hello"),
        ("doc", "share/doc"),
    ];
    for (link, target) in links {
        let path = root.join(link);
        symlink(target, &path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    let copy = root.join("bin/farseek");
    fs::copy(program, &copy)
        .with_context(|| format!("cannot copy {} to {}", program.display(), copy.display()))?;
    set_mode(&copy, 0o755)?;
    let large = root.join(LARGE);
    write_large(&large, size, go_on).with_context(|| format!("cannot write {}", large.display()))
}

fn write(root: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let path = root.join(name);
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    set_mode(&path, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}

fn write_large(path: &Path, size: u64, go_on: &dyn Fn() -> bool) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let mut piece = random_piece();
    let mut at = 0;
    while at < size && go_on() {
        stamp(&mut piece, at);
        let length = usize::try_from(size - at).map_or(PIECE, |left| left.min(PIECE));
        file.write_all(&piece[..length])?;
        at += length as u64;
    }
    Ok(())
}

/// The byte that the large file has at `offset`.
pub(super) fn byte_at(offset: u64) -> u8 {
    let within = (offset % PIECE as u64) as usize;
    let mut piece = random_piece();
    stamp(&mut piece, offset - within as u64);
    piece[within]
}

fn stamp(piece: &mut [u8], at: u64) {
    for page in (0..PIECE).step_by(STAMP_EVERY) {
        let place = at + page as u64;
        piece[page..page + 8].copy_from_slice(&place.to_be_bytes());
    }
}

/// The same bytes every time: xorshift, which is random enough not to compress.
fn random_piece() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut piece = Vec::with_capacity(PIECE);
    while piece.len() < PIECE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        piece.extend_from_slice(&state.to_le_bytes());
    }
    piece
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_known_without_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("large");
        let size = 2 * PIECE as u64 + 12_345;
        write_large(&path, size, &|| true).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, size);
        for offset in [0, 1, 7, 4096 + 7, PIECE as u64 + 4103, size / 2, size - 1] {
            assert_eq!(byte_at(offset), bytes[offset as usize], "{offset}");
        }
        let pages: std::collections::HashSet<&[u8]> = bytes.chunks(STAMP_EVERY).collect();
        assert_eq!(pages.len(), bytes.len().div_ceil(STAMP_EVERY));
    }
}
