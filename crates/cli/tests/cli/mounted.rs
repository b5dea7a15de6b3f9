//! What a mount tells about itself, and what warming one leaves behind.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use crate::place::Place;
use farseek_testkit::mount::is_mounted;
use farseek_testkit::{Need, need};

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
        let _ = self.place.farseek(&["unmount", "--lazy", "mnt"]).output();
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
