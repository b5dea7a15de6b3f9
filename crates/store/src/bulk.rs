//! Many small payloads and objects in one step.
//!
//! What is small costs more to ask for than to move: a round trip, a task, a change of threads
//! each. A repository for which that can be saved says so by [`Repository::bulk`]; whoever uses it
//! goes the ordinary way where it does not, or where it answers that it cannot after all (a
//! server may not know these calls). Nothing is possible here that is not possible one by one.
//!
//! [`Repository::bulk`]: crate::Repository::bulk

use async_trait::async_trait;
use bytes::Bytes;
use farseek_object::{Blob, Digest, Object};

use crate::error::Result;

/// Bytes of the largest payload that travels with others.
pub(crate) const SMALL_MAX: u64 = 128 << 10;

/// Payloads that travel together, at most; beyond some hundreds nothing is gained.
pub(crate) const TOGETHER_MAX: usize = 256;

/// Bytes of those, but for the one that brings them there.
pub(crate) const TOGETHER_BYTES: u64 = 1 << 20;

/// A payload in memory, with its digest, which is computed here and nowhere else.
#[derive(Debug, Clone)]
pub struct SmallPayload {
    digest: Digest,
    bytes: Bytes,
    mode: Option<u32>,
}

impl SmallPayload {
    /// The payload of these bytes. `mode` is that of the file it is from; see
    /// [`PutOptions`](crate::PutOptions).
    pub fn new(bytes: Bytes, mode: Option<u32>) -> Self {
        let digest = Digest::of(&bytes);
        Self {
            digest,
            bytes,
            mode,
        }
    }

    /// The digest of its bytes.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// All of it.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The mode of the file it is from.
    pub fn mode(&self) -> Option<u32> {
        self.mode
    }
}

/// What a repository has of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlobState {
    /// Bytes of its payload, where that is there.
    pub payload: Option<u64>,
    /// Whether its object is there.
    pub object: bool,
}

/// Many at once. Every answer is in the order of what was asked for.
///
/// # Errors
/// All of them: `Unsupported` where the repository cannot do that after all.
#[async_trait]
pub trait Bulk: Send + Sync {
    /// What is there of each blob. An object that is said to be there is as young as if it had
    /// been written now: see [`refresh_object`](crate::Repository::refresh_object). Where
    /// [writers and sweeps exclude each other](crate::upkeep::Upkeep::is_exclusive) it is kept by what
    /// refers to it and is written before the hold ends.
    async fn look_for_blobs(&self, digests: Vec<Digest>) -> Result<Vec<BlobState>>;

    /// The blobs with their payloads, which are not checked against their digests; `None` for one
    /// of which not all is there, that is not small, or that there was no room for: it may be asked
    /// for by itself.
    async fn get_small(&self, digests: Vec<Digest>) -> Result<Vec<Option<(Blob, Bytes)>>>;

    /// Stores payloads, to be visible once they are [published](crate::Repository::publish).
    async fn put_small(&self, payloads: Vec<SmallPayload>) -> Result<()>;

    /// Stores small objects, to be visible once they are published, and not before payloads that
    /// were put before them.
    async fn put_objects(&self, objects: Vec<Object>) -> Result<()>;
}
