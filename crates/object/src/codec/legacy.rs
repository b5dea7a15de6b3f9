//! The legacy body: big-endian integers, NUL-terminated strings (FORMAT.md section 2.4).

use crate::digest::Digest;
use crate::entry::{Entry, EntryKind, EntryName, Tree};
use crate::error::{ObjectError, Result};
use crate::header::{Header, ObjectKind};
use crate::object::{Blob, Layer, Manifest, Object, Platform};

/// The fewest bytes an entry takes: digest, kind, mode, size, a name of one byte.
const MIN_ENTRY_LEN: usize = 32 + 5 + 8 + 8 + 2;

pub(super) fn decode(header: Header, kind: ObjectKind, body: &[u8]) -> Result<Object> {
    let mut input = Input {
        what: kind.as_str(),
        rest: body,
    };
    let object = match kind {
        ObjectKind::Blob => {
            let (payload, size) = (input.digest()?, input.u64()?);
            Object::Blob(Blob {
                header,
                payload,
                size,
            })
        }
        ObjectKind::Layer => Object::Layer(Layer::new(header, Some(input.digest()?), Vec::new())?),
        ObjectKind::Platform => {
            let count = input.count(Digest::NULL.as_bytes().len())?;
            let mut layers = (0..count)
                .map(|_| input.digest())
                .collect::<Result<Vec<Digest>>>()?;
            // Stored top first.
            layers.reverse();
            Object::Platform(Platform { header, layers })
        }
        ObjectKind::Manifest => {
            let mut trees = vec![input.tree()?];
            let others = input.count(8)?;
            for _ in 0..others {
                trees.push(input.tree()?);
            }
            Object::Manifest(Manifest::new(header, trees)?)
        }
    };
    input.end()?;
    Ok(object)
}

/// What is left of a body.
struct Input<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn error(&self, reason: impl Into<String>) -> ObjectError {
        ObjectError::malformed(self.what, reason)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| self.error("it is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().copied().map(u64::from_be_bytes)
    }

    fn digest(&mut self) -> Result<Digest> {
        self.array().copied().map(Digest::from_bytes)
    }

    /// A number of things that take at least `min_len` bytes each, all of which must be there.
    fn count(&mut self, min_len: usize) -> Result<usize> {
        let count = self.u64()?;
        usize::try_from(count)
            .ok()
            .filter(|&count| count <= self.rest.len() / min_len)
            .ok_or_else(|| self.error(format!("it is too short for {count} items")))
    }

    fn text(&mut self) -> Result<&'a str> {
        let end = self.rest.iter().position(|&byte| byte == 0);
        let end = end.ok_or_else(|| self.error("it is cut short within a text"))?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        std::str::from_utf8(text).map_err(|_| self.error("a text is not UTF-8"))
    }

    fn tree(&mut self) -> Result<Tree> {
        let count = self.count(MIN_ENTRY_LEN)?;
        let entries = (0..count)
            .map(|_| self.entry())
            .collect::<Result<Vec<Entry>>>()?;
        Tree::new(entries)
    }

    fn entry(&mut self) -> Result<Entry> {
        let object = self.digest()?;
        let kind = match self.text()? {
            "file" => EntryKind::Blob,
            "tree" => EntryKind::Tree,
            "mask" => EntryKind::Mask,
            other => return Err(self.error(format!("unknown entry kind '{other}'"))),
        };
        let mode = self.u64()?;
        let mode = u32::try_from(mode)
            .map_err(|_| self.error(format!("the mode {mode:#o} has more than 32 bits")))?;
        let size = self.u64()?;
        let name = EntryName::new(self.text()?)?;
        Ok(Entry {
            name,
            kind,
            object,
            mode,
            size,
        })
    }

    fn end(self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(self.error(format!("{extra} bytes follow it"))),
        }
    }
}

pub(super) fn encode(object: &Object) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    match object {
        Object::Blob(blob) => {
            body.extend_from_slice(blob.payload.as_bytes());
            body.extend_from_slice(&blob.size.to_be_bytes());
        }
        Object::Layer(layer) => body.extend_from_slice(legacy_layer(layer)?.as_bytes()),
        Object::Platform(platform) => {
            body.extend_from_slice(&(platform.layers.len() as u64).to_be_bytes());
            for layer in platform.layers.iter().rev() {
                body.extend_from_slice(layer.as_bytes());
            }
        }
        Object::Manifest(manifest) => {
            let (root, others) = manifest
                .trees()
                .split_first()
                .expect("a manifest has a root");
            write_tree(&mut body, root);
            body.extend_from_slice(&(others.len() as u64).to_be_bytes());
            others.iter().for_each(|tree| write_tree(&mut body, tree));
        }
    }
    Ok(body)
}

fn legacy_layer(layer: &Layer) -> Result<Digest> {
    let unencodable = |reason| ObjectError::Unencodable {
        encoding: "legacy",
        reason,
    };
    if !layer.annotations().is_empty() {
        return Err(unencodable("it has no place for a layer's annotations"));
    }
    layer
        .manifest()
        .ok_or_else(|| unencodable("a layer needs a manifest there"))
}

/// Trees are written sorted by name, as SPFS does.
fn write_tree(body: &mut Vec<u8>, tree: &Tree) {
    let mut entries: Vec<&Entry> = tree.entries().iter().collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    body.extend_from_slice(&(entries.len() as u64).to_be_bytes());
    for entry in entries {
        entry.canonical_bytes(&mut |bytes| body.extend_from_slice(bytes));
    }
}
