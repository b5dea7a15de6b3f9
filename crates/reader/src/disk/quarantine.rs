//! Where data files go that turned out to be false: out of reach, but there to be looked at.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::make_private;

/// Files kept at once.
const MAX_FILES: usize = 8;

/// Moves `data` into `directory` and forgets the oldest there beyond a number, and beyond
/// `max_bytes` on the disk.
pub(crate) fn take(directory: &Path, data: &Path, max_bytes: u64) -> io::Result<()> {
    make_private(directory)?;
    let shard = data.parent().and_then(Path::file_name);
    let mut name = shard.unwrap_or(OsStr::new("")).to_owned();
    name.push(data.file_name().unwrap_or(OsStr::new("unnamed")));
    fs::rename(data, directory.join(name))?;
    forget_oldest(directory, max_bytes)
}

fn forget_oldest(directory: &Path, max_bytes: u64) -> io::Result<()> {
    let mut kept: Vec<(i64, PathBuf, u64)> = fs::read_dir(directory)?
        .flatten()
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some((metadata.ctime(), entry.path(), metadata.blocks() * 512))
        })
        .collect();
    kept.sort_by_key(|(changed, ..)| std::cmp::Reverse(*changed));
    let mut bytes = 0;
    for (place, (_, path, size)) in kept.iter().enumerate() {
        bytes += size;
        if place >= MAX_FILES || bytes > max_bytes {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_in_files_and_bytes() {
        let dir = tempfile::TempDir::new().unwrap();
        let quarantine = dir.path().join("quarantine");
        let count = || fs::read_dir(&quarantine).unwrap().count();
        for n in 0..2 * MAX_FILES {
            let data = dir.path().join(format!("{n}.data"));
            fs::write(&data, vec![1; 4096]).unwrap();
            take(&quarantine, &data, 1 << 30).unwrap();
            assert!(!data.exists() && count() == (n + 1).min(MAX_FILES));
        }
        let large = dir.path().join("large.data");
        fs::write(&large, vec![1; 1 << 20]).unwrap();
        take(&quarantine, &large, 1 << 10).unwrap();
        assert_eq!(count(), 0);
    }
}
