//! Our client on our server: what a stock server could not do.

use std::sync::Arc;

use bytes::Bytes;
use farseek_object::Digest;
use farseek_store::{GrpcOptions, GrpcRepository, PutOptions, Repository};
use futures::{StreamExt, TryStreamExt};

use super::{on_disk, open_to_all, serve};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_moves_that_range_and_no_more() {
    let (_root, repository) = on_disk();
    let bytes: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let body = futures::stream::iter([Ok(Bytes::from(bytes.clone()))]).boxed();
    let put = repository.put_payload(body, PutOptions::default());
    let (digest, size) = put.await.unwrap();
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
