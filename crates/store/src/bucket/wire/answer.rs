//! What an answer says, and what a request asks for: pure.

use object_store::client::HttpRequest;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, StatusCode};

use crate::bucket::trouble::Trouble;

/// Where a request goes: no path, no query, and so no secret.
pub(super) fn origin(request: &HttpRequest) -> String {
    let uri = request.uri();
    let scheme = uri.scheme_str().unwrap_or("http");
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let (_, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    format!("{scheme}://{host}")
}

/// A request to `origin` that was not answered.
pub(super) fn unanswered(error: reqwest::Error, origin: &str) -> Trouble {
    match error.is_connect() {
        true => Trouble::Broken(format!("cannot connect to {origin}: {}", innermost(error))),
        false => broken(error),
    }
}

/// A connection that failed.
pub(super) fn broken(error: reqwest::Error) -> Trouble {
    Trouble::Broken(format!("the connection broke: {}", innermost(error)))
}

/// The cause that says most, without the address that was asked.
pub(super) fn innermost(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &(dyn std::error::Error + 'static) = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

pub(super) fn is_page(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| {
        kind.trim_start()
            .to_ascii_lowercase()
            .starts_with("text/html")
    })
}

pub(super) fn is_error(text: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&text[..text.len().min(1024)]);
    start.contains("<Error>")
}

/// What an answer that is none says.
pub(super) fn refused(status: StatusCode, is_page: bool, text: &[u8]) -> Trouble {
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
        code: element(&text, "Code"),
        message: element(&text, "Message"),
    }
}

/// The text of the first element of that name.
pub(super) fn element(text: &str, name: &str) -> Option<String> {
    let (_, after) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = after.split_once('<')?;
    let inner: String = inner
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect();
    (!inner.is_empty()).then_some(inner)
}

/// Whether a page of a listing is asked for, in the words of S3, GCS and Azure.
pub(super) fn is_listing(request: &HttpRequest) -> bool {
    let mut pairs = request.uri().query().unwrap_or_default().split('&');
    *request.method() == Method::GET
        && pairs.any(|pair| pair.starts_with("list-type=") || pair == "comp=list")
}

#[cfg(test)]
mod tests {
    use object_store::client::HttpRequestBody;

    use super::*;

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

    #[test]
    fn answers_that_are_none() {
        let xml = b"<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>No\nsuch</Message></Error>";
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
