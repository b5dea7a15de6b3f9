//! From the path of a request to what is meant: pure.
//!
//! Paths are parsed into digests and tag names and never joined to anything, so no path can
//! leave the repository.

use farseek_object::{Digest, DigestPrefix, TagName};
use percent_encoding::percent_decode_str;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// `/`: a word to a person with a browser.
    Root,
    /// `/VERSION`.
    Version,
    /// `/objects/AA/REST`.
    Object(Digest),
    /// `/payloads/AA/REST`.
    Payload(Digest),
    /// `/tags/ORG/NAME.tag`.
    Tag(TagName),
    /// `/-/tags/FOLDER`; empty for the top.
    Tags(String),
    /// `/-/objects/PREFIX`; all of them without a prefix.
    Objects(Option<DigestPrefix>),
    /// `/-/payloads/`.
    Payloads,
    /// `/-/stats`.
    Stats,
}

/// What `path` (as it stands in the request) names, if anything.
pub(super) fn route(path: &str) -> Option<Route> {
    let segments: Option<Vec<String>> = path.strip_prefix('/')?.split('/').map(decode).collect();
    let segments: Vec<&str> = segments.as_ref()?.iter().map(String::as_str).collect();
    match segments.as_slice() {
        [""] => Some(Route::Root),
        ["VERSION"] => Some(Route::Version),
        ["objects", shard, rest] => digest(shard, rest).map(Route::Object),
        ["payloads", shard, rest] => digest(shard, rest).map(Route::Payload),
        ["tags", folders @ .., file] => tag(folders, file).map(Route::Tag),
        ["-", "stats"] => Some(Route::Stats),
        ["-", "tags", folder @ ..] => tag_folder(folder).map(Route::Tags),
        ["-", "payloads"] | ["-", "payloads", ""] => Some(Route::Payloads),
        ["-", "objects"] | ["-", "objects", ""] => Some(Route::Objects(None)),
        ["-", "objects", prefix] => prefix
            .parse()
            .ok()
            .map(|prefix| Route::Objects(Some(prefix))),
        _ => None,
    }
}

fn decode(segment: &str) -> Option<String> {
    percent_decode_str(segment)
        .decode_utf8()
        .ok()
        .map(Into::into)
}

fn digest(shard: &str, rest: &str) -> Option<Digest> {
    if shard.len() != 2 {
        return None;
    }
    format!("{shard}{rest}").parse().ok()
}

fn tag(folders: &[&str], file: &str) -> Option<TagName> {
    let name = file.strip_suffix(".tag")?;
    // A slash that was percent-encoded is no separator, in a file's name neither.
    if folders.iter().chain([&file]).any(|part| part.contains('/')) {
        return None;
    }
    let mut parts = folders.to_vec();
    parts.push(name);
    parts.join("/").parse().ok()
}

fn tag_folder(parts: &[&str]) -> Option<String> {
    let parts = match parts {
        [parts @ .., ""] => parts,
        parts => parts,
    };
    if parts.is_empty() {
        return Some(String::new());
    }
    // A folder is named as a tag is.
    let safe = parts
        .iter()
        .all(|part| !part.contains('/') && part.parse::<TagName>().is_ok());
    safe.then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: &str = "YMIQUY7QOBJGX36TEJS35ZEQT24QPEMSNZGTFESWMRW6CSXBKQ";

    #[test]
    fn what_is_there() {
        assert_eq!(route("/"), Some(Route::Root));
        assert_eq!(route("/VERSION"), Some(Route::Version));
        let object = format!("/objects/4O/{REST}====");
        assert_eq!(route(&object), Some(Route::Object(Digest::EMPTY)));
        let payload = format!("/payloads/4O/{REST}%3D%3d==");
        assert_eq!(route(&payload), Some(Route::Payload(Digest::EMPTY)));
        assert_eq!(
            route("/tags/a/b.c.tag"),
            Some(Route::Tag("a/b.c".parse().unwrap()))
        );
        assert_eq!(
            route("/tags/x.tag.tag"),
            Some(Route::Tag("x.tag".parse().unwrap()))
        );
        assert_eq!(route("/-/tags/"), Some(Route::Tags(String::new())));
        assert_eq!(route("/-/tags"), Some(Route::Tags(String::new())));
        assert_eq!(route("/-/tags/a/b/"), Some(Route::Tags("a/b".into())));
        assert_eq!(route("/-/objects/"), Some(Route::Objects(None)));
        assert_eq!(
            route("/-/objects/4OYM"),
            Some(Route::Objects(Some("4OYM".parse().unwrap())))
        );
        assert_eq!(route("/-/payloads/"), Some(Route::Payloads));
        assert_eq!(route("/-/stats"), Some(Route::Stats));
    }

    #[test]
    fn what_is_not() {
        let near = [
            format!("/objects/4OYMIQ/{}", &REST[4..]),
            format!("/objects/4O/{REST}"),
            format!("/objects/4o/{}====", REST.to_lowercase()),
            format!("//objects/4O/{REST}===="),
            format!("/objects/4O/{REST}====/"),
            format!("/renders/4O/{REST}===="),
        ];
        let paths = [
            "",
            "*",
            "VERSION",
            "/objects",
            "/objects/",
            "/objects/work/x",
            "/tags",
            "/tags/x",
            "/tags/.tag",
            "/tags//x.tag",
            "/tags/../x.tag",
            "/tags/%2e%2e/x.tag",
            "/tags/a%2Fb.tag",
            "/tags/..%2f..%2fetc%2fpasswd.tag",
            "/tags/x.tag.lock",
            "/tags/x.tag.work",
            "/tags/n%23ns/x.tag",
            "/tags/%ff.tag",
            "/tags/%00.tag",
            "/-/tags/..",
            "/-/tags/a//b",
            "/-/tags/a%2fb",
            "/-/tags/%2e%2e/",
            "/-/objects/4",
            "/-/objects/a/b",
            "/-/",
            "/-",
            "/../VERSION",
            "/%2e%2e/VERSION",
            "/VERSION/..",
        ];
        for path in near.iter().map(String::as_str).chain(paths) {
            assert_eq!(route(path), None, "{path}");
        }
    }
}
