//! Fetching ahead, what stays of it, and the cache where it stays.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::place::{Place, Running};
use farseek_testkit::{Fault, Rule, StaticServer, wait_until};
use serde_json::Value;

/// Bytes of the large file: several blocks, and more than is fetched whole.
const LARGE: usize = 3 << 20;

const PATIENCE: Duration = Duration::from_secs(60);

/// A repository behind a web server, and a place with nothing local.
struct Far {
    server: StaticServer,
    here: Place,
    there: Place,
}

impl Far {
    fn new() -> Self {
        let there = Place::make();
        let large: Vec<u8> = (0..LARGE).map(|at| (at / 7 + at / 4096) as u8).collect();
        there.write("tree/lib/large", large);
        for number in 0..20 {
            there.write(&format!("tree/small/{number}"), format!("file {number}\n"));
        }
        there.write("tree/small/copy", "file 1\n");
        std::os::unix::fs::symlink("../lib/large", there.path("tree/small/link")).unwrap();
        there.ok(&["commit", "tree", "-t", "x"]);
        let server = StaticServer::start(&there.path("home/.local/share/spfs"));
        Self {
            server,
            here: Place::make(),
            there,
        }
    }

    /// Warms, which succeeds: what it says and the payloads that were asked for.
    fn warm(&self, more: &[&str]) -> (Value, usize) {
        self.server.clear();
        let url = self.server.url();
        let arguments = [&["warm", "--json", "--remote", &url, "x"], more].concat();
        let said = self.here.ok(&arguments);
        (serde_json::from_str(&said).unwrap(), self.payloads_asked())
    }

    /// The same with another remote before it.
    fn warm_behind(&self, first: &str, more: &[&str]) -> (Value, usize) {
        self.server.clear();
        let url = self.server.url();
        let remotes = ["warm", "--json", "--remote", first, "--remote", &url, "x"];
        let said = self.here.ok(&[&remotes, more].concat());
        (serde_json::from_str(&said).unwrap(), self.payloads_asked())
    }

    /// A part of the path of the large payload.
    fn large(&self) -> String {
        let list = self.there.ok(&["ls", "--json", "x", "lib/large"]);
        let list: Value = serde_json::from_str(&list).unwrap();
        let (shard, rest) = list[0]["digest"].as_str().unwrap().split_at(2);
        format!("payloads/{shard}/{rest}")
    }

    /// Different payloads that were asked for.
    fn payloads_asked(&self) -> usize {
        let requests = self.server.requests_for("payloads/");
        let mut paths: Vec<_> = requests.into_iter().map(|request| request.path).collect();
        paths.sort();
        paths.dedup();
        paths.len()
    }

    fn local_payloads(&self) -> usize {
        let root = self.here.path("home/.local/share/spfs/payloads");
        let shards = std::fs::read_dir(root).into_iter().flatten().flatten();
        let is_shard = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 2);
        let shards = shards.map(|shard| shard.path()).filter(is_shard);
        shards
            .flat_map(|shard| std::fs::read_dir(shard).unwrap())
            .count()
    }
}

fn cache(place: &Place, arguments: &[&str]) -> Value {
    serde_json::from_str(&place.ok(&[&["cache", "--json"], arguments].concat())).unwrap()
}

#[test]
fn what_is_warm_is_local_and_never_fetched_again() {
    let far = Far::new();
    let (said, asked) = far.warm(&[]);
    // 20 small files, a link, a large one.
    assert_eq!(asked, 22, "{said}");
    assert_eq!(said["files"], 22);
    assert_eq!(said["files_before"], 0);
    assert_eq!(said["files_fetched"], 22);
    assert_eq!(said["failures"], Value::Array(Vec::new()));
    assert!(said["bytes_fetched"].as_u64().unwrap() >= LARGE as u64);
    assert_eq!(far.local_payloads(), 22);
    let (said, asked) = far.warm(&[]);
    assert_eq!(asked, 0, "{said}");
    assert_eq!(said["files_before"], 22);
    assert_eq!(said["files_fetched"], 0);
}

#[test]
fn only_what_is_named_is_fetched_and_the_rest_later() {
    let far = Far::new();
    let (said, asked) = far.warm(&["small/3", "/small/4"]);
    assert_eq!((asked, &said["files"]), (2, &2.into()), "{said}");
    // A link is read, and what it leads to is fetched.
    let (said, asked) = far.warm(&["small/link"]);
    assert_eq!((asked, &said["files"]), (2, &1.into()), "{said}");
    assert_eq!(said["bytes"], LARGE);
    let (said, asked) = far.warm(&["--promote", "on-seek"]);
    assert_eq!(said["files_before"], 4, "{said}");
    assert_eq!((asked, &said["files_fetched"]), (18, &18.into()), "{said}");
}

#[test]
fn what_does_not_become_local_stays_in_the_cache() {
    let far = Far::new();
    let never = ["--promote", "never", "--no-local"];
    let (said, asked) = far.warm(&never);
    assert_eq!((asked, &said["files_fetched"]), (22, &22.into()), "{said}");
    assert!(!far.here.path("home/.local/share/spfs").exists());
    assert_eq!(far.warm(&never).1, 0);
    let shown = cache(&far.here, &[]);
    let directory = far.here.path("home/.cache/farseek");
    // In what is printed the place goes by another name.
    assert!(
        shown["directory"]
            .as_str()
            .unwrap()
            .ends_with("/home/.cache/farseek")
    );
    assert!(directory.is_dir());
    assert!(
        shown["used_bytes"].as_u64().unwrap() >= LARGE as u64,
        "{shown}"
    );
    assert_eq!(shown["max_bytes"], 10u64 << 30);
    let trimmed = cache(&far.here, &["trim", "--max", "1M"]);
    assert!(
        trimmed["used_bytes"].as_u64().unwrap() <= 1 << 20,
        "{trimmed}"
    );
    assert!(
        trimmed["freed_bytes"].as_u64().unwrap() >= 2 << 20,
        "{trimmed}"
    );
    let cleared = cache(&far.here, &["clear"]);
    assert_eq!(cleared["used_bytes"], 0);
    assert_eq!(far.warm(&never).1, 22);
}

#[test]
fn a_file_that_cannot_be_had_does_not_keep_the_others_away() {
    let far = Far::new();
    far.server.set_faults([Rule::new(
        "payloads/",
        Fault::Status {
            code: 404,
            retry_after: None,
        },
    )
    .first(1)]);
    let url = far.server.url();
    let arguments = ["warm", "--json", "--remote", &url, "x"];
    let output = far.here.farseek(&arguments).output().unwrap();
    let told = far.here.describe(&output);
    assert_eq!(output.status.code(), Some(3), "{told}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["files_fetched"], 21, "{told}");
    assert_eq!(said["failures"].as_array().unwrap().len(), 1, "{told}");
    let (said, asked) = far.warm(&[]);
    assert_eq!((asked, &said["files_fetched"]), (1, &1.into()), "{said}");
}

#[test]
fn a_lie_is_not_kept() {
    let far = Far::new();
    far.server
        .set_faults([Rule::new("payloads/", Fault::Flip(0))]);
    let url = far.server.url();
    let output = far.here.farseek(&["warm", "--remote", &url, "x"]).output();
    let told = far.here.describe(&output.unwrap());
    assert!(told.starts_with("exit 6\n22 files, "), "{told}");
    assert_eq!(far.local_payloads(), 0);
    far.server.set_faults([]);
    assert_eq!(far.warm(&[]).0["files_fetched"], 22);
}

#[test]
fn interrupted_it_goes_on_where_it_was() {
    let far = Far::new();
    let large = far.large();
    far.server.set_faults([Rule::new(&large, Fault::Never)]);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_farseek"));
    command
        .args(["warm", "--remote", &far.server.url(), "x"])
        .env_clear()
        .env("HOME", far.here.path("home"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut running = Running(command.spawn().unwrap());
    wait_until("the small ones are here", PATIENCE, || {
        far.local_payloads() == 21
    });
    assert_eq!(running.interrupt().code(), Some(130));
    far.server.set_faults([]);
    let (said, asked) = far.warm(&[]);
    assert_eq!((asked, &said["files_before"]), (1, &21.into()), "{said}");
}

#[test]
fn a_remote_that_hangs_leaves_time_for_the_next() {
    let far = Far::new();
    let hangs = StaticServer::start(&far.here.path("home"));
    hangs.set_faults([Rule::new("", Fault::Never)]);
    // Asked first for everything, and each time for half of what there is.
    let (said, asked) = far.warm_behind(&hangs.url(), &["--stall", "2"]);
    assert_eq!((asked, &said["files_fetched"]), (22, &22.into()), "{said}");
    assert!(!hangs.requests().is_empty());
}

#[test]
fn warming_says_what_is_in_the_way() {
    let far = Far::new();
    let url = far.server.url();
    let told = |more: &[&str]| {
        let arguments = [&["warm", "--remote", &url], more].concat();
        far.here.told(&arguments)
    };
    assert_eq!(
        told(&["x", "--no-disk-cache"]),
        "exit 2\nfarseek: without a disk cache nothing would stay: leave out --no-disk-cache, or \
         set cache.enabled and cache.directory"
    );
    assert_eq!(
        told(&["x", "nowhere"]),
        "exit 3\nfarseek: 'x' has no file 'nowhere'"
    );
    assert_eq!(
        far.here.told(&["cache", "show", "--max", "1G"]),
        "exit 2\nfarseek: --max goes with `farseek cache trim`"
    );
}

#[test]
fn a_cache_is_shown_for_a_person() {
    let place = Place::make();
    insta::assert_snapshot!(place.ok(&["cache"]), @r#"
    place   [PLACE]/home/.cache/farseek
    used    0 B
    limit   10.0 GiB, 0% of the disk stays free
    "#);
    insta::assert_snapshot!(place.ok(&["cache", "clear"]), @"freed 0 B; 0 B are left");
    assert!(!Path::new(&place.path("home/.cache")).exists());
}
