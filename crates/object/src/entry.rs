//! Entries and trees: one line of a directory, and one directory (FORMAT.md section 3.1).

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;

use crate::digest::{Digest, Hasher};
use crate::error::{ObjectError, Result};

/// Bits of a mode that hold the file type.
pub const S_IFMT: u32 = 0o170_000;
/// The file type of a symbolic link.
pub const S_IFLNK: u32 = 0o120_000;
/// The file type of a regular file.
pub const S_IFREG: u32 = 0o100_000;
/// The file type of a directory.
pub const S_IFDIR: u32 = 0o040_000;
/// The file type of a character device, which a whiteout is.
pub const S_IFCHR: u32 = 0o020_000;

/// What an entry stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file or a symbolic link: the object is its payload.
    Blob,
    /// A directory: the object is the digest of its tree.
    Tree,
    /// A deletion of whatever lower layers have at this name.
    Mask,
}

/// The name of an entry: not empty, not `.` or `..`, without `/` and NUL, valid UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryName(Box<str>);

impl EntryName {
    /// Checks `name`.
    pub fn new(name: &str) -> Result<Self> {
        let invalid = |reason| ObjectError::InvalidSpec {
            what: "entry name",
            text: name.to_owned(),
            reason,
        };
        match name {
            "" => Err(invalid("it is empty")),
            "." | ".." => Err(invalid("it means another directory")),
            _ if name.contains('/') => Err(invalid("it contains a slash")),
            _ if name.contains('\0') => Err(invalid("it contains a NUL")),
            _ => Ok(Self(name.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for EntryName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One line of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the directory.
    pub name: EntryName,
    /// What it stands for.
    pub kind: EntryKind,
    /// The payload's digest, the tree's digest, or [`Digest::NULL`] for a mask.
    pub object: Digest,
    /// `st_mode`: type bits and permissions.
    pub mode: u32,
    /// Bytes for a blob, at most `i64::MAX`, as many as a file can have; for trees and masks a raw
    /// number that must be kept, for it is hashed.
    pub size: u64,
}

impl Entry {
    /// Whether this blob is a symbolic link, whose payload is its target.
    pub fn is_symlink(&self) -> bool {
        self.kind == EntryKind::Blob && self.mode & S_IFMT == S_IFLNK
    }
}

/// One directory: entries in stored order, names unique.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    entries: Vec<Entry>,
}

impl Tree {
    /// A directory of `entries`, kept in the order given.
    ///
    /// # Errors
    /// Two entries of one name, or a file larger than any file can be.
    pub fn new(entries: Vec<Entry>) -> Result<Self> {
        let is_huge = |e: &&Entry| e.kind == EntryKind::Blob && i64::try_from(e.size).is_err();
        if let Some(huge) = entries.iter().find(is_huge) {
            let reason = format!("'{}' cannot have {} bytes", huge.name, huge.size);
            return Err(ObjectError::malformed("tree", reason));
        }
        let ascending = entries.is_sorted_by(|a, b| a.name < b.name);
        if !ascending {
            let mut seen = HashSet::with_capacity(entries.len());
            if let Some(twice) = entries.iter().find(|e| !seen.insert(e.name.as_str())) {
                let reason = format!("the name '{}' appears twice", twice.name);
                return Err(ObjectError::malformed("tree", reason));
            }
        }
        Ok(Self { entries })
    }

    /// A directory of `entries` in canonical order: directories first, each group by name.
    pub fn canonical(mut entries: Vec<Entry>) -> Result<Self> {
        entries.sort_by(|a, b| {
            let rank = |e: &Entry| e.kind != EntryKind::Tree;
            rank(a).cmp(&rank(b)).then_with(|| a.name.cmp(&b.name))
        });
        Self::new(entries)
    }

    /// The entries in stored order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The digest a directory entry names this tree by: unsalted under both strategies.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        self.hash_into(&mut hasher);
        hasher.finish()
    }

    /// Feeds the canonical bytes `tree(t)` of FORMAT.md section 2.3 to `hasher`.
    pub(crate) fn hash_into(&self, hasher: &mut Hasher) {
        hasher.update(&(self.entries.len() as u64).to_be_bytes());
        if self.entries.is_sorted_by(|a, b| a.name <= b.name) {
            for entry in &self.entries {
                entry.canonical_bytes(&mut |bytes| hasher.update(bytes));
            }
        } else {
            let mut sorted: Vec<&Entry> = self.entries.iter().collect();
            sorted.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            for entry in sorted {
                entry.canonical_bytes(&mut |bytes| hasher.update(bytes));
            }
        }
    }
}

impl Entry {
    /// Gives the canonical bytes of an entry (FORMAT.md section 2.3) to `sink`, piece by piece.
    /// They are also its legacy encoding.
    pub(crate) fn canonical_bytes(&self, sink: &mut impl FnMut(&[u8])) {
        let kind: &[u8] = match self.kind {
            EntryKind::Blob => b"file\0",
            EntryKind::Tree => b"tree\0",
            EntryKind::Mask => b"mask\0",
        };
        sink(self.object.as_bytes());
        sink(kind);
        sink(&u64::from(self.mode).to_be_bytes());
        sink(&self.size.to_be_bytes());
        sink(self.name.as_str().as_bytes());
        sink(&[0]);
    }

    /// The digest of this entry alone, as SPFS's own test vectors have it.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        self.canonical_bytes(&mut |bytes| hasher.update(bytes));
        hasher.finish()
    }
}
