//! The HTTP half: payloads by digest, raw or packed, never by range and never with a length.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use bzip2::Compression;
use bzip2::write::{BzDecoder, BzEncoder};
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};

use super::fault::StockFault;
use super::shelf::Shelf;
use super::wire::{digest, field, number, ok};
use crate::log::Progress;

const RAW: &str = "application/octet-stream";
const PACKED: &str = "application/x-bzip2";

/// Bytes a read of the file.
const PIECE: usize = 64 << 10;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

fn hung_up() -> io::Error {
    io::Error::other("hung up, as a stock server does")
}

/// Answers a request, or drops the connection.
pub(super) async fn answer(
    shelf: &Shelf,
    request: Request<Incoming>,
    faults: &[StockFault],
    sent: Progress,
) -> io::Result<Response<Body>> {
    for fault in faults {
        match fault {
            StockFault::Http(code) => return Ok(status(*code)),
            StockFault::Panic => return Err(hung_up()),
            StockFault::Never => std::future::pending().await,
            StockFault::Delay(delay) => tokio::time::sleep(*delay).await,
            _ => {}
        }
    }
    match request.method().as_str() {
        "GET" => download(shelf, &request, faults, sent),
        "POST" => upload(shelf, request, faults).await,
        _ => Ok(status(405)),
    }
}

fn status(code: u16) -> Response<Body> {
    let body = Full::new(Bytes::new()).map_err(|never| match never {});
    Response::builder()
        .status(code)
        .body(UnsyncBoxBody::new(body))
        .expect("the status is one")
}

/// The kind of the first `Accept` line that is exactly one of the two; raw where none is.
fn wanted(request: &Request<Incoming>) -> &'static str {
    let lines = request.headers().get_all("accept").iter();
    let mut known = lines.filter_map(|line| match line.as_bytes() {
        line if line == RAW.as_bytes() => Some(RAW),
        line if line == PACKED.as_bytes() => Some(PACKED),
        _ => None,
    });
    known.next().unwrap_or(RAW)
}

fn download(
    shelf: &Shelf,
    request: &Request<Incoming>,
    faults: &[StockFault],
    sent: Progress,
) -> io::Result<Response<Body>> {
    let name = request.uri().path().trim_start_matches('/');
    let found = name.parse().map_err(|_| hung_up())?;
    let file = File::open(shelf.payload(&found)).map_err(|_| hung_up())?;
    let kind = match faults.contains(&StockFault::Packed) {
        true => PACKED,
        false => wanted(request),
    };
    let sending = Sending {
        file,
        packer: (kind == PACKED).then(|| BzEncoder::new(Vec::new(), Compression::new(6))),
        at: 0,
        ended: false,
        faults: faults.to_vec(),
        sent,
    };
    let pieces = stream::unfold(sending, |mut sending| async move {
        let piece = sending.next().await.transpose()?;
        Some((piece.map(Frame::data), sending))
    });
    Ok(Response::builder()
        .header("content-type", kind)
        .body(UnsyncBoxBody::new(StreamBody::new(pieces)))
        .expect("the head is one"))
}

struct Sending {
    file: File,
    packer: Option<BzEncoder<Vec<u8>>>,
    /// Bytes sent so far.
    at: usize,
    ended: bool,
    faults: Vec<StockFault>,
    sent: Progress,
}

impl Sending {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(pause) = self.pause() {
            tokio::time::sleep(pause).await;
        }
        let Some(mut piece) = self.produce()? else {
            return Ok(None);
        };
        for fault in self.faults.clone() {
            match fault {
                StockFault::Flip(at) if (self.at..self.at + piece.len()).contains(&at) => {
                    piece[at - self.at] ^= 0xff;
                }
                StockFault::Cut(end) if self.at >= end => return Err(hung_up()),
                StockFault::Short(end) if self.at >= end => return Ok(None),
                StockFault::Stall(end) if self.at >= end => std::future::pending().await,
                StockFault::Cut(end) | StockFault::Short(end) | StockFault::Stall(end) => {
                    piece.truncate(end - self.at);
                }
                _ => {}
            }
        }
        self.at += piece.len();
        self.sent.sent(piece.len() as u64);
        Ok(Some(piece.into()))
    }

    fn pause(&self) -> Option<Duration> {
        self.faults.iter().find_map(|fault| match fault {
            StockFault::Drip(pause) => Some(*pause),
            _ => None,
        })
    }

    /// The next bytes to send, of the file or packed.
    fn produce(&mut self) -> io::Result<Option<Vec<u8>>> {
        while !self.ended {
            let mut piece = vec![0; PIECE];
            let read = self.file.read(&mut piece)?;
            piece.truncate(read);
            self.ended = read == 0;
            let Some(mut packer) = self.packer.take() else {
                return Ok(Some(piece).filter(|piece| !piece.is_empty()));
            };
            packer.write_all(&piece)?;
            let out = match self.ended {
                true => packer.finish()?,
                false => {
                    let out = std::mem::take(packer.get_mut());
                    self.packer = Some(packer);
                    out
                }
            };
            if !out.is_empty() {
                return Ok(Some(out));
            }
        }
        Ok(None)
    }
}

async fn upload(
    shelf: &Shelf,
    request: Request<Incoming>,
    faults: &[StockFault],
) -> io::Result<Response<Body>> {
    let kind = request.headers().get("content-type").cloned();
    let body = request
        .into_body()
        .collect()
        .await
        .map_err(io::Error::other)?;
    let body = body.to_bytes();
    let bytes = match kind.as_ref().map(|kind| kind.as_bytes()) {
        None => body.to_vec(),
        Some(kind) if kind == RAW.as_bytes() => body.to_vec(),
        Some(kind) if kind == PACKED.as_bytes() => {
            let mut unpacker = BzDecoder::new(Vec::new());
            unpacker.write_all(&body)?;
            unpacker.finish()?
        }
        Some(_) => return Ok(status(415)),
    };
    let mut stored = shelf.store_payload(&bytes)?;
    if faults.contains(&StockFault::WrongUpload) {
        stored = farseek_object::Digest::EMPTY;
    }
    let result = [field(1, &digest(&stored)), number(2, bytes.len() as u64)].concat();
    let body = Full::new(Bytes::from(ok(&result))).map_err(|never| match never {});
    Ok(Response::new(UnsyncBoxBody::new(body)))
}
