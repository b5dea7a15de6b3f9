//! Trust as a type: bytes nobody has vouched for cannot be mistaken for verified ones.
//!
//! What comes from anywhere is [`Provisional`]. It becomes [`Verified`] only here: when the hash of
//! a whole payload is its digest, when a block is one that such a hash has covered ([`Proof`]), or
//! when the local repository vouches for it. Only [`Servable`] bytes enter the memory tier and are
//! answered to readers, and [`Verify::admit`] says which may: under [`Verify::Strict`], verified
//! ones alone. Promotion takes verified bytes alone, whatever is set.

use bytes::Bytes;
use farseek_object::{Digest, Hasher};

/// What is hashed before it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Small payloads before their first byte; large ones as soon as all of them is on the disk:
    /// a payload that turns out to be false is refused from then on.
    #[default]
    Auto,
    /// Everything before its first byte: a large payload is fetched and hashed as a whole first.
    Strict,
    /// Nothing. Sizes are still checked. Nothing is promoted, either.
    Off,
}

/// Bytes that may be anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provisional(Bytes);

/// Bytes of the payload that they are said to be of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified(Bytes);

/// A block, and how far it is to be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Block {
    /// It is what it should be.
    Verified(Verified),
    /// It has the size it should have.
    Provisional(Provisional),
}

/// Bytes that may be answered to readers as things are set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Servable(Block);

impl Provisional {
    /// Bytes from somewhere.
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Hashes a whole payload.
    ///
    /// # Errors
    /// The bytes, where their digest is another.
    pub(crate) fn verify_whole(self, digest: &Digest) -> Result<Verified, Self> {
        match Digest::of(&self.0) == *digest {
            true => Ok(Verified(self.0)),
            false => Err(self),
        }
    }

    /// Takes the local repository's word: it hashed the payload when it was stored.
    pub(crate) fn vouched_by_repository(self) -> Verified {
        Verified(self.0)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Verified {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Block {
    /// The bytes, to be hashed or written to the disk tier, which trusts nothing.
    pub(crate) fn bytes(&self) -> &Bytes {
        match self {
            Self::Verified(Verified(bytes)) | Self::Provisional(Provisional(bytes)) => bytes,
        }
    }
}

impl Servable {
    pub(crate) fn into_bytes(self) -> Bytes {
        match self.0 {
            Block::Verified(Verified(bytes)) | Block::Provisional(Provisional(bytes)) => bytes,
        }
    }

    /// The block it is.
    pub(crate) fn into_block(self) -> Block {
        self.0
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        self.0.bytes()
    }
}

impl Verify {
    /// Whether a block may be served.
    pub(crate) fn admit(self, block: Block) -> Option<Servable> {
        let admitted = matches!(block, Block::Verified(_)) || self != Self::Strict;
        admitted.then_some(Servable(block))
    }
}

/// Bytes of a block's own hash that a proof keeps: nobody finds another block with the same.
const KEPT: usize = 16;

/// What every block of one payload hashes to, learnt while the whole was hashed and right: with it
/// each block is verified by itself, wherever it comes from.
#[derive(Debug)]
pub(crate) struct Proof {
    blocks: Vec<[u8; KEPT]>,
}

impl Proof {
    /// Checks block `index`.
    ///
    /// # Errors
    /// The bytes, where they are not the payload's.
    pub(crate) fn check(&self, index: u64, block: Provisional) -> Result<Verified, Provisional> {
        let known = usize::try_from(index).ok().and_then(|i| self.blocks.get(i));
        match known == Some(&own_hash(&block.0)) {
            true => Ok(Verified(block.0)),
            false => Err(block),
        }
    }
}

/// Makes a proof of the blocks of one payload, given in order.
#[derive(Debug, Default)]
pub(crate) struct Prover {
    whole: Hasher,
    blocks: Vec<[u8; KEPT]>,
}

impl Prover {
    /// Takes the next block in.
    pub(crate) fn add(&mut self, block: &[u8]) {
        self.whole.update(block);
        self.blocks.push(own_hash(block));
    }

    /// The proof, if all blocks together are the payload `digest`.
    ///
    /// # Errors
    /// The digest that they have instead.
    pub(crate) fn finish(self, digest: &Digest) -> Result<Proof, Digest> {
        let actual = self.whole.finish();
        match actual == *digest {
            true => Ok(Proof {
                blocks: self.blocks,
            }),
            false => Err(actual),
        }
    }
}

fn own_hash(block: &[u8]) -> [u8; KEPT] {
    let digest = Digest::of(block);
    let mut kept = [0; KEPT];
    kept.copy_from_slice(&digest.as_bytes()[..KEPT]);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provisional(bytes: &'static [u8]) -> Provisional {
        Provisional::new(Bytes::from_static(bytes))
    }

    #[test]
    fn strict_serves_verified_bytes_alone() {
        let verified = provisional(b"abc")
            .verify_whole(&Digest::of(b"abc"))
            .unwrap();
        let block = Block::Provisional(provisional(b"abc"));
        for verify in [Verify::Auto, Verify::Off] {
            assert_eq!(verify.admit(block.clone()).unwrap().bytes(), "abc");
        }
        assert_eq!(Verify::Strict.admit(block), None);
        let served = Verify::Strict.admit(Block::Verified(verified)).unwrap();
        assert_eq!(served.bytes(), "abc");
    }

    #[test]
    fn another_digest_is_refused() {
        let refused = provisional(b"abd").verify_whole(&Digest::of(b"abc"));
        assert_eq!(refused, Err(provisional(b"abd")));
    }

    #[test]
    fn a_proof_knows_each_block_and_its_place() {
        let mut prover = Prover::default();
        prover.add(b"one");
        prover.add(b"two");
        let proof = prover.finish(&Digest::of(b"onetwo")).unwrap();
        assert!(proof.check(0, provisional(b"one")).is_ok());
        assert!(proof.check(1, provisional(b"one")).is_err());
        assert!(proof.check(1, provisional(b"twO")).is_err());
        assert!(proof.check(2, provisional(b"two")).is_err());
        let mut liar = Prover::default();
        liar.add(b"one");
        assert_eq!(
            liar.finish(&Digest::of(b"two")).err(),
            Some(Digest::of(b"one"))
        );
    }
}
