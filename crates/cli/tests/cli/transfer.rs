//! `push` and `pull`, as a user has them.

use crate::place::Place;
use insta::assert_snapshot;
use serde_json::Value;

/// A place with a repository `remote` that has the tag `tools/x`, a layer of three files.
fn place_with_remote() -> Place {
    let place = Place::make();
    place.write("tree/readme.txt", "hello\n");
    place.write("tree/again.txt", "hello\n");
    place.write("tree/lib/data.bin", vec![7u8; 300_000]);
    place.ok(&["init", "repo", "remote"]);
    place.ok(&["commit", "tree", "-t", "tools/x", "-r", "./remote"]);
    place
}

/// With `./remote` as `origin`.
fn configured() -> Place {
    let place = place_with_remote();
    let address = format!("file:{}", place.path("remote").display());
    let toml = format!("[remote.origin]\naddress = \"{address}\"\n");
    place.write("home/.config/farseek/farseek.toml", toml);
    place
}

fn digest_of(place: &Place, tag: &str, repository: &str) -> String {
    let log = place.ok(&["log", tag, "-r", repository, "--json"]);
    let log: Value = serde_json::from_str(&log).unwrap();
    log[0]["target"].as_str().unwrap().to_owned()
}

/// Without how long it took.
fn timeless(text: &str) -> String {
    let line = |line: &str| match line.split_once(", in ") {
        Some((what, _)) => format!("{what}, in [TIME]\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn what_is_pulled_is_here_and_what_is_pushed_is_there() {
    let place = configured();
    let digest = digest_of(&place, "tools/x", "./remote");
    let shown = |text: &str| timeless(text).replace(&digest, "[DIGEST]");
    assert_snapshot!(shown(&place.ok(&["pull", "tools/x"])), @r"
    tools/x -> [DIGEST]
    copied 4 objects and 2 files, 293.0 KiB, in [TIME]
    ");
    assert_eq!(place.ok(&["cat", "tools/x", "readme.txt"]), "hello\n");
    assert_snapshot!(shown(&place.ok(&["pull", "tools/x"])), @r"
    tools/x -> [DIGEST] (it did before)
    nothing was missing
    ");
    place.ok(&["init", "repo", "other"]);
    let pushed = place.ok(&["push", "tools/x", "--to", "./other"]);
    assert_eq!(timeless(&pushed).lines().count(), 2);
    let listed = place.ok(&["ls", "-R", "tools/x", "-r", "./other"]);
    assert_eq!(listed, place.ok(&["ls", "-R", "tools/x", "-r", "./remote"]));
    // A digest and its beginning are copied without a tag.
    place.ok(&["init", "repo", "third"]);
    let short = &digest[..10];
    let pushed = place.ok(&["push", short, "--from", "./other", "-r", "./third"]);
    assert_eq!(pushed.lines().next().unwrap(), digest);
    assert_eq!(place.ok(&["tags", "-r", "./third"]), "");
    assert_eq!(
        place.ok(&["cat", &digest, "readme.txt", "-r", "./third"]),
        "hello\n"
    );
}

#[test]
fn a_tag_that_is_there_is_brought_up_to_date_when_asked() {
    let place = configured();
    place.ok(&["pull", "tools/x"]);
    let old = digest_of(&place, "tools/x", "./remote");
    place.write("tree/more.txt", "more\n");
    place.ok(&["commit", "tree", "-t", "tools/x", "-r", "./remote"]);
    let new = digest_of(&place, "tools/x", "./remote");
    let shown = |text: &str| timeless(text).replace(&old, "[OLD]").replace(&new, "[NEW]");
    assert_snapshot!(shown(&place.ok(&["pull", "tools/x"])), @r"
    tools/x is left as it is there, at [OLD]: --sync brings it up to date, to [NEW]
    nothing was missing
    ");
    // SPFS has another word for it as well.
    assert_snapshot!(shown(&place.ok(&["pull", "tools/x", "--pull"])), @r"
    tools/x -> [NEW]
    copied 3 objects and 1 file, 5 B, in [TIME]
    ");
    assert_eq!(place.ok(&["cat", "tools/x", "more.txt"]), "more\n");
    let log = |repository: &[&str]| place.ok(&[&["log", "tools/x", "--json"], repository].concat());
    assert_eq!(
        log(&[]),
        log(&["-r", "./remote"]),
        "with the same times and parents"
    );
}

#[test]
fn a_stack_is_copied_item_by_item() {
    let place = place_with_remote();
    place.write("other/more.txt", "more\n");
    place.ok(&["commit", "other", "-t", "other", "-r", "./remote"]);
    let json = place.ok(&["pull", "tools/x+other", "--from", "./remote", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["items"][0]["tag"], "tools/x");
    assert_eq!(json["items"][1]["tag"], "other");
    assert_eq!(json["items"][1]["outcome"], "updated");
    assert_eq!(
        (&json["objects"], &json["payloads"]),
        (&7.into(), &3.into())
    );
    assert_eq!(place.ok(&["tags"]), "other\ntools/x\n");
    assert_eq!(place.ok(&["cat", "tools/x+other", "more.txt"]), "more\n");
}

#[test]
fn check_and_resync_mend_what_is_there() {
    let place = configured();
    place.ok(&["pull", "tools/x"]);
    let local = place.path("home/.local/share/spfs");
    let payloads = local.join("payloads");
    let large = files_below(&payloads)
        .into_iter()
        .find(|path| std::fs::metadata(path).unwrap().len() == 300_000)
        .unwrap();
    std::fs::remove_file(&large).unwrap();
    let last = |arguments: &[&str]| {
        let told = timeless(&place.ok(arguments));
        told.lines().last().unwrap().to_owned()
    };
    assert_eq!(last(&["pull", "tools/x"]), "nothing was missing");
    assert_eq!(
        last(&["pull", "tools/x", "--check"]),
        "copied 0 objects and 1 file, 293.0 KiB, in [TIME]"
    );
    std::fs::write(&large, vec![8u8; 300_000]).unwrap();
    assert_eq!(last(&["pull", "tools/x", "--check"]), "nothing was missing");
    assert_eq!(
        last(&["pull", "tools/x", "--resync"]),
        "copied 0 objects and 1 file, 293.0 KiB, in [TIME]"
    );
    assert_eq!(std::fs::read(&large).unwrap(), vec![7u8; 300_000]);
}

/// Every file below `directory`.
pub(crate) fn files_below(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files
}

#[test]
fn refusals_say_what_to_do() {
    let place = place_with_remote();
    assert_snapshot!(place.told(&["pull", "tools/x"]), @r"
    exit 3
    farseek: no remote 'origin' is configured: say which with --from NAME|URL|PATH, or set remote.origin.address
    ");
    assert_snapshot!(place.told(&["push", "tools/x", "-r", "./remote"]), @r"
    exit 3
    farseek: there is no local repository at [PLACE]/home/.local/share/spfs yet; `farseek init` or the first `farseek commit` makes one, --remote uses another
    ");
    assert_snapshot!(place.told(&["pull", "tools/y", "--from", "./remote"]), @r"
    exit 3
    farseek: file:[PLACE]/remote has no tag 'tools/y'; `farseek tags` lists the tags there are
    ");
    assert_snapshot!(place.told(&["pull", "-", "--from", "./remote"]), @r"
    exit 2
    farseek: an empty stack has nothing in it
    ");
    let itself = ["push", "tools/x", "--from", "./remote", "--to", "remote/"];
    assert_snapshot!(place.told(&itself), @r"
    exit 2
    farseek: file:[PLACE]/remote cannot be copied to itself: say --from or --to
    ");
    assert_snapshot!(place.told(&["pull", "tools/x", "--from", "./none"]), @r"
    exit 3
    farseek: cannot open the repository: './none' is not a valid repository: there is nothing there
    ");
    assert!(place.told(&["pull"]).starts_with("exit 2\n"));
}

#[test]
fn what_the_source_lacks_is_named() {
    let place = place_with_remote();
    let payloads = place.path("remote/payloads");
    for path in files_below(&payloads) {
        std::fs::remove_file(path).unwrap();
    }
    let told = place.told(&["pull", "tools/x", "--from", "./remote"]);
    assert!(
        told.starts_with("exit 3\nfarseek: file:[PLACE]/remote has no payload "),
        "{told}"
    );
    assert_eq!(place.ok(&["tags"]), "");
}

#[test]
fn a_web_server_is_pulled_from_and_never_pushed_to() {
    let place = place_with_remote();
    let server = farseek_testkit::StaticServer::start(&place.path("remote"));
    let url = server.url();
    place.ok(&["pull", "tools/x", "--from", &url]);
    assert_eq!(place.ok(&["cat", "tools/x", "readme.txt"]), "hello\n");
    place.write("tree/new.txt", "new\n");
    place.ok(&["commit", "tree", "-t", "tools/new"]);
    let told = place.told(&["push", "tools/new", "--to", &url]);
    assert!(told.starts_with("exit 1\nfarseek: http://"), "{told}");
    assert!(
        told.ends_with(" cannot store payloads: it is read-only"),
        "{told}"
    );
}

/// The most memory of its own that a process has had, in bytes, as long as it runs.
fn peak_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

#[test]
fn memory_does_not_grow_with_payloads() {
    let place = Place::make();
    for number in 0..3u8 {
        place.write(&format!("tree/{number}"), vec![number; 128 << 20]);
    }
    place.ok(&["init", "repo", "source"]);
    place.ok(&["commit", "tree", "-t", "large", "-r", "./source"]);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_farseek"));
    command
        .args(["pull", "large", "--progress", "none", "--from", "./source"])
        .env_clear()
        .env("HOME", place.path("home"))
        .current_dir(place.path(""))
        .stdout(std::process::Stdio::null());
    let mut pull = farseek_testkit::ChildGuard::spawn(&mut command).unwrap();
    let mut most = 0;
    while pull.try_wait().unwrap().is_none() {
        let pid = pull.child().id();
        most = most.max(peak_memory(pid).unwrap_or_default());
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(pull.try_wait().unwrap().unwrap().success());
    assert!(most > 1 << 20, "it was looked at");
    assert!(most < 128 << 20, "{most} bytes");
    assert!(place.told(&["check"]).starts_with("exit 0\n"));
}
