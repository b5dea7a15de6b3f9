//! How a gRPC server is used.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use farseek_object::TagNamespace;

use super::token::Token;

/// Whether whole payloads may come packed by zstd, which our own server does where they become
/// smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Packing {
    /// Never.
    Never,
    /// From other machines: within one, bytes travel faster than they are packed.
    #[default]
    Away,
    /// Always.
    Always,
}

/// How a [`GrpcRepository`](super::GrpcRepository) behaves.
#[derive(Debug, Clone)]
pub struct GrpcOptions {
    /// How long the server may make no progress before a call fails (`timeout_ms` of an address).
    pub stall: Duration,
    /// Attempts at a call, the first one counted. Payloads are not tried again here.
    pub attempts: u32,
    /// The namespace whose tags are meant; `None` for those outside any.
    pub namespace: Option<TagNamespace>,
    /// Bytes of the largest message received: guards memory.
    pub max_decode_message_size: usize,
    /// Bytes of the largest message sent. Stock servers take 4 MiB; what is larger they refuse
    /// themselves, in words, so nothing is gained by refusing it here.
    pub max_encode_message_size: usize,
    /// Who we are, for servers that ask. Sent with calls, and with payloads to wherever the
    /// server says they are; never from an encrypted connection to one that is not.
    pub token: Option<Token>,
    /// Whether whole payloads may come packed.
    pub packing: Packing,
    /// Varies the pauses between attempts: different in every process.
    pub seed: u64,
}

impl Default for GrpcOptions {
    /// Messages of up to 128 MiB: SPFS's own 4 MiB cut off at some 55,000 files, and the largest
    /// manifest that a stock peer can read (a million entries) has about 100 MiB.
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(30),
            attempts: 4,
            namespace: None,
            max_decode_message_size: 128 << 20,
            max_encode_message_size: usize::MAX,
            token: None,
            packing: Packing::default(),
            seed: RandomState::new().hash_one("seed"),
        }
    }
}
