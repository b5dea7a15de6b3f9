//! What there is to operate on: the left side's entries by kind.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::seed::Random;
use crate::tree::RUNNABLE_PREFIX;

/// Files from here on are chosen more often: small ones are soon all in memory.
const LARGE: u64 = 16 << 10;

/// A file and its size.
#[derive(Debug, Clone)]
pub(super) struct KnownFile {
    pub(super) path: PathBuf,
    pub(super) size: u64,
}

/// The paths of a tree, relative to its root and sorted, so that a seed always means the same.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    pub(super) files: Vec<KnownFile>,
    pub(super) large: Vec<KnownFile>,
    pub(super) directories: Vec<PathBuf>,
    pub(super) links: Vec<PathBuf>,
    pub(super) programs: Vec<PathBuf>,
}

impl Catalog {
    /// Walks the tree at `root`.
    pub(super) fn of(root: &Path) -> io::Result<Self> {
        let mut catalog = Self {
            directories: vec![PathBuf::new()],
            ..Self::default()
        };
        let mut next = 0;
        while let Some(directory) = catalog.directories.get(next).cloned() {
            catalog.add_children(root, &directory)?;
            next += 1;
        }
        Ok(catalog)
    }

    fn add_children(&mut self, root: &Path, directory: &Path) -> io::Result<()> {
        let mut names = fs::read_dir(root.join(directory))?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            let path = directory.join(&name);
            let metadata = fs::symlink_metadata(root.join(&path))?;
            if metadata.is_dir() {
                self.directories.push(path);
            } else if metadata.is_symlink() {
                self.links.push(path);
            } else {
                let runnable = name.to_string_lossy().starts_with(RUNNABLE_PREFIX);
                if runnable && metadata.mode() & 0o111 != 0 {
                    self.programs.push(path.clone());
                }
                self.add_file(KnownFile {
                    path,
                    size: metadata.len(),
                });
            }
        }
        Ok(())
    }

    fn add_file(&mut self, file: KnownFile) {
        if file.size >= LARGE {
            self.large.push(file.clone());
        }
        self.files.push(file);
    }

    /// A file, more often a large one. `None` where there is none at all.
    pub(super) fn any_file(&self, random: &mut Random) -> Option<&KnownFile> {
        let large = !self.large.is_empty() && !random.once_in(4);
        any(random, if large { &self.large } else { &self.files })
    }

    /// An entry of any kind.
    pub(super) fn any_path(&self, random: &mut Random) -> &Path {
        let chosen = match random.below(3) {
            0 => any(random, &self.files).map(|file| &file.path),
            1 => any(random, &self.links),
            _ => None,
        };
        chosen.unwrap_or_else(|| random.pick(&self.directories))
    }
}

/// One of `all`, where there are any.
pub(super) fn any<'a, T>(random: &mut Random, all: &'a [T]) -> Option<&'a T> {
    if all.is_empty() {
        None
    } else {
        Some(random.pick(all))
    }
}
