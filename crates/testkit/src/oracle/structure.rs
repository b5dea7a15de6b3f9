//! Every name, attribute and byte of both sides, in order.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::Difference;
use super::names::describe;
use super::outcome::{Outcome, errno};

/// Bytes of one comparison.
const PIECE: usize = 1 << 20;

/// Compares both trees, the files' bytes only where `contents`, and counts the entries.
pub(super) fn compare(left: &Path, right: &Path, contents: bool) -> Result<u64, Difference> {
    let mut entries = 0;
    // The root's own mode is not part of what is committed: only its names are compared.
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let sides = [left.join(&directory), right.join(&directory)];
        let [names, others] = sides.map(|side| names(&side));
        let (names, others) = both(&directory, "names", names, others)?;
        if let Some(name) = names.symmetric_difference(&others).next() {
            let words = |there| if there { "an entry" } else { "no entry" }.to_owned();
            let (left, right) = (words(names.contains(name)), words(others.contains(name)));
            return Err(difference(&directory.join(name), "names", left, right));
        }
        for name in names {
            let path = directory.join(name);
            entries += 1;
            if compare_entry(left, right, &path, contents)? {
                directories.push(path);
            }
        }
    }
    Ok(entries)
}

fn difference(path: &Path, operation: &str, left: String, right: String) -> Difference {
    Difference {
        seed: 0,
        step: None,
        path: path.to_string_lossy().into(),
        operation: operation.into(),
        left: left.into(),
        right: right.into(),
    }
}

/// Both values, where both sides gave one.
fn both<T>(
    path: &Path,
    operation: &str,
    left: io::Result<T>,
    right: io::Result<T>,
) -> Result<(T, T), Difference> {
    match (left, right) {
        (Ok(left), Ok(right)) => Ok((left, right)),
        (left, right) => {
            let words = |side: io::Result<T>| match side {
                Ok(_) => "an answer".to_owned(),
                Err(error) => format!("{:?}", errno(&error)),
            };
            Err(difference(path, operation, words(left), words(right)))
        }
    }
}

fn names(directory: &Path) -> io::Result<BTreeSet<OsString>> {
    fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect()
}

/// Compares one entry and says whether it is a directory.
fn compare_entry(
    left: &Path,
    right: &Path,
    path: &Path,
    contents: bool,
) -> Result<bool, Difference> {
    let (l, r) = (left.join(path), right.join(path));
    let (mine, other) = both(
        path,
        "lstat",
        fs::symlink_metadata(&l),
        fs::symlink_metadata(&r),
    )?;
    if describe(&mine) != describe(&other) {
        return Err(difference(path, "lstat", describe(&mine), describe(&other)));
    }
    if mine.is_symlink() {
        let (mine, other) = both(path, "readlink", fs::read_link(&l), fs::read_link(&r))?;
        if mine != other {
            return Err(difference(path, "readlink", show(&mine), show(&other)));
        }
    }
    if mine.is_file() && mine.nlink() == 1 && other.nlink() != 1 {
        return Err(difference(
            path,
            "links",
            "1".to_owned(),
            other.nlink().to_string(),
        ));
    }
    if mine.is_file() && contents {
        compare_contents(&l, &r, path)?;
    }
    Ok(mine.is_dir())
}

fn show(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

fn compare_contents(left: &Path, right: &Path, path: &Path) -> Result<(), Difference> {
    let (left, right) = both(path, "open", File::open(left), File::open(right))?;
    let mut offset = 0;
    loop {
        let operation = format!("read {offset}..{}", offset + PIECE as u64);
        let pieces = [&left, &right].map(|file| read_piece(file, offset));
        let [mine, other] = pieces;
        let (mine, other) = both(path, &operation, mine, other)?;
        if mine.is_empty() && other.is_empty() {
            return Ok(());
        }
        let len = mine.len() as u64;
        let (mine, other) = (Outcome::Bytes(offset, mine), Outcome::Bytes(offset, other));
        if mine != other {
            let words = (mine.describe_beside(&other), other.describe_beside(&mine));
            return Err(difference(path, &operation, words.0, words.1));
        }
        offset += len;
    }
}

fn read_piece(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; PIECE];
    let mut read = 0;
    while read < PIECE {
        match file.read_at(&mut buffer[read..], offset + read as u64)? {
            0 => break,
            bytes => read += bytes,
        }
    }
    buffer.truncate(read);
    Ok(buffer)
}
