//! From a request and the faults that strike it to an answer: decided as a value, then sent.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Frame;
use hyper::{Response, StatusCode};

use super::fault::Fault;
use crate::log::Progress;

/// Bytes a read of the file, where no fault says otherwise.
const PIECE: usize = 64 * 1024;

pub(super) type AnswerBody = UnsyncBoxBody<Bytes, io::Error>;

/// What is sent: the head, and how the body goes.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    source: Source,
    /// Bytes sent in all.
    length: u64,
    /// Bytes after which the connection is closed, or nothing more comes.
    end: Option<End>,
    chunked: bool,
    piece: usize,
    every: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Close(u64),
    Stall(u64),
}

impl End {
    fn at(self) -> u64 {
        match self {
            Self::Close(at) | Self::Stall(at) => at,
        }
    }
}

#[derive(Debug)]
enum Source {
    Text(Bytes),
    /// `start` is where the body begins; beyond `end` there are zeros.
    File {
        file: File,
        start: u64,
        end: u64,
        flip: Option<u64>,
    },
}

impl Source {
    fn read(&self, at: u64, length: usize) -> io::Result<Bytes> {
        match self {
            Self::Text(text) => {
                let at = usize::try_from(at).unwrap_or(usize::MAX).min(text.len());
                let mut piece = text.slice(at..text.len().min(at + length)).to_vec();
                piece.resize(length, 0);
                Ok(piece.into())
            }
            Self::File {
                file,
                start,
                end,
                flip,
            } => {
                let from = start + at;
                let mut piece = vec![0; length];
                let real = end.saturating_sub(from).min(length as u64);
                let real = usize::try_from(real).expect("it is at most a usize");
                file.read_exact_at(&mut piece[..real], from)?;
                if let Some(flip) = flip.filter(|f| (from..from + length as u64).contains(f)) {
                    let at = usize::try_from(flip - from).expect("it is within the piece");
                    piece[at] ^= 0xff;
                }
                Ok(piece.into())
            }
        }
    }
}

/// The answer to a well-formed request for `path`, with these faults.
pub(super) fn decide(
    root: &Path,
    path: &str,
    target: &str,
    range: Option<&str>,
    faults: &[Fault],
) -> Answer {
    let ignore_range = faults.contains(&Fault::IgnoreRange);
    let mut answer = instead(target, faults)
        .unwrap_or_else(|| from_file(root, path, range.filter(|_| !ignore_range)));
    for fault in faults {
        spoil(&mut answer, fault);
    }
    answer
}

fn instead(target: &str, faults: &[Fault]) -> Option<Answer> {
    faults.iter().find_map(|fault| match fault {
        Fault::Status { code, retry_after } => {
            let mut answer = text(*code, format!("status {code}, as the test wishes\n"));
            if let Some(seconds) = retry_after {
                answer
                    .headers
                    .push(("retry-after".into(), seconds.to_string()));
            }
            Some(answer)
        }
        Fault::Redirect(to) => Some(redirect(to)),
        Fault::RedirectLoop => Some(redirect(target)),
        Fault::Html => {
            let page = "<!DOCTYPE html><html><body>Please sign in</body></html>\n".repeat(40);
            let mut answer = text(200, page);
            answer.headers = vec![("content-type".into(), "text/html".into())];
            Some(answer)
        }
        _ => None,
    })
}

fn spoil(answer: &mut Answer, fault: &Fault) {
    match fault {
        Fault::Header { name, value } => {
            answer.headers.retain(|(n, _)| n != name);
            answer
                .headers
                .extend(value.clone().map(|value| ((*name).to_owned(), value)));
        }
        Fault::ShortBody(at) => answer.end = Some(End::Close(*at)),
        Fault::ShortAnswer(length) => answer.length = answer.length.min(*length),
        Fault::LongBody(more) => answer.length += more,
        Fault::Chunked => answer.chunked = true,
        Fault::StallAfter(at) => answer.end = Some(End::Stall(*at)),
        Fault::Drip { bytes, every } => {
            answer.piece = (*bytes).max(1);
            answer.every = Some(*every);
        }
        Fault::Flip(at) => {
            if let Source::File { flip, .. } = &mut answer.source {
                *flip = Some(*at);
            }
        }
        _ => {}
    }
}

fn text(status: u16, text: String) -> Answer {
    Answer {
        status,
        headers: vec![("content-type".into(), "text/plain".into())],
        length: text.len() as u64,
        source: Source::Text(text.into()),
        end: None,
        chunked: false,
        piece: PIECE,
        every: None,
    }
}

/// The answer to anything but GET and HEAD.
pub(super) fn refuse_method() -> Answer {
    text(405, "only GET and HEAD are served\n".into())
}

fn redirect(to: &str) -> Answer {
    let mut answer = text(302, format!("see {to}\n"));
    answer.headers.push(("location".into(), to.to_owned()));
    answer
}

fn from_file(root: &Path, path: &str, range: Option<&str>) -> Answer {
    let opened = below(root, path).map(File::open);
    let file = match opened {
        Some(Ok(file)) => file,
        Some(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            return text(403, format!("{path}: {error}\n"));
        }
        _ => return text(404, format!("{path} is not here\n")),
    };
    let size = match file.metadata() {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => return text(404, format!("{path} is not a file\n")),
    };
    let mut answer = text(200, String::new());
    answer.headers = vec![
        ("content-type".into(), "application/octet-stream".into()),
        ("accept-ranges".into(), "bytes".into()),
    ];
    answer.length = size;
    let mut start = 0;
    match range.and_then(parse_range) {
        None => {}
        Some((first, _)) if first >= size => {
            let mut answer = text(416, "there is no such range\n".into());
            answer
                .headers
                .push(("content-range".into(), format!("bytes */{size}")));
            return answer;
        }
        Some((first, last)) => {
            let last = last.min(size - 1);
            start = first;
            answer.status = 206;
            answer.length = last - first + 1;
            answer.headers.push((
                "content-range".into(),
                format!("bytes {first}-{last}/{size}"),
            ));
        }
    }
    answer.source = Source::File {
        file,
        start,
        end: start + answer.length,
        flip: None,
    };
    answer
}

/// The file `path` below `root`, where it does not leave it.
fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let relative = Path::new(path.trim_start_matches('/'));
    let plain = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    plain.then(|| root.join(relative))
}

/// First and last byte of a single range; suffix and multiple ranges are ignored, as a server may.
pub(crate) fn parse_range(header: &str) -> Option<(u64, u64)> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let first = first.parse().ok()?;
    let last = if last.is_empty() {
        u64::MAX
    } else {
        last.parse().ok()?
    };
    (first <= last).then_some((first, last))
}

impl Answer {
    /// The response to send; `head` asks for the head only.
    pub(super) fn into_response(self, head: bool, progress: Progress) -> Response<AnswerBody> {
        progress.answered(self.status);
        let mut response = Response::builder()
            .status(StatusCode::from_u16(self.status).expect("the test asks for a real status"));
        for (name, value) in &self.headers {
            response = response.header(name, value);
        }
        let announced = self
            .headers
            .iter()
            .any(|(name, _)| name == "content-length");
        if !self.chunked && !announced {
            response = response.header("content-length", self.length);
        }
        let body = if head { no_body() } else { self.body(progress) };
        response
            .body(body)
            .expect("the test asks for valid headers")
    }

    fn body(self, progress: Progress) -> AnswerBody {
        let frames = stream::unfold((self, progress, 0), |(answer, progress, at)| async move {
            let piece = answer.next(at).await?;
            let length = piece.as_ref().map_or(0, |piece| piece.len() as u64);
            progress.sent(length);
            let at = if piece.is_ok() { at + length } else { u64::MAX };
            Some((piece.map(Frame::data), (answer, progress, at)))
        });
        AnswerBody::new(StreamBody::new(frames))
    }

    /// The next piece of the body, `None` at its end.
    async fn next(&self, at: u64) -> Option<io::Result<Bytes>> {
        let stop = self
            .end
            .map_or(self.length, |end| end.at().min(self.length));
        if at >= stop {
            return match self.end {
                Some(End::Close(_)) if at != u64::MAX => {
                    // What was sent before must leave before the connection is torn down.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    Some(Err(io::Error::other("closed early, as the test wishes")))
                }
                Some(End::Stall(_)) => std::future::pending().await,
                _ => None,
            };
        }
        if let Some(every) = self.every {
            tokio::time::sleep(every).await;
        }
        let left = usize::try_from(stop - at).unwrap_or(usize::MAX);
        Some(self.source.read(at, left.min(self.piece)))
    }
}

fn no_body() -> AnswerBody {
    AnswerBody::new(StreamBody::new(stream::empty()))
}
