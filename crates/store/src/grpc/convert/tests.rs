use farseek_object::{
    Annotation, AnnotationValue, Blob, Encoding, Entry, EntryKind as Kind, EntryName, Layer,
    Manifest, Platform, Tree,
};
use prost::Message;

use super::*;
use crate::error::StoreError;
use crate::grpc::outcome::Outcome;

fn digest(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}

fn headers() -> Vec<Header> {
    let strategies = [DigestStrategy::KindAndSalt, DigestStrategy::Legacy];
    let encodings = [Encoding::FlatBuffers, Encoding::Legacy];
    strategies
        .into_iter()
        .flat_map(|strategy| encodings.map(|encoding| Header { strategy, encoding }))
        .collect()
}

fn trees() -> Vec<Tree> {
    let entry = |name: &str, kind, object, mode, size| Entry {
        name: EntryName::new(name).unwrap(),
        kind,
        object,
        mode,
        size,
    };
    let below = Tree::canonical(vec![entry("f", Kind::Blob, digest(5), 0o100_644, 5)]).unwrap();
    let root = Tree::canonical(vec![
        entry("d", Kind::Tree, below.digest(), 0o40_755, 0),
        entry("gone", Kind::Mask, Digest::NULL, 0o20_000, 0),
    ]);
    vec![root.unwrap(), below]
}

fn objects(header: Header) -> Vec<Object> {
    let annotations = vec![
        Annotation {
            key: "a".into(),
            value: AnnotationValue::Text("text".into()),
        },
        Annotation {
            key: "b".into(),
            value: AnnotationValue::Blob(digest(7)),
        },
    ];
    vec![
        Object::Blob(Blob {
            header,
            payload: digest(1),
            size: 11,
        }),
        Object::Layer(Layer::new(header, Some(digest(2)), annotations).unwrap()),
        Object::Layer(Layer::new(header, Some(digest(2)), vec![]).unwrap()),
        Object::Platform(Platform {
            header,
            layers: vec![digest(3), digest(4)],
        }),
        Object::Manifest(Manifest::new(header, trees()).unwrap()),
    ]
}

/// The form of old peers.
fn structured_form(object: &Object) -> wire::Object {
    use wire::object::Kind;
    let kind = match object {
        Object::Blob(blob) => Kind::Blob(wire::Blob {
            payload: Some(from_digest(&blob.payload)),
            size: blob.size,
        }),
        Object::Platform(platform) => Kind::Platform(wire::Platform {
            stack: platform.layers.iter().map(from_digest).collect(),
        }),
        Object::Layer(layer) => Kind::Layer(wire::Layer {
            manifest: layer.manifest().as_ref().map(from_digest),
            annotations: layer.annotations().iter().map(annotation_form).collect(),
        }),
        Object::Manifest(manifest) => Kind::Manifest(wire::Manifest {
            root: Some(tree_form(manifest.root())),
            trees: manifest.trees()[1..].iter().map(tree_form).collect(),
        }),
    };
    wire::Object { kind: Some(kind) }
}

fn annotation_form(annotation: &Annotation) -> wire::Annotation {
    use wire::annotation::Value;
    let value = match &annotation.value {
        AnnotationValue::Text(text) => Value::Data(text.clone()),
        AnnotationValue::Blob(digest) => Value::Digest(from_digest(digest)),
    };
    wire::Annotation {
        key: annotation.key.clone(),
        value: Some(value),
    }
}

fn tree_form(tree: &Tree) -> wire::Tree {
    let entry = |entry: &Entry| wire::Entry {
        object: Some(from_digest(&entry.object)),
        kind: match entry.kind {
            Kind::Tree => 0,
            Kind::Blob => 1,
            Kind::Mask => 2,
        },
        mode: entry.mode,
        size: entry.size,
        name: entry.name.to_string(),
    };
    wire::Tree {
        entries: tree.entries().iter().map(entry).collect(),
    }
}

#[test]
fn objects_keep_their_header_whatever_it_says() {
    for header in headers() {
        for object in objects(header) {
            let message = from_object(&object).unwrap();
            let Some(wire::object::Kind::Buffer(bytes)) = &message.kind else {
                panic!("{message:?}");
            };
            let encoding = u8::from(header.encoding == Encoding::FlatBuffers);
            assert_eq!(bytes[10], encoding, "the header is sent as it is");
            let message = wire::Object::decode(message.encode_to_vec().as_slice()).unwrap();
            assert_eq!(to_object(Some(&message)).unwrap(), object);
            assert_eq!(
                to_named_object(&object.digest(), Some(&message)).unwrap(),
                object
            );
        }
    }
}

#[test]
fn objects_of_old_peers_get_the_default_header() {
    for object in objects(Header::default()) {
        let message = structured_form(&object);
        assert_eq!(to_object(Some(&message)).unwrap(), object);
    }
}

#[test]
fn objects_of_old_peers_are_found_under_the_digest_of_either_strategy() {
    for header in headers() {
        for object in objects(header) {
            let named = to_named_object(&object.digest(), Some(&structured_form(&object)));
            assert_eq!(named.unwrap().digest(), object.digest());
        }
    }
}

#[test]
fn another_object_than_the_named_one_is_refused() {
    for object in objects(Header::default()) {
        for message in [from_object(&object).unwrap(), structured_form(&object)] {
            let error = to_named_object(&digest(0xee), Some(&message)).unwrap_err();
            let expected = ObjectError::WrongDigest {
                expected: digest(0xee),
                actual: object.digest(),
            };
            assert_eq!(error, expected);
        }
    }
}

#[test]
fn objects_that_are_none() {
    use wire::object::Kind;
    let named = |name: &str, kind: i32| {
        let entry = wire::Entry {
            object: Some(from_digest(&digest(1))),
            kind,
            mode: 0,
            size: 0,
            name: name.to_owned(),
        };
        let entries = vec![entry];
        Kind::Manifest(wire::Manifest {
            root: Some(wire::Tree { entries }),
            trees: vec![],
        })
    };
    let short = wire::Digest { bytes: vec![1; 31] };
    let cases = [
        (None, "unknown kind"),
        (Some(Kind::Buffer(vec![])), "17 are needed"),
        (Some(Kind::Manifest(wire::Manifest::default())), "no root"),
        (Some(Kind::Layer(wire::Layer::default())), "neither"),
        (Some(Kind::Blob(wire::Blob::default())), "digest is missing"),
        (
            Some(Kind::Platform(wire::Platform { stack: vec![short] })),
            "31 bytes",
        ),
        (Some(named("f", 3)), "unknown kind 3"),
        (Some(named("..", 1)), "another directory"),
        (Some(named("d", 0)), "is missing"),
    ];
    for (kind, expected) in cases {
        let message = wire::Object { kind };
        let said = to_object(Some(&message)).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
    assert!(to_object(None).is_err());
    // A tree (4) or a mask (6), which are no objects, decode to nothing.
    for bytes in [&[0x22, 0][..], &[0x30, 1]] {
        let message = wire::Object::decode(bytes).unwrap();
        assert!(to_object(Some(&message)).is_err());
    }
}

#[test]
fn times_in_both_forms() {
    let time = |text: &str| {
        to_time(Some(&wire::DateTime {
            iso_timestamp: text.to_owned(),
        }))
    };
    let whole = time("2024-01-02 03:04:05 UTC").unwrap();
    assert_eq!(from_time(&whole).iso_timestamp, "2024-01-02 03:04:05 UTC");
    let micros = time("2024-01-02 03:04:05.123456 UTC").unwrap();
    assert_eq!(
        from_time(&micros).iso_timestamp,
        "2024-01-02 03:04:05.123456 UTC"
    );
    for text in [
        "2024-01-02T03:04:05.123456Z",
        "2024-01-02T03:04:05.123456+00:00",
        "2024-01-02T05:04:05.123456+02:00",
        "2024-01-02 03:04:05.123456000 UTC",
    ] {
        assert_eq!(time(text).unwrap(), micros, "{text}");
    }
    for text in ["", "now", "2024-01-02 03:04:05", "2024-13-02 03:04:05 UTC"] {
        assert!(time(text).is_err(), "{text}");
    }
    assert!(to_time(None).is_err());
}

#[test]
fn tags_there_and_back() {
    for name in ["a", "org/a", "very/deep/org/a.1"] {
        let tag = Tag {
            name: name.parse().unwrap(),
            target: digest(1),
            parent: Digest::NULL,
            user: "user@host".to_owned(),
            time: DateTime::from_timestamp(1_700_000_000, 123_456_000).unwrap(),
        };
        let message = from_tag(&tag);
        assert_eq!(to_tag(Some(&message)).unwrap(), tag);
        let broken: [fn(&mut wire::Tag); 7] = [
            |m| m.name.clear(),
            |m| m.name = "a/b".to_owned(),
            |m| m.org = "..".to_owned(),
            |m| m.target = None,
            |m| m.parent = Some(wire::Digest { bytes: vec![] }),
            |m| m.user = "a\0b".to_owned(),
            |m| m.time = None,
        ];
        for break_it in broken {
            let mut message = message.clone();
            break_it(&mut message);
            assert!(to_tag(Some(&message)).is_err(), "{message:?}");
        }
    }
    assert!(to_tag(None).is_err());
}

#[test]
fn namespaces_and_entries() {
    let namespace: TagNamespace = "studio".parse().unwrap();
    assert_eq!(to_namespace("").unwrap(), None);
    assert_eq!(to_namespace("studio").unwrap(), Some(namespace.clone()));
    assert_eq!(from_namespace(Some(&namespace)), "studio");
    assert_eq!(from_namespace(None), "");
    assert!(to_namespace("a/b").is_err());
    assert!(to_namespace("../a").is_err());
    for entry in [
        TagEntry::Folder("a".to_owned()),
        TagEntry::Tag("b".to_owned()),
        TagEntry::Namespace(namespace.clone()),
    ] {
        assert_eq!(to_entry(&from_entry(&entry)).unwrap(), entry);
    }
    let entry = |kind| to_entry(&wire::TagListEntry { kind });
    let on_disk = entry(Some(EntryKind::Namespace("studio#ns".to_owned())));
    assert_eq!(on_disk.unwrap(), TagEntry::Namespace(namespace));
    assert!(entry(None).is_err());
    assert!(entry(Some(EntryKind::Folder("a/b".to_owned()))).is_err());
    assert!(entry(Some(EntryKind::Tag(String::new()))).is_err());
    assert!(entry(Some(EntryKind::Namespace("a/b".to_owned()))).is_err());
}

#[test]
fn errors_there_and_back() {
    let location = || "grpc://h:1".to_owned();
    let spec: farseek_object::TagSpec = "a/b~2".parse().unwrap();
    let back = |error: &StoreError, asked| to_error(&from_error(error), asked, "grpc://h:1");
    let missing = StoreError::NotFound {
        what: "payload",
        digest: digest(1),
        location: "elsewhere".to_owned(),
    };
    let one = digest(1);
    let named = back(&missing, Asked::Payload(&one)).to_string();
    assert!(named.starts_with("grpc://h:1 has no payload"), "{named}");
    assert!(back(&missing, Asked::Anything).is_not_found());
    let tag = StoreError::UnknownTag {
        tag: spec.clone(),
        location: location(),
    };
    assert!(matches!(
        back(&tag, Asked::Tag(&spec)),
        StoreError::UnknownTag { tag, .. } if tag == spec
    ));
    assert!(matches!(
        back(&tag, Asked::Anything),
        StoreError::UnknownReference { reference, .. } if reference == "a/b~2"
    ));
    let ambiguous = StoreError::Ambiguous {
        prefix: "AA".to_owned(),
        location: location(),
        candidates: vec![],
    };
    let said = back(&ambiguous, Asked::Anything);
    assert!(matches!(said, StoreError::Ambiguous { prefix, .. } if prefix == "AA"));
    let io = StoreError::io("write", "there")(std::io::ErrorKind::StorageFull.into());
    let said = back(&io, Asked::Anything).to_string();
    assert!(
        said.starts_with("grpc://h:1 failed: cannot write there: "),
        "{said}"
    );
}

#[test]
fn a_peers_words_are_bounded_and_harmless() {
    assert_eq!(shown(" a\u{1b}[2J\nb "), "a [2J b");
    assert!(shown(&"x".repeat(1 << 20)).chars().count() < 500);
    let nothing = to_error(&wire::Error { kind: None }, Asked::Anything, "grpc://h:1");
    assert!(nothing.to_string().contains("says nothing"), "{nothing}");
}

#[test]
fn outcomes() {
    let answer = wire::RemoveTagResponse::from_outcome(Ok(wire::Ok {}));
    assert!(matches!(answer.into_outcome(), Some(Ok(_))));
    let error = from_error(&StoreError::Failed {
        location: "here".to_owned(),
        reason: "of this".to_owned(),
    });
    let answer = wire::ReadObjectResponse::from_outcome(Err(error));
    assert!(matches!(answer.into_outcome(), Some(Err(_))));
    assert!(
        wire::LsTagsResponse { result: None }
            .into_outcome()
            .is_none()
    );
}
