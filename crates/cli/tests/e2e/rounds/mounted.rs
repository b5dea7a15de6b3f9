//! A live mount, which is read at random and compared with what was committed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farseek_testkit::mount::{PROMPT, is_mounted};
use farseek_testkit::{Random, wait_until};

use super::pool::{Files, Identity, identity_file};
use super::process::{Process, in_background};
use super::tags::Use;
use super::world::World;

/// Files that a mount's reader keeps open at once.
const KEPT_OPEN: usize = 4;

/// Places of a file that are read one after the other.
const PLACES: usize = 6;

/// A mount, and what is to be seen in it.
pub(super) struct Mounted<'a> {
    world: &'a World,
    at: PathBuf,
    /// Who serves it, where that is a child of ours.
    process: Option<Arc<Process>>,
    files: Files,
    open: Vec<(String, File)>,
    /// What it reads from the remote repository.
    _uses: Vec<Use<'a>>,
}

impl<'a> Mounted<'a> {
    /// The mount at `at` of environments under `tags`, one upon the other, which is there. `None`
    /// where it was killed meanwhile.
    pub(super) fn identify(
        world: &'a World,
        at: PathBuf,
        process: Option<Arc<Process>>,
        tags: &[usize],
        uses: Vec<Use<'a>>,
    ) -> Option<Self> {
        let mut mounted = Self {
            world,
            at,
            process,
            files: Files::new(),
            open: Vec::new(),
            _uses: uses,
        };
        match mounted.identities(tags) {
            Ok(identities) => {
                mounted.files = match identities[..] {
                    [lower, upper] => world.pool.stack(lower, upper),
                    [(tag, identity)] => world.pool.files(tag, identity),
                    _ => unreachable!("one or two"),
                };
                Some(mounted)
            }
            Err(error) => {
                mounted.must_be_struck("identify", &error);
                mounted.take_away();
                None
            }
        }
    }

    fn identities(&self, tags: &[usize]) -> io::Result<Vec<(usize, Identity)>> {
        let identity = |&tag: &usize| {
            let text = fs::read_to_string(self.at.join(identity_file(tag)))?;
            let identity = Identity::parse(&text).unwrap_or_else(|| panic!("it says {text:?}"));
            let number = identity.number;
            let may_be = self.world.tags.may_name(tag, number);
            assert!(may_be, "{number} was never committed under {tag}");
            Ok((tag, identity))
        };
        tags.iter().map(identity).collect()
    }

    /// Where it is.
    pub(super) fn at(&self) -> &Path {
        &self.at
    }

    /// Whether the process that serves it has been killed by one of us.
    pub(super) fn is_struck(&self) -> bool {
        self.world.processes.is_struck(&self.at)
            || self
                .process
                .as_ref()
                .is_some_and(|process| process.is_struck())
    }

    /// Only that may keep it from being read.
    fn must_be_struck(&self, what: &str, error: &dyn std::fmt::Display) {
        let at = self.at.display();
        let log = fs::read_to_string(self.at.with_extension("log")).unwrap_or_default();
        assert!(self.is_struck(), "{at}: {what}: {error}\n{log}");
    }

    /// Reads something. Returns whether it is still alive.
    pub(super) fn read(&mut self, random: &mut Random) -> bool {
        let path = {
            let paths: Vec<&String> = self.files.keys().collect();
            (*random.pick(&paths)).clone()
        };
        let (what, read) = match random.below(8) {
            0 => ("its names", self.list()),
            1..=3 => ("all of a file", self.whole(&path)),
            4 | 5 => ("parts of a file", self.parts(&path, random)),
            6 => ("a new open file", self.keep_open(path.clone(), random)),
            _ => ("an open file", self.kept_open(random)),
        };
        self.world
            .note(format_args!("read {}: {what} {path}", self.at.display()));
        if let Err(error) = read {
            self.must_be_struck(&format!("{what}, {path}"), &error);
            return false;
        }
        true
    }

    /// Reads all of it. Returns whether it is still alive.
    pub(super) fn read_all(&self) -> bool {
        let paths = self.files.keys();
        let read = self
            .list()
            .and_then(|()| paths.into_iter().try_for_each(|path| self.whole(path)));
        read.map_err(|error| self.must_be_struck("all of it", &error))
            .is_ok()
    }

    fn list(&self) -> io::Result<()> {
        let mut found = BTreeMap::new();
        let mut pending = vec![self.at.clone()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory)? {
                let path = entry?.path();
                let metadata = fs::symlink_metadata(&path)?;
                match metadata.is_dir() {
                    true => pending.push(path),
                    false => {
                        let name = path.strip_prefix(&self.at).unwrap();
                        let name = name.to_str().unwrap().to_owned();
                        found.insert(name, metadata.len());
                    }
                }
            }
        }
        let sizes = self.files.iter();
        let sizes = sizes.map(|(path, content)| (path.clone(), content.len() as u64));
        let expected: BTreeMap<_, _> = sizes.collect();
        if found != expected && self.is_struck() {
            // What is dead is anybody's to take away, and leaves an empty directory.
            return Err(io::ErrorKind::NotConnected.into());
        }
        assert_eq!(found, expected, "in {}", self.at.display());
        Ok(())
    }

    fn whole(&self, path: &str) -> io::Result<()> {
        let found = fs::read(self.at.join(path))?;
        self.same(path, 0, &found, self.files[path].len());
        Ok(())
    }

    fn parts(&self, path: &str, random: &mut Random) -> io::Result<()> {
        self.places(path, &File::open(self.at.join(path))?, random)
    }

    fn keep_open(&mut self, path: String, random: &mut Random) -> io::Result<()> {
        let file = File::open(self.at.join(&path))?;
        self.places(&path, &file, random)?;
        if self.open.len() == KEPT_OPEN {
            self.open.remove(0);
        }
        self.open.push((path, file));
        Ok(())
    }

    fn kept_open(&self, random: &mut Random) -> io::Result<()> {
        let mut open = self.open.iter();
        open.try_for_each(|(path, file)| self.places(path, file, random))
    }

    fn places(&self, path: &str, file: &File, random: &mut Random) -> io::Result<()> {
        let size = self.files[path].len();
        for _ in 0..PLACES {
            let at = random.index(size + 1);
            let mut bytes = vec![0; (1 + random.index(70_000)).min(size - at)];
            let read = read_to_end(file, &mut bytes, at as u64)?;
            self.same(path, at, &bytes[..read], bytes.len());
        }
        Ok(())
    }

    /// Asserts that what was read at `at`, of `length` bytes, is what was committed.
    fn same(&self, path: &str, at: usize, found: &[u8], length: usize) {
        let name = self.at.join(path);
        let expected = &self.files[path][at..at + length];
        let is_same = expected == found;
        assert!(
            is_same,
            "{}: at {at} wrong: {} of {length} bytes",
            name.display(),
            found.len()
        );
    }

    /// Closes what is open.
    pub(super) fn close(&mut self) {
        self.open.clear();
    }

    /// Takes away what is left of a mount that was unmounted, or killed.
    pub(super) fn take_away(mut self) {
        self.open.clear();
        if let Some(process) = &self.process {
            let ended = process.wait(None);
            let said = ended.said;
            let is_well = ended.status.success() || self.is_struck();
            assert!(is_well, "{}: {}: {said}", self.at.display(), ended.status);
        }
        clear_away(self.world, &self.at);
    }
}

/// Reads until `bytes` are full or nothing comes: one read may be short where the next one fails.
fn read_to_end(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], at + read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}

fn is_served(world: &World, at: &Path) -> bool {
    let all = in_background(world.sandbox.path());
    all.iter().any(|(_, place)| place == at)
}

/// Sees the last of what was mounted at `at`, or was to be.
pub(super) fn clear_away(world: &World, at: &Path) {
    let mut said = String::new();
    let what = format!("nothing is left of {}", at.display());
    wait_until(&what, PROMPT, || {
        // Dead, it is anybody's to take away. Alive, its background process was ready when the one
        // that would have told so was killed.
        if is_mounted(at) {
            let output = world.sandbox.run(&["unmount".as_ref(), at.as_os_str()]);
            said = String::from_utf8_lossy(&output.stderr).into_owned();
            world.note(format_args!("unmounted {}: {said}", at.display()));
        }
        !is_mounted(at) && !is_served(world, at)
    });
    fs::remove_dir(at).unwrap();
}
