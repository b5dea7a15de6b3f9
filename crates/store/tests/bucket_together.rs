//! Many who write one tag of a bucket at once, through clients of their own: none is lost, and
//! every version has the one before it as its parent.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::sync::Arc;

use farseek_object::{Digest, Tag, TagName};
use farseek_store::{Location, OpenOptions, Repository, open};
use farseek_testkit::BucketServer;
use futures::future::join_all;

const PUSHES: usize = 100;
const CLIENTS: usize = 10;

async fn client(server: &BucketServer) -> Arc<dyn Repository> {
    let secret = BucketServer::SECRET_KEY.replace('+', "%2B");
    let address = format!(
        "s3://{}/site?endpoint={}&access_key_id={}&secret_access_key={secret}",
        BucketServer::BUCKET,
        server.endpoint(),
        BucketServer::ACCESS_KEY,
    );
    let location: Location = address.parse().unwrap();
    open(&location, &OpenOptions::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_versions_of_one_tag_at_once_are_all_there_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let server = BucketServer::start(folder.path());
    let name: TagName = "test/one".parse().unwrap();
    let clients = join_all((0..CLIENTS).map(|_| client(&server))).await;
    let pushes = (0..PUSHES).map(|number| {
        let (client, name) = (Arc::clone(&clients[number % CLIENTS]), name.clone());
        tokio::spawn(async move {
            let target = Digest::of(number.to_string().as_bytes());
            client.push_tag(&name, &target, "somebody").await.unwrap();
            target
        })
    });
    let pushed: HashSet<Digest> = join_all(pushes)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(pushed.len(), PUSHES);

    let stream = client(&server).await.read_tag(&name).await.unwrap();
    let versions: Vec<_> = stream.newest_first().collect();
    let targets: HashSet<Digest> = versions.iter().map(|tag| tag.target).collect();
    assert_eq!(versions.len(), PUSHES, "no version twice");
    assert_eq!(targets, pushed);
    for pair in versions.windows(2) {
        assert_eq!(pair[0].parent, pair[1].digest(), "{pair:?}");
        // Two who saw the same head may take the same time: then the target decides.
        let place = |tag: &Tag| (tag.time, tag.target);
        assert!(place(pair[0]) > place(pair[1]), "{pair:?}");
    }
    assert_eq!(versions.last().unwrap().parent, Digest::NULL);
    // Everybody sees the same history, and so does who reads the copy by plain HTTP.
    for client in &clients {
        assert_eq!(client.read_tag(&name).await.unwrap(), stream);
    }
    let copy = std::fs::read(server.folder().join("site/tags/test/one.tag")).unwrap();
    let copy = farseek_object::TagStream::decode(&copy);
    assert_eq!(copy.unwrap(), stream);
}
