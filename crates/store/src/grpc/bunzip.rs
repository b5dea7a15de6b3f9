//! A bzip2 stream, unpacked as it arrives.
//!
//! Bounded: a step gives at most [`STEP`] bytes, however much they were packed, so a body that
//! unfolds without end costs its reader what it takes and no more. Unpacking is work, so each step
//! is done where blocking is allowed. Nothing ends in silence: a body that ends within a stream,
//! or that is none, is an error.

use bytes::{Buf, Bytes};
use bzip2::{Decompress, Status};
use futures::stream::{self, StreamExt};

use crate::blocking;
use crate::error::{Result, StoreError};
use crate::payload::Body;

/// Bytes of one unpacked piece.
const STEP: usize = 256 << 10;

struct Unpacking {
    source: String,
    packed: Body,
    ended: bool,
    done: bool,
    bench: Bench,
}

/// What a step works on. It travels to the thread that does the work, and back.
#[derive(Default)]
struct Bench {
    input: Bytes,
    /// Of the stream being read; none between streams, of which there may be several.
    decoder: Option<Decompress>,
    /// Whether a stream was read to its end.
    complete: bool,
    /// Whether the last step may have left bytes inside of the decoder.
    full: bool,
}

/// The bytes of `packed`, which come from `source`.
pub(crate) fn unpacked(source: String, packed: Body) -> Body {
    let unpacking = Unpacking {
        source,
        packed,
        ended: false,
        done: false,
        bench: Bench::default(),
    };
    stream::unfold(unpacking, |mut unpacking| async move {
        if unpacking.done {
            return None;
        }
        let piece = unpacking.next().await.transpose()?;
        unpacking.done = piece.is_err();
        Some((piece, unpacking))
    })
    .boxed()
}

impl Unpacking {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.bench.wants_input() && !self.ended {
                match self.packed.next().await.transpose()? {
                    Some(piece) => self.bench.input = piece,
                    None => self.ended = true,
                }
            }
            if self.bench.wants_input() {
                match self.ended {
                    true => return self.end().map(|()| None),
                    false => continue,
                }
            }
            let piece = self.step().await?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }

    async fn step(&mut self) -> Result<Bytes> {
        let mut bench = std::mem::take(&mut self.bench);
        let (bench, piece) = blocking::run(move || {
            let piece = bench.step();
            Ok((bench, piece))
        })
        .await?;
        self.bench = bench;
        piece.map_err(|reason| self.corrupt(reason))
    }

    fn end(&self) -> Result<()> {
        match self.bench.complete && self.bench.decoder.is_none() {
            true => Ok(()),
            false => Err(self.corrupt("it ends in the middle")),
        }
    }

    fn corrupt(&self, reason: impl std::fmt::Display) -> StoreError {
        StoreError::Corrupt {
            location: self.source.clone(),
            reason: format!("what it sends is not valid bzip2: {reason}"),
        }
    }
}

impl Bench {
    fn wants_input(&self) -> bool {
        self.input.is_empty() && !self.full
    }

    /// Unpacks up to [`STEP`] bytes.
    fn step(&mut self) -> Result<Bytes, String> {
        let decoder = self.decoder.get_or_insert_with(|| Decompress::new(false));
        let before = decoder.total_in();
        let mut piece = Vec::with_capacity(STEP);
        let status = decoder.decompress_vec(&self.input, &mut piece);
        let taken = decoder.total_in() - before;
        let taken = usize::try_from(taken).expect("no more is taken than there is");
        let status = status.map_err(|error| error.to_string())?;
        let stuck = taken == 0 && piece.is_empty() && !self.input.is_empty();
        self.input.advance(taken);
        self.full = piece.len() == piece.capacity();
        match status {
            Status::StreamEnd => {
                self.decoder = None;
                self.complete = true;
                self.full = false;
            }
            Status::MemNeeded => return Err("there is not enough memory".to_owned()),
            _ if stuck => return Err("it does not go on".to_owned()),
            _ => {}
        }
        Ok(piece.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use bzip2::Compression;
    use bzip2::write::BzEncoder;
    use futures::TryStreamExt;

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = BzEncoder::new(Vec::new(), Compression::new(6));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    async fn unpack(packed: &[u8], piece: usize) -> Result<Vec<Bytes>> {
        let pieces: Vec<_> = packed
            .chunks(piece)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        let body = unpacked("there".to_owned(), stream::iter(pieces).boxed());
        body.try_collect().await
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u32;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    #[tokio::test]
    async fn streams_in_pieces_of_any_size() {
        for length in [0, 1, 1000, 1_200_000] {
            let bytes = noise(length);
            let packed = packed(&bytes);
            for piece in [1 + length / 1000, 4096, usize::MAX] {
                let pieces = unpack(&packed, piece).await.unwrap();
                assert_eq!(pieces.concat(), bytes, "{length} by {piece}");
            }
        }
        let several = [packed(b"one "), packed(b""), packed(b"two")].concat();
        assert_eq!(unpack(&several, 3).await.unwrap().concat(), b"one two");
    }

    #[tokio::test]
    async fn what_unfolds_enormously_comes_in_small_pieces() {
        let zeros = vec![0; 50 << 20];
        let packed = packed(&zeros);
        assert!(packed.len() < 10_000, "{}", packed.len());
        let pieces = unpack(&packed, usize::MAX).await.unwrap();
        assert!(pieces.iter().all(|piece| piece.len() <= STEP));
        assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), zeros.len());
    }

    #[tokio::test]
    async fn damage_is_never_passed_on_in_silence() {
        let bytes = noise(300_000);
        let packed = packed(&bytes);
        for length in [0, 1, 4, 1000, packed.len() - 1] {
            let said = unpack(&packed[..length], 777)
                .await
                .unwrap_err()
                .to_string();
            assert!(said.contains("ends in the middle"), "{length}: {said}");
        }
        for at in [0, 3, 4, 5000, packed.len() - 2] {
            let mut broken = packed.clone();
            broken[at] ^= 0x40;
            let error = unpack(&broken, 777).await.unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{at}: {error}");
        }
        let trailing = [packed, b"garbage".to_vec()].concat();
        assert!(unpack(&trailing, 777).await.is_err());
    }
}
