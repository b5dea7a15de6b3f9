//! Stored objects to bytes and back, in both encodings (FORMAT.md sections 2.2 to 2.5).
//!
//! Decoding is total: every length and offset is checked before it is used, and no more memory
//! is taken than a small multiple of the input. The body must be of the kind its header says.

mod flat_read;
mod flat_write;
mod legacy;

use crate::error::Result;
use crate::header::{Encoding, Header, ObjectKind};
use crate::object::Object;

pub(crate) fn decode(bytes: &[u8]) -> Result<Object> {
    let (header, kind, body) = Header::parse(bytes)?;
    decode_body(header, kind, header.encoding, body)
}

/// Decodes a body in `encoding`, which on the wire is not always the header's.
fn decode_body(
    header: Header,
    kind: ObjectKind,
    encoding: Encoding,
    body: &[u8],
) -> Result<Object> {
    match encoding {
        Encoding::Legacy => legacy::decode(header, kind, body),
        Encoding::FlatBuffers => flat_read::decode(header, kind, body),
    }
}

/// Decodes what a peer sends: the body is a FlatBuffer, whatever the header says.
pub(crate) fn decode_wire(bytes: &[u8]) -> Result<Object> {
    let (header, kind, body) = Header::parse(bytes)?;
    decode_body(header, kind, Encoding::FlatBuffers, body)
}

pub(crate) fn encode(object: &Object) -> Result<Vec<u8>> {
    encode_body(object, object.header().encoding)
}

/// What is sent to a peer: the object's header, and a FlatBuffer.
pub(crate) fn encode_wire(object: &Object) -> Result<Vec<u8>> {
    encode_body(object, Encoding::FlatBuffers)
}

fn encode_body(object: &Object, encoding: Encoding) -> Result<Vec<u8>> {
    let header = object.header();
    let body = match encoding {
        Encoding::Legacy => legacy::encode(object)?,
        Encoding::FlatBuffers => flat_write::encode(object)?,
    };
    let mut bytes = header.to_bytes(object.kind()).to_vec();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
