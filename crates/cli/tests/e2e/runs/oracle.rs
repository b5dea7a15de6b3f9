//! Random changes, made to a plain directory and in an editable runtime at once: what is committed
//! must show the same afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use farseek_testkit::Random;

use super::site::{Site, as_both};

/// Says what the worker is to do: `change` or `compare`, the plain directory, and a seed.
const TASK: &str = "TEST_OF_CHANGES";

const SPFS: &str = "/spfs";
const CHANGES: u64 = 150;
const SEEDS: u64 = 6;

/// What is at a path: its kind, its mode but for links, and its content.
type Seen = BTreeMap<PathBuf, (char, u32, Vec<u8>)>;

fn look(root: &Path) -> Seen {
    let mut seen = Seen::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let mode = metadata.mode() & 0o7777;
            let what = match () {
                () if metadata.is_dir() => ('d', mode, Vec::new()),
                () if metadata.is_symlink() => {
                    let target = fs::read_link(&path).unwrap().into_os_string();
                    ('l', 0, target.into_encoded_bytes())
                }
                () => ('f', mode, fs::read(&path).unwrap()),
            };
            if what.0 == 'd' {
                pending.push(path.clone());
            }
            seen.insert(path.strip_prefix(root).unwrap().to_owned(), what);
        }
    }
    seen
}

/// One change, by paths from the root of either tree.
#[derive(Debug)]
enum Change {
    Write(PathBuf, Vec<u8>),
    Append(PathBuf, Vec<u8>),
    Truncate(PathBuf, u64),
    Remove(PathBuf),
    MakeDir(PathBuf),
    /// Removes a directory and makes it anew, with a file in it.
    Anew(PathBuf, Vec<u8>),
    Link(PathBuf, String),
    Chmod(PathBuf, u32),
    Rename(PathBuf, PathBuf),
    /// Whatever is there becomes a file, or a directory.
    Replace(PathBuf, bool),
}

impl Change {
    fn random(random: &mut Random, seen: &Seen) -> Self {
        let known: Vec<&PathBuf> = seen.keys().collect();
        let of = |random: &mut Random, kind: char| {
            let all: Vec<&PathBuf> = known
                .iter()
                .filter(|p| seen[**p].0 == kind)
                .copied()
                .collect();
            (!all.is_empty()).then(|| random.pick(&all).to_path_buf())
        };
        let some_name = |random: &mut Random| {
            let directory = of(random, 'd').filter(|_| !random.once_in(4));
            let name = *random.pick(&["a", "b", "c", "d", "e f", "\u{e9}", ".h"]);
            directory.unwrap_or_default().join(name)
        };
        let any = |random: &mut Random| match known.is_empty() {
            true => PathBuf::from("a"),
            false => random.pick(&known).to_path_buf(),
        };
        let mut bytes = vec![0; random.index(3000)];
        random.fill(&mut bytes);
        let file = |random: &mut Random| of(random, 'f').unwrap_or_else(|| "a".into());
        let directory = |random: &mut Random| of(random, 'd').unwrap_or_else(|| "b".into());
        match random.below(16) {
            0 | 1 => Self::Write(some_name(random), bytes),
            2 => Self::Write(file(random), bytes),
            3 => Self::Append(file(random), bytes),
            4 => Self::Truncate(file(random), random.below(4000)),
            5 | 6 => Self::Remove(any(random)),
            7 | 8 => Self::MakeDir(some_name(random)),
            9 => Self::Anew(directory(random), bytes),
            10 => Self::Link(some_name(random), format!("../{}", random.below(9))),
            11 => Self::Chmod(
                file(random),
                *random.pick(&[0o600, 0o644, 0o755, 0o444, 0o4755]),
            ),
            12 => Self::Chmod(
                directory(random),
                *random.pick(&[0o700, 0o755, 0o777, 0o1777]),
            ),
            13 | 14 => Self::Rename(any(random), some_name(random)),
            _ => Self::Replace(any(random), random.once_in(2)),
        }
    }

    fn apply(&self, root: &Path) -> io::Result<()> {
        match self {
            Self::Write(path, bytes) => fs::write(root.join(path), bytes),
            Self::Append(path, bytes) => {
                let mut options = fs::OpenOptions::new();
                options.append(true).open(root.join(path))?.write_all(bytes)
            }
            Self::Truncate(path, size) => {
                let file = fs::OpenOptions::new().write(true).open(root.join(path))?;
                file.set_len(*size)
            }
            Self::Remove(path) => remove(&root.join(path)),
            Self::MakeDir(path) => fs::create_dir(root.join(path)),
            Self::Anew(path, bytes) => {
                remove(&root.join(path))?;
                fs::create_dir(root.join(path))?;
                fs::write(root.join(path).join("a"), bytes)
            }
            Self::Link(path, target) => symlink(target, root.join(path)),
            Self::Chmod(path, mode) => {
                fs::set_permissions(root.join(path), fs::Permissions::from_mode(*mode))
            }
            Self::Rename(from, to) => fs::rename(root.join(from), root.join(to)),
            Self::Replace(path, by_directory) => {
                remove(&root.join(path))?;
                match by_directory {
                    true => fs::create_dir(root.join(path)),
                    false => fs::write(root.join(path), "instead"),
                }
            }
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}

fn change(plain: &Path, seed: u64) {
    let mut random = Random::new(seed);
    let mut made = 0;
    for _ in 0..CHANGES {
        let change = Change::random(&mut random, &look(plain));
        let done = change.apply(Path::new(SPFS));
        // A directory of the environment itself is not renamed: programs copy it then.
        if done
            .as_ref()
            .is_err_and(|e| e.kind() == io::ErrorKind::CrossesDevices)
        {
            continue;
        }
        let expected = change.apply(plain);
        let kinds = [&done, &expected].map(|result| result.as_ref().map_err(|e| e.kind()).copied());
        assert_eq!(kinds[0], kinds[1], "seed {seed}: {change:?}");
        made += u64::from(done.is_ok());
    }
    assert!(
        made > CHANGES / 4,
        "seed {seed}: only {made} changes were made"
    );
    assert_eq!(
        look(Path::new(SPFS)),
        look(plain),
        "seed {seed}: while it is edited"
    );
}

/// Reads and writes a file of the environment at random, and compares with what it must hold.
fn exercise(seed: u64) {
    let path = Path::new(SPFS).join("large");
    let mut expected = fs::read(&path).unwrap();
    let open = || {
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap()
    };
    let mut file = open();
    let mut random = Random::new(seed);
    for step in 0..600 {
        let at = random.index(600_000);
        match random.below(8) {
            0..=2 => {
                let mut bytes = vec![0; 1 + random.index(70_000)];
                random.fill(&mut bytes);
                file.write_all_at(&bytes, at as u64).unwrap();
                let end = at + bytes.len();
                expected.resize(expected.len().max(end), 0);
                expected[at..end].copy_from_slice(&bytes);
            }
            3 => {
                file.set_len(at as u64).unwrap();
                expected.resize(at, 0);
            }
            // Others see what was written, through descriptors of their own.
            4 => file = open(),
            _ => {
                let mut bytes = vec![0; 1 + random.index(70_000)];
                let length = file.read_at(&mut bytes, at as u64).unwrap();
                let rest = expected.get(at..).unwrap_or_default();
                assert_eq!(
                    length,
                    rest.len().min(bytes.len()),
                    "seed {seed}, step {step}"
                );
                assert!(
                    bytes[..length] == rest[..length],
                    "seed {seed}, step {step}, at {at}"
                );
            }
        }
    }
    assert!(
        fs::read(&path).unwrap() == expected,
        "seed {seed}: at the end"
    );
}

/// The part that runs inside a runtime.
pub(crate) fn worker() {
    let task = std::env::var(TASK).unwrap();
    let mut words = task.split('|');
    let (what, plain) = (words.next().unwrap(), PathBuf::from(words.next().unwrap()));
    let seed = words.next().unwrap().parse().unwrap();
    match what {
        "change" => change(&plain, seed),
        "exercise" => exercise(seed),
        _ => assert_eq!(
            look(Path::new(SPFS)),
            look(&plain),
            "seed {seed}: once it is committed"
        ),
    }
}

/// Runs the worker in a runtime, and then `script`.
pub(super) fn work(site: &Site, arguments: &[&str], task: String, script: &str) {
    let program = site.path("worker");
    if !program.exists() {
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    }
    let script = format!(
        "set -e; \"$0\" changing_worker --exact --ignored --nocapture > tmp/said 2>&1 || \
         {{ cat tmp/said; exit 1; }}; grep -q '1 passed' tmp/said; {script}"
    );
    let words = ["run"].into_iter().chain(arguments.iter().copied());
    let mut words: Vec<&str> = words.chain(["--", "sh", "-c", &script]).collect();
    let program = program.display().to_string();
    words.push(&program);
    let mut command = site.command(&words);
    command.env(TASK, task);
    let output = farseek_testkit::output_within(&mut command, farseek_testkit::mount::PROMPT);
    let output = output.unwrap();
    let said = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
    assert!(output.status.success(), "{}{}", said[0], said[1]);
}

/// Two layers, the upper of which removes something of the lower.
fn make_base(site: &Site) {
    let base = site.make_dir("base");
    for name in [
        "a/a", "a/b", "b/c/d", "b/c/a", "c", "d/e f", "e f", "x/y/z/a",
    ] {
        site.write(&format!("base/{name}"), name);
    }
    symlink("a/b", base.join(".h")).unwrap();
    own(site, "base");
    site.commit("base", "test/base");
    let script = "rm -r /spfs/b; mkdir /spfs/b; echo m > /spfs/b/m; rm /spfs/c; echo m > /spfs/d/m
        \"$FARSEEK\" commit layer -t test/mid > /dev/null";
    site.script(&["test/base", "--edit"], script);
}

/// Gives all of a directory to who is at home.
pub(super) fn own(site: &Site, name: &str) {
    let like = fs::metadata(site.path("home")).unwrap();
    let owner = format!("{}:{}", like.uid(), like.gid());
    let status = Command::new("chown")
        .args(["-hR", &owner])
        .arg(site.path(name))
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn what_is_committed_is_what_was_seen() {
    as_both("what_is_committed_is_what_was_seen", |site| {
        make_base(site);
        for seed in 0..SEEDS {
            let plain = site.make_dir(&format!("plain-{seed}"));
            let copy = format!("cp -a /spfs/. {}", plain.display());
            site.script(&["test/base+test/mid"], &copy);
            let task = |what: &str| format!("{what}|{}|{seed}", plain.display());
            let commit = "\"$FARSEEK\" commit layer -t test/l > /dev/null
                \"$FARSEEK\" commit platform -t test/p > /dev/null";
            work(
                site,
                &["test/base+test/mid", "--edit"],
                task("change"),
                commit,
            );
            work(
                site,
                &["test/base+test/mid+test/l"],
                task("compare"),
                "true",
            );
            work(site, &["test/p"], task("compare"), "true");
        }
    });
}

#[test]
fn a_file_that_is_written_to_at_random_holds_what_was_written() {
    as_both("a_file_that_is_written_to_at_random", |site| {
        let directory = site.make_dir("base");
        let mut bytes = vec![0; 400_000];
        Random::new(1).fill(&mut bytes);
        fs::write(directory.join("large"), bytes).unwrap();
        own(site, "base");
        site.commit("base", "test/large");
        for seed in 0..SEEDS {
            let task = format!("exercise|/|{seed}");
            work(site, &["test/large", "--edit"], task, "true");
        }
    });
}
