//! Requests of an object store by their kind.

use std::sync::atomic::{AtomicU64, Ordering};

use object_store::client::HttpRequest;

use crate::requests::Requests;

/// Counts them.
#[derive(Debug, Default)]
pub(super) struct Counters {
    get: AtomicU64,
    head: AtomicU64,
    put: AtomicU64,
    list: AtomicU64,
    delete: AtomicU64,
    multipart: AtomicU64,
    repeated: AtomicU64,
}

impl Counters {
    pub(super) fn count(&self, request: &HttpRequest, is_repeated: bool) {
        let counter = match kind(request.method().as_str(), request.uri().query()) {
            Kind::Get => &self.get,
            Kind::Head => &self.head,
            Kind::Put => &self.put,
            Kind::List => &self.list,
            Kind::Delete => &self.delete,
            Kind::Multipart => &self.multipart,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.repeated
            .fetch_add(u64::from(is_repeated), Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Requests {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Requests {
            get: read(&self.get),
            head: read(&self.head),
            put: read(&self.put),
            list: read(&self.list),
            delete: read(&self.delete),
            multipart: read(&self.multipart),
            repeated: read(&self.repeated),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Get,
    Head,
    Put,
    List,
    Delete,
    Multipart,
}

/// What a request is, in the words of S3, GCS and Azure.
fn kind(method: &str, query: Option<&str>) -> Kind {
    let query = query.unwrap_or_default();
    let has = |wanted: &[(&str, &str)]| {
        let mut pairs = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.any(|(name, value)| {
            let mut wanted = wanted.iter();
            wanted.any(|(n, v)| *n == name && (v.is_empty() || *v == value))
        })
    };
    match method {
        "GET" if has(&[("list-type", ""), ("comp", "list")]) => Kind::List,
        "GET" => Kind::Get,
        "HEAD" => Kind::Head,
        "POST" if has(&[("delete", ""), ("comp", "batch")]) => Kind::Delete,
        "PUT" if !has(&[("uploadId", ""), ("comp", "block"), ("comp", "blocklist")]) => Kind::Put,
        "DELETE" if !has(&[("uploadId", "")]) => Kind::Delete,
        _ => Kind::Multipart,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let table = [
            ("GET", "", Kind::Get),
            ("GET", "list-type=2&prefix=a", Kind::List),
            ("GET", "restype=container&comp=list", Kind::List),
            ("HEAD", "", Kind::Head),
            ("PUT", "", Kind::Put),
            ("PUT", "partNumber=1&uploadId=x", Kind::Multipart),
            ("PUT", "comp=blocklist", Kind::Multipart),
            ("POST", "uploads=", Kind::Multipart),
            ("POST", "uploadId=x", Kind::Multipart),
            ("POST", "delete", Kind::Delete),
            ("POST", "restype=container&comp=batch", Kind::Delete),
            ("DELETE", "", Kind::Delete),
            ("DELETE", "uploadId=x", Kind::Multipart),
        ];
        for (method, query, expected) in table {
            assert_eq!(kind(method, Some(query)), expected, "{method} {query}");
        }
    }
}
