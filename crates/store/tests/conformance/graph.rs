//! References and stacks, over any repository.

use farseek_object::{
    Annotation, AnnotationValue, Blob, Digest, DirectoryBuilder, EntryName, EnvSpec, Header, Layer,
    Manifest, NewEntry, Object, Platform, Reference,
};
use farseek_store::{PutOptions, Repository, RepositoryExt, StoreError};

use super::Subject;

pub(crate) async fn check(fresh: impl Fn() -> Subject) {
    stacks(&*fresh().repository).await;
    nested_platforms(&*fresh().repository).await;
    what_is_no_environment(&*fresh().repository).await;
    references(&*fresh().repository).await;
    prefixes(&*fresh().repository).await;
}

async fn put(repository: &dyn Repository, object: Object) -> Digest {
    repository
        .put_object(&object, PutOptions::default())
        .await
        .expect("stored")
}

/// Stores a manifest with one file of this name, and returns its digest.
async fn manifest(repository: &dyn Repository, name: &str) -> Digest {
    let mut root = DirectoryBuilder::new();
    let blob = NewEntry::Blob {
        object: Digest::EMPTY,
        mode: 0o100_644,
        size: 0,
    };
    root.insert(EntryName::new(name).expect("a name"), blob);
    let manifest = root.into_manifest(Header::default()).expect("a manifest");
    put(repository, Object::Manifest(manifest)).await
}

/// Stores a layer over a manifest, told from others over the same one by its notes.
async fn layer(repository: &dyn Repository, manifest: Option<Digest>, notes: &[&str]) -> Digest {
    let note = |text: &&str| Annotation {
        key: (*text).to_owned(),
        value: AnnotationValue::Text(String::new()),
    };
    let notes = notes.iter().map(note).collect();
    let layer = Layer::new(Header::default(), manifest, notes).expect("a layer");
    put(repository, Object::Layer(layer)).await
}

pub(crate) async fn platform(repository: &dyn Repository, layers: &[Digest]) -> Digest {
    let platform = Platform {
        header: Header::default(),
        layers: layers.to_vec(),
    };
    put(repository, Object::Platform(platform)).await
}

fn spec(items: &[Digest]) -> EnvSpec {
    let text = items
        .iter()
        .map(Digest::to_string)
        .collect::<Vec<_>>()
        .join("+");
    text.parse().expect("a spec")
}

/// The names of the files of the manifests that a stack resolves to, bottom first.
async fn shown(repository: &dyn Repository, items: &[Digest]) -> Vec<String> {
    let manifests = repository
        .resolve_manifests(&spec(items))
        .await
        .expect("resolved");
    let name = |m: &Manifest| m.root().entries()[0].name.to_string();
    manifests.iter().map(name).collect()
}

async fn stacks(repository: &dyn Repository) {
    let (a, b) = (
        manifest(repository, "a").await,
        manifest(repository, "b").await,
    );
    let layer_a = layer(repository, Some(a), &[]).await;
    let other_a = layer(repository, Some(a), &["other"]).await;
    let layer_b = layer(repository, Some(b), &[]).await;
    let notes = layer(repository, None, &["only"]).await;

    let nothing: [&str; 0] = [];
    assert_eq!(shown(repository, &[]).await, nothing);
    assert_eq!(shown(repository, &[notes]).await, nothing);
    assert_eq!(shown(repository, &[layer_a]).await, ["a"]);
    assert_eq!(shown(repository, &[a]).await, ["a"], "a bare manifest");
    assert_eq!(
        shown(repository, &[layer_a, notes, layer_b]).await,
        ["a", "b"]
    );
    assert_eq!(shown(repository, &[layer_b, layer_a]).await, ["b", "a"]);
    assert_eq!(
        shown(repository, &[layer_a, layer_b, layer_a]).await,
        ["b", "a"],
        "moved up"
    );
    assert_eq!(
        shown(repository, &[layer_a, layer_b, other_a]).await,
        ["a", "b"],
        "the lowest"
    );
    assert_eq!(
        shown(repository, &[a, layer_b, layer_a]).await,
        ["a", "b"],
        "the lowest"
    );

    let stack = spec(&[layer_a, layer_b, layer_a, notes]);
    let stack = repository.resolve_stack(&stack).await.expect("resolved");
    assert_eq!(stack, [layer_b, layer_a, notes]);
}

async fn nested_platforms(repository: &dyn Repository) {
    let (a, b) = (
        manifest(repository, "a").await,
        manifest(repository, "b").await,
    );
    let c = layer(repository, Some(manifest(repository, "c").await), &[]).await;
    let inner = platform(repository, &[b, c]).await;
    let outer = platform(repository, &[a, inner]).await;
    let empty = platform(repository, &[]).await;
    assert_eq!(shown(repository, &[inner]).await, ["b", "c"]);
    assert_eq!(shown(repository, &[outer]).await, ["a", "b", "c"]);
    assert_eq!(shown(repository, &[c, outer]).await, ["c", "a", "b"]);
    assert_eq!(shown(repository, &[empty, inner, a]).await, ["b", "c", "a"]);
    let repeated = platform(repository, &[a, b, a]).await;
    assert_eq!(
        shown(repository, &[repeated]).await,
        ["b", "a"],
        "a platform is a stack"
    );

    // Each level doubles what is below it: expanded naively this never ends.
    let mut level = [
        platform(repository, &[a]).await,
        platform(repository, &[a, b]).await,
    ];
    for n in 0..60 {
        let note = layer(repository, None, &[&n.to_string()]).await;
        let [left, right] = level;
        level = [
            platform(repository, &[left, right]).await,
            platform(repository, &[left, right, note]).await,
        ];
    }
    assert_eq!(shown(repository, &level).await, ["a", "b"]);
}

async fn what_is_no_environment(repository: &dyn Repository) {
    let blob = Blob {
        header: Header::default(),
        payload: Digest::of(b"x"),
        size: 1,
    };
    let blob = put(repository, Object::Blob(blob)).await;
    let around = platform(repository, &[blob]).await;
    let liar = layer(repository, Some(around), &[]).await;
    let missing = platform(repository, &[Digest::of(b"missing")]).await;
    repository.publish().await.expect("published");
    for item in [blob, around] {
        let error = repository
            .resolve_manifests(&spec(&[item]))
            .await
            .expect_err("a blob");
        assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
        assert!(error.to_string().contains(&format!("'{blob}'")), "{error}");
        assert!(error.to_string().contains("it is a blob"), "{error}");
    }
    let error = repository
        .resolve_manifests(&spec(&[liar]))
        .await
        .expect_err("no manifest");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    let error = repository
        .resolve_manifests(&spec(&[missing]))
        .await
        .expect_err("missing");
    assert!(error.is_not_found(), "{error:?}");
    let file: EnvSpec = "/some/file.spfs.yaml".parse().expect("a spec");
    let error = repository
        .resolve_manifests(&file)
        .await
        .expect_err("a spec file");
    assert!(
        error.to_string().contains("no digest of its own"),
        "{error}"
    );
}

async fn references(repository: &dyn Repository) {
    let a = manifest(repository, "a").await;
    repository.publish().await.expect("published");
    for tag in ["some/tag", "MAIN", "AAAA"] {
        let name = tag.parse().expect("a name");
        repository
            .push_tag(&name, &a, "user@host")
            .await
            .expect("pushed");
    }
    let text = a.to_string();
    let resolve = |text: &str| {
        let reference: Reference = text.parse().expect("a reference");
        async move { repository.resolve(&reference).await }
    };
    for text in [
        "some/tag",
        "some/tag~0",
        "MAIN",
        "AAAA",
        &text,
        &text[..52],
        &text[..8],
    ] {
        assert_eq!(resolve(text).await.expect(text), a, "{text}");
    }
    for text in ["other", "some/tag~1", "BBBBBBBB", "some"] {
        let error = resolve(text).await.expect_err(text);
        assert!(
            error.is_not_found() && error.to_string().contains(text),
            "{error}"
        );
    }
    // A stack reads a digest prefix first and a tag of that name second.
    let stack: EnvSpec = "some/tag+MAIN".parse().expect("a spec");
    assert_eq!(
        repository.resolve_stack(&stack).await.expect("resolved"),
        [a]
    );
    let stack: EnvSpec = text[..8].parse().expect("a spec");
    assert_eq!(
        repository.resolve_stack(&stack).await.expect("resolved"),
        [a]
    );
    let error = repository
        .resolve_stack(&"BBBB".parse().expect("a spec"))
        .await;
    assert!(
        matches!(error, Err(StoreError::UnknownReference { .. })),
        "{error:?}"
    );
}

async fn prefixes(repository: &dyn Repository) {
    let mut texts = Vec::new();
    for n in 0..200_u8 {
        let blob = Blob {
            header: Header::default(),
            payload: Digest::of(&[n]),
            size: 1,
        };
        texts.push(put(repository, Object::Blob(blob)).await.to_string());
    }
    repository.publish().await.expect("published");
    texts.sort_unstable();
    let pair = texts
        .windows(2)
        .find(|pair| pair[0][..2] == pair[1][..2])
        .expect("such a pair");
    let alone = texts
        .iter()
        .find(|t| texts.iter().filter(|o| o[..2] == t[..2]).count() == 1);
    let alone = alone.expect("one that is alone");

    let prefix = |text: &str| text.parse().expect("a prefix");
    let found = repository
        .resolve_prefix(&prefix(&alone[..2]))
        .await
        .expect("found");
    assert_eq!(found.to_string(), *alone);
    let error = repository
        .resolve_prefix(&prefix(&pair[0][..2]))
        .await
        .expect_err("ambiguous");
    let StoreError::Ambiguous { candidates, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(
        candidates.contains(&pair[0]) && candidates.contains(&pair[1]),
        "{error}"
    );
    let error = repository
        .resolve_prefix(&prefix("22222222"))
        .await
        .expect_err("unknown");
    assert!(
        matches!(error, StoreError::UnknownReference { .. }),
        "{error:?}"
    );
    let whole = prefix(&Digest::of(b"elsewhere").to_string());
    let found = repository
        .resolve_prefix(&whole)
        .await
        .expect("a whole digest is itself");
    assert_eq!(found, Digest::of(b"elsewhere"));
}
