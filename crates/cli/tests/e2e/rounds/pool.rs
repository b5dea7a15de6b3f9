//! What is committed: environments that are made from their numbers, of contents that they share.
//!
//! An environment under the tag `t` says in its file `by-t` which it is. One that was made in a
//! runtime, of another one, says which that was, and whether a directory of it was removed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use farseek_testkit::Random;

/// Tags, of either repository.
pub(super) const TAGS: usize = 6;

/// Contents that there are: few, so that they are removed and come back all the time.
const CONTENTS: u64 = 40;

/// Paths at which an environment may have a file.
const PATHS: [&str; 14] = [
    "a", "b", "c", "d0/a", "d0/b", "d0/sub/c", "d1/a", "d1/b b", "d2/x/y/z", "e", "f", "g", "h",
    "i",
];

/// The directory that is removed from some.
pub(super) const CUT: &str = "d0";

/// What an environment has: paths and contents.
pub(super) type Files = BTreeMap<String, Arc<[u8]>>;

/// Which environment it is, as its own file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    /// No two have the same.
    pub(super) number: u64,
    /// Where its other files are from: itself, or one that was edited.
    base: u64,
    /// Whether [`CUT`] was removed.
    is_cut: bool,
}

impl Identity {
    /// The environment that is committed as a directory.
    pub(super) fn of(number: u64) -> Self {
        Self {
            number,
            base: number,
            is_cut: false,
        }
    }

    /// Reads what [`text`](Self::text) and the script of a worker wrote.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        Some(Self {
            number: words.next()?.parse().ok()?,
            base: words.next()?.parse().ok()?,
            is_cut: words.next()? == "cut",
        })
    }

    fn text(self) -> String {
        let cut = if self.is_cut { "cut" } else { "all" };
        format!("{} {} {cut}\n", self.number, self.base)
    }
}

/// The file that says which environment it is.
pub(super) fn identity_file(tag: usize) -> String {
    format!("by-{tag}")
}

/// All the contents.
#[derive(Debug)]
pub(super) struct Pool {
    seed: u64,
    contents: Vec<Arc<[u8]>>,
}

impl Pool {
    /// Those of `seed`.
    pub(super) fn new(seed: u64) -> Self {
        let content = |number| {
            let mut random = Random::fork(seed, number);
            // Most are small; some are blocks, and a few so large that they come in pieces.
            let most = match number % 8 {
                0 => 3_000_000,
                1 | 2 => 300_000,
                _ => 20_000,
            };
            let mut bytes = vec![0; random.index(most)];
            random.fill(&mut bytes);
            Arc::from(bytes)
        };
        Self {
            seed,
            contents: (0..CONTENTS).map(content).collect(),
        }
    }

    /// The files of the environment `number`, but for the one that says so.
    fn plain(&self, number: u64) -> Files {
        let mut random = Random::fork(self.seed, 1000 + number);
        let paths = PATHS.iter().filter(|_| !random.once_in(3));
        let paths: Vec<_> = paths.collect();
        let file = |path: &&str| {
            let content = random.pick(&self.contents).clone();
            ((*path).to_owned(), content)
        };
        paths.into_iter().map(file).collect()
    }

    /// What is to be seen of the environment `identity` under `tag`.
    pub(super) fn files(&self, tag: usize, identity: Identity) -> Files {
        let mut files = self.plain(identity.base);
        if identity.is_cut {
            files.retain(|path, _| !is_below_cut(path));
        }
        files.insert(identity_file(tag), Arc::from(identity.text().into_bytes()));
        files
    }

    /// The same with `upper` on top of `lower`: where a directory was removed from `upper`, that is
    /// a mask, which removes it from `lower`, too.
    pub(super) fn stack(&self, lower: (usize, Identity), upper: (usize, Identity)) -> Files {
        let mut files = self.files(lower.0, lower.1);
        let has_cut = self
            .plain(upper.1.base)
            .keys()
            .any(|path| is_below_cut(path));
        if upper.1.is_cut && has_cut {
            files.retain(|path, _| !is_below_cut(path));
        }
        files.extend(self.files(upper.0, upper.1));
        files
    }
}

fn is_below_cut(path: &str) -> bool {
    path.split('/').next() == Some(CUT)
}

/// Writes `files` to the new directory `root`.
pub(super) fn write(root: &Path, files: &Files) {
    fs::create_dir(root).unwrap();
    for (path, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}
