//! What a stock server answered to a stock client, answered by ours.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use farseek_object::Object;
use farseek_store::{FsOptions, FsRepository, SpfsServer, SpfsServerOptions};
use farseek_testkit::stock_client::{StockClient, exchange, fields, receive};
use serde_json::Value;
use tempfile::TempDir;

use super::{open_to_all, serve};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures")
}

/// A recording and a server of a copy of what was served then; `None`, with a line that says so,
/// where the fixtures are not on this machine. With `CI=true` that is a failure.
#[expect(
    clippy::print_stderr,
    reason = "the person who runs the tests must see it"
)]
async fn recorded(test: &str, name: &str) -> Option<(Value, SpfsServer, TempDir)> {
    let recording = fixtures().join("wire").join(name);
    if !recording.exists() {
        let line = format!("LEFT OUT: {test}: it needs {}", recording.display());
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{line}"
        );
        eprintln!("{line}");
        return None;
    }
    let copy = TempDir::new().unwrap();
    let copied = Command::new("cp")
        .arg("-r")
        .arg(fixtures().join("repo/."))
        .arg(copy.path())
        .status();
    assert!(copied.unwrap().success());
    let repository = FsRepository::create(copy.path(), FsOptions::default()).unwrap();
    let options = SpfsServerOptions {
        payload_root: Some("http://127.0.0.1:7787".parse().unwrap()),
        ..open_to_all()
    };
    let server = serve(Arc::new(repository), options).await;
    let recording = serde_json::from_slice(&std::fs::read(recording).unwrap()).unwrap();
    Some((recording, server, copy))
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

fn all(messages: &Value) -> Vec<Vec<u8>> {
    messages.as_array().unwrap().iter().map(bytes).collect()
}

/// What two answers must have alike. Lists of names and streams of digests have no order.
fn meaning(path: &str, mut messages: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    match path {
        "/spfs.DatabaseService/FindDigests" | "/spfs.PayloadService/IterDigests" => {
            messages.sort_unstable();
            messages
        }
        "/spfs.TagService/LsTags" | "/spfs.TagService/IterTagSpecs" => {
            let results = messages.iter().flat_map(|message| fields(message));
            let mut entries: Vec<_> = results
                .flat_map(|(kind, result)| {
                    let entries = fields(&result).into_iter();
                    entries.map(move |(number, entry)| {
                        [vec![kind as u8, number as u8], entry].concat()
                    })
                })
                .collect();
            entries.sort_unstable();
            entries
        }
        _ => messages,
    }
}

/// The object of the answer to `ReadObject`.
fn object(message: &[u8]) -> Object {
    let mut result = fields(message);
    let (kind, result) = result.pop().unwrap();
    assert_eq!(kind, 2, "it is a value");
    let (form, buffer) = fields(&result).pop().unwrap();
    assert_eq!(form, 7, "in the form that keeps the header");
    Object::decode_wire(&buffer).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_call_gets_the_recorded_answer() {
    let test = "every_recorded_call_gets_the_recorded_answer";
    let Some((recording, server, copy)) = recorded(test, "grpc.json").await else {
        return;
    };
    let client = StockClient::connect(server.grpc_addr()).await;
    let (mut calls, mut verbatim) = (0, 0);
    for command in recording.as_array().unwrap() {
        for call in command["calls"].as_array().unwrap() {
            let path = call["path"].as_str().unwrap();
            let request = all(&call["request"]);
            let called = client.call(path, &request[0]).await;
            let expected = all(&call["response"]);
            let words = format!("{} {path} {:?}", command["command"], call["request"]);
            assert_eq!(
                called.status,
                call["grpc_status"].as_str().unwrap(),
                "{words}"
            );
            calls += 1;
            if called.messages == expected {
                verbatim += 1;
                continue;
            }
            if path.ends_with("/ReadObject") {
                let (ours, theirs) = (object(called.message()), object(&expected[0]));
                assert_eq!(ours, theirs, "{words}");
                assert_eq!(ours.digest(), theirs.digest(), "{words}");
                continue;
            }
            let (ours, theirs) = (meaning(path, called.messages), meaning(path, expected));
            assert_eq!(ours, theirs, "{words}");
        }
    }
    assert_eq!(calls, 353);
    println!("{verbatim} of {calls} answers are the same to the byte");
    // What was pushed is there, and what was removed is not.
    let tags = copy.path().join("tags/push");
    assert!(tags.join("tree.tag").exists());
    assert!(!tags.join("blob.tag").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_transfer_gets_the_recorded_answer() {
    let test = "every_recorded_transfer_gets_the_recorded_answer";
    let Some((recording, server, _copy)) = recorded(test, "http.json").await else {
        return;
    };
    let mut transfers = 0;
    for transfer in recording.as_array().unwrap() {
        let (request, response) = (bytes(&transfer["request"]), bytes(&transfer["response"]));
        let is_cut = request.len() as u64 != transfer["request_bytes"].as_u64().unwrap();
        if is_cut {
            // One upload was recorded in part: it is no transfer any more.
            assert_eq!(transfer["truncated"], true);
            continue;
        }
        let address = server.http_addr();
        let ours = tokio::task::spawn_blocking(move || exchange(address, &request));
        let ours = ours.await.unwrap().unwrap();
        let theirs = receive(&mut response.as_slice(), false).unwrap();
        assert_eq!(ours.status, theirs.status);
        assert_eq!(ours.header("content-type"), theirs.header("content-type"));
        assert!(
            ours.body == theirs.body,
            "{:?} {:?}",
            ours.body,
            theirs.body
        );
        transfers += 1;
    }
    assert_eq!(transfers, 8);
}
