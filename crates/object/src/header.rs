//! The 17 bytes before every stored object (FORMAT.md section 2.2).

use crate::error::{ObjectError, Result};

/// Bytes of a header.
pub const HEADER_LEN: usize = 17;

const MAGIC: &[u8; 9] = b"--SPFS--\n";

/// How an object's digest is computed from its canonical bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DigestStrategy {
    /// The hash of the canonical bytes alone.
    Legacy,
    /// A salt and the kind are hashed first, so that objects of two kinds never collide.
    #[default]
    KindAndSalt,
}

/// How an object's body is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encoding {
    /// Big-endian integers and NUL-terminated strings.
    Legacy,
    /// A FlatBuffer.
    #[default]
    FlatBuffers,
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A payload's name and size.
    Blob,
    /// A directory tree.
    Manifest,
    /// A manifest and annotations.
    Layer,
    /// An ordered stack of layers.
    Platform,
}

impl ObjectKind {
    /// The word for it in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Manifest => "manifest",
            Self::Layer => "layer",
            Self::Platform => "platform",
        }
    }

    /// The kind byte of the header and of the salted digest.
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Blob => 0,
            Self::Manifest => 1,
            Self::Layer => 2,
            Self::Platform => 3,
        }
    }
}

impl std::fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The part of a header that an object keeps: with it, a re-saved object keeps its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Header {
    /// How the digest is computed.
    pub strategy: DigestStrategy,
    /// How the body is laid out.
    pub encoding: Encoding,
}

impl Header {
    /// The header's bytes for an object of `kind`.
    pub fn to_bytes(self, kind: ObjectKind) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..9].copy_from_slice(MAGIC);
        bytes[9] = match self.strategy {
            DigestStrategy::Legacy => 0,
            DigestStrategy::KindAndSalt => 1,
        };
        bytes[10] = match self.encoding {
            Encoding::Legacy => 0,
            Encoding::FlatBuffers => 1,
        };
        bytes[16] = kind.to_byte();
        bytes
    }

    /// Parses the first 17 bytes of `bytes` and returns the rest, the body.
    pub fn parse(bytes: &[u8]) -> Result<(Self, ObjectKind, &[u8])> {
        let malformed = |reason: String| ObjectError::malformed("object header", reason);
        let Some((header, body)) = bytes.split_at_checked(HEADER_LEN) else {
            return Err(malformed(format!("{} bytes, 17 are needed", bytes.len())));
        };
        if &header[..9] != MAGIC {
            return Err(malformed("it does not start with --SPFS--".into()));
        }
        let strategy = match header[9] {
            0 => DigestStrategy::Legacy,
            1 => DigestStrategy::KindAndSalt,
            other => return Err(malformed(format!("unknown digest strategy {other}"))),
        };
        let encoding = match header[10] {
            0 => Encoding::Legacy,
            1 => Encoding::FlatBuffers,
            other => return Err(malformed(format!("unknown encoding {other}"))),
        };
        let kind = match header[16] {
            0 => ObjectKind::Blob,
            1 => ObjectKind::Manifest,
            2 => ObjectKind::Layer,
            3 => ObjectKind::Platform,
            4 => return Err(malformed("a tree cannot stand alone".into())),
            5 => return Err(malformed("a mask cannot stand alone".into())),
            other => return Err(malformed(format!("unknown object kind {other}"))),
        };
        Ok((Self { strategy, encoding }, kind, body))
    }
}
