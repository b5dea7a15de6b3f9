//! A repository of very many objects, for `bench/clean.py`: `many_objects ROOT MANIFESTS ENTRIES
//! UNTAGGED`.
//!
//! Every manifest names as many blobs as it has entries, each with its object and its payload; the
//! last `UNTAGGED` manifests, with their layers, are what no tag leads to. Blob objects and payloads
//! are names of a few files: their digests are made up, and who reads one finds it damaged.
//! Everything is a day old.

use std::fs::{self, File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use farseek_object::{
    Blob, Digest, DirectoryBuilder, EntryName, Header, Layer, NewEntry, Object, Tag, TagStream,
};

/// Names that one file is given; file systems have limits above this.
const NAMES: usize = 50_000;

const SIZE: u64 = 100;

fn path_of(root: &Path, store: &str, digest: &Digest) -> PathBuf {
    let text = digest.to_string();
    root.join(store).join(&text[..2]).join(&text[2..])
}

/// A file of the store that further names are given to.
struct Template {
    path: PathBuf,
    bytes: Vec<u8>,
    names: usize,
}

impl Template {
    fn new(path: PathBuf, bytes: Vec<u8>) -> Self {
        Self {
            path,
            bytes,
            names: NAMES,
        }
    }

    fn place(&mut self, at: &Path) -> io::Result<()> {
        if self.names >= NAMES {
            let _ = fs::remove_file(&self.path);
            write(&self.path, &self.bytes)?;
            self.names = 0;
        }
        self.names += 1;
        fs::hard_link(&self.path, at)
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)?;
    let day_ago = SystemTime::now() - Duration::from_secs(86_400);
    File::open(path)?.set_times(FileTimes::new().set_modified(day_ago))
}

fn store(root: &Path, object: &Object) -> io::Result<Digest> {
    let digest = object.digest();
    let bytes = object.encode().map_err(io::Error::other)?;
    write(&path_of(root, "objects", &digest), &bytes)?;
    Ok(digest)
}

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |n: usize| words[n].parse::<usize>().map_err(io::Error::other);
    let (root, manifests, entries, untagged) =
        (PathBuf::from(&words[0]), number(1)?, number(2)?, number(3)?);
    let header = Header::default();
    for store in ["objects", "payloads"] {
        for shard in 0..1024 {
            let symbols = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
            let pair = [symbols[shard / 32], symbols[shard % 32]];
            fs::create_dir_all(
                root.join(store)
                    .join(String::from_utf8_lossy(&pair).as_ref()),
            )?;
        }
    }
    fs::create_dir_all(root.join("tags/many"))?;
    let blob = Object::Blob(Blob {
        header,
        payload: Digest::of(b"any"),
        size: SIZE,
    });
    let mut blobs = Template::new(root.join("blob"), blob.encode().map_err(io::Error::other)?);
    let mut payloads = Template::new(root.join("payload"), vec![7; SIZE as usize]);
    for number in 0..manifests {
        let mut directory = DirectoryBuilder::new();
        for entry in 0..entries {
            let object = Digest::of(format!("{number} {entry}").as_bytes());
            blobs.place(&path_of(&root, "objects", &object))?;
            payloads.place(&path_of(&root, "payloads", &object))?;
            let name = EntryName::new(&format!("{entry:06}")).map_err(io::Error::other)?;
            let (mode, size) = (0o100_644, SIZE);
            directory.insert(name, NewEntry::Blob { object, mode, size });
        }
        let manifest = directory.into_manifest(header).map_err(io::Error::other)?;
        let manifest = store(&root, &Object::Manifest(manifest))?;
        let layer = Layer::new(header, Some(manifest), Vec::new()).map_err(io::Error::other)?;
        let target = store(&root, &Object::Layer(layer))?;
        if number < manifests - untagged {
            let tag = Tag {
                name: format!("many/{number}").parse().map_err(io::Error::other)?,
                target,
                parent: Digest::NULL,
                user: "bench@here".to_owned(),
                time: SystemTime::now().into(),
            };
            let stream = TagStream::from_oldest_first(vec![tag]);
            fs::write(
                root.join(format!("tags/many/{number}.tag")),
                stream.encode(),
            )?;
        }
    }
    for template in [blobs, payloads] {
        fs::remove_file(template.path)?;
    }
    Ok(())
}
