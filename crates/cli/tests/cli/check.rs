//! `check`, as a user has it.

use std::fs;
use std::path::PathBuf;

use crate::place::Place;
use crate::transfer::files_below;
use insta::assert_snapshot;

/// A place with a local repository and a copy of it, which is `origin`.
fn place_with_copy() -> Place {
    let place = Place::make();
    place.write("tree/readme.txt", "hello\n");
    place.write("tree/lib/data.bin", vec![7u8; 300_000]);
    place.ok(&["commit", "tree", "-t", "tools/x", "-t", "tools/y"]);
    place.ok(&["init", "repo", "copy"]);
    place.ok(&["push", "tools/x", "tools/y", "--to", "./copy"]);
    let address = format!("file:{}", place.path("copy").display());
    let toml = format!("[remote.origin]\naddress = \"{address}\"\n");
    place.write("home/.config/farseek/farseek.toml", toml);
    place
}

/// The payload of `data.bin`, and its digest.
fn payload(place: &Place) -> (PathBuf, String) {
    let payloads = place.path("home/.local/share/spfs/payloads");
    let path = files_below(&payloads)
        .into_iter()
        .find(|path| fs::metadata(path).unwrap().len() == 300_000)
        .unwrap();
    let shard = path.parent().unwrap().file_name().unwrap();
    let digest = [shard, path.file_name().unwrap()].map(|name| name.to_str().unwrap());
    (path.clone(), digest.concat())
}

#[test]
fn a_sound_repository_is_said_to_be_so() {
    let place = place_with_copy();
    assert_snapshot!(place.told(&["check"]), @"
    exit 0
    checked 2 tags, 4 objects and 2 payloads, 293.0 KiB
    ");
    let sound = place.told(&["check", "tools/x", "-r", "./copy"]);
    assert_snapshot!(sound, @"
    exit 0
    checked 0 tags, 4 objects and 2 payloads, 293.0 KiB
    ");
}

#[test]
fn damage_is_named_with_whom_it_affects_and_repaired() {
    let place = place_with_copy();
    let (path, digest) = payload(&place);
    fs::write(&path, vec![8u8; 300_000]).unwrap();
    let shown = |told: String| {
        let told = told.replace(&digest, "[DIGEST]");
        let (before, after) = told.split_once("those of ").unwrap();
        let (_, after) = after.split_once("====").unwrap();
        format!("{before}those of [OTHER]{after}")
    };
    assert_snapshot!(shown(place.told(&["check"])), @r"
    exit 1
    corrupt payload [DIGEST]: its bytes are those of [OTHER]; affects tools/x, tools/y
    checked 2 tags, 4 objects and 2 payloads, 293.0 KiB
    farseek: file:[PLACE]/home/.local/share/spfs is unsound: 1 problem; --pull=REPOSITORY repairs what another has
    ");
    assert_snapshot!(shown(place.told(&["check", "--json"])), @r#"
    exit 1
    {
      "absent": 0,
      "bytes": 300006,
      "objects": 4,
      "payloads": 2,
      "payloads_without_blob": [],
      "problems": [
        {
          "affects": [
            "tools/x",
            "tools/y"
          ],
          "damage": "corrupt",
          "message": "corrupt payload [DIGEST]: its bytes are those of [OTHER]",
          "name": "[DIGEST]",
          "not_repaired_because": null,
          "repaired": false,
          "what": "payload"
        }
      ],
      "repository": "file:[PLACE]/home/.local/share/spfs",
      "sound": false,
      "tags": 2
    }
    farseek: file:[PLACE]/home/.local/share/spfs is unsound: 1 problem; --pull=REPOSITORY repairs what another has
    "#);
    assert_snapshot!(shown(place.told(&["check", "--pull"])), @r"
    exit 0
    corrupt payload [DIGEST]: its bytes are those of [OTHER]; affects tools/x, tools/y; repaired
    checked 2 tags, 4 objects and 3 payloads, 585.9 KiB
    ");
    assert_eq!(fs::read(&path).unwrap(), vec![7u8; 300_000]);
    assert!(place.told(&["check"]).starts_with("exit 0\n"));
}

#[test]
fn what_cannot_be_repaired_stays_an_error() {
    let place = place_with_copy();
    let (path, digest) = payload(&place);
    fs::remove_file(&path).unwrap();
    place.ok(&["init", "repo", "empty"]);
    let told = place
        .told(&["check", "--pull=./empty"])
        .replace(&digest, "[DIGEST]");
    assert_snapshot!(told, @r"
    exit 1
    missing payload [DIGEST]; affects tools/x, tools/y; not repaired: file:[PLACE]/empty has no payload [DIGEST]
    checked 2 tags, 4 objects and 1 payload, 6 B
    farseek: file:[PLACE]/home/.local/share/spfs is unsound: 1 problem could not be repaired
    ");
    let told = place.told(&["check", "--pull=./copy", "--json"]);
    assert!(told.starts_with("exit 0\n"), "{told}");
}

#[test]
fn a_killed_commit_s_payloads_are_no_damage() {
    let place = place_with_copy();
    let objects = place.path("home/.local/share/spfs/objects");
    for kind in ["objects", "tags"] {
        let _ = fs::remove_dir_all(objects.with_file_name(kind));
    }
    fs::create_dir(&objects).unwrap();
    assert_snapshot!(place.told(&["check"]), @r"
    exit 0
    2 payloads without a blob object: a commit or a copy goes on, or was killed; nothing is wrong
    checked 0 tags, 0 objects and 2 payloads, 293.0 KiB
    ");
}

#[test]
fn what_cannot_be_checked_says_so() {
    let place = place_with_copy();
    let server = farseek_testkit::StaticServer::start(&place.path("copy"));
    let url = server.url();
    let told = place.told(&["check", "-r", &url]);
    let told = told.replace(url.trim_end_matches('/'), "[URL]");
    assert_snapshot!(told, @r"
    exit 1
    farseek: [URL] cannot list what it holds: say which tags or digests to check
    ");
    assert!(
        place
            .told(&["check", "tools/x", "-r", &url])
            .starts_with("exit 0\n")
    );
    assert_snapshot!(place.told(&["check", "tools/none"]), @r"
    exit 3
    farseek: file:[PLACE]/home/.local/share/spfs has no tag 'tools/none'; `farseek tags` lists the tags there are
    ");
    assert_snapshot!(place.told(&["check", "--pull", "-r", "./copy"]), @r"
    exit 2
    farseek: file:[PLACE]/copy cannot be repaired from itself: say --pull=ANOTHER
    ");
}
