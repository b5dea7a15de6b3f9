//! Checks: every kind of damage is named, with the tags it affects, and repaired from another
//! repository.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod damage;
#[path = "../copy_all/graph.rs"]
mod graph;
mod kinds;
mod repairs;
mod tags;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use farseek_object::{Digest, EnvSpec};
use farseek_store::{
    CheckOptions, CheckReport, FsOptions, FsRepository, MemoryRepository, Problem, Repository,
    Result, check,
};
use tempfile::TempDir;

use crate::graph::{Graph, fill};

fn memory() -> Arc<dyn Repository> {
    Arc::new(MemoryRepository::new())
}

/// The graph on disk, and a whole copy of it elsewhere.
struct Scene {
    directory: TempDir,
    repository: Arc<dyn Repository>,
    graph: Graph,
    whole: Arc<dyn Repository>,
}

impl Scene {
    async fn make() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let repository = FsRepository::create(directory.path(), FsOptions::default()).unwrap();
        let repository: Arc<dyn Repository> = Arc::new(repository);
        let graph = fill(&*repository).await;
        let whole = memory();
        fill(&*whole).await;
        // The same tags to the second.
        for tag in ["org/env", "layer"] {
            let name = graph::name(tag);
            let stream = repository.read_tag(&name).await.unwrap();
            whole.remove_tag_stream(&name).await.unwrap();
            for version in stream.newest_first() {
                whole.insert_tag(version).await.unwrap();
            }
        }
        Self {
            directory,
            repository,
            graph,
            whole,
        }
    }

    fn file(&self, kind: &str, digest: &Digest) -> PathBuf {
        file_of(self.directory.path(), kind, digest)
    }

    fn tag(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("tags/{name}.tag"))
    }

    /// All of it.
    async fn check(&self) -> CheckReport {
        checked(&self.repository, "-", None).await.unwrap()
    }

    /// All of it, repaired from the whole copy.
    async fn repair(&self) -> CheckReport {
        let whole = Some(self.whole.clone());
        checked(&self.repository, "-", whole).await.unwrap()
    }
}

fn file_of(root: &Path, kind: &str, digest: &Digest) -> PathBuf {
    let text = digest.to_string();
    root.join(kind).join(&text[..2]).join(&text[2..])
}

async fn checked(
    repository: &Arc<dyn Repository>,
    spec: &str,
    source: Option<Arc<dyn Repository>>,
) -> Result<CheckReport> {
    let items = spec.parse::<EnvSpec>().unwrap().items;
    let options = CheckOptions::default();
    check(repository.clone(), &items, source, options, Arc::new(())).await
}

/// What is said of a problem.
fn told(problem: &Problem) -> (String, Vec<&str>) {
    let affects = problem.affects.iter().map(String::as_str).collect();
    (problem.to_string(), affects)
}
