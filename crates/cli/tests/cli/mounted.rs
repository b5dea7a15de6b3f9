//! What a mount tells about itself, and what warming one leaves behind.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::place::{Place, Running};
use farseek_testkit::mount::is_mounted;
use farseek_testkit::{Need, StaticServer, need, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// A mount in the background, taken away whatever becomes of the test.
struct Mounted<'a> {
    place: &'a Place,
    path: PathBuf,
    /// What was said on the standard error.
    said: String,
}

impl<'a> Mounted<'a> {
    fn new(place: &'a Place, reference: &str, more: &[&str]) -> Self {
        let path = place.path("mnt");
        std::fs::create_dir_all(&path).unwrap();
        let arguments = [&["mount", reference, "mnt"], more].concat();
        let output = place.farseek(&arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        Self { place, path, said }
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        self.place.take_off();
    }
}

fn get(url: &str) -> String {
    let (host, path) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    body.to_owned()
}

/// The value of a series without labels.
fn value(metrics: &str, name: &str) -> u64 {
    let mut lines = metrics.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in {metrics}"))
        .parse()
        .unwrap()
}

/// Watches the mount until it has told twice, and counts what was told.
fn watched(place: &Place) -> usize {
    let mut watching = Command::new(env!("CARGO_BIN_EXE_farseek"));
    watching
        .args(["stats", "mnt", "--json", "--watch", "1"])
        .env_clear()
        .env("HOME", place.path("home"))
        .current_dir(place.path(""))
        .stdout(Stdio::piped());
    let mut watching = Running(watching.spawn().unwrap());
    let lines = BufReader::new(watching.0.stdout.take().unwrap()).lines();
    let told = lines.take(2).map(|line| {
        let report: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(report["reference"], "x");
    });
    let told = told.count();
    watching.interrupt();
    told
}

#[test]
fn a_mount_tells_what_it_has_done() {
    if !need("a_mount_tells_what_it_has_done", &[Need::Fuse]) {
        return;
    }
    let there = Place::make();
    there.write("tree/file", vec![7; 3 << 20]);
    there.ok(&["commit", "tree", "-t", "x"]);
    let server = StaticServer::start(&there.path("home/.local/share/spfs"));
    let place = Place::make();
    let url = server.url();
    let mounted = Mounted::new(&place, "x", &["--remote", &url, "--promote", "never"]);
    std::fs::read(mounted.path().join("file")).unwrap();
    let said: Value = serde_json::from_str(&place.ok(&["stats", "mnt", "--json"])).unwrap();
    let stats = &said["stats"];
    assert_eq!(said["reference"], "x");
    let fetched = stats["bytes_fetched"].as_u64().unwrap();
    // The payload once, whatever asked for it.
    assert_eq!(fetched, 3 << 20, "{said}");
    assert_eq!(stats["bytes_asked"], 3 << 20, "{said}");
    assert_eq!(said["amplification"], 1.0);
    let told = place.ok(&["stats", "mnt/file"]);
    assert!(told.starts_with("x at [PLACE]/mnt (process "), "{told}");
    assert!(
        told.contains("\n  bytes      3.0 MiB asked for, 3.0 MiB fetched: 1.00 times\n"),
        "{told}"
    );
    assert_eq!(watched(&place), 2);
    let all: Value = serde_json::from_str(&place.ok(&["stats", "--json"])).unwrap();
    let mine = |mount: &&Value| mount["mountpoint"].as_str().unwrap().ends_with("/mnt");
    assert!(
        all.as_array().unwrap().iter().any(|mount| mine(&mount)),
        "{all}"
    );
    wait_until("all of it is on the disk", PATIENCE, || {
        let said: Value = serde_json::from_str(&place.ok(&["stats", "mnt", "--json"])).unwrap();
        said["stats"]["bytes_unwritten"] == 0
    });
    drop(mounted);
    // What was fetched stayed on the disk: the next mount fetches nothing of it.
    server.clear();
    let mounted = Mounted::new(&place, "x", &["--remote", &url, "--promote", "never"]);
    std::fs::read(mounted.path().join("file")).unwrap();
    assert_eq!(server.requests_for("payloads/").len(), 0);
    let said: Value = serde_json::from_str(&place.ok(&["stats", "mnt", "--json"])).unwrap();
    assert!(said["stats"]["hits_disk"].as_u64().unwrap() > 0, "{said}");
}

#[test]
fn a_monitoring_system_sees_what_is_read() {
    if !need("a_monitoring_system_sees_what_is_read", &[Need::Fuse]) {
        return;
    }
    let place = Place::make();
    place.write("tree/file", vec![7; 3 << 20]);
    place.ok(&["commit", "tree", "-t", "x"]);
    let mounted = Mounted::new(&place, "x", &["--metrics", "0"]);
    let url = mounted.said.split_whitespace().last().unwrap();
    assert!(url.starts_with("http://127.0.0.1:"), "{}", mounted.said);
    let before = get(url);
    assert_eq!(value(&before, "farseek_fetched_bytes_total"), 0);
    std::fs::read(mounted.path().join("file")).unwrap();
    let after = get(url);
    let fetched = value(&after, "farseek_fetched_bytes_total");
    assert!(fetched == 0 || fetched >= 3 << 20, "{after}");
    let again = place
        .farseek(&["mount", "-f", "--metrics", &url[7..], "x", "mnt"])
        .output();
    let again = place.describe(&again.unwrap());
    assert!(again.starts_with("exit 2"), "{again}");
    drop(mounted);
    assert!(!is_mounted(&place.path("mnt")));
}
