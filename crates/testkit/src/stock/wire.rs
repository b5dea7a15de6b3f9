//! Protocol buffers by hand: as much of them as SPFS's messages need.

use farseek_object::Digest;

/// A message being read: field numbers and raw values.
pub(super) struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The last value of a length-delimited field; empty where it is absent, as in proto3.
    pub(super) fn bytes(&self, field: u64) -> &'a [u8] {
        let mut rest = self.0;
        let mut found: &[u8] = &[];
        while !rest.is_empty() {
            let Some(key) = varint(&mut rest) else { break };
            match key & 7 {
                0 => drop(varint(&mut rest)),
                2 => {
                    let length = varint(&mut rest).unwrap_or(0);
                    let length = usize::try_from(length).unwrap_or(usize::MAX);
                    let (value, after) = rest.split_at(length.min(rest.len()));
                    rest = after;
                    if key >> 3 == field {
                        found = value;
                    }
                }
                _ => break,
            }
        }
        found
    }

    pub(super) fn text(&self, field: u64) -> String {
        String::from_utf8_lossy(self.bytes(field)).into_owned()
    }

    pub(super) fn message(&self, field: u64) -> Message<'a> {
        Message(self.bytes(field))
    }

    /// A field that is a `Digest` message.
    pub(super) fn digest(&self, field: u64) -> Digest {
        let bytes = self.message(field).bytes(1);
        bytes.try_into().map_or(Digest::NULL, Digest::from_bytes)
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A length-delimited field.
pub(super) fn field(number: u64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 12);
    put_varint(&mut out, number << 3 | 2);
    put_varint(&mut out, value.len() as u64);
    out.extend_from_slice(value);
    out
}

/// A field that is a number; absent where it is 0, as in proto3.
pub(super) fn number(number: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    if value != 0 {
        put_varint(&mut out, number << 3);
        put_varint(&mut out, value);
    }
    out
}

/// A `Digest` message.
pub(super) fn digest(digest: &Digest) -> Vec<u8> {
    field(1, digest.as_bytes())
}

/// A result that went well.
pub(super) fn ok(value: &[u8]) -> Vec<u8> {
    field(2, value)
}

/// A result that did not: `kind` is 2 for an unknown object, 3 for an unknown reference.
pub(super) fn unknown(kind: u64, what: &str) -> Vec<u8> {
    field(1, &field(kind, &field(1, what.as_bytes())))
}

/// A result that failed, in words.
pub(super) fn other(text: &str) -> Vec<u8> {
    field(1, &field(1, text.as_bytes()))
}
