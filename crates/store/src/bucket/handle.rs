//! A bucket as keys and bytes: what the rest of this module asks of an object store, with its
//! errors in our words.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetResult, ListResult, ObjectMeta, ObjectStore, ObjectStoreExt,
};

use super::{trouble, wire};
use crate::error::{Result, StoreError};

/// A bucket, and how it is called in messages.
#[derive(Clone)]
pub(super) struct Bucket {
    store: Arc<dyn ObjectStore>,
    parts: Arc<dyn MultipartStore>,
    /// The bucket's address, without the prefix and without credentials.
    root: Arc<str>,
}

/// An upload in parts that has begun.
#[derive(Debug)]
pub(super) struct Begun {
    /// The object store's name of it.
    pub(super) id: String,
    /// What was at the key before.
    before: Option<ObjectMeta>,
}

impl Begun {
    /// Whether what is at the key now was not there before.
    fn is_new(&self, there: &ObjectMeta) -> bool {
        self.before.as_ref().is_none_or(|before| {
            (before.last_modified, &before.e_tag) != (there.last_modified, &there.e_tag)
        })
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.root)
    }
}

impl Bucket {
    pub(super) fn new<S: ObjectStore + MultipartStore>(store: Arc<S>, root: &str) -> Self {
        Self {
            store: Arc::clone(&store) as Arc<dyn ObjectStore>,
            parts: store,
            root: root.into(),
        }
    }

    /// The key as messages show it.
    pub(super) fn shown(&self, key: &Path) -> String {
        format!("{}/{key}", self.root)
    }

    fn failed(&self, doing: &'static str, key: &Path) -> impl FnOnce(Error) -> StoreError {
        let location = self.shown(key);
        move |error| trouble::explain(doing, location, error)
    }

    /// What is at `key`; `None` where nothing is.
    ///
    /// # Errors
    /// `Corrupt` where it is larger than `limit`.
    pub(super) async fn read(&self, key: &Path, limit: u64) -> Result<Option<Bytes>> {
        let Some(opened) = self.open(key, GetOptions::default()).await? else {
            return Ok(None);
        };
        let too_large = || StoreError::Corrupt {
            location: self.shown(key),
            reason: format!("it holds more than {limit} bytes, the limit here"),
        };
        if opened.meta.size > limit {
            return Err(too_large());
        }
        let mut bytes = BytesMut::with_capacity(opened.meta.size as usize);
        let mut body = opened.into_stream();
        while let Some(piece) = body.try_next().await.map_err(self.failed("read", key))? {
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > limit {
                return Err(too_large());
            }
        }
        Ok(Some(bytes.freeze()))
    }

    /// Opens what is at `key`; `None` where nothing is.
    pub(super) async fn open(&self, key: &Path, options: GetOptions) -> Result<Option<GetResult>> {
        match self.try_open(key, options).await {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if trouble::is_absent(&error) => Ok(None),
            Err(error) => Err(self.failed("read", key)(error)),
        }
    }

    /// The same, with the object store's own error: what it means depends on what was asked for.
    pub(super) async fn try_open(
        &self,
        key: &Path,
        options: GetOptions,
    ) -> Result<GetResult, Error> {
        self.store.get_opts(key, options).await
    }

    /// What can be told of `key` without its bytes.
    pub(super) async fn look(&self, key: &Path) -> Result<Option<ObjectMeta>> {
        match self.store.head(key).await {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if trouble::is_absent(&error) => Ok(None),
            Err(error) => Err(self.failed("look at", key)(error)),
        }
    }

    /// Writes a key in one request. When this returns it is durable and visible.
    pub(super) async fn write(&self, key: &Path, bytes: Bytes) -> Result<()> {
        let written = self.store.put(key, bytes.into()).await;
        written.map(drop).map_err(self.failed("write", key))
    }

    /// Copies a key of `size` bytes within the bucket.
    pub(super) async fn copy(&self, from: &Path, to: &Path, size: u64) -> Result<()> {
        let copied = wire::copying(size, self.store.copy(from, to)).await;
        copied.map_err(self.failed("write", to))
    }

    /// Removes a key; one that is not there is no error.
    pub(super) async fn remove(&self, key: &Path) -> Result<()> {
        match self.store.delete(key).await {
            Err(error) if !trouble::is_absent(&error) => Err(self.failed("remove", key)(error)),
            _ => Ok(()),
        }
    }

    /// Everything below `folder`, page by page.
    pub(super) fn list(&self, folder: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let (bucket, shown) = (self.clone(), folder.clone());
        let listed = self.store.list(Some(folder));
        listed
            .map_err(move |error| bucket.failed("list", &shown)(error))
            .boxed()
    }

    /// What is in `folder` itself.
    pub(super) async fn folder(&self, folder: &Path) -> Result<ListResult> {
        let listed = self.store.list_with_delimiter(Some(folder)).await;
        listed.map_err(self.failed("list", folder))
    }

    /// Begins to write `key` in parts.
    pub(super) async fn begin_parts(&self, key: &Path) -> Result<Begun> {
        let before = match self.look(key).await {
            Ok(before) => before,
            // Of what is not there S3 says that it is forbidden to who may not list. And what may
            // be looked at later was not there now.
            Err(StoreError::Denied { .. }) => None,
            Err(error) => return Err(error),
        };
        let begun = self.parts.create_multipart(key).await;
        let id = begun.map_err(self.failed("write", key))?;
        Ok(Begun { id, before })
    }

    /// Writes one part.
    pub(super) async fn write_part(
        &self,
        key: &Path,
        upload: &String,
        number: usize,
        bytes: Bytes,
    ) -> Result<object_store::multipart::PartId> {
        let written = self.parts.put_part(key, upload, number, bytes.into());
        written.await.map_err(self.failed("write", key))
    }

    /// Makes `key` of the parts of `begun`, `size` bytes in all. When this returns it is durable
    /// and visible.
    pub(super) async fn end_parts(
        &self,
        key: &Path,
        begun: &Begun,
        parts: Vec<object_store::multipart::PartId>,
        size: u64,
    ) -> Result<()> {
        let ended = self.parts.complete_multipart(key, &begun.id, parts).await;
        let Err(error) = ended else {
            return Ok(());
        };
        // An answer that was lost: who asks again is told that the upload is gone, in words that
        // differ. A payload's key of that size is what it has to be, whoever has written it
        // meanwhile; one that was there before may be what had to be written anew.
        let there = self.look(key).await.ok().flatten();
        if there.is_some_and(|meta| meta.size == size && begun.is_new(&meta)) {
            return Ok(());
        }
        Err(self.failed("write", key)(error))
    }

    /// Gives the parts of an upload up; one that is not there is no error.
    pub(super) async fn drop_parts(&self, key: &Path, upload: &String) -> Result<()> {
        match self.parts.abort_multipart(key, upload).await {
            Err(error) if !trouble::is_absent(&error) => Err(self.failed("remove", key)(error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn what_was_there_before_is_not_new() {
        let meta = |seconds, e_tag: &str| ObjectMeta {
            location: Path::from("a"),
            last_modified: DateTime::from_timestamp(seconds, 0).unwrap(),
            size: 1,
            e_tag: Some(e_tag.to_owned()),
            version: None,
        };
        let begun = |before| Begun {
            id: "id".to_owned(),
            before,
        };
        let there = meta(1, "x");
        assert!(begun(None).is_new(&there));
        assert!(begun(Some(meta(0, "x"))).is_new(&there));
        assert!(begun(Some(meta(1, "y"))).is_new(&there));
        assert!(!begun(Some(meta(1, "x"))).is_new(&there));
    }
}
