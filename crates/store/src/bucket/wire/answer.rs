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
    // Some send white space for as long as they are at it.
    let start = text.trim_ascii_start();
    let start = String::from_utf8_lossy(&start[..start.len().min(1024)]);
    let start = start.trim_start_matches(BYTE_ORDER).trim_start();
    start.starts_with('<') && start.contains("<Error>")
}

/// What Azure puts before its XML.
const BYTE_ORDER: char = '\u{feff}';

/// What Azure has not done though its answer is a good one: a copy that goes on, which has to be asked
/// for again until it is there, and a removal in a batch (we ask for one at a time). That there was
/// nothing to remove is the client's to tell.
pub(super) fn late_trouble(headers: &HeaderMap, text: &[u8]) -> Option<Trouble> {
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
pub(super) fn is_listing(request: &HttpRequest) -> bool {
    let mut pairs = request.uri().query().unwrap_or_default().split('&');
    *request.method() == Method::GET
        && pairs.any(|pair| pair.starts_with("list-type=") || pair == "comp=list")
}

#[cfg(test)]
mod tests {
    use object_store::client::HttpRequestBody;
    use reqwest::header::HeaderValue;

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
        let late = [&b" \n".repeat(1000)[..], xml].concat();
        assert!(is_error(&late));
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
