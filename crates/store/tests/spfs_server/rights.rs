//! Who may do what, shown for every call.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farseek_object::Digest;
use farseek_store::{Access, PartialUploads, SpfsServer, SpfsServerOptions};
use farseek_testkit::stock_client::{StockClient, digest_field, field};

use super::{ask, on_disk, open_to_all, serve, views};

const READING: [&str; 16] = [
    "Repository/Ping",
    "DatabaseService/HasObject",
    "DatabaseService/ReadObject",
    "DatabaseService/FindDigests",
    "DatabaseService/IterObjects",
    "DatabaseService/WalkObjects",
    "PayloadService/IterDigests",
    "PayloadService/HasPayload",
    "PayloadService/OpenPayload",
    "TagService/LsTags",
    "TagService/ResolveTag",
    "TagService/FindTags",
    "TagService/IterTagSpecs",
    "TagService/ReadTag",
    "BulkService/LookForBlobs",
    "BulkService/GetSmall",
];
const WRITING: [&str; 4] = [
    "DatabaseService/WriteObject",
    "PayloadService/WritePayload",
    "TagService/InsertTag",
    "BulkService/PutSmall",
];
/// It writes as well. Who may is told that nothing was stored in the life of the server that it
/// names.
const PUBLISHING: [&str; 1] = ["BulkService/PublishSmall"];
const REMOVING: [&str; 10] = [
    "DatabaseService/RemoveObject",
    "DatabaseService/RemoveObjectIfOlderThan",
    "PayloadService/RemovePayload",
    "TagService/RemoveTagStream",
    "TagService/RemoveTag",
    "UpkeepService/Horizon",
    "UpkeepService/Facts",
    "UpkeepService/Aside",
    "UpkeepService/Restore",
    "UpkeepService/RemovePayloadIfOlderThan",
];

const UNAUTHENTICATED: &str = "16";
const PERMISSION_DENIED: &str = "7";
const FAILED_PRECONDITION: &str = "9";

/// Every call of every service, as the descriptions of the protocol and of ours beside it have them.
fn described() -> Vec<String> {
    let read = |proto: &str| {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
        std::fs::read_to_string(directory.join(proto)).unwrap()
    };
    let mut service = String::new();
    let mut calls = Vec::new();
    for line in (read("spfs.proto") + &read("farseek.proto")).lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("service") => service = words.next().unwrap().to_owned(),
            Some("rpc") => {
                let name = words.next().unwrap().split('(').next().unwrap();
                calls.push(format!("{service}/{name}"));
            }
            _ => {}
        }
    }
    calls
}

#[test]
fn every_call_is_in_one_of_the_lists() {
    let mut listed: Vec<String> = [&READING[..], &WRITING, &PUBLISHING, &REMOVING]
        .concat()
        .iter()
        .map(|call| (*call).to_owned())
        .collect();
    let mut described = described();
    listed.sort_unstable();
    described.sort_unstable();
    assert_eq!(listed, described);
}

/// A message that would do something, if the call were let through.
fn message(call: &str, object: &Digest, payload: &Digest) -> Vec<u8> {
    let (object, payload) = (object.as_bytes(), payload.as_bytes());
    let time = field(1, b"2199-01-01 00:00:00 UTC");
    let tag = [
        field(1, b"a"),
        field(2, b"tag"),
        digest_field(3, object),
        digest_field(4, &[0; 32]),
        field(5, b"me@here"),
        field(6, &time),
    ]
    .concat();
    match call.split_once('/').unwrap().1 {
        "FindDigests" => field(1, &field(1, b"")),
        "WriteObject" => {
            let blob = [digest_field(1, payload), vec![2 << 3, 7]].concat();
            field(1, &field(5, &blob))
        }
        "RemoveObjectIfOlderThan" => [field(1, &time), digest_field(2, object)].concat(),
        "HasPayload" | "OpenPayload" | "RemovePayload" => digest_field(1, payload),
        "InsertTag" | "RemoveTag" => field(1, &tag),
        "ResolveTag" => field(2, b"a/tag"),
        "ReadTag" | "RemoveTagStream" => field(1, b"a/tag"),
        "LookForBlobs" | "GetSmall" | "Facts" => field(1, payload),
        // In the year 2199.
        "RemovePayloadIfOlderThan" => {
            let nanoseconds = [0x80, 0x80, 0xdc, 0xe0, 0xf9, 0xcc, 0xfe, 0xa4, 0x64];
            [field(1, payload), vec![2 << 3], nanoseconds.to_vec()].concat()
        }
        "PutSmall" => [field(1, &field(1, b"small")), field(1, &field(1, b"two"))].concat(),
        "PublishSmall" => vec![1 << 3, 1],
        "LsTags" | "IterTagSpecs" | "Ping" | "IterObjects" | "IterDigests" | "WritePayload"
        | "Horizon" | "Aside" | "Restore" => Vec::new(),
        _ => digest_field(1, object),
    }
}

/// Every file below `root`, and what is in it.
fn state(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let bytes = std::fs::read(&path).unwrap();
                    files.insert(path.display().to_string(), bytes);
                }
            }
        }
    }
    files
}

/// One payload, its blob, and a tag of that.
async fn fill(server: &SpfsServer) -> (Digest, Digest) {
    let client = StockClient::connect(server.grpc_addr()).await;
    let request = "POST / HTTP/1.1\r\ncontent-length: 7\r\n\r\npayload";
    assert_eq!(ask(server.http_addr(), request).await.unwrap().status, 200);
    let payload = Digest::of(b"payload");
    let written = message("DatabaseService/WriteObject", &payload, &payload);
    let call = client.call("/spfs.DatabaseService/WriteObject", &written);
    assert_eq!(call.await.field(2), b"");
    let all = field(1, &field(1, b""));
    let found = client.call("/spfs.DatabaseService/FindDigests", &all);
    let found = found.await.field(2);
    let object = Digest::from_bytes(found[2..].try_into().unwrap());
    let tag = message("TagService/InsertTag", &object, &payload);
    let call = client.call("/spfs.TagService/InsertTag", &tag).await;
    assert_eq!(call.field(2), b"");
    (object, payload)
}

/// What every call gives, and what uploading gives, to a client with this token.
async fn try_all(
    server: &SpfsServer,
    token: Option<&str>,
    (object, payload): (Digest, Digest),
) -> (BTreeMap<String, String>, u16, u16) {
    let mut client = StockClient::connect(server.grpc_addr()).await;
    let mut header = String::new();
    if let Some(token) = token {
        client = client.with_token(token);
        header = format!("authorization: Bearer {token}\r\n");
    }
    let mut statuses = BTreeMap::new();
    for call in described() {
        let message = message(&call, &object, &payload);
        let package = match call.split_once('/') {
            Some(("BulkService" | "UpkeepService", _)) => "farseek",
            _ => "spfs",
        };
        let called = client.call(&format!("/{package}.{call}"), &message).await;
        statuses.insert(call, called.status);
    }
    let post = format!("POST / HTTP/1.1\r\n{header}content-length: 3\r\n\r\nnew");
    let posted = ask(server.http_addr(), post).await.unwrap().status;
    let digest = Digest::of(b"put");
    let put = format!(
        "PUT /{digest} HTTP/1.1\r\n{header}upload-offset: 0\r\nupload-length: 3\r\n\
         content-length: 3\r\n\r\nput"
    );
    let put = ask(server.http_addr(), put).await.unwrap().status;
    assert_eq!(put, posted, "both are uploads");
    // How much of an upload is there is told to who may go on with it.
    let head = format!(
        "HEAD /{} HTTP/1.1\r\n{header}connection: close\r\n\r\n",
        Digest::of(b"no such")
    );
    let told = tokio::task::spawn_blocking({
        let address = server.http_addr();
        move || head_of(address, &head)
    });
    let told = told.await.unwrap().contains("upload-offset");
    assert_eq!(told, posted == 200);
    let get = format!("GET /{payload} HTTP/1.1\r\n{header}\r\n");
    let got = ask(server.http_addr(), get).await.unwrap().status;
    (statuses, posted, got)
}

/// What is answered to a `HEAD`.
fn head_of(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn assert_all(statuses: &BTreeMap<String, String>, calls: &[&str], expected: &str) {
    for call in calls {
        assert_eq!(statuses[*call], expected, "{call}");
    }
}

/// A repository that holds something, and a server of it with rights.
async fn guarded(access: Access) -> (tempfile::TempDir, SpfsServer, (Digest, Digest)) {
    let (root, repository) = on_disk();
    let unheld = SpfsServerOptions {
        hold_after_write: Duration::ZERO,
        ..open_to_all()
    };
    let open = serve(Arc::clone(&repository), unheld).await;
    let digests = fill(&open).await;
    let options = SpfsServerOptions {
        access,
        namespaces: Some(views(root.path())),
        partial_uploads: Some(PartialUploads::in_directory(
            root.path().join("payloads/work"),
        )),
        ..SpfsServerOptions::default()
    };
    let server = serve(repository, options).await;
    (root, server, digests)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_right_can_change_nothing_and_see_nothing() {
    let access = Access::tokens("read r-token\nwrite w-token").unwrap();
    for access in [access.clone().with_removal(true), access] {
        let (root, server, digests) = guarded(access).await;
        let before = state(root.path());
        for token in [None, Some("wrong")] {
            let (statuses, posted, got) = try_all(&server, token, digests).await;
            for calls in [&READING[..], &WRITING, &PUBLISHING, &REMOVING] {
                assert_all(&statuses, calls, UNAUTHENTICATED);
            }
            assert_eq!((posted, got), (401, 401));
        }
        assert!(state(root.path()) == before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_read_can_change_nothing() {
    let access = Access::tokens("read r-token\nwrite w-token").unwrap();
    for access in [access.clone().with_removal(true), access] {
        let (root, server, digests) = guarded(access).await;
        let before = state(root.path());
        let (statuses, posted, got) = try_all(&server, Some("r-token"), digests).await;
        assert_all(&statuses, &READING, "0");
        assert_all(&statuses, &WRITING, PERMISSION_DENIED);
        assert_all(&statuses, &PUBLISHING, PERMISSION_DENIED);
        assert_all(&statuses, &REMOVING, PERMISSION_DENIED);
        assert_eq!((posted, got), (403, 200));
        assert!(state(root.path()) == before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_write_can_remove_only_where_that_is_allowed() {
    let access = Access::tokens("write w-token").unwrap();
    let (root, server, digests) = guarded(access.clone()).await;
    let before = state(root.path());
    let (statuses, posted, got) = try_all(&server, Some("w-token"), digests).await;
    assert_all(&statuses, &READING, "0");
    assert_all(&statuses, &WRITING, "0");
    assert_all(&statuses, &PUBLISHING, FAILED_PRECONDITION);
    assert_all(&statuses, &REMOVING, PERMISSION_DENIED);
    assert_eq!((posted, got), (200, 200));
    let after = state(root.path());
    assert!(before.keys().all(|file| after.contains_key(file)));

    let (root, server, digests) = guarded(access.with_removal(true)).await;
    let before = state(root.path());
    let (statuses, ..) = try_all(&server, Some("w-token"), digests).await;
    assert_all(&statuses, &REMOVING, "0");
    let after = state(root.path());
    assert!(before.keys().any(|file| !after.contains_key(file)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_rights_nobody_may_do_anything() {
    let (_root, repository) = on_disk();
    let server = serve(Arc::clone(&repository), SpfsServerOptions::default()).await;
    let nothing = Digest::of(b"");
    let (statuses, posted, got) = try_all(&server, None, (nothing, nothing)).await;
    assert!(statuses.values().all(|status| status == UNAUTHENTICATED));
    assert_eq!((posted, got), (401, 401));
    assert!(!repository.has_object(&nothing).await.unwrap());
}
