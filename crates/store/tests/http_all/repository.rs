//! A repository behind a static web server: by the requests made and the answers taken, for a
//! server that is sound and for every way in which one may not be.

use std::error::Error as _;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use farseek_object::{Digest, ObjectError};
use farseek_store::{HttpRepository, PutOptions, Repository, StoreError, TagEntry};
use farseek_testkit::{Fault, Rule, StaticServer};
use futures::{StreamExt, TryStreamExt};

use crate::site::{Site, body, collect, content, open, options, sharded, site};

const MISSING: Digest = Digest::from_bytes([7; 32]);

/// What reading `range` of the payload gives: the size and range it says, and the bytes.
async fn read(
    repository: &HttpRepository,
    site: &Site,
    range: std::ops::Range<u64>,
) -> Result<(Option<u64>, std::ops::Range<u64>, Vec<u8>), StoreError> {
    let payload = repository.get_payload(&site.payload, range).await?;
    let (size, range) = (payload.size, payload.range.clone());
    Ok((size, range, collect(payload).await?))
}

async fn with(faults: impl IntoIterator<Item = Rule>) -> (Site, StaticServer, HttpRepository) {
    let site = site().await;
    let server = site.serve();
    server.set_faults(faults);
    let repository = open(&server, 1000);
    (site, server, repository)
}

async fn with_fault(fault: Fault) -> (Site, StaticServer, HttpRepository) {
    with([Rule::new("", fault)]).await
}

#[tokio::test]
async fn everything_is_read_by_the_path_it_has_on_disk() {
    let (site, server, repository) = with([]).await;
    assert_eq!(repository.location(), format!("{}my%20repo", server.url()));
    assert!(server.requests().is_empty(), "opening asks nothing");

    assert_eq!(repository.check().await.unwrap().as_deref(), Some("0.44.0"));
    let object = repository.get_object(&site.object).await.unwrap();
    assert_eq!(object, site.fs.get_object(&site.object).await.unwrap());
    for name in ["top", "org/deep/name.1"] {
        let name = name.parse().unwrap();
        let tag = repository.read_tag(&name).await.unwrap();
        assert_eq!(tag, site.fs.read_tag(&name).await.unwrap());
    }
    assert!(repository.has_object(&site.object).await.unwrap());
    assert!(!repository.has_object(&MISSING).await.unwrap());
    assert_eq!(
        repository.payload_size(&site.payload).await.unwrap(),
        Some(10_000)
    );
    assert_eq!(repository.payload_size(&MISSING).await.unwrap(), None);
    let whole = read(&repository, &site, 0..u64::MAX).await.unwrap();
    assert_eq!(whole, (Some(10_000), 0..10_000, content()));

    let requests = server.requests();
    let asked: Vec<_> = requests
        .iter()
        .map(|r| (r.method.as_str(), r.target.as_str()))
        .collect();
    let (object, payload) = (site.object.to_string(), site.payload.to_string());
    let object = format!("/my%20repo/objects/{}/{}", &object[..2], &object[2..]);
    let payload = format!("/my%20repo/payloads/{}/{}", &payload[..2], &payload[2..]);
    assert_eq!(
        asked[..5],
        [
            ("GET", "/my%20repo/VERSION"),
            ("GET", &object),
            ("GET", "/my%20repo/tags/top.tag"),
            ("GET", "/my%20repo/tags/org/deep/name.1.tag"),
            ("HEAD", &object),
        ]
    );
    assert_eq!(asked[6], ("HEAD", &*payload));
    assert_eq!(asked[8], ("GET", &*payload));
    assert_eq!(asked.len(), 9);
    for request in &requests {
        assert_eq!(request.header("accept-encoding"), Some("identity"));
        assert!(
            request
                .header("user-agent")
                .unwrap()
                .starts_with("farseek/")
        );
        assert_eq!(request.header("range"), None);
    }
    assert_eq!(
        server.connections(),
        1,
        "one connection is kept and used again"
    );
}

#[tokio::test]
async fn a_range_costs_what_it_covers() {
    let (site, server, repository) = with([]).await;
    let all = content();
    let table = [
        (0..1, Some((0, 0)), 0..1),
        (100..200, Some((100, 199)), 100..200),
        (9_990..20_000, Some((9_990, 19_999)), 9_990..10_000),
        (9_000..u64::MAX, Some((9_000, u64::MAX)), 9_000..10_000),
        (0..10_000, Some((0, 9_999)), 0..10_000),
        (5..u64::MAX - 1, Some((5, u64::MAX)), 5..10_000),
    ];
    for (asked, header, given) in table {
        server.clear();
        let (size, range, bytes) = read(&repository, &site, asked.clone()).await.unwrap();
        assert_eq!((size, &range), (Some(10_000), &given), "{asked:?}");
        assert_eq!(bytes, all[given.start as usize..given.end as usize]);
        let requests = server.requests();
        assert_eq!(requests.len(), 1, "{asked:?}");
        assert_eq!((requests[0].range, requests[0].status), (header, Some(206)));
        assert_eq!(requests[0].body_bytes_sent, given.end - given.start);
    }
}

#[tokio::test]
async fn ranges_at_and_beyond_the_end_and_empty_ones_are_empty() {
    let (site, server, repository) = with([]).await;
    for at in [10_000, 10_001, 1 << 62] {
        let (size, range, bytes) = read(&repository, &site, at..at + 5).await.unwrap();
        assert_eq!((size, range, bytes), (Some(10_000), at..at, vec![]));
    }
    assert!(
        server
            .requests()
            .iter()
            .all(|request| request.status == Some(416))
    );
    server.clear();
    let (_, range, bytes) = read(&repository, &site, 50..50).await.unwrap();
    assert_eq!((range, bytes), (50..50, vec![]));
    assert!(server.requests().is_empty(), "no bytes, no request");

    let (empty, _) = site
        .fs
        .put_payload(body(vec![]), PutOptions::default())
        .await
        .unwrap();
    let payload = repository.get_payload(&empty, 0..u64::MAX).await.unwrap();
    assert_eq!((payload.size, payload.range.clone()), (Some(0), 0..0));
    assert!(collect(payload).await.unwrap().is_empty());
    assert_eq!(repository.payload_size(&empty).await.unwrap(), Some(0));
}

#[tokio::test]
async fn one_byte_in_the_middle_of_100_gib() {
    let (site, server, repository) = with([]).await;
    let file = File::options()
        .write(true)
        .open(site.payload_path())
        .unwrap();
    file.set_len(100 << 30).unwrap();
    file.write_all_at(b"!", 50 << 30).unwrap();
    let (size, range, bytes) = read(&repository, &site, 50 << 30..(50 << 30) + 1)
        .await
        .unwrap();
    assert_eq!((size, range), (Some(100 << 30), 50 << 30..(50 << 30) + 1));
    assert_eq!(bytes, b"!");
    assert_eq!(server.body_bytes_sent(), 1);
    assert_eq!(
        repository.payload_size(&site.payload).await.unwrap(),
        Some(100 << 30)
    );
}

#[tokio::test]
async fn a_server_that_ignores_ranges_is_taken_at_its_word() {
    let (site, server, repository) = with_fault(Fault::IgnoreRange).await;
    let whole = read(&repository, &site, 100..200).await.unwrap();
    assert_eq!(whole, (Some(10_000), 0..10_000, content()));
    assert_eq!(server.requests()[0].range, Some((100, 199)));

    server.set_faults([
        Rule::new("", Fault::IgnoreRange),
        Rule::new("", Fault::Chunked),
    ]);
    let whole = read(&repository, &site, 100..200).await.unwrap();
    assert_eq!(
        whole,
        (None, 0..u64::MAX, content()),
        "without a length it says so"
    );
}

#[tokio::test]
async fn answers_that_contradict_themselves_are_named_before_a_byte_is_taken() {
    let header = |name, value: &str| Fault::Header {
        name,
        value: Some(value.to_owned()),
    };
    let table = [
        (
            header("content-range", "bytes 0-99/10000"),
            "bytes 0-99/10000",
        ),
        (
            header("content-range", "bytes 100-198/10000"),
            "bytes 100-198/10000",
        ),
        (
            header("content-range", "bytes 100-199/150"),
            "bytes 100-199/150",
        ),
        (header("content-range", "pages 1-2/3"), "pages 1-2/3"),
        (
            header("content-range", "bytes 90-199/10000"),
            "announces 100 bytes",
        ),
        (
            Fault::Header {
                name: "content-range",
                value: None,
            },
            "Content-Range",
        ),
        (
            header("content-type", "multipart/byteranges; boundary=x"),
            "multipart/byteranges",
        ),
        (header("content-encoding", "gzip"), "'gzip'-encoded"),
        (Fault::ShortAnswer(40), "announces 40 bytes"),
        (Fault::LongBody(3), "announces 103 bytes"),
        (
            Fault::Status {
                code: 400,
                retry_after: None,
            },
            "400",
        ),
        (
            Fault::Status {
                code: 204,
                retry_after: None,
            },
            "204",
        ),
    ];
    for (fault, said) in table {
        let (site, server, repository) = with_fault(fault.clone()).await;
        let error = repository
            .get_payload(&site.payload, 100..200)
            .await
            .unwrap_err();
        assert!(
            matches!(error, StoreError::Corrupt { .. }),
            "{fault:?}: {error:?}"
        );
        let text = error.to_string();
        assert!(
            text.contains(said) && text.contains("/payloads/"),
            "{fault:?}: {text}"
        );
        assert_eq!(
            server.requests().len(),
            1,
            "{fault:?}: asking again will not help"
        );
    }
}

#[tokio::test]
async fn a_body_that_ends_early_ends_with_an_error() {
    let short = [Fault::ShortBody(40), Fault::ShortBody(0)];
    let chunked_short = [
        Rule::new("", Fault::Chunked),
        Rule::new("", Fault::ShortAnswer(40)),
    ];
    let cases = short
        .map(|fault| vec![Rule::new("", fault)])
        .into_iter()
        .chain([
            chunked_short.to_vec(),
            vec![
                Rule::new("", Fault::Chunked),
                Rule::new("", Fault::ShortBody(40)),
            ],
        ]);
    for rules in cases {
        let (site, server, repository) = with(rules.clone()).await;
        let mut payload = repository
            .get_payload(&site.payload, 100..200)
            .await
            .unwrap();
        let (mut got, mut error) = (Vec::new(), None);
        while let Some(piece) = payload.body.next().await {
            match piece {
                Ok(piece) => got.extend_from_slice(&piece),
                Err(other) => error = Some(other),
            }
        }
        let error = error.expect("it does not end in silence");
        assert!(error.is_transient(), "{rules:?}: {error:?}");
        assert!(content()[100..140].starts_with(&got), "{rules:?}");
        assert_eq!(server.requests().len(), 1, "the reader resumes it, not we");
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_ends_with_an_error() {
    let rules = [
        Rule::new("", Fault::Chunked),
        Rule::new("", Fault::LongBody(7)),
    ];
    let (site, _server, repository) = with(rules).await;
    let error = read(&repository, &site, 100..200).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert!(
        error.to_string().contains("more than the 100 bytes"),
        "{error}"
    );
}

#[tokio::test]
async fn missing_and_refused() {
    let (site, server, repository) = with([]).await;
    let error = repository.get_object(&MISSING).await.unwrap_err();
    assert!(
        matches!(error, StoreError::NotFound { what: "object", .. }),
        "{error:?}"
    );
    let error = repository.get_payload(&MISSING, 0..1).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::NotFound {
                what: "payload",
                ..
            }
        ),
        "{error:?}"
    );
    let error = repository
        .read_tag(&"no/such".parse().unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::UnknownTag { .. }), "{error:?}");
    for code in [401, 403, 407, 451] {
        server.set_faults([Rule::new(
            "",
            Fault::Status {
                code,
                retry_after: None,
            },
        )]);
        server.clear();
        let errors = [
            repository.get_object(&site.object).await.unwrap_err(),
            repository
                .get_payload(&site.payload, 0..1)
                .await
                .unwrap_err(),
            repository
                .read_tag(&"top".parse().unwrap())
                .await
                .unwrap_err(),
            repository.check().await.unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
            assert!(error.to_string().contains(&code.to_string()), "{error}");
        }
        assert_eq!(server.requests().len(), 4, "no use in asking again");
    }
    server.set_faults([Rule::new(
        "",
        Fault::Status {
            code: 410,
            retry_after: None,
        },
    )]);
    assert!(
        repository
            .get_object(&site.object)
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn metadata_is_tried_again_and_payloads_are_not() {
    for code in [408, 429, 500, 503] {
        let fault = Fault::Status {
            code,
            retry_after: None,
        };
        let (site, server, repository) = with([Rule::new("", fault.clone()).first(2)]).await;
        repository.get_object(&site.object).await.unwrap();
        assert_eq!(server.requests().len(), 3, "{code}");

        server.clear();
        server.set_faults([Rule::new("", fault)]);
        let error = repository
            .read_tag(&"top".parse().unwrap())
            .await
            .unwrap_err();
        assert!(
            error.is_transient() && error.to_string().contains(&code.to_string()),
            "{error}"
        );
        assert_eq!(server.requests().len(), 3, "three attempts were allowed");

        server.clear();
        let error = repository
            .get_payload(&site.payload, 0..1)
            .await
            .unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        assert_eq!(server.requests().len(), 1, "{code}");
    }
}

#[tokio::test]
async fn broken_connections_are_made_anew() {
    for fault in [Fault::Hangup, Fault::ShortBody(5)] {
        let (site, server, repository) = with([Rule::new("objects", fault).first(2)]).await;
        repository.get_object(&site.object).await.unwrap();
        assert!(server.requests().len() >= 3);
    }
}

#[tokio::test]
async fn retry_after_is_obeyed_within_the_deadline() {
    let told = |seconds| Fault::Status {
        code: 503,
        retry_after: Some(seconds),
    };
    let site = site().await;
    let server = site.serve();
    let repository = open(&server, 3000);
    server.set_faults([Rule::new("", told(1)).first(1)]);
    let before = Instant::now();
    read(&repository, &site, 0..1).await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.requests().len(), 2);

    server.clear();
    server.set_faults([Rule::new("", told(60))]);
    let before = Instant::now();
    assert!(
        read(&repository, &site, 0..1)
            .await
            .unwrap_err()
            .is_transient()
    );
    assert!(
        repository
            .get_object(&site.object)
            .await
            .unwrap_err()
            .is_transient()
    );
    assert!(
        before.elapsed() < Duration::from_secs(10),
        "that is longer than it may wait"
    );
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn redirects_are_followed_to_a_limit_and_keep_the_range() {
    let elsewhere = site().await;
    let target = elsewhere.serve();
    let (site, server, repository) = with([]).await;
    let text = site.payload.to_string();
    let path = format!("my%20repo/payloads/{}/{}", &text[..2], &text[2..]);
    server.set_faults([Rule::new(
        "payloads",
        Fault::Redirect(format!("{}{path}", target.url())),
    )]);
    let (_, range, bytes) = read(&repository, &site, 100..200).await.unwrap();
    assert_eq!((range, &bytes[..]), (100..200, &content()[100..200]));
    assert_eq!(target.requests()[0].range, Some((100, 199)));

    server.clear();
    server.set_faults([Rule::new("", Fault::RedirectLoop)]);
    let error = repository.get_object(&site.object).await.unwrap_err();
    assert!(
        error.to_string().contains("redirects more than 8 times"),
        "{error}"
    );
    assert_eq!(server.requests().len(), 9);
}

#[tokio::test]
async fn a_page_in_the_place_of_data_is_named() {
    let (site, server, repository) = with_fault(Fault::Html).await;
    let error = repository.get_object(&site.object).await.unwrap_err();
    assert!(matches!(error, StoreError::Undecodable { .. }), "{error:?}");
    assert!(
        error.to_string().contains("an HTML page was sent instead"),
        "{error}"
    );
    assert!(error.to_string().contains(&server.url()), "{error}");
    let error = repository
        .read_tag(&"top".parse().unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Undecodable { .. }), "{error:?}");
    let error = repository.check().await.unwrap_err();
    assert!(error.to_string().contains("is it a repository?"), "{error}");
    let payload = repository.get_payload(&site.payload, 0..10).await.unwrap();
    assert!(
        payload.source.contains("an HTML page"),
        "{}",
        payload.source
    );
    assert_ne!(
        payload.size,
        Some(10_000),
        "its size gives it away to the reader"
    );
    let error = repository.list_tags("").await.unwrap_err();
    assert!(matches!(error, StoreError::Unsupported { .. }), "{error:?}");
}

#[tokio::test]
async fn flipped_bits_and_wrong_objects_are_noticed() {
    let (site, server, repository) = with([Rule::new("objects", Fault::Flip(40))]).await;
    let error = repository.get_object(&site.object).await.unwrap_err();
    let StoreError::Undecodable { source, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(!source.to_string().is_empty());
    assert_eq!(server.requests().len(), 1);

    server.set_faults([]);
    let objects = site.root().join("objects");
    let wrong = sharded(&objects, &MISSING);
    fs::create_dir_all(wrong.parent().unwrap()).unwrap();
    fs::copy(sharded(&objects, &site.object), wrong).unwrap();
    let error = repository.get_object(&MISSING).await.unwrap_err();
    let StoreError::Undecodable { source, .. } = error else {
        panic!("{error:?}")
    };
    assert!(
        matches!(source, ObjectError::WrongDigest { .. }),
        "{source:?}"
    );
}

#[tokio::test]
async fn sizes_are_bounded() {
    let site = site().await;
    let server = site.serve();
    let url: url::Url = format!("{}my%20repo", server.url()).parse().unwrap();
    let mut small = options(1000);
    (small.object_max_bytes, small.tag_max_bytes) = (20, 20);
    let repository = HttpRepository::open(url, small).unwrap();
    for chunked in [false, true] {
        server.set_faults(chunked.then(|| Rule::new("", Fault::Chunked)));
        for error in [
            repository.get_object(&site.object).await.unwrap_err(),
            repository
                .read_tag(&"top".parse().unwrap())
                .await
                .unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
            assert!(error.to_string().contains("more than 20 bytes"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_server_that_makes_no_progress_is_given_up_at_the_deadline() {
    let faults = [Fault::Never, Fault::StallAfter(5)];
    for fault in faults {
        let site = site().await;
        let server = site.serve();
        server.set_faults([Rule::new("", fault.clone())]);
        let repository = open(&server, 300);
        let before = Instant::now();
        let error = repository.get_object(&site.object).await.unwrap_err();
        assert!(
            error.to_string().contains("no answer for 0.3 s"),
            "{fault:?}: {error}"
        );
        assert!(error.is_transient());
        let error = read(&repository, &site, 100..200).await.unwrap_err();
        assert!(
            error.to_string().contains("no answer for 0.3 s"),
            "{fault:?}: {error}"
        );
        let took = before.elapsed();
        assert!(took > Duration::from_millis(590) && took < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn failures_before_a_stall_count_against_the_same_deadline() {
    let site = site().await;
    let server = site.serve();
    server.set_faults([
        Rule::new("", Fault::Delay(Duration::from_millis(1400))).first(1),
        Rule::new(
            "",
            Fault::Status {
                code: 500,
                retry_after: None,
            },
        )
        .first(1),
        Rule::new("", Fault::Never).calls(1..u64::MAX),
    ]);
    let repository = open(&server, 2000);
    let before = Instant::now();
    assert!(
        repository
            .get_object(&site.object)
            .await
            .unwrap_err()
            .is_transient()
    );
    let took = before.elapsed();
    assert!(
        took > Duration::from_millis(1900) && took < Duration::from_millis(3000),
        "{took:?}"
    );
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_slow_server_that_makes_progress_is_waited_for() {
    let drip = Fault::Drip {
        bytes: 10,
        every: Duration::from_millis(100),
    };
    let site = site().await;
    let server = site.serve();
    server.set_faults([Rule::new("payloads", drip)]);
    let repository = open(&server, 300);
    let (_, _, bytes) = read(&repository, &site, 0..100).await.unwrap();
    assert_eq!(bytes, content()[..100]);
}

#[tokio::test]
async fn a_frozen_server_works_again_when_it_goes_on() {
    let site = site().await;
    let server = site.serve();
    let repository = open(&server, 300);
    read(&repository, &site, 0..1).await.unwrap();
    server.pause();
    let before = Instant::now();
    assert!(
        read(&repository, &site, 0..1)
            .await
            .unwrap_err()
            .is_transient()
    );
    assert!(before.elapsed() < Duration::from_secs(5));
    server.resume();
    read(&repository, &site, 0..1).await.unwrap();
}

#[tokio::test]
async fn nobody_listens() {
    let site = site().await;
    let server = site.serve();
    let repository = open(&server, 300);
    drop(server);
    let error = repository.check().await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("cannot connect") && text.contains("refused"),
        "{text}"
    );
}

#[tokio::test]
async fn secrets_are_sent_and_never_told() {
    let site = site().await;
    let server = site.serve();
    let url = server.url().replace("http://", "http://me:hunter2@");
    let url = format!("{url}my%20repo?token=hunter2").parse().unwrap();
    let repository = HttpRepository::open(url, options(300)).unwrap();
    repository.get_object(&site.object).await.unwrap();
    let request = &server.requests()[0];
    assert!(
        request.target.ends_with("====?token=hunter2"),
        "{}",
        request.target
    );
    assert!(
        request
            .header("authorization")
            .unwrap()
            .starts_with("Basic ")
    );

    assert!(!repository.location().contains("hunter2"));
    assert!(
        !format!("{repository:?}").contains("hunter2"),
        "{repository:?}"
    );
    let faults = [
        Fault::Never,
        Fault::Hangup,
        Fault::Html,
        Fault::RedirectLoop,
        Fault::ShortBody(3),
        Fault::Status {
            code: 403,
            retry_after: None,
        },
        Fault::Status {
            code: 500,
            retry_after: None,
        },
        Fault::Status {
            code: 404,
            retry_after: None,
        },
    ];
    for fault in faults {
        server.set_faults([Rule::new("", fault.clone())]);
        let mut error: &dyn std::error::Error =
            &repository.get_object(&site.object).await.unwrap_err();
        loop {
            let text = format!("{error} {error:?}");
            assert!(
                !text.contains("hunter2") && !text.contains("me:"),
                "{fault:?}: {text}"
            );
            let Some(source) = error.source() else { break };
            error = source;
        }
    }
}

#[tokio::test]
async fn versions_and_servers_without_one() {
    let (site, _server, repository) = with([]).await;
    let file = site.root().join("VERSION");
    fs::write(&file, "1.2.3").unwrap();
    let error = repository.check().await.unwrap_err().to_string();
    assert!(error.contains("version 1.2.3"), "{error}");
    fs::write(&file, " \n").unwrap();
    assert_eq!(repository.check().await.unwrap(), None);
    fs::remove_file(&file).unwrap();
    assert_eq!(repository.check().await.unwrap(), None);
}

#[tokio::test]
async fn servers_without_head_tell_sizes_by_one_byte() {
    let (site, server, repository) = with([Rule::new(
        "",
        Fault::Status {
            code: 405,
            retry_after: None,
        },
    )
    .first(1)])
    .await;
    assert_eq!(
        repository.payload_size(&site.payload).await.unwrap(),
        Some(10_000)
    );
    let requests = server.requests();
    assert_eq!(
        (requests[0].method.as_str(), requests[1].method.as_str()),
        ("HEAD", "GET")
    );
    assert_eq!(
        (requests[1].range, requests[1].body_bytes_sent),
        (Some((0, 0)), 1)
    );

    server.set_faults([
        Rule::new("", Fault::Chunked),
        Rule::new("", Fault::IgnoreRange),
    ]);
    let error = repository.payload_size(&site.payload).await.unwrap_err();
    assert!(matches!(error, StoreError::Unsupported { .. }), "{error:?}");
    assert!(repository.has_object(&site.object).await.unwrap());
}

#[tokio::test]
async fn namespaces_are_folders_of_their_own() {
    let (site, server, _) = with([]).await;
    let tags = site.root().join("tags");
    fs::create_dir(tags.join("studio#ns")).unwrap();
    fs::copy(tags.join("top.tag"), tags.join("studio#ns/top.tag")).unwrap();
    fs::remove_file(tags.join("top.tag")).unwrap();
    let mut options = options(1000);
    options.namespace = Some("studio".parse().unwrap());
    let url = format!("{}my%20repo/", server.url()).parse().unwrap();
    let repository = HttpRepository::open(url, options).unwrap();
    let tag = repository.read_tag(&"top".parse().unwrap()).await.unwrap();
    assert_eq!(tag.head().unwrap().target, site.object);
    assert_eq!(
        server.requests()[0].target,
        "/my%20repo/tags/studio%23ns/top.tag"
    );
}

#[tokio::test]
async fn what_a_plain_web_server_cannot_do_is_said() {
    let (site, _server, repository) = with([]).await;
    let tag = site.fs.read_tag(&"top".parse().unwrap()).await.unwrap();
    let tag = tag.head().unwrap();
    let object = site.fs.get_object(&site.object).await.unwrap();
    let put = PutOptions::default();
    let errors = [
        repository.put_object(&object, put).await.unwrap_err(),
        repository.remove_object(&site.object).await.unwrap_err(),
        repository
            .put_payload(body(vec![1]), put)
            .await
            .unwrap_err(),
        repository.remove_payload(&site.payload).await.unwrap_err(),
        repository.insert_tag(tag).await.unwrap_err(),
        repository
            .push_tag(&tag.name, &MISSING, "me")
            .await
            .unwrap_err(),
        repository.remove_tag(tag).await.unwrap_err(),
        repository.remove_tag_stream(&tag.name).await.unwrap_err(),
        repository
            .list_tags("org")
            .await
            .map(|_: Vec<TagEntry>| ())
            .unwrap_err(),
        repository.list_payloads().try_next().await.unwrap_err(),
        repository.list_objects(None).try_next().await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, StoreError::Unsupported { .. }), "{error:?}");
        assert!(error.source().is_none());
        assert!(error.to_string().contains(" cannot "), "{error}");
    }
    assert!(site.payload_path().exists());
}
