//! A bucket, as its keeper sees it: what a clean asks.

use std::path::PathBuf;
use std::time::SystemTime;

use async_trait::async_trait;
use farseek_object::{Digest, HEADER_LEN, Header};
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange};

use super::hold::{CLEANS, HOLDS, PROBES};
use super::upload::{UPLOADS, WORK, parse_record};
use super::{BucketRepository, read};
use crate::error::{Result, StoreError};
use crate::upkeep::{Facts, Leftover, LeftoverKind, LeftoverOptions, Shelf, Upkeep};

/// Keys that are looked at at once.
const LOOKS: usize = 32;

/// No record of an upload is longer.
const RECORD_MAX_BYTES: u64 = 8192;

#[async_trait]
impl Upkeep for BucketRepository {
    async fn now(&self) -> Result<SystemTime> {
        self.exclusion.now().await
    }

    /// The server's time: who holds the repository need not be minded, for nothing is removed while
    /// anybody does.
    async fn horizon(&self) -> Result<SystemTime> {
        self.exclusion.now().await
    }

    async fn facts(&self, shelf: Shelf, digests: Vec<Digest>) -> Result<Vec<Option<Facts>>> {
        let looks = digests
            .into_iter()
            .map(|digest| self.facts_of(shelf, digest));
        stream::iter(looks).buffered(LOOKS).try_collect().await
    }

    /// Called before a sweep, and before it reads the tags again: from here on nobody writes.
    async fn restore(&self) -> Result<()> {
        self.exclusion.begin_sweep().await
    }

    fn is_exclusive(&self) -> bool {
        true
    }

    async fn finish(&self) {
        self.exclusion.end_sweep().await;
    }

    async fn leftovers(&self, options: LeftoverOptions) -> Result<Vec<Leftover>> {
        let now = self.exclusion.now().await?;
        let over = self.exclusion.over(now).await?;
        let mut leftovers: Vec<Leftover> = over
            .iter()
            .map(|key| leftover(LeftoverKind::Lock, key, 0))
            .collect();
        for folder in [UPLOADS, WORK] {
            let mut listed = self.bucket.list(&self.keys.folder(folder));
            while let Some(meta) = listed.try_next().await? {
                if SystemTime::from(meta.last_modified) < options.limit {
                    let found = leftover(LeftoverKind::Unfinished, &meta.location, meta.size);
                    leftovers.push(found);
                }
            }
        }
        Ok(leftovers)
    }

    async fn remove_leftover(&self, leftover: &Leftover, limit: SystemTime) -> Result<bool> {
        let key = leftover.path.to_str().and_then(|key| Path::parse(key).ok());
        let Some(key) = key else {
            return Ok(false);
        };
        let Some(meta) = self.bucket.look(&key).await? else {
            return Ok(false);
        };
        if SystemTime::from(meta.last_modified) >= limit && !self.is_of_the_killed(&key) {
            return Ok(false);
        }
        let record = match key.prefix_match(&self.keys.folder(UPLOADS)).is_some() {
            true => self.bucket.read(&key, RECORD_MAX_BYTES).await?,
            false => None,
        };
        let upload = record.as_deref().and_then(parse_record);
        let permit = self.exclusion.permit().await?;
        let removal = async {
            if let Some((key, upload)) = &upload {
                self.bucket.drop_parts(key, upload).await?;
            }
            self.bucket.remove(&key).await
        };
        let removed = self.in_time(&permit, &key, removal).await;
        permit.done_with(&removed);
        removed.map(|()| true)
    }
}

fn leftover(kind: LeftoverKind, key: &Path, bytes: u64) -> Leftover {
    Leftover {
        kind,
        path: PathBuf::from(key.as_ref()),
        bytes,
    }
}

impl BucketRepository {
    /// Keys of those were judged by an age of their own.
    fn is_of_the_killed(&self, key: &Path) -> bool {
        let folders = [HOLDS, CLEANS, PROBES].map(|folder| self.keys.folder(folder));
        let mut folders = folders.iter();
        folders.any(|folder| key.prefix_match(folder).is_some())
    }

    /// What can be told of a key. Of an object the header is read, in the same request.
    async fn facts_of(&self, shelf: Shelf, digest: Digest) -> Result<Option<Facts>> {
        let key = self.keys.of(shelf, &digest);
        if shelf == Shelf::Payloads {
            let meta = self.bucket.look(&key).await?;
            return Ok(meta.map(|meta| Facts {
                written: meta.last_modified.into(),
                bytes: meta.size,
                kind: None,
            }));
        }
        let head = GetOptions {
            range: Some(GetRange::Bounded(0..HEADER_LEN as u64)),
            ..GetOptions::default()
        };
        let opened = match self.bucket.try_open(&key, head).await {
            Ok(opened) => opened,
            Err(error) => return self.without_header(&key, error).await,
        };
        let meta = opened.meta.clone();
        let mut body = read::body(&self.bucket, &key, opened);
        let mut bytes = Vec::new();
        while let Some(piece) = body.try_next().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(Some(Facts {
            written: meta.last_modified.into(),
            bytes: meta.size,
            kind: Header::parse(&bytes).ok().map(|(_, kind, _)| kind),
        }))
    }

    /// An object that is not there, or that is empty.
    async fn without_header(
        &self,
        key: &Path,
        error: object_store::Error,
    ) -> Result<Option<Facts>> {
        if super::trouble::is_absent(&error) {
            return Ok(None);
        }
        match self.bucket.look(key).await? {
            Some(meta) if meta.size == 0 => Ok(Some(Facts {
                written: meta.last_modified.into(),
                bytes: 0,
                kind: None,
            })),
            None => Ok(None),
            Some(_) => {
                let location = self.bucket.shown(key);
                Err::<_, StoreError>(super::trouble::explain("read", location, error))
            }
        }
    }
}
