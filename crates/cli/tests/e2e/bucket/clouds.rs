//! What Google and Azure refuse, each in its own words: the same sentences as of S3.

use std::fs;
use std::process::Output;

use farseek_testkit::{BucketFault, BucketRule, Cloud, need};

use super::refused::assert_one_line;
use super::stand::{SITE, Stand};
use crate::remote::TAG;

const ELSEWHERE: [Cloud; 2] = [Cloud::Google, Cloud::Azure];

/// A stand with a tree in the bucket and a new version of it at home.
fn prepared(cloud: Cloud) -> Stand {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), "the file\n").unwrap();
    let stand = Stand::on_with_tree(cloud, tree.path());
    fs::write(tree.path().join("more"), "more\n").unwrap();
    stand.sandbox.commit(tree.path(), TAG);
    stand
}

fn push(stand: &Stand) -> Output {
    let url = stand.url(SITE);
    told(stand, &["push", TAG, "--sync", "--to", &url])
}

fn pull(stand: &Stand) -> Output {
    let url = stand.url(SITE);
    told(stand, &["pull", TAG, "--sync", "--from", &url])
}

/// Runs a command that tells no secret.
fn told(stand: &Stand, words: &[&str]) -> Output {
    let output = stand.sandbox.run(words);
    let said = String::from_utf8_lossy(&output.stderr);
    for secret in stand.server.secrets() {
        assert!(!said.contains(&secret), "{said}");
    }
    output
}

/// Once the cause is gone, it goes on as if nothing had been.
fn goes_on(stand: &Stand) {
    stand.server.set_faults([]);
    let pushed = push(stand);
    let said = String::from_utf8_lossy(&pushed.stderr);
    assert!(pushed.status.success(), "{said}");
    assert_eq!(stand.checked(SITE)["sound"], true);
}

fn refusal(status: u16, code: &str) -> BucketFault {
    BucketFault::Refuse {
        status,
        code: code.to_owned(),
        retry_after: None,
    }
}

/// That the credentials lack a right.
fn denied(cloud: Cloud) -> BucketFault {
    refusal(
        403,
        match cloud {
            Cloud::S3 | Cloud::Google => "AccessDenied",
            Cloud::Azure => "AuthorizationPermissionMismatch",
        },
    )
}

fn on_each(test: &str, check: impl Fn(Stand)) {
    for cloud in ELSEWHERE {
        if need(test, cloud.needs()) {
            check(prepared(cloud));
        }
    }
}

#[test]
fn keys_that_are_not_the_right_ones() {
    on_each("keys_that_are_not_the_right_ones", |mut stand| {
        let (name, another) = stand.server.another_key();
        let right = stand.server.variables();
        stand.sandbox.set_variable(name, &another);
        let words = match stand.server.cloud() {
            Cloud::S3 | Cloud::Google => ["401 AuthenticationRequired", "check the key"],
            Cloud::Azure => [
                "403 AuthorizationFailure",
                "the key or the token is not one of this account",
            ],
        };
        let url = stand.url("");
        let words = [&words[..], &[&url]].concat();
        assert_one_line(&pull(&stand), 7, &words);
        assert_one_line(&push(&stand), 7, &words);
        for (name, value) in right {
            stand.sandbox.set_variable(name, &value);
        }
        goes_on(&stand);
    });
}

#[test]
fn a_token_that_has_ended() {
    let test = "a_token_that_has_ended";
    if !need(test, Cloud::Azure.needs()) {
        return;
    }
    let mut stand = prepared(Cloud::Azure);
    stand.sandbox.set_variable("AZURE_STORAGE_ACCOUNT_KEY", "");
    let token = stand.server.sas_token(true);
    stand
        .sandbox
        .set_variable("AZURE_STORAGE_SAS_TOKEN", &token);
    let words = ["az://", "it has expired"];
    assert_one_line(&pull(&stand), 7, &words);
    assert_one_line(&push(&stand), 7, &words);
    let token = stand.server.sas_token(false);
    stand
        .sandbox
        .set_variable("AZURE_STORAGE_SAS_TOKEN", &token);
    goes_on(&stand);
}

#[test]
fn a_bucket_that_is_not_there() {
    on_each("a_bucket_that_is_not_there", |stand| {
        let there = stand.url("site");
        let elsewhere = there.replace("environments", "no-such-bucket");
        let code = match stand.server.cloud() {
            Cloud::S3 | Cloud::Google => "NoSuchBucket",
            Cloud::Azure => "ContainerNotFound",
        };
        let words = [elsewhere.as_str(), code, "there is no such bucket"];
        assert_one_line(
            &told(&stand, &["pull", TAG, "--from", &elsewhere]),
            3,
            &words,
        );
        assert_one_line(&told(&stand, &["push", TAG, "--to", &elsewhere]), 3, &words);
        assert_one_line(&told(&stand, &["check", "-r", &elsewhere]), 3, &words);
    });
}

#[test]
fn rights_that_are_lacking() {
    on_each("rights_that_are_lacking", |stand| {
        let denied = denied(stand.server.cloud());
        let url = stand.url(SITE);
        let rule = BucketRule::new("List", denied.clone());
        stand.server.set_faults([rule]);
        assert_one_line(&push(&stand), 7, &[&url, "right to list"]);
        stand
            .server
            .set_faults([BucketRule::writes(denied.clone())]);
        assert_one_line(&push(&stand), 7, &[&url, "right to write", "read-only"]);
        let read = stand.sandbox.succeed(&["cat", TAG, "file", "-r", &url]);
        assert_eq!(read, "the file\n");
        stand
            .server
            .set_faults([BucketRule::new("GetObject", denied)]);
        let read = told(&stand, &["cat", TAG, "file", "-r", &url]);
        assert_one_line(&read, 7, &[&url, "right to read"]);
        goes_on(&stand);
    });
}

#[test]
fn a_proxy_that_answers_with_a_page() {
    on_each("a_proxy_that_answers_with_a_page", |stand| {
        stand
            .server
            .set_faults([BucketRule::new("", BucketFault::Html)]);
        let bucket = stand.url("");
        assert_one_line(&pull(&stand), 1, &[&bucket, "web page", "proxy"]);
        assert_one_line(&push(&stand), 1, &[&bucket, "web page", "proxy"]);
        goes_on(&stand);
    });
}

#[test]
fn clocks_that_differ_and_credentials_that_have_expired() {
    on_each(
        "clocks_that_differ_and_credentials_that_have_expired",
        |stand| {
            let bucket = stand.url("");
            // What each answers of a request from another time and of a token that has ended.
            let cases = match stand.server.cloud() {
                Cloud::S3 | Cloud::Google => [
                    (403, "RequestTimeTooSkewed", "set the clock"),
                    (401, "AuthenticationRequired", "the clock of this machine"),
                    (400, "ExpiredToken", "have expired"),
                ],
                Cloud::Azure => [
                    (
                        403,
                        "AuthenticationFailed",
                        "the clock of this machine is wrong",
                    ),
                    (401, "InvalidAuthenticationInfo", "it has expired"),
                    (401, "NoAuthenticationInformation", "credentials are needed"),
                ],
            };
            for (status, code, words) in cases {
                stand
                    .server
                    .set_faults([BucketRule::new("", refusal(status, code))]);
                stand.server.clear();
                assert_one_line(&pull(&stand), 7, &[&bucket, code, words]);
                assert_one_line(&push(&stand), 7, &[&bucket, code, words]);
                let asked = stand.server.requests().len();
                assert!(asked <= 40, "{asked} requests, though {code} will not pass");
            }
            goes_on(&stand);
        },
    );
}

/// One source gives all of the credentials, or none; what does not fit is told before anything is
/// asked.
#[test]
fn credentials_of_two_places_are_not_mixed() {
    let test = "credentials_of_two_places_are_not_mixed";
    if !need(test, Cloud::Azure.needs()) {
        return;
    }
    let stand = prepared(Cloud::Azure);
    let other = format!("{}?account=another", stand.url(SITE));
    stand.server.clear();
    let words = [
        "AZURE_STORAGE_ACCOUNT_KEY of the account 'farseektests'",
        "'another'",
    ];
    assert_one_line(&told(&stand, &["tags", "-r", &other]), 2, &words);
    let half = format!("{}?access_key=abcd", stand.url(SITE));
    let words = ["the address gives access_key without account"];
    assert_one_line(&told(&stand, &["tags", "-r", &half]), 2, &words);
    assert_eq!(stand.server.requests().len(), 0);
}
