//! What the log keeps of a request, and what S3 calls it: pure.

use std::time::Instant;

use hyper::Request;

use super::cloud::Cloud;
use crate::log::Noted;
use crate::server::{parse_range, percent_decode};

/// One request that reached the server.
#[derive(Debug, Clone)]
pub struct BucketRequest {
    /// `GET`, `PUT`, ...
    pub method: String,
    /// What S3 calls it: `GetObject`, `UploadPart`, ...
    pub operation: &'static str,
    /// The first part of the path.
    pub bucket: String,
    /// The rest of the path, decoded; of a list, its prefix.
    pub key: String,
    /// The query, as it stood there.
    pub query: String,
    /// The first and the last byte of a single `Range: bytes=a-b`, as they stand there; the last
    /// is `u64::MAX` in `bytes=a-`.
    pub range: Option<(u64, u64)>,
    /// Whether it came with a signature.
    pub signed: bool,
    /// All headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// When it came.
    pub arrived: Instant,
    /// The status answered; `None` while, or where, none was.
    pub status: Option<u16>,
    /// Bytes of the body handed to the connection so far.
    pub body_bytes_sent: u64,
}

impl BucketRequest {
    /// Operation and key, with a space between them.
    pub fn line(&self) -> String {
        format!("{} {}", self.operation, self.key)
    }

    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether it would change the bucket.
    pub fn writes(&self) -> bool {
        !matches!(self.method.as_str(), "GET" | "HEAD")
    }
}

impl Noted for BucketRequest {
    fn with_progress(self, status: Option<u16>, body_bytes_sent: u64) -> Self {
        Self {
            status,
            body_bytes_sent,
            ..self
        }
    }
}

/// What the log keeps of a request.
pub(super) fn note<B>(cloud: Cloud, request: &Request<B>) -> BucketRequest {
    let path = request.uri().path().trim_start_matches('/');
    // The first part is the account.
    let path = match cloud {
        Cloud::S3 | Cloud::Google => path,
        Cloud::Azure => path.split_once('/').map_or("", |(_, path)| path),
    };
    let query = request.uri().query().unwrap_or_default();
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let method = request.method().as_str();
    let copies = [
        "x-amz-copy-source",
        "x-goog-copy-source",
        "x-ms-copy-source",
    ];
    let copies = copies
        .iter()
        .any(|name| request.headers().contains_key(*name));
    let operation = operation(method, !key.is_empty(), query, copies);
    let key = if operation.starts_with("List") {
        parameter(query, "prefix").unwrap_or_default()
    } else {
        key
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let range = request.headers().get("range");
    BucketRequest {
        method: method.to_owned(),
        operation,
        bucket: percent_decode(bucket),
        key: percent_decode(key),
        query: query.to_owned(),
        range: range
            .and_then(|range| range.to_str().ok())
            .and_then(parse_range),
        signed: request.headers().contains_key("authorization")
            || parameter(query, "sig").is_some(),
        headers: request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
            .collect(),
        arrived: Instant::now(),
        status: None,
        body_bytes_sent: 0,
    }
}

/// What S3 calls it, also where Azure has another name for it.
fn operation(method: &str, has_key: bool, query: &str, copies: bool) -> &'static str {
    let has = |name| parameter(query, name).is_some();
    match (method, parameter(query, "comp")) {
        ("GET", Some("list")) => return "ListObjects",
        ("PUT", Some("block")) => return "UploadPart",
        ("PUT", Some("blocklist")) => return "CompleteMultipartUpload",
        ("POST", Some("batch")) => return "DeleteObjects",
        _ => {}
    }
    match (method, has_key) {
        ("GET", true) if has("uploadId") => "ListParts",
        ("GET", true) => "GetObject",
        ("GET", false) if has("uploads") => "ListMultipartUploads",
        ("GET", false) => "ListObjects",
        ("HEAD", true) => "HeadObject",
        ("HEAD", false) => "HeadBucket",
        ("PUT", true) if has("partNumber") => "UploadPart",
        ("PUT", true) if copies => "CopyObject",
        ("PUT", true) => "PutObject",
        ("PUT", false) => "CreateBucket",
        ("POST", true) if has("uploads") => "CreateMultipartUpload",
        ("POST", true) if has("uploadId") => "CompleteMultipartUpload",
        ("POST", false) if has("delete") => "DeleteObjects",
        ("DELETE", true) if has("uploadId") => "AbortMultipartUpload",
        ("DELETE", true) => "DeleteObject",
        ("DELETE", false) => "DeleteBucket",
        _ => "Unknown",
    }
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::{Cloud, note};

    #[test]
    fn requests_are_called_what_s3_calls_them() {
        let line_of = |cloud, method: &str, target: &str| {
            let request = Request::builder().method(method).uri(target).body(());
            note(cloud, &request.unwrap()).line()
        };
        let azure = |method, target| line_of(Cloud::Azure, method, target);
        assert_eq!(
            azure("GET", "/account/b?restype=container&comp=list&prefix=a"),
            "ListObjects a"
        );
        assert_eq!(azure("PUT", "/account/b/k%20k"), "PutObject k k");
        assert_eq!(
            azure("PUT", "/account/b/k?comp=block&blockid=x"),
            "UploadPart k"
        );
        assert_eq!(
            azure("PUT", "/account/b/k?comp=blocklist"),
            "CompleteMultipartUpload k"
        );
        assert_eq!(
            azure("POST", "/account/b?restype=container&comp=batch"),
            "DeleteObjects "
        );
        let line = |method, target| line_of(Cloud::S3, method, target);
        assert_eq!(
            line("GET", "/b?list-type=2&prefix=tags%2Fa"),
            "ListObjects tags/a"
        );
        assert_eq!(line("GET", "/b/?uploads"), "ListMultipartUploads ");
        assert_eq!(line("GET", "/b/objects/a%20b"), "GetObject objects/a b");
        assert_eq!(line("PUT", "/b/k?partNumber=1&uploadId=x"), "UploadPart k");
        assert_eq!(line("POST", "/b/k?uploads="), "CreateMultipartUpload k");
        assert_eq!(line("POST", "/b/k?uploadId=x"), "CompleteMultipartUpload k");
        assert_eq!(line("DELETE", "/b/k?uploadId=x"), "AbortMultipartUpload k");
        assert_eq!(line("POST", "/b/?delete"), "DeleteObjects ");
        assert_eq!(line("HEAD", "/b"), "HeadBucket ");
    }
}
