//! Where a gRPC server is (FORMAT.md section 7).
//!
//! `grpc` and `http2` are the two names of the plain protocol, `grpcs` is Farseek's name for the
//! same over TLS. SPFS fills in HTTP's port where none is given, so we do.

use tonic::codegen::http::Uri;
use url::{Host, Url};

use crate::error::{Result, StoreError};
use crate::http::address::{is_loopback, redacted};

/// The host and port of a server, and whether it is spoken to through TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// As `http` or `https`: of its host and port alone.
    url: Url,
    location: String,
}

impl Address {
    /// # Errors
    /// `Invalid` where it is none of the three schemes, or names more than a host and a port.
    pub(super) fn new(url: &Url) -> Result<Self> {
        let invalid = |reason: &str| StoreError::Invalid {
            what: "address of a gRPC server",
            text: redacted(url),
            reason: reason.to_owned(),
        };
        let (scheme, port) = match url.scheme() {
            "grpc" | "http2" => ("http", 80),
            "grpcs" => ("https", 443),
            _ => {
                return Err(invalid(
                    "only grpc, http2 and grpcs are schemes of gRPC servers",
                ));
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("it takes no user and password: use token_file="));
        }
        if !matches!(url.path(), "" | "/") {
            return Err(invalid("a gRPC server has no path"));
        }
        let host = url.host().filter(|host| *host != Host::Domain(""));
        let host = host.ok_or_else(|| invalid("it names no host"))?;
        let port = url.port().unwrap_or(port);
        let plain = format!("{scheme}://{host}:{port}/");
        Ok(Self {
            url: plain
                .parse()
                .map_err(|_| invalid("its host is not valid"))?,
            location: format!("{}://{host}:{port}", url.scheme()),
        })
    }

    /// The address for messages.
    pub(super) fn location(&self) -> &str {
        &self.location
    }

    pub(super) fn uri(&self) -> Uri {
        self.url.as_str().parse().expect("a URL of a host is a URI")
    }

    /// Whether nobody on the way can read what is sent.
    pub(super) fn is_secure(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Whether the server is on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        is_loopback(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Result<Address> {
        Address::new(&text.parse().unwrap())
    }

    #[test]
    fn three_schemes() {
        for (text, uri, location) in [
            ("grpc://h:1", "http://h:1/", "grpc://h:1"),
            ("http2://h:1/", "http://h:1/", "http2://h:1"),
            ("grpcs://h:1", "https://h:1/", "grpcs://h:1"),
            ("grpc://h", "http://h/", "grpc://h:80"),
            ("grpcs://h", "https://h/", "grpcs://h:443"),
            ("grpc://[::1]:5", "http://[::1]:5/", "grpc://[::1]:5"),
            (
                "grpc://127.0.0.1:5",
                "http://127.0.0.1:5/",
                "grpc://127.0.0.1:5",
            ),
        ] {
            let address = address(text).unwrap();
            assert_eq!(address.uri().to_string(), uri, "{text}");
            assert_eq!(address.location(), location, "{text}");
            assert_eq!(address.is_secure(), text.starts_with("grpcs"));
        }
        assert!(address("grpc://127.0.0.1:5").unwrap().is_loopback());
        assert!(!address("grpc://h:5").unwrap().is_loopback());
    }

    #[test]
    fn what_is_no_server() {
        for (text, expected) in [
            ("http://h:1", "only grpc, http2 and grpcs"),
            ("grpc://h:1/path", "no path"),
            ("grpc:///", "no host"),
            ("grpc://a b:1".trim(), "not valid"),
            ("grpc://user:secret@h:1", "token_file="),
        ] {
            let Ok(url) = text.parse::<Url>() else {
                continue;
            };
            let said = Address::new(&url).unwrap_err().to_string();
            assert!(said.contains(expected), "{text}: {said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
