//! Where clients find payloads: pure.

use std::net::{IpAddr, SocketAddr};

use farseek_object::Digest;
use hyper::http::Extensions;
use hyper::http::uri::Authority;
use url::Url;

/// By which name a client has reached us. It travels with the call.
#[derive(Debug, Clone)]
pub(super) struct Reached(pub(super) Authority);

/// Where payloads are served.
///
/// Only the client knows by which of our names it can reach us: behind a wildcard address, a
/// container or a tunnel, we do not. So without a configured root it is the host that it has
/// called, with the port that payloads are served at.
#[derive(Debug)]
pub(super) struct Places {
    http: SocketAddr,
    scheme: &'static str,
    root: Option<String>,
}

impl Places {
    pub(super) fn new(http: SocketAddr, tls: bool, root: Option<Url>) -> Self {
        Self {
            http,
            scheme: if tls { "https" } else { "http" },
            root: root.map(|root| root.as_str().trim_end_matches('/').to_owned()),
        }
    }

    /// Where to send payloads, for the client whose call has `extensions`.
    pub(super) fn upload(&self, extensions: &Extensions) -> String {
        format!("{}/", self.root(extensions))
    }

    /// Where a payload is.
    pub(super) fn download(&self, extensions: &Extensions, digest: &Digest) -> String {
        format!("{}/{digest}", self.root(extensions))
    }

    fn root(&self, extensions: &Extensions) -> String {
        if let Some(root) = &self.root {
            return root.clone();
        }
        let reached = extensions.get::<Reached>().map(|reached| reached.0.host());
        let host = reached
            .filter(|host| !host.is_empty())
            .map_or_else(|| self.own(), str::to_owned);
        format!("{}://{host}:{}", self.scheme, self.http.port())
    }

    /// Our address, as far as it is one.
    fn own(&self) -> String {
        match self.http.ip() {
            ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(http: &str, tls: bool, root: Option<&str>, reached: Option<&str>) -> String {
        let root = root.map(|root| root.parse().unwrap());
        let places = Places::new(http.parse().unwrap(), tls, root);
        let mut extensions = Extensions::new();
        if let Some(reached) = reached {
            extensions.insert(Reached(reached.parse().unwrap()));
        }
        places.upload(&extensions)
    }

    #[test]
    fn payloads_are_where_the_client_has_reached_us() {
        let table = [
            (
                "0.0.0.0:7787",
                false,
                None,
                Some("repo.example:7737"),
                "http://repo.example:7787/",
            ),
            (
                "0.0.0.0:99",
                true,
                None,
                Some("10.0.0.7:7737"),
                "https://10.0.0.7:99/",
            ),
            (
                "[::]:7787",
                false,
                None,
                Some("[::1]:7737"),
                "http://[::1]:7787/",
            ),
            ("[::1]:7787", false, None, None, "http://[::1]:7787/"),
            ("0.0.0.0:7787", false, None, None, "http://127.0.0.1:7787/"),
            (
                "0.0.0.0:7787",
                false,
                Some("http://x:1"),
                Some("y:2"),
                "http://x:1/",
            ),
            (
                "0.0.0.0:7787",
                true,
                Some("http://x/p/"),
                None,
                "http://x/p/",
            ),
        ];
        for (http, tls, given, reached, expected) in table {
            assert_eq!(root(http, tls, given, reached), expected);
        }
    }

    #[test]
    fn a_path_has_one_slash_before_the_digest() {
        let places = Places::new(
            "[::]:1".parse().unwrap(),
            false,
            Some("http://x/p/".parse().unwrap()),
        );
        let digest = Digest::EMPTY;
        let url = places.download(&Extensions::new(), &digest);
        assert_eq!(url, format!("http://x/p/{digest}"));
    }
}
