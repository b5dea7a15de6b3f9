//! From a request's head to what S3 calls it: pure.

use std::time::Instant;

use hyper::Request;

use super::log::BucketRequest;
use crate::server::{parse_range, percent_decode};

/// What the log keeps of a request.
pub(super) fn note<B>(request: &Request<B>) -> BucketRequest {
    let path = request.uri().path().trim_start_matches('/');
    let query = request.uri().query().unwrap_or_default();
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let method = request.method().as_str();
    let copies = request.headers().contains_key("x-amz-copy-source");
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
        signed: request.headers().contains_key("authorization"),
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

fn operation(method: &str, has_key: bool, query: &str, copies: bool) -> &'static str {
    let has = |name| parameter(query, name).is_some();
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

    use super::note;

    #[test]
    fn requests_are_called_what_s3_calls_them() {
        let line = |method: &str, target: &str| {
            let request = Request::builder().method(method).uri(target).body(());
            note(&request.unwrap()).line()
        };
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
