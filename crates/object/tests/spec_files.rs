//! Spec files, as a person writes them and as nobody would.

use farseek_object::{BindDest, EnvItem, MAX_SPEC_FILE_BYTES, SpecFile};
use proptest::prelude::*;

fn parsed(text: &str) -> SpecFile {
    SpecFile::parse(text).expect("a spec file").file
}

fn mounts(file: SpecFile) -> Vec<(String, String)> {
    match file {
        SpecFile::LiveLayer(mounts) => mounts
            .into_iter()
            .map(|mount| (mount.src, mount.dest.relative()))
            .collect(),
        SpecFile::RunSpec(_) => panic!("it is a run spec"),
    }
}

#[test]
fn the_api_says_what_it_is_and_a_live_layer_is_the_default() {
    let contents = "contents:\n  - src: a\n    dest: b/c\n  - {bind: ./d, dest: /spfs/e/./f}\n";
    let expected = [("a", "b/c"), ("./d", "e/f")];
    let expected = expected.map(|(src, dest)| (src.to_owned(), dest.to_owned()));
    for api in [
        "",
        "api: spfs/v0/livelayer\n",
        "api: v0/livelayer\n",
        "api: v0/layer\n",
    ] {
        assert_eq!(
            mounts(parsed(&format!("{api}{contents}"))),
            expected,
            "{api}"
        );
    }
    let spec = parsed("api: spfs/v0/runspec\nlayers: [a/b~1, /c, 'MAIN']\n");
    let SpecFile::RunSpec(items) = spec else {
        panic!("it is a live layer");
    };
    assert!(matches!(&items[0], EnvItem::Tag(tag) if tag.to_string() == "a/b~1"));
    assert!(matches!(&items[1], EnvItem::SpecFile(path) if path.as_os_str() == "/c"));
    assert!(matches!(items[2], EnvItem::Prefix(_)));
}

#[test]
fn what_nobody_knows_is_ignored_and_told() {
    let text = "contents:\n- src: a\n  dest: b\n  mode: ro\nname: x\n";
    let ignored = SpecFile::parse(text).expect("a spec file").ignored;
    assert_eq!(
        ignored,
        [
            "line 5: the field 'name' is not known, and ignored",
            "line 4: the field 'mode' is not known, and ignored"
        ]
    );
}

#[test]
fn of_very_many_fields_a_few_are_told() {
    let long = "x".repeat(1_000);
    let fields: String = (0..5000).map(|n| format!("field{n}: 1\n")).collect();
    let text = format!("contents:\n- src: a\n  dest: b\n  {long}: 1\n{fields}");
    let ignored = SpecFile::parse(&text).expect("a spec file").ignored;
    assert_eq!(ignored.len(), 21);
    assert_eq!(
        ignored[0],
        "line 5: the field 'field0' is not known, and ignored"
    );
    assert_eq!(ignored[20], "4981 more fields are not known, and ignored");
    let text = format!("contents: []\n{long}: 1\n");
    let ignored = SpecFile::parse(&text).expect("a spec file").ignored;
    assert!(ignored.len() == 1 && ignored[0].len() < 200, "{ignored:?}");
}

#[test]
fn a_fault_names_its_line_and_field() {
    for (text, said) in [
        ("", "line 1: a spec file is empty"),
        ("- a", "line 1: a spec file is not made of"),
        ("api: x", "line 1: the api 'x' is not known"),
        ("\napi: v0/layer", "line 2: a spec file has no 'contents'"),
        ("api: spfs/v0/runspec", "has no 'layers'"),
        ("contents:", "line 1: contents is not a list"),
        (
            "contents:\n- src: a",
            "line 2: an item of contents has no 'dest'",
        ),
        ("contents:\n- dest: a", "has no 'src'"),
        (
            "contents:\n- src: a\n  bind: b\n  dest: c",
            "line 3: 'src' and 'bind' are the same",
        ),
        (
            "contents:\n- src: a\n  dest: ../b",
            "line 3: dest: '../b' is not a valid path",
        ),
        ("contents:\n- src: a\n  dest:", "line 3: dest is empty"),
        (
            "contents:\n- src: ''\n  dest: b",
            "line 2: src is not a path",
        ),
        (
            "contents:\n- src: [a]\n  dest: b",
            "line 2: src is not a text",
        ),
        (
            "api: spfs/v0/runspec\nlayers:\n- a\n- b c",
            "line 4: 'b c' is not a valid",
        ),
        ("a: {", "line"),
    ] {
        let error = SpecFile::parse(text).expect_err(text).to_string();
        assert!(error.contains(said), "{text:?}: {error}");
    }
    let long = format!("#{}", " ".repeat(MAX_SPEC_FILE_BYTES));
    assert!(SpecFile::parse(&long).is_err());
}

#[test]
fn a_dest_stays_within_the_environment() {
    for (text, relative) in [
        ("a", "a"),
        ("a//b/", "a/b"),
        ("./a", "a"),
        ("/spfs/a", "a"),
        ("spfs/a", "spfs/a"),
        ("...", "..."),
    ] {
        let dest: BindDest = text.parse().expect(text);
        assert_eq!(dest.relative(), relative);
        assert_eq!(dest.to_string(), text);
    }
    let deep = "a/".repeat(1000);
    let long = "a".repeat(5000);
    for text in [
        "",
        ".",
        "/",
        "/spfs",
        "/spfs/",
        "/spfs/.",
        "/etc",
        "//spfs/a",
        "/spfs//etc",
        "..",
        "a/..",
        "a/../../b",
        "/spfs/../etc",
        "a\0b",
        &deep,
        &long,
    ] {
        assert!(text.parse::<BindDest>().is_err(), "{text:?}");
    }
}

/// Text that is nearly a spec file.
fn nearly() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("api: "),
        Just("spfs/v0/livelayer"),
        Just("spfs/v0/runspec"),
        Just("contents:"),
        Just("layers:"),
        Just("src: "),
        Just("bind: "),
        Just("dest: "),
        Just("\n"),
        Just("  "),
        Just("- "),
        Just("a/b"),
        Just(".."),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just("'"),
        Just("\""),
        Just("&x "),
        Just("*x"),
        Just("? "),
        Just(": "),
        Just("|"),
        Just(">"),
        Just("---\n"),
        Just("...\n"),
        Just("%TAG ! x\n"),
        Just("!!str "),
        Just("#"),
        Just("\t"),
        Just("\\"),
        Just("\u{feff}"),
        Just("\u{85}"),
        Just("~"),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in any::<String>()) {
        let _ = SpecFile::parse(&text);
    }

    #[test]
    fn nor_one_that_is_nearly_right(text in nearly()) {
        if let Ok(parsed) = SpecFile::parse(&text)
            && let SpecFile::LiveLayer(mounts) = parsed.file
        {
            for mount in mounts {
                let names = mount.dest.names();
                prop_assert!(!names.is_empty());
                prop_assert!(names.iter().all(|name| !matches!(&**name, "" | "." | "..")));
                prop_assert!(!mount.src.is_empty());
            }
        }
    }

    #[test]
    fn a_dest_is_parsed_or_refused(text in "[a./ ]{0,12}|/spfs/[a./]{0,8}") {
        if let Ok(dest) = text.parse::<BindDest>() {
            let again: BindDest = dest.relative().parse().expect("it is one");
            prop_assert_eq!(again.names(), dest.names());
        }
    }
}
