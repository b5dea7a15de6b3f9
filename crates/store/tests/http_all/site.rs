//! A small repository on disk, for tests of what reads it from afar.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farseek_object::{Digest, Header, Object, Platform};
use farseek_store::{
    FsOptions, FsRepository, HttpOptions, HttpRepository, Payload, PutOptions, Repository, Result,
};
use farseek_testkit::StaticServer;
use futures::{StreamExt, TryStreamExt, stream};
use tempfile::TempDir;

/// The payload of every test: ten thousand bytes, of which none repeats nearby.
pub(crate) fn content() -> Vec<u8> {
    (0..10_000u32).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// A repository in a directory with a space in its name.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) fs: Arc<FsRepository>,
    pub(crate) payload: Digest,
    pub(crate) object: Digest,
}

pub(crate) const FOLDER: &str = "my repo";

pub(crate) async fn site() -> Site {
    let dir = tempfile::tempdir().unwrap();
    let fs = FsRepository::create(&dir.path().join(FOLDER), FsOptions::default()).unwrap();
    let (payload, _) = fs
        .put_payload(body(content()), PutOptions::default())
        .await
        .unwrap();
    // A platform: unlike a blob's, its digest covers all that it holds.
    let platform = Platform {
        header: Header::default(),
        layers: vec![payload; 3],
    };
    let object = Object::Platform(platform);
    let object = fs.put_object(&object, PutOptions::default()).await.unwrap();
    for name in ["top", "org/deep/name.1"] {
        fs.push_tag(&name.parse().unwrap(), &object, "user@host")
            .await
            .unwrap();
    }
    Site {
        dir,
        fs: Arc::new(fs),
        payload,
        object,
    }
}

impl Site {
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join(FOLDER)
    }

    pub(crate) fn serve(&self) -> StaticServer {
        StaticServer::start(self.dir.path())
    }

    pub(crate) fn payload_path(&self) -> PathBuf {
        sharded(&self.root().join("payloads"), &self.payload)
    }
}

pub(crate) fn sharded(store: &Path, digest: &Digest) -> PathBuf {
    let text = digest.to_string();
    store.join(&text[..2]).join(&text[2..])
}

pub(crate) fn options(stall: u64) -> HttpOptions {
    HttpOptions {
        stall: Duration::from_millis(stall),
        attempts: 3,
        seed: 1,
        ..HttpOptions::default()
    }
}

pub(crate) fn open(server: &StaticServer, stall: u64) -> HttpRepository {
    let url = format!("{}{FOLDER}", server.url()).parse().unwrap();
    HttpRepository::open(url, options(stall)).unwrap()
}

pub(crate) fn body(bytes: Vec<u8>) -> farseek_store::Body {
    stream::iter([Ok(Bytes::from(bytes))]).boxed()
}

pub(crate) async fn collect(payload: Payload) -> Result<Vec<u8>> {
    let pieces: Vec<Bytes> = payload.body.try_collect().await?;
    Ok(pieces.concat())
}
