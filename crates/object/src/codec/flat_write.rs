//! Writing the FlatBuffers body (FORMAT.md section 2.5), byte for byte as SPFS's builder does.
//!
//! A FlatBuffer is built from its end: what is pointed to is written before what points to it.
//! [`Builder`] collects the bytes in reverse, so that a *location* (the distance from the end of
//! the finished buffer) is just the length at that moment, and turns them round at the end.

use super::flat_read::union_tag;
use crate::entry::{Entry, EntryKind, Tree};
use crate::error::{ObjectError, Result};
use crate::object::{Annotation, AnnotationValue, Object};

/// Offsets are 32 bits, and readers take the first half of them.
const MAX_LEN: usize = i32::MAX as usize;

pub(super) fn encode(object: &Object) -> Result<Vec<u8>> {
    let mut builder = Builder::default();
    let value = match object {
        Object::Blob(blob) => {
            let mut table = builder.table();
            table.scalar(0, &blob.size.to_le_bytes(), blob.size == 0);
            table.digest(1, blob.payload.as_bytes());
            table.end()
        }
        Object::Layer(layer) => {
            let annotations: Vec<_> = layer
                .annotations()
                .iter()
                .map(|a| annotation(&mut builder, a))
                .collect();
            let annotations = builder.offsets(&annotations);
            let mut table = builder.table();
            table.offset(1, annotations);
            if let Some(manifest) = layer.manifest() {
                table.digest(0, manifest.as_bytes());
            }
            table.end()
        }
        Object::Platform(platform) => {
            let layers = builder.digests(platform.layers.iter().map(|layer| layer.as_bytes()));
            let mut table = builder.table();
            table.offset(0, layers);
            table.end()
        }
        Object::Manifest(manifest) => {
            let trees: Vec<_> = manifest
                .trees()
                .iter()
                .map(|t| tree(&mut builder, t))
                .collect();
            let trees = builder.offsets(&trees);
            let mut table = builder.table();
            table.offset(0, trees);
            table.end()
        }
    };
    let mut root = builder.table();
    root.offset(1, value);
    root.scalar(0, &[union_tag(object.kind())], false);
    let root = root.end();
    builder.finish(root)
}

fn tree(builder: &mut Builder, tree: &Tree) -> Location {
    let entries: Vec<_> = tree.entries().iter().map(|e| entry(builder, e)).collect();
    let entries = builder.offsets(&entries);
    let mut table = builder.table();
    table.offset(0, entries);
    table.end()
}

fn entry(builder: &mut Builder, entry: &Entry) -> Location {
    let kind = match entry.kind {
        EntryKind::Blob => 0,
        EntryKind::Tree => 4,
        EntryKind::Mask => 5,
    };
    let name = builder.text(entry.name.as_str());
    let mut table = builder.table();
    table.scalar(3, &entry.size.to_le_bytes(), entry.size == 0);
    table.offset(4, name);
    table.scalar(2, &entry.mode.to_le_bytes(), entry.mode == 0);
    table.digest(1, entry.object.as_bytes());
    table.scalar(0, &[kind], kind == 0);
    table.end()
}

fn annotation(builder: &mut Builder, annotation: &Annotation) -> Location {
    let key = builder.text(&annotation.key);
    let (tag, value) = match &annotation.value {
        AnnotationValue::Text(text) => {
            let text = builder.text(text);
            let mut table = builder.table();
            table.offset(0, text);
            (1, table.end())
        }
        AnnotationValue::Blob(digest) => {
            let mut table = builder.table();
            table.digest(0, digest.as_bytes());
            (2, table.end())
        }
    };
    let mut table = builder.table();
    table.offset(2, value);
    table.offset(0, key);
    table.scalar(1, &[tag], false);
    table.end()
}

/// The distance of something already written from the end of the finished buffer.
#[derive(Clone, Copy)]
struct Location(usize);

#[derive(Default)]
struct Builder {
    /// The bytes written so far, last first.
    reversed: Vec<u8>,
    /// The strictest alignment used, which the whole buffer must have.
    alignment: usize,
    /// Where each distinct vtable is, so that equal ones are shared.
    vtables: Vec<(Vec<u8>, Location)>,
}

impl Builder {
    fn here(&self) -> Location {
        Location(self.reversed.len())
    }

    /// Pads so that after `len` more bytes the position is a multiple of `alignment`.
    fn align(&mut self, len: usize, alignment: usize) {
        self.alignment = self.alignment.max(alignment);
        let padded = (self.reversed.len() + len).next_multiple_of(alignment) - len;
        self.reversed.resize(padded, 0);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.reversed.extend(bytes.iter().rev());
    }

    fn put_u32(&mut self, value: usize) {
        self.align(4, 4);
        self.put(&(value as u32).to_le_bytes());
    }

    fn put_offset(&mut self, target: Location) {
        self.align(4, 4);
        let own = self.reversed.len() + 4;
        self.put(&((own - target.0) as u32).to_le_bytes());
    }

    fn text(&mut self, text: &str) -> Location {
        self.align(text.len() + 1, 4);
        self.put(&[0]);
        self.put(text.as_bytes());
        self.put_u32(text.len());
        self.here()
    }

    fn offsets(&mut self, items: &[Location]) -> Location {
        self.align(items.len() * 4, 4);
        items.iter().rev().for_each(|&item| self.put_offset(item));
        self.put_u32(items.len());
        self.here()
    }

    fn digests<'a>(
        &mut self,
        items: impl DoubleEndedIterator<Item = &'a [u8; 32]> + ExactSizeIterator,
    ) -> Location {
        let count = items.len();
        self.align(count * 32, 4);
        items.rev().for_each(|item| self.put(item));
        self.put_u32(count);
        self.here()
    }

    fn table(&mut self) -> TableBuilder<'_> {
        let start = self.reversed.len();
        TableBuilder {
            builder: self,
            start,
            fields: Vec::with_capacity(5),
        }
    }

    fn finish(mut self, root: Location) -> Result<Vec<u8>> {
        self.align(4, self.alignment.max(4));
        self.put_offset(root);
        if self.reversed.len() > MAX_LEN {
            return Err(ObjectError::TooLarge {
                what: "a FlatBuffer",
                limit: MAX_LEN as u64,
            });
        }
        self.reversed.reverse();
        Ok(self.reversed)
    }
}

struct TableBuilder<'a> {
    builder: &'a mut Builder,
    /// The location where the table's fields began.
    start: usize,
    /// Slot and location of each field.
    fields: Vec<(usize, Location)>,
}

impl TableBuilder<'_> {
    /// A scalar of its natural alignment; a default value is left out.
    fn scalar(&mut self, slot: usize, bytes: &[u8], is_default: bool) {
        if is_default {
            return;
        }
        self.builder.align(bytes.len(), bytes.len());
        self.builder.put(bytes);
        self.fields.push((slot, self.builder.here()));
    }

    fn digest(&mut self, slot: usize, bytes: &[u8; 32]) {
        self.builder.put(bytes);
        self.fields.push((slot, self.builder.here()));
    }

    fn offset(&mut self, slot: usize, target: Location) {
        self.builder.put_offset(target);
        self.fields.push((slot, self.builder.here()));
    }

    fn end(self) -> Location {
        let Self {
            builder,
            start,
            fields,
        } = self;
        builder.align(4, 4);
        let table = builder.reversed.len() + 4;
        let vtable = vtable_bytes(table, start, &fields);
        let known = builder
            .vtables
            .iter()
            .find(|(bytes, _)| *bytes == vtable)
            .map(|(_, at)| *at);
        // A new vtable goes right before the table.
        let at = known.unwrap_or(Location(table + vtable.len()));
        let back = at.0 as i64 - table as i64;
        builder.put(&(back as i32).to_le_bytes());
        if known.is_none() {
            builder.put(&vtable);
            builder.vtables.push((vtable, at));
        }
        Location(table)
    }
}

/// The vtable of a table at location `table` whose fields began at location `start`.
fn vtable_bytes(table: usize, start: usize, fields: &[(usize, Location)]) -> Vec<u8> {
    let slots = fields.iter().map(|(slot, _)| slot + 1).max().unwrap_or(0);
    let mut words = vec![0u16; 2 + slots];
    words[0] = (2 * words.len()) as u16;
    words[1] = (table - start) as u16;
    for (slot, at) in fields {
        words[2 + slot] = (table - at.0) as u16;
    }
    words.into_iter().flat_map(u16::to_le_bytes).collect()
}
