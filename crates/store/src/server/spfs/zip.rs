//! A payload, packed by zstd as it is sent, for clients that say they take that.
//!
//! Only a whole payload, only where samples of it become smaller, and only a few at once: who comes
//! when there are enough gets the bytes as they are. Packing is work, so each step is done where
//! blocking is allowed, and nothing is read before the client has taken what was packed.
//! Deliberately absent: uploads, which go on by positions in the plain bytes.

use bytes::{Buf, Bytes};
use farseek_object::Digest;
use futures::TryStreamExt;
use futures::stream::{self, StreamExt};
use hyper::header::{ACCEPT_ENCODING, HeaderMap, RANGE};
use tokio::sync::OwnedSemaphorePermit;
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};

use crate::blocking;
use crate::error::{Result, StoreError};
use crate::payload::Body;
use crate::repository::Repository;

/// Payloads that are packed at once: each takes a processor and some MiB.
pub(super) const ZIPS: usize = 8;

/// The fastest level. Measured on shared libraries: a third of the bytes, packed at some 400 MB/s and
/// unpacked at 700 MB/s a processor. So it gains on lines up to some Gbit/s and loses within a
/// machine; level 3 takes another eighth off, at two thirds of the speed.
const LEVEL: i32 = 1;

/// The window that a client has to keep, as a power of two: 1 MiB.
const WINDOW: u32 = 20;

/// Smaller ones are not worth the question.
const SIZE_MIN: u64 = 64 << 10;

/// Bytes of a sample.
const SAMPLE: u64 = 32 << 10;

/// Bytes of one packed piece, at most.
const STEP: usize = 64 << 10;

/// Whether who asks takes zstd, for the whole of a payload.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(ACCEPT_ENCODING).iter();
    let mut codings = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','));
    let takes = codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_zstd = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("zstd"));
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        is_zstd && weight.is_none_or(|weight| weight > 0.0)
    });
    takes && !headers.contains_key(RANGE)
}

/// Whether a payload of `size` bytes becomes smaller, by samples of its beginning and its middle: each
/// by a fifth, or it is not worth the work at both ends.
pub(super) async fn shrinks(
    repository: &dyn Repository,
    digest: &Digest,
    size: u64,
) -> Result<bool> {
    if size < SIZE_MIN {
        return Ok(false);
    }
    for start in [0, size / 2] {
        let range = start..start + SAMPLE;
        let payload = repository.get_payload(digest, range.clone()).await?;
        let body = crate::server::body::trimmed(payload, range)?;
        let pieces: Vec<Bytes> = body.try_collect().await?;
        let sample = pieces.concat();
        let packing = move || {
            let packed = zstd::bulk::compress(&sample, LEVEL).map_err(failed)?;
            Ok(packed.len() < sample.len() / 5 * 4)
        };
        if !blocking::run(packing).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The bytes of `body`, packed; `permit` is one of the few that do that.
pub(super) fn packed(body: Body, permit: OwnedSemaphorePermit) -> Result<Body> {
    let packing = Some((body, Bench::new(permit)?));
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
            }
            let (back, piece, done) = blocking::run(move || bench.step()).await?;
            bench = back;
            match (piece.is_empty(), done) {
                (_, true) => return Ok(Some((piece, None))),
                (false, false) => return Ok(Some((piece, Some((body, bench))))),
                (true, false) => {}
            }
        }
    });
    Ok(pieces.boxed())
}

/// What a step works on. It travels to the thread that does the work, and back.
struct Bench {
    input: Bytes,
    ended: bool,
    encoder: Encoder<'static>,
    _permit: OwnedSemaphorePermit,
}

impl Bench {
    fn new(permit: OwnedSemaphorePermit) -> Result<Self> {
        let mut encoder = Encoder::new(LEVEL).map_err(failed)?;
        let window = encoder.set_parameter(CParameter::WindowLog(WINDOW));
        window.map_err(failed)?;
        Ok(Self {
            input: Bytes::new(),
            ended: false,
            encoder,
            _permit: permit,
        })
    }

    /// Packs what there is, up to [`STEP`] bytes of output, and tells whether that is the end.
    fn step(mut self) -> Result<(Self, Bytes, bool)> {
        let mut piece = vec![0; STEP];
        let mut output = OutBuffer::around(piece.as_mut_slice());
        let mut done = false;
        if self.input.is_empty() && self.ended {
            done = self.encoder.finish(&mut output, true).map_err(failed)? == 0;
        } else {
            let mut input = InBuffer::around(&self.input);
            let run = self.encoder.run(&mut input, &mut output);
            run.map_err(failed)?;
            let taken = input.pos();
            self.input.advance(taken);
        }
        let length = output.pos();
        piece.truncate(length);
        Ok((self, piece.into(), done))
    }
}

fn failed(error: std::io::Error) -> StoreError {
    StoreError::Failed {
        location: "zstd".to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_zstd() {
        let wanted = |lines: &[(hyper::header::HeaderName, &str)]| {
            let lines = lines
                .iter()
                .map(|(name, text)| (name.clone(), text.parse().unwrap()));
            is_wanted(&lines.collect())
        };
        for list in ["zstd", "gzip, zstd", "ZSTD;q=0.5", "br , zstd ; q=1"] {
            assert!(wanted(&[(ACCEPT_ENCODING, list)]), "{list}");
            let range = (RANGE, "bytes=0-");
            assert!(!wanted(&[(ACCEPT_ENCODING, list), range]), "{list}");
        }
        for list in [
            "",
            "identity",
            "*",
            "gzip",
            "zstd;q=0",
            "zstd;q=0.0",
            "xzstd",
        ] {
            assert!(!wanted(&[(ACCEPT_ENCODING, list)]), "{list}");
        }
        assert!(!wanted(&[]));
    }
}
