//! Reading the FlatBuffers body (FORMAT.md section 2.5).
//!
//! A bounds-checked reader instead of the library's verifier and its `unsafe` accessors: every
//! access is checked where it is made, so there is nothing to verify beforehand and no limit on
//! the number of tables. Tables may be shared, which would let a small body unfold into a huge
//! value; a budget proportional to the body's length stops that.
//!
//! More lenient than SPFS's reader in one point: misaligned values are read, not refused.

use crate::digest::Digest;
use crate::entry::{Entry, EntryKind, EntryName, Tree};
use crate::error::{ObjectError, Result};
use crate::header::{Header, ObjectKind};
use crate::object::{Annotation, AnnotationValue, Blob, Layer, Manifest, Object, Platform};

/// What a tree costs of the budget, in bytes.
const TREE_COST: usize = 32;
/// What an entry or annotation costs of the budget beside its texts, in bytes.
const ENTRY_COST: usize = 64;
/// Decoded bytes allowed for each byte of the body. Unshared tables need less than two.
const BUDGET_FACTOR: usize = 8;

pub(super) fn decode(header: Header, kind: ObjectKind, body: &[u8]) -> Result<Object> {
    let mut reader = Reader::new(kind, body);
    let root = reader.root()?;
    let union = root.u8(0)?.unwrap_or(0);
    if union != union_tag(kind) {
        let reason = format!("the header says {kind}, but the body has union tag {union}");
        return Err(reader.error(reason));
    }
    let table = root.required_table(1, "object")?;
    Ok(match kind {
        ObjectKind::Blob => {
            let payload = table.required_digest(1, "payload")?;
            Object::Blob(Blob {
                header,
                payload,
                size: table.u64(0)?.unwrap_or(0),
            })
        }
        ObjectKind::Layer => Object::Layer(reader.layer(header, table)?),
        ObjectKind::Platform => {
            let layers = table.required_vector(0, 32, "layers")?;
            let layers = (0..layers.len)
                .map(|i| layers.digest(i))
                .collect::<Result<_>>()?;
            Object::Platform(Platform { header, layers })
        }
        ObjectKind::Manifest => Object::Manifest(reader.manifest(header, table)?),
    })
}

/// `AnyObject.object_type`: not the numbers of the header.
pub(super) fn union_tag(kind: ObjectKind) -> u8 {
    match kind {
        ObjectKind::Platform => 1,
        ObjectKind::Layer => 2,
        ObjectKind::Manifest => 3,
        ObjectKind::Blob => 4,
    }
}

struct Reader<'a> {
    data: Data<'a>,
    /// Bytes that may still be decoded.
    budget: usize,
}

impl<'a> Reader<'a> {
    fn new(kind: ObjectKind, body: &'a [u8]) -> Self {
        let budget = body.len().saturating_mul(BUDGET_FACTOR);
        Self {
            data: Data {
                what: kind.as_str(),
                bytes: body,
            },
            budget,
        }
    }

    fn error(&self, reason: impl Into<String>) -> ObjectError {
        self.data.error(reason)
    }

    fn root(&self) -> Result<Table<'a>> {
        self.data.table(self.data.follow(0)?)
    }

    fn spend(&mut self, bytes: usize) -> Result<()> {
        let left = self.budget.checked_sub(bytes);
        self.budget = left.ok_or_else(|| self.error("it unfolds into far more than its size"))?;
        Ok(())
    }

    fn manifest(&mut self, header: Header, table: Table<'a>) -> Result<Manifest> {
        let offsets = table.required_vector(0, 4, "trees")?;
        let mut trees = Vec::new();
        for i in 0..offsets.len {
            self.spend(TREE_COST)?;
            trees.push(self.tree(offsets.table(i)?)?);
        }
        Manifest::new(header, trees)
    }

    fn tree(&mut self, table: Table<'a>) -> Result<Tree> {
        let offsets = table.required_vector(0, 4, "entries")?;
        self.spend(offsets.len.saturating_mul(ENTRY_COST))?;
        let mut entries = Vec::with_capacity(offsets.len);
        for i in 0..offsets.len {
            entries.push(self.entry(offsets.table(i)?)?);
        }
        Tree::new(entries)
    }

    fn entry(&mut self, table: Table<'a>) -> Result<Entry> {
        let kind = match table.u8(0)?.unwrap_or(0) {
            0 => EntryKind::Blob,
            4 => EntryKind::Tree,
            5 => EntryKind::Mask,
            other => return Err(self.error(format!("unknown entry kind {other}"))),
        };
        let name = table.required_text(4, "name")?;
        self.spend(name.len())?;
        Ok(Entry {
            name: EntryName::new(name)?,
            kind,
            object: table.required_digest(1, "object")?,
            mode: table.u32(2)?.unwrap_or(0),
            size: table.u64(3)?.unwrap_or(0),
        })
    }

    fn layer(&mut self, header: Header, table: Table<'a>) -> Result<Layer> {
        let offsets = table.required_vector(1, 4, "annotations")?;
        self.spend(offsets.len.saturating_mul(ENTRY_COST))?;
        let mut annotations = Vec::with_capacity(offsets.len);
        for i in 0..offsets.len {
            annotations.push(self.annotation(offsets.table(i)?)?);
        }
        Layer::new(header, table.digest(0)?, annotations)
    }

    fn annotation(&mut self, table: Table<'a>) -> Result<Annotation> {
        let key = table.required_text(0, "key")?;
        self.spend(key.len())?;
        let data = table.required_table(2, "data")?;
        let value = match table.u8(1)?.unwrap_or(0) {
            1 => {
                let text = data.required_text(0, "text")?;
                self.spend(text.len())?;
                AnnotationValue::Text(text.to_owned())
            }
            2 => AnnotationValue::Blob(data.required_digest(0, "digest")?),
            other => return Err(self.error(format!("unknown annotation type {other}"))),
        };
        Ok(Annotation {
            key: key.to_owned(),
            value,
        })
    }
}

/// The whole body. Positions are relative to its start.
#[derive(Clone, Copy)]
struct Data<'a> {
    what: &'static str,
    bytes: &'a [u8],
}

impl<'a> Data<'a> {
    fn error(&self, reason: impl Into<String>) -> ObjectError {
        ObjectError::malformed(self.what, reason)
    }

    fn array<const N: usize>(&self, at: usize) -> Result<&'a [u8; N]> {
        let rest = self.bytes.get(at..).and_then(<[u8]>::first_chunk);
        rest.ok_or_else(|| self.error(format!("it points to byte {at}, beyond its end")))
    }

    fn u16(&self, at: usize) -> Result<usize> {
        self.array(at)
            .copied()
            .map(u16::from_le_bytes)
            .map(usize::from)
    }

    fn u32(&self, at: usize) -> Result<u32> {
        self.array(at).copied().map(u32::from_le_bytes)
    }

    /// The position that the offset stored at `at` points to.
    fn follow(&self, at: usize) -> Result<usize> {
        let offset = self.u32(at)? as usize;
        at.checked_add(offset)
            .ok_or_else(|| self.error("an offset overflows"))
    }

    fn table(self, at: usize) -> Result<Table<'a>> {
        let back = i64::from(i32::from_le_bytes(*self.array(at)?));
        let vtable = usize::try_from(at as i64 - back)
            .map_err(|_| self.error("a table's description lies before its start"))?;
        let vtable_len = self.u16(vtable)?;
        if vtable_len < 4 || self.bytes.len() - vtable < vtable_len {
            return Err(self.error("a table's description is cut short"));
        }
        Ok(Table {
            data: self,
            at,
            vtable,
            vtable_len,
        })
    }

    fn vector(self, at: usize, item_len: usize) -> Result<Vector<'a>> {
        let len = self.u32(at)? as usize;
        let start = at + 4;
        let fits = len
            .checked_mul(item_len)
            .is_some_and(|n| n <= self.bytes.len() - start);
        if !fits {
            return Err(self.error(format!("it is too short for {len} items")));
        }
        Ok(Vector {
            data: self,
            start,
            item_len,
            len,
        })
    }

    fn text(&self, at: usize) -> Result<&'a str> {
        let vector = self.vector(at, 1)?;
        let end = vector.start + vector.len;
        if self.bytes.get(end) != Some(&0) {
            return Err(self.error("a text does not end in NUL"));
        }
        std::str::from_utf8(&self.bytes[vector.start..end])
            .map_err(|_| self.error("a text is not UTF-8"))
    }
}

/// A table and its vtable, whose bounds have been checked.
#[derive(Clone, Copy)]
struct Table<'a> {
    data: Data<'a>,
    at: usize,
    vtable: usize,
    vtable_len: usize,
}

impl<'a> Table<'a> {
    /// The position of the field in `slot`, where it is present.
    fn field(&self, slot: usize) -> Result<Option<usize>> {
        let entry = 4 + 2 * slot;
        if entry + 2 > self.vtable_len {
            return Ok(None);
        }
        let offset = self.data.u16(self.vtable + entry)?;
        Ok((offset != 0).then_some(self.at + offset))
    }

    fn required(&self, slot: usize, name: &str) -> Result<usize> {
        self.field(slot)?
            .ok_or_else(|| self.data.error(format!("the field '{name}' is missing")))
    }

    fn u8(&self, slot: usize) -> Result<Option<u8>> {
        self.field(slot)?
            .map(|at| Ok(self.data.array::<1>(at)?[0]))
            .transpose()
    }

    fn u32(&self, slot: usize) -> Result<Option<u32>> {
        self.field(slot)?.map(|at| self.data.u32(at)).transpose()
    }

    fn u64(&self, slot: usize) -> Result<Option<u64>> {
        self.field(slot)?
            .map(|at| self.data.array(at).copied().map(u64::from_le_bytes))
            .transpose()
    }

    fn digest(&self, slot: usize) -> Result<Option<Digest>> {
        self.field(slot)?
            .map(|at| self.data.array(at).copied().map(Digest::from_bytes))
            .transpose()
    }

    fn required_digest(&self, slot: usize, name: &str) -> Result<Digest> {
        self.required(slot, name)?;
        Ok(self.digest(slot)?.expect("the field is present"))
    }

    fn required_text(&self, slot: usize, name: &str) -> Result<&'a str> {
        self.data
            .text(self.data.follow(self.required(slot, name)?)?)
    }

    fn required_table(&self, slot: usize, name: &str) -> Result<Table<'a>> {
        self.data
            .table(self.data.follow(self.required(slot, name)?)?)
    }

    fn required_vector(&self, slot: usize, item_len: usize, name: &str) -> Result<Vector<'a>> {
        self.data
            .vector(self.data.follow(self.required(slot, name)?)?, item_len)
    }
}

/// A vector whose bounds have been checked.
#[derive(Clone, Copy)]
struct Vector<'a> {
    data: Data<'a>,
    start: usize,
    item_len: usize,
    len: usize,
}

impl<'a> Vector<'a> {
    fn digest(&self, index: usize) -> Result<Digest> {
        self.data
            .array(self.start + index * self.item_len)
            .copied()
            .map(Digest::from_bytes)
    }

    fn table(&self, index: usize) -> Result<Table<'a>> {
        self.data
            .table(self.data.follow(self.start + index * self.item_len)?)
    }
}
