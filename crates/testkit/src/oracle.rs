//! The oracle differ: a tree on disk and the same tree mounted, asked the same questions.
//!
//! The kernel's own file system is the oracle. [`run`] compares all names and attributes, then
//! several processes perform long random sequences of operations on both sides, then every byte
//! is compared. A sequence is decided by its seed alone, so that a [`Difference`] can be
//! repeated.
//!
//! What a mount may answer differently is not compared: times, owners, inode numbers, sizes of
//! directories, holes. A right side that is mounted read-only must refuse every change with
//! `EROFS`; any other right side is never written to.
//!
//! Workers are the calling program, started again: a test binary needs a test called
//! `oracle_worker` that calls [`worker`], any other program names itself in
//! [`Options::worker_arguments`].
//!
//! Lowest first: `outcome`, `catalog`, `action`, `files`, `names`,
//! `structure`, `sequence`, `workers`.

mod action;
mod catalog;
mod files;
mod names;
mod outcome;
mod sequence;
mod structure;
mod workers;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use workers::worker;

/// How long and how hard to look.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides every operation.
    pub seed: u64,
    /// Operations of each process.
    pub operations: u64,
    /// Processes at once.
    pub processes: u64,
    /// Whether to compare every byte of every file at the end.
    pub contents: bool,
    /// How long one operation may take before it counts as one that never ends.
    pub patience: Duration,
    /// Arguments that make the calling program call [`worker`].
    pub worker_arguments: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        let arguments = [
            "oracle_worker",
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ];
        Self {
            seed: 1,
            operations: 2_000,
            processes: 4,
            contents: true,
            patience: Duration::from_secs(60),
            worker_arguments: arguments.map(str::to_owned).to_vec(),
        }
    }
}

/// What was compared, all of it equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Files, directories and links.
    pub entries: u64,
    /// Operations of all processes.
    pub operations: u64,
}

/// The first thing that was not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The seed that leads here.
    pub seed: u64,
    /// The process and its step, where it was found by a random sequence.
    pub step: Option<(u64, u64)>,
    /// The path below both roots.
    pub path: Box<str>,
    /// What was done, with its range.
    pub operation: Box<str>,
    /// What the left side answered.
    pub left: Box<str>,
    /// What the right side answered.
    pub right: Box<str>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}: ", self.path, self.operation)?;
        write!(
            f,
            "left gives {}, right gives {} (seed {}",
            self.left, self.right, self.seed
        )?;
        match self.step {
            Some((process, step)) => write!(f, ", process {process}, step {step})"),
            None => write!(f, ")"),
        }
    }
}

impl std::error::Error for Difference {}

/// Compares `left`, the oracle, with `right` as [`Options`] say.
///
/// # Errors
/// The first difference found.
pub fn run(left: &Path, right: &Path, options: &Options) -> Result<Report, Difference> {
    let sow = |difference: Difference| Difference {
        seed: options.seed,
        ..difference
    };
    let entries = structure::compare(left, right, false).map_err(sow)?;
    let operations = workers::run(left, right, options)?;
    if options.contents {
        structure::compare(left, right, true).map_err(sow)?;
    }
    Ok(Report {
        entries,
        operations,
    })
}

/// Compares every name, attribute and byte, in one process, in order.
///
/// # Errors
/// The first difference found.
pub fn compare_trees(left: &Path, right: &Path) -> Result<u64, Difference> {
    structure::compare(left, right, true)
}
