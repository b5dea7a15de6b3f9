//! A repository that keeps a log of what payloads it is asked for, and can be shut: then it
//! answers nothing, as a server that is stopped. Payloads may be local files besides.

use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use farseek_object::{Digest, DigestPrefix, Object, Tag, TagName, TagStream};
use farseek_store::{
    Body, FsRepository, MemoryRepository, Payload, PutOptions, Repository, Result, StoreError,
    TagEntry,
};
use futures::stream::BoxStream;
use tokio::sync::watch;

#[derive(Debug)]
pub(crate) struct Gate {
    inner: MemoryRepository,
    is_open: watch::Sender<bool>,
    requests: Mutex<Vec<(Digest, Range<u64>)>>,
    broken: Mutex<bool>,
    /// Where payloads are files, and whether that file system answers.
    files: Mutex<Option<Arc<FsRepository>>>,
    hangs: watch::Sender<bool>,
    looks: AtomicUsize,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            inner: MemoryRepository::new(),
            is_open: watch::channel(true).0,
            requests: Mutex::default(),
            broken: Mutex::default(),
            files: Mutex::default(),
            hangs: watch::channel(false).0,
            looks: AtomicUsize::new(0),
        }
    }

    /// From now on the payloads in `files` are local.
    pub(crate) fn set_files(&self, files: Arc<FsRepository>) {
        *self.files.lock().unwrap() = Some(files);
    }

    /// Whether looks at local files are answered.
    pub(crate) fn set_hangs(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }

    /// How often a local file was looked for.
    pub(crate) fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }

    pub(crate) fn shut(&self) {
        self.is_open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.is_open.send_replace(true);
    }

    /// From now on every payload is refused.
    pub(crate) fn break_down(&self) {
        *self.broken.lock().unwrap() = true;
    }

    pub(crate) fn requests(&self) -> Vec<(Digest, Range<u64>)> {
        self.requests.lock().unwrap().clone()
    }
}

#[async_trait]
impl Repository for Gate {
    fn location(&self) -> &str {
        "gate"
    }
    async fn get_payload(&self, digest: &Digest, range: Range<u64>) -> Result<Payload> {
        self.requests.lock().unwrap().push((*digest, range.clone()));
        if *self.broken.lock().unwrap() {
            return Err(StoreError::Denied {
                location: "gate".to_owned(),
                reason: "it is broken".to_owned(),
            });
        }
        let mut is_open = self.is_open.subscribe();
        is_open
            .wait_for(|is_open| *is_open)
            .await
            .expect("the gate is there");
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
    async fn payload_file(&self, digest: &Digest) -> Result<Option<File>> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let mut hangs = self.hangs.subscribe();
        hangs
            .wait_for(|hangs| !*hangs)
            .await
            .expect("the gate is there");
        let files = self.files.lock().unwrap().clone();
        match files {
            Some(files) => files.payload_file(digest).await,
            None => Ok(None),
        }
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
    async fn remove_tag(&self, tag: &Tag) -> Result<()> {
        self.inner.remove_tag(tag).await
    }
    async fn remove_tag_stream(&self, name: &TagName) -> Result<()> {
        self.inner.remove_tag_stream(name).await
    }
}
