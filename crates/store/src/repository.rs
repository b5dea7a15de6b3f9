//! The one trait that every repository implements.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use farseek_object::{Digest, DigestPrefix, Object, Tag, TagName, TagNamespace, TagStream};
use futures::stream::BoxStream;

use crate::bulk::Bulk;
use crate::error::{Result, StoreError};
use crate::payload::{Body, Payload, PutOptions};
use crate::requests::Requests;
use crate::upkeep::{Hold, Upkeep};

/// What a folder of tags holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TagEntry {
    /// A folder, by its name.
    Folder(String),
    /// A tag, by its name in the folder.
    Tag(String),
    /// A tag namespace (only at the top).
    Namespace(TagNamespace),
}

/// Content-addressed objects and payloads, and the tags that name them.
///
/// Small and object-safe, held as `Arc<dyn Repository>`. Sugar is in
/// [`RepositoryExt`](crate::RepositoryExt).
///
/// Invariants every implementation keeps, and the conformance suite tests:
/// - [`get_object`](Self::get_object) returns only objects whose recomputed digest is the one
///   asked for;
/// - what a `put` has returned for is visible to every later call, unless it was
///   [deferred](PutOptions::deferred), and is durable where the repository is;
/// - a reader sees a whole object, payload or tag stream, or none;
/// - no call waits for a remote that makes no progress longer than the stall deadline the
///   repository was opened with.
#[async_trait]
pub trait Repository: fmt::Debug + Send + Sync {
    /// Its address, as messages show it: no credentials.
    fn location(&self) -> &str;

    /// Whether the object is there.
    async fn has_object(&self, digest: &Digest) -> Result<bool>;

    /// Reads an object and checks its digest.
    async fn get_object(&self, digest: &Digest) -> Result<Object>;

    /// Stores an object under its digest; an object that is there already is left, and its age
    /// refreshed.
    async fn put_object(&self, object: &Object, options: PutOptions) -> Result<Digest>;

    /// Makes an object that is there as young as if it had been stored now, and returns whether it
    /// is there: what [`put_object`](Self::put_object) does with it, without its bytes. Who counts on
    /// something that is there, and on what is below it, asks so.
    ///
    /// Where age plays no part, whether it is there.
    async fn refresh_object(&self, digest: &Digest) -> Result<bool> {
        self.has_object(digest).await
    }

    /// Removes an object; one that is not there is no error.
    async fn remove_object(&self, digest: &Digest) -> Result<()>;

    /// When the object was last written, or last found there by who was about to write it; `None`
    /// where it is not there. By the clock of whoever keeps it, which ticks some milliseconds at
    /// a time: leave room for that.
    ///
    /// # Errors
    /// `Unsupported` where ages are not kept or not told.
    async fn object_written(&self, digest: &Digest) -> Result<Option<SystemTime>> {
        let _ = digest;
        Err(no_ages(self, "tell how old objects are"))
    }

    /// Removes an object that was [written](Self::object_written) before `time`, and returns
    /// whether this call has removed it: one that is younger, or not there, is left and no error.
    ///
    /// Whoever puts the object again at the same time, and is told that it is stored, has it
    /// stored: either the age that the put refreshes is seen here, or the put sees that the object
    /// is gone and writes it.
    ///
    /// # Errors
    /// `Unsupported` where ages are not kept or not told.
    async fn remove_object_if_older_than(&self, digest: &Digest, time: SystemTime) -> Result<bool> {
        let _ = (digest, time);
        Err(no_ages(self, "remove objects by their age"))
    }

    /// The digests of all objects whose digest starts with `prefix` (all of them where `None`),
    /// in no particular order, each once.
    fn list_objects(&self, prefix: Option<&DigestPrefix>) -> BoxStream<'_, Result<Digest>>;

    /// Bytes of a payload, or `None` where it is not there.
    ///
    /// # Errors
    /// `Unsupported` where the source cannot tell the size without sending the payload.
    async fn payload_size(&self, digest: &Digest) -> Result<Option<u64>>;

    /// Opens a payload at `range`. The answer may hold more and says so. A range that starts at
    /// or beyond the end gives an empty body.
    ///
    /// The bytes are *not* checked against the digest: the reader does that.
    async fn get_payload(&self, digest: &Digest, range: Range<u64>) -> Result<Payload>;

    /// How many ranges of one large payload, asked for at once, come sooner than one answer does.
    fn ranges_at_once(&self) -> u32 {
        1
    }

    /// The payload as an open local file, where it is there and is one.
    async fn payload_file(&self, digest: &Digest) -> Result<Option<File>> {
        let _ = digest;
        Ok(None)
    }

    /// Stores a payload under the digest of its bytes, hashed on the way. Returns the digest and
    /// the number of bytes. Does not store the blob object.
    async fn put_payload(&self, body: Body, options: PutOptions) -> Result<(Digest, u64)>;

    /// How many bytes of the payload `digest`, of `size` bytes, are there from a
    /// [`put_payload_rest`](Self::put_payload_rest) that broke off: 0 where nothing is. `None` where
    /// nothing can be gone on with, here or now: then a payload is put as a whole.
    async fn payload_begun(&self, digest: &Digest, size: u64) -> Result<Option<u64>> {
        let _ = (digest, size);
        Ok(None)
    }

    /// Puts the payload `digest` of `size` bytes, of which `start` are there already: `rest` is what
    /// follows. Who stores it hashes all of it, and keeps nothing that is not what it is named; what
    /// came before this breaks off is [there](Self::payload_begun).
    ///
    /// # Errors
    /// `Failed` where it is refused: then it may be put as a whole.
    async fn put_payload_rest(
        &self,
        digest: &Digest,
        size: u64,
        start: u64,
        rest: Body,
    ) -> Result<()> {
        let _ = (digest, size, start, rest);
        let location = self.location().to_owned();
        Err(StoreError::Unsupported {
            operation: "go on with a payload",
            location,
        })
    }

    /// Takes the local file at `path` over as the payload `digest`, which the caller has verified
    /// and nobody else has open: by rename where that can be. It is gone from `path` afterwards.
    /// Does not store the blob object.
    async fn adopt_payload(&self, digest: &Digest, path: &Path) -> Result<()> {
        let _ = (digest, path);
        let location = self.location().to_owned();
        Err(StoreError::Unsupported {
            operation: "take a file over as a payload",
            location,
        })
    }

    /// Removes a payload; one that is not there is no error.
    async fn remove_payload(&self, digest: &Digest) -> Result<()>;

    /// As [`refresh_object`](Self::refresh_object), for a payload.
    async fn refresh_payload(&self, digest: &Digest) -> Result<bool> {
        match self.payload_size(digest).await {
            Ok(size) => Ok(size.is_some()),
            // Said only of what is there.
            Err(StoreError::Unsupported { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// As [`object_written`](Self::object_written), for a payload.
    ///
    /// # Errors
    /// `Unsupported` where ages are not kept or not told.
    async fn payload_written(&self, digest: &Digest) -> Result<Option<SystemTime>> {
        let _ = digest;
        Err(no_ages(self, "tell how old payloads are"))
    }

    /// As [`remove_object_if_older_than`](Self::remove_object_if_older_than), for a payload.
    ///
    /// # Errors
    /// `Unsupported` where ages are not kept or not told.
    async fn remove_payload_if_older_than(
        &self,
        digest: &Digest,
        time: SystemTime,
    ) -> Result<bool> {
        let _ = (digest, time);
        Err(no_ages(self, "remove payloads by their age"))
    }

    /// The digests of all payloads, in no particular order, each once.
    fn list_payloads(&self) -> BoxStream<'_, Result<Digest>>;

    /// What the folder `folder` of tags holds, sorted; `""` is the top. Empty where there is no
    /// such folder.
    async fn list_tags(&self, folder: &str) -> Result<Vec<TagEntry>>;

    /// The history of a tag, never empty.
    async fn read_tag(&self, name: &TagName) -> Result<TagStream>;

    /// Adds a version to a tag's history at its place in the order. The parent is the caller's.
    async fn insert_tag(&self, tag: &Tag) -> Result<()>;

    /// Adds a version that another repository's client has made from what it saw of the history.
    ///
    /// As [`insert_tag`](Self::insert_tag), but a version that was made to be the newest, and is
    /// not on top of the newest any more, is put there in one step, with no other writer between:
    /// it gets the head as its parent, and a time after the head's where its own is not. So of
    /// many who push at once none is lost, and each has the one before it as its parent.
    ///
    /// A repository that cannot do that in one step inserts it as it is.
    async fn append_tag(&self, tag: &Tag) -> Result<()> {
        self.insert_tag(tag).await
    }

    /// Makes `target` the newest version of `name` in one step: reads the head, sets the parent,
    /// and inserts, with no other writer between. Where the head's target is `target` already,
    /// nothing is written. Returns the head.
    async fn push_tag(&self, name: &TagName, target: &Digest, user: &str) -> Result<Tag>;

    /// Begins a tag with `tag` as its first version, in one step: of several who begin the same
    /// one, one does. Returns whether it was us; where the tag is there, nothing is written.
    ///
    /// # Errors
    /// `Unsupported` where that cannot be done in one step.
    async fn begin_tag(&self, tag: &Tag) -> Result<bool> {
        let _ = tag;
        let location = self.location().to_owned();
        Err(StoreError::Unsupported {
            operation: "begin a tag that must not be there yet",
            location,
        })
    }

    /// Removes one version of a tag.
    async fn remove_tag(&self, tag: &Tag) -> Result<()>;

    /// What can be read of a tag whose history as a whole cannot; where it can, that.
    async fn readable_tag(&self, name: &TagName) -> Result<TagStream> {
        self.read_tag(name).await
    }

    /// Puts a history in the place of the one that a tag has, whatever state that is in. One that
    /// cannot be read is kept aside, where the repository has a place for that.
    ///
    /// A repository on disk does it in one step; others remove the tag, and insert the versions.
    async fn replace_tag(&self, name: &TagName, history: &TagStream) -> Result<()> {
        self.remove_tag_stream(name).await?;
        for tag in history.newest_first().rev() {
            self.insert_tag(tag).await?;
        }
        Ok(())
    }

    /// Removes a tag with its whole history.
    async fn remove_tag_stream(&self, name: &TagName) -> Result<()>;

    /// The same for many small things at once, where that is cheaper than one by one.
    fn bulk(&self) -> Option<&dyn Bulk> {
        None
    }

    /// Makes every deferred write visible and durable.
    ///
    /// # Errors
    /// `Lost` where some of what waited is gone: all else is visible, and those may be put again.
    async fn publish(&self) -> Result<()> {
        Ok(())
    }

    /// Has a clean ([`plan_clean`](crate::plan_clean)) leave alone whatever is written or refreshed
    /// from now on, for as long as the answer is kept: until the tag is there that refers to it.
    /// Without that, and where a repository cannot do it, it is left alone until it has the age at
    /// which a clean removes things.
    async fn hold(&self) -> Result<Hold> {
        Ok(Hold::default())
    }

    /// The same repository, seen with the tags of `namespace`, or with those outside of any.
    ///
    /// # Errors
    /// `Unsupported` where there are no namespaces.
    async fn in_namespace(&self, namespace: Option<&TagNamespace>) -> Result<Arc<dyn Repository>> {
        let _ = namespace;
        let location = self.location().to_owned();
        Err(StoreError::Unsupported {
            operation: "show the tags of another namespace",
            location,
        })
    }

    /// The requests that were made of it so far, where each is paid for.
    fn requests(&self) -> Option<Requests> {
        None
    }

    /// What its keeper can do, where that is us, or may be a server of ours.
    fn upkeep(&self) -> Option<&dyn Upkeep> {
        None
    }
}

fn no_ages<R: Repository + ?Sized>(repository: &R, operation: &'static str) -> StoreError {
    StoreError::Unsupported {
        operation,
        location: repository.location().to_owned(),
    }
}
