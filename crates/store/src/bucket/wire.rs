//! Requests on their way to an object store: deadlines on progress, retries, counts, and answers that
//! are none.
//!
//! The object store's own client signs requests and reads answers; everything between is here. Its
//! retries are off: it does not read `Retry-After`, and its deadlines are for whole requests, which is
//! wrong for a large part on a slow line. A request may be sent again because every one of ours may
//! be: keys are written whole, and mean the same whoever writes them.
//!
//! A question is given up after a part of the stall deadline, and asked again through another
//! connection: of several nodes behind one address the one that is stopped must not use it all up.
//!
//! Invariants: no wait for a peer that makes no progress is longer than the stall deadline, pauses
//! between attempts included (a copy within the store has more, by its size); an error holds no
//! query and no header of a request.

mod answer;
mod body;
mod minding;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hyper::body::Body as _;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use reqwest::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use reqwest::{Method, redirect};
use tokio::time::Instant;

use self::answer::{is_error, is_listing, is_page, late_trouble, origin, refused, unanswered};
use self::body::{Watched, collect, in_pieces};
pub(super) use self::minding::{copying, minding};
use super::requests::Counters;
use super::trouble::Trouble;
use crate::error::{Result, StoreError};
use crate::http::answer::Head;
use crate::http::tls;
use crate::liveness::Liveness;
use crate::requests::Requests;
use crate::retry::{Backoff, STALL_MAX};

/// Idle connections are closed before the usual server closes them.
const IDLE: Duration = Duration::from_secs(12);

/// Notices a peer that is gone while a connection waits.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// No error, and no answer to a write, is longer.
const ANSWER_MAX: usize = 1 << 20;

/// What a key holds comes in whole before it is given on where it is no longer: what breaks off is
/// asked for again.
const WHOLE_MAX: u64 = 1 << 20;

/// The same for a page of a listing.
const PAGE_MAX: usize = 16 << 20;

/// Attempts at one request, the first one counted.
const ATTEMPTS: u32 = 6;

/// A question is asked so often, at least, before the stall deadline.
const QUESTIONS: u32 = 4;

/// Whoever gives credentials is on this machine or near: it answers soon or is not there.
const CREDENTIALS_STALL: Duration = Duration::from_secs(3);

/// Attempts at a request for credentials that nobody answers.
const CREDENTIALS_UNANSWERED: u32 = 2;

/// The same where the answer is that there is too much to do.
const CREDENTIALS_REFUSED: u32 = 4;

/// How an object store is reached.
#[derive(Debug, Clone)]
pub(super) struct WireOptions {
    /// How long it may make no progress.
    pub(super) stall: Duration,
    /// What begins the address of everything in it; other addresses are those who give credentials.
    pub(super) origins: Vec<String>,
    /// Whether no proxy is asked: none can reach this machine for us.
    pub(super) direct: bool,
    /// Varies the pauses between attempts.
    pub(super) seed: u64,
}

/// The way to one object store.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    http: reqwest::Client,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    backoff: Backoff,
    origins: Vec<String>,
    seed: AtomicU64,
    counters: Counters,
}

impl Wire {
    /// # Errors
    /// `Unavailable` where TLS cannot be set up: not with the provider built in.
    pub(super) fn new(location: &str, options: WireOptions) -> Result<Self> {
        let unavailable = |source: crate::error::Source| StoreError::Unavailable {
            location: location.to_owned(),
            reason: "TLS cannot be set up".to_owned(),
            source: Some(source),
        };
        let tls = tls::config().map_err(|error| unavailable(error.into()))?;
        let stall = options.stall.min(STALL_MAX);
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("farseek/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(stall)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(64)
            .tcp_keepalive(KEEPALIVE)
            .tcp_nodelay(true);
        if options.direct {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| unavailable(error.into()))?;
        let backoff = Backoff {
            attempts: ATTEMPTS,
            deadline: stall,
            ..Backoff::default()
        };
        let shared = Shared {
            backoff,
            origins: options.origins,
            seed: AtomicU64::new(options.seed),
            counters: Counters::default(),
        };
        Ok(Self {
            http,
            shared: Arc::new(shared),
        })
    }

    /// The requests made so far, those for credentials aside.
    pub(super) fn requests(&self) -> Requests {
        self.shared.counters.read()
    }

    fn is_for_the_store(&self, request: &HttpRequest) -> bool {
        let address = request.uri().to_string();
        let begins = |origin: &String| address.starts_with(origin.as_str());
        self.shared.origins.iter().any(begins)
    }

    /// Sends a request once, `again` where that has failed before.
    async fn attempt(
        &self,
        request: HttpRequest,
        patience: Duration,
        is_for_the_store: bool,
        again: bool,
    ) -> Result<HttpResponse, Failure> {
        let is_write = *request.method() != Method::GET && *request.method() != Method::HEAD;
        let is_get = *request.method() == Method::GET;
        let is_put = *request.method() == Method::PUT;
        let is_listing = is_listing(&request);
        let liveness = Arc::new(Liveness::since(Instant::now()));
        let origin = origin(&request);
        let mut request = outgoing(request, &liveness)?;
        if again {
            // Behind one address may be several nodes: the next attempt is to reach another one.
            let close = HeaderValue::from_static("close");
            request.headers_mut().insert(CONNECTION, close);
        }
        let answer = liveness.wait(patience, self.http.execute(request)).await;
        let answer = answer.ok_or(Trouble::Silent(patience))?;
        let answer = answer.map_err(|error| unanswered(error, &origin))?;
        let answer: hyper::Response<reqwest::Body> = answer.into();
        let (head, body) = answer.into_parts();
        let mut body = Watched::new(body, patience);
        if !is_for_the_store {
            let text = collect(&mut body, ANSWER_MAX).await?;
            let is_page = is_page(&head.headers);
            let trouble = refused(head.status, is_page, &text);
            // Where a machine gives no token to ask with, the object store's client may do without.
            let is_answer = head.status.is_success() && !is_page;
            if is_answer || (is_put && !trouble.may_pass()) {
                return Ok(hyper::Response::from_parts(head, text.into()));
            }
            let asked = Head::new(head.status, &head.headers).retry_after();
            return Err(Failure {
                asked,
                ..Failure::from(trouble)
            });
        }
        let is_page = is_page(&head.headers);
        if head.status.is_success() && !is_page && !is_write {
            let length = body.size_hint().exact();
            let is_small = length.is_some_and(|length| length <= WHOLE_MAX);
            if is_get && (is_listing || is_small) {
                let came = collect(&mut body, PAGE_MAX).await;
                let came = came.map_err(|trouble| Failure {
                    progress: body.last,
                    ..Failure::from(trouble)
                })?;
                if came.len() <= PAGE_MAX {
                    return Ok(hyper::Response::from_parts(head, came.into()));
                }
                body.came = came;
            }
            return Ok(hyper::Response::from_parts(
                head,
                HttpResponseBody::new(body),
            ));
        }
        let text = collect(&mut body, ANSWER_MAX).await?;
        // Some say of the nothing that they answer that it is HTML. But a key that is there says more.
        let says_nothing = text.is_empty() && (is_write || !head.status.is_success());
        let is_page = is_page && !says_nothing;
        // The end of an upload and a copy may fail after the head of their answer was sent.
        let late = late_trouble(&head.headers, &text).filter(|_| head.status.is_success());
        if head.status.is_success() && !is_page && late.is_none() && !is_error(&text) {
            return Ok(hyper::Response::from_parts(head, text.into()));
        }
        let asked = Head::new(head.status, &head.headers).retry_after();
        let trouble = late.unwrap_or_else(|| refused(head.status, is_page, &text));
        // To HEAD there is no body.
        let code = head.headers.get("x-ms-error-code");
        let trouble = trouble.or_code(code.and_then(|code| code.to_str().ok()));
        Err(Failure {
            asked,
            ..Failure::from(trouble)
        })
    }
}

/// How long an attempt may make no progress.
fn patience(request: &HttpRequest, is_for_the_store: bool, stall: Duration) -> Duration {
    let is_question = matches!(*request.method(), Method::GET | Method::HEAD);
    match (is_for_the_store, is_question) {
        (false, _) => stall.min(CREDENTIALS_STALL),
        (true, true) => stall / QUESTIONS,
        (true, false) => stall,
    }
}

/// A failed attempt.
struct Failure {
    trouble: Trouble,
    /// How long the server asks to be left alone.
    asked: Option<Duration>,
    /// When the last piece of an answer came that was not finished.
    progress: Option<Instant>,
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self {
            trouble,
            asked: None,
            progress: None,
        }
    }
}

impl HttpConnector for Wire {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_for_the_store = self.is_for_the_store(&request);
        let mut backoff = self.shared.backoff;
        if is_for_the_store {
            backoff.deadline += minding::extra_time();
        }
        let patience = patience(&request, is_for_the_store, backoff.deadline);
        let (mut began, mut failed) = (Instant::now(), 0);
        let is_change = !matches!(*request.method(), Method::GET | Method::HEAD);
        loop {
            if is_change && !minding::goes_on() {
                let late = Trouble::Broken("it is too late to ask for this".to_owned());
                return Err(HttpError::new(HttpErrorKind::Unknown, late));
            }
            if is_for_the_store {
                self.shared.counters.count(&request, failed > 0);
            }
            let attempt = self.attempt(request.clone(), patience, is_for_the_store, failed > 0);
            let Failure {
                trouble,
                asked,
                progress,
            } = match attempt.await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if is_change && is_for_the_store {
                minding::failed(&trouble);
            }
            failed += 1;
            began = progress.unwrap_or(began);
            let seed = self.shared.seed.fetch_add(1, Ordering::Relaxed);
            let pause = backoff.pause(failed, began.elapsed(), asked, seed);
            let again = is_for_the_store || failed < credentials_attempts(&trouble);
            let Some(pause) = pause.filter(|_| again && trouble.may_pass()) else {
                let trouble = match is_for_the_store {
                    true => trouble,
                    false => without_credentials(&origin(&request), &trouble),
                };
                return Err(HttpError::new(HttpErrorKind::Unknown, trouble));
            };
            tracing::debug!(%trouble, ?pause, "trying again");
            tokio::time::sleep(pause).await;
        }
    }
}

/// How often credentials are asked for in all.
fn credentials_attempts(trouble: &Trouble) -> u32 {
    match trouble {
        Trouble::Refused { .. } | Trouble::Page { .. } => CREDENTIALS_REFUSED,
        _ => CREDENTIALS_UNANSWERED,
    }
}

/// Whoever is at `origin` gave no credentials. The bucket has not been asked yet: it is not its trouble.
fn without_credentials(origin: &str, trouble: &Trouble) -> Trouble {
    Trouble::NoCredentials {
        origin: origin.to_owned(),
        trouble: Box::new(trouble.clone()),
    }
}

/// The request as it is sent: its body in pieces, each of which tells that it was taken.
fn outgoing(request: HttpRequest, liveness: &Arc<Liveness>) -> Result<reqwest::Request, Trouble> {
    let (head, body) = request.into_parts();
    let url = head.uri.to_string().parse();
    let url = url.map_err(|_| Trouble::Broken("its address is no URL".to_owned()))?;
    let mut sent = reqwest::Request::new(head.method, url);
    *sent.headers_mut() = head.headers;
    let length = body.content_length();
    if length > 0 {
        sent.headers_mut()
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(length));
        *sent.body_mut() = Some(in_pieces(body, Arc::clone(liveness)));
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    #[test]
    fn whoever_gives_no_credentials_is_named() {
        let busy = refused(StatusCode::SERVICE_UNAVAILABLE, false, b"");
        assert_eq!(credentials_attempts(&busy), CREDENTIALS_REFUSED);
        let trouble = without_credentials("http://169.254.169.254", &busy);
        assert_eq!(
            trouble.to_string(),
            "no credentials came from http://169.254.169.254: the server answered 503"
        );
        let said = br#"{"error": "invalid_grant", "error_description":"Invalid JWT"}"#;
        let refused = refused(StatusCode::BAD_REQUEST, false, said);
        assert_eq!(
            refused.to_string(),
            "the server answered 400 invalid_grant (Invalid JWT)"
        );
    }
}
