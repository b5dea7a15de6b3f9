//! FORMAT.md's examples byte for byte, and damage of every kind.

use crate::digest::Digest;
use crate::entry::{Entry, EntryKind, EntryName, Tree};
use crate::header::{DigestStrategy, Encoding, HEADER_LEN, Header, ObjectKind};
use crate::object::{Annotation, AnnotationValue, Blob, Layer, Manifest, Object, Platform};

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

fn digest(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}

fn body(prefix: &str, fill: &[u8], suffix: &str) -> Vec<u8> {
    let fill = fill.iter().flat_map(|&byte| [byte; 32]);
    unhex(prefix)
        .into_iter()
        .chain(fill)
        .chain(unhex(suffix))
        .collect()
}

/// FORMAT.md section 2.5, "Example bodies".
fn examples() -> Vec<(Object, Vec<u8>)> {
    let header = Header::default();
    let entry = Entry {
        name: EntryName::new("f").unwrap(),
        kind: EntryKind::Blob,
        object: digest(0x55),
        mode: 0o100_644,
        size: 5,
    };
    let tree = Tree::new(vec![entry]).unwrap();
    let text = AnnotationValue::Text("value".into());
    let annotation = Annotation {
        key: "key".into(),
        value: text,
    };
    vec![
        (
            Object::Blob(Blob {
                header,
                payload: digest(0x11),
                size: 5,
            }),
            body(
                "100000000000000008000c000700080008000000000000040c00000008002c002400040008000000",
                &[0x11],
                "0500000000000000",
            ),
        ),
        (
            Object::Layer(Layer::new(header, Some(digest(0x22)), vec![]).unwrap()),
            body(
                "0c00000008000c000700080008000000000000020c000000080028000400240008000000",
                &[0x22],
                "0400000000000000",
            ),
        ),
        (
            Object::Platform(Platform {
                header,
                layers: vec![digest(0x33), digest(0x44)],
            }),
            body(
                "0c00000008000e000700080008000000000000010c0000000000060008000400060000000400000002000000",
                &[0x33, 0x44],
                "",
            ),
        ),
        (
            Object::Manifest(Manifest::new(header, vec![tree]).unwrap()),
            body(
                "100000000000000008000c0007000800080000000000000304000000eeffffff04000000010000000c00000000000600080004000600000004000000010000001400000000000e0034000000040024002c0028000e000000",
                &[0x55],
                "a48100000c00000005000000000000000100000066000000",
            ),
        ),
        (
            Object::Layer(Layer::new(header, None, vec![annotation]).unwrap()),
            body(
                "0c00000008000c000700080008000000000000020c00000008000800000004000800000004000000010000001000000000000a001200080007000c000a00000000000001240000000c000000000006000800040006000000040000000500000076616c7565000000030000006b657900",
                &[],
                "",
            ),
        ),
    ]
}

#[test]
fn the_examples_of_the_format_are_read_and_written_byte_for_byte() {
    for (object, body) in examples() {
        let mut stored = Header::default().to_bytes(object.kind()).to_vec();
        stored.extend_from_slice(&body);
        assert_eq!(Object::decode(&stored).unwrap(), object);
        let written = object.encode().unwrap();
        assert_eq!(written, stored, "{:?}", object.kind());
    }
}

fn all_headers() -> impl Iterator<Item = Header> {
    [DigestStrategy::Legacy, DigestStrategy::KindAndSalt]
        .into_iter()
        .flat_map(|strategy| {
            [Encoding::Legacy, Encoding::FlatBuffers]
                .into_iter()
                .map(move |encoding| Header { strategy, encoding })
        })
}

fn with_header(object: &Object, header: Header) -> Object {
    match object.clone() {
        Object::Blob(blob) => Object::Blob(Blob { header, ..blob }),
        Object::Platform(platform) => Object::Platform(Platform { header, ..platform }),
        Object::Layer(layer) => Object::Layer(
            Layer::new(header, layer.manifest(), layer.annotations().to_vec()).unwrap(),
        ),
        Object::Manifest(manifest) => {
            Object::Manifest(Manifest::new(header, manifest.trees().to_vec()).unwrap())
        }
    }
}

#[test]
fn every_header_round_trips_and_the_digest_ignores_the_encoding() {
    for (object, _) in examples() {
        for header in all_headers() {
            let object = with_header(&object, header);
            let other = Header {
                encoding: Encoding::FlatBuffers,
                ..header
            };
            assert_eq!(object.digest(), with_header(&object, other).digest());
            match object.encode() {
                Ok(bytes) => assert_eq!(Object::decode(&bytes).unwrap(), object),
                Err(error) => {
                    assert_eq!(header.encoding, Encoding::Legacy);
                    assert!(error.to_string().contains("legacy encoding"), "{error}");
                    assert_eq!(object.kind(), ObjectKind::Layer);
                }
            }
        }
    }
}

#[test]
fn cut_and_flipped_bytes_never_panic_and_a_wrong_kind_is_refused() {
    for (object, _) in examples() {
        for header in all_headers() {
            let Ok(bytes) = with_header(&object, header).encode() else {
                continue;
            };
            for end in 0..bytes.len() {
                let _ = Object::decode(&bytes[..end]);
                for bit in 0..8 {
                    let mut flipped = bytes.clone();
                    flipped[end] ^= 1 << bit;
                    let _ = Object::decode(&flipped);
                }
            }
            assert!(Object::decode(&bytes[..HEADER_LEN]).is_err());
            if header.encoding == Encoding::FlatBuffers {
                let mut wrong = bytes.clone();
                wrong[16] = (wrong[16] + 1) % 4;
                let error = Object::decode(&wrong).unwrap_err().to_string();
                assert!(error.contains("the header says"), "{error}");
            }
        }
    }
}

#[test]
fn legacy_bodies_with_trailing_or_missing_bytes_are_refused() {
    let header = Header {
        strategy: DigestStrategy::Legacy,
        encoding: Encoding::Legacy,
    };
    let (blob, _) = &examples()[0];
    let bytes = with_header(blob, header).encode().unwrap();
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(
        Object::decode(&longer)
            .unwrap_err()
            .to_string()
            .contains("1 bytes follow")
    );
    assert!(Object::decode(&bytes[..bytes.len() - 1]).is_err());
}

#[test]
fn a_huge_count_costs_no_memory() {
    let header = Header {
        strategy: DigestStrategy::Legacy,
        encoding: Encoding::Legacy,
    };
    for kind in [ObjectKind::Platform, ObjectKind::Manifest] {
        let mut bytes = header.to_bytes(kind).to_vec();
        bytes.extend_from_slice(&u64::MAX.to_be_bytes());
        assert!(
            Object::decode(&bytes)
                .unwrap_err()
                .to_string()
                .contains("too short")
        );
    }
}

/// A manifest whose many tree offsets all point to one tree: legal sharing, hostile in number.
#[test]
fn shared_tables_cannot_unfold_without_end() {
    let entries = 2000;
    let mut table = Vec::new();
    for i in 0..entries {
        table.push(Entry {
            name: EntryName::new(&format!("{i:08}")).unwrap(),
            kind: EntryKind::Blob,
            object: digest(1),
            mode: 0o100_644,
            size: 1,
        });
    }
    let manifest = Manifest::new(Header::default(), vec![Tree::new(table).unwrap()]).unwrap();
    let bytes = Object::Manifest(manifest).encode().unwrap();
    // Rewrite the vector of trees at the front: the builder puts it near the start. Instead of
    // surgery, append a fresh root whose tree vector repeats one offset.
    let body = &bytes[HEADER_LEN..];
    let hostile = repeat_tree(body, 5000);
    let mut stored = Header::default().to_bytes(ObjectKind::Manifest).to_vec();
    stored.extend_from_slice(&hostile);
    let error = Object::decode(&stored).unwrap_err().to_string();
    assert!(error.contains("unfolds"), "{error}");
}

/// Puts a new root before `body`, with `times` tree offsets that all point to its first tree.
fn repeat_tree(body: &[u8], times: u32) -> Vec<u8> {
    let u32_at = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().unwrap()) as usize;
    let u16_at = |at: usize| u16::from_le_bytes(body[at..at + 2].try_into().unwrap()) as usize;
    let field = |table: usize, slot: usize| {
        let vtable = table.wrapping_sub(u32_at(table) as i32 as isize as usize);
        table + u16_at(vtable + 4 + 2 * slot)
    };
    let follow = |at: usize| at + u32_at(at);
    let manifest = follow(field(follow(0), 1));
    let trees = follow(field(manifest, 0));
    let tree = follow(trees + 4);

    let mut front: Vec<u8> = Vec::new();
    let push = |front: &mut Vec<u8>, value: u32| front.extend_from_slice(&value.to_le_bytes());
    push(&mut front, 12); // root table at 12
    front.extend_from_slice(&[8, 0, 12, 0, 8, 0, 4, 0]); // vtable: type at 8, object at 4
    push(&mut front, 8); // root: vtable 8 bytes before
    push(&mut front, 16); // object: table at 32
    front.extend_from_slice(&[3, 0, 0, 0]); // union tag: manifest
    front.extend_from_slice(&[6, 0, 8, 0, 4, 0, 0, 0]); // vtable at 24: trees at 4
    push(&mut front, 8); // manifest: vtable 8 bytes before
    push(&mut front, 4); // trees: vector at 40
    push(&mut front, times);
    let len = 44 + 4 * times as usize;
    for _ in 0..times {
        let at = front.len();
        push(&mut front, (len + tree - at) as u32);
    }
    front.extend_from_slice(body);
    front
}

#[test]
fn on_the_wire_the_body_is_a_flatbuffer_whatever_the_header_says() {
    for (object, body) in examples() {
        for encoding in [0, 1] {
            let mut sent = object.encode_wire().unwrap();
            sent[10] = encoding;
            assert_eq!(&sent[HEADER_LEN..], body);
            let received = Object::decode_wire(&sent).unwrap();
            let expected = [Encoding::Legacy, Encoding::FlatBuffers][usize::from(encoding)];
            assert_eq!(received.header().encoding, expected, "the header is kept");
            assert_eq!(received.digest(), object.digest());
            assert_eq!(received.encode_wire().unwrap(), sent);
        }
    }
}
