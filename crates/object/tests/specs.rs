//! What people type: digests, prefixes, tags, environment specs, entry names.

use farseek_object::{
    Digest, DigestPrefix, EntryName, EnvItem, EnvSpec, Reference, TagNamespace, TagSpec,
};

const FULL: &str = "FTZE3OS7WCRQ4JXIHMVMLOPCTYNRMHS4D6TUEXTTAQZWFE4LTASA====";

#[test]
fn full_digests_are_strict() {
    assert!(FULL.parse::<Digest>().is_ok());
    let wrong = [
        FULL.to_lowercase(),
        FULL.trim_end_matches('=').to_owned(),
        FULL.replace("====", "===="[..3].into()),
        FULL.replace("TASA====", "TASB===="),
        format!("{FULL}="),
        String::new(),
        "é".repeat(28),
    ];
    for text in wrong {
        assert!(text.parse::<Digest>().is_err(), "{text}");
    }
}

#[test]
fn prefixes_take_the_lengths_that_spfs_takes() {
    for len in 1..=52 {
        let text = &FULL[..len];
        let accepted = text.parse::<DigestPrefix>().is_ok();
        assert_eq!(accepted, matches!(len % 8, 0 | 2 | 4 | 5 | 7), "{len}");
    }
    let full: Digest = FULL.parse().unwrap();
    let prefix: DigestPrefix = "FTZE".parse().unwrap();
    assert!(prefix.matches(&full));
    assert_eq!(prefix.to_full(), None);
    // A prefix of characters, where SPFS would compare whole bytes and lose the rest.
    assert!(!"FTZF".parse::<DigestPrefix>().unwrap().matches(&full));
    assert_eq!(
        FULL[..52].parse::<DigestPrefix>().unwrap().to_full(),
        Some(full)
    );
    assert_eq!("FTZE====".parse::<DigestPrefix>().unwrap(), prefix);
    for wrong in [
        "",
        "=",
        "ftze",
        "FT1E",
        "FTZE=",
        "FTZEFT",
        &format!("{FULL}A"),
    ] {
        assert!(wrong.parse::<DigestPrefix>().is_err(), "{wrong}");
    }
}

#[test]
fn tag_specs() {
    let good = [
        ("vfx2019", "", "vfx2019", 0),
        ("spi/base~4", "spi", "base", 4),
        (
            "gitlab.example.com/spfs/spi/base",
            "gitlab.example.com/spfs/spi",
            "base",
            0,
        ),
        ("a~0", "", "a", 0),
    ];
    for (text, org, name, version) in good {
        let spec: TagSpec = text.parse().unwrap();
        assert_eq!(
            (spec.name.org(), spec.name.name(), spec.version),
            (org, name, version)
        );
        assert_eq!(spec.to_string(), text.trim_end_matches("~0"));
    }
    let bad = [
        "",
        "~1",
        "a~",
        "a~-1",
        "a~1.23",
        "a~+1",
        "a b",
        "a:b",
        "a//b",
        "/a",
        "a/",
        "../a",
        "a/..",
        "a/./b",
        "é",
        "a#ns/b",
        "a~99999999999999999999999",
    ];
    for text in bad {
        assert!(text.parse::<TagSpec>().is_err(), "{text}");
    }
    assert!("a/b".parse::<TagNamespace>().is_err());
    assert!("..".parse::<TagNamespace>().is_err());
    assert_eq!("studio".parse::<TagNamespace>().unwrap().as_str(), "studio");
}

#[test]
fn environment_specs() {
    assert!("".parse::<EnvSpec>().unwrap().items.is_empty());
    assert!("-".parse::<EnvSpec>().unwrap().items.is_empty());
    let text = format!("{FULL}+MAIN+/etc/x.spfs.yaml+fix/base~1");
    let spec: EnvSpec = text.parse().unwrap();
    assert!(matches!(spec.items[0], EnvItem::Digest(_)));
    assert!(
        matches!(spec.items[1], EnvItem::Prefix(_)),
        "base32 letters are a digest here"
    );
    assert!(matches!(spec.items[2], EnvItem::SpecFile(_)));
    assert!(matches!(spec.items[3], EnvItem::Tag(_)));
    assert_eq!(spec.to_string(), text);
    for bad in ["a++b", "+", "a+", "a b"] {
        assert!(bad.parse::<EnvSpec>().is_err(), "{bad}");
    }
    let reference: Reference = "MAIN".parse().unwrap();
    assert!(
        reference.tag.is_some() && reference.digest.is_some(),
        "both readings are kept"
    );
    assert!("a b".parse::<Reference>().is_err());
}

#[test]
fn entry_names() {
    for good in ["a", "...", "-x", " ", "日本", "a\\b", "a\nb"] {
        assert_eq!(EntryName::new(good).unwrap().as_str(), good);
    }
    for bad in ["", ".", "..", "a/b", "/", "a\0"] {
        assert!(EntryName::new(bad).is_err(), "{bad:?}");
    }
}
