//! What an archive holds of a repository, by name.
//!
//! Of several entries of one name the last counts, as it does when an archive is unpacked. A hard
//! link stands for the file it names. Other links in the places of objects, payloads and tags are
//! refused. What is not ours (renders, durable runtimes) is remembered only to be copied.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use farseek_object::{Digest, TagName, TagNamespace};

use super::scan::{Item, Kind, scan};
use crate::error::{Result, StoreError};

/// Where one file is in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    /// Its bytes.
    pub(super) data: Range<u64>,
    /// Its entry as a whole; empty where the entry is only a link to the data.
    pub(super) raw: Range<u64>,
}

impl Slot {
    /// Bytes of the file.
    pub(super) fn size(&self) -> u64 {
        self.data.end - self.data.start
    }
}

/// A name in an archive.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    Object(Digest),
    Payload(Digest),
    /// By its path below `tags`, without the suffix.
    Tag(String),
    Other,
}

/// The files of an archive.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) objects: BTreeMap<Digest, Slot>,
    pub(super) payloads: BTreeMap<Digest, Slot>,
    /// By their paths below `tags`, without `.tag`: `a/b`, `ns#ns/a/b`.
    pub(super) tags: BTreeMap<String, Slot>,
    /// Everything else that has a name.
    pub(super) others: BTreeMap<String, Slot>,
    /// Entries without a readable name.
    pub(super) nameless: Vec<Range<u64>>,
}

impl Index {
    /// Reads the archive at `path`, of `length` bytes.
    pub(super) fn read(file: &File, path: &Path, length: u64) -> Result<Self> {
        let mut index = Self::default();
        scan(file, path, length, |item| {
            index.add(item).map_err(|reason| StoreError::Corrupt {
                location: format!("tar:{}", path.display()),
                reason,
            })
        })?;
        index.check_is_repository(path)?;
        Ok(index)
    }

    fn add(&mut self, item: Item) -> Result<(), String> {
        let Item {
            name,
            kind,
            data,
            raw,
        } = item;
        let Some(name) = name else {
            self.nameless.push(raw);
            return Ok(());
        };
        let named = classify(&name);
        let slot = match kind {
            Kind::File => Slot { data, raw },
            Kind::HardLink(target) => match self.linked(target.as_deref()) {
                Some(data) => Slot { data, raw: 0..0 },
                // Links of renders to what is not there.
                None if named == Named::Other => return Ok(()),
                None => return Err(format!("'{name}' is a link to a file that is not there")),
            },
            Kind::Directory | Kind::Other if named != Named::Other => {
                return Err(format!("'{name}' is not a regular file"));
            }
            Kind::Directory | Kind::Other => Slot { data: 0..0, raw },
        };
        match named {
            Named::Object(digest) => self.objects.insert(digest, slot),
            Named::Payload(digest) => self.payloads.insert(digest, slot),
            Named::Tag(path) => self.tags.insert(path, slot),
            Named::Other => self.others.insert(name, slot),
        };
        Ok(())
    }

    /// The bytes of the file that a hard link names.
    fn linked(&self, target: Option<&str>) -> Option<Range<u64>> {
        let target = target?;
        let slot = match classify(target) {
            Named::Object(digest) => self.objects.get(&digest),
            Named::Payload(digest) => self.payloads.get(&digest),
            Named::Tag(path) => self.tags.get(&path),
            Named::Other => self.others.get(target),
        };
        slot.map(|slot| slot.data.clone())
    }

    /// Refuses archives of something else; an empty one is an empty repository.
    fn check_is_repository(&self, path: &Path) -> Result<()> {
        let is_ours = |name: &String| {
            let top = name.split('/').next().unwrap_or_default();
            matches!(top, "objects" | "payloads" | "tags" | "VERSION")
        };
        let holds = !self.objects.is_empty() || !self.payloads.is_empty() || !self.tags.is_empty();
        let named = || self.others.keys().filter(|name| !name.is_empty());
        if holds || named().any(is_ours) || named().next().is_none() {
            return Ok(());
        }
        Err(StoreError::Invalid {
            what: "repository",
            text: path.display().to_string(),
            reason: "it has no directory 'objects' at its top, so it is not an SPFS repository"
                .into(),
        })
    }
}

fn classify(name: &str) -> Named {
    let digest = |rest: &str| -> Option<Digest> {
        let (shard, rest) = rest.split_once('/')?;
        (shard.len() == 2).then(|| format!("{shard}{rest}").parse().ok())?
    };
    let named = match name.split_once('/') {
        Some(("objects", rest)) => digest(rest).map(Named::Object),
        Some(("payloads", rest)) => digest(rest).map(Named::Payload),
        Some(("tags", rest)) => tag_path(rest).map(Named::Tag),
        _ => None,
    };
    named.unwrap_or(Named::Other)
}

fn tag_path(rest: &str) -> Option<String> {
    let path = rest.strip_suffix(".tag")?;
    let name = match path.split_once('/') {
        Some((first, name)) => match first.strip_suffix("#ns") {
            Some(namespace) => {
                namespace.parse::<TagNamespace>().ok()?;
                name
            }
            None => path,
        },
        None => path,
    };
    name.parse::<TagName>().ok()?;
    Some(path.to_owned())
}
