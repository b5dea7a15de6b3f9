//! SHA-256 digests and their text form (FORMAT.md section 1).

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32;
use sha2::Digest as _;
use sha2::Sha256;

use crate::error::{ObjectError, Result};

/// Characters in the text form of a digest: 52 symbols and `====`.
pub const DIGEST_TEXT_LEN: usize = 56;

/// Symbols of a full digest before its padding.
const DIGEST_SYMBOLS: usize = 52;

/// The SHA-256 of something: 32 bytes, written as 56 characters of RFC 4648 base32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// "No value": the parent of a first tag, the object of a mask. Not the hash of anything.
    pub const NULL: Self = Self([0; 32]);

    /// The SHA-256 of no bytes at all.
    pub const EMPTY: Self = Self([
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9,
        0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52,
        0xb8, 0x55,
    ]);

    /// Wraps 32 raw digest bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first ten characters, as listings show it. Not guaranteed to be unambiguous.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(10);
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; DIGEST_TEXT_LEN];
        BASE32.encode_mut(&self.0, &mut text);
        f.pad(std::str::from_utf8(&text).expect("base32 is ASCII"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ObjectError;

    /// Strict: upper case, correct padding, zero trailing bits, exactly 32 bytes.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = |reason| ObjectError::InvalidDigest {
            text: text.to_owned(),
            reason,
        };
        if text.len() != DIGEST_TEXT_LEN {
            return Err(invalid("a full digest has 56 characters"));
        }
        let bytes = BASE32
            .decode(text.as_bytes())
            .map_err(|_| invalid("not padded base32 (A-Z, 2-7, ending in ====)"))?;
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| invalid("a full digest has 32 bytes"))
    }
}

/// Hashes a byte stream into a [`Digest`].
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// A hasher that has seen no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Hashes `bytes` after everything before.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes seen.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// The beginning of a digest's text, as a person types it.
///
/// Holds 1 to 52 base32 symbols, without padding. Matching is on *characters*, a strict superset
/// of SPFS's matching on whole bytes, so no bits of the last character are lost.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DigestPrefix(String);

impl DigestPrefix {
    /// The symbols of the prefix, upper case, without padding.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `digest`'s text starts with this prefix.
    pub fn matches(&self, digest: &Digest) -> bool {
        digest.to_string().starts_with(&self.0)
    }

    /// The one digest this prefix means, where it is complete.
    pub fn to_full(&self) -> Option<Digest> {
        if self.0.len() != DIGEST_SYMBOLS {
            return None;
        }
        format!("{}====", self.0).parse().ok()
    }
}

impl fmt::Display for DigestPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DigestPrefix {
    type Err = ObjectError;

    /// Accepts what SPFS accepts: base32 symbols whose number is 0, 2, 4, 5 or 7 modulo 8, with
    /// or without padding.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = |reason| ObjectError::InvalidDigest {
            text: text.to_owned(),
            reason,
        };
        let symbols = text.trim_end_matches('=');
        if symbols.is_empty() {
            return Err(invalid("it is empty"));
        }
        if symbols.len() > DIGEST_SYMBOLS {
            return Err(invalid("it is longer than a full digest"));
        }
        if !symbols
            .bytes()
            .all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7'))
        {
            return Err(invalid("only A-Z and 2-7 are allowed"));
        }
        if matches!(symbols.len() % 8, 1 | 3 | 6) {
            return Err(invalid("no whole number of bytes has that many characters"));
        }
        let padded = symbols.len().next_multiple_of(8);
        if text.len() != symbols.len() && text.len() != padded {
            return Err(invalid("its padding is wrong"));
        }
        Ok(Self(symbols.to_owned()))
    }
}

impl From<Digest> for DigestPrefix {
    fn from(digest: Digest) -> Self {
        let mut text = digest.to_string();
        text.truncate(DIGEST_SYMBOLS);
        Self(text)
    }
}
