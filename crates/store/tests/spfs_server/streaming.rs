//! Memory stays flat: a source that never ends is held back by a client that takes nothing.

use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use farseek_object::{Digest, DigestPrefix, Header, Object, Platform, Tag, TagName, TagStream};
use farseek_store::{Body, Payload, PutOptions, Repository, Result, TagEntry};
use farseek_testkit::stock_client::{download, receive};
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::line::{connect, framed, request};
use super::{open_to_all, serve};

const PIECE: u64 = 64 << 10;

/// More than any buffer between a source and a client holds, the kernel's included.
const HELD_MOST: u64 = 64 << 20;

/// A repository of payloads and digests without end, which counts what is taken from it.
#[derive(Default)]
pub(crate) struct Endless {
    bytes: Arc<AtomicU64>,
    digests: Arc<AtomicU64>,
    pub(crate) objects: Arc<AtomicU64>,
}

/// Layers of each platform that it has: 2 MB.
const LAYERS: usize = 65_000;

/// Bytes of each, more or less.
pub(crate) const OBJECT: u64 = LAYERS as u64 * 32;

impl fmt::Debug for Endless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Endless")
    }
}

impl Endless {
    fn all_digests(&self) -> BoxStream<'_, Result<Digest>> {
        let counted = stream::repeat_with(|| {
            let number = self.digests.fetch_add(1, Ordering::SeqCst);
            Ok(Digest::of(&number.to_be_bytes()))
        });
        counted.boxed()
    }
}

#[async_trait]
impl Repository for Endless {
    fn location(&self) -> &str {
        "endless:"
    }

    async fn has_object(&self, _: &Digest) -> Result<bool> {
        Ok(true)
    }

    async fn get_object(&self, digest: &Digest) -> Result<Object> {
        self.objects.fetch_add(1, Ordering::SeqCst);
        Ok(Object::Platform(Platform {
            header: Header::default(),
            layers: vec![*digest; LAYERS],
        }))
    }

    async fn put_object(&self, _: &Object, _: PutOptions) -> Result<Digest> {
        unreachable!("nobody asks for it")
    }

    async fn remove_object(&self, _: &Digest) -> Result<()> {
        Ok(())
    }

    fn list_objects(&self, _: Option<&DigestPrefix>) -> BoxStream<'_, Result<Digest>> {
        self.all_digests()
    }

    async fn payload_size(&self, _: &Digest) -> Result<Option<u64>> {
        Ok(Some(1 << 50))
    }

    async fn get_payload(&self, _: &Digest, range: Range<u64>) -> Result<Payload> {
        let bytes = Arc::clone(&self.bytes);
        // Noise, or packing would make nothing of it.
        let mut state = 1_u64;
        let body = stream::repeat_with(move || {
            bytes.fetch_add(PIECE, Ordering::SeqCst);
            let next = |_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            };
            Ok(Bytes::from_iter((0..PIECE).map(next)))
        });
        Ok(Payload {
            size: Some(1 << 50),
            range: range.start..range.end.min(1 << 50),
            body: body.boxed(),
            source: "endless:".to_owned(),
        })
    }

    /// Takes what there is, and counts it.
    async fn put_payload(&self, mut body: Body, _: PutOptions) -> Result<(Digest, u64)> {
        let mut size = 0;
        while let Some(piece) = body.next().await {
            size += piece?.len() as u64;
            self.bytes.store(size, Ordering::SeqCst);
        }
        Ok((Digest::EMPTY, size))
    }

    async fn remove_payload(&self, _: &Digest) -> Result<()> {
        Ok(())
    }

    fn list_payloads(&self) -> BoxStream<'_, Result<Digest>> {
        self.all_digests()
    }

    async fn list_tags(&self, _: &str) -> Result<Vec<TagEntry>> {
        Ok(Vec::new())
    }

    async fn read_tag(&self, _: &TagName) -> Result<TagStream> {
        unreachable!("nobody asks for it")
    }

    async fn insert_tag(&self, _: &Tag) -> Result<()> {
        Ok(())
    }

    async fn push_tag(&self, _: &TagName, _: &Digest, _: &str) -> Result<Tag> {
        unreachable!("nobody asks for it")
    }

    async fn remove_tag(&self, _: &Tag) -> Result<()> {
        Ok(())
    }

    async fn remove_tag_stream(&self, _: &TagName) -> Result<()> {
        Ok(())
    }
}

/// What `count` shows when it goes on no more.
async fn settled(count: &AtomicU64) -> u64 {
    let mut seen = 0;
    let mut quiet = 0;
    for _ in 0..6000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = count.load(Ordering::SeqCst);
        quiet = if now == seen && now > 0 { quiet + 1 } else { 0 };
        seen = now;
        if quiet >= 50 || seen > 4 * HELD_MOST {
            break;
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_without_end_is_held_back_by_who_takes_nothing() {
    let raw = format!("GET /{} HTTP/1.1\r\n\r\n", Digest::EMPTY);
    let packed = download(&format!("/{}", Digest::EMPTY));
    for request in [raw, packed] {
        let endless = Endless::default();
        let bytes = Arc::clone(&endless.bytes);
        let server = serve(Arc::new(endless), open_to_all()).await;
        let mut stream = TcpStream::connect(server.http_addr()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let taken = settled(&bytes).await;
        assert!((1..HELD_MOST).contains(&taken), "{taken}");
        // Who takes something gets more.
        let more = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; 24 << 20];
            stream.read_exact(&mut buffer).unwrap();
            stream
        });
        let stream = more.await.unwrap();
        let later = settled(&bytes).await;
        assert!(
            later > taken && later < taken + HELD_MOST,
            "{taken} {later}"
        );
        drop(stream);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn digests_without_end_are_held_back_by_who_takes_nothing() {
    let calls = [
        ("DatabaseService/FindDigests", &[10, 2, 10, 0][..]),
        ("PayloadService/IterDigests", &[]),
    ];
    for (call, message) in calls {
        let endless = Endless::default();
        let digests = Arc::clone(&endless.digests);
        let server = serve(Arc::new(endless), open_to_all()).await;
        let (mut sender, connection) = connect(server.grpc_addr(), None).await;
        // The answer begins, and its body is not read.
        let asked = request(server.grpc_addr(), call, framed(message));
        let answer = sender.send_request(asked).await.unwrap();
        assert_eq!(answer.status(), 200);
        let taken = settled(&digests).await;
        assert!((1..HELD_MOST / 32).contains(&taken), "{call}: {taken}");
        // Who goes away ends it.
        drop((answer, sender));
        connection.abort();
        settled(&digests).await;
        let after = digests.load(Ordering::SeqCst);
        assert!(after < taken + 10_000, "{call}: {after}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_passes_through() {
    let endless = Endless::default();
    let bytes = Arc::clone(&endless.bytes);
    let server = serve(Arc::new(endless), open_to_all()).await;
    let mut stream = TcpStream::connect(server.http_addr()).unwrap();
    let total = 8 * PIECE;
    let head = format!("POST / HTTP/1.1\r\ncontent-length: {total}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // Each piece is with the repository before the next one is sent.
    for sent in 1..=8 {
        stream.write_all(&vec![0; PIECE as usize]).unwrap();
        for _ in 0..6000 {
            if bytes.load(Ordering::SeqCst) >= sent * PIECE {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(bytes.load(Ordering::SeqCst), sent * PIECE);
    }
    assert_eq!(receive(&mut stream, false).unwrap().status, 200);
}
