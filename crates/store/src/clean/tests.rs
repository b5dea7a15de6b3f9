//! Plans and sweeps of graphs made at random, against what a person would say.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use farseek_object::{
    Annotation, AnnotationValue, Blob, DirectoryBuilder, EntryName, Header, Layer, NewEntry,
    Object, Platform,
};
use futures::stream;
use futures::{StreamExt, TryStreamExt};
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::memory::MemoryRepository;
use crate::payload::PutOptions;

/// How many of each kind there are.
const EACH: usize = 4;

/// A graph, and what is done with it.
#[derive(Debug, Clone)]
struct Case {
    /// What each manifest, layer and platform refers to, by numbers that are taken modulo.
    edges: Vec<Vec<usize>>,
    tagged: Vec<usize>,
    young_objects: BTreeSet<usize>,
    young_payloads: BTreeSet<usize>,
    absent_objects: BTreeSet<usize>,
    /// What is refreshed, and what is tagged, between plan and sweep.
    refreshed: BTreeSet<usize>,
    tagged_late: Option<usize>,
}

fn cases() -> impl Strategy<Value = Case> {
    let some = || prop::collection::btree_set(0usize..5 * EACH, 0..4);
    (
        prop::collection::vec(prop::collection::vec(0usize..100, 1..4), 4 * EACH),
        prop::collection::vec(0usize..5 * EACH, 0..4),
        some(),
        prop::collection::btree_set(0..EACH, 0..3),
        prop::collection::btree_set(0..EACH, 0..3),
        some(),
        prop::option::of(0usize..5 * EACH),
    )
        .prop_map(
            |(edges, tagged, young_objects, young_payloads, absent_objects, refreshed, late)| {
                Case {
                    edges,
                    tagged,
                    young_objects,
                    young_payloads,
                    absent_objects,
                    refreshed,
                    tagged_late: late,
                }
            },
        )
}

/// Objects by number: blobs, manifests, layers, and twice as many platforms, each of which may
/// stack earlier ones.
struct Graph {
    objects: Vec<Object>,
    digests: Vec<Digest>,
    children: BTreeMap<Digest, Vec<Digest>>,
}

fn payload(n: usize) -> Bytes {
    format!("payload {n}").into()
}

impl Graph {
    fn new(case: &Case) -> Self {
        let mut graph = Self {
            objects: Vec::new(),
            digests: Vec::new(),
            children: BTreeMap::new(),
        };
        let header = Header::default();
        for n in 0..EACH {
            let size = payload(n).len() as u64;
            let payload = Digest::of(&payload(n));
            graph.add(Object::Blob(Blob {
                header,
                payload,
                size,
            }));
        }
        for (n, edges) in case.edges.iter().enumerate() {
            let object = match n / EACH {
                0 => manifest(n, edges.iter().map(|edge| graph.digests[edge % EACH])),
                1 => {
                    let value = AnnotationValue::Blob(graph.digests[edges[0] % EACH]);
                    let key = n.to_string();
                    let manifest = Some(graph.digests[EACH + edges[0] % EACH]);
                    let layer = Layer::new(header, manifest, vec![Annotation { key, value }]);
                    Object::Layer(layer.unwrap())
                }
                _ => {
                    let layers = edges.iter().map(|edge| graph.digests[EACH + edge % n]);
                    let own = Digest::of(&n.to_le_bytes());
                    let layers = layers.chain([own]).collect();
                    Object::Platform(Platform { header, layers })
                }
            };
            graph.add(object);
        }
        graph
    }

    fn add(&mut self, object: Object) {
        let digest = object.digest();
        self.children.insert(digest, object.children());
        self.digests.push(digest);
        self.objects.push(object);
    }

    /// Everything that is reached from `roots`, through what is `there`.
    fn reach(
        &self,
        roots: impl IntoIterator<Item = Digest>,
        there: &BTreeSet<Digest>,
    ) -> BTreeSet<Digest> {
        let mut reached = BTreeSet::new();
        let mut pending: Vec<Digest> = roots.into_iter().collect();
        while let Some(digest) = pending.pop() {
            if reached.insert(digest) && there.contains(&digest) {
                pending.extend(self.children.get(&digest).into_iter().flatten());
            }
        }
        reached
    }
}

fn manifest(n: usize, blobs: impl Iterator<Item = Digest>) -> Object {
    let mut root = DirectoryBuilder::new();
    for (at, object) in blobs.enumerate() {
        let name = EntryName::new(&format!("{n}-{at}")).unwrap();
        let (mode, size) = (0o100_644, 9);
        root.insert(name, NewEntry::Blob { object, mode, size });
    }
    Object::Manifest(root.into_manifest(Header::default()).unwrap())
}

async fn put_payload(repository: &dyn Repository, n: usize) {
    let body = stream::iter([Ok(payload(n))]).boxed();
    repository
        .put_payload(body, PutOptions::default())
        .await
        .unwrap();
}

async fn listed(repository: &dyn Repository) -> (BTreeSet<Digest>, BTreeSet<Digest>) {
    let objects = repository.list_objects(None).try_collect().await.unwrap();
    let payloads = repository.list_payloads().try_collect().await.unwrap();
    (objects, payloads)
}

/// A moment that everything before it is older than, and nothing after it.
async fn moment() -> SystemTime {
    let pause = Duration::from_millis(1);
    tokio::time::sleep(pause).await;
    let now = SystemTime::now();
    tokio::time::sleep(pause).await;
    now
}

async fn run(case: &Case) {
    let graph = Graph::new(case);
    let repository: Arc<dyn Repository> = Arc::new(MemoryRepository::new());
    let (absent, all) = (&case.absent_objects, graph.objects.len());
    for n in 0..EACH {
        put_payload(&*repository, n).await;
    }
    for n in (0..all).filter(|n| !absent.contains(n)) {
        let put = PutOptions::default();
        repository.put_object(&graph.objects[n], put).await.unwrap();
    }
    for (at, n) in case.tagged.iter().enumerate() {
        let name = format!("t{at}").parse().unwrap();
        repository
            .push_tag(&name, &graph.digests[*n], "me@here")
            .await
            .unwrap();
    }
    let limit = moment().await;
    let young = |n: &&usize| !absent.contains(n);
    for n in case.young_objects.iter().filter(young) {
        assert!(repository.refresh_object(&graph.digests[*n]).await.unwrap());
    }
    for n in &case.young_payloads {
        put_payload(&*repository, *n).await;
    }

    let (objects, payloads) = listed(&*repository).await;
    let tagged = case.tagged.iter().map(|n| graph.digests[*n]);
    let of_tags = graph.reach(tagged, &objects);
    let young = case
        .young_objects
        .iter()
        .filter(young)
        .map(|n| graph.digests[*n]);
    let kept: BTreeSet<Digest> = of_tags
        .union(&graph.reach(young, &objects))
        .copied()
        .collect();
    let young_payloads: BTreeSet<Digest> = case
        .young_payloads
        .iter()
        .map(|n| graph.digests[*n])
        .collect();

    let options = CleanOptions::default();
    let plan = plan_older_than(&repository, limit, &options, &())
        .await
        .unwrap();
    let expected: BTreeSet<Digest> = objects.difference(&kept).copied().collect();
    let doomed: Vec<Digest> = plan.objects.iter().map(|object| object.digest).collect();
    assert_eq!(doomed.iter().copied().collect::<BTreeSet<_>>(), expected);
    assert_eq!(doomed.len(), expected.len());
    let doomed_payloads: BTreeSet<Digest> = plan.payloads.iter().map(|p| p.digest).collect();
    let expected: BTreeSet<Digest> = payloads.difference(&kept).copied().collect();
    let expected: BTreeSet<Digest> = expected.difference(&young_payloads).copied().collect();
    assert_eq!(doomed_payloads, expected);
    let place = |digest: &Digest| doomed.iter().position(|doomed| doomed == digest);
    for (parent, children) in &graph.children {
        for child in children {
            assert!(
                place(parent) < place(child) || place(child).is_none() || place(parent).is_none()
            );
        }
    }
    assert_eq!(
        listed(&*repository).await,
        (objects.clone(), payloads.clone()),
        "a plan does nothing"
    );

    let refreshed = case.refreshed.iter().filter(|n| !absent.contains(n));
    let refreshed: Vec<Digest> = refreshed.map(|n| graph.digests[*n]).collect();
    for digest in &refreshed {
        assert!(repository.refresh_object(digest).await.unwrap());
    }
    let late = case.tagged_late.map(|n| graph.digests[n]);
    if let Some(late) = late {
        let name = "late".parse().unwrap();
        repository.push_tag(&name, &late, "me@here").await.unwrap();
    }
    let summary = sweep(&repository, &plan, &options, &()).await.unwrap();
    let spared = graph.reach(refreshed.into_iter().chain(late), &objects);
    let stays = |digest: &&Digest| kept.contains(digest) || spared.contains(digest);
    let stay: BTreeSet<Digest> = objects.iter().filter(stays).copied().collect();
    let stay_payloads = payloads
        .iter()
        .filter(|d| stays(d) || young_payloads.contains(d));
    let stay_payloads: BTreeSet<Digest> = stay_payloads.copied().collect();
    let left = listed(&*repository).await;
    assert_eq!(left, (stay, stay_payloads));
    assert_eq!(summary.objects, (objects.len() - left.0.len()) as u64);
    assert_eq!(summary.payloads, (payloads.len() - left.1.len()) as u64);
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn what_goes_is_what_a_person_would_say(case in cases()) {
        runtime().block_on(run(&case));
    }
}
