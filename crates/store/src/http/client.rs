//! One conversation with one web server: deadlines on progress, retries, redirects, and errors
//! in words.
//!
//! Invariants: no wait is longer than the stall deadline counted from the last progress, pauses
//! between attempts included; no message holds user, password or query of a URL.

use std::error::Error as StdError;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT_ENCODING, CACHE_CONTROL, HeaderMap, RANGE};
use reqwest::{Method, Url, redirect};
use tokio::time::Instant;

use super::address::redacted;
use super::answer::{Head, Meaning};
use super::tls;
use crate::error::{Result, StoreError};
use crate::liveness::Liveness;
use crate::payload::Body;
use crate::retry::{Backoff, STALL_MAX};

/// Ranges of one payload that are asked for at once: what one connection leaves of a long way.
pub(crate) const RANGES_AT_ONCE: u32 = 4;

/// Idle connections are closed before the usual server closes them (15 s and more), so that a
/// request seldom meets a connection that is just being closed.
const IDLE: Duration = Duration::from_secs(12);

/// Notices a peer that is gone while a connection waits.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// The value of `Range`.
    pub(crate) range: Option<String>,
    /// Whether caches on the way must ask the server: for what may change.
    pub(crate) fresh: bool,
    /// What else the request's head says. The values of those that are secret are marked so.
    pub(crate) headers: HeaderMap,
}

impl Ask {
    pub(crate) fn get(url: Url) -> Self {
        Self {
            method: Method::GET,
            url,
            range: None,
            fresh: false,
            headers: HeaderMap::new(),
        }
    }

    pub(crate) fn head(url: Url) -> Self {
        Self {
            method: Method::HEAD,
            ..Self::get(url)
        }
    }
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) head: Head,
    pub(crate) response: reqwest::Response,
    /// The URL asked for, for messages.
    pub(crate) source: String,
}

/// A small answer, read to its end.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) head: Head,
    pub(crate) body: Bytes,
    pub(crate) source: String,
}

/// A failed attempt, and how long the server asks to be left alone.
struct Failure {
    error: StoreError,
    asked: Option<Duration>,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { error, asked: None }
    }
}

/// The deadline on progress, across attempts.
struct Patience {
    stall: Duration,
    since: Instant,
}

impl Patience {
    fn new(stall: Duration) -> Self {
        Self {
            stall,
            since: Instant::now(),
        }
    }

    fn progressed(&mut self) {
        self.since = Instant::now();
    }

    async fn wait<T>(&self, source: &str, what: impl Future<Output = T>) -> Result<T> {
        let ends = self.since + self.stall;
        tokio::time::timeout_at(ends, what)
            .await
            .map_err(|_| stalled(source, self.stall))
    }
}

/// Which failures are tried again here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    /// All that may pass.
    Always,
    /// Only where the server says when: the reader of a payload retries the rest itself.
    WhenTold,
}

/// How a [`Client`] behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientOptions {
    /// How long a server may make no progress.
    pub(crate) stall: Duration,
    /// Attempts at what is tried again, the first one counted.
    pub(crate) attempts: u32,
    /// Redirects followed for one request.
    pub(crate) redirects: usize,
    /// Whether no proxy is asked: none can reach this machine for us.
    pub(crate) direct: bool,
    /// Varies the pauses between attempts.
    pub(crate) seed: u64,
}

#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    backoff: Backoff,
    /// Differs between processes and calls, so that clients do not retry in step.
    seed: AtomicU64,
}

impl Client {
    /// # Errors
    /// `Unavailable` where TLS cannot be set up: not with the provider built in.
    pub(crate) fn new(location: &str, options: &ClientOptions) -> Result<Self> {
        let location = location.to_owned();
        let tls = tls::config().map_err(|error| StoreError::Unavailable {
            location: location.clone(),
            reason: "TLS cannot be set up".to_owned(),
            source: Some(error.into()),
        })?;
        let stall = options.stall.min(STALL_MAX);
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("farseek/", env!("CARGO_PKG_VERSION")))
            .redirect(redirects(options.redirects))
            .referer(false)
            .connect_timeout(stall)
            .pool_idle_timeout(IDLE)
            .tcp_keepalive(KEEPALIVE)
            .tcp_nodelay(true);
        if options.direct {
            builder = builder.no_proxy();
        }
        let http = builder
            .build()
            .map_err(|error| unavailable(&location, error))?;
        let backoff = Backoff {
            attempts: options.attempts,
            deadline: stall,
            ..Backoff::default()
        };
        Ok(Self {
            http,
            backoff,
            seed: AtomicU64::new(options.seed),
        })
    }

    pub(crate) fn stall(&self) -> Duration {
        self.backoff.deadline
    }

    /// Asks, and reads the body (at most `limit` bytes); what may pass is tried again.
    ///
    /// Answers that say "not now" or "you may not" are errors; all others are the caller's.
    pub(crate) async fn whole(&self, ask: &Ask, limit: u64) -> Result<Whole> {
        let mut patience = Patience::new(self.stall());
        let mut failed = 0;
        loop {
            match self.try_whole(ask, limit, &mut patience).await {
                Ok(whole) => return Ok(whole),
                Err(failure) => {
                    failed += 1;
                    self.pause(failure, failed, &patience, Again::Always)
                        .await?;
                }
            }
        }
    }

    /// Asks, and leaves the body to the caller. Tried again only where the server says when.
    pub(crate) async fn open(&self, ask: &Ask) -> Result<Opened> {
        let patience = Patience::new(self.stall());
        let mut failed = 0;
        loop {
            match self.try_open(ask, &patience).await {
                Ok(opened) => return Ok(opened),
                Err(failure) => {
                    failed += 1;
                    self.pause(failure, failed, &patience, Again::WhenTold)
                        .await?;
                }
            }
        }
    }

    /// Waits until the next attempt, or gives the failure back.
    async fn pause(
        &self,
        failure: Failure,
        failed: u32,
        patience: &Patience,
        again: Again,
    ) -> Result<()> {
        let Failure { error, asked } = failure;
        if !error.is_transient() || (again == Again::WhenTold && asked.is_none()) {
            return Err(error);
        }
        let seed = self.seed.fetch_add(1, Ordering::Relaxed);
        let elapsed = patience.since.elapsed();
        let pause = self.backoff.pause(failed, elapsed, asked, seed);
        let Some(pause) = pause else {
            return Err(error);
        };
        tracing::debug!(%error, ?pause, "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    async fn try_whole(
        &self,
        ask: &Ask,
        limit: u64,
        patience: &mut Patience,
    ) -> Result<Whole, Failure> {
        let Opened {
            head,
            mut response,
            source,
        } = self.try_open(ask, patience).await?;
        patience.progressed();
        let announced = head.length.filter(|_| ask.method != Method::HEAD);
        if announced.is_some_and(|length| length > limit) {
            return Err(too_large(&source, limit).into());
        }
        let body = collect(&mut response, &source, limit, patience).await?;
        Ok(Whole { head, body, source })
    }

    /// Sends `body` as it comes, which notes its `liveness`, and reads the answer, at most
    /// `limit` bytes. Never tried again: a body is a stream.
    ///
    /// # Errors
    /// Any answer but 200, too.
    pub(crate) async fn send(
        &self,
        ask: &Ask,
        body: Body,
        liveness: &Liveness,
        limit: u64,
    ) -> Result<Bytes> {
        let source = redacted(&ask.url);
        let request = self.request(ask).body(reqwest::Body::wrap_stream(body));
        let response = liveness.wait(self.stall(), request.send()).await;
        let response = response.ok_or_else(|| stalled(&source, self.stall()))?;
        let mut response = response.map_err(|error| unavailable(&source, error))?;
        let head = Head::new(response.status(), response.headers());
        refusal(&head, &source).map_err(|failure| failure.error)?;
        if head.meaning() != Meaning::Whole {
            return Err(StoreError::Failed {
                location: source,
                reason: format!("the server answered {} to an upload", head.status),
            });
        }
        let mut patience = Patience::new(self.stall());
        collect(&mut response, &source, limit, &mut patience).await
    }

    /// The request without its body.
    fn request(&self, ask: &Ask) -> reqwest::RequestBuilder {
        let mut request = self.http.request(ask.method.clone(), ask.url.clone());
        if !ask.headers.contains_key(ACCEPT_ENCODING) {
            request = request.header(ACCEPT_ENCODING, "identity");
        }
        if let Some(range) = &ask.range {
            request = request.header(RANGE, range);
        }
        if ask.fresh {
            request = request.header(CACHE_CONTROL, "no-cache");
        }
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        request
    }

    async fn try_open(&self, ask: &Ask, patience: &Patience) -> Result<Opened, Failure> {
        let source = redacted(&ask.url);
        let response = patience
            .wait(&source, self.request(ask).send())
            .await?
            .map_err(|error| unavailable(&source, error))?;
        let head = Head::new(response.status(), response.headers());
        refusal(&head, &source)?;
        Ok(Opened {
            head,
            response,
            source,
        })
    }
}

/// The rest of an answer, at most `limit` bytes.
async fn collect(
    response: &mut reqwest::Response,
    source: &str,
    limit: u64,
    patience: &mut Patience,
) -> Result<Bytes> {
    let mut body = BytesMut::new();
    while let Some(piece) = patience
        .wait(source, response.chunk())
        .await?
        .map_err(|error| unavailable(source, error))?
    {
        patience.progressed();
        body.extend_from_slice(&piece);
        if body.len() as u64 > limit {
            return Err(too_large(source, limit));
        }
    }
    Ok(body.freeze())
}

fn too_large(source: &str, limit: u64) -> StoreError {
    StoreError::Corrupt {
        location: source.to_owned(),
        reason: format!("it holds more than {limit} bytes, the limit here"),
    }
}

/// Follows up to `limit` redirects, never from `https` to `http`.
fn redirects(limit: usize) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        match against(attempt.previous(), attempt.url(), limit) {
            Some(reason) => attempt.error(reason),
            None => attempt.follow(),
        }
    })
}

/// What speaks against going on to `next` after `previous`.
fn against(previous: &[Url], next: &Url, limit: usize) -> Option<String> {
    let secure = previous.iter().any(|url| url.scheme() == "https");
    if secure && next.scheme() != "https" {
        return Some("it redirects from https to http, which is refused".to_owned());
    }
    (previous.len() > limit).then(|| format!("it redirects more than {limit} times"))
}

/// The error of an answer that is none.
fn refusal(head: &Head, source: &str) -> Result<(), Failure> {
    let location = source.to_owned();
    let said = format!("the server answered {}", head.status);
    match head.meaning() {
        Meaning::NotNow => Err(Failure {
            error: StoreError::Unavailable {
                location,
                reason: said,
                source: None,
            },
            asked: head.retry_after(),
        }),
        Meaning::Refused => Err(StoreError::Denied {
            location,
            reason: said,
        }
        .into()),
        _ => Ok(()),
    }
}

fn stalled(source: &str, stall: Duration) -> StoreError {
    StoreError::Unavailable {
        location: source.to_owned(),
        reason: format!("no answer for {} s", stall.as_secs_f64()),
        source: None,
    }
}

/// A request or a body that failed, in words; asking again may help but for redirects.
pub(crate) fn unavailable(source: &str, error: reqwest::Error) -> StoreError {
    let error = error.without_url();
    let cause = root(&error).to_string();
    let location = source.to_owned();
    if error.is_redirect() {
        return StoreError::Corrupt {
            location,
            reason: cause,
        };
    }
    let reason = if error.is_connect() {
        format!("cannot connect: {cause}")
    } else if error.is_body() || error.is_decode() {
        format!("the answer broke off: {cause}")
    } else {
        cause
    };
    StoreError::Unavailable {
        location,
        reason,
        source: Some(error.into()),
    }
}

/// The innermost cause: the outer ones only say that a request failed.
fn root<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}

/// Waits for the next piece of a body no longer than `stall`.
pub(crate) async fn next_piece(
    response: &mut reqwest::Response,
    source: &str,
    stall: Duration,
) -> Result<Option<Bytes>> {
    let piece = Patience::new(stall).wait(source, response.chunk()).await?;
    piece.map_err(|error| unavailable(source, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_end_and_never_give_up_encryption() {
        let urls = |texts: &[&str]| -> Vec<Url> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let next = |text: &str| text.parse::<Url>().unwrap();
        let plain = urls(&["http://a/", "http://b/"]);
        assert_eq!(against(&plain, &next("http://c/"), 2), None);
        assert_eq!(against(&plain, &next("https://c/"), 2), None);
        assert!(
            against(&plain, &next("http://c/"), 1)
                .unwrap()
                .contains("more than 1 times")
        );
        let secure = urls(&["https://a/"]);
        assert_eq!(against(&secure, &next("https://b/"), 2), None);
        assert!(
            against(&secure, &next("http://b/"), 2)
                .unwrap()
                .contains("refused")
        );
    }
}
