//! Repositories written file by file, as FORMAT.md section 4.1 lays them out.
//!
//! For what a commit cannot make in reasonable time: payloads of many gibibytes that are holes.
//! Their digests are made up, so nothing that hashes the whole payload may ever read them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use farseek_object::{
    Blob, Digest, DirectoryBuilder, EntryName, Header, Layer, NewEntry, Object, S_IFLNK, S_IFREG,
};

/// A repository under construction, with one directory that will be its only layer.
#[derive(Debug)]
pub struct Handmade {
    root: PathBuf,
    contents: DirectoryBuilder,
}

impl Handmade {
    /// An empty repository at `root`, which is made with its parents.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn create(root: &Path) -> io::Result<Self> {
        for name in ["objects", "payloads", "tags"] {
            fs::create_dir_all(root.join(name))?;
        }
        Ok(Self {
            root: root.to_owned(),
            contents: DirectoryBuilder::new(),
        })
    }

    /// A file of these bytes, with its true digest, which is returned.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn file(&mut self, name: &str, mode: u32, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::of(bytes);
        fs::write(self.place("payloads", &digest)?, bytes)?;
        self.enter(name, digest, S_IFREG | mode, bytes.len() as u64)?;
        Ok(digest)
    }

    /// A link to `target`.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn link(&mut self, name: &str, target: &str) -> io::Result<Digest> {
        let digest = Digest::of(target.as_bytes());
        fs::write(self.place("payloads", &digest)?, target)?;
        self.enter(name, digest, S_IFLNK | 0o777, target.len() as u64)?;
        Ok(digest)
    }

    /// A file of `size` that is a hole but for the `marks`, bytes at offsets; its digest is made
    /// up, and returned.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn sparse(&mut self, name: &str, size: u64, marks: &[(u64, u8)]) -> io::Result<Digest> {
        let digest = Digest::of(format!("made up for {name} of {size}").as_bytes());
        let file = File::create_new(self.place("payloads", &digest)?)?;
        file.set_len(size)?;
        for &(offset, byte) in marks {
            file.write_all_at(&[byte], offset)?;
        }
        self.enter(name, digest, S_IFREG | 0o644, size)?;
        Ok(digest)
    }

    /// Writes the manifest and the layer, whose digest is returned: it can be mounted.
    ///
    /// # Errors
    /// Whatever the file system says.
    ///
    /// # Panics
    /// Two entries that cannot stand in one tree.
    pub fn finish(self) -> io::Result<Digest> {
        let header = Header::default();
        let contents = self.contents.clone();
        let manifest = contents
            .into_manifest(header)
            .expect("names were checked one by one");
        let manifest = self.store(&Object::Manifest(manifest))?;
        let layer = Layer::new(header, Some(manifest), Vec::new());
        self.store(&Object::Layer(layer.expect("it has a manifest")))
    }

    fn enter(&mut self, name: &str, object: Digest, mode: u32, size: u64) -> io::Result<()> {
        let header = Header::default();
        self.store(&Object::Blob(Blob {
            header,
            payload: object,
            size,
        }))?;
        let name = EntryName::new(name).map_err(io::Error::other)?;
        self.contents
            .insert(name, NewEntry::Blob { object, mode, size });
        Ok(())
    }

    fn store(&self, object: &Object) -> io::Result<Digest> {
        let digest = object.digest();
        let bytes = object.encode().map_err(io::Error::other)?;
        fs::write(self.place("objects", &digest)?, bytes)?;
        Ok(digest)
    }

    fn place(&self, store: &str, digest: &Digest) -> io::Result<PathBuf> {
        let path = stored_at(&self.root, store, digest);
        fs::create_dir_all(path.parent().expect("a shard"))?;
        Ok(path)
    }
}

/// Where the repository at `root` keeps what `digest` names, in `objects` or `payloads`.
pub fn stored_at(root: &Path, store: &str, digest: &Digest) -> PathBuf {
    let text = digest.to_string();
    let (shard, name) = text.split_at(2);
    root.join(store).join(shard).join(name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use farseek_object::{Object, ObjectKind};

    use super::{Handmade, stored_at};

    #[test]
    fn a_handmade_repository_holds_its_layer_and_its_holes() {
        let dir = tempfile::tempdir().unwrap();
        let mut made = Handmade::create(dir.path()).unwrap();
        made.file("script", 0o755, b"#!/bin/sh\n").unwrap();
        made.link("link", "script").unwrap();
        let big = made.sparse("big", 1 << 36, &[(1 << 35, 7)]).unwrap();
        let layer = made.finish().unwrap();
        let bytes = fs::read(stored_at(dir.path(), "objects", &layer)).unwrap();
        let object = Object::decode_named(&layer, &bytes).unwrap();
        assert_eq!(object.kind(), ObjectKind::Layer);
        let payload = fs::metadata(stored_at(dir.path(), "payloads", &big)).unwrap();
        assert_eq!(payload.len(), 1 << 36);
    }
}
