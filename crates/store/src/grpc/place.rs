//! Where a server's payloads are: what its announcements say, and what can be learned from them.
//!
//! A server is asked for the URL of each payload. In practice they are all `<root>/<digest>`, so
//! the root is kept and the next payload needs no question. Nothing depends on it being right:
//! where a learned place fails, the server is asked after all.

use std::sync::{Arc, Mutex};

use farseek_object::Digest;
use url::Url;

use super::address::Address;
use crate::error::StoreError;
use crate::http::address::{is_loopback, redacted};

use super::convert::shown;

/// The URL that a server announced, or `None` where it is no web address.
pub(super) fn parse(text: &str) -> Option<Url> {
    let url: Url = text.parse().ok()?;
    let is_web = matches!(url.scheme(), "http" | "https") && url.host().is_some();
    is_web.then_some(url)
}

/// The error of an announcement that is none.
pub(super) fn strange(text: &str, location: &str) -> StoreError {
    StoreError::Corrupt {
        location: location.to_owned(),
        reason: format!(
            "it says that its payloads are at '{}', which is no web address",
            shown(text)
        ),
    }
}

/// The payload of `digest` below a learned root.
fn below(root: &str, digest: &Digest) -> Option<Url> {
    parse(&format!("{root}{digest}"))
}

/// The root of `announced`, where it is of the usual form.
fn root<'a>(announced: &'a str, digest: &Digest) -> Option<&'a str> {
    let root = announced.strip_suffix(digest.to_string().as_str())?;
    root.ends_with('/').then_some(root)
}

/// The root that was learned last.
#[derive(Debug, Default)]
pub(super) struct Learned {
    /// Guards a word; taken for moments.
    root: Mutex<Option<Arc<str>>>,
}

impl Learned {
    /// Where the payload of `digest` is, by what is known.
    pub(super) fn place(&self, digest: &Digest) -> Option<Url> {
        let root = self.root.lock().expect("no holder panics").clone()?;
        below(&root, digest)
    }

    /// Learns from where the payload of `digest` was said to be.
    pub(super) fn learn(&self, announced: &str, digest: &Digest) {
        let root = root(announced, digest).map(Arc::from);
        *self.root.lock().expect("no holder panics") = root;
    }
}

/// What a person should know about a place that cannot be reached: SPFS's default is a root on
/// `localhost`, which is another machine for every client.
pub(super) fn advice(place: &Url, server: &Address) -> &'static str {
    match is_loopback(place) && !server.is_loopback() {
        true => {
            " (the server says that its payloads are on this very machine: \
             it has to be started with a --payloads-root that its clients can reach)"
        }
        false => "",
    }
}

/// Whether what is secret may be sent to `place`: not unencrypted, where the server's own line is
/// encrypted.
pub(super) fn may_have_secrets(place: &Url, server: &Address) -> bool {
    !server.is_secure() || place.scheme() == "https"
}

/// The place for messages.
pub(super) fn text(place: &Url) -> String {
    redacted(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_learned_from_urls_of_the_usual_form() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let learned = Learned::default();
        assert_eq!(learned.place(&one), None);
        for root in ["http://h:1/", "http://h:1/p//", "https://h/a%20b/"] {
            learned.learn(&format!("{root}{one}"), &one);
            let place = learned.place(&two).unwrap();
            assert_eq!(
                place.as_str(),
                format!("{root}{two}"),
                "and = is not encoded"
            );
        }
        for unusual in [
            format!("http://h:1/{one}?signature=1"),
            format!("http://h:1/{two}"),
            "http://h:1/some/file".to_owned(),
        ] {
            learned.learn(&unusual, &one);
            assert_eq!(learned.place(&two), None, "{unusual}");
        }
    }

    #[test]
    fn only_web_addresses_are_places() {
        for text in [
            "",
            "/path",
            "file:///etc/passwd",
            "ftp://h/x",
            "http:",
            "h:1/x",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert!(parse("http://h/x").is_some());
    }

    #[test]
    fn secrets_and_advice() {
        let address = |text: &str| Address::new(&text.parse().unwrap()).unwrap();
        let (plain, secure) = (address("grpc://h:1"), address("grpcs://h:1"));
        let (http, https) = (parse("http://h/").unwrap(), parse("https://h/").unwrap());
        assert!(may_have_secrets(&http, &plain));
        assert!(may_have_secrets(&https, &secure));
        assert!(!may_have_secrets(&http, &secure));
        let here = parse("http://localhost/x").unwrap();
        assert!(advice(&here, &plain).contains("--payloads-root"));
        assert_eq!(advice(&here, &address("grpc://127.0.0.1:1")), "");
        assert_eq!(advice(&http, &plain), "");
    }
}
