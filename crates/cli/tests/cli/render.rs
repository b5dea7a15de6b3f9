//! `farseek render`: into directories, and into the repository's store of renders.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use farseek_testkit::StaticServer;
use insta::assert_snapshot;
use serde_json::Value;

use crate::place::{Place, fixture};

/// Two layers, `base` and `upper`.
fn place() -> Place {
    let place = Place::make();
    place.write("base/bin/tool", "a tool");
    place.write("base/readme", "read me");
    fs::set_permissions(
        place.path("base/bin/tool"),
        fs::Permissions::from_mode(0o555),
    )
    .unwrap();
    std::os::unix::fs::symlink("bin/tool", place.path("base/link")).unwrap();
    place.ok(&["commit", "base", "-t", "base"]);
    place.write("upper/readme", "read me first");
    place.ok(&["commit", "upper", "-t", "upper"]);
    place
}

/// A path as it was told.
fn path_of(place: &Place, told: &str) -> PathBuf {
    place.path(told.strip_prefix("[PLACE]/").unwrap())
}

fn rendered(place: &Place, arguments: &[&str]) -> Vec<PathBuf> {
    let told: Value = serde_json::from_str(&place.ok(arguments)).unwrap();
    let paths = told["paths_rendered"].as_array().unwrap().iter();
    paths
        .map(|path| path_of(place, path.as_str().unwrap()))
        .collect()
}

#[test]
fn an_environment_becomes_a_directory() {
    let place = place();
    let said = place.ok(&["render", "base+upper", "out"]);
    let (said, took) = said.trim_end().rsplit_once(", in ").unwrap();
    assert!(took.ends_with(" s"), "{took}");
    assert_eq!(said, "rendered 2 files, 1 directory and 1 link, 19 B");
    let read = |name: &str| fs::read_to_string(place.path(name)).unwrap();
    assert_eq!(read("out/readme"), "read me first");
    assert_eq!(read("out/link"), "a tool");
    let tool = fs::metadata(place.path("out/bin/tool")).unwrap();
    assert_eq!((tool.mode() & 0o7777, tool.nlink()), (0o555, 1));

    assert_snapshot!(place.told(&["render", "base", "out"]), @r#"
    exit 2
    farseek: 'out' is not a valid directory to render into: it is not empty: name another, or allow what is in it to be replaced (--allow-existing)
    "#);
    place.ok(&["render", "base", "out", "--allow-existing"]);
    assert_eq!(read("out/readme"), "read me");
    let told = place.ok(&["render", "base", "more", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["directory"], "[PLACE]/more");
    assert_eq!(told["render_summary"]["files"], 2);
    assert_eq!(told["render_summary"]["linked"], 0);
}

#[test]
fn programs_run_as_somebody_else_only_where_that_is_asked_for() {
    let place = place();
    let tool = |at: &str| place.path(&format!("{at}/bin/tool"));
    fs::set_permissions(tool("base"), fs::Permissions::from_mode(0o6755)).unwrap();
    place.ok(&["commit", "base", "-t", "base"]);
    place.ok(&["render", "base", "out"]);
    place.ok(&["render", "base", "trusted", "--set-id"]);
    let mode = |at: &str| fs::metadata(tool(at)).unwrap().mode() & 0o7777;
    assert_eq!((mode("out"), mode("trusted")), (0o755, 0o6755));
}

#[test]
fn what_cannot_be_is_said() {
    let place = place();
    assert_snapshot!(place.told(&["render", "nothing", "out"]), @"
    exit 3
    farseek: file:[PLACE]/home/.local/share/spfs has no tag 'nothing'; `farseek tags` lists the tags there are
    ");
    assert!(!place.path("out").exists());
    assert_snapshot!(place.told(&["render", "base", "no/such/place"]), @"
    exit 3
    farseek: cannot create no/such/place: No such file or directory (os error 2)
    ");
    let said = place.told(&["render", "base", "out", "--strategy", "HardLink"]);
    assert!(said.starts_with("exit 2\n"), "{said}");
}

#[test]
fn layers_go_to_the_repository_and_a_clean_knows_them() {
    let place = place();
    let (one, again) = (
        rendered(&place, &["render", "base+upper", "--json"]),
        rendered(&place, &["render", "base+upper", "--json"]),
    );
    assert_eq!((one.len(), &one), (2, &again));
    assert_eq!(
        fs::read_to_string(one[0].join("readme")).unwrap(),
        "read me"
    );
    assert_eq!(
        fs::read_to_string(one[1].join("readme")).unwrap(),
        "read me first"
    );
    let lines = place.ok(&["render", "base+upper"]);
    let lines: Vec<PathBuf> = lines.lines().map(|line| path_of(&place, line)).collect();
    assert_eq!(lines, one);
    let payload = fs::metadata(one[0].join("bin/tool")).unwrap();
    assert!(payload.nlink() > 1, "it is linked");
    place.ok(&["untag", "upper", "--all"]);
    place.ok(&["clean", "--yes", "--min-age", "0s"]);
    assert!(one[0].exists() && !one[1].exists());
}

#[test]
fn a_remote_is_enough() {
    let origin = place();
    let server = StaticServer::start(&origin.path("home/.local/share/spfs"));
    let place = Place::make();
    let url = server.url();
    place.ok(&["render", "base", "out", "--remote", &url]);
    let read = |name: &str| fs::read_to_string(place.path(name)).unwrap();
    assert_eq!(read("out/link"), "a tool");
    assert!(
        !place.path("home/.local/share/spfs").exists(),
        "nothing becomes local that nobody asked for"
    );
    let there = &rendered(&place, &["render", "base", "--json", "--remote", &url])[0];
    assert_eq!(fs::read_to_string(there.join("readme")).unwrap(), "read me");
}

#[test]
fn a_repository_of_spfs_is_rendered() {
    let Some(repository) = fixture("repo") else {
        return;
    };
    let place = Place::make();
    let remote = repository.to_str().unwrap();
    let reference = "fix/base+fix/overlay2";
    place.ok(&["render", reference, "out", "--remote", remote]);
    let seen = place.ok(&["ls", "-R", reference, "--remote", remote]);
    let files = fs::read_dir(place.path("out")).unwrap().count();
    assert!(files > 3 && seen.lines().count() > files, "{seen}");
}
