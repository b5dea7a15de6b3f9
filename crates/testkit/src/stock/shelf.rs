//! The directory that is served, read and written without a line of the store's code.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use farseek_object::{Digest, Object, Tag, TagStream};

/// A repository on disk (FORMAT.md section 4).
#[derive(Debug, Clone)]
pub(super) struct Shelf(PathBuf);

impl Shelf {
    pub(super) fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }

    fn file(&self, store: &str, digest: &Digest) -> PathBuf {
        let text = digest.to_string();
        self.0.join(store).join(&text[..2]).join(&text[2..])
    }

    pub(super) fn payload(&self, digest: &Digest) -> PathBuf {
        self.file("payloads", digest)
    }

    pub(super) fn has(&self, store: &str, digest: &Digest) -> bool {
        self.file(store, digest).is_file()
    }

    /// The object as it is sent: its header, and a FlatBuffer.
    pub(super) fn object(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = fs::read(self.file("objects", digest)).ok()?;
        Object::decode(&bytes).ok()?.encode_wire().ok()
    }

    pub(super) fn store_object(&self, sent: &[u8]) -> Result<(), String> {
        let object = Object::decode_wire(sent).map_err(|error| error.to_string())?;
        let bytes = object.encode().map_err(|error| error.to_string())?;
        let path = self.file("objects", &object.digest());
        write(&path, &bytes).map_err(|error| error.to_string())
    }

    pub(super) fn store_payload(&self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::of(bytes);
        write(&self.payload(&digest), bytes)?;
        Ok(digest)
    }

    /// Whether there was something to remove.
    pub(super) fn remove(&self, store: &str, digest: &Digest) -> bool {
        fs::remove_file(self.file(store, digest)).is_ok()
    }

    /// Every digest of a store.
    pub(super) fn digests(&self, store: &str) -> Vec<Digest> {
        let mut digests = Vec::new();
        for shard in names(&self.0.join(store)) {
            for rest in names(&self.0.join(store).join(&shard)) {
                digests.extend(format!("{shard}{rest}").parse::<Digest>());
            }
        }
        digests
    }

    fn tags(&self, namespace: &str) -> PathBuf {
        match namespace {
            "" => self.0.join("tags"),
            namespace => self.0.join("tags").join(format!("{namespace}#ns")),
        }
    }

    fn tag_file(&self, namespace: &str, name: &str) -> PathBuf {
        self.tags(namespace).join(format!("{name}.tag"))
    }

    /// The versions of a tag; `None` where it has none.
    pub(super) fn history(&self, namespace: &str, name: &str) -> Option<TagStream> {
        let bytes = fs::read(self.tag_file(namespace, name)).ok()?;
        TagStream::decode(&bytes).ok()
    }

    pub(super) fn insert_tag(&self, namespace: &str, tag: Tag) -> io::Result<()> {
        let name = tag.name.to_string();
        let mut history = self.history(namespace, &name).unwrap_or_default();
        history.insert(tag);
        write(&self.tag_file(namespace, &name), &history.encode())
    }

    /// Whether the version was there.
    pub(super) fn remove_tag(&self, namespace: &str, tag: &Tag) -> bool {
        let name = tag.name.to_string();
        let mut history = self.history(namespace, &name).unwrap_or_default();
        let removed = history.remove(tag);
        match history.is_empty() {
            true => self.remove_history(namespace, &name) || removed,
            false => write(&self.tag_file(namespace, &name), &history.encode()).is_ok() && removed,
        }
    }

    /// Whether there was one.
    pub(super) fn remove_history(&self, namespace: &str, name: &str) -> bool {
        let file = self.tag_file(namespace, name);
        let removed = fs::remove_file(&file).is_ok();
        let top = self.tags(namespace);
        let mut folder = file.parent();
        while let Some(path) = folder.filter(|path| *path != top && path.starts_with(&top)) {
            if fs::remove_dir(path).is_err() {
                break;
            }
            folder = path.parent();
        }
        removed
    }

    /// The field of an `EntryList` entry (1 folder, 2 tag, 3 namespace) and its name.
    pub(super) fn folder(&self, namespace: &str, folder: &str) -> Vec<(u64, String)> {
        let path = self.tags(namespace).join(folder.trim_matches('/'));
        let entry = |name: String| {
            let is_folder = path.join(&name).is_dir();
            match (name.strip_suffix(".tag"), name.strip_suffix("#ns")) {
                (Some(tag), _) if !is_folder => Some((2, tag.to_owned())),
                (_, Some(namespace)) if is_folder => Some((3, namespace.to_owned())),
                _ if is_folder => Some((1, name)),
                _ => None,
            }
        };
        names(&path).into_iter().filter_map(entry).collect()
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().expect("every file here has a folder");
    fs::create_dir_all(folder)?;
    let temporary = folder.join(".being-written");
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}
