//! From a repository's URL to the URLs of what is in it, and to the text that messages show.
//!
//! The layout is the one on disk (FORMAT.md section 4.1). Every name is percent-encoded as one
//! path segment, so a base path with spaces and a namespace's `#` are safe. A query of the base
//! (a signature, say) goes with every request, and like user and password it is never shown.

use farseek_object::{Digest, TagName, TagNamespace};
use url::Url;

use crate::error::{Result, StoreError};

/// Where a repository is.
#[derive(Clone)]
pub(super) struct Address {
    base: Url,
}

impl Address {
    /// # Errors
    /// `Invalid` where it is not an `http` or `https` URL of a host.
    pub(super) fn new(mut base: Url) -> Result<Self> {
        let invalid = |reason: &str| StoreError::Invalid {
            what: "repository URL",
            text: redacted(&base),
            reason: reason.to_owned(),
        };
        if !matches!(base.scheme(), "http" | "https") {
            return Err(invalid("only http and https are web addresses"));
        }
        if base.host_str().is_none_or(str::is_empty) {
            return Err(invalid("it names no host"));
        }
        base.set_fragment(None);
        Ok(Self { base })
    }

    /// Whether the host is this machine, which no proxy can reach for us.
    pub(super) fn is_loopback(&self) -> bool {
        is_loopback(&self.base)
    }

    /// The address for messages.
    pub(super) fn location(&self) -> String {
        redacted(&self.base).trim_end_matches('/').to_owned()
    }

    pub(super) fn version(&self) -> Url {
        self.below(["VERSION"])
    }

    pub(super) fn object(&self, digest: &Digest) -> Url {
        self.sharded("objects", digest)
    }

    pub(super) fn payload(&self, digest: &Digest) -> Url {
        self.sharded("payloads", digest)
    }

    pub(super) fn tag(&self, namespace: Option<&TagNamespace>, name: &TagName) -> Url {
        let namespace = namespace.map(|namespace| format!("{namespace}#ns"));
        let folders = name.org().split('/').filter(|part| !part.is_empty());
        let file = format!("{}.tag", name.name());
        self.below(
            ["tags"]
                .into_iter()
                .chain(namespace.as_deref())
                .chain(folders)
                .chain([file.as_str()]),
        )
    }

    /// A listing of a Farseek server: `kind` is `tags`, `objects` or `payloads`.
    pub(super) fn listing(&self, kind: &str, what: &str) -> Url {
        self.below(["-", kind].into_iter().chain(what.split('/')))
    }

    fn sharded(&self, store: &str, digest: &Digest) -> Url {
        let text = digest.to_string();
        let (shard, rest) = text.split_at(2);
        self.below([store, shard, rest])
    }

    fn below<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("http and https URLs have paths")
            .pop_if_empty()
            .extend(segments);
        url
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.location())
    }
}

/// Whether the host of `url` is this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => {
            name.eq_ignore_ascii_case("localhost") || name.ends_with(".localhost")
        }
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The URL as messages may show it: no user, no password, no query, no fragment.
pub(crate) fn redacted(url: &Url) -> String {
    let mut url = url.clone();
    // They fail only for URLs that cannot hold any.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Address {
        Address::new(url.parse().unwrap()).unwrap()
    }

    #[test]
    fn urls_of_objects_payloads_and_tags() {
        let name: TagName = "a/b/c.1".parse().unwrap();
        let namespace: TagNamespace = "studio".parse().unwrap();
        for base in ["http://h:1/my repo", "http://h:1/my%20repo/"] {
            let address = address(base);
            assert_eq!(
                address.object(&Digest::EMPTY).as_str(),
                "http://h:1/my%20repo/objects/4O/\
                 YMIQUY7QOBJGX36TEJS35ZEQT24QPEMSNZGTFESWMRW6CSXBKQ===="
            );
            assert_eq!(
                address.payload(&Digest::NULL).path(),
                format!("/my%20repo/payloads/AA/{}====", "A".repeat(50))
            );
            assert_eq!(
                address.tag(None, &name).path(),
                "/my%20repo/tags/a/b/c.1.tag"
            );
            assert_eq!(
                address.tag(Some(&namespace), &"x".parse().unwrap()).path(),
                "/my%20repo/tags/studio%23ns/x.tag"
            );
            assert_eq!(address.listing("tags", "").path(), "/my%20repo/-/tags/");
            assert_eq!(
                address.listing("tags", "a/b").path(),
                "/my%20repo/-/tags/a/b"
            );
            assert_eq!(address.version().path(), "/my%20repo/VERSION");
        }
    }

    #[test]
    fn secrets_go_with_requests_and_not_into_messages() {
        let address = address("https://user:secret@host/r/?sig=secret#secret");
        assert_eq!(address.location(), "https://host/r");
        assert_eq!(format!("{address:?}"), "https://host/r");
        let url = address.version();
        assert_eq!(
            url.as_str(),
            "https://user:secret@host/r/VERSION?sig=secret"
        );
        assert_eq!(redacted(&url), "https://host/r/VERSION");
    }

    #[test]
    fn loopback_and_other_schemes() {
        for url in ["http://localhost/", "http://127.9.9.9:1/", "http://[::1]/"] {
            assert!(address(url).is_loopback(), "{url}");
        }
        assert!(!address("http://example.test/").is_loopback());
        for url in ["ftp://u:secret@host/", "file:///tmp/x"] {
            let error = Address::new(url.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains("only http and https"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
