//! `clean`, as a user has it.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use insta::assert_snapshot;
use serde_json::Value;

use crate::place::Place;
use crate::transfer::files_below;

/// Removes whatever nobody needs now.
const AT_ONCE: [&str; 4] = ["clean", "--yes", "--min-age", "0s"];

/// A local repository with the tag `kept`, and the layer that `gone` was the tag of, which shares a
/// file with it. Gives the layer.
fn place_with_garbage() -> (Place, String) {
    let place = Place::make();
    place.write("kept/shared", "in both\n");
    place.write("kept/own", "kept\n");
    place.ok(&["commit", "kept", "-t", "kept"]);
    place.write("gone/shared", "in both\n");
    place.write("gone/own", vec![7u8; 5000]);
    let committed = place.ok(&["commit", "gone", "-t", "gone", "--json"]);
    let committed: Value = serde_json::from_str(&committed).unwrap();
    place.ok(&["untag", "gone", "--all"]);
    (place, committed["digest"].as_str().unwrap().to_owned())
}

fn repository(place: &Place) -> PathBuf {
    place.path("home/.local/share/spfs")
}

/// The digests of a store of the local repository.
fn digests(place: &Place, store: &str) -> BTreeSet<String> {
    let root = repository(place).join(store);
    let files = files_below(&root);
    let inside = files.iter().map(|path| path.strip_prefix(&root).unwrap());
    let digests = inside.filter(|path| !path.starts_with("work"));
    digests
        .map(|path| path.to_str().unwrap().replace('/', ""))
        .collect()
}

fn named(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().unwrap().iter();
    list.map(|item| item["digest"].as_str().unwrap().to_owned())
        .collect()
}

fn make_old(path: &Path) {
    let times = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(86_400));
    File::open(path).unwrap().set_times(times).unwrap();
}

/// What `told` says, without digests.
fn without_digests(told: &str) -> String {
    let words = told.split_inclusive([' ', ',', '\n']).map(|word| {
        let bare = word.trim_end_matches([' ', ',', '\n']);
        match bare.len() {
            56 => word.replace(bare, "[DIGEST]"),
            _ => word.to_owned(),
        }
    });
    words.collect()
}

#[test]
fn what_a_dry_run_says_goes_then() {
    let (place, _) = place_with_garbage();
    let before = (digests(&place, "objects"), digests(&place, "payloads"));
    let dry = ["clean", "--dry-run", "--min-age", "0s"];
    assert_snapshot!(without_digests(&place.told(&dry)), @"
    exit 0
    layer [DIGEST], 93 B
    manifest [DIGEST], 225 B
    blob [DIGEST], 97 B
    payload [DIGEST], 4.9 KiB
    would remove 3 objects, 1 payload, 5.3 KiB; tags lead to 4 digests
    ");
    let plan: Value = serde_json::from_str(&place.ok(&[&dry[..], &["--json"]].concat())).unwrap();
    let now = (digests(&place, "objects"), digests(&place, "payloads"));
    assert_eq!(now, before, "a dry run does nothing");
    assert_snapshot!(place.told(&AT_ONCE), @"
    exit 0
    removed 3 objects, 1 payload, 5.3 KiB; tags lead to 4 digests
    ");
    let after = (digests(&place, "objects"), digests(&place, "payloads"));
    let went = |before: &BTreeSet<String>, after| before.difference(after).cloned().collect();
    assert_eq!(named(&plan["objects"]), went(&before.0, &after.0));
    assert_eq!(named(&plan["payloads"]), went(&before.1, &after.1));
    place.ok(&["check", "kept"]);
    assert_eq!(place.ok(&["cat", "kept", "shared"]), "in both\n");
    assert_snapshot!(place.told(&AT_ONCE), @"
    exit 0
    nothing was removed; tags lead to 4 digests
    ");
}

#[test]
fn what_is_young_stays() {
    let (place, _) = place_with_garbage();
    let before = digests(&place, "objects");
    assert_snapshot!(place.told(&["clean", "--yes"]), @"
    exit 0
    nothing was removed; tags lead to 4 digests, 3 things that no tag leads to may be in use yet
    ");
    assert_eq!(digests(&place, "objects"), before);
}

#[test]
fn nobody_is_asked_where_nobody_can_answer() {
    let (place, _) = place_with_garbage();
    assert_snapshot!(place.told(&["clean"]), @"
    exit 2
    farseek: nobody can be asked whether to remove things: say --yes to do it, or --dry-run to see what would go
    ");
    assert_eq!(
        place
            .farseek(&["clean", "--json"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn tags_are_pruned_as_spfs_does() {
    let place = Place::make();
    for text in ["one", "two", "one", "three"] {
        place.write("tree/file", text);
        place.ok(&["commit", "tree", "-t", "a/b"]);
    }
    let versions = |place: &Place| place.ok(&["log", "a/b"]).lines().count();
    let pruned = ["clean", "--dry-run", "--min-age", "0s", "--prune-repeated"];
    assert_snapshot!(without_digests(&place.told(&pruned)), @"
    exit 0
    tag a/b~3 -> [DIGEST]
    would remove 1 version of a tag, 0 B; tags lead to 9 digests
    ");
    place.ok(&[&AT_ONCE[..], &["--prune-repeated"]].concat());
    assert_eq!(versions(&place), 3);
    place.ok(&[
        &AT_ONCE[..],
        &["--prune-if-more-than", "0", "--keep-if-less-than", "2"],
    ]
    .concat());
    assert_eq!(versions(&place), 2);
    place.ok(&[
        &AT_ONCE[..],
        &["--prune-if-older-than", "0s", "--keep-if-newer-than", "1d"],
    ]
    .concat());
    assert_eq!(versions(&place), 2);
    place.ok(&["check"]);
    place.ok(&[&AT_ONCE[..], &["--prune-if-older-than", "0s"]].concat());
    assert_eq!(digests(&place, "objects"), BTreeSet::new());
    assert_eq!(digests(&place, "payloads"), BTreeSet::new());
}

#[test]
fn tags_of_every_namespace_keep_what_they_name() {
    let (place, layer) = place_with_garbage();
    let other = repository(&place).display().to_string();
    let other = format!("file:{other}?tag_namespace=other");
    place.ok(&["tag", &layer, "x", "--remote", &other]);
    assert!(place.ok(&AT_ONCE).starts_with("nothing was removed"));
    // From within a namespace the tags outside count as well.
    let within = [&AT_ONCE[..], &["--remote", &other]].concat();
    assert!(place.ok(&within).starts_with("nothing was removed"));
    let prune = [&AT_ONCE[..], &["--prune-if-older-than", "0s"]].concat();
    place.ok(&prune);
    place.ok(&["check", "x", "--remote", &other]);
    place.ok(&[&prune[..], &["--prune-all-tag-namespaces"]].concat());
    assert_eq!(digests(&place, "objects"), BTreeSet::new());
}

#[test]
fn what_cannot_be_read_ends_it_before_anything_goes() {
    let (place, layer) = place_with_garbage();
    let layer = repository(&place)
        .join("objects")
        .join(&layer[..2])
        .join(&layer[2..]);
    let garbage = (digests(&place, "objects"), digests(&place, "payloads"));
    let all = |place: &Place| (digests(place, "objects"), digests(place, "payloads"));
    let info = place.ok(&["info", "kept", "--json"]);
    let info: Value = serde_json::from_str(&info).unwrap();
    let digest = info.as_array().map_or(&info, |all| &all[0])["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let kept = repository(&place)
        .join("objects")
        .join(&digest[..2])
        .join(&digest[2..]);
    let bytes = fs::read(&kept).unwrap();
    fs::write(&kept, b"nonsense").unwrap();
    let told = place.told(&AT_ONCE);
    assert!(
        told.starts_with("exit 6\nfarseek: nothing was removed: "),
        "{told}"
    );
    assert!(
        told.contains(kept.file_name().unwrap().to_str().unwrap()),
        "{told}"
    );
    assert_eq!(all(&place), garbage);
    fs::write(&kept, bytes).unwrap();
    let tag = repository(&place).join("tags/broken.tag");
    fs::write(&tag, b"nonsense").unwrap();
    let told = place.told(&AT_ONCE);
    assert!(told.contains("broken.tag"), "{told}");
    assert_eq!(all(&place), garbage);
    fs::remove_file(tag).unwrap();
    // Something that has to stay for being young is no different.
    fs::write(&layer, b"nonsense").unwrap();
    let told = place.told(&["clean", "--yes"]);
    assert!(
        told.starts_with("exit 6\nfarseek: nothing was removed: "),
        "{told}"
    );
    // What nothing leads to may be whatever it is.
    place.ok(&AT_ONCE);
    assert!(!layer.exists());
    place.ok(&["check"]);
}

#[test]
fn what_the_killed_left_goes_and_what_is_held_stays() {
    let (place, _) = place_with_garbage();
    place.ok(&AT_ONCE);
    let name = "6a0f3f0c-5f3c-4d1e-9b52-0d8a2d1c9f10";
    let old = [
        format!("objects/work/{name}"),
        format!("payloads/work/{name}"),
        "tags/x/y.tag.work".to_owned(),
    ];
    let make = |name: &str| place.write(&format!("home/.local/share/spfs/{name}"), "left");
    let old: Vec<PathBuf> = old.iter().map(|name| make(name)).collect();
    // Of a process that is gone; the boot is another one.
    let owner = "1 here 00000000-0000-0000-0000-000000000000 1 pid:[1]\n";
    let host = nix::unistd::gethostname().unwrap();
    let owner = owner.replace("here", host.to_str().unwrap());
    let lock = place.write("home/.local/share/spfs/tags/z.tag.lock", &owner);
    let unknown = make("objects/work/notes.txt");
    for path in old.iter().chain([&lock, &unknown]) {
        make_old(path);
    }
    let young = make("payloads/work/6a0f3f0c-5f3c-4d1e-9b52-0d8a2d1c9f11");
    // Somebody on another host who still writes what began an hour ago.
    let elsewhere = "1 elsewhere 00000000-0000-0000-0000-000000000000 1 pid:[1]\n";
    let hold = place.write("home/.local/share/spfs/holds/x", elsewhere);
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let times = FileTimes::new().set_modified(hour_ago);
    File::open(&hold).unwrap().set_times(times).unwrap();
    let told = place.ok(&AT_ONCE);
    assert!(told.starts_with("removed 4 leftovers, 12 B"), "{told}");
    assert!(old.iter().chain([&lock]).all(|path| !path.exists()));
    assert!(unknown.exists() && hold.exists() && young.exists());
    make_old(&hold);
    place.ok(&AT_ONCE);
    assert!(!hold.exists() && !young.exists());
}

#[test]
fn renders_of_what_is_gone_go() {
    let (place, layer) = place_with_garbage();
    let kept = place.ok(&["ls-tags"]);
    assert!(kept.contains("kept"));
    let (shard, rest) = layer.split_at(2);
    let render = format!("home/.local/share/spfs/renders/me/{shard}/{rest}/sub/file");
    let file = place.write(&render, "rendered");
    let directory = file.parent().unwrap().parent().unwrap().to_owned();
    let sub = file.parent().unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(sub, fs::Permissions::from_mode(0o555)).unwrap();
    make_old(&directory);
    place.ok(&AT_ONCE);
    assert!(!directory.exists());
    assert_eq!(
        files_below(&repository(&place).join("renders")),
        [] as [PathBuf; 0]
    );
}

#[test]
fn a_repository_that_tells_no_ages_is_refused() {
    let (place, _) = place_with_garbage();
    place.ok(&["init", "repo", "other"]);
    let local = repository(&place).display().to_string();
    let past = format!("file:{local}?when=@2024-01-01T00:00:00Z");
    let chain = format!("proxy:?primary=file:{local}&secondary[0]=./other");
    assert_snapshot!(place.told(&["clean", "--yes", "-r", &past]), @"
    exit 1
    farseek: nothing was removed: file:[PLACE]/home/.local/share/spfs?when=@2024-01-01T00:00:00Z cannot be cleaned: it does not remove things by their age
    ");
    assert_snapshot!(place.told(&["clean", "--yes", "-r", &chain]), @"
    exit 1
    farseek: nothing was removed: file:[PLACE]/home/.local/share/spfs, then file:[PLACE]/other cannot be cleaned as one: clean its members, each by itself
    ");
}

/// What several processes do at once, each in its own way, while two clean all the time.
struct Company {
    place: Place,
    until: Instant,
    failed: AtomicBool,
    done: AtomicUsize,
}

impl Company {
    /// Does `round` again and again. Whoever fails ends it for all.
    fn work(&self, round: impl Fn(&Place, usize)) {
        struct Fails<'a>(&'a AtomicBool);
        impl Drop for Fails<'_> {
            fn drop(&mut self) {
                if thread::panicking() {
                    self.0.store(true, Ordering::Relaxed);
                }
            }
        }
        let _fails = Fails(&self.failed);
        for number in 0..2000 {
            if Instant::now() > self.until || self.failed.load(Ordering::Relaxed) {
                return;
            }
            round(&self.place, number);
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The bytes of the file `number` of a tree that `name` makes.
fn contents(name: &str, round: usize, number: usize) -> String {
    // Some files are in every tree, some in every other, some in one.
    match number % 3 {
        0 => format!("{number} of all"),
        1 => format!("{number} of {}", round % 2),
        _ => format!("{number} of {name} in {round}"),
    }
    .repeat(40)
}

const FILES: usize = 12;

fn write_tree(place: &Place, name: &str, round: usize) {
    for number in 0..FILES {
        place.write(&format!("{name}/{number}"), contents(name, round, number));
    }
}

#[test]
fn nothing_that_is_needed_goes_while_everything_goes_on() {
    let place = Place::make();
    place.ok(&["init", "repo", "source"]);
    for round in 0..2 {
        write_tree(&place, "far", round);
        let tag = format!("far{round}");
        place.ok(&["commit", "far", "-t", &tag, "-r", "./source"]);
    }
    place.ok(&["init", "repo", "home/.local/share/spfs"]);
    let company = Company {
        place,
        until: Instant::now() + Duration::from_secs(20),
        failed: AtomicBool::new(false),
        done: AtomicUsize::new(0),
    };
    let company = &company;
    thread::scope(|scope| {
        for name in ["one", "two"] {
            scope.spawn(move || {
                company.work(|place, round| {
                    write_tree(place, name, round);
                    place.ok(&["commit", name, "-t", name]);
                    place.ok(&["check", name]);
                    if round % 3 == 0 {
                        place.ok(&["untag", name, "--all"]);
                    }
                });
            });
        }
        scope.spawn(move || {
            company.work(|place, round| {
                let tag = format!("far{}", round % 2);
                place.ok(&["pull", &tag, "--from", "./source"]);
                place.ok(&["check", &tag]);
                let digest = place.ok(&["log", &tag]);
                place.ok(&["untag", &tag, "--all"]);
                let digest = digest.split_whitespace().find(|word| word.len() == 56);
                // It may be gone by now, and is said to be so; if not, all of it is there.
                if let Some(digest) = digest {
                    let tagged = place.farseek(&["tag", digest, "again"]).output().unwrap();
                    if tagged.status.success() && place.ok(&["tags"]).contains("again") {
                        place.farseek(&["check", digest]).assert().success();
                        place.ok(&["check", "again"]);
                        place.ok(&["untag", "again", "--all"]);
                    }
                }
            });
        });
        for _ in 0..2 {
            scope.spawn(move || company.work(|place, _| drop(place.ok(&AT_ONCE))));
        }
    });
    assert!(company.done.load(Ordering::Relaxed) > 20);
    let place = &company.place;
    place.ok(&["check"]);
    for name in ["one", "two"] {
        let _ = place.farseek(&["untag", name, "--all"]).output();
    }
    // Nothing is left for ever.
    place.ok(&AT_ONCE);
    assert_eq!(digests(place, "objects"), BTreeSet::new());
    assert_eq!(digests(place, "payloads"), BTreeSet::new());
    let held = files_below(&repository(place).join("holds"));
    assert_eq!(held, [] as [PathBuf; 0]);
}

#[test]
fn a_repository_behind_our_server_is_cleaned_by_its_ages() {
    let (place, layer) = place_with_garbage();
    let (mut server, said) = crate::server::start(&place, &["--allow-removal"]);
    let url = said["grpc"].as_str().unwrap();
    let other = Place::make();
    let young = other.ok(&["clean", "--yes", "-r", url]);
    assert_snapshot!(young, @"nothing was removed; tags lead to 4 digests, 3 things that no tag leads to may be in use yet");
    let stores = ["objects", "payloads"].map(|store| repository(&place).join(store));
    for path in stores.iter().flat_map(|store| files_below(store)) {
        make_old(&path);
    }
    // Who writes elsewhere holds it, and the cleaner is told.
    let hold = repository(&place).join("holds/x");
    fs::create_dir_all(hold.parent().unwrap()).unwrap();
    fs::write(
        &hold,
        "1 elsewhere 00000000-0000-0000-0000-000000000000 1 pid:[1]\n",
    )
    .unwrap();
    let times = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(80_000));
    File::open(&hold).unwrap().set_times(times).unwrap();
    let payload = files_below(&stores[1]);
    let times = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(70_000));
    for path in &payload {
        File::open(path).unwrap().set_times(times).unwrap();
    }
    let dry = other.ok(&["clean", "--dry-run", "-r", url]);
    assert!(dry.contains("would remove 3 objects, 415 B"), "{dry}");
    fs::remove_file(hold).unwrap();
    let told = other.ok(&["clean", "--yes", "-r", url]);
    assert_snapshot!(told, @"removed 3 objects, 1 payload, 5.3 KiB; tags lead to 4 digests");
    assert!(!digests(&place, "objects").contains(&layer));
    other.ok(&["check", "kept", "-r", url]);
    assert!(server.interrupt().success());
    assert_eq!(place.ok(&AT_ONCE).lines().count(), 1);
    assert_eq!(digests(&place, "payloads").len(), 2);
    let (mut server, said) = crate::server::start(&place, &[]);
    let url = said["grpc"].as_str().unwrap();
    let refused = other
        .farseek(&["clean", "--yes", "-r", url])
        .output()
        .unwrap();
    assert_eq!(
        refused.status.code(),
        Some(7),
        "{}",
        other.describe(&refused)
    );
    assert!(server.interrupt().success());
}
