//! Payloads over HTTP/1.1 (FORMAT.md section 6.6).
//!
//! Stock clients look at the status, the type and the bytes. Everything else that is said here is
//! for others: size, ranges and entity tag of the raw form. The packed form has none of them,
//! for nobody knows how long it will be.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use farseek_object::Digest;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN, VARY,
    WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use tokio::sync::Semaphore;

use super::access::{Access, Refusal, Want};
use super::holder::Holder;
use super::partial::Partials;
use super::{bzip, upload, zip};
use crate::blocking;
use crate::error::Result;
use crate::server::body::{self, AnswerBody};
use crate::server::respond::{Resource, Responder};

/// The form that stock clients ask for first.
pub(super) const PACKED: &str = "application/x-bzip2";

/// The bytes as they are.
pub(super) const RAW: &str = "application/octet-stream";

const ABSENT: &str = "there is no such payload\n";

/// What answers the requests of all connections.
pub(super) struct Transfer {
    pub(super) responder: Responder,
    pub(super) access: Access,
    pub(super) holder: Arc<Holder>,
    /// The name by which clients are told to reach us, where there is one.
    pub(super) name: Option<String>,
    pub(super) max_payload_bytes: u64,
    /// Uploads that broke off, where they are kept.
    pub(super) partials: Option<Arc<Partials>>,
    /// Who packs by zstd.
    pub(super) zips: Arc<Semaphore>,
    /// How long a client may send nothing of what it has begun.
    pub(super) stall: Duration,
}

impl Transfer {
    /// Whether who asks has any right.
    pub(super) fn is_known(&self, request: &Request<Incoming>) -> bool {
        self.access.check(request.headers(), Want::Read).is_ok()
    }

    /// Answers a request; `is_near` says that it came by an address of this machine alone.
    pub(super) async fn respond(
        &self,
        request: Request<Incoming>,
        is_near: bool,
    ) -> Response<AnswerBody> {
        self.responder.counters.request();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = match is_near && !self.is_ours(&request) {
            true => self.refuse_name(),
            false => self
                .answer(request)
                .await
                .unwrap_or_else(|error| self.responder.failed(&path, &error)),
        };
        tracing::debug!(%method, path, status = response.status().as_u16(), "request");
        response
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<AnswerBody>> {
        let (want, head) = match *request.method() {
            Method::GET => (Want::Read, false),
            Method::HEAD => (Want::Read, true),
            Method::POST | Method::PUT => (Want::Write, false),
            _ => return Ok(self.wrong_method()),
        };
        if let Err(refusal) = self.access.check(request.headers(), want) {
            return Ok(self.refuse(refusal));
        }
        if want != Want::Read && request.headers().contains_key(ORIGIN) {
            return Ok(self.refuse_page());
        }
        let _writing = match want {
            Want::Read => None,
            Want::Write | Want::Remove => match self.holder.writing().await {
                Ok(writing) => Some(writing),
                Err(error) => return Ok(upload::failed(self, &error)),
            },
        };
        match want {
            Want::Read => {
                self.download(request.uri().path(), request.headers(), head)
                    .await
            }
            Want::Write | Want::Remove if request.method() == Method::PUT => {
                match self.partials.as_ref().zip(named(request.uri().path())) {
                    Some((partials, digest)) => {
                        upload::go_on(self, partials, digest, request).await
                    }
                    None => Ok(self.wrong_method()),
                }
            }
            Want::Write | Want::Remove => upload::take(self, request).await,
        }
    }

    async fn download(
        &self,
        path: &str,
        headers: &HeaderMap,
        head: bool,
    ) -> Result<Response<AnswerBody>> {
        let nothing = |text| Ok(self.responder.text(StatusCode::NOT_FOUND, text));
        let Some(digest) = named(path) else {
            return nothing("a payload is at /DIGEST, and this is no digest\n");
        };
        let resource = match self.responder.payload(digest).await {
            Ok(resource) => resource,
            Err(error) if error.is_not_found() && head => return self.begun(digest, headers).await,
            Err(error) if error.is_not_found() => return nothing(ABSENT),
            Err(error) => return Err(error),
        };
        let mut response = match is_packed(headers) {
            true => self.pack(&digest, head).await?,
            false => match self.zip(&digest, &resource, head, headers).await? {
                Some(zipped) => zipped,
                None => self.responder.send(resource, head, headers).await?,
            },
        };
        response
            .headers_mut()
            .insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
        Ok(response)
    }

    /// That a payload is not there, with how much of it is, for who may send the rest.
    async fn begun(&self, digest: Digest, headers: &HeaderMap) -> Result<Response<AnswerBody>> {
        let mut response = self.responder.text(StatusCode::NOT_FOUND, ABSENT);
        let may_write = self.access.check(headers, Want::Write).is_ok();
        if let Some(partials) = self.partials.as_ref().filter(|_| may_write) {
            let partials = Arc::clone(partials);
            let begun = blocking::run(move || partials.begun(&digest)).await?;
            if let Some(offset) = begun {
                let offset = HeaderValue::from(offset);
                response.headers_mut().insert(upload::OFFSET, offset);
            }
        }
        Ok(response)
    }

    async fn pack(&self, digest: &Digest, head: bool) -> Result<Response<AnswerBody>> {
        let responder = &self.responder;
        let body = match head {
            true => body::none(),
            false => {
                let payload = responder
                    .repository
                    .get_payload(digest, 0..u64::MAX)
                    .await?;
                let end = payload.range.end;
                let whole = match end {
                    u64::MAX => payload.body,
                    end => body::trimmed(payload, 0..end)?,
                };
                body::streamed(bzip::packed(whole), responder.counters.clone())
            }
        };
        let mut response = Response::new(body);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(PACKED));
        Ok(response)
    }

    /// The whole payload packed by zstd, where that is asked for and worth it.
    async fn zip(
        &self,
        digest: &Digest,
        resource: &Resource,
        head: bool,
        headers: &HeaderMap,
    ) -> Result<Option<Response<AnswerBody>>> {
        let Some(size) = resource.size().filter(|_| !head && zip::is_wanted(headers)) else {
            return Ok(None);
        };
        let repository = &self.responder.repository;
        let Ok(permit) = Arc::clone(&self.zips).try_acquire_owned() else {
            return Ok(None);
        };
        if !zip::shrinks(&**repository, digest, size).await? {
            return Ok(None);
        }
        let payload = repository.get_payload(digest, 0..size).await?;
        let packed = zip::packed(body::trimmed(payload, 0..size)?, permit)?;
        let body = body::streamed(packed, Arc::clone(&self.responder.counters));
        let mut response = Response::new(body);
        let told = response.headers_mut();
        told.insert(CONTENT_TYPE, HeaderValue::from_static(RAW));
        told.insert(CONTENT_ENCODING, HeaderValue::from_static("zstd"));
        told.insert("payload-size", HeaderValue::from(size));
        Ok(Some(response))
    }

    fn wrong_method(&self) -> Response<AnswerBody> {
        let text = "only GET, HEAD and POST are served here\n";
        let mut response = self.responder.text(StatusCode::METHOD_NOT_ALLOWED, text);
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
        response
    }

    /// Any web page can let the browser that shows it send something to any address, also to one
    /// that lets in this machine alone. Browsers say so by an `Origin`, and clients have none.
    fn refuse_page(&self) -> Response<AnswerBody> {
        let text = "payloads are not taken from web pages\n";
        self.responder.text(StatusCode::FORBIDDEN, text)
    }

    /// A page can also give its own name the address of this machine, and is then of the same
    /// origin as what it asks (DNS rebinding). Such a request names a host that we are not.
    fn refuse_name(&self) -> Response<AnswerBody> {
        let text = "this server is on this machine alone: call it by its address or as localhost, \
                    or tell it its name with --payloads-root\n";
        self.responder.text(StatusCode::MISDIRECTED_REQUEST, text)
    }

    /// Whether the host that a request names can be us, on this machine. Stock clients name one in
    /// the request line or none at all.
    fn is_ours(&self, request: &Request<Incoming>) -> bool {
        let named = match request.headers().get(HOST) {
            Some(host) => host.to_str().ok().and_then(|host| host.parse().ok()),
            None => request.uri().authority().cloned(),
        };
        let name = match &named {
            Some(authority) => authority.host(),
            None => return !request.headers().contains_key(HOST),
        };
        is_local_name(name)
            || self
                .name
                .as_deref()
                .is_some_and(|own| own.eq_ignore_ascii_case(name))
    }

    fn refuse(&self, refusal: Refusal) -> Response<AnswerBody> {
        match refusal {
            Refusal::Stranger => {
                let text = "a token is wanted here: none was sent, or not one that is known\n";
                let mut response = self.responder.text(StatusCode::UNAUTHORIZED, text);
                response
                    .headers_mut()
                    .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                response
            }
            Refusal::ReadOnly | Refusal::Removal => self
                .responder
                .text(StatusCode::FORBIDDEN, "you may read here, and not write\n"),
        }
    }
}

/// The digest that a path ends in, whatever is before its last slash: a root may have a path.
fn named(path: &str) -> Option<Digest> {
    let name = path.rsplit('/').next()?;
    percent_decode_str(name).decode_utf8().ok()?.parse().ok()
}

/// Whether a host is an address, or a name that always means this machine.
fn is_local_name(host: &str) -> bool {
    let name = host.to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.ends_with(".localhost") || address.parse::<IpAddr>().is_ok()
}

/// Whether the packed form is wanted: the first header line that is one of the two names, and
/// nothing else, decides. That is how stock servers read it; who sends a list gets the raw form.
fn is_packed(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(ACCEPT).iter().map(HeaderValue::as_bytes);
    lines.find(|line| [RAW.as_bytes(), PACKED.as_bytes()].contains(line)) == Some(PACKED.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_last_part_of_the_path() {
        let digest = Digest::of(b"x");
        let coded = digest.to_string().replace('=', "%3D");
        for path in [
            format!("/{digest}"),
            format!("//{digest}"),
            format!("/p/q/{digest}"),
            format!("/{coded}"),
        ] {
            assert_eq!(named(&path), Some(digest), "{path}");
        }
        for path in [
            "",
            "/",
            "*",
            "/x",
            &format!("/{digest}/"),
            &format!("/{digest}x"),
            "/%ff",
        ] {
            assert_eq!(named(path), None, "{path}");
        }
    }

    #[test]
    fn names_of_this_machine() {
        for host in [
            "127.0.0.1",
            "10.0.0.7",
            "[::1]",
            "localhost",
            "LocalHost",
            "a.localhost",
        ] {
            assert!(is_local_name(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
        ] {
            assert!(!is_local_name(host), "{host}");
        }
    }

    #[test]
    fn the_first_line_that_is_understood_decides() {
        let packed = |lines: &[&str]| {
            let lines = lines.iter().map(|line| (ACCEPT, line.parse().unwrap()));
            is_packed(&lines.collect())
        };
        assert!(packed(&[PACKED, RAW]));
        assert!(packed(&["text/html", PACKED]));
        assert!(!packed(&[RAW, PACKED]));
        assert!(!packed(&[]));
        assert!(!packed(&["*/*"]));
        assert!(!packed(&["application/x-bzip2, application/octet-stream"]));
        assert!(!packed(&["application/x-bzip2;q=1"]));
    }
}
