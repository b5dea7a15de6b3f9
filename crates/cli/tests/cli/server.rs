//! `farseek server`: who is let in, what is said, how it ends.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use insta::assert_snapshot;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::place::{Place, Running};

/// A server of the local repository, and what it has said.
pub(crate) fn start(place: &Place, arguments: &[&str]) -> (Running, Value) {
    let anywhere = ["server", "127.0.0.1:0", "127.0.0.1:0", "--json"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_farseek"))
        .env_clear()
        .env("HOME", place.path("home"))
        .current_dir(place.path("."))
        .args(anywhere)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let mut running = Running(child);
    let Ok(said) = serde_json::from_str(&line) else {
        let mut error = String::new();
        let stderr = running.0.stderr.as_mut().unwrap();
        stderr.read_to_string(&mut error).unwrap();
        panic!("it said {line:?} and {error:?}");
    };
    (running, said)
}

fn committed() -> Place {
    let place = Place::make();
    place.write("tree/readme.txt", "hello\n");
    place.ok(&["commit", "tree", "--tag", "tools/x"]);
    place
}

#[test]
fn another_machine_reads_and_tags_through_it() {
    let place = committed();
    let (mut server, said) = start(&place, &[]);
    let url = said["grpc"].as_str().unwrap();
    let other = Place::make();
    assert_eq!(other.ok(&["tags", "-r", url]), "tools/x\n");
    assert_eq!(
        other.ok(&["cat", "-r", url, "tools/x", "readme.txt"]),
        "hello\n"
    );
    other.ok(&["tag", "-r", url, "tools/x", "tools/y"]);
    assert_eq!(place.ok(&["tags"]), "tools/x\ntools/y\n");
    let refused = other
        .farseek(&["untag", "--all", "-r", url, "tools/y"])
        .output()
        .unwrap();
    assert_eq!(
        refused.status.code(),
        Some(7),
        "{}",
        other.describe(&refused)
    );
    assert_eq!(place.ok(&["tags"]), "tools/x\ntools/y\n");
    assert!(server.interrupt().success());
}

#[test]
fn it_ends_on_sigterm_and_removes_where_that_is_allowed() {
    let place = committed();
    let (mut server, said) = start(&place, &["--allow-removal"]);
    let url = said["grpc"].as_str().unwrap();
    place.ok(&["untag", "--all", "-r", url, "tools/x"]);
    assert_eq!(place.ok(&["tags"]), "");
    let number = server.0.id().try_into().unwrap();
    kill(Pid::from_raw(number), Signal::SIGTERM).unwrap();
    assert!(server.0.wait().unwrap().success());
}

#[test]
fn who_may_connect_has_to_be_said() {
    let place = committed();
    assert_snapshot!(place.told(&["server", "0.0.0.0:0"]), @r"
    exit 2
    farseek: 0.0.0.0:0 is not loopback: say who may connect with --token-file, or let everybody in with --insecure
    ");
    assert_snapshot!(place.told(&["server", "127.0.0.1:0", "[::]:0"]), @r"
    exit 2
    farseek: [::]:0 is not loopback: say who may connect with --token-file, or let everybody in with --insecure
    ");
    assert_snapshot!(place.told(&["server", "--token-file", "none"]), @r"
    exit 3
    farseek: cannot read none: No such file or directory (os error 2)
    ");
    place.write("tokens", "read ok\nsecret\n");
    assert_snapshot!(place.told(&["server", "--token-file", "tokens"]), @r"
    exit 2
    farseek: tokens is not a token file: 'line 2' is not a valid list of tokens: write 'read TOKEN' or 'write TOKEN', one a line, of visible ASCII characters
    ");
    assert_snapshot!(place.told(&["server", "--payloads-root", "ftp://x"]), @r"
    exit 2
    farseek: 'ftp://x' is no root for payloads: write a URL such as http://repo.example:7787
    ");
}

#[test]
fn what_keeps_it_from_starting_is_told() {
    let place = committed();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for arguments in [
        [address.as_str(), "127.0.0.1:0"],
        ["127.0.0.1:0", address.as_str()],
    ] {
        let told = place.told(&["server", arguments[0], arguments[1]]);
        let expected = format!("farseek: cannot listen on {address}: Address already in use");
        assert!(told.contains(&expected), "{told}");
    }
    place.write("cert.pem", "no certificate\n");
    let files = ["server", "--tls-cert", "cert.pem", "--tls-key", "none.pem"];
    assert_snapshot!(place.told(&files), @r"
    exit 2
    farseek: 'cert.pem' is not a valid certificate: there is none in it
    ");
    let lonely = place.told(&["server", "--tls-cert", "cert.pem"]);
    assert!(
        lonely.starts_with("exit 2") && lonely.contains("--tls-key"),
        "{lonely}"
    );
}

#[test]
fn a_token_says_who_may_what() {
    let place = committed();
    place.write("tokens", "read reading\nwrite writing\n");
    let (_server, said) = start(&place, &["--token-file", "tokens"]);
    let url = said["grpc"].as_str().unwrap();
    let other = Place::make();
    let stranger = other.farseek(&["tags", "-r", url]).output().unwrap();
    assert_eq!(
        stranger.status.code(),
        Some(7),
        "{}",
        other.describe(&stranger)
    );
    let as_who = |token: &str| {
        let file = other.write(token, token);
        format!("{url}?token_file={}", file.display())
    };
    let (reader, writer) = (as_who("reading"), as_who("writing"));
    assert_eq!(other.ok(&["tags", "-r", &reader]), "tools/x\n");
    assert_eq!(
        other.ok(&["cat", "-r", &reader, "tools/x", "readme.txt"]),
        "hello\n"
    );
    let refused = other
        .farseek(&["tag", "-r", &reader, "tools/x", "tools/y"])
        .output()
        .unwrap();
    assert_eq!(
        refused.status.code(),
        Some(7),
        "{}",
        other.describe(&refused)
    );
    other.ok(&["tag", "-r", &writer, "tools/x", "tools/y"]);
    assert_eq!(place.ok(&["tags"]), "tools/x\ntools/y\n");
}
