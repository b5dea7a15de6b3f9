//! A payload, packed by bzip2 as it is sent.
//!
//! That is what stock clients ask for first. Packing is work, so each step is done where blocking
//! is allowed, and nothing is read before the client has taken what was packed.

use bytes::{Buf, Bytes};
use bzip2::{Action, Compress, Compression, Status};
use futures::stream::{self, StreamExt};

use crate::blocking;
use crate::error::{Result, StoreError};
use crate::payload::Body;

/// Bytes of one packed piece, at most.
const STEP: usize = 64 << 10;

/// The bytes of `body`, packed.
pub(super) fn packed(body: Body) -> Body {
    let packing = Some((body, Bench::new()));
    let pieces = stream::try_unfold(packing, |packing| async move {
        let Some((mut body, mut bench)) = packing else {
            return Ok(None);
        };
        loop {
            if bench.input.is_empty() && !bench.ended {
                match body.next().await.transpose()? {
                    Some(piece) => bench.input = piece,
                    None => bench.ended = true,
                }
                continue;
            }
            let (back, piece, done) = step(bench).await?;
            bench = back;
            match (piece.is_empty(), done) {
                (_, true) => return Ok(Some((piece, None))),
                (false, false) => return Ok(Some((piece, Some((body, bench))))),
                (true, false) => {}
            }
        }
    });
    pieces.boxed()
}

/// What a step works on. It travels to the thread that does the work, and back.
struct Bench {
    input: Bytes,
    ended: bool,
    encoder: Compress,
}

impl Bench {
    fn new() -> Self {
        Self {
            input: Bytes::new(),
            ended: false,
            encoder: Compress::new(Compression::default(), 0),
        }
    }
}

async fn step(mut bench: Bench) -> Result<(Bench, Bytes, bool)> {
    blocking::run(move || {
        let mut piece = Vec::with_capacity(STEP);
        let action = match bench.ended {
            true => Action::Finish,
            false => Action::Run,
        };
        let before = bench.encoder.total_in();
        let status = bench.encoder.compress_vec(&bench.input, &mut piece, action);
        let status = status.map_err(|error| StoreError::Failed {
            location: "bzip2".to_owned(),
            reason: error.to_string(),
        })?;
        let taken = bench.encoder.total_in() - before;
        bench
            .input
            .advance(usize::try_from(taken).expect("no more is taken than there is"));
        Ok((bench, piece.into(), matches!(status, Status::StreamEnd)))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use bzip2::read::BzDecoder;
    use futures::TryStreamExt;

    use super::*;

    async fn round(pieces: Vec<Vec<u8>>) {
        let plain = pieces.concat();
        let body = stream::iter(pieces.into_iter().map(|piece| Ok(Bytes::from(piece)))).boxed();
        let packed: Vec<Bytes> = packed(body).try_collect().await.unwrap();
        assert!(packed.iter().all(|piece| piece.len() <= STEP));
        let mut back = Vec::new();
        BzDecoder::new(packed.concat().as_slice())
            .read_to_end(&mut back)
            .unwrap();
        assert!(back == plain);
    }

    #[tokio::test]
    async fn what_is_packed_is_what_was_there() {
        round(vec![]).await;
        round(vec![vec![], b"one".to_vec(), vec![], b"two".to_vec()]).await;
        let noise = |seed: u32| {
            let next = |state: &mut u32, ()| {
                *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                Some((*state >> 24) as u8)
            };
            std::iter::repeat_n((), 700_001)
                .scan(seed, next)
                .collect::<Vec<u8>>()
        };
        round(vec![noise(1), noise(2), noise(3)]).await;
        round(vec![vec![0; 5_000_000]]).await;
    }

    #[tokio::test]
    async fn an_error_breaks_it_off() {
        let broken = StoreError::Failed {
            location: "x".into(),
            reason: "y".into(),
        };
        let body = stream::iter([Ok(Bytes::from_static(b"abc")), Err(broken)]).boxed();
        assert!(packed(body).try_collect::<Vec<_>>().await.is_err());
    }
}
