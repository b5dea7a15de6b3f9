//! Where things are in a bucket: pure.
//!
//! Objects, payloads and the copies of tag streams have the names they have on disk (FORMAT.md
//! section 4.1). What is ours alone is beside them, in folders that SPFS does not look into.

use farseek_object::{Digest, TagName, TagNamespace};
use object_store::path::Path;

use crate::upkeep::Shelf;

/// What a folder of versions ends in: no name of a tag does.
pub(super) const VERSIONS: char = '!';

/// What the folder of a namespace ends in.
pub(super) const NAMESPACE: &str = "#ns";

/// The names of everything in one repository, as seen with one namespace of tags.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// Empty, or ends with a slash.
    prefix: String,
    namespace: Option<TagNamespace>,
}

impl Keys {
    /// Names that begin with `prefix`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn new(prefix: &str, namespace: Option<TagNamespace>) -> Result<Self, String> {
        let prefix = prefix.trim_matches('/');
        if prefix.split('/').any(|part| matches!(part, "." | "..")) {
            return Err("'.' and '..' mean nothing in a bucket".to_owned());
        }
        Path::parse(prefix).map_err(|error| error.to_string())?;
        let prefix = match prefix {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        Ok(Self { prefix, namespace })
    }

    /// The same names with other tags.
    pub(super) fn in_namespace(&self, namespace: Option<TagNamespace>) -> Self {
        Self {
            namespace,
            ..self.clone()
        }
    }

    pub(super) fn namespace(&self) -> Option<&TagNamespace> {
        self.namespace.as_ref()
    }

    fn below(&self, rest: &str) -> Path {
        Path::parse(format!("{}{rest}", self.prefix)).expect("the prefix and our names are checked")
    }

    /// The key of that name, which is ours.
    pub(super) fn at(&self, folder: &str, name: &str) -> Path {
        self.below(&format!("{folder}/{name}"))
    }

    pub(super) fn folder(&self, folder: &str) -> Path {
        self.below(folder)
    }

    pub(super) fn version(&self) -> Path {
        self.below("VERSION")
    }

    pub(super) fn shelf(&self, shelf: Shelf) -> Path {
        self.below(shelf_name(shelf))
    }

    /// The part of a shelf that digests beginning with `shard`, two characters, are in.
    pub(super) fn shard(&self, shelf: Shelf, shard: &str) -> Path {
        self.below(&format!("{}/{shard}", shelf_name(shelf)))
    }

    pub(super) fn of(&self, shelf: Shelf, digest: &Digest) -> Path {
        let text = digest.to_string();
        let (shard, rest) = text.split_at(2);
        self.below(&format!("{}/{shard}/{rest}", shelf_name(shelf)))
    }

    /// The digest whose key this is; `None` where it is something else's.
    pub(super) fn digest(key: &Path) -> Option<Digest> {
        let mut parts = key.as_ref().rsplit('/');
        let (rest, shard) = (parts.next()?, parts.next()?);
        (shard.len() == 2)
            .then(|| format!("{shard}{rest}").parse().ok())
            .flatten()
    }

    /// The folder of the versions of a tag.
    pub(super) fn versions(&self, name: &TagName) -> Path {
        self.in_tags("versions", &format!("{name}{VERSIONS}"))
    }

    /// The folder that holds folders of tags, and of their versions.
    pub(super) fn tags(&self, folder: Option<&TagName>) -> Path {
        self.in_tags("versions", folder.map_or("", TagName::as_str))
    }

    /// The copy of a stream that web servers show.
    pub(super) fn stream(&self, name: &TagName) -> Path {
        self.in_tags("tags", &format!("{name}.tag"))
    }

    fn in_tags(&self, root: &str, rest: &str) -> Path {
        match &self.namespace {
            Some(namespace) => self.below(&format!("{root}/{namespace}{NAMESPACE}/{rest}")),
            None => self.below(&format!("{root}/{rest}")),
        }
    }
}

fn shelf_name(shelf: Shelf) -> &'static str {
    match shelf {
        Shelf::Objects => "objects",
        Shelf::Payloads => "payloads",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_on_disk() {
        let keys = Keys::new("/a/b c/", None).unwrap();
        let key = keys.of(Shelf::Objects, &Digest::EMPTY);
        assert_eq!(
            key.as_ref(),
            "a/b c/objects/4O/YMIQUY7QOBJGX36TEJS35ZEQT24QPEMSNZGTFESWMRW6CSXBKQ===="
        );
        assert_eq!(Keys::digest(&key), Some(Digest::EMPTY));
        assert_eq!(keys.version().as_ref(), "a/b c/VERSION");
        let name: TagName = "x/y/z".parse().unwrap();
        assert_eq!(keys.stream(&name).as_ref(), "a/b c/tags/x/y/z.tag");
        assert_eq!(keys.versions(&name).as_ref(), "a/b c/versions/x/y/z!");
        let keys = Keys::new("", None).unwrap();
        let keys = keys.in_namespace(Some("studio".parse().unwrap()));
        assert_eq!(keys.stream(&name).as_ref(), "tags/studio#ns/x/y/z.tag");
        assert_eq!(keys.tags(None).as_ref(), "versions/studio#ns");
    }

    #[test]
    fn what_is_no_digest_is_none() {
        for key in ["objects/work/x", "payloads/AA", "objects/AA/BB", "x"] {
            assert_eq!(Keys::digest(&Path::parse(key).unwrap()), None, "{key}");
        }
        assert!(Keys::new("a/../b", None).is_err());
        assert!(Keys::new("a//b", None).is_err());
    }
}
