//! Commands on repositories: the round trip of a directory, tags, listings, and wrong input.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use crate::place::{Place, fixture};
use insta::assert_snapshot;
use serde_json::Value;

/// A place with a small tree at `tree`.
fn place_with_tree() -> Place {
    let place = Place::make();
    place.write("tree/readme.txt", "hello\n");
    let script = place.write("tree/bin/run", "#!/bin/sh\necho run\n");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    place.write("tree/lib/deep/data.bin", vec![7u8; 300_000]);
    symlink("bin/run", place.path("tree/start")).unwrap();
    symlink("/lib/deep", place.path("tree/bin/abs")).unwrap();
    symlink("loop", place.path("tree/loop")).unwrap();
    std::fs::set_permissions(place.path("tree"), std::fs::Permissions::from_mode(0o755)).unwrap();
    for directory in ["tree/bin", "tree/lib", "tree/lib/deep"] {
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(place.path(directory), mode).unwrap();
    }
    std::fs::set_permissions(
        place.path("tree/readme.txt"),
        std::fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    place
}

#[test]
fn a_directory_goes_in_and_its_files_come_out() {
    let place = place_with_tree();
    let committed = place.ok(&["commit", "tree", "--tag", "tools/x", "-t", "tools/y"]);
    let digest = committed.split_whitespace().next().unwrap().to_owned();
    assert_snapshot!(committed.replace(&digest, "[DIGEST]"), @r#"
    [DIGEST] 3 files, 3 links, 3 directories, 293.0 KiB, 293.0 KiB new
    tools/x -> [DIGEST]
    tools/y -> [DIGEST]
    "#);
    assert_snapshot!(place.ok(&["ls", "tools/x"]), @r#"
    bin/
    lib/
    loop
    readme.txt
    start
    "#);
    assert_eq!(place.ok(&["cat", "tools/x", "readme.txt"]), "hello\n");
    assert_eq!(place.ok(&["cat", "tools/x", "/spfs/readme.txt"]), "hello\n");
    assert_eq!(
        place.ok(&["read", "tools/x", "start"]),
        "#!/bin/sh\necho run\n"
    );
    let data = place
        .farseek(&["cat", "tools/y", "bin/abs/data.bin"])
        .output()
        .unwrap();
    assert!(data.status.success());
    assert_eq!(data.stdout, vec![7u8; 300_000]);
    assert_eq!(place.ok(&["tags"]), "tools/x\ntools/y\n");
    assert_eq!(place.ok(&["ls-tags"]), "tools/\n");
    assert_eq!(place.ok(&["ls-tags", "tools"]), "x\ny\n");
    let log: Value = serde_json::from_str(&place.ok(&["log", "tools/x", "--json"])).unwrap();
    assert_eq!(log[0]["target"], digest.as_str());
    assert_eq!(log[0]["tag"], "tools/x");
    let line = place.ok(&["log", "tools/x"]);
    assert!(
        line.starts_with(&format!("{} tools/x ", &digest[..10])),
        "{line}"
    );
    assert!(line.ends_with(" +00:00\n"), "{line}");
}

#[test]
fn spfs_forms_of_commit_give_the_same_layer() {
    let place = place_with_tree();
    let digest = |arguments: &[&str]| -> String {
        let value: Value = serde_json::from_str(&place.ok(arguments)).unwrap();
        value["digest"].as_str().unwrap().to_owned()
    };
    let ours = digest(&["commit", "tree", "--json"]);
    assert_eq!(
        digest(&["commit", "layer", "--path", "tree", "-t", "a", "--json"]),
        ours
    );
    assert_eq!(
        digest(&["commit", "--path", "tree", "-t", "b", "--json"]),
        ours
    );
    place.write("other/more.txt", "more\n");
    place.ok(&["commit", "other", "-t", "other"]);
    let platform = digest(&[
        "commit", "platform", "--ref", "a+other", "-t", "both", "--json",
    ]);
    assert_eq!(place.ok(&["cat", "both", "more.txt"]), "more\n");
    assert_eq!(place.ok(&["cat", &platform, "readme.txt"]), "hello\n");
    assert_eq!(place.ok(&["ls", "both"]), place.ok(&["ls", "a+other"]));
}

#[test]
fn a_long_listing_is_spfs_s() {
    let place = place_with_tree();
    place.ok(&["commit", "tree", "--tag", "x"]);
    let log: Value = serde_json::from_str(&place.ok(&["log", "x", "--json"])).unwrap();
    let user = log[0]["user"]
        .as_str()
        .unwrap()
        .split('@')
        .next()
        .unwrap()
        .to_owned();
    let listing = place.ok(&["ls", "-R", "-l", "x"]);
    let words = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [mode, owner, size, _, _, _, name] => {
                assert_eq!(owner, user);
                format!("{mode} {size} {name}\n")
            }
            _ => format!("{line}\n"),
        }
    };
    let listing: String = listing.lines().map(words).collect();
    assert_snapshot!(listing, @r#"
    .:
    drwxr-xr-x 28 bin/
    drwxr-xr-x 300000 lib/
    lrwxrwxrwx 4 loop
    -rw-r--r-- 6 readme.txt
    lrwxrwxrwx 7 start

    ./bin:
    lrwxrwxrwx 9 abs
    -rwxr-xr-x 19 run

    ./lib:
    drwxr-xr-x 300000 deep/

    ./lib/deep:
    -rw-r--r-- 300000 data.bin
    "#);
    let json: Value = serde_json::from_str(&place.ok(&["ls", "x", "lib", "-R", "--json"])).unwrap();
    let paths: Vec<_> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["path"].as_str())
        .collect();
    assert_eq!(paths, [Some("lib/deep"), Some("lib/deep/data.bin")]);
    assert_eq!(json[1]["size"], 300_000);
}

#[test]
fn tags_move_and_go() {
    let place = place_with_tree();
    place.ok(&["commit", "tree", "-t", "t"]);
    place.write("tree/new", "x");
    place.ok(&["commit", "tree", "-t", "t"]);
    let targets = || -> Vec<String> {
        let log: Value = serde_json::from_str(&place.ok(&["log", "t", "--json"])).unwrap();
        let target = |v: &Value| v["target"].as_str().unwrap().to_owned();
        log.as_array().unwrap().iter().map(target).collect()
    };
    let [second, first] = targets().try_into().unwrap();
    place.ok(&["tag", "t~1", "t"]);
    assert_eq!(targets(), [first.as_str(), second.as_str(), first.as_str()]);
    place.ok(&["untag", "t~1"]);
    assert_eq!(targets(), [first.as_str(), first.as_str()]);
    place.ok(&["untag", "--latest", "t"]);
    place.ok(&["tag", &second[..12], "u"]);
    place.ok(&["untag", "t", "--all"]);
    assert_eq!(place.ok(&["tags", "--target"]), format!("u {second}\n"));
}

#[test]
fn wrong_input_gets_one_sentence_and_a_code() {
    let place = place_with_tree();
    let told = |arguments: &[&str]| place.told(arguments);
    assert_snapshot!(told(&["tags"]), @r#"
    exit 3
    farseek: there is no local repository at [PLACE]/home/.local/share/spfs yet; `farseek init` or the first `farseek commit` makes one, --remote uses another
    "#);
    place.ok(&["commit", "tree", "-t", "x"]);
    assert_snapshot!(told(&["ls", "no/such"]), @r#"
    exit 3
    farseek: file:[PLACE]/home/.local/share/spfs has no tag 'no/such'; `farseek tags` lists the tags there are
    "#);
    assert_snapshot!(told(&["log", "no/such"]), @r#"
    exit 3
    farseek: file:[PLACE]/home/.local/share/spfs has no tag 'no/such'; `farseek tags` lists the tags there are
    "#);
    assert_snapshot!(told(&["info", "bad name"]), @r#"
    exit 2
    farseek: 'bad name' is not a valid tag: only letters, digits, '-', '_', '.' and '/' are allowed
    "#);
    assert_snapshot!(told(&["commit", "tree/readme.txt", "-t", "x"]), @r#"
    exit 2
    farseek: tree/readme.txt is not a directory; commit the directory that holds it, such as tree
    "#);
    assert_snapshot!(told(&["commit", "nowhere", "-t", "x"]), @r#"
    exit 3
    farseek: there is no directory nowhere
    "#);
    assert_snapshot!(told(&["commit", "-t", "x"]), @r#"
    exit 2
    farseek: say which directory: `farseek commit DIR`
    "#);
    assert_snapshot!(told(&["commit", "tree", "-t", "x~1"]), @r#"
    exit 2
    farseek: 'x~1' is a version of the past and cannot be written; use 'x'
    "#);
    assert_snapshot!(told(&["cat", "x"]), @r#"
    exit 2
    farseek: 'x' is a tree of files: say which one, as in `farseek cat x PATH`
    "#);
    assert_snapshot!(told(&["cat", "x", "bin"]), @r#"
    exit 2
    farseek: 'bin' is a directory in 'x'
    "#);
    assert_snapshot!(told(&["cat", "x", "nope"]), @r#"
    exit 3
    farseek: 'x' has no file 'nope'
    "#);
    assert_snapshot!(told(&["cat", "x", "loop"]), @r#"
    exit 1
    farseek: 'loop' leads through more than 40 symbolic links
    "#);
    assert_snapshot!(told(&["ls", "x", "nope"]), @r#"
    exit 3
    farseek: 'x' has no file or directory 'nope'
    "#);
    assert_snapshot!(told(&["untag", "x"]), @r#"
    exit 2
    farseek: say --latest for the newest version of 'x', --all for all
    "#);
    assert_snapshot!(told(&["untag", "nope", "--all"]), @r#"
    exit 3
    farseek: file:[PLACE]/home/.local/share/spfs has no tag 'nope'; `farseek tags` lists the tags there are
    "#);
    assert_snapshot!(told(&["ls", "x", "-r", "origin"]), @r#"
    exit 3
    farseek: there is no remote 'origin': no remote is configured; a path must contain a '/' (./origin)
    "#);
    assert_snapshot!(told(&["ls", "x", "-r", "/no/where"]), @r#"
    exit 3
    farseek: cannot open the repository: '/no/where' is not a valid repository: there is nothing there
    "#);
    assert_snapshot!(told(&["ls", "x", "-r", "s3:///x"]), @r#"
    exit 2
    farseek: cannot open the repository: 's3:///x' is not a valid repository address: it names no bucket: s3://BUCKET/PREFIX
    "#);
    assert_snapshot!(told(&["init", "a", "b"]), @r#"
    exit 2
    farseek: give one path: `farseek init [repo] PATH`
    "#);
}

/// An address of a directory means it everywhere; none becomes a directory of its own name.
#[test]
fn the_address_of_a_directory_is_no_name_of_one() {
    let place = place_with_tree();
    for (number, scheme) in ["file:", "file://", "FILE://localhost"].iter().enumerate() {
        let path = place.path(&format!("repository {number}"));
        let address = format!("{scheme}{}", path.display()).replace(' ', "%20");
        place.ok(&["init", &address]);
        assert!(path.join("objects").is_dir(), "{address}");
        place.ok(&["commit", "tree", "-t", "x", "-r", &address]);
        place.ok(&["check", "-r", &address]);
        place.ok(&["tags", "-r", path.to_str().unwrap()]);
    }
    for address in ["file://host/x", "file:", "tar:/x.tar", "foo:/x"] {
        let told = place.told(&["init", address]);
        assert!(told.starts_with("exit 2\nfarseek: "), "{told}");
        for command in ["push", "pull"] {
            let end = if command == "push" { "--to" } else { "--from" };
            let told = place.told(&[command, "x", end, address]);
            assert!(!told.starts_with("exit 0"), "{told}");
        }
    }
    assert_snapshot!(place.told(&["init", "file://host/x"]), @r#"
    exit 2
    farseek: 'file://host/x' is not a valid repository address: what follows file:// is taken for a host: write file:/host/x
    "#);
    for name in ["file:", "FILE:", "tar:", "foo:", "home/file:"] {
        assert!(!place.path(name).exists(), "{name}");
    }
}

#[test]
fn an_unreachable_remote_is_named() {
    // A port that was free a moment ago and that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let place = Place::make();
    let url = format!("http://127.0.0.1:{port}/repo");
    let output = place.farseek(&["ls", "x", "-r", &url]).output().unwrap();
    let told = place.describe(&output).replace(&port.to_string(), "[PORT]");
    assert!(told.starts_with("exit 5\nfarseek: "), "{told}");
    assert!(told.contains("127.0.0.1:[PORT]"), "{told}");
    assert_eq!(told.lines().count(), 2, "{told}");
}

#[test]
fn damage_is_named() {
    let place = place_with_tree();
    place.ok(&["commit", "tree", "-t", "x"]);
    let json: Value = serde_json::from_str(&place.ok(&["ls", "x", "--json"])).unwrap();
    let files = json.as_array().unwrap();
    let readme = files
        .iter()
        .find(|file| file["path"] == "readme.txt")
        .unwrap();
    let digest = readme["digest"].as_str().unwrap();
    let payloads = "home/.local/share/spfs/payloads";
    let payload = place.path(payloads).join(&digest[..2]).join(&digest[2..]);
    std::fs::set_permissions(&payload, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&payload, "jello\n").unwrap();
    let told = place.told(&["cat", "x", "readme.txt"]);
    assert!(
        told.starts_with("exit 6\nfarseek: cannot read 'readme.txt': "),
        "{told}"
    );
    std::fs::write(&payload, "hel").unwrap();
    let told = place.told(&["cat", "x", "readme.txt"]);
    assert!(
        told.starts_with("exit 6\nfarseek: cannot read 'readme.txt': "),
        "{told}"
    );
    let info: Value = serde_json::from_str(&place.ok(&["info", "x", "--json"])).unwrap();
    let manifest = info[0]["manifest"].as_str().unwrap();
    let objects = "home/.local/share/spfs/objects";
    place.write(
        &format!("{objects}/{}/{}", &manifest[..2], &manifest[2..]),
        "--SPFS--\nrubbish",
    );
    let told = place.told(&["ls", "x"]);
    assert!(told.starts_with("exit 6\nfarseek: "), "{told}");
    assert!(told.contains(objects), "{told}");
}

#[test]
fn an_ambiguous_digest_says_what_it_could_be() {
    let place = Place::make();
    for number in 0..200 {
        place.write(&format!("many/{number}"), format!("{number}"));
    }
    place.ok(&["commit", "many", "-t", "many"]);
    let objects = place.path("home/.local/share/spfs/objects");
    let crowded = std::fs::read_dir(objects)
        .unwrap()
        .map(|shard| shard.unwrap().path())
        .find(|shard| std::fs::read_dir(shard).unwrap().count() > 1);
    let shard = crowded.expect("202 objects in 1024 shards: some share one");
    let prefix = shard.file_name().unwrap().to_str().unwrap();
    let told = place.told(&["info", prefix]);
    assert!(
        told.starts_with(&format!("exit 4\nfarseek: '{prefix}' is ambiguous")),
        "{told}"
    );
    assert!(told.ends_with("; give more characters of it"), "{told}");
}

#[test]
fn a_closed_output_is_no_error() {
    use std::process::Stdio;
    let place = Place::make();
    place.write("big/file", vec![b'x'; 4 << 20]);
    place.ok(&["commit", "big", "-t", "big"]);
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_farseek"))
        .args(["cat", "big", "file"])
        .env_clear()
        .env("HOME", place.path("home"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(place.describe(&output), "exit 0");
}

#[test]
fn repositories_of_the_real_spfs_are_listed_as_it_does() {
    let (Some(_), Some(expected)) = (fixture("repo"), fixture("../fixtures")) else {
        return;
    };
    let expected = std::fs::read_to_string(expected.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let place = Place::make();
    for name in ["repo", "repo-legacy"] {
        let repository = fixture(name).unwrap();
        let repository = repository.to_str().unwrap();
        for (reference, about) in expected[name]["refs"].as_object().unwrap() {
            if let Some(listing) = about["ls_R_l"].as_str() {
                let ours = place.ok(&["ls", "-R", "-l", reference, "-r", repository]);
                let same = |text: &str| without_owner(text).trim_end().to_owned();
                let theirs = without_ghosts(&same(listing));
                assert_eq!(same(&ours), theirs, "{name} {reference}");
            }
            if let Some(info) = about["info"].as_str().filter(|_| !reference.contains('+')) {
                let ours = place.ok(&["info", reference, "-r", repository]);
                assert_eq!(ours.trim_end(), info.trim_end(), "{name} {reference}");
            }
        }
        for (tag, lines) in expected[name]["logs"].as_object().unwrap() {
            let ours = place.ok(&["log", tag, "-r", repository]);
            let lines: Vec<_> = lines
                .as_array()
                .unwrap()
                .iter()
                .map(|l| l.as_str())
                .collect();
            assert_eq!(
                ours.lines().map(Some).collect::<Vec<_>>(),
                lines,
                "{name} {tag}"
            );
        }
    }
}

/// Without the columns of owner and time, which SPFS takes from elsewhere for a stack or a digest.
fn without_owner(listing: &str) -> String {
    let line = |line: &str| match line.split_once(' ') {
        Some((mode, rest))
            if mode.len() == 10 && mode.ends_with(['x', '-', 't', 's', 'S', 'T']) =>
        {
            let mut words = rest.split(' ').filter(|word| !word.is_empty());
            let size = words.nth(1).unwrap_or_default();
            let name: Vec<&str> = words
                .skip_while(|w| !w.contains(':') && *w != "-")
                .skip(1)
                .collect();
            format!("{mode} {size} {}\n", name.join(" "))
        }
        _ => format!("{line}\n"),
    };
    // Whiteouts are not files: SPFS lists those of a single layer, we list what a mount shows.
    let listing: String = listing
        .lines()
        .filter(|l| !l.starts_with("c"))
        .map(line)
        .collect();
    let sections = listing
        .split("\n\n")
        .filter(|s| !s.trim().ends_with(':') || *s == ".:");
    sections.collect::<Vec<_>>().join("\n\n")
}

/// Without the children of `a/b` where a higher layer made it a file: SPFS's listing still walks
/// into the directory it was.
fn without_ghosts(listing: &str) -> String {
    let is_file = listing
        .split("\n\n")
        .any(|s| s.starts_with("./a:\n-rw-r--r-- 24 b"));
    let is_ghost = |section: &str| is_file && section.starts_with("./a/b");
    listing
        .split("\n\n")
        .filter(|section| !is_ghost(section))
        .collect::<Vec<_>>()
        .join("\n\n")
}

#[test]
fn untag_says_in_which_namespace() {
    let place = place_with_tree();
    place.ok(&["commit", "tree", "--tag", "tools/x"]);
    let namespace = |words: &[&str]| {
        let mut command = place.farseek(words);
        command.env("SPFS_STORAGE__TAG_NAMESPACE", "vfx");
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8(text)
            .unwrap()
            .replace(place.path("").to_str().unwrap(), "HERE/")
    };
    let said = namespace(&["untag", "tools/x", "--all"]);
    assert!(
        said.contains("cannot remove 'tools/x' in the tag namespace 'vfx': "),
        "{said}"
    );
    namespace(&["commit", "tree", "--tag", "tools/x"]);
    let said = namespace(&["untag", "tools/x", "--all"]);
    assert_eq!(
        said,
        "removed tools/x with its history, in the tag namespace vfx\n"
    );
    // The one outside of it is another one.
    let repository = place.path("home/.local/share/spfs");
    let remote = format!("file:{}?tag_namespace=vfx", repository.display());
    let output = place
        .farseek(&["untag", "tools/x", "--all", "-r", &remote])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("in the tag namespace 'vfx'"), "{said}");
    assert_eq!(
        place.ok(&["untag", "tools/x", "--all"]),
        "removed tools/x with its history\n"
    );
}
