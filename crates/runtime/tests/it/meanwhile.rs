//! A tag that goes while its environment is on the way to a mount.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use farseek_object::{Digest, DigestPrefix, Header, Object, Platform, Tag, TagName, TagStream};
use farseek_reader::ReaderOptions;
use farseek_runtime::record::{Keeper, Runtimes};
use farseek_runtime::{MountRequest, RuntimeError, mount};
use farseek_store::{
    Body, Hold, Payload, PutOptions, Repository, RepositoryExt as _, StoreError, TagEntry,
};
use farseek_testkit::{Need, need};
use futures::stream::BoxStream;

use crate::fixture::{CONTENT, repository, spec};

type Result<T> = std::result::Result<T, StoreError>;

/// What another process does when the environment has been read, and its record is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    /// Removes the tag, and cleans.
    Cleans,
    /// Gives the tag another version.
    Pushes,
    /// Removes the tag and makes it anew of something else.
    Replaces,
}

/// A repository in which that is done once.
#[derive(Debug)]
struct Shared {
    inner: Arc<dyn Repository>,
    meanwhile: Meanwhile,
    is_done: AtomicBool,
}

impl Shared {
    async fn act(&self) -> Result<()> {
        let name: TagName = "tools/one".parse().unwrap();
        if self.meanwhile != Meanwhile::Pushes {
            self.inner.remove_tag_stream(&name).await?;
            self.inner.remove_payload(&Digest::of(CONTENT)).await?;
        }
        if self.meanwhile != Meanwhile::Cleans {
            let other = Object::Platform(Platform {
                header: Header::default(),
                layers: Vec::new(),
            });
            let other = self.inner.put_object(&other, PutOptions::default()).await?;
            self.inner.push_tag(&name, &other, "other").await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Repository for Shared {
    fn location(&self) -> &str {
        "shared"
    }
    async fn hold(&self) -> Result<Hold> {
        if !self.is_done.swap(true, Ordering::SeqCst) {
            self.act().await?;
        }
        self.inner.hold().await
    }
    async fn get_payload(&self, digest: &Digest, range: Range<u64>) -> Result<Payload> {
        self.inner.get_payload(digest, range).await
    }
    async fn has_object(&self, digest: &Digest) -> Result<bool> {
        self.inner.has_object(digest).await
    }
    async fn get_object(&self, digest: &Digest) -> Result<Object> {
        self.inner.get_object(digest).await
    }
    async fn put_object(&self, object: &Object, options: PutOptions) -> Result<Digest> {
        self.inner.put_object(object, options).await
    }
    async fn remove_object(&self, digest: &Digest) -> Result<()> {
        self.inner.remove_object(digest).await
    }
    fn list_objects(&self, prefix: Option<&DigestPrefix>) -> BoxStream<'_, Result<Digest>> {
        self.inner.list_objects(prefix)
    }
    async fn payload_size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.inner.payload_size(digest).await
    }
    async fn put_payload(&self, body: Body, options: PutOptions) -> Result<(Digest, u64)> {
        self.inner.put_payload(body, options).await
    }
    async fn remove_payload(&self, digest: &Digest) -> Result<()> {
        self.inner.remove_payload(digest).await
    }
    fn list_payloads(&self) -> BoxStream<'_, Result<Digest>> {
        self.inner.list_payloads()
    }
    async fn list_tags(&self, folder: &str) -> Result<Vec<TagEntry>> {
        self.inner.list_tags(folder).await
    }
    async fn read_tag(&self, name: &TagName) -> Result<TagStream> {
        self.inner.read_tag(name).await
    }
    async fn insert_tag(&self, tag: &Tag) -> Result<()> {
        self.inner.insert_tag(tag).await
    }
    async fn push_tag(&self, name: &TagName, target: &Digest, user: &str) -> Result<Tag> {
        self.inner.push_tag(name, target, user).await
    }
    async fn begin_tag(&self, tag: &Tag) -> Result<bool> {
        self.inner.begin_tag(tag).await
    }
    async fn remove_tag(&self, tag: &Tag) -> Result<()> {
        self.inner.remove_tag(tag).await
    }
    async fn remove_tag_stream(&self, name: &TagName) -> Result<()> {
        self.inner.remove_tag_stream(name).await
    }
    async fn publish(&self) -> Result<()> {
        self.inner.publish().await
    }
}

/// What a mount shows in its file, if that is there, and what records are left by it.
async fn mounted(
    meanwhile: Meanwhile,
) -> (std::result::Result<Option<Vec<u8>>, RuntimeError>, usize) {
    let shared: Arc<dyn Repository> = Arc::new(Shared {
        inner: repository().await,
        meanwhile,
        is_done: AtomicBool::new(false),
    });
    let runtimes = Runtimes::new(Arc::clone(&shared), "user@host", Header::default());
    let mountpoint = tempfile::tempdir().unwrap();
    let request = MountRequest {
        keeper: Some(Keeper {
            runtimes: runtimes.clone(),
            user: "user".into(),
        }),
        reader: ReaderOptions::default(),
        ..MountRequest::new(spec("tools/one"), mountpoint.path())
    };
    let path = mountpoint.path().join("file");
    let read = match mount(Arc::clone(&shared), request).await {
        Ok(mut mounted) => {
            let reading = tokio::task::spawn_blocking(move || std::fs::read(path).ok());
            let read = reading.await.unwrap();
            mounted.take_reference().unwrap().release().await;
            tokio::task::spawn_blocking(|| drop(mounted)).await.unwrap();
            Ok(read)
        }
        Err(error) => Err(error),
    };
    let left = shared.walk_tags("spfs").await.unwrap().len();
    (read, left)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cleaned_before_its_record_was_there_is_not_mounted() {
    if !need("what_was_cleaned_before_its_record", &[Need::Fuse]) {
        return;
    }
    let (read, left) = mounted(Meanwhile::Cleans).await;
    let error = read.unwrap_err();
    assert!(
        matches!(&error, RuntimeError::Store(error) if error.is_not_found()),
        "{error}"
    );
    assert_eq!(left, 0);
    // What the tag is made of anew is mounted, which has no file.
    let (read, left) = mounted(Meanwhile::Replaces).await;
    assert_eq!((read.unwrap(), left), (None, 0));
    // The older version is kept by its tag.
    let (read, left) = mounted(Meanwhile::Pushes).await;
    assert_eq!((read.unwrap(), left), (Some(CONTENT.to_vec()), 0));
}
