//! A client as SPFS's own is: what it sends, byte for byte, and nothing that it would not.
//!
//! It shares no code with the server that it tests: messages are bytes, put together by hand;
//! gRPC's frames are written here; the `:scheme` of its calls is `http2`, as recorded. For
//! payloads it opens a connection a request, sends absolute-form request lines, no `Host`, and two
//! lines of `Accept`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};

/// How long anything may take before a test is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a call gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// The messages of the answer.
    pub messages: Vec<Vec<u8>>,
    /// `grpc-status`, or the status of HTTP where there was none.
    pub status: String,
    /// `grpc-message`, as it is on the wire.
    pub reason: String,
}

impl Called {
    /// The one message of an answer that went well.
    ///
    /// # Panics
    /// Where the call failed, or gave another number of messages.
    pub fn message(&self) -> &[u8] {
        match (self.status.as_str(), self.messages.as_slice()) {
            ("0", [message]) => message,
            _ => panic!("not one message: {self:?}"),
        }
    }

    /// The field of the message that holds the result: 1 is an error, 2 is the value.
    ///
    /// # Panics
    /// Where there is no such field.
    pub fn field(&self, number: u64) -> Vec<u8> {
        let fields = fields(self.message());
        let found = fields.into_iter().find(|(found, _)| *found == number);
        found
            .unwrap_or_else(|| panic!("no field {number}: {self:?}"))
            .1
    }
}

/// A connection for calls.
#[derive(Debug, Clone)]
pub struct StockClient {
    sender: http2::SendRequest<Full<Bytes>>,
    address: SocketAddr,
    token: Option<String>,
}

impl StockClient {
    /// Connects.
    ///
    /// # Panics
    /// Where it cannot.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = tokio::net::TcpStream::connect(address).await;
        let stream = stream.expect("connect");
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        Self::over(stream, address).await
    }

    /// Speaks over `stream`.
    ///
    /// # Panics
    /// Where the server speaks something else.
    pub async fn over(
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        address: SocketAddr,
    ) -> Self {
        let greeting = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream));
        let (sender, connection) = greeting.await.expect("speak HTTP/2");
        tokio::spawn(connection);
        Self {
            sender,
            address,
            token: None,
        }
    }

    /// The same, with a token: the one thing that a stock client cannot send.
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        let token = Some(format!("Bearer {token}"));
        Self { token, ..self }
    }

    /// Calls `path` with one message.
    ///
    /// # Panics
    /// Where the connection breaks.
    pub async fn call(&self, path: &str, message: &[u8]) -> Called {
        let answer = self.try_call(path, message).await;
        answer.expect("the connection holds")
    }

    /// As [`call`](Self::call), where the connection may break.
    pub async fn try_call(&self, path: &str, message: &[u8]) -> Result<Called, hyper::Error> {
        let mut framed = vec![0];
        let length = u32::try_from(message.len()).expect("a message is below 4 GiB");
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(message);
        let mut request = Request::post(format!("http2://{}{path}", self.address))
            .version(hyper::Version::HTTP_2)
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header("user-agent", "tonic/0.13.1");
        if let Some(token) = &self.token {
            request = request.header("authorization", token);
        }
        let request = request.body(Full::new(framed.into())).expect("a request");
        let mut sender = self.sender.clone();
        sender.ready().await?;
        let answering = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = body.collect().await?;
            let trailers = body.trailers().cloned().unwrap_or_default();
            Ok::<_, hyper::Error>((head, trailers, body.to_bytes()))
        };
        let answer = tokio::time::timeout(PATIENCE, answering).await;
        let (head, trailers, bytes) = answer.expect("an answer in time")?;
        let text = |name: &str| {
            let find = |headers: &HeaderMap| Some(headers.get(name)?.to_str().ok()?.to_owned());
            find(&trailers).or_else(|| find(&head.headers))
        };
        Ok(Called {
            messages: unframed(&bytes),
            status: text("grpc-status").unwrap_or_else(|| format!("HTTP {}", head.status)),
            reason: text("grpc-message").unwrap_or_default(),
        })
    }
}

fn unframed(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        assert!(
            head[0] == 0 && rest.len() >= length,
            "a whole message, not compressed"
        );
        let (message, after) = rest.split_at(length);
        messages.push(message.to_vec());
        bytes = after;
    }
    messages
}

/// An answer of HTTP/1.1.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body, without its chunks.
    pub body: Vec<u8>,
}

impl Response {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What a stock client sends to get a payload. The line may be the whole URL, as it is there.
pub fn download(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\naccept: application/x-bzip2\r\n\
         accept: application/octet-stream\r\n\r\n"
    )
}

/// What a stock client sends to store a payload, in chunks of at most 4096 bytes.
pub fn upload(target: &str, packed: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {target} HTTP/1.1\r\ncontent-type: application/x-bzip2\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    let mut bytes = head.into_bytes();
    for chunk in packed.chunks(4096) {
        bytes.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Sends `request` as it is over a connection of its own, and reads one answer. It blocks.
///
/// # Errors
/// What breaks, an answer that is cut short among it.
pub fn exchange(address: SocketAddr, request: &[u8]) -> io::Result<Response> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // A server may answer before it has read all, and then close.
    let sent = stream.write_all(request);
    let answer = receive(&mut stream, request.starts_with(b"HEAD"));
    answer.or_else(|error| sent.and(Err(error)))
}

/// Reads one answer; the one to `HEAD` has no body.
///
/// # Errors
/// What breaks, an answer that is cut short among it.
pub fn receive(stream: &mut impl Read, head_only: bool) -> io::Result<Response> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.trim_end().split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let mut response = Response {
        status: status.ok_or_else(|| io::Error::other("no status"))?,
        headers: headers
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect(),
        body: Vec::new(),
    };
    if !head_only {
        response.body = receive_body(stream, &response)?;
    }
    Ok(response)
}

fn receive_body(stream: &mut impl Read, response: &Response) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = response.header("content-length") {
        let length = length.parse().map_err(io::Error::other)?;
        body.resize(length, 0);
        stream.read_exact(&mut body)?;
    } else if response.header("transfer-encoding") == Some("chunked") {
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                line.extend_from_slice(&byte);
            }
            let line = String::from_utf8_lossy(&line);
            let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            let start = body.len();
            body.resize(start + length + 2, 0);
            stream.read_exact(&mut body[start..])?;
            body.truncate(start + length);
            if length == 0 {
                break;
            }
        }
    }
    Ok(body)
}

/// A field of a message: its number and its bytes.
pub fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3 | 2, &mut out);
    varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

/// The message of a digest, as the field `number` of another.
pub fn digest_field(number: u64, digest: &[u8]) -> Vec<u8> {
    field(number, &field(1, digest))
}

/// The fields of a message in their order; numbers as eight bytes, big end first.
///
/// # Panics
/// Where it is none.
pub fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = read_varint(&mut bytes);
        let value = read_varint(&mut bytes);
        let value = match key & 7 {
            0 => value.to_be_bytes().to_vec(),
            2 => {
                let length = usize::try_from(value).expect("a length");
                let (value, after) = bytes.split_at(length);
                bytes = after;
                value.to_vec()
            }
            kind => panic!("a field of the kind {kind}"),
        };
        fields.push((key >> 3, value));
    }
    fields
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = bytes.split_first().expect("a number goes on");
        *bytes = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("a number without an end")
}
