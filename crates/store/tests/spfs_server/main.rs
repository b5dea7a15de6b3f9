//! The server for SPFS's clients, asked by a client that shares no code with it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../sample/keys.rs"]
mod keys;
mod cleaned;
mod hostile;
mod line;
mod nonsense;
mod ours;
mod recordings;
mod resume;
mod rights;
mod streaming;
mod tags;
mod tls;
mod transfers;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use farseek_object::Digest;
use farseek_store::{
    Access, FsOptions, FsRepository, OpenNamespace, PutOptions, Repository, Right, SpfsServer,
    SpfsServerOptions, StoreError,
};
use farseek_testkit::stock_client::{Response, exchange};
use futures::stream::{self, StreamExt};
use tempfile::TempDir;

/// Any free port of the loopback interface.
fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Everybody may do everything.
fn open_to_all() -> SpfsServerOptions {
    SpfsServerOptions {
        access: Access::anyone(Right::Write).with_removal(true),
        ..SpfsServerOptions::default()
    }
}

/// Serves `repository`.
async fn serve(repository: Arc<dyn Repository>, options: SpfsServerOptions) -> SpfsServer {
    SpfsServer::bind(repository, anywhere(), anywhere(), options)
        .await
        .unwrap()
}

/// A new repository on disk.
fn on_disk() -> (TempDir, Arc<dyn Repository>) {
    let root = TempDir::new().unwrap();
    let repository = FsRepository::create(root.path(), FsOptions::default()).unwrap();
    (root, Arc::new(repository))
}

/// Opens the views of the repository at `root`.
fn views(root: &Path) -> OpenNamespace {
    let root = root.to_owned();
    Arc::new(move |namespace| {
        let options = FsOptions {
            tag_namespace: Some(namespace),
            ..FsOptions::default()
        };
        let view = FsRepository::open(&root, options);
        Box::pin(async move { Ok::<_, StoreError>(Arc::new(view?) as Arc<dyn Repository>) })
    })
}

/// Sends a request as it is, while the server goes on.
async fn ask(address: SocketAddr, request: impl Into<Vec<u8>>) -> std::io::Result<Response> {
    let request = request.into();
    let asking = tokio::task::spawn_blocking(move || exchange(address, &request));
    asking.await.unwrap()
}

/// Stores a payload.
async fn put(repository: &dyn Repository, bytes: impl Into<Bytes>) -> Digest {
    let body = stream::iter([Ok(bytes.into())]).boxed();
    let put = repository.put_payload(body, PutOptions::default());
    put.await.unwrap().0
}

/// Bytes that nothing makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
