//! A payload that our own server has packed by zstd, unpacked as it arrives.
//!
//! Bounded: the window by the format's header, which may not ask for more than [`WINDOW_MAX`], and
//! all that comes out by the size that the server tells. A step gives at most [`STEP`] bytes. Nothing
//! ends in silence: a body that ends within the stream, or short of the size, is an error.

use bytes::{Buf, Bytes};
use futures::stream::{self, StreamExt};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use crate::blocking;
use crate::error::{Result, StoreError};
use crate::payload::Body;

/// Bytes of one unpacked piece.
const STEP: usize = 256 << 10;

/// The largest window, as a power of two: ours has 1 MiB.
const WINDOW_MAX: u32 = 23;

struct Unpacking {
    source: String,
    packed: Body,
    /// Bytes that are still to come out.
    left: u64,
    ended: bool,
    done: bool,
    bench: Option<Bench>,
}

/// What a step works on. It travels to the thread that does the work, and back.
struct Bench {
    input: Bytes,
    decoder: Decoder<'static>,
    /// Whether the stream was read to its end.
    complete: bool,
    /// Whether the last step may have left bytes inside of the decoder.
    full: bool,
}

/// The `size` bytes of `packed`, which come from `source`.
pub(super) fn unpacked(source: String, packed: Body, size: u64) -> Body {
    let unpacking = Unpacking {
        source,
        packed,
        left: size,
        ended: false,
        done: false,
        bench: None,
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
            let mut bench = match self.bench.take() {
                Some(bench) => bench,
                None => Bench::new().map_err(|error| self.corrupt(error))?,
            };
            if bench.input.is_empty() && !bench.full && !self.ended {
                match self.packed.next().await.transpose()? {
                    Some(piece) => bench.input = piece,
                    None => self.ended = true,
                }
            }
            if bench.input.is_empty() && !bench.full {
                if self.ended {
                    return self.end(&bench).map(|()| None);
                }
                self.bench = Some(bench);
                continue;
            }
            if bench.complete {
                return Err(self.corrupt("something follows its end"));
            }
            let (bench, piece) = blocking::run(move || Ok(bench.step())).await?;
            self.bench = Some(bench);
            let piece = piece.map_err(|error| self.corrupt(error))?;
            let length = piece.len() as u64;
            let Some(left) = self.left.checked_sub(length) else {
                return Err(self.corrupt("it holds more than the payload it is"));
            };
            self.left = left;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }

    fn end(&self, bench: &Bench) -> Result<()> {
        match (bench.complete, self.left) {
            (true, 0) => Ok(()),
            (true, left) => Err(self.corrupt(format!("it ends {left} bytes early"))),
            (false, _) => Err(self.corrupt("it ends in the middle")),
        }
    }

    fn corrupt(&self, reason: impl std::fmt::Display) -> StoreError {
        StoreError::Corrupt {
            location: self.source.clone(),
            reason: format!("what it sends is not valid zstd: {reason}"),
        }
    }
}

impl Bench {
    fn new() -> std::io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_MAX))?;
        Ok(Self {
            input: Bytes::new(),
            decoder,
            complete: false,
            full: false,
        })
    }

    /// Unpacks up to [`STEP`] bytes.
    fn step(mut self) -> (Self, std::io::Result<Bytes>) {
        let mut piece = vec![0; STEP];
        let mut input = InBuffer::around(&self.input);
        let mut output = OutBuffer::around(piece.as_mut_slice());
        let run = self.decoder.run(&mut input, &mut output);
        let (taken, length) = (input.pos(), output.pos());
        self.input.advance(taken);
        let hint = match run {
            Ok(hint) => hint,
            Err(error) => return (self, Err(error)),
        };
        self.complete = hint == 0;
        self.full = length == STEP && !self.complete;
        piece.truncate(length);
        (self, Ok(piece.into()))
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    async fn unpack(packed: &[u8], piece: usize, size: u64) -> Result<Vec<Bytes>> {
        let pieces: Vec<_> = packed
            .chunks(piece)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        let body = unpacked("there".to_owned(), stream::iter(pieces).boxed(), size);
        body.try_collect().await
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length as u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .take(length)
            .collect()
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(bytes, 1).unwrap()
    }

    #[tokio::test]
    async fn streams_in_pieces_of_any_size() {
        for length in [0, 1, 1000, 1_200_000] {
            let bytes = text(length);
            let packed = packed(&bytes);
            for piece in [1 + length / 1000, 4096, usize::MAX] {
                let pieces = unpack(&packed, piece, length as u64).await.unwrap();
                assert!(pieces.concat() == bytes, "{length} by {piece}");
            }
        }
    }

    #[tokio::test]
    async fn what_unfolds_enormously_is_cut_where_the_payload_ends() {
        let zeros = vec![0; 50 << 20];
        let packed = packed(&zeros);
        assert!(packed.len() < 10_000, "{}", packed.len());
        let pieces = unpack(&packed, usize::MAX, zeros.len() as u64)
            .await
            .unwrap();
        assert!(pieces.iter().all(|piece| piece.len() <= STEP));
        assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), zeros.len());
        let said = unpack(&packed, usize::MAX, 1000)
            .await
            .unwrap_err()
            .to_string();
        assert!(said.contains("holds more"), "{said}");
        let said = unpack(&packed, usize::MAX, (50 << 20) + 1)
            .await
            .unwrap_err();
        assert!(said.to_string().contains("1 bytes early"), "{said}");
    }

    #[tokio::test]
    async fn damage_is_never_passed_on_in_silence() {
        let bytes = text(300_000);
        let packed = packed(&bytes);
        for length in [0, 1, 4, 100, packed.len() - 1] {
            let error = unpack(&packed[..length], 777, 300_000).await.unwrap_err();
            assert!(
                error.to_string().contains("ends in the middle"),
                "{length}: {error}"
            );
        }
        let mut broken = packed.clone();
        broken[1] ^= 0x40;
        assert!(unpack(&broken, 777, 300_000).await.is_err());
        let trailing = [packed, b"garbage".to_vec()].concat();
        assert!(unpack(&trailing, 777, 300_000).await.is_err());
    }

    #[tokio::test]
    async fn a_window_that_is_too_large_is_refused() {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(WINDOW_MAX + 1).unwrap();
        std::io::Write::write_all(&mut encoder, &text(1 << 20)).unwrap();
        let packed = encoder.finish().unwrap();
        assert!(unpack(&packed, 4096, 1 << 20).await.is_err());
    }
}
