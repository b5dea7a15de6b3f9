//! The rest of the tour: search, layers, platforms, diff, write, annotations, and repositories of
//! every kind behind them.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use farseek_testkit::StaticServer;
use insta::assert_snapshot;
use serde_json::Value;

use crate::place::{Place, fixture};

fn json(place: &Place, arguments: &[&str]) -> Value {
    serde_json::from_str(&place.ok(arguments)).unwrap()
}

fn commit(place: &Place, arguments: &[&str]) -> String {
    let arguments = [&["commit", "--json"], arguments].concat();
    json(place, &arguments)["digest"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Two versions of `tools/x`, and a platform of it.
fn place_with_history() -> Place {
    let place = Place::make();
    place.write("tree/same", "same");
    place.write("tree/changed", "one");
    place.write("tree/old/file", "gone");
    commit(&place, &["tree", "-t", "tools/x"]);
    place.write("tree/changed", "two");
    fs::remove_dir_all(place.path("tree/old")).unwrap();
    place.write("tree/new", "new");
    commit(&place, &["tree", "-t", "tools/x"]);
    place
}

#[test]
fn a_line_is_a_line_whatever_names_hold() {
    let place = Place::make();
    place.write("tree/two\nlines \u{1b}[31m", "x");
    commit(&place, &["tree", "-t", "one"]);
    place.write("tree/three", "x");
    commit(&place, &["tree", "-t", "two"]);
    let named = r"two\nlines \x1b[31m";
    assert_eq!(place.ok(&["ls", "one"]), format!("{named}\n"));
    assert_eq!(place.ok(&["diff", "two", "one"]), "- /three\n");
    let all = place.ok(&["diff", "two", "one", "--all"]);
    assert!(
        all.lines().any(|line| line == format!("= /{named}")),
        "{all}"
    );
    // For scripts it is what it is.
    let told = json(&place, &["ls", "one", "--json"]);
    assert_eq!(told[0]["path"], "two\nlines \u{1b}[31m");
}

#[test]
fn what_differs_between_two_versions() {
    let place = place_with_history();
    assert_snapshot!(place.ok(&["diff", "tools/x~1", "tools/x"]), @r"
    ~ /changed
    + /new
    - /old
    - /old/file
    ");
    assert_snapshot!(place.ok(&["diff", "tools/x~1", "tools/x", "--all"]), @r"
    ~ /changed
    + /new
    - /old
    - /old/file
    = /same
    ");
    assert_eq!(place.ok(&["diff", "tools/x", "tools/x"]), "");
    let found = json(&place, &["diff", "tools/x~1", "tools/x", "--json"]);
    assert_eq!(found[0]["change"], "changed");
    assert_eq!(found[0]["path"], "/changed");
    assert_snapshot!(place.told(&["diff"]), @r"
    exit 2
    farseek: this is no runtime: start one with `farseek run` or `farseek shell`
    ");
}

#[test]
fn layers_and_platforms_with_their_tags() {
    let place = place_with_history();
    let [new, old] = ["tools/x", "tools/x~1"].map(|tag| {
        let log = json(&place, &["info", tag, "--json"]);
        log[0]["digest"].as_str().unwrap().to_owned()
    });
    let mut expected = [format!("{new} tools/x\n"), format!("{old} tools/x~1\n")];
    expected.sort();
    assert_eq!(place.ok(&["layers", "--tags"]), expected.concat());
    let short = place.ok(&["layers", "--short"]);
    assert!(short.lines().all(|line| line.len() == 10), "{short}");
    assert_eq!(short.lines().count(), 2);
    assert_eq!(place.ok(&["platforms"]), "");
    let platform = commit(
        &place,
        &["platform", "--ref", "tools/x~1+tools/x", "-t", "env"],
    );
    assert_eq!(
        place.ok(&["platforms", "--tags"]),
        format!("{platform} env\n")
    );
    let listed = json(&place, &["platforms", "--tags", "--json"]);
    assert_eq!(listed[0]["digest"], platform.as_str());
    assert_eq!(listed[0]["tags"][0], "env");
}

#[test]
fn a_damaged_object_is_told_and_hides_no_other() {
    let place = place_with_history();
    let list = place.ok(&["layers"]);
    let digest = list.lines().next().unwrap();
    let objects = place.path("home/.local/share/spfs/objects");
    fs::write(objects.join(&digest[..2]).join(&digest[2..]), "broken").unwrap();
    let output = place.farseek(&["layers"]).output().unwrap();
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("1 objects of"), "{error}");
}

#[test]
fn a_blob_goes_in_and_comes_out() {
    let place = Place::make();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut write = place.farseek(&["write", "-t", "data/x", "-t", "data/y"]);
    let output = write.write_stdin(bytes.clone()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let digest = printed.lines().next().unwrap();
    assert_eq!(
        printed,
        format!("{digest}\ndata/x -> {digest}\ndata/y -> {digest}\n")
    );
    let read = place.farseek(&["cat", "data/y"]).output().unwrap();
    assert!(read.stdout == bytes);
    let file = place.write("file", &bytes);
    let file = file.to_str().unwrap();
    let again = json(&place, &["write-file", "--file", file, "--json"]);
    assert_eq!(again["digest"], digest);
    assert_eq!(again["size"], 3_000_000);
    assert_snapshot!(place.told(&["write", "-f", "nowhere"]), @r"
    exit 3
    farseek: there is no file nowhere
    ");
    assert_snapshot!(place.told(&["write", "-f", "home"]), @r"
    exit 2
    farseek: home is a directory: say which file
    ");
}

#[test]
fn annotations_are_found_again() {
    let place = Place::make();
    place.write("tree/file", "content");
    let long = "long ".repeat(10_000);
    place.write(
        "notes",
        format!("# notes\nfrom: file\nlong: '{long}'\nkey: of the file\n"),
    );
    commit(
        &place,
        &[
            "tree",
            "-t",
            "a",
            "--annotation-file",
            "notes",
            "--annotation",
            "key=of a",
        ],
    );
    let get = |arguments: &[&str]| place.ok(&[&["info"], arguments].concat());
    assert_eq!(get(&["a", "--get", "key"]), "of a\n");
    assert_eq!(
        get(&["a", "--get", "from", "--get", "key"]),
        "from: file\nkey: of a\n"
    );
    assert_eq!(get(&["a", "--get", "long"]), format!("{long}\n"));
    let layer = json(&place, &["info", "a", "--json"]);
    let kept = layer[0]["annotations"].as_array().unwrap();
    assert_eq!(kept.len(), 3);
    let blob = kept.iter().find(|kept| kept["key"] == "long").unwrap();
    assert!(blob["blob"].is_string(), "a long value is a blob: {blob}");

    // The lowest layer's value is found first, the highest's is shown among all, as in SPFS.
    let platform = [
        "platform",
        "--ref",
        "a",
        "-t",
        "p",
        "--annotation",
        "key:of p",
    ];
    commit(&place, &platform);
    assert_eq!(get(&["p", "--get", "key"]), "of a\n");
    let all = json(&place, &["info", "p", "--get-all", "--json"]);
    assert_eq!(all[0]["annotations"]["key"], "of p");
    assert_eq!(all[0]["annotations"]["from"], "file");
    assert_eq!(place.ok(&["ls", "p"]), "file\n");
    assert_snapshot!(place.told(&["info", "a", "--get", "none"]), @r"
    exit 3
    farseek: 'a' has no annotation 'none'
    ");
    assert_snapshot!(place.told(&["commit", "tree", "--annotation", "nothing"]), @r"
    exit 2
    farseek: 'nothing' is no annotation: write KEY=VALUE
    ");
}

#[test]
fn outside_of_a_runtime_there_are_no_changes_to_commit() {
    let place = Place::make();
    for kind in ["layer", "platform"] {
        let told = place.told(&["commit", kind]);
        assert!(told.starts_with("exit 2"), "{told}");
        assert!(
            told.contains("this is no runtime: start one with `farseek run`"),
            "{told}"
        );
    }
}

/// A configuration with these remotes.
fn configure(place: &Place, remotes: &str) {
    place.write("home/.config/farseek/farseek.toml", remotes);
}

#[test]
fn tags_are_searched_in_every_remote() {
    let place = place_with_history();
    let one = place.path("one");
    let one = one.to_str().unwrap();
    place.ok(&["init", "repo", one]);
    commit(&place, &["tree", "-r", one, "-t", "apps/maya"]);
    let missing = place.path("missing");
    let local = place.path("home/.local/share/spfs");
    let remotes = format!(
        "[remote.one]\naddress = '{one}'\n[remote.gone]\naddress = '{}'\n\
         [remote.here]\naddress = '{}'\n",
        missing.display(),
        local.display()
    );
    configure(&place, &remotes);
    let output = place.farseek(&["search", "a"]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "one apps/maya\n");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("left out: cannot open the remote 'gone'"),
        "{error}"
    );
    let found = json(&place, &["search", "ls/x", "--json"]);
    assert_eq!(found[0]["remote"], "here");
    assert_eq!(found[0]["tag"], "tools/x");
    assert_eq!(place.ok(&["search", "none"]), "");
    let secret = format!("proxy:?primary={one}&secondary[0]=http://me:secret@127.0.0.1:1/");
    for json in [&[][..], &["--json"]] {
        let shown = place.ok(&[&["search", "maya", "-r", &secret], json].concat());
        assert!(shown.contains("apps/maya"), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
    }
    let told = place.told(&["search", "a", "-r", "gone"]);
    assert!(
        told.starts_with("exit 3") && told.contains("there is nothing there"),
        "{told}"
    );
    configure(&place, "");
    let told = place.told(&["search", "a"]);
    assert!(
        told.contains("no remote is configured to be searched"),
        "{told}"
    );
}

#[test]
fn an_archive_is_a_repository_for_every_command() {
    let place = Place::make();
    place.write("tree/file", "content");
    let tar = format!("tar:{}", place.path("x.tar").display());
    let made = format!("{tar}?create=true");
    let told = place.told(&["tags", "-r", &tar]);
    assert!(told.contains("there is no archive there"), "{told}");
    let layer = commit(
        &place,
        &["tree", "-r", &made, "-t", "a", "--annotation", "k=v"],
    );
    // Without a tag, it is there for the next command as well.
    let platform = commit(&place, &["platform", "--ref", "a", "-r", &tar]);
    assert_eq!(
        place.ok(&["platforms", "-r", &tar]),
        format!("{platform}\n")
    );
    assert_eq!(
        place.ok(&["layers", "--tags", "-r", &tar]),
        format!("{layer} a\n")
    );
    assert_eq!(place.ok(&["cat", "a", "file", "-r", &tar]), "content");
    assert_eq!(place.ok(&["info", "a", "--get", "k", "-r", &tar]), "v\n");
    let write = ["write", "-t", "blob", "-r", &tar];
    let output = place.farseek(&write).write_stdin("hello").output().unwrap();
    assert!(output.status.success());
    assert_eq!(place.ok(&["cat", "blob", "-r", &tar]), "hello");
    place.ok(&["untag", "blob", "--all", "-r", &tar]);
    assert_eq!(
        place.ok(&["search", "", "-r", &tar]),
        "tar:[PLACE]/x.tar a\n"
    );
    let names: Vec<_> = fs::read_dir(place.path("")).unwrap().collect();
    assert_eq!(names.len(), 3, "home, tree and the archive");
}

#[test]
fn what_a_web_server_cannot_do_is_said() {
    let place = place_with_history();
    let server = StaticServer::start(&place.path("home/.local/share/spfs"));
    let url = server.url();
    let write = place
        .farseek(&["write", "-r", &url])
        .write_stdin("x")
        .output()
        .unwrap();
    let write = place.describe(&write);
    for told in [
        place.told(&["layers", "-r", &url]),
        place.told(&["platforms", "-r", &url]),
        place.told(&["search", "x", "-r", &url]),
        write,
    ] {
        assert!(told.starts_with("exit 1\nfarseek: http"), "{told}");
        assert!(told.contains(" cannot "), "{told}");
    }
    let diff = place.ok(&["diff", "tools/x~1", "tools/x", "-r", &url]);
    assert!(diff.contains("+ /new"), "{diff}");
}

#[test]
fn a_proxy_of_configured_names_and_views_at_a_time() {
    let place = place_with_history();
    let [one, two] = ["one", "two"].map(|name| {
        let path = place.path(name).to_str().unwrap().to_owned();
        place.ok(&["init", "repo", &path]);
        commit(&place, &["tree", "-r", &path, "-t", &format!("in/{name}")]);
        path
    });
    let remotes = format!(
        "[remote.one]\naddress = '{one}'\n[remote.two]\nscheme = 'fs'\npath = '{two}'\n\
         [remote.both]\nscheme = 'proxy'\nprimary = 'one'\nsecondary = ['two']\n\
         [remote.past]\nscheme = 'fs'\npath = '{two}'\nwhen = '~1h'\n\
         [remote.circle]\nscheme = 'proxy'\nprimary = 'round'\n\
         [remote.round]\naddress = 'fallback:?primary=circle'\n"
    );
    configure(&place, &remotes);
    assert_eq!(place.ok(&["tags", "-r", "both"]), "in/one\nin/two\n");
    assert_eq!(place.ok(&["cat", "in/two", "new", "-r", "both"]), "new");
    assert_eq!(place.ok(&["tags", "-r", "past"]), "");
    let future = format!("{two}?when=@2100-01-01");
    assert_eq!(place.ok(&["tags", "-r", &future]), "in/two\n");
    let told = place.told(&["tag", "in/two", "x", "-r", &future]);
    assert!(
        told.contains("cannot change tags: it shows the past"),
        "{told}"
    );
    let told = place.told(&["tags", "-r", "circle"]);
    assert!(told.starts_with("exit 2"), "{told}");
    assert!(told.contains("it leads to itself"), "{told}");
    let told = place.told(&["tags", "-r", "proxy:?primary=three"]);
    assert!(told.contains("there is no remote 'three'"), "{told}");
}

#[test]
fn origin_is_wrapped_for_one_command() {
    let place = place_with_history();
    let origin = place.path("origin");
    let origin = origin.to_str().unwrap();
    place.ok(&["init", "repo", origin]);
    commit(&place, &["tree", "-r", origin, "-t", "far"]);
    let wrap = ["-r", "origin", "--wrap-origin", "near"];
    let told = place.told(&[&["tags"][..], &wrap].concat());
    assert!(told.contains("needs a remote 'origin'"), "{told}");
    configure(&place, &format!("[remote.origin]\naddress = '{origin}'\n"));
    assert_eq!(place.ok(&[&["tags"][..], &wrap].concat()), "far\n");
    place.ok(&[&["tag", "far", "tagged"][..], &wrap].concat());
    assert_eq!(place.ok(&["tags", "-r", "./near"]), "tagged\n");
    assert_eq!(place.ok(&["tags", "-r", "origin"]), "far\n");
    assert_eq!(place.ok(&[&["tags"][..], &wrap].concat()), "far\ntagged\n");
    // A pull reads what is near as well, a push goes there.
    let wrap = ["--wrap-origin", "near"];
    place.ok(&[&["pull", "far", "tagged"][..], &wrap].concat());
    assert_eq!(place.ok(&["cat", "tagged", "new"]), "new");
    place.ok(&["tag", "far", "mine"]);
    place.ok(&[&["push", "mine"][..], &wrap].concat());
    assert_eq!(place.ok(&["tags", "-r", "./near"]), "mine\ntagged\n");
    assert_eq!(place.ok(&["tags", "-r", "origin"]), "far\n");
    // What origin has is not copied: together they have all of it.
    let through = ["-r", "origin", "--wrap-origin", "near"];
    assert_eq!(
        place.ok(&[&["cat", "mine", "new"][..], &through].concat()),
        "new"
    );
}

#[test]
fn what_spfs_wrote_is_the_same_in_an_archive() {
    let Some(repository) = fixture("repo") else {
        return;
    };
    let place = Place::make();
    let path = place.path("packed.tar");
    let packed = Command::new("tar")
        .arg("-cf")
        .arg(&path)
        .arg("-C")
        .arg(&repository)
        .arg(".")
        .status();
    assert!(packed.unwrap().success());
    let tar = format!("tar:{}", path.display());
    let directory = repository.to_str().unwrap();
    for arguments in [
        &["tags", "--target"][..],
        &["layers", "--tags"],
        &["platforms", "--tags"],
        &["ls", "fix/base", "-R"],
        &["info", "fix/annotation-c", "--get-all"],
        &["diff", "fix/base~1", "fix/base", "--all"],
    ] {
        let of = |remote| place.ok(&[arguments, &["-r", remote]].concat());
        let expected = of(directory);
        assert!(!expected.is_empty(), "{arguments:?}");
        assert_eq!(of(&tar), expected, "{arguments:?}");
    }
    let get = ["info", "fix/annotation-b", "--get", "k2", "-r", &tar];
    assert_eq!(place.ok(&get), "värde 2\n");
}

#[test]
fn a_writer_that_is_killed_leaves_the_old_archive_or_the_new_one() {
    let place = Place::make();
    for n in 0..200 {
        place.write(&format!("tree/file{n}"), format!("{n}").repeat(5000));
    }
    let tar = format!("tar:{}?create=true", place.path("x.tar").display());
    place.write("kept/file", "kept");
    commit(&place, &["kept", "-r", &tar, "-t", "kept"]);
    let mut killed = 0;
    for n in 0..20_u64 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_farseek"))
            .args(["commit", "tree", "-t", "new", "-r", &tar])
            .env_clear()
            .env("HOME", place.path("home"))
            .current_dir(place.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(20 * n));
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        assert_eq!(place.ok(&["cat", "kept", "file", "-r", &tar]), "kept");
        if place.ok(&["tags", "-r", &tar]).contains("new") {
            let bytes = place.ok(&["cat", "new", "file7", "-r", &tar]);
            assert_eq!(bytes, "7".repeat(5000));
            place.ok(&["untag", "new", "--all", "-r", &tar]);
        }
    }
    assert!(killed > 0, "none was killed on its way");
    commit(&place, &["tree", "-r", &tar, "-t", "new"]);
    assert_eq!(place.ok(&["tags", "-r", &tar]), "kept\nnew\n");
    assert!(!place.path(".x.tar.work").exists());
}
