//! Repositories that the real SPFS wrote, read and compared with what SPFS says is in them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use farseek_object::{
    Digest, EnvSpec, MergeOptions, MergedTree, NodeKind, Object, S_IFMT, TagName,
};
use farseek_store::{FsOptions, FsRepository, Repository, RepositoryExt};
use futures::TryStreamExt;
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures")
}

/// The repository `name` and what is expected of it; `None`, with a line that says so, where the
/// fixtures are not on this machine. With `CI=true` that is a failure.
#[expect(
    clippy::print_stderr,
    reason = "the person who runs the tests must see it"
)]
fn fixture(test: &str, name: &str) -> Option<(FsRepository, Value)> {
    let expected = fixtures().join("expected.json");
    if !expected.exists() {
        let line = format!("LEFT OUT: {test}: it needs {}", expected.display());
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{line}"
        );
        eprintln!("{line}");
        return None;
    }
    let expected: Value = serde_json::from_slice(&std::fs::read(expected).unwrap()).unwrap();
    let repository = FsRepository::open(&fixtures().join(name), FsOptions::default()).unwrap();
    Some((repository, expected[name].clone()))
}

async fn payload(repository: &FsRepository, digest: &Digest) -> Vec<u8> {
    let payload = repository.get_payload(digest, 0..u64::MAX).await.unwrap();
    let chunks: Vec<_> = payload.body.try_collect().await.unwrap();
    let bytes = chunks.concat();
    assert_eq!(payload.size, Some(bytes.len() as u64));
    bytes
}

fn hex(digest: &Digest) -> String {
    digest
        .as_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Every object and payload: decodes, has its name, and is what the others say it is.
async fn check_all_objects(test: &str, name: &str, count: usize) {
    let Some((repository, _)) = fixture(test, name) else {
        return;
    };
    let digests: Vec<_> = repository.list_objects(None).try_collect().await.unwrap();
    assert_eq!(digests.len(), count);
    let mut kinds = BTreeMap::<_, usize>::new();
    for digest in &digests {
        let object = repository.get_object(digest).await.unwrap();
        *kinds.entry(object.kind()).or_default() += 1;
        for child in object.children() {
            assert!(
                repository.has_object(&child).await.unwrap(),
                "{digest} lacks {child}"
            );
        }
        if let Object::Blob(blob) = object {
            let size = repository.payload_size(&blob.payload).await.unwrap();
            assert_eq!(size, Some(blob.size));
        }
    }
    assert_eq!(kinds.len(), 4, "all kinds are there: {kinds:?}");
    let payloads: Vec<_> = repository.list_payloads().try_collect().await.unwrap();
    assert!(!payloads.is_empty());
    for digest in &payloads {
        assert_eq!(Digest::of(&payload(&repository, digest).await), *digest);
    }
}

/// What a reference holds, in the words of `expected.json`.
async fn render(repository: &FsRepository, reference: &str) -> Vec<Value> {
    let spec: EnvSpec = reference.parse().unwrap();
    let manifests = repository.resolve_manifests(&spec).await.unwrap();
    let layers: Vec<_> = manifests.iter().collect();
    let tree = MergedTree::new(&layers, MergeOptions::default()).unwrap();
    let mut entries = BTreeMap::new();
    for (position, node) in tree.nodes().iter().enumerate().skip(1) {
        let path = tree
            .path(position as u32)
            .trim_start_matches('/')
            .to_owned();
        let mode = format!("0o{:o}", node.mode & !S_IFMT);
        let entry = match node.kind() {
            NodeKind::Directory => json!({"path": path, "mode": mode, "kind": "dir"}),
            NodeKind::File => json!({
                "path": path, "mode": mode, "kind": "file",
                "size": node.size, "sha256": hex(&node.payload),
            }),
            NodeKind::Symlink => {
                let target = payload(repository, &node.payload).await;
                json!({
                    "path": path, "mode": mode, "kind": "symlink",
                    "size": node.size, "target": String::from_utf8(target).unwrap(),
                })
            }
        };
        entries.insert(path, entry);
    }
    entries.into_values().collect()
}

async fn check_refs(test: &str, name: &str, count: usize) {
    let Some((repository, expected)) = fixture(test, name) else {
        return;
    };
    let refs = expected["refs"].as_object().unwrap();
    assert_eq!(refs.len(), count);
    for (reference, facts) in refs {
        assert_eq!(facts["render_rc"], json!(0));
        let mut wanted = facts["render"].as_array().unwrap().clone();
        wanted.sort_by_key(|entry| entry["path"].as_str().unwrap().to_owned());
        let found = render(&repository, reference).await;
        for (found, wanted) in found.iter().zip(&wanted) {
            assert_eq!(found, wanted, "in {reference}");
        }
        assert_eq!(found.len(), wanted.len(), "entries of {reference}");
        check_info(&repository, reference, &facts["info"]).await;
    }
}

/// The first word of `info` is the digest a reference means. A stack has no `info`.
async fn check_info(repository: &FsRepository, reference: &str, info: &Value) {
    let Some(info) = info.as_str() else {
        return assert!(reference.contains('+'), "{reference} has no info");
    };
    let digest = repository
        .resolve(&reference.parse().unwrap())
        .await
        .unwrap();
    assert!(
        info.starts_with(&format!("{digest}:")),
        "{reference} is {digest}: {info}"
    );
}

async fn check_tags(test: &str, name: &str) {
    let Some((repository, expected)) = fixture(test, name) else {
        return;
    };
    let found: Vec<String> = repository
        .walk_tags("fix")
        .await
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    let all = expected["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| tag.as_str().unwrap());
    // The runtime's tags were renamed when the fixture was made: see its README.
    let wanted: Vec<_> = all.filter(|tag| tag.starts_with("fix/")).collect();
    assert_eq!(found, wanted);

    for (tag, log) in expected["logs"].as_object().unwrap() {
        let name: TagName = tag.parse().unwrap();
        let stream = repository.read_tag(&name).await.unwrap();
        let found: Vec<String> = stream
            .newest_first()
            .enumerate()
            .map(|(n, version)| {
                let n = if n == 0 {
                    String::new()
                } else {
                    format!("~{n}")
                };
                let time = version.time.format("%Y-%m-%d %H:%M:%S%.6f +00:00");
                format!(
                    "{} {name}{n} {} {time}",
                    version.target.short(),
                    version.user
                )
            })
            .collect();
        assert_eq!(json!(found), *log);
        let versions: Vec<_> = stream.newest_first().collect();
        for pair in versions.windows(2) {
            assert_eq!(
                pair[0].parent,
                pair[1].digest(),
                "the chain of {name} is whole"
            );
        }
        assert_eq!(versions.last().unwrap().parent, Digest::NULL);
        let bytes = std::fs::read(
            fixtures()
                .join(test_dir(repository.location()))
                .join(format!("tags/{name}.tag")),
        )
        .unwrap();
        assert_eq!(stream.encode(), bytes, "a tag file is written as SPFS does");
    }
    for (reference, sha256) in expected["blobs"].as_object().unwrap() {
        let digest = repository
            .resolve(&reference.parse().unwrap())
            .await
            .unwrap();
        assert_eq!(
            json!(hex(&Digest::of(&payload(&repository, &digest).await))),
            *sha256
        );
    }
}

fn test_dir(location: &str) -> &str {
    location.rsplit_once('/').unwrap().1
}

#[tokio::test]
async fn all_objects_of_the_current_format() {
    check_all_objects("all objects of the current format", "repo", 102).await;
}

#[tokio::test]
async fn all_objects_of_the_legacy_format() {
    check_all_objects("all objects of the legacy format", "repo-legacy", 49).await;
}

#[tokio::test]
async fn references_of_the_current_format() {
    check_refs("references of the current format", "repo", 18).await;
}

#[tokio::test]
async fn references_of_the_legacy_format() {
    check_refs("references of the legacy format", "repo-legacy", 14).await;
}

#[tokio::test]
async fn tags_of_the_current_format() {
    check_tags("tags of the current format", "repo").await;
}

#[tokio::test]
async fn tags_of_the_legacy_format() {
    check_tags("tags of the legacy format", "repo-legacy").await;
}

/// The runtime record of the fixture is where SPFS keeps it.
#[tokio::test]
async fn runtime_tags_are_listed() {
    let Some((repository, _)) = fixture("runtime tags are listed", "repo") else {
        return;
    };
    let names = repository.walk_tags("spfs").await.unwrap();
    let names: Vec<_> = names.iter().map(TagName::as_str).collect();
    assert_eq!(
        names,
        [
            "spfs/runtimes/data/fixture-durable",
            "spfs/runtimes/meta/fixture-durable"
        ]
    );
}
