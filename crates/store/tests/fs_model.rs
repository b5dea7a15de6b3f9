//! The repository on disk against the one in memory, under random sequences of operations.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;

use bytes::Bytes;
use chrono::{TimeZone, Utc};
use farseek_object::{Blob, Digest, Header, Object, Tag, TagName};
use farseek_store::{
    FsOptions, FsRepository, MemoryRepository, PutOptions, Repository, RepositoryExt, StoreError,
};
use futures::{StreamExt, TryStreamExt, stream};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const NAMES: [&str; 4] = ["t", "a/t", "a/b/t", "a/b/u"];

#[derive(Debug, Clone)]
enum Step {
    PutPayload(u8, bool),
    RemovePayload(u8),
    PutObject(u8, bool),
    RemoveObject(u8),
    Publish,
    InsertTag(usize, u8),
    RemoveTag(usize, u8),
    RemoveStream(usize),
    PushTag(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let (value, deferred, name) = (0..6_u8, any::<bool>(), 0..NAMES.len());
    prop_oneof![
        (value.clone(), deferred).prop_map(|(v, d)| Step::PutPayload(v, d)),
        value.clone().prop_map(Step::RemovePayload),
        (value.clone(), deferred).prop_map(|(v, d)| Step::PutObject(v, d)),
        value.clone().prop_map(Step::RemoveObject),
        Just(Step::Publish),
        (name.clone(), value.clone()).prop_map(|(n, v)| Step::InsertTag(n, v)),
        (name.clone(), value.clone()).prop_map(|(n, v)| Step::RemoveTag(n, v)),
        name.clone().prop_map(Step::RemoveStream),
        (name, value).prop_map(|(n, v)| Step::PushTag(n, v)),
    ]
}

fn bytes(value: u8) -> Vec<u8> {
    vec![value; usize::from(value) * 1000]
}

fn blob(value: u8) -> Object {
    let bytes = bytes(value);
    let size = bytes.len() as u64;
    Object::Blob(Blob {
        header: Header::default(),
        payload: Digest::of(&bytes),
        size,
    })
}

fn name(index: usize) -> TagName {
    NAMES[index].parse().unwrap()
}

fn tag(index: usize, value: u8) -> Tag {
    Tag {
        name: name(index),
        target: Digest::of(&[value / 2]),
        parent: Digest::NULL,
        user: format!("user{value}@here"),
        time: Utc
            .timestamp_opt(1_000_000_000 - i64::from(value / 3), 0)
            .unwrap(),
    }
}

/// What a caller learns of one step.
async fn run(r: &dyn Repository, step: &Step) -> Result<String, String> {
    let options = |deferred| PutOptions {
        mode: None,
        deferred,
        digest: None,
    };
    let result = match *step {
        Step::PutPayload(value, deferred) => {
            let body = stream::iter([Ok(Bytes::from(bytes(value)))]).boxed();
            r.put_payload(body, options(deferred))
                .await
                .map(|stored| format!("{stored:?}"))
        }
        Step::RemovePayload(value) => r
            .remove_payload(&Digest::of(&bytes(value)))
            .await
            .map(|()| String::new()),
        Step::PutObject(value, deferred) => r
            .put_object(&blob(value), options(deferred))
            .await
            .map(|digest| digest.to_string()),
        Step::RemoveObject(value) => r
            .remove_object(&blob(value).digest())
            .await
            .map(|()| String::new()),
        Step::Publish => r.publish().await.map(|()| String::new()),
        Step::InsertTag(n, value) => r.insert_tag(&tag(n, value)).await.map(|()| String::new()),
        Step::RemoveTag(n, value) => r.remove_tag(&tag(n, value)).await.map(|()| String::new()),
        Step::RemoveStream(n) => r.remove_tag_stream(&name(n)).await.map(|()| String::new()),
        Step::PushTag(n, value) => {
            // The clocks differ, and with them the digests of the parents.
            let pushed = r.push_tag(&name(n), &Digest::of(&[value]), "me@here").await;
            pushed.map(|tag| tag.target.to_string())
        }
    };
    result.map_err(|error| match error {
        StoreError::UnknownTag { tag, .. } => format!("no tag {tag}"),
        other => panic!("{step:?}: {other}"),
    })
}

/// Everything that can be seen.
async fn look(r: &dyn Repository) -> Vec<String> {
    let mut seen = BTreeSet::new();
    for digest in r.list_objects(None).try_collect::<Vec<_>>().await.unwrap() {
        seen.insert(format!("object {:?}", r.get_object(&digest).await.unwrap()));
    }
    for digest in r.list_payloads().try_collect::<Vec<_>>().await.unwrap() {
        let payload = r.get_payload(&digest, 0..u64::MAX).await.unwrap();
        let bytes = payload.body.try_collect::<Vec<_>>().await.unwrap().concat();
        assert_eq!(Digest::of(&bytes), digest);
        seen.insert(format!("payload {digest} of {:?}", payload.size));
    }
    for name in r.walk_tags("").await.unwrap() {
        let stream = r.read_tag(&name).await.unwrap();
        let versions: Vec<_> = stream.newest_first().map(|v| (v.target, &v.user)).collect();
        seen.insert(format!("tag {name} {versions:?}"));
    }
    for folder in ["", "a", "a/b"] {
        seen.insert(format!(
            "folder {folder} {:?}",
            r.list_tags(folder).await.unwrap()
        ));
    }
    seen.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn disk_and_memory_agree(steps in proptest::collection::vec(step(), 1..40)) {
        let directory = TempDir::new().unwrap();
        let disk = FsRepository::create(directory.path(), FsOptions::default()).unwrap();
        let memory = MemoryRepository::new();
        let runtime = Runtime::new().unwrap();
        for step in &steps {
            let results = (
                runtime.block_on(run(&disk, step)),
                runtime.block_on(run(&memory, step)),
            );
            prop_assert_eq!(results.0, results.1, "{:?}", step);
        }
        prop_assert_eq!(runtime.block_on(look(&disk)), runtime.block_on(look(&memory)));
    }
}
