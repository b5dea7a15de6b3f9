//! One process's random sequence: each step done on both sides and compared.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, statvfs};

use super::Difference;
use super::action::{Action, Step, choose};
use super::catalog::{Catalog, KnownFile};
use super::outcome::{Outcome, errno};
use super::{files, names};
use crate::seed::Random;

/// Files that a process keeps open.
const OPEN_FILES: usize = 8;

/// What a process is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) left: PathBuf,
    pub(super) right: PathBuf,
    pub(super) seed: u64,
    pub(super) operations: u64,
    pub(super) process: u64,
}

/// The same file on both sides.
struct OpenPair {
    known: KnownFile,
    left: File,
    right: File,
}

/// Performs the sequence. `before` hears of every step before it is done.
pub(super) fn perform(
    job: &Job,
    mut before: impl FnMut(u64, &Step) -> io::Result<()>,
) -> Result<(), Difference> {
    let trouble = |error: io::Error| {
        let step = Step {
            path: PathBuf::new(),
            action: Action::Stat,
        };
        difference(job, 0, &step, "a tree".to_owned(), error.to_string())
    };
    let catalog = Catalog::of(&job.left).map_err(trouble)?;
    let read_only = statvfs(&job.right)
        .map_err(|errno| trouble(errno.into()))?
        .flags()
        .contains(FsFlags::ST_RDONLY);
    let mut random = Random::fork(job.seed, job.process);
    let mut open: Vec<OpenPair> = Vec::new();
    for number in 0..job.operations {
        let recent: Vec<_> = open.iter().map(|pair| pair.known.clone()).collect();
        let step = choose(&mut random, &catalog, &recent, read_only);
        before(number, &step).map_err(trouble)?;
        let (left, right) = on_both_sides(job, &step, &catalog, &mut open);
        if !agree(&step.action, &left, &right) {
            let words = (left.describe_beside(&right), right.describe_beside(&left));
            return Err(difference(job, number, &step, words.0, words.1));
        }
    }
    Ok(())
}

fn difference(job: &Job, number: u64, step: &Step, left: String, right: String) -> Difference {
    Difference {
        seed: job.seed,
        step: Some((job.process, number)),
        path: step.path.to_string_lossy().into(),
        operation: format!("{:?}", step.action).into(),
        left: left.into(),
        right: right.into(),
    }
}

/// Whether two answers are the same, as far as they must be.
fn agree(action: &Action, left: &Outcome, right: &Outcome) -> bool {
    match action {
        // The left side is not asked: it could be changed.
        Action::Change(_) => *right == Outcome::Failed(Errno::EROFS),
        // A file system need not know its holes: data everywhere is always a right answer. The
        // left side may say so too, or better.
        Action::SeekData(offset) => {
            left == right || (is_number(left) && *right == Outcome::Number(*offset))
        }
        Action::SeekHole(_) => match (left, right) {
            (Outcome::Number(left), Outcome::Number(right)) => left <= right,
            _ => left == right,
        },
        _ => left == right,
    }
}

fn is_number(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Number(_))
}

fn on_both_sides(
    job: &Job,
    step: &Step,
    catalog: &Catalog,
    open: &mut Vec<OpenPair>,
) -> (Outcome, Outcome) {
    let (left, right) = (job.left.join(&step.path), job.right.join(&step.path));
    if let Action::Change(_) = step.action {
        return (
            Outcome::Failed(Errno::EROFS),
            names::perform(&step.action, &right),
        );
    }
    if !is_on_open_file(&step.action) {
        return (
            names::perform(&step.action, &left),
            names::perform(&step.action, &right),
        );
    }
    let pair = match opened(&step.path, (&left, &right), catalog, open) {
        Ok(pair) => pair,
        Err(outcomes) => return outcomes,
    };
    let on =
        |file, path| files::perform(&step.action, file, path).expect("an action on an open file");
    (on(&pair.left, &left), on(&pair.right, &right))
}

fn is_on_open_file(action: &Action) -> bool {
    matches!(
        action,
        Action::Pread(_)
            | Action::Preadv(..)
            | Action::Read(..)
            | Action::SeekData(_)
            | Action::SeekHole(_)
            | Action::Map { .. }
            | Action::MapToWrite
            | Action::Sendfile(_)
            | Action::Splice(_)
            | Action::Direct(_)
            | Action::Advise(..)
    )
}

/// The pair of open files at `path`, or what opening them gave where one side refused.
fn opened<'a>(
    path: &Path,
    (left, right): (&Path, &Path),
    catalog: &Catalog,
    open: &'a mut Vec<OpenPair>,
) -> Result<&'a OpenPair, (Outcome, Outcome)> {
    if let Some(position) = open.iter().position(|pair| pair.known.path == path) {
        return Ok(&open[position]);
    }
    let (left, right) = match (File::open(left), File::open(right)) {
        (Ok(left), Ok(right)) => (left, right),
        (left, right) => {
            let outcome = |side: io::Result<File>| match side {
                Ok(_) => Outcome::Text("an open file".to_owned()),
                Err(error) => Outcome::Failed(errno(&error)),
            };
            return Err((outcome(left), outcome(right)));
        }
    };
    if open.len() == OPEN_FILES {
        open.remove(0);
    }
    let known = catalog.files.iter().find(|file| file.path == path);
    let known = known
        .expect("steps on files name files of the catalog")
        .clone();
    open.push(OpenPair { known, left, right });
    Ok(open.last().expect("just pushed"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use nix::errno::Errno;

    use super::{Action, Catalog, Job, Outcome, agree, choose, on_both_sides};
    use crate::seed::Random;
    use crate::tree::{TreeOptions, generate};

    #[test]
    fn every_kind_of_operation_is_done_and_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let options = TreeOptions {
            largest: 300_000,
            crowd: 40,
            ..TreeOptions::default()
        };
        generate(dir.path(), &options).unwrap();
        let (left, right) = (dir.path().to_owned(), dir.path().to_owned());
        let job = Job {
            left,
            right,
            seed: 1,
            operations: 0,
            process: 0,
        };
        let catalog = Catalog::of(&job.left).unwrap();
        let (mut random, mut open) = (Random::new(1), Vec::new());
        let mut succeeded = BTreeSet::new();
        let mut longest = 0;
        for _ in 0..4_000 {
            let step = choose(&mut random, &catalog, &[], false);
            let (left, right) = on_both_sides(&job, &step, &catalog, &mut open);
            assert!(
                agree(&step.action, &left, &right),
                "{step:?}: {left:?} {right:?}"
            );
            if let Outcome::Bytes(_, bytes) = &left {
                longest = longest.max(bytes.len());
            }
            if !matches!(left, Outcome::Failed(_)) {
                let name = format!("{:?}", step.action);
                let end = name
                    .find(|c: char| !c.is_alphanumeric())
                    .unwrap_or(name.len());
                succeeded.insert(name[..end].to_owned());
            }
        }
        let expected = [
            "Advise",
            "Direct",
            "Execute",
            "List",
            "Map",
            "Open",
            "Pread",
            "Preadv",
            "Read",
            "Readlink",
            "SeekData",
            "SeekHole",
            "Sendfile",
            "Splice",
            "Stat",
            "StatThrough",
        ];
        assert_eq!(succeeded, expected.map(str::to_owned).into());
        assert!(longest >= 250_000);
    }

    #[test]
    fn holes_need_not_be_known_but_must_not_be_invented() {
        let data = |left, right| {
            agree(
                &Action::SeekData(10),
                &Outcome::Number(left),
                &Outcome::Number(right),
            )
        };
        assert!(data(4096, 10) && data(10, 10) && data(4096, 4096));
        assert!(!data(10, 4096) && !data(4096, 11));
        let hole = |left, right| {
            agree(
                &Action::SeekHole(10),
                &Outcome::Number(left),
                &Outcome::Number(right),
            )
        };
        assert!(hole(50, 100) && hole(100, 100));
        assert!(!hole(100, 50));
        let beyond = Outcome::Failed(Errno::ENXIO);
        assert!(agree(&Action::SeekData(10), &beyond, &beyond));
        assert!(!agree(&Action::SeekData(10), &beyond, &Outcome::Number(10)));
    }
}
