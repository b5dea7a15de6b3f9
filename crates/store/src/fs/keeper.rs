//! A repository on disk, as its keeper sees it.

use std::io::{ErrorKind, Read};
use std::time::SystemTime;

use async_trait::async_trait;
use farseek_object::{Digest, HEADER_LEN, Header, ObjectKind};

use super::file::open_regular;
use super::hash_store::HashStore;
use super::{FsRepository, aside, hold, leftovers, with};
use crate::blocking::run;
use crate::error::{Result, StoreError};
use crate::upkeep::{Facts, Leftover, LeftoverOptions, Shelf, Upkeep};

#[async_trait]
impl Upkeep for FsRepository {
    async fn horizon(&self) -> Result<SystemTime> {
        let root = self.root.clone();
        let work = self.objects.root().join("work");
        run(move || hold::horizon(&root, &work)).await
    }

    async fn facts(&self, shelf: Shelf, digests: Vec<Digest>) -> Result<Vec<Option<Facts>>> {
        let store = match shelf {
            Shelf::Objects => &self.objects,
            Shelf::Payloads => &self.payloads,
        };
        with(store, move |store| {
            digests
                .iter()
                .map(|digest| facts(store, shelf, digest))
                .collect()
        })
        .await
    }

    async fn aside(&self) -> Result<Vec<Digest>> {
        with(&self.objects, |store| aside::digests(store.root())).await
    }

    async fn aside_changed(&self) -> Result<Option<SystemTime>> {
        with(&self.objects, |store| aside::changed(store.root())).await
    }

    async fn restore(&self) -> Result<()> {
        with(&self.payloads, HashStore::restore).await?;
        with(&self.objects, HashStore::restore).await
    }

    async fn leftovers(&self, options: LeftoverOptions) -> Result<Vec<Leftover>> {
        let root = self.root.clone();
        run(move || leftovers::find(&root, &options)).await
    }

    async fn remove_leftover(&self, leftover: &Leftover, limit: SystemTime) -> Result<bool> {
        let (root, leftover) = (self.root.clone(), leftover.clone());
        run(move || leftovers::remove(&root, &leftover, limit)).await
    }
}

/// What can be told of the file of `digest`.
fn facts(store: &HashStore, shelf: Shelf, digest: &Digest) -> Result<Option<Facts>> {
    let path = store.path(digest);
    if shelf == Shelf::Payloads {
        let Some(written) = store.written(digest)? else {
            return Ok(None);
        };
        let bytes = store.size(digest)?;
        return Ok(bytes.map(|bytes| Facts {
            written,
            bytes,
            kind: None,
        }));
    }
    let (mut file, bytes) = match open_regular(&path) {
        Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok(None);
        }
        opened => opened?,
    };
    let written = file.metadata().and_then(|metadata| metadata.modified());
    let written = written.map_err(StoreError::io("look at", &path))?;
    let mut header = [0; HEADER_LEN];
    let kind = file
        .read_exact(&mut header)
        .ok()
        .and_then(|()| kind(&header));
    Ok(Some(Facts {
        written,
        bytes,
        kind,
    }))
}

fn kind(header: &[u8]) -> Option<ObjectKind> {
    Header::parse(header).ok().map(|(_, kind, _)| kind)
}
