//! What a bucket refuses, and what is no bucket: one sentence each, which names the bucket and
//! the key and says what to do; nothing is lost, and no secret is told.

use std::fs;
use std::net::TcpListener;
use std::process::Output;

use farseek_testkit::{BucketFault, BucketRule, BucketServer, Need, need, tree};
use nix::mount::{MsFlags, mount};

use super::stand::{SITE, Stand, check, url};
use crate::remote::TAG;

/// The program fails with `code` and one line that has all of `words`.
pub(super) fn assert_one_line(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(said.lines().count(), 1, "one sentence: {said}");
    assert!(said.starts_with("farseek: "), "{said}");
    for word in words {
        assert!(said.contains(word), "'{word}' in: {said}");
    }
    assert!(!said.contains(BucketServer::SECRET_KEY), "{said}");
}

/// A stand with a tree in the bucket and a new version of it at home.
fn prepared() -> Stand {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), "the file\n").unwrap();
    let stand = Stand::with_tree(tree.path());
    fs::write(tree.path().join("more"), "more\n").unwrap();
    stand.sandbox.commit(tree.path(), TAG);
    stand
}

fn push(stand: &Stand) -> Output {
    stand
        .sandbox
        .run(&["push", TAG, "--sync", "--to", &url(SITE)])
}

fn pull(stand: &Stand) -> Output {
    stand
        .sandbox
        .run(&["pull", TAG, "--sync", "--from", &url(SITE)])
}

/// Once the cause is gone, it goes on as if nothing had been.
fn goes_on(stand: &Stand) {
    stand.server.set_faults([]);
    let pushed = push(stand);
    let said = String::from_utf8_lossy(&pushed.stderr);
    assert!(pushed.status.success(), "{said}");
    assert_eq!(stand.checked(SITE)["sound"], true);
}

#[test]
fn keys_that_are_wrong_expired_or_of_another_time() {
    let cases = [
        ("InvalidAccessKeyId", "access key"),
        ("SignatureDoesNotMatch", "secret key"),
        ("ExpiredToken", "expired"),
        ("RequestTimeTooSkewed", "clock"),
        ("AccessDenied", "right"),
    ];
    let stand = prepared();
    let bucket = format!("s3://{}", BucketServer::BUCKET);
    for (code, word) in cases {
        stand
            .server
            .set_faults([BucketRule::new("", BucketFault::refuse(code))]);
        stand.server.clear();
        assert_one_line(&pull(&stand), 7, &[&bucket, code, word]);
        assert_one_line(&push(&stand), 7, &[&bucket, code, word]);
        let asked = stand.server.requests().len();
        assert!(asked <= 40, "{asked} requests, though {code} will not pass");
    }
    goes_on(&stand);
}

#[test]
fn a_key_that_nobody_knows_and_a_secret_that_is_another() {
    let mut stand = prepared();
    stand
        .sandbox
        .set_variable("AWS_SECRET_ACCESS_KEY", "not-the-secret");
    assert_one_line(
        &pull(&stand),
        7,
        &["s3://", "SignatureDoesNotMatch", "secret key"],
    );
    stand
        .sandbox
        .set_variable("AWS_ACCESS_KEY_ID", "AKIANOBODY");
    assert_one_line(
        &pull(&stand),
        7,
        &["s3://", "NotSignedUp", "the access key is not known there"],
    );
}

#[test]
fn a_bucket_that_is_not_there() {
    let stand = prepared();
    let elsewhere = "s3://no-such-bucket/site";
    let pulled = stand.sandbox.run(&["pull", TAG, "--from", elsewhere]);
    let words = [
        "s3://no-such-bucket/site",
        "NoSuchBucket",
        "there is no such bucket",
    ];
    assert_one_line(&pulled, 3, &words);
    let pushed = stand.sandbox.run(&["push", TAG, "--to", elsewhere]);
    assert_one_line(&pushed, 3, &words);
}

/// It may be said beforehand that there is a repository; of the address no directory is made.
#[test]
fn init_makes_a_repository_in_a_bucket() {
    let stand = Stand::new();
    let said = stand.sandbox.succeed(&["init", "repo", &url(SITE)]);
    assert_eq!(said, format!("{} is ready\n", url(SITE)));
    assert!(stand.folder(SITE).join("VERSION").exists());
    assert!(!stand.sandbox.path().join("s3:").exists());
}

#[test]
fn a_bucket_that_may_not_be_listed() {
    let stand = prepared();
    stand
        .server
        .set_faults([BucketRule::new("List", BucketFault::refuse("AccessDenied"))]);
    assert_one_line(&push(&stand), 7, &[&url(SITE), "right to list"]);
    goes_on(&stand);
}

#[test]
fn a_bucket_that_may_only_be_read() {
    let stand = prepared();
    stand
        .server
        .set_faults([BucketRule::writes(BucketFault::refuse("AccessDenied"))]);
    assert_one_line(
        &push(&stand),
        7,
        &[&url(SITE), "right to write", "read-only"],
    );
    let read = stand
        .sandbox
        .succeed(&["cat", TAG, "file", "-r", &url(SITE)]);
    assert_eq!(read, "the file\n");
    goes_on(&stand);
}

#[test]
fn a_proxy_that_answers_with_a_page() {
    let stand = prepared();
    stand
        .server
        .set_faults([BucketRule::new("", BucketFault::Html)]);
    assert_one_line(&pull(&stand), 1, &["s3://", "web page", "proxy"]);
    assert_one_line(&push(&stand), 1, &["s3://", "web page", "proxy"]);
    goes_on(&stand);
}

#[test]
fn an_endpoint_where_nobody_is() {
    let mut stand = prepared();
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoint = format!("http://{closed}");
    stand.sandbox.set_variable("AWS_ENDPOINT_URL", &endpoint);
    let words = ["pull", TAG, "--from", &url(SITE)];
    let mut impatient = stand.sandbox.command(&words);
    impatient.env("FARSEEK_READER_STALL_SECONDS", "2");
    let output = farseek_testkit::output_within(&mut impatient, farseek_testkit::mount::PROMPT);
    assert_one_line(&output.unwrap(), 5, &["s3://", &closed.to_string()]);
}

/// Of a pull; where there is room again it goes on.
#[test]
fn a_full_disk() {
    if !need("a_full_disk", &[Need::Root]) {
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    tree::write_random(&tree.path().join("large"), 8 << 20, 31).unwrap();
    let stand = Stand::with_tree(tree.path());
    let small = stand.sandbox.make_dir("small");
    let (no, tmpfs) = (None::<&str>, Some("tmpfs"));
    mount(tmpfs, &small, tmpfs, MsFlags::empty(), Some("size=4m")).unwrap();
    let there = small.join("repository").display().to_string();
    stand.sandbox.succeed(&["init", "repo", &there]);
    let words = ["pull", TAG, "--from", &url(SITE), "--to", &there];
    let pulled = stand.sandbox.run(&words);
    assert_one_line(&pulled, 1, &[&there, "No space left"]);
    let report = check(&stand.sandbox, &there);
    assert_eq!(
        (&report["sound"], &report["tags"]),
        (&true.into(), &0.into())
    );
    mount(no, &small, no, MsFlags::MS_REMOUNT, Some("size=64m")).unwrap();
    stand.sandbox.succeed(&words);
    assert_eq!(check(&stand.sandbox, &there)["payloads"], 1);
}

#[test]
fn an_object_and_a_payload_that_are_not_what_they_are_called() {
    let stand = prepared();
    let stored = stand.folder(SITE);
    for shelf in ["payloads", "objects"] {
        for path in farseek_files(&stored.join(shelf)) {
            let mut bytes = fs::read(&path).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
        let there = format!("/{shelf}/");
        let read = stand.sandbox.run(&["cat", TAG, "file", "-r", &url(SITE)]);
        assert_one_line(&read, 6, &[&url(SITE), &there]);
        assert_eq!(String::from_utf8_lossy(&read.stdout), "");
    }
    let report = check(&stand.sandbox, &url(SITE));
    assert_eq!(report["sound"], false, "{report}");
}

fn farseek_files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let below = entries.flat_map(|path| match path.is_dir() {
        true => farseek_files(&path),
        false => vec![path],
    });
    below.collect()
}
