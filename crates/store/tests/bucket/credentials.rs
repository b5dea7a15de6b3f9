//! Credentials for a web identity: whoever gives them may have too much to do, or refuse.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use farseek_store::{BucketEnvironment, Location, OpenOptions, Repository, StoreError, open};
use farseek_testkit::BucketServer;
use tempfile::TempDir;

use super::PATIENT;

const TOKEN: &str = "hush-this-is-the-token-of-the-identity";

/// Who gives credentials, and how often they were asked for.
struct Giver {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Giver {
    /// Answers in this order, and goes on with the last one.
    fn new(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().take(50) {
                let Ok(mut stream) = stream else { return };
                let mut request = [0; 8192];
                let came = stream.read(&mut request).unwrap_or(0);
                if came > 0 {
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    let answer = answers.get(number).or(answers.last()).unwrap();
                    drop(stream.write_all(answer.as_bytes()));
                }
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n{headers}\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

fn refusal(status: u16, headers: &str, code: &str) -> String {
    let body = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>no</Message></Error>\
         </ErrorResponse>"
    );
    answer(status, headers, &body)
}

fn credentials() -> String {
    let body = format!(
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
         <AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
         <SessionToken>session</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
         </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
        BucketServer::ACCESS_KEY,
        BucketServer::SECRET_KEY
    );
    answer(200, "", &body)
}

/// A bucket whose credentials come from `giver`.
struct Site {
    repository: Arc<dyn Repository>,
    server: BucketServer,
    _folder: TempDir,
}

async fn site(giver: &Giver) -> Site {
    let folder = tempfile::tempdir().unwrap();
    let server = BucketServer::start(folder.path());
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let endpoint = server.endpoint();
    let variables = [
        ("AWS_ENDPOINT_URL_S3", endpoint.as_str()),
        ("AWS_ENDPOINT_URL_STS", &giver.url),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/tests"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
    ];
    let options = OpenOptions {
        stall: PATIENT,
        environment: BucketEnvironment::new(variables),
        ..OpenOptions::default()
    };
    let location: Location = server.address_of("site").parse().unwrap();
    Site {
        repository: open(&location, &options).await.unwrap(),
        server,
        _folder: folder,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_too_much_to_do_is_asked_again() {
    let giver = Giver::new(vec![
        refusal(400, "", "Throttling"),
        refusal(429, "Retry-After: 0\r\n", "TooManyRequests"),
        answer(503, "", ""),
        credentials(),
    ]);
    let site = site(&giver).await;
    assert_eq!(site.repository.list_tags("").await.unwrap().len(), 0);
    assert_eq!(giver.asked(), 4);
    assert!(site.server.requests().iter().all(|request| request.signed));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_more_time_than_there_is_is_left_alone() {
    let giver = Giver::new(vec![refusal(400, "Retry-After: 3600\r\n", "Throttling")]);
    let site = site(&giver).await;
    let error = site.repository.list_tags("").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains(&giver.url), "{error}");
    assert_eq!(giver.asked(), 1);
    assert_eq!(site.server.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_final_and_names_who_refused() {
    let page = "<!DOCTYPE html><html><body>Please sign in</body></html>";
    let page = answer(200, "", page).replace("text/xml", "text/html");
    let cases = [
        (
            refusal(400, "", "ExpiredTokenException"),
            true,
            "400 ExpiredTokenException",
        ),
        (refusal(403, "", "AccessDenied"), true, "403 AccessDenied"),
        (page, false, "a proxy may stand in between"),
    ];
    for (answer, is_denied, words) in cases {
        let giver = Giver::new(vec![answer]);
        let site = site(&giver).await;
        let error = site.repository.list_tags("").await.unwrap_err();
        assert_eq!(
            matches!(error, StoreError::Denied { .. }),
            is_denied,
            "{error:?}"
        );
        let said = error.to_string();
        assert!(
            said.contains("no credentials came from http://127.0.0.1:"),
            "{said}"
        );
        assert!(said.contains(words) && !said.contains(TOKEN), "{said}");
        assert_eq!(giver.asked(), 1);
    }
}
