//! Where clients find payloads: pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use farseek_object::Digest;
use hyper::http::Extensions;
use hyper::http::uri::Authority;
use url::Url;

/// By which name a client has reached us, and at which address. It travels with the call.
#[derive(Debug, Clone)]
pub(super) struct Reached {
    pub(super) name: Option<Authority>,
    pub(super) local: Option<IpAddr>,
}

/// Where payloads are served.
///
/// Only the client knows by which of our names it can reach us: behind a wildcard address, a
/// container or a tunnel, we do not. So without a configured root it is the host that it has
/// called, with the port that payloads are served at; one that names none has our own address, the
/// one that it is connected to.
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
        let reached = extensions.get::<Reached>();
        let name = reached.and_then(|reached| reached.name.as_ref());
        let name = name.map(Authority::host).filter(|host| !host.is_empty());
        let local = reached.and_then(|reached| reached.local);
        let host = name.map_or_else(|| self.own(local), str::to_owned);
        format!("{}://{host}:{}", self.scheme, self.http.port())
    }

    /// Our address, or the one that a call came to where ours is all of them.
    fn own(&self, local: Option<IpAddr>) -> String {
        let own = Some(self.http.ip()).filter(|ip| !ip.is_unspecified());
        match own.or(local).unwrap_or(Ipv4Addr::LOCALHOST.into()) {
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
        extensions.insert(Reached {
            name: reached.map(|reached| reached.parse().unwrap()),
            local: Some([10, 0, 0, 9].into()),
        });
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
            ("0.0.0.0:7787", false, None, None, "http://10.0.0.9:7787/"),
            ("10.0.0.7:7787", false, None, None, "http://10.0.0.7:7787/"),
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
