//! From a request to an answer.
//!
//! What is served is first looked up as a [`Resource`] (how large, which bytes, how long it may
//! be kept), then [`plan`] decides purely on status and part, and only then is the body opened.
//! An error's details go to the log; the client is told no paths.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use farseek_object::{Digest, DigestPrefix};
use futures::stream::{self, StreamExt};
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderName, IF_NONE_MATCH, IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::mpsc;

use super::body::{self, AnswerBody};
use super::range::{self, Part};
use super::route::{Route, route};
use super::stats::Counters;
use crate::error::{Result, StoreError};
use crate::http::listing;
use crate::repository::Repository;

/// What is content-addressed never changes.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// Tags move: whoever keeps one must ask whether it is still that.
const REVALIDATE: &str = "no-cache";

/// The version of SPFS's format that the layout of our URLs is.
const VERSION: &str = "0.44.0";

pub(super) const BINARY: &str = "application/octet-stream";
const TEXT: &str = "text/plain; charset=utf-8";

/// Pieces of a listing that may wait for a slow client.
const LISTING_PIECES: usize = 4;

/// Something that can be served, in whole or in part.
pub(super) struct Resource {
    kind: &'static str,
    cache: &'static str,
    /// As the header holds it, with quotes.
    etag: Option<String>,
    /// Where it is known.
    size: Option<u64>,
    source: Source,
}

impl Resource {
    /// Its bytes, where that is known.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }
}

enum Source {
    Memory(Bytes),
    Payload(Digest),
    /// It is there; enough for `HEAD`.
    Unread,
    Listing(mpsc::Receiver<Result<Bytes>>, Result<Bytes>),
}

/// Status, part and headers of an answer.
struct Plan {
    status: StatusCode,
    /// The bytes to send; `None` for all of an unknown number.
    part: Option<Range<u64>>,
}

/// What answers the requests of all connections.
pub(super) struct Responder {
    pub(super) repository: Arc<dyn Repository>,
    pub(super) counters: Arc<Counters>,
}

impl Responder {
    pub(super) async fn respond<B>(&self, request: Request<B>) -> Response<AnswerBody> {
        self.counters.request();
        let (method, path) = (request.method(), request.uri().path());
        let response = match self.answer(method, path, request.headers()).await {
            Ok(response) => response,
            Err(error) => self.failed(path, &error),
        };
        tracing::debug!(%method, path, status = response.status().as_u16(), "request");
        response
    }

    async fn answer(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Response<AnswerBody>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = self.text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD are served here\n",
            );
            response
                .headers_mut()
                .insert(ALLOW, "GET, HEAD".parse().expect("it is ASCII"));
            return Ok(response);
        }
        let head = method == Method::HEAD;
        let Some(route) = route(path) else {
            return Ok(self.text(StatusCode::NOT_FOUND, "there is nothing here\n"));
        };
        match self.resource(route, head).await? {
            Some(resource) => self.send(resource, head, headers).await,
            None => Ok(self.text(StatusCode::NOT_FOUND, "the repository has no such thing\n")),
        }
    }

    /// What `route` names, `None` where the repository has no such thing.
    async fn resource(&self, route: Route, head: bool) -> Result<Option<Resource>> {
        let found = match route {
            Route::Root => Ok(memory(TEXT, "a Farseek repository, read-only\n")),
            Route::Version => Ok(memory(TEXT, VERSION)),
            Route::Stats => Ok(memory(
                "application/json",
                self.counters.snapshot().to_json(),
            )),
            Route::Object(digest) => self.object(digest, head).await,
            Route::Payload(digest) => self.payload(digest).await,
            Route::Tag(name) => {
                let bytes = self
                    .repository
                    .read_tag(&name)
                    .await
                    .map(|tag| tag.encode());
                bytes.map(|bytes| {
                    let etag = Some(format!("\"{}\"", Digest::of(&bytes)));
                    Resource {
                        etag,
                        ..memory(BINARY, bytes)
                    }
                })
            }
            Route::Tags(folder) => self.repository.list_tags(&folder).await.map(|entries| {
                let lines = entries.iter().map(|entry| listing::tag_line(entry) + "\n");
                memory(listing::CONTENT_TYPE, lines.collect::<String>())
            }),
            Route::Objects(prefix) => self.objects(prefix).await,
            Route::Payloads => self.payloads().await,
        };
        match found {
            Ok(resource) => Ok(Some(resource)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn object(&self, digest: Digest, head: bool) -> Result<Resource> {
        let location = || self.repository.location().to_owned();
        let missing = || StoreError::NotFound {
            what: "object",
            digest,
            location: location(),
        };
        // The encoding is ours and may differ from the stored one, byte for byte: hence weak.
        let etag = Some(format!("W/\"{digest}\""));
        if head {
            let there = self.repository.has_object(&digest).await?;
            let found = Resource {
                kind: BINARY,
                cache: IMMUTABLE,
                etag,
                size: None,
                source: Source::Unread,
            };
            return there.then_some(found).ok_or_else(missing);
        }
        let object = self.repository.get_object(&digest).await?;
        let encoded = tokio::task::spawn_blocking(move || object.encode()).await;
        let bytes = encoded
            .map_err(|error| StoreError::Unavailable {
                location: location(),
                reason: "the server is ending".to_owned(),
                source: Some(error.into()),
            })?
            .map_err(|source| StoreError::Undecodable {
                location: location(),
                source,
            })?;
        Ok(Resource {
            cache: IMMUTABLE,
            etag,
            ..memory(BINARY, bytes)
        })
    }

    pub(super) async fn payload(&self, digest: Digest) -> Result<Resource> {
        let size = match self.repository.payload_size(&digest).await {
            Ok(Some(size)) => Some(size),
            Ok(None) => {
                let location = self.repository.location().to_owned();
                return Err(StoreError::NotFound {
                    what: "payload",
                    digest,
                    location,
                });
            }
            Err(StoreError::Unsupported { .. }) => None,
            Err(error) => return Err(error),
        };
        let etag = Some(format!("\"{digest}\""));
        let source = Source::Payload(digest);
        Ok(Resource {
            kind: BINARY,
            cache: IMMUTABLE,
            etag,
            size,
            source,
        })
    }

    async fn objects(&self, prefix: Option<DigestPrefix>) -> Result<Resource> {
        let repository = Arc::clone(&self.repository);
        let (lines, taken) = mpsc::channel(LISTING_PIECES);
        tokio::spawn(async move {
            body::send_lines(repository.list_objects(prefix.as_ref()), lines).await;
        });
        lines_of(taken).await
    }

    async fn payloads(&self) -> Result<Resource> {
        let repository = Arc::clone(&self.repository);
        let (lines, taken) = mpsc::channel(LISTING_PIECES);
        tokio::spawn(async move { body::send_lines(repository.list_payloads(), lines).await });
        lines_of(taken).await
    }

    pub(super) async fn send(
        &self,
        resource: Resource,
        head: bool,
        headers: &HeaderMap,
    ) -> Result<Response<AnswerBody>> {
        let plan = plan(&resource, head, headers);
        let response = describe(&resource, &plan);
        let empty = head || !plan.status.is_success();
        let body = if empty {
            body::none()
        } else {
            self.open(resource.source, plan.part).await?
        };
        Ok(response.body(body).expect("every header is made of ASCII"))
    }

    async fn open(&self, source: Source, part: Option<Range<u64>>) -> Result<AnswerBody> {
        let body = match (source, part) {
            (Source::Unread, _) => return Ok(body::none()),
            (Source::Memory(bytes), part) => {
                let part = part.unwrap_or(0..bytes.len() as u64);
                let within = |at| usize::try_from(at).expect("it is within bytes in memory");
                return Ok(body::full(
                    bytes.slice(within(part.start)..within(part.end)),
                    &self.counters,
                ));
            }
            (Source::Payload(_), Some(part)) if part.is_empty() => return Ok(body::none()),
            (Source::Payload(digest), Some(part)) => {
                let payload = self.repository.get_payload(&digest, part.clone()).await?;
                body::trimmed(payload, part)?
            }
            (Source::Payload(digest), None) => {
                self.repository
                    .get_payload(&digest, 0..u64::MAX)
                    .await?
                    .body
            }
            (Source::Listing(taken, first), _) => {
                let rest = stream::unfold(taken, |mut taken| async move {
                    taken.recv().await.map(|piece| (piece, taken))
                });
                stream::iter([first]).chain(rest).boxed()
            }
        };
        Ok(body::streamed(body, Arc::clone(&self.counters)))
    }

    pub(super) fn text(&self, status: StatusCode, text: &'static str) -> Response<AnswerBody> {
        Response::builder()
            .status(status)
            .header(CONTENT_TYPE, TEXT)
            .header(CONTENT_LENGTH, text.len())
            .body(body::full(text, &self.counters))
            .expect("every header is made of ASCII")
    }

    pub(super) fn failed(&self, path: &str, error: &StoreError) -> Response<AnswerBody> {
        let (status, text) = match error {
            StoreError::Denied { .. } => {
                (StatusCode::FORBIDDEN, "the repository refuses to give it\n")
            }
            StoreError::Unsupported { .. } => (
                StatusCode::NOT_IMPLEMENTED,
                "the repository cannot do that\n",
            ),
            StoreError::Unavailable { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the repository cannot be reached\n",
            ),
            _ => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the repository cannot give it\n",
            ),
        };
        self.counters.failure();
        tracing::warn!(path, %error, "a request failed");
        self.text(status, text)
    }
}

fn memory(kind: &'static str, bytes: impl Into<Bytes>) -> Resource {
    let bytes = bytes.into();
    let size = Some(bytes.len() as u64);
    Resource {
        kind,
        cache: REVALIDATE,
        etag: None,
        size,
        source: Source::Memory(bytes),
    }
}

/// A listing under way: its first piece is awaited, so that one which cannot even begin is told
/// as an error and not as half an answer.
async fn lines_of(mut taken: mpsc::Receiver<Result<Bytes>>) -> Result<Resource> {
    let first = taken.recv().await.unwrap_or_else(|| Ok(Bytes::new()))?;
    Ok(Resource {
        kind: listing::CONTENT_TYPE,
        cache: REVALIDATE,
        etag: None,
        size: None,
        source: Source::Listing(taken, Ok(first)),
    })
}

/// Which part is sent with which status.
fn plan(resource: &Resource, head: bool, headers: &HeaderMap) -> Plan {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let etag = resource.etag.as_deref();
    let whole = Plan {
        status: StatusCode::OK,
        part: resource.size.map(|size| 0..size),
    };
    if let (Some(etag), Some(known)) = (etag, text(IF_NONE_MATCH))
        && is_known(etag, known)
    {
        return Plan {
            status: StatusCode::NOT_MODIFIED,
            part: None,
        };
    }
    // Only a strong tag may join two answers, and a date is none (RFC 9110, section 13.1.5).
    let unchanged = text(IF_RANGE)
        .is_none_or(|condition| Some(condition) == etag && !condition.starts_with("W/"));
    match (resource.size, unchanged && !head) {
        (Some(size), true) => match range::part(text(RANGE), size) {
            Part::Whole => whole,
            Part::Range(part) => Plan {
                status: StatusCode::PARTIAL_CONTENT,
                part: Some(part),
            },
            Part::None => Plan {
                status: StatusCode::RANGE_NOT_SATISFIABLE,
                part: None,
            },
        },
        _ => whole,
    }
}

/// Whether a list of tags holds `etag`, weak or not.
fn is_known(etag: &str, list: &str) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    list.split(',')
        .any(|tag| tag.trim() == "*" || bare(tag) == bare(etag))
}

/// Status and headers of an answer.
fn describe(resource: &Resource, plan: &Plan) -> hyper::http::response::Builder {
    let mut response = Response::builder()
        .status(plan.status)
        .header(CACHE_CONTROL, resource.cache)
        .header(X_CONTENT_TYPE_OPTIONS, "nosniff");
    if let Some(etag) = &resource.etag {
        response = response.header(ETAG, etag);
    }
    if resource.size.is_some() {
        response = response.header(ACCEPT_RANGES, "bytes");
    }
    let size = resource.size.unwrap_or_default();
    match (plan.status, &plan.part) {
        (StatusCode::NOT_MODIFIED, _) => response,
        (StatusCode::RANGE_NOT_SATISFIABLE, _) => response
            .header(CONTENT_RANGE, format!("bytes */{size}"))
            .header(CONTENT_LENGTH, 0),
        (status, Some(part)) => {
            if status == StatusCode::PARTIAL_CONTENT {
                let last = part.end - 1;
                let range = format!("bytes {}-{last}/{size}", part.start);
                response = response.header(CONTENT_RANGE, range);
            }
            response
                .header(CONTENT_TYPE, resource.kind)
                .header(CONTENT_LENGTH, part.end - part.start)
        }
        (_, None) => response.header(CONTENT_TYPE, resource.kind),
    }
}
