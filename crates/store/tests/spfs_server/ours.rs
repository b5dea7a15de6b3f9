//! Our client on our server: what a stock server could not do.

use std::sync::Arc;

use bytes::Bytes;
use farseek_object::Digest;
use farseek_store::{GrpcOptions, GrpcRepository, Packing, Repository, SpfsServer};
use futures::TryStreamExt;

use super::{noise, on_disk, open_to_all, put, serve};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_moves_that_range_and_no_more() {
    let (_root, repository) = on_disk();
    let bytes: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let (digest, size) = (put(&*repository, bytes.clone()).await, bytes.len() as u64);
    assert_eq!(digest, Digest::of(&bytes));

    let server = serve(Arc::clone(&repository), open_to_all()).await;
    let url = format!("grpc://{}", server.grpc_addr());
    let client = GrpcRepository::open(&url.parse().unwrap(), GrpcOptions::default()).unwrap();
    assert_eq!(client.payload_size(&digest).await.unwrap(), Some(size));
    let before = server.stats().body_bytes_sent;
    for start in [7_999_990, 0, 5_000_000] {
        let range = start..(start + 4096).min(size);
        let payload = client.get_payload(&digest, range.clone()).await.unwrap();
        assert_eq!((payload.size, &payload.range), (Some(size), &range));
        let pieces: Vec<Bytes> = payload.body.try_collect().await.unwrap();
        let within = range.start as usize..range.end as usize;
        assert_eq!(pieces.concat(), bytes[within]);
    }
    assert_eq!(server.stats().body_bytes_sent - before, 4096 * 2 + 10);
}

fn client(server: &SpfsServer, packing: Packing) -> GrpcRepository {
    let url = format!("grpc://{}", server.grpc_addr());
    let options = GrpcOptions {
        packing,
        ..GrpcOptions::default()
    };
    GrpcRepository::open(&url.parse().unwrap(), options).unwrap()
}

/// What comes of the whole payload, and how many bytes that was on the way.
async fn whole(server: &SpfsServer, packing: Packing, digest: &Digest) -> (Vec<u8>, u64) {
    let before = server.stats().body_bytes_sent;
    let client = client(server, packing);
    let payload = client.get_payload(digest, 0..u64::MAX).await.unwrap();
    let size = payload.size.unwrap();
    let pieces: Vec<Bytes> = payload.body.try_collect().await.unwrap();
    let bytes = pieces.concat();
    assert_eq!((size, payload.range), (bytes.len() as u64, 0..size));
    (bytes, server.stats().body_bytes_sent - before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_shrinks_comes_packed_where_that_is_wanted() {
    let (_root, repository) = on_disk();
    let text: Vec<u8> = (0..500_000_u32)
        .flat_map(|n| (n / 9).to_le_bytes())
        .collect();
    let noise = noise(500_000);
    // Its beginning alone would promise too much.
    let half = [&text[..40_000], &noise].concat();
    let small = text[..60_000].to_vec();
    let server = serve(Arc::clone(&repository), open_to_all()).await;
    for (bytes, shrinks) in [(text, true), (noise, false), (half, false), (small, false)] {
        let (digest, size) = (put(&*repository, bytes.clone()).await, bytes.len() as u64);
        for packing in [Packing::Never, Packing::Away, Packing::Always] {
            let (found, sent) = whole(&server, packing, &digest).await;
            assert!(found == bytes, "{packing:?} of {size}");
            let packed = packing == Packing::Always && shrinks;
            assert_eq!(sent < size / 2, packed, "{packing:?}: {sent} of {size}");
            assert!(packed || sent == size, "{packing:?}: {sent} of {size}");
        }
        // A part of it is never packed.
        let before = server.stats().body_bytes_sent;
        let client = client(&server, Packing::Always);
        let part = client.get_payload(&digest, 10..50_010).await.unwrap();
        let pieces: Vec<Bytes> = part.body.try_collect().await.unwrap();
        assert!(pieces.concat() == bytes[10..50_010]);
        assert_eq!(server.stats().body_bytes_sent - before, 50_000);
    }
}
