//! The answer to a read: bytes at once, or something to wait for.

use std::ops::Range;

use bytes::Bytes;
use farseek_object::Digest;
use farseek_reader::BlobReader;

use crate::error::{Result, VfsError};

/// The longest target Linux takes, without its closing NUL.
const TARGET_MAX: u64 = 4095;

/// Bytes of a file, or of the target of a link.
pub enum Reading {
    /// They were in memory.
    Ready(Bytes),
    /// They are not: someone has to wait for them.
    Pending(PendingRead),
}

/// A read that has to wait.
pub struct PendingRead {
    blob: BlobReader,
    range: Range<u64>,
    check: fn(Digest, &[u8]) -> Result<()>,
}

impl Reading {
    /// Reads `range`, which lies within the file.
    pub(crate) fn of_file(blob: BlobReader, range: Range<u64>) -> Result<Self> {
        PendingRead {
            blob,
            range,
            check: |_, _| Ok(()),
        }
        .start()
    }

    /// Reads the target of a link.
    pub(crate) fn of_link(blob: BlobReader) -> Result<Self> {
        let reason = match blob.size() {
            0 => "it is empty",
            size if size > TARGET_MAX => "it is longer than a path can be",
            size => {
                return PendingRead {
                    blob,
                    range: 0..size,
                    check: check_target,
                }
                .start();
            }
        };
        Err(VfsError::CorruptLink {
            digest: blob.digest(),
            reason,
        })
    }
}

impl PendingRead {
    fn start(self) -> Result<Reading> {
        if self.range.is_empty() {
            return Ok(Reading::Ready(Bytes::new()));
        }
        match self.blob.try_read(self.range.clone()) {
            Some(bytes) => self.checked(bytes).map(Reading::Ready),
            None => Ok(Reading::Pending(self)),
        }
    }

    /// Waits for the bytes. Dropping it gives them up.
    pub async fn wait(self) -> Result<Bytes> {
        let bytes = self.blob.read_at(self.range.clone()).await?;
        self.checked(bytes)
    }

    /// The kernel takes a short answer for the end of the file and fills the rest with zeros,
    /// so a number of bytes that is not the one asked for must never leave here.
    fn checked(&self, bytes: Bytes) -> Result<Bytes> {
        let (asked, given) = (self.range.end - self.range.start, bytes.len() as u64);
        let digest = self.blob.digest();
        if asked != given {
            return Err(VfsError::ShortRead {
                digest,
                asked,
                given,
            });
        }
        (self.check)(digest, &bytes)?;
        Ok(bytes)
    }
}

fn check_target(digest: Digest, target: &[u8]) -> Result<()> {
    match target.contains(&0) {
        true => Err(VfsError::CorruptLink {
            digest,
            reason: "it contains a NUL",
        }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_hold_no_nul() {
        assert!(check_target(Digest::NULL, b"a/b").is_ok());
        assert!(check_target(Digest::NULL, b"a\0b").is_err());
    }
}
