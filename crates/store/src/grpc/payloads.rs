//! Payloads, which do not travel by gRPC: a server says where they are, and HTTP brings them.
//!
//! Raw bytes are asked for, and a range of them. A server that knows ranges answers with one; a
//! stock server sends the whole from the start, which the answer says honestly; one that only
//! packs has its stream unpacked as it comes. One pool of connections serves all payloads.
//!
//! A stock server drops the connection where it does not have a payload, and knows no `HEAD`.
//! What a dropped connection means is then asked by gRPC.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use farseek_object::Digest;
use futures::future::{BoxFuture, FutureExt};
use reqwest::Method;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::bunzip::unpacked;
use super::calls::Calls;
use super::convert::{Asked, from_digest};
use super::generated as wire;
use super::options::Packing;
use super::place::{self, Learned};
use super::unzstd;
use crate::error::{Result, StoreError};
use crate::http::address::is_loopback;
use crate::http::answer::{Head, Meaning};
use crate::http::body;
use crate::http::client::{Ask, Client, ClientOptions, Opened};
use crate::http::part::{self, empty, range_header};
use crate::payload::Payload;

/// Payloads as they are.
pub(super) const RAW: &str = "application/octet-stream";

/// Payloads packed by bzip2.
const PACKED: &str = "application/x-bzip2";

/// The coding of payloads that our own server packs.
const ZSTD: &str = "zstd";

/// What says how long such a payload is.
const PAYLOAD_SIZE: &str = "payload-size";

/// Redirects followed for one request.
const REDIRECTS: usize = 8;

/// What is known of the payloads of a server.
#[derive(Debug, Default)]
pub(super) struct Payloads {
    learned: Learned,
    /// Whether the server was seen not to know `HEAD`.
    no_head: AtomicBool,
    /// For this machine and for others, each made when it is first needed.
    clients: [OnceLock<Client>; 2],
}

/// A failed question for a payload.
enum Miss {
    /// The server says that it is not there.
    Absent,
    Failed(StoreError),
}

impl From<StoreError> for Miss {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl Miss {
    /// Whether the reason may be that the payload is elsewhere, or nowhere.
    fn may_be_the_place(&self) -> bool {
        match self {
            Self::Absent => true,
            Self::Failed(error) => error.is_transient(),
        }
    }
}

impl Payloads {
    /// Opens a payload at `range`; see [`Repository::get_payload`](crate::Repository).
    pub(super) async fn get(
        &self,
        calls: &Calls,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<Payload> {
        if range.is_empty() {
            // No request says "no bytes".
            return Ok(empty(range.start, None, calls.location().to_owned()));
        }
        let fetch = |place| self.fetch(calls, place, range.clone()).boxed();
        self.at_its_place(calls, digest, fetch).await
    }

    /// Bytes of a payload; see [`Repository::payload_size`](crate::Repository).
    pub(super) async fn size(&self, calls: &Calls, digest: &Digest) -> Result<Option<u64>> {
        if !self.no_head.load(Ordering::Relaxed) {
            let measure = |place| self.measure(calls, place).boxed();
            match self.at_its_place(calls, digest, measure).await {
                Ok(Some(size)) => return Ok(Some(size)),
                Ok(None) => self.no_head.store(true, Ordering::Relaxed),
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        match has(calls, digest).await? {
            false => Ok(None),
            true => Err(StoreError::Unsupported {
                operation: "tell the size of a payload",
                location: calls.location().to_owned(),
            }),
        }
    }

    /// Does `what` where the payload is, by what was learned or by what the server says.
    async fn at_its_place<'a, T>(
        &self,
        calls: &Calls,
        digest: &Digest,
        what: impl Fn(Url) -> BoxFuture<'a, Result<T, Miss>> + Send,
    ) -> Result<T> {
        let patience = Instant::now() + calls.stall();
        let learned = self.learned.place(digest);
        let known = learned.is_some();
        let place = match learned {
            Some(place) => place,
            None => self.ask(calls, digest).await?,
        };
        let mut miss = match what(place.clone()).await {
            Ok(done) => return Ok(done),
            Err(miss) => miss,
        };
        if known && miss.may_be_the_place() {
            // The server may have moved its payloads since, or not all are where the last was.
            if let Ok(asked) = timeout_at(patience, self.ask(calls, digest)).await {
                match asked {
                    Ok(moved) if moved != place => match what(moved).await {
                        Ok(done) => return Ok(done),
                        Err(again) => miss = again,
                    },
                    Err(error) if error.is_not_found() => return Err(error),
                    Ok(_) | Err(_) => {}
                }
            }
        }
        let absent = StoreError::NotFound {
            what: "payload",
            digest: *digest,
            location: calls.location().to_owned(),
        };
        match miss {
            Miss::Absent => Err(absent),
            Miss::Failed(error) if error.is_transient() => {
                match timeout_at(patience, has(calls, digest)).await {
                    Ok(Ok(false)) => Err(absent),
                    _ => Err(error),
                }
            }
            Miss::Failed(error) => Err(error),
        }
    }

    /// Asks the server where a payload is.
    async fn ask(&self, calls: &Calls, digest: &Digest) -> Result<Url> {
        let asked = wire::OpenPayloadRequest {
            digest: Some(from_digest(digest)),
        };
        let options = calls.ask("read payloads", Asked::Payload(digest), |caller| {
            let asked = asked.clone();
            async move { caller.payloads().open_payload(asked).await }
        });
        let locations = options.await?.locations;
        let announced = locations.first().map(String::as_str).unwrap_or_default();
        let place = place::parse(announced);
        let place = place.ok_or_else(|| place::strange(announced, calls.location()))?;
        self.learned.learn(announced, digest);
        Ok(place)
    }

    /// The payload at `place`.
    async fn fetch(&self, calls: &Calls, place: Url, range: Range<u64>) -> Result<Payload, Miss> {
        let mut headers = secrets(calls, &place);
        // Two lines: a stock server does not take a list apart, and sends the first it knows.
        headers.append(ACCEPT, HeaderValue::from_static(RAW));
        headers.append(ACCEPT, HeaderValue::from_static(PACKED));
        let ranged = range_header(&range);
        if ranged.is_none() && takes_packed(calls, &place) {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(ZSTD));
        }
        let ask = Ask {
            range: ranged,
            headers,
            ..Ask::get(place.clone())
        };
        let client = self.client(calls, &place)?;
        let opened = client.open(&ask).await;
        let opened = opened.map_err(|error| advised(error, calls, &place))?;
        if opened.head.meaning() == Meaning::Absent {
            return Err(Miss::Absent);
        }
        Ok(payload(range, ask.range.is_some(), opened, calls)?)
    }

    /// The size that `HEAD` tells; `None` where the server does not know it, or `HEAD`.
    async fn measure(&self, calls: &Calls, place: Url) -> Result<Option<u64>, Miss> {
        let ask = Ask {
            headers: secrets(calls, &place),
            ..Ask::head(place.clone())
        };
        let opened = self.client(calls, &place)?.open(&ask).await;
        let head = opened.map_err(|error| advised(error, calls, &place))?.head;
        match head.meaning() {
            Meaning::Absent => Err(Miss::Absent),
            Meaning::Whole if kind(&head) == RAW => Ok(part::size_of(&head)),
            _ => Ok(None),
        }
    }

    /// The pool for `place`: this machine is asked directly, others by way of the proxy that the
    /// system names.
    pub(super) fn client(&self, calls: &Calls, place: &Url) -> Result<&Client> {
        let direct = is_loopback(place);
        let slot = &self.clients[usize::from(direct)];
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let options = ClientOptions {
            stall: calls.stall(),
            attempts: calls.options().attempts,
            redirects: REDIRECTS,
            direct,
            seed: calls.options().seed,
        };
        let client = Client::new(&place::text(place), &options)?;
        Ok(slot.get_or_init(|| client))
    }
}

/// Whether the server has the payload.
pub(super) async fn has(calls: &Calls, digest: &Digest) -> Result<bool> {
    let asked = wire::HasPayloadRequest {
        digest: Some(from_digest(digest)),
    };
    let answer = calls.call("look for payloads", |caller| {
        let asked = asked.clone();
        async move { caller.payloads().has_payload(asked).await }
    });
    Ok(answer.await?.exists)
}

/// What only the server's own places are told.
pub(super) fn secrets(calls: &Calls, place: &Url) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let token = calls.options().token.as_ref();
    if let Some(token) = token.filter(|_| place::may_have_secrets(place, calls.address())) {
        headers.insert(AUTHORIZATION, token.authorization());
    }
    headers
}

/// An error of a place, with what a person should know about that place.
pub(super) fn advised(error: StoreError, calls: &Calls, place: &Url) -> StoreError {
    match error {
        StoreError::Unavailable {
            location,
            reason,
            source,
        } => StoreError::Unavailable {
            location,
            reason: format!("{reason}{}", place::advice(place, calls.address())),
            source,
        },
        error => error,
    }
}

/// A request that sends a payload to `place`.
pub(super) fn upload(calls: &Calls, place: &Url) -> Ask {
    Ask {
        method: Method::POST,
        headers: secrets(calls, place),
        ..Ask::get(place.clone())
    }
}

/// The media type of an answer; none is the raw one.
fn kind(head: &Head) -> &str {
    let kind = head.content_type.as_deref().unwrap_or(RAW);
    kind.split(';').next().unwrap_or_default().trim()
}

/// Whether what is at `place` may come packed by zstd.
fn takes_packed(calls: &Calls, place: &Url) -> bool {
    match calls.options().packing {
        Packing::Never => false,
        Packing::Away => !is_loopback(place),
        Packing::Always => true,
    }
}

/// A whole payload that is packed by zstd, where it says its size.
fn zipped(opened: Opened, stall: Duration) -> Result<Payload> {
    let size = opened.response.headers().get(PAYLOAD_SIZE);
    let size = size.and_then(|size| size.to_str().ok()?.parse().ok());
    let source = opened.source.clone();
    let Some(size) = size else {
        return Err(StoreError::Corrupt {
            location: source,
            reason: "it sends a payload packed by zstd, and does not say its size".to_owned(),
        });
    };
    let length = opened.head.length;
    let packed = body::counted(opened, length, stall);
    Ok(Payload {
        size: Some(size),
        range: 0..size,
        body: unzstd::unpacked(source.clone(), packed, size),
        source,
    })
}

/// The payload that an answer to `asked` holds.
fn payload(asked: Range<u64>, ranged: bool, opened: Opened, calls: &Calls) -> Result<Payload> {
    let stall = calls.stall();
    let is_data = matches!(opened.head.meaning(), Meaning::Whole | Meaning::Part);
    match kind(&opened.head) {
        PACKED if opened.head.meaning() == Meaning::Whole => {
            let (length, source) = (opened.head.length, opened.source.clone());
            let packed = body::counted(opened, length, stall);
            Ok(Payload {
                size: None,
                range: 0..u64::MAX,
                body: unpacked(source.clone(), packed),
                source,
            })
        }
        RAW if opened.head.meaning() == Meaning::Whole && !ranged && opened.head.is_coded(ZSTD) => {
            zipped(opened, stall)
        }
        kind if is_data && kind != RAW => Err(StoreError::Corrupt {
            location: opened.source.clone(),
            reason: format!("it sends '{kind}' in the place of a payload"),
        }),
        _ => part::payload(asked, ranged, opened, stall),
    }
}
