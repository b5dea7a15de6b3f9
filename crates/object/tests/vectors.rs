//! Every digest vector of FORMAT.md sections 1.2 and 4.4.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail it")]

use farseek_object::{
    Annotation, AnnotationValue, Digest, DigestStrategy, DirectoryBuilder, Encoding, Entry,
    EntryKind, EntryName, Header, Layer, NewEntry, Object, Platform, Tag, TagStream, Tree,
};

const LEGACY: Header = Header {
    strategy: DigestStrategy::Legacy,
    encoding: Encoding::FlatBuffers,
};
const SALTED: Header = Header {
    strategy: DigestStrategy::KindAndSalt,
    encoding: Encoding::FlatBuffers,
};

const HELLO: &str = "FTZE3OS7WCRQ4JXIHMVMLOPCTYNRMHS4D6TUEXTTAQZWFE4LTASA====";
const LINK: &str = "L2BOHT7I2RX4EAMDOC3MKHOUD4RYU4UERSSREAFDRKUBCAWYKGYA====";

fn name(text: &str) -> EntryName {
    EntryName::new(text).unwrap()
}

fn digest(text: &str) -> Digest {
    text.parse().unwrap()
}

fn entry(text: &str, kind: EntryKind, mode: u32, size: u64, object: &str) -> Entry {
    Entry {
        name: name(text),
        kind,
        object: digest(object),
        mode,
        size,
    }
}

fn empty_manifest(header: Header) -> Object {
    Object::Manifest(DirectoryBuilder::new().into_manifest(header).unwrap())
}

fn layer(header: Header, manifest: Option<Digest>, annotated: bool) -> Object {
    let value = AnnotationValue::Text("value".into());
    let annotation = Annotation {
        key: "key".into(),
        value,
    };
    let annotations = if annotated { vec![annotation] } else { vec![] };
    Object::Layer(Layer::new(header, manifest, annotations).unwrap())
}

#[test]
fn plain_digests() {
    assert_eq!(
        Digest::EMPTY.to_string(),
        "4OYMIQUY7QOBJGX36TEJS35ZEQT24QPEMSNZGTFESWMRW6CSXBKQ===="
    );
    assert_eq!(Digest::of(b""), Digest::EMPTY);
    assert_eq!(Digest::NULL.to_string(), format!("{}====", "A".repeat(52)));
    assert_eq!(Digest::of(b"hello").to_string(), HELLO);
    assert_eq!(Digest::of(b"../hello.txt").to_string(), LINK);
}

#[test]
fn empty_things() {
    let empty_tree = "V5KXB5NBQEFXV54MV5F4OCTGB4G7KHSCXL4R2TPFWIZI3YHIHX6A====";
    assert_eq!(Tree::default().digest().to_string(), empty_tree);
    let table = [
        (
            empty_manifest(LEGACY),
            "G5DQR77XOGO5LF46ZB25K3GSFBXW2PHX5QYXUOZFMMVKWKHMG65Q====",
        ),
        (
            empty_manifest(SALTED),
            "UAFQ5RS7RPWKETARRNCOQMDZH5Y3DJ6XP42KS6GQMK3S2A5C5ULA====",
        ),
        (
            Object::Platform(Platform {
                header: LEGACY,
                layers: vec![],
            }),
            empty_tree,
        ),
        (
            Object::Platform(Platform {
                header: SALTED,
                layers: vec![],
            }),
            "YBC67LH2QKP6E3UGXZ3GEVYMDUAHH3QJGLKVNKOERBHYD5QHRX4A====",
        ),
    ];
    for (object, expected) in table {
        assert_eq!(object.digest().to_string(), expected);
    }
}

#[test]
fn layers_and_platforms() {
    let empty = Some(Digest::EMPTY);
    let manifest = Some(empty_manifest(SALTED).digest());
    let platform = Object::Platform(Platform {
        header: SALTED,
        layers: vec![Digest::EMPTY, Digest::NULL],
    });
    let table = [
        (
            layer(LEGACY, empty, false),
            "LX3OBYTWCNM5GCUCOUCY4KM7ZQBYCU2FIX2VZ5B6IGMD6XKMSRLA====",
        ),
        (
            layer(SALTED, empty, false),
            "7MVKYQKGRKE2VPXWE7PES3S7DKSZATM3AIYGCFVORPT7RIHDVMXA====",
        ),
        (
            layer(SALTED, manifest, false),
            "NBDZ2PLVZ6ZBYW6TDOC4LELMFJAWCIYL64AZE4LR4EG2YRSMRIMA====",
        ),
        (
            layer(SALTED, None, true),
            "S6U6HW2PYXTMFW4SH76QZYFMIWUTBKNZ5UB47YEV4AG4JHGDM6GA====",
        ),
        (
            layer(SALTED, empty, true),
            "RK6WEWVSPYSFIXHMAZRKOGK3IHC7PDLXIDH7TASJLWAELU2OHT6Q====",
        ),
        (
            platform,
            "TLZDPBWTYVOWYYOPT5VYHCFBKSX45ELFSHPU7CNMMHNXCPC2UFXA====",
        ),
    ];
    for (object, expected) in table {
        assert_eq!(object.digest().to_string(), expected);
    }
}

#[test]
fn entries_of_the_upstream_tests() {
    let testcase = entry(
        "testcase",
        EntryKind::Tree,
        0o40755,
        36,
        "K53HFSBQEYR4SVFIDUGT63IE233MAMVKBQFXLA7M6HCR2AEMKIJQ====",
    );
    assert_eq!(
        testcase.digest().to_string(),
        "VTTVI5AZULVVVIWRQMWKJ67TUAGWIECAS2GVTA7Q2QINS4XK4HQQ===="
    );
    let xsl = entry(
        "swig_full_names.xsl",
        EntryKind::Blob,
        0o100_644,
        3293,
        "ZD25L3AN5E3LTZ6MDQOIZUV6KRV5Y4SSXRE4YMYZJJ3PXCQ3FMQA====",
    );
    assert_eq!(
        xsl.digest().to_string(),
        "GP7DYE22DYLH3I5MB33PW5Z3AZXZIBGOND7MX65KECBMHVMXBUHQ===="
    );
}

#[test]
fn a_tree_of_the_upstream_tests_whatever_the_stored_order() {
    let blob = |text, size, object| entry(text, EntryKind::Blob, 0o100_644, size, object);
    let templates = "6LMAERTKGND5WAA4VQQLDAVPXZIHGBOVUCVS7WEGHQIZPWSRJ5FA====";
    let entries = vec![
        blob(
            ".helmignore",
            342,
            "NJDVDBWMXKU2BJG6L2LKLS3N3T47VUGXNPBY4BCHBLEEIRNSDILA====",
        ),
        blob(
            "Chart.yaml",
            911,
            "ULAX2BMLX3WKVI7YKRQLJEQDEWJRSDPCFPZPGBJCIQZJ4FIVZIKA====",
        ),
        entry("templates", EntryKind::Tree, 0o40755, 1, templates),
        blob(
            "values.yaml",
            1699,
            "IZFXS6UQJTHYBVYK3KYPPZC3FYX6NL3L3MWXAJUULAJMFTGZPODQ====",
        ),
    ];
    let expected = "KP7FNGMD5XRT5KGZRDT5R33M3BGFS2SJG5DHFKJV3KKWZG3AGVXA====";
    assert_eq!(
        Tree::new(entries.clone()).unwrap().digest().to_string(),
        expected
    );
    let reversed = entries.into_iter().rev().collect();
    assert_eq!(Tree::new(reversed).unwrap().digest().to_string(), expected);
}

fn demo_tree() -> DirectoryBuilder {
    let mut sub = DirectoryBuilder::new();
    let link = NewEntry::Blob {
        object: digest(LINK),
        mode: 0o120_777,
        size: 12,
    };
    sub.insert(name("link"), link);
    let mut root = DirectoryBuilder::new();
    let hello = NewEntry::Blob {
        object: digest(HELLO),
        mode: 0o100_644,
        size: 5,
    };
    root.insert(name("hello.txt"), hello);
    root.insert(
        name("sub"),
        NewEntry::Directory {
            mode: 0o40755,
            contents: sub,
        },
    );
    root
}

#[test]
fn the_demo_tree_from_payload_to_platform() {
    let salted = demo_tree().into_manifest(SALTED).unwrap();
    let root = salted.root().digest().to_string();
    assert_eq!(
        root,
        "QSUFZSM2XSNCSWTGULKJEN3T6AIXCW5DE34XUJ4ESSXPTSNSSQBQ===="
    );
    let sub = salted.trees()[1].digest().to_string();
    assert_eq!(
        sub,
        "XCSPSJ6TIUTWFE2QN2SHLCGB7UPSMB4EMWDVNJZFD2TRPPR5MXVQ===="
    );
    let salted = Object::Manifest(salted).digest();
    assert_eq!(
        salted.to_string(),
        "44VDDJFMMC2S5B665AZ4FSUD4Z63HF74DYJXSTS3L3O5QO7NGXGQ===="
    );
    let legacy = Object::Manifest(demo_tree().into_manifest(LEGACY).unwrap()).digest();
    assert_eq!(
        legacy.to_string(),
        "VC5VZQCKXU2VFU46FDT72HXD57PZHFLDC7OZF56HBNWRRT4735OA===="
    );
    let layer = layer(SALTED, Some(salted), false).digest();
    assert_eq!(
        layer.to_string(),
        "OCUW5FED6XDXLWOHVMTA6IOJ2P6TA7MGHNDQPYLOG2QFGLQEC6BQ===="
    );
    let platform = Object::Platform(Platform {
        header: SALTED,
        layers: vec![layer],
    });
    assert_eq!(
        platform.digest().to_string(),
        "HLVCZULG545B7P7XJEOMKMK35OFGRPSSRXEF4PFL7YRHKLX4APLQ===="
    );
}

#[test]
fn a_tag_and_its_stream() {
    let tag = Tag {
        name: "vfx/2019".parse().unwrap(),
        target: Digest::NULL,
        parent: Digest::NULL,
        user: "user@host".into(),
        time: "2024-01-02T03:04:05.123456Z".parse().unwrap(),
    };
    let bytes = tag.encode();
    assert_eq!(bytes.len(), 116);
    assert_eq!(
        tag.digest().to_string(),
        "ERP5F3BT3JE6VM7LOQIHPL546XW36AHEWC54FGIIDTXDWUTMYFZQ===="
    );
    assert_eq!(Tag::decode(&bytes).unwrap(), tag);

    let mut stream = TagStream::default();
    let mut newer = tag.clone();
    newer.time += chrono::TimeDelta::seconds(1);
    newer.parent = tag.digest();
    assert!(stream.insert(newer.clone()));
    assert!(stream.insert(tag.clone()));
    assert!(
        !stream.insert(tag.clone()),
        "an identical version is dropped"
    );
    assert_eq!(stream.head(), Some(&newer));
    assert_eq!(stream.version(1), Some(&tag));
    assert_eq!(stream.version(2), None);
    let stored = stream.encode();
    assert_eq!(TagStream::decode(&stored).unwrap(), stream);
    for end in 1..stored.len() {
        let cut = TagStream::decode(&stored[..end]);
        assert!(cut.is_err() || cut.unwrap().len() == 1, "cut at {end}");
    }
}

#[test]
fn canonical_order_of_trees_drops_repeats() {
    let directory = |contents| NewEntry::Directory {
        mode: 0o40755,
        contents,
    };
    let mut a = DirectoryBuilder::new();
    let mut x = DirectoryBuilder::new();
    x.insert(
        name("file"),
        NewEntry::Blob {
            object: digest(HELLO),
            mode: 0o100_644,
            size: 5,
        },
    );
    a.insert(name("x"), directory(x.clone()));
    let mut root = DirectoryBuilder::new();
    root.insert(name("a"), directory(a.clone()));
    root.insert(name("b"), directory(DirectoryBuilder::new()));
    root.insert(name("c"), directory(DirectoryBuilder::new()));
    root.insert(name("d"), directory(x));
    let manifest = root.into_manifest(SALTED).unwrap();
    let names: Vec<Vec<&str>> = manifest
        .trees()
        .iter()
        .map(|tree| tree.entries().iter().map(|e| e.name.as_str()).collect())
        .collect();
    // root, a, a/x, b; c is the same empty tree as b and d the same as a/x.
    assert_eq!(
        names,
        [vec!["a", "b", "c", "d"], vec!["x"], vec!["file"], vec![]]
    );
}
