//! Our client in the place of the stock one: it asks what that asked, is answered what that was
//! answered, and comes to what the repository holds.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use farseek_object::{Digest, Object, Tag};
use farseek_store::{FsOptions, FsRepository, GrpcRepository, PutOptions, Repository};
use farseek_testkit::{Recorded, StockServer};
use futures::TryStreamExt;
use serde_json::Value;

use super::sample::payload;
use super::site::{client, options};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures")
}

/// What was recorded, and the repository it was recorded from; `None`, with a line that says so,
/// where the fixtures are not here. With `CI=true` that is a failure.
#[expect(
    clippy::print_stderr,
    reason = "the person who runs the tests must see it"
)]
fn recording(test: &str, file: &str) -> Option<(Value, FsRepository)> {
    let path = fixtures().join("wire").join(file);
    if !path.exists() {
        let line = format!("LEFT OUT: {test}: it needs {}", path.display());
        let everything = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!everything, "{line}");
        eprintln!("{line}");
        return None;
    }
    let bytes = std::fs::read(path).expect("it can be read");
    let repository = FsRepository::open(&fixtures().join("repo"), FsOptions::default());
    Some((
        serde_json::from_slice(&bytes).expect("it is JSON"),
        repository.expect("a repository"),
    ))
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().expect("a text");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}

/// The text of a request whose first field is one.
fn text(request: &[u8]) -> String {
    assert_eq!(
        (request[0], request.len()),
        (0x0a, 2 + usize::from(request[1]))
    );
    String::from_utf8(request[2..].to_vec()).expect("UTF-8")
}

/// The digest of a request of nothing else.
fn digest(request: &[u8]) -> Digest {
    assert_eq!(request[..4], [0x0a, 0x22, 0x0a, 0x20]);
    Digest::from_bytes(request[4..].try_into().expect("32 bytes"))
}

/// The tag that was inserted: see `InsertTag` in the recording.
fn inserted(request: &[u8]) -> Tag {
    let at = request
        .windows(3)
        .position(|w| w == [0x1a, 0x22, 0x0a])
        .expect("a target");
    let target = Digest::from_bytes(request[at + 4..at + 36].try_into().expect("32 bytes"));
    let words = String::from_utf8_lossy(request);

    let time = &words[words.len() - 30..];
    let time = format!("{}Z", time.trim_end_matches(" UTC").replacen(' ', "T", 1));
    Tag {
        name: format!(
            "push/{}",
            if words.contains("tree") {
                "tree"
            } else {
                "blob"
            }
        )
        .parse()
        .expect("a name"),
        target,
        parent: Digest::NULL,
        user: "tester@example.com".to_owned(),
        time: time.parse().unwrap_or_else(|_| panic!("a time: {time}")),
    }
}

/// Asks what was asked, and compares the answer with what is right. `false` where our client
/// never asks such a thing.
async fn ask(
    ours: &GrpcRepository,
    truth: &FsRepository,
    path: &str,
    request: &[u8],
    answer: &[Vec<u8>],
) -> bool {
    match path.rsplit('/').next().expect("a method") {
        "HasObject" => {
            let found = ours.has_object(&digest(request)).await.expect("an answer");
            assert_eq!(found, !answer[0].is_empty());
        }
        "ReadObject" => {
            let digest = digest(request);
            let object = ours.get_object(&digest).await.expect("an object");
            assert_eq!(object, truth.get_object(&digest).await.expect("an object"));
        }
        "FindDigests" => {
            let mut found: Vec<_> = ours.list_objects(None).try_collect().await.expect("a list");
            let mut right: Vec<_> = truth
                .list_objects(None)
                .try_collect()
                .await
                .expect("a list");
            found.sort();
            right.sort();
            assert_eq!(found, right);
        }
        "WriteObject" => {
            // After the 17 bytes of the header comes what the fixture's own encoder made of it.
            let at = request
                .windows(8)
                .position(|w| w == b"--SPFS--")
                .expect("a header");
            let object = Object::decode(&request[at..]).expect("an object");
            let put = ours.put_object(&object, PutOptions::default()).await;
            assert_eq!(put.expect("stored"), object.digest());
        }
        "LsTags" => {
            let folder = text(request);
            let found = ours.list_tags(&folder).await.expect("a list");
            assert_eq!(found, truth.list_tags(&folder).await.expect("a list"));
        }
        "ReadTag" => {
            let name = text(request).parse().expect("a name");
            match (ours.read_tag(&name).await, truth.read_tag(&name).await) {
                (Ok(found), Ok(right)) => assert_eq!(found, right),
                (Err(found), Err(_)) => assert!(found.is_not_found(), "{found}"),
                (found, right) => panic!("{name}: {found:?}, not {right:?}"),
            }
        }
        "InsertTag" => ours.insert_tag(&inserted(request)).await.expect("inserted"),
        "RemoveTagStream" => {
            let name = text(request).parse().expect("a name");
            ours.remove_tag_stream(&name).await.expect("removed");
        }
        _ => return false,
    }
    true
}

#[tokio::test]
async fn recorded_answers_to_what_we_ask() {
    let Some((commands, truth)) = recording("recorded_answers_to_what_we_ask", "grpc.json") else {
        return;
    };
    let mut asked = 0;
    for command in commands.as_array().expect("a list") {
        let mut recorded = Recorded::new();
        let calls: Vec<(String, Vec<u8>, Vec<Vec<u8>>)> = command["calls"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|call| {
                let path = call["path"].as_str().expect("a path").to_owned();
                let answer = call["response"].as_array().expect("a list");
                (
                    path,
                    unhex(&call["request"][0]),
                    answer.iter().map(unhex).collect(),
                )
            })
            .collect();
        for (path, request, answer) in &calls {
            recorded.add(path, request, answer.clone());
        }
        let server = StockServer::replay(recorded);
        let ours = client(&server.url(), options());
        for (path, request, answer) in &calls {
            asked += usize::from(ask(&ours, &truth, path, request, answer).await);
        }
    }
    assert_eq!(
        asked, 264,
        "all but IterTagSpecs and the questions about payloads"
    );
}

/// Sends each recorded answer to who asks for its path, and closes the connection.
fn replay_transfers(answers: Vec<(String, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let root = format!("http://{}/", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().take(answers.len()) {
            let mut stream = stream.expect("a connection");
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).expect("a head");
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).expect("UTF-8");
            let answer = answers
                .iter()
                .find(|(path, _)| head.contains(&format!("/{path} ")));
            stream
                .write_all(&answer.expect("recorded").1)
                .expect("sent");
        }
    });
    root
}

#[tokio::test]
async fn recorded_transfers_of_payloads() {
    let Some((transfers, truth)) = recording("recorded_transfers_of_payloads", "http.json") else {
        return;
    };
    let mut answers = Vec::new();
    for transfer in transfers.as_array().expect("a list") {
        let request = String::from_utf8_lossy(&unhex(&transfer["request"])).into_owned();
        let Some(rest) = request.strip_prefix("GET http://127.0.0.1:7787/") else {
            continue;
        };
        assert_eq!(transfer["truncated"], false);
        let path = rest.split(' ').next().expect("a path").to_owned();
        answers.push((path, unhex(&transfer["response"])));
    }
    assert_eq!(answers.len(), 5);
    let digests: Vec<Digest> = answers
        .iter()
        .map(|(path, _)| path.parse().expect("a digest"))
        .collect();
    let server = StockServer::replay(Recorded::new());
    server.set_payloads_root(&replay_transfers(answers));
    let ours = client(&server.url(), options());
    for digest in digests {
        let bytes = payload(&ours, &digest, 0..u64::MAX).await;
        assert_eq!(Digest::of(&bytes), digest);
        assert_eq!(bytes, payload(&truth, &digest, 0..u64::MAX).await);
    }
}
