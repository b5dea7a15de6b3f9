//! From every kind of repository to every other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use farseek_object::EnvItem;
use farseek_store::{
    CopyOptions, FsOptions, FsRepository, HttpOptions, HttpRepository, Repository,
    RepositoryExt as _, ServeOptions, Server, StoreError, copy,
};
use farseek_testkit::StaticServer;

use crate::graph::{OBJECTS, PAYLOADS, contents, fill, name};
use crate::{checked, copy_missing, fs, memory};

fn http(url: &str) -> Arc<dyn Repository> {
    let options = HttpOptions {
        stall: Duration::from_secs(10),
        ..HttpOptions::default()
    };
    Arc::new(HttpRepository::open(url.parse().unwrap(), options).unwrap())
}

/// Copies everything, and compares.
async fn whole(original: &dyn Repository, from: Arc<dyn Repository>, to: Arc<dyn Repository>) {
    copy_missing(from, to.clone(), "org/env+org/env~1+layer")
        .await
        .unwrap();
    assert_eq!(contents(&*to).await, contents(original).await);
    for tag in ["org/env", "layer"] {
        let copy = to.read_tag(&name(tag)).await.unwrap();
        assert_eq!(copy, original.read_tag(&name(tag)).await.unwrap());
    }
    let report = checked(to).await;
    assert_eq!((report.problems, report.orphans), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn between_memory_and_disk() {
    let (in_memory, (_one, on_disk)) = (memory(), fs());
    fill(&*in_memory).await;
    whole(&*in_memory, in_memory.clone(), memory()).await;
    whole(&*in_memory, in_memory.clone(), on_disk.clone()).await;
    let (_two, other) = fs();
    whole(&*in_memory, on_disk.clone(), other).await;
    whole(&*in_memory, on_disk, memory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_web_servers_and_never_to_one() {
    let (directory, on_disk) = fs();
    fill(&*on_disk).await;
    let plain = StaticServer::start(directory.path());
    copy_missing(http(&plain.url()), memory(), "org/env")
        .await
        .unwrap();
    // Everything once, and the manifest that might have been a layer twice; nothing is asked for
    // without being fetched.
    let requests = plain.requests();
    let of = |what: &str| requests.iter().filter(|r| r.path.contains(what)).count();
    assert_eq!(of("/objects/"), OBJECTS + 1);
    assert_eq!(of("/payloads/"), PAYLOADS.len());
    assert_eq!((of("/tags/"), of("VERSION")), (1, 0));
    assert!(requests.iter().all(|request| request.method == "GET"));
    whole(&*on_disk, http(&plain.url()), memory()).await;
    let address = "127.0.0.1:0".parse().unwrap();
    let serving = Server::bind(on_disk.clone(), address, ServeOptions::default());
    let mut server = serving.await.unwrap();
    let (_other, to) = fs();
    whole(&*on_disk, http(&server.url()), to).await;

    let from = memory();
    crate::graph::put_blob(&*from, Default::default(), b"something else").await;
    let spec = crate::graph::digest("something else").to_string();
    let error = copy_missing(from, http(&server.url()), &spec)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Unsupported { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .ends_with("cannot store payloads: it is read-only")
    );
    server.shutdown();
    server.wait().await;
}

fn fixture(test: &str, name: &str) -> Option<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures");
    let path = fixtures.join(name);
    if path.is_dir() {
        return Some(path);
    }
    say(&format!("LEFT OUT: {test}: it needs {}", path.display()));
    None
}

#[expect(clippy::print_stderr, reason = "what is left out is said")]
fn say(line: &str) {
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{line}"
    );
    eprintln!("{line}");
}

/// All that tags name, in both encodings, and one that stays what it is when it is copied back.
#[tokio::test(flavor = "multi_thread")]
async fn repositories_of_the_real_spfs() {
    for name in ["repo", "repo-legacy"] {
        let Some(path) = fixture("repositories_of_the_real_spfs", name) else {
            return;
        };
        let from = FsRepository::open(&path, FsOptions::default()).unwrap();
        let from: Arc<dyn Repository> = Arc::new(from);
        let mut items = Vec::new();
        for tag in from.walk_tags("").await.unwrap() {
            let stream = from.read_tag(&tag).await.unwrap();
            for version in 0..stream.len() as u64 {
                let name = tag.clone();
                items.push(EnvItem::Tag(farseek_object::TagSpec { name, version }));
            }
        }
        assert!(items.len() > 5, "{name} has tags");
        let options = CopyOptions::default();
        let (_directory, on_disk) = fs();
        for to in [memory(), on_disk] {
            let nobody = Arc::new(());
            copy(from.clone(), to.clone(), &items, options, nobody)
                .await
                .unwrap();
            let (objects, payloads) = contents(&*to).await;
            let (all_objects, all_payloads) = contents(&*from).await;
            // What no tag names is not copied; everything else is the same to the last byte.
            assert!(
                objects
                    .iter()
                    .all(|(digest, bytes)| all_objects[digest] == *bytes)
            );
            assert!(
                payloads
                    .keys()
                    .all(|digest| all_payloads.contains_key(digest))
            );
            for tag in from.walk_tags("").await.unwrap() {
                let copy = to.read_tag(&tag).await.unwrap();
                assert_eq!(copy, from.read_tag(&tag).await.unwrap(), "{tag}");
            }
            let report = checked(to).await;
            assert_eq!(report.problems, []);
            assert_eq!(report.objects, objects.len() as u64);
        }
    }
}
