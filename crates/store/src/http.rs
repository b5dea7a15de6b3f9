//! [`HttpRepository`]: SPFS's directory layout behind any static web server, read-only.
//!
//! Whatever the server answers is either what was asked for or an error that names it: a server
//! that ignores `Range` is taken at its word (the answer says that it holds the whole payload), and
//! a wrong `Content-Range`, a short or long body, an encoding nobody asked for, or a page in the
//! place of a file are never passed on as bytes.
//!
//! Objects and tags are tried again within the stall deadline. Payloads are not, once the server
//! has answered: the reader resumes them from where they stopped.
//! Deliberately absent: writing, caches, and listing, but for Farseek's own server, which answers
//! it under the reserved prefix `-/`.

pub(crate) mod address;
pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod listing;
pub(crate) mod part;
pub(crate) mod tls;

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use farseek_object::{
    Digest, DigestPrefix, Object, ObjectError, Tag, TagName, TagNamespace, TagSpec, TagStream,
};
use futures::future;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use reqwest::Url;

use self::address::Address;
use self::answer::{Head, Meaning};
use self::client::{Ask, Client, ClientOptions, Opened, Whole};
use self::part::{empty, range_header, size_of, strange};
use crate::error::{Result, StoreError};
use crate::payload::{Body, Payload, PutOptions};
use crate::repository::{Repository, TagEntry};

/// No `VERSION` file is longer.
const VERSION_MAX_BYTES: u64 = 4096;

/// Objects above this are decoded and hashed on a thread that may block.
const DECODE_INLINE_MAX: usize = 64 * 1024;

/// How an [`HttpRepository`] behaves.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// How long the server may make no progress before a call fails.
    pub stall: Duration,
    /// Attempts to read an object or a tag, the first one counted.
    pub attempts: u32,
    /// Redirects followed for one request.
    pub redirects: usize,
    /// No object is larger: guards memory.
    pub object_max_bytes: u64,
    /// No tag file, and no listing of a folder of tags, is larger.
    pub tag_max_bytes: u64,
    /// The namespace whose tags are read; `None` for those outside any.
    pub namespace: Option<TagNamespace>,
    /// Varies the pauses between attempts: different in every process.
    pub seed: u64,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(30),
            attempts: 4,
            redirects: 8,
            object_max_bytes: 2 << 30,
            tag_max_bytes: 64 << 20,
            namespace: None,
            seed: RandomState::new().hash_one("seed"),
        }
    }
}

/// A repository behind a web server.
#[derive(Debug)]
pub struct HttpRepository {
    address: Address,
    location: String,
    client: Client,
    options: HttpOptions,
}

impl HttpRepository {
    /// The repository at `url`. Nothing is asked yet: see [`check`](Self::check).
    ///
    /// # Errors
    /// `Invalid` where it is no `http` or `https` URL; `Unavailable` where TLS cannot be set up.
    pub fn open(url: Url, options: HttpOptions) -> Result<Self> {
        let address = Address::new(url)?;
        let client = Client::new(&address.location(), &client_options(&address, &options))?;
        Ok(Self {
            location: address.location(),
            address,
            client,
            options,
        })
    }

    /// Whether the server answers, and what it has is of a version we can read: one small
    /// request. Gives the version of the repository's format, where it says.
    ///
    /// # Errors
    /// `Unavailable` or `Denied`, and `Corrupt` where what is there is no repository of ours.
    pub async fn check(&self) -> Result<Option<String>> {
        let ask = Ask {
            fresh: true,
            ..Ask::get(self.address.version())
        };
        let whole = self.client.whole(&ask, VERSION_MAX_BYTES).await?;
        if whole.head.meaning() == Meaning::Absent {
            return Ok(None);
        }
        let whole = plain(whole)?;
        let text = String::from_utf8_lossy(&whole.body);
        let version = text.trim();
        if version.is_empty() {
            return Ok(None);
        }
        let hint = whole.head.hint();
        let corrupt = |reason| StoreError::Corrupt {
            location: whole.source.clone(),
            reason,
        };
        match version
            .split_once('.')
            .map(|(major, _)| major.parse::<u64>())
        {
            Some(Ok(0)) => Ok(Some(version.to_owned())),
            Some(Ok(_)) => Err(corrupt(format!(
                "it is of version {version}, and only versions 0.x can be read here"
            ))),
            _ => Err(corrupt(format!(
                "it holds no version{hint}: is it a repository?"
            ))),
        }
    }

    fn not_found(&self, what: &'static str, digest: &Digest) -> StoreError {
        StoreError::NotFound {
            what,
            digest: *digest,
            location: self.location.clone(),
        }
    }

    fn unsupported(&self, operation: &'static str) -> StoreError {
        StoreError::Unsupported {
            operation,
            location: self.location.clone(),
        }
    }

    /// The head of what is at `url`, without its body; `None` where there is nothing.
    async fn head(&self, url: Url, needs_size: bool) -> Result<Option<Head>> {
        let Whole { head, .. } = self.client.whole(&Ask::head(url.clone()), 0).await?;
        let enough = match head.meaning() {
            Meaning::Absent => return Ok(None),
            Meaning::Whole => !needs_size || size_of(&head).is_some(),
            _ => false,
        };
        if enough {
            return Ok(Some(head));
        }
        // Not every server answers HEAD, or knows the length then: one byte tells as well.
        let ask = Ask {
            range: Some("bytes=0-0".to_owned()),
            ..Ask::get(url)
        };
        let Opened { head, source, .. } = self.client.open(&ask).await?;
        match head.meaning() {
            Meaning::Absent => Ok(None),
            Meaning::Whole | Meaning::Part | Meaning::BeyondEnd => Ok(Some(head)),
            _ => Err(strange(&head, &source)),
        }
    }

    /// Opens a listing of digests, where the server gives one.
    async fn listing(
        &self,
        kind: &'static str,
        prefix: &str,
        operation: &'static str,
    ) -> Result<BoxStream<'static, Result<Digest>>> {
        let ask = Ask {
            fresh: true,
            ..Ask::get(self.address.listing(kind, prefix))
        };
        match self.client.open(&ask).await {
            Ok(opened) if is_listing(&opened.head) => {
                let (length, source) = (opened.head.length, opened.source.clone());
                let body = body::counted(opened, length, self.client.stall());
                Ok(listing::digests(source, body))
            }
            Ok(_) | Err(StoreError::Denied { .. }) => Err(self.unsupported(operation)),
            Err(error) => Err(error),
        }
    }
}

fn client_options(address: &Address, options: &HttpOptions) -> ClientOptions {
    ClientOptions {
        stall: options.stall,
        attempts: options.attempts,
        redirects: options.redirects,
        direct: address.is_loopback(),
        seed: options.seed,
    }
}

fn is_listing(head: &Head) -> bool {
    let kind = head.content_type.as_deref().unwrap_or_default();
    head.meaning() == Meaning::Whole && kind.starts_with(listing::CONTENT_TYPE)
}

/// Takes only an answer whose body is the file's bytes.
fn plain(whole: Whole) -> Result<Whole> {
    if whole.head.meaning() != Meaning::Whole {
        return Err(strange(&whole.head, &whole.source));
    }
    match whole.head.encoded() {
        Some(reason) => Err(StoreError::Corrupt {
            location: whole.source,
            reason,
        }),
        None => Ok(whole),
    }
}

/// Bytes that do not decode, with a hint where they look like a page.
fn undecodable(whole: &Whole, source: ObjectError) -> StoreError {
    StoreError::Undecodable {
        location: format!("{}{}", whole.source, whole.head.hint()),
        source,
    }
}

/// Decodes an object and checks its digest, away from the runtime where that takes long.
async fn decode(digest: Digest, whole: Whole) -> Result<Object> {
    let small = whole.body.len() <= DECODE_INLINE_MAX;
    let location = whole.source.clone();
    let decode = move || {
        Object::decode_named(&digest, &whole.body).map_err(|error| undecodable(&whole, error))
    };
    if small {
        return decode();
    }
    tokio::task::spawn_blocking(decode)
        .await
        .unwrap_or_else(|error| {
            let reason = "the program is ending".to_owned();
            Err(StoreError::Unavailable {
                location,
                reason,
                source: Some(error.into()),
            })
        })
}

#[async_trait]
impl Repository for HttpRepository {
    fn location(&self) -> &str {
        &self.location
    }

    async fn has_object(&self, digest: &Digest) -> Result<bool> {
        Ok(self
            .head(self.address.object(digest), false)
            .await?
            .is_some())
    }

    async fn get_object(&self, digest: &Digest) -> Result<Object> {
        let ask = Ask::get(self.address.object(digest));
        let whole = self
            .client
            .whole(&ask, self.options.object_max_bytes)
            .await?;
        if whole.head.meaning() == Meaning::Absent {
            return Err(self.not_found("object", digest));
        }
        decode(*digest, plain(whole)?).await
    }

    async fn put_object(&self, _object: &Object, _options: PutOptions) -> Result<Digest> {
        Err(self.unsupported("store objects: it is read-only"))
    }

    async fn remove_object(&self, _digest: &Digest) -> Result<()> {
        Err(self.unsupported("remove objects: it is read-only"))
    }

    fn list_objects(&self, prefix: Option<&DigestPrefix>) -> BoxStream<'_, Result<Digest>> {
        let prefix = prefix.cloned();
        let opened = async move {
            let text = prefix.as_ref().map_or("", DigestPrefix::as_str);
            let operation = "list objects: it is a plain web server";
            let digests = self.listing("objects", text, operation).await?;
            Ok(digests.try_filter(move |digest| {
                future::ready(prefix.as_ref().is_none_or(|prefix| prefix.matches(digest)))
            }))
        };
        stream::once(opened).try_flatten().boxed()
    }

    async fn payload_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let Some(head) = self.head(self.address.payload(digest), true).await? else {
            return Ok(None);
        };
        let size = size_of(&head);
        size.map(Some)
            .ok_or_else(|| self.unsupported("tell the size of a payload"))
    }

    async fn get_payload(&self, digest: &Digest, range: Range<u64>) -> Result<Payload> {
        let url = self.address.payload(digest);
        if range.is_empty() {
            // No request says "no bytes".
            return Ok(empty(range.start, None, address::redacted(&url)));
        }
        let ask = Ask {
            range: range_header(&range),
            ..Ask::get(url)
        };
        let opened = self.client.open(&ask).await?;
        if opened.head.meaning() == Meaning::Absent {
            return Err(self.not_found("payload", digest));
        }
        part::payload(range, ask.range.is_some(), opened, self.client.stall())
    }

    fn ranges_at_once(&self) -> u32 {
        client::RANGES_AT_ONCE
    }

    async fn put_payload(&self, _body: Body, _options: PutOptions) -> Result<(Digest, u64)> {
        Err(self.unsupported("store payloads: it is read-only"))
    }

    async fn remove_payload(&self, _digest: &Digest) -> Result<()> {
        Err(self.unsupported("remove payloads: it is read-only"))
    }

    fn list_payloads(&self) -> BoxStream<'_, Result<Digest>> {
        let operation = "list payloads: it is a plain web server";
        stream::once(self.listing("payloads", "", operation))
            .try_flatten()
            .boxed()
    }

    async fn list_tags(&self, folder: &str) -> Result<Vec<TagEntry>> {
        let plain_server = || self.unsupported("list tags: it is a plain web server");
        if self.options.namespace.is_some() {
            return Err(self.unsupported("list the tags of a namespace"));
        }
        let folder = folder.trim_matches('/');
        let ask = Ask {
            fresh: true,
            ..Ask::get(self.address.listing("tags", folder))
        };
        match self.client.whole(&ask, self.options.tag_max_bytes).await {
            Ok(whole) if is_listing(&whole.head) => {
                let whole = plain(whole)?;
                listing::parse_tags(&whole.source, &whole.body)
            }
            Ok(_) | Err(StoreError::Denied { .. }) => Err(plain_server()),
            Err(error) => Err(error),
        }
    }

    async fn read_tag(&self, name: &TagName) -> Result<TagStream> {
        let url = self.address.tag(self.options.namespace.as_ref(), name);
        let ask = Ask {
            fresh: true,
            ..Ask::get(url)
        };
        let whole = self.client.whole(&ask, self.options.tag_max_bytes).await?;
        if whole.head.meaning() == Meaning::Absent {
            let tag = TagSpec {
                name: name.clone(),
                version: 0,
            };
            return Err(StoreError::UnknownTag {
                tag,
                location: self.location.clone(),
            });
        }
        let whole = plain(whole)?;
        let stream = TagStream::decode(&whole.body).map_err(|error| undecodable(&whole, error))?;
        if stream.is_empty() {
            let reason = "it is a tag file without a single version".to_owned();
            return Err(StoreError::Corrupt {
                location: whole.source,
                reason,
            });
        }
        Ok(stream)
    }

    async fn insert_tag(&self, _tag: &Tag) -> Result<()> {
        Err(self.unsupported("store tags: it is read-only"))
    }

    async fn push_tag(&self, _name: &TagName, _target: &Digest, _user: &str) -> Result<Tag> {
        Err(self.unsupported("store tags: it is read-only"))
    }

    async fn remove_tag(&self, _tag: &Tag) -> Result<()> {
        Err(self.unsupported("remove tags: it is read-only"))
    }

    async fn remove_tag_stream(&self, _name: &TagName) -> Result<()> {
        Err(self.unsupported("remove tags: it is read-only"))
    }
}
