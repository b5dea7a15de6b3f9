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

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use reqwest::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, redirect};
use tokio::time::{Instant, Sleep};

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

/// A body goes out in pieces of this size: each that is taken is progress.
const PIECE: usize = 64 << 10;

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

/// Bytes that a store copies within itself in a second, at least.
const COPIED_PER_SECOND: u64 = 20 << 20;

tokio::task_local! {
    /// How long the copy that is asked for may take beyond the stall deadline.
    static COPYING: Duration;
}

/// Asks for a copy of `size` bytes within the store: some say nothing before they have made it.
pub(super) async fn copying<T>(size: u64, copy: impl Future<Output = T>) -> T {
    let takes = Duration::from_secs(size / COPIED_PER_SECOND);
    COPYING.scope(takes, copy).await
}

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
            backoff.deadline += COPYING.try_with(|takes| *takes).unwrap_or_default();
        }
        let patience = patience(&request, is_for_the_store, backoff.deadline);
        let (mut began, mut failed) = (Instant::now(), 0);
        loop {
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

fn in_pieces(body: HttpRequestBody, liveness: Arc<Liveness>) -> reqwest::Body {
    let pieces = body.into_data_stream().flat_map(|whole| {
        stream::unfold(whole.ok().unwrap_or_default(), |mut rest: Bytes| async {
            let piece = rest.split_to(rest.len().min(PIECE));
            (!piece.is_empty()).then_some((Ok::<_, HttpError>(piece), rest))
        })
    });
    reqwest::Body::wrap_stream(pieces.inspect(move |_| liveness.made()))
}

/// Where a request goes: no path, no query, and so no secret.
fn origin(request: &HttpRequest) -> String {
    let uri = request.uri();
    let scheme = uri.scheme_str().unwrap_or("http");
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let (_, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    format!("{scheme}://{host}")
}

/// A request to `origin` that was not answered.
fn unanswered(error: reqwest::Error, origin: &str) -> Trouble {
    match error.is_connect() {
        true => Trouble::Broken(format!("cannot connect to {origin}: {}", innermost(error))),
        false => broken(error),
    }
}

/// A connection that failed.
fn broken(error: reqwest::Error) -> Trouble {
    Trouble::Broken(format!("the connection broke: {}", innermost(error)))
}

/// The cause that says most, without the address that was asked.
fn innermost(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &(dyn std::error::Error + 'static) = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn is_page(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| {
        kind.trim_start()
            .to_ascii_lowercase()
            .starts_with("text/html")
    })
}

fn is_error(text: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&text[..text.len().min(1024)]);
    start
        .trim_start_matches(BYTE_ORDER)
        .trim_start()
        .starts_with('<')
        && start.contains("<Error>")
}

/// What Azure puts before its XML.
const BYTE_ORDER: char = '\u{feff}';

/// What Azure has not done though its answer is a good one: a copy that goes on, which has to be asked
/// for again until it is there, and a removal in a batch (we ask for one at a time). That there was
/// nothing to remove is the client's to tell.
fn late_trouble(headers: &HeaderMap, text: &[u8]) -> Option<Trouble> {
    if headers
        .get("x-ms-copy-status")
        .is_some_and(|status| status == "pending")
    {
        return Some(Trouble::Refused {
            status: StatusCode::CONFLICT.as_u16(),
            code: Some("PendingCopyOperation".to_owned()),
            message: None,
        });
    }
    let text = std::str::from_utf8(text)
        .ok()
        .filter(|text| text.starts_with("--"))?;
    let (_, part) = text.split_once("\nHTTP/1.1 ")?;
    let status = part.get(..3)?.parse().ok()?;
    let status = StatusCode::from_u16(status).ok()?;
    let is_done = status.is_success() || status == StatusCode::NOT_FOUND;
    (!is_done).then(|| refused(status, false, part.as_bytes()))
}

/// What an answer that is none says.
fn refused(status: StatusCode, is_page: bool, text: &[u8]) -> Trouble {
    let text = String::from_utf8_lossy(text);
    let status = status.as_u16();
    let is_page = is_page
        || text.trim_start().get(..5).is_some_and(|start| {
            let start = start.to_ascii_lowercase();
            start.starts_with("<html") || start.starts_with("<!doc")
        });
    if is_page {
        return Trouble::Page { status };
    }
    Trouble::Refused {
        // An error after the head of an answer.
        status: if status < 300 { 500 } else { status },
        code: element(&text, "Code").or_else(|| member(&text, "error")),
        message: element(&text, "Message").or_else(|| member(&text, "error_description")),
    }
}

/// The text of a member of a JSON object: so do those answer who give tokens.
fn member(text: &str, name: &str) -> Option<String> {
    let text = text.trim_start().strip_prefix('{')?;
    let (_, after) = text.split_once(&format!("\"{name}\""))?;
    let value = after.trim_start().strip_prefix(':')?.trim_start();
    let (inner, _) = value.strip_prefix('"')?.split_once('"')?;
    shown(inner)
}

/// The text of the first element of that name.
fn element(text: &str, name: &str) -> Option<String> {
    let (_, after) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = after.split_once('<')?;
    shown(inner)
}

/// So much of a server's words as fits into a sentence.
fn shown(words: &str) -> Option<String> {
    // Azure goes on with the number of the request and the time.
    let words = words.lines().next().unwrap_or_default();
    let inner: String = words
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect();
    (!inner.is_empty()).then_some(inner)
}

/// Whether a page of a listing is asked for, in the words of S3, GCS and Azure.
fn is_listing(request: &HttpRequest) -> bool {
    let mut pairs = request.uri().query().unwrap_or_default().split('&');
    *request.method() == Method::GET
        && pairs.any(|pair| pair.starts_with("list-type=") || pair == "comp=list")
}

/// All that comes; of a body that is longer than `limit` its beginning, which is longer too.
async fn collect(body: &mut Watched, limit: usize) -> Result<Bytes, Trouble> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Trouble::Broken("the answer broke off".to_owned()))?;
        if let Ok(piece) = frame.into_data() {
            bytes.extend_from_slice(&piece);
        }
        if bytes.len() > limit {
            break;
        }
    }
    Ok(bytes.freeze())
}

/// A body whose next piece is not waited for longer than a deadline. Time in which nobody asks for
/// one does not count.
struct Watched {
    /// What has come already of a body that was too long to be collected.
    came: Bytes,
    body: reqwest::Body,
    stall: Duration,
    timer: Pin<Box<Sleep>>,
    is_waiting: bool,
    /// When a piece came last.
    last: Option<Instant>,
}

impl Watched {
    fn new(body: reqwest::Body, stall: Duration) -> Self {
        Self {
            came: Bytes::new(),
            body,
            stall,
            timer: Box::pin(tokio::time::sleep(stall)),
            is_waiting: false,
            last: None,
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let failed = |trouble| HttpError::new(HttpErrorKind::Interrupted, trouble);
        if !self.came.is_empty() {
            let came = std::mem::take(&mut self.came);
            return Poll::Ready(Some(Ok(Frame::data(came))));
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.is_waiting = false;
            if let Some(Ok(_)) = frame {
                self.last = Some(Instant::now());
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(|e| failed(broken(e)))));
        }
        if !self.is_waiting {
            self.is_waiting = true;
            let ends = Instant::now() + self.stall;
            self.timer.as_mut().reset(ends);
        }
        ready!(self.timer.as_mut().poll(context));
        let stall = self.stall;
        Poll::Ready(Some(Err(failed(Trouble::Silent(stall)))))
    }

    fn is_end_stream(&self) -> bool {
        self.came.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.came.is_empty() {
            true => self.body.size_hint(),
            false => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_copy_has_time_by_its_size() {
        let takes = copying(5 << 30, async { COPYING.try_with(|takes| *takes).ok() });
        assert_eq!(takes.await, Some(Duration::from_secs(256)));
        assert!(COPYING.try_with(|_| ()).is_err(), "nothing is copied");
    }

    #[test]
    fn listings() {
        let is_listing = |method: &str, query: &str| {
            let request = hyper::Request::builder()
                .method(method)
                .uri(format!("http://host/bucket?{query}"));
            is_listing(&request.body(HttpRequestBody::empty()).unwrap())
        };
        assert!(is_listing("GET", "delimiter=%2F&list-type=2"));
        assert!(is_listing("GET", "restype=container&comp=list"));
        assert!(!is_listing("GET", "comp=blocklist"));
        assert!(!is_listing("GET", ""));
        assert!(!is_listing("PUT", "list-type=2"));
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_to_be_collected_is_given_on_whole() {
        let stall = Duration::from_secs(5);
        let pieces = ["ab", "cd", "ef"].map(|piece| Ok::<_, HttpError>(Bytes::from(piece)));
        let body = reqwest::Body::wrap_stream(stream::iter(pieces));
        let mut body = Watched::new(body, stall);
        let came = collect(&mut body, 3).await.unwrap();
        assert_eq!(came, "abcd");
        body.came = came;
        assert_eq!(collect(&mut body, 6).await.unwrap(), "abcdef");
    }

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

    #[test]
    fn what_azure_has_not_done_is_trouble() {
        let none = HeaderMap::new();
        let part = |status: &str| {
            format!(
                "--batchresponse_1\r\nContent-Type: application/http\r\nContent-ID: 0\r\n\r\n\
                 HTTP/1.1 {status}\r\nx-ms-version: 1\r\n\r\n\u{feff}<?xml version=\"1.0\"?>\
                 <Error><Code>ACode</Code></Error>\r\n--batchresponse_1--"
            )
        };
        let late = |status: &str| late_trouble(&none, part(status).as_bytes());
        assert!(late("202 Accepted").is_none() && late("404 Not Found").is_none());
        let denied = late("403 Forbidden").unwrap().to_string();
        assert_eq!(denied, "the server answered 403 ACode");
        assert!(late("503 Busy").unwrap().may_pass());
        assert!(
            !is_error(part("404 Not Found").as_bytes()),
            "it is of the part"
        );
        assert!(is_error("\u{feff}<?xml?><Error>".as_bytes()));
        let mut pending = HeaderMap::new();
        pending.insert("x-ms-copy-status", HeaderValue::from_static("pending"));
        assert!(late_trouble(&pending, b"").unwrap().may_pass());
    }

    #[test]
    fn answers_that_are_none() {
        let xml = b"<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>No\tsuch\nNumber</Message></Error>";
        let trouble = refused(StatusCode::NOT_FOUND, false, xml);
        assert_eq!(
            trouble.to_string(),
            "the server answered 404 NoSuchBucket (Nosuch)"
        );
        assert!(is_error(xml) && !is_error(b"<CopyObjectResult/>"));
        for page in ["<!DOCTYPE html><p>Log in", " <HTML>"] {
            let trouble = refused(StatusCode::OK, false, page.as_bytes());
            assert!(matches!(trouble, Trouble::Page { status: 200 }), "{page}");
        }
        let late = refused(StatusCode::OK, false, b"<Error><Code>X</Code></Error>");
        assert!(late.may_pass(), "{late}");
        let none = refused(StatusCode::FORBIDDEN, false, b"");
        assert_eq!(none.to_string(), "the server answered 403");
    }
}
