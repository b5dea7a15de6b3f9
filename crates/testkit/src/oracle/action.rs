//! What can be asked of both sides, and the choice of what to ask next. Pure.

use std::ops::Range;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::catalog::{Catalog, KnownFile, any};
use crate::seed::Random;

/// The unit of `O_DIRECT` and of maps.
pub(super) const PAGE: u64 = 4096;
/// The longest single read.
const LONGEST: u64 = 3 << 20;

/// One operation on one path.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) path: PathBuf,
    pub(super) action: Action,
}

/// How a reader says it will read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    Normal,
    Random,
    Sequential,
    WillNeed,
    /// Drops the pages, so that the next read asks the file system again.
    DontNeed,
}

/// Where a seek starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Start,
    Current,
    End,
}

/// A change, which a read-only side refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    OpenToWrite,
    OpenToReadAndWrite,
    Truncate,
    CreateFile,
    CreateDirectory,
    CreateLink,
    HardLink,
    Remove,
    Rename,
    Mode,
    Times,
}

/// What is done.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Pread(Range<u64>),
    /// Several buffers one after the other.
    Preadv(u64, Vec<usize>),
    /// Seeks, reads this many bytes, and tells the cursor.
    Read(Origin, i64, usize),
    SeekData(i64),
    SeekHole(i64),
    Map {
        range: Range<u64>,
        shared: bool,
        write: bool,
        advice: Advice,
    },
    /// A shared writable map of a file opened for reading: refused.
    MapToWrite,
    Sendfile(Range<u64>),
    Splice(Range<u64>),
    Direct(Range<u64>),
    Advise(Range<u64>, Advice),
    Stat,
    /// `stat` of what a link leads to.
    StatThrough,
    Readlink,
    /// Lists with a buffer of this size, then again from a cookie that the number picks.
    List(usize, u64),
    Execute(Vec<String>),
    Open(OFlag),
    /// A name that does not exist below the path.
    Missing,
    Change(Change),
}

/// The next step. `recent` are files that are likely open; changes only where `read_only`.
pub(super) fn choose(
    random: &mut Random,
    catalog: &Catalog,
    recent: &[KnownFile],
    read_only: bool,
) -> Step {
    if !random.once_in(4) {
        let recent = if random.once_in(2) {
            any(random, recent)
        } else {
            None
        };
        if let Some(file) = recent.or_else(|| catalog.any_file(random)) {
            let action = file_action(random, file.size);
            return Step {
                path: file.path.clone(),
                action,
            };
        }
    }
    name_step(random, catalog, read_only)
}

fn file_action(random: &mut Random, size: u64) -> Action {
    match random.below(24) {
        0..=5 => Action::Pread(range(random, size)),
        6 | 7 => Action::Preadv(offset(random, size), lengths(random)),
        8..=10 => read(random, size),
        11 => Action::SeekData(signed(offset(random, size))),
        12 => Action::SeekHole(signed(offset(random, size))),
        13..=16 => map(random, size),
        17 => Action::Sendfile(range(random, size)),
        18 => Action::Splice(range(random, size)),
        19 | 20 => Action::Direct(pages(range(random, size))),
        21 => Action::MapToWrite,
        _ => {
            let every = [
                Advice::DontNeed,
                Advice::DontNeed,
                Advice::Random,
                Advice::Sequential,
            ];
            let advice = *random.pick(&every);
            let whole = random.once_in(2);
            Action::Advise(if whole { 0..size } else { range(random, size) }, advice)
        }
    }
}

fn read(random: &mut Random, size: u64) -> Action {
    let at = signed(offset(random, size));
    let len = usize::try_from(length(random)).expect("a length fits");
    match random.below(3) {
        0 => Action::Read(Origin::Start, at, len),
        // May be before the start: then both refuse.
        1 => Action::Read(Origin::Current, at - signed(random.below(3)), len),
        _ => Action::Read(
            Origin::End,
            at - signed(size) - signed(random.below(2)),
            len,
        ),
    }
}

fn map(random: &mut Random, size: u64) -> Action {
    let end_of_pages = size.next_multiple_of(PAGE);
    let wanted = pages(range(random, size));
    let start = wanted.start.min(end_of_pages.saturating_sub(PAGE));
    let range = start..wanted.end.min(end_of_pages).max(start);
    let advices = [
        Advice::Normal,
        Advice::Random,
        Advice::Sequential,
        Advice::WillNeed,
    ];
    let advice = *random.pick(&advices);
    let shared = random.once_in(2);
    Action::Map {
        range,
        shared,
        write: !shared && random.once_in(2),
        advice,
    }
}

fn name_step(random: &mut Random, catalog: &Catalog, read_only: bool) -> Step {
    let on = |path: &PathBuf, action| {
        Some(Step {
            path: path.clone(),
            action,
        })
    };
    let chosen = match random.below(16) {
        0 | 1 => any(random, &catalog.links).and_then(|path| on(path, Action::Readlink)),
        2 => any(random, &catalog.links).and_then(|path| on(path, Action::StatThrough)),
        3..=5 => {
            let path = random.pick(&catalog.directories);
            let buffer = *random.pick(&[320, 512, 4096, 32_768]);
            on(path, Action::List(buffer, random.bits()))
        }
        6 => any(random, &catalog.programs).and_then(|path| {
            let arguments = (0..random.below(3))
                .map(|n| format!("{n} and more"))
                .collect();
            on(path, Action::Execute(arguments))
        }),
        7 | 8 => {
            let flags = [
                OFlag::O_RDONLY,
                OFlag::O_RDONLY | OFlag::O_DIRECTORY,
                OFlag::O_RDONLY | OFlag::O_NOFOLLOW,
                OFlag::O_PATH,
                OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_EXCL,
            ];
            let safe = if read_only {
                flags.len()
            } else {
                flags.len() - 1
            };
            let flags = flags[random.index(safe)];
            on(&catalog.any_path(random).to_owned(), Action::Open(flags))
        }
        9 => on(&catalog.any_path(random).to_owned(), Action::Missing),
        10 | 11 if read_only => change(random, catalog).map(|(path, change)| Step {
            path,
            action: Action::Change(change),
        }),
        _ => None,
    };
    chosen.unwrap_or_else(|| stat(catalog.any_path(random)))
}

/// The root's own mode is not part of what is committed, so that it is not compared.
fn stat(path: &Path) -> Step {
    let is_root = path.as_os_str().is_empty();
    let action = if is_root {
        Action::Missing
    } else {
        Action::Stat
    };
    Step {
        path: path.to_owned(),
        action,
    }
}

fn change(random: &mut Random, catalog: &Catalog) -> Option<(PathBuf, Change)> {
    let of_file = [
        Change::OpenToWrite,
        Change::OpenToReadAndWrite,
        Change::Truncate,
        Change::HardLink,
        Change::Remove,
        Change::Rename,
        Change::Mode,
        Change::Times,
    ];
    let of_directory = [
        Change::CreateFile,
        Change::CreateDirectory,
        Change::CreateLink,
    ];
    if random.once_in(3) {
        return Some((
            random.pick(&catalog.directories).clone(),
            *random.pick(&of_directory),
        ));
    }
    any(random, &catalog.files).map(|file| (file.path.clone(), *random.pick(&of_file)))
}

/// An offset, most often near a boundary that something on the way cares about.
fn offset(random: &mut Random, size: u64) -> u64 {
    let near = random.below(5);
    let anywhere = random.below(size + 2);
    let boundary = *random.pick(&[512, PAGE, 64 << 10, 128 << 10, 256 << 10, 1 << 20, 4 << 20]);
    match random.below(8) {
        0 => near,
        1 | 2 => anywhere,
        3..=5 => (anywhere / boundary * boundary + near).saturating_sub(2),
        6 => (size + near).saturating_sub(3),
        _ => size.saturating_sub(random.below(70_000)),
    }
}

fn length(random: &mut Random) -> u64 {
    let near = random.below(3);
    match random.below(8) {
        0 => near,
        1..=3 => random.below(9_000),
        4 => PAGE - 1 + near,
        5 => (64 << 10) - 1 + near,
        6 => (256 << 10) - 1 + near,
        _ => random.below(LONGEST),
    }
}

fn lengths(random: &mut Random) -> Vec<usize> {
    let lengths = (0..=random.below(5)).map(|_| random.below(70_000));
    lengths
        .map(|length| usize::try_from(length).expect("a length fits"))
        .collect()
}

fn range(random: &mut Random, size: u64) -> Range<u64> {
    let start = offset(random, size);
    start..start + length(random)
}

/// The whole pages that `range` touches, at least one.
fn pages(range: Range<u64>) -> Range<u64> {
    let start = range.start / PAGE * PAGE;
    start..range.end.next_multiple_of(PAGE).max(start + PAGE)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("files are smaller than 8 EiB")
}

#[cfg(test)]
mod tests {
    use super::{Action, Catalog, KnownFile, PAGE, choose};
    use crate::seed::Random;

    #[test]
    fn a_seed_decides_the_sequence_and_maps_stay_within_the_file() {
        let files = [0, 1, 4096, 4097, 1 << 40].map(|size: u64| KnownFile {
            path: size.to_string().into(),
            size,
        });
        let catalog = Catalog {
            large: files[4..].to_vec(),
            files: files.to_vec(),
            directories: vec!["".into()],
            ..Catalog::default()
        };
        let sequence = |seed| {
            let mut random = Random::new(seed);
            (0..5_000)
                .map(|_| choose(&mut random, &catalog, &[], true))
                .collect::<Vec<_>>()
        };
        assert_eq!(format!("{:?}", sequence(3)), format!("{:?}", sequence(3)));
        let mut maps = 0;
        for step in sequence(3) {
            if let Action::Map { range, .. } = step.action {
                let size: u64 = step.path.to_str().unwrap().parse().unwrap();
                assert!(range.start % PAGE == 0 && range.end <= size.next_multiple_of(PAGE));
                maps += 1;
            }
        }
        assert!(maps > 100);
    }
}
