//! Copies of whole graphs: what they ask, in which order they write, and what is left when they
//! fail.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod faults;
mod graph;
mod kinds;
mod policies;
mod ranges;
mod requests;
mod tags;
mod together;
mod watched;

use std::sync::Arc;

use farseek_object::{EnvItem, EnvSpec};
use farseek_store::{
    CheckOptions, CheckReport, CopyOptions, CopyPolicy, CopySummary, FsOptions, FsRepository,
    MemoryRepository, Repository, Result, check, copy,
};
use tempfile::TempDir;

fn memory() -> Arc<dyn Repository> {
    Arc::new(MemoryRepository::new())
}

fn fs() -> (TempDir, Arc<dyn Repository>) {
    let directory = tempfile::tempdir().unwrap();
    let repository = FsRepository::create(directory.path(), FsOptions::default()).unwrap();
    (directory, Arc::new(repository))
}

fn items(spec: &str) -> Vec<EnvItem> {
    spec.parse::<EnvSpec>().unwrap().items
}

async fn copy_with(
    from: Arc<dyn Repository>,
    to: Arc<dyn Repository>,
    spec: &str,
    policy: CopyPolicy,
) -> Result<CopySummary> {
    let options = CopyOptions {
        policy,
        ..CopyOptions::default()
    };
    copy(from, to, &items(spec), options, Arc::new(())).await
}

/// As it is without options.
async fn copy_missing(
    from: Arc<dyn Repository>,
    to: Arc<dyn Repository>,
    spec: &str,
) -> Result<CopySummary> {
    copy_with(from, to, spec, CopyPolicy::Missing).await
}

/// All of it is read and hashed.
async fn checked(repository: Arc<dyn Repository>) -> CheckReport {
    let options = CheckOptions::default();
    check(repository, &[], None, options, Arc::new(()))
        .await
        .unwrap()
}
