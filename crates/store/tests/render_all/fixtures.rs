//! Environments that the real SPFS has committed, rendered, and compared with its own renders.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farseek_object::{Digest, EnvSpec, S_IFDIR, S_IFLNK, S_IFMT};
use farseek_store::{
    FsOptions, FsRepository, RenderOptions, RenderSource, RenderStore, RenderStrategy, Repository,
    RepositoryExt as _, render_directory,
};
use farseek_testkit::oracle;
use serde_json::{Value, json};

use crate::site::{by, look, merged};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures")
}

/// What SPFS expects; `None`, with a line that says so, where the fixtures are not on this machine.
/// With `CI=true` that is a failure.
#[expect(
    clippy::print_stderr,
    reason = "the person who runs the tests must see it"
)]
fn expected(test: &str) -> Option<Value> {
    let path = fixtures().join("expected.json");
    if !path.exists() {
        let line = format!("LEFT OUT: {test}: it needs {}", path.display());
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{line}"
        );
        eprintln!("{line}");
        return None;
    }
    Some(serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
}

/// What is at `root`, in the words of `expected.json`.
fn described(root: &Path) -> Vec<Value> {
    let entries = look(root).into_iter().map(|(path, (mode, content))| {
        let permissions = format!("0o{:o}", mode & !S_IFMT);
        let size = content.len();
        match mode & S_IFMT {
            S_IFDIR => json!({"path": path, "mode": permissions, "kind": "dir"}),
            S_IFLNK => json!({
                "path": path, "mode": permissions, "kind": "symlink",
                "size": size, "target": String::from_utf8(content).unwrap(),
            }),
            _ => {
                let digest = Digest::of(&content);
                let hex = digest.as_bytes().iter().map(|byte| format!("{byte:02x}"));
                json!({
                    "path": path, "mode": permissions, "kind": "file",
                    "size": size, "sha256": hex.collect::<String>(),
                })
            }
        }
    });
    entries.collect()
}

/// Renders every reference of a fixture both ways.
async fn check(test: &str, name: &str, references: usize) {
    let Some(expected) = expected(test) else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("repository");
    // Renders are made in it: a copy.
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .args([fixtures().join(name), root.clone()])
        .status();
    assert!(copied.unwrap().success());
    let repository = Arc::new(FsRepository::open(&root, FsOptions::default()).unwrap());
    let renders = RenderStore::new(Arc::clone(&repository), "me").unwrap();
    let refs = expected[name]["refs"].as_object().unwrap();
    assert_eq!(refs.len(), references);
    for (number, (reference, facts)) in refs.iter().enumerate() {
        let spec: EnvSpec = reference.parse().unwrap();
        let manifests = repository.resolve_manifests(&spec).await.unwrap();
        let tree = merged(&manifests.iter().collect::<Vec<_>>());
        let source = RenderSource {
            local: Some(Arc::clone(&repository)),
            all: Arc::clone(&repository) as Arc<dyn Repository>,
        };
        let target = place.path().join(format!("out{number}"));
        let options = RenderOptions {
            set_id: true,
            ..RenderOptions::default()
        };
        render_directory(source, tree, &target, &options, Arc::new(()))
            .await
            .unwrap();
        let mut rendered = Vec::new();
        let only = manifests.len() == 1;
        for manifest in manifests {
            let options = by(RenderStrategy::HardLink);
            let one = renders.render(manifest, &options, Arc::new(())).await;
            rendered.push(one.unwrap().path);
        }
        if only {
            let compared = oracle::compare_trees(&rendered[0], &target);
            compared.unwrap_or_else(|difference| panic!("{reference}: {difference}"));
        }
        let mut wanted = facts["render"].as_array().unwrap().clone();
        wanted.sort_by_key(|entry| entry["path"].as_str().unwrap().to_owned());
        assert_eq!(described(&target), wanted, "{reference}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn todays_repository_is_rendered_as_spfs_does() {
    let test = "todays_repository_is_rendered_as_spfs_does";
    check(test, "repo", 18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_legacy_repository_is_rendered_as_spfs_does() {
    let test = "the_legacy_repository_is_rendered_as_spfs_does";
    check(test, "repo-legacy", 14).await;
}
