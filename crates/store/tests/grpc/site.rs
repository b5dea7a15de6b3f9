//! A repository on disk, a stock-like server over it, and a client of that.

use std::sync::Arc;
use std::time::Duration;

use farseek_object::{Blob, Digest, Header, Object};
use farseek_store::{FsOptions, FsRepository, GrpcOptions, GrpcRepository, PutOptions, Repository};
use farseek_testkit::StockServer;
use futures::{StreamExt, stream};
use tempfile::TempDir;

use super::sample::random_bytes;

/// The stall deadline of the client: long for a loaded machine, short for a test.
pub(crate) const STALL: Duration = Duration::from_secs(4);

pub(crate) struct Site {
    pub(crate) original: Arc<dyn Repository>,
    pub(crate) server: StockServer,
    pub(crate) client: GrpcRepository,
    _directory: TempDir,
}

pub(crate) fn client(url: &str, options: GrpcOptions) -> GrpcRepository {
    GrpcRepository::open(&url.parse().expect("a URL"), options).expect("a client")
}

pub(crate) fn options() -> GrpcOptions {
    GrpcOptions {
        stall: STALL,
        ..GrpcOptions::default()
    }
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(options())
    }

    pub(crate) fn with(options: GrpcOptions) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let original = FsRepository::create(directory.path(), FsOptions::default());
        let server = StockServer::start(directory.path());
        Self {
            original: Arc::new(original.expect("a repository")),
            client: client(&server.url(), options),
            server,
            _directory: directory,
        }
    }

    /// Stores a payload of `length` bytes where the server is.
    pub(crate) async fn payload(&self, length: usize) -> (Digest, Vec<u8>) {
        let bytes = random_bytes(length, length as u64);
        let body = stream::iter([Ok(bytes.clone().into())]).boxed();
        let put = self.original.put_payload(body, PutOptions::default());
        (put.await.expect("stored").0, bytes)
    }

    /// Stores an object where the server is.
    pub(crate) async fn object(&self, byte: u8) -> Object {
        let object = blob(byte);
        let put = self.original.put_object(&object, PutOptions::default());
        put.await.expect("stored");
        object
    }
}

pub(crate) fn blob(byte: u8) -> Object {
    Object::Blob(Blob {
        header: Header::default(),
        payload: Digest::of(&[byte]),
        size: 1,
    })
}
