//! What a copy asks of both ends, and in which order it writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use farseek_object::EnvItem;
use farseek_store::{CopyOptions, Progress, Repository, TagOutcome, copy};

use crate::graph::{OBJECTS, PAYLOADS, contents, fill};
use crate::watched::Watched;
use crate::{copy_missing, copy_with, items, memory};

type Counts = BTreeMap<String, usize>;

fn counts<const N: usize>(expected: [(&str, usize); N]) -> Counts {
    expected
        .into_iter()
        .map(|(method, count)| (method.to_owned(), count))
        .collect()
}

#[tokio::test]
async fn everything_is_asked_for_once_and_written_once() {
    let (from, to) = (Watched::new(memory()), Watched::new(memory()));
    let graph = fill(&*from).await;
    from.calls();
    let summary = copy_missing(from.clone(), to.clone(), "org/env")
        .await
        .unwrap();
    assert_eq!(to.violations(), Vec::<String>::new());
    // Objects once each, but for the bare manifest of a platform, which might have been a layer.
    // The tag: its version.
    let asked = [
        ("get_object", OBJECTS + 1),
        ("get_payload", PAYLOADS.len()),
        ("read_tag", 1),
    ];
    assert_eq!(from.counts(), counts(asked));
    let mut written = to.counts();
    let publishes = written.remove("publish").unwrap();
    assert!(publishes < 10, "few of them: {publishes}");
    // Not a word about blobs whose payloads are missing: these are needed in any case.
    let expected = [
        ("has_object", OBJECTS - PAYLOADS.len()),
        ("payload_size", PAYLOADS.len()),
        ("put_payload", PAYLOADS.len()),
        ("put_object", OBJECTS),
        ("insert_tag", 1),
        ("read_tag", 2),
    ];
    assert_eq!(written, counts(expected));
    assert_eq!(summary.objects, OBJECTS as u64);
    assert_eq!(summary.payloads, PAYLOADS.len() as u64);
    let bytes: usize = PAYLOADS.iter().map(|text| text.len()).sum();
    assert_eq!(summary.bytes, bytes as u64);
    let [item] = &summary.items[..] else {
        panic!("one item")
    };
    assert_eq!(item.digest, graph.env);
    assert_eq!(item.tag.as_ref().unwrap().1, TagOutcome::Updated);
    assert_eq!(contents(&*to).await, contents(&*from).await);
}

#[tokio::test]
async fn what_is_there_costs_a_question_and_no_answer() {
    let (from, to) = (Watched::new(memory()), Watched::new(memory()));
    fill(&*from).await;
    copy_missing(from.clone(), to.clone(), "org/env")
        .await
        .unwrap();
    from.calls();
    to.calls();
    let summary = copy_missing(from.clone(), to.clone(), "org/env")
        .await
        .unwrap();
    assert_eq!(
        (summary.objects, summary.payloads, summary.bytes),
        (0, 0, 0)
    );
    assert_eq!(
        summary.items[0].tag.as_ref().unwrap().1,
        TagOutcome::Unchanged
    );
    assert_eq!(from.counts(), counts([("read_tag", 1)]));
    // That it is no blob is what the last two tell.
    let asked = [
        ("read_tag", 1),
        ("has_object", 1),
        ("payload_size", 1),
        ("get_object", 1),
    ];
    assert_eq!(to.counts(), counts(asked));
}

#[tokio::test]
async fn what_is_there_is_not_descended_into() {
    let (from, to) = (Watched::new(memory()), Watched::new(memory()));
    let graph = fill(&*from).await;
    copy_missing(from.clone(), to.clone(), &graph.layer.to_string())
        .await
        .unwrap();
    from.calls();
    to.calls();
    copy_missing(from.clone(), to.clone(), &graph.env.to_string())
        .await
        .unwrap();
    let read = from.calls();
    for digest in [graph.layer, graph.manifest] {
        assert!(!read.contains(&format!("get_object {digest}")), "{read:?}");
    }
    let one = format!("get_payload {} 0", crate::graph::digest("one"));
    assert!(!read.contains(&one), "{read:?}");
    assert_eq!(to.counts()["put_payload"], PAYLOADS.len() - 2);
    assert_eq!(contents(&*to).await, contents(&*from).await);
}

#[tokio::test]
async fn tags_come_last_and_every_item_is_copied() {
    let (from, to) = (Watched::new(memory()), Watched::new(memory()));
    let graph = fill(&*from).await;
    let blob = crate::graph::digest("bare");
    let spec = format!("org/env~1+layer+{}+{blob}", graph.manifest);
    let summary = copy_missing(from.clone(), to.clone(), &spec).await.unwrap();
    assert_eq!(to.violations(), Vec::<String>::new());
    let calls = to.calls();
    let first = calls.iter().position(|call| call.starts_with("insert_tag"));
    let puts = calls.iter().rposition(|call| call.starts_with("put_"));
    assert!(puts < first, "{calls:?}");
    let digests: Vec<_> = summary.items.iter().map(|item| item.digest).collect();
    assert_eq!(digests, [graph.inner, graph.layer, graph.manifest, blob]);
    let tags: Vec<_> = summary
        .items
        .iter()
        .map(|item| item.tag.is_some())
        .collect();
    assert_eq!(tags, [true, true, false, false]);
    let names = [crate::graph::name("org/env"), crate::graph::name("layer")];
    for (name, target) in names.iter().zip([graph.inner, graph.layer]) {
        let stream = to.read_tag(name).await.unwrap();
        assert_eq!((stream.len(), stream.head().unwrap().target), (1, target));
    }
}

#[derive(Default)]
struct Told(std::sync::Mutex<[u64; 4]>);

impl Progress for Told {
    fn found(&self, items: u64, bytes: u64) {
        let mut told = self.0.lock().unwrap();
        (told[0], told[1]) = (items, bytes);
    }

    fn stored(&self, items: u64, bytes: u64) {
        let mut told = self.0.lock().unwrap();
        told[2] += items;
        told[3] += bytes;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_in_flight_are_bounded_and_counted() {
    let (from, to) = (memory(), Watched::new(memory()));
    let header = farseek_object::Header::default();
    let names: Vec<String> = (0..200).map(|number| format!("file {number}")).collect();
    for text in &names {
        crate::graph::put_blob(&*from, header, text.as_bytes()).await;
    }
    let files: Vec<_> = names
        .iter()
        .map(|text| (&**text, &**text, 0o100_644))
        .collect();
    let manifest = farseek_object::Object::Manifest(crate::graph::manifest(header, &files));
    let manifest = crate::graph::put(&*from, manifest).await;
    let options = CopyOptions {
        payloads: 3,
        ..CopyOptions::default()
    };
    let told = Arc::new(Told::default());
    // One is there already, and is not counted.
    crate::graph::put_blob(&*to, header, b"file 7").await;
    let items = [EnvItem::Digest(manifest)];
    let summary = copy(from, to.clone(), &items, options, told.clone())
        .await
        .unwrap();
    assert!((1..=3).contains(&to.most_open()), "{}", to.most_open());
    let bytes = summary.bytes;
    assert_eq!(*told.0.lock().unwrap(), [199, bytes, 199, bytes]);
    assert_eq!(summary.payloads, 199);
}

#[tokio::test]
async fn a_name_that_looks_like_a_digest_is_a_tag_where_no_object_has_it() {
    let (from, to) = (memory(), memory());
    let graph = fill(&*from).await;
    let name = crate::graph::name("MAIN");
    from.push_tag(&name, &graph.layer, "me@here").await.unwrap();
    let summary = copy_with(from, to.clone(), "MAIN", Default::default())
        .await
        .unwrap();
    assert!(summary.items[0].tag.is_some());
    assert!(to.read_tag(&name).await.is_ok());
    assert_eq!(items("MAIN").len(), 1);
}
