//! Reading all of a repository, and noting what is wrong.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use farseek_object::{Digest, Object, TagName, TagNamespace, TagSpec, TagStream};
use futures::FutureExt;
use futures::stream::{self, FuturesUnordered, StreamExt};

use super::{CheckOptions, Damage, Root, Subject};
use crate::copy::{Incoming, PAYLOAD_MAX, is_damage};
use crate::error::{Result, StoreError};
use crate::ext::RepositoryExt as _;
use crate::progress::Progress;
use crate::repository::{Repository, TagEntry};
use crate::task::spawn;

/// What is known of a repository so far.
pub(super) struct Survey {
    pub(super) repository: Arc<dyn Repository>,
    options: CheckOptions,
    progress: Arc<dyn Progress>,
    /// Objects that were looked at, or are about to be.
    seen: HashSet<Digest>,
    /// The blobs, and the sizes they say.
    blobs: HashMap<Digest, u64>,
    /// What platforms and layers refer to.
    pub(super) stacks: HashMap<Digest, Vec<Digest>>,
    pub(super) manifests: HashSet<Digest>,
    /// Payloads that were hashed, or are about to be.
    hashed: HashSet<Digest>,
    pub(super) damage: BTreeMap<Subject, Damage>,
    pub(super) lists_no_tags: bool,
    pub(super) tags_read: u64,
    pub(super) objects_read: u64,
    pub(super) payloads_hashed: u64,
    pub(super) bytes_hashed: u64,
    found: (u64, u64),
}

/// What has been read: something, nothing, or something that is wrong.
enum Read<T> {
    Whole(T),
    Missing,
    Corrupt(String),
}

impl<T> Read<T> {
    /// Damage is an answer; that a remote is gone is not.
    fn of(result: Result<T>) -> Result<Self> {
        match result {
            Ok(value) => Ok(Self::Whole(value)),
            Err(error) if error.is_not_found() => Ok(Self::Missing),
            Err(error) if is_damage(&error) => Ok(Self::Corrupt(error.with_causes())),
            Err(error) => Err(error),
        }
    }
}

impl Survey {
    pub(super) fn new(
        repository: Arc<dyn Repository>,
        options: CheckOptions,
        progress: Arc<dyn Progress>,
    ) -> Self {
        Self {
            repository,
            options,
            progress,
            seen: HashSet::new(),
            blobs: HashMap::new(),
            stacks: HashMap::new(),
            manifests: HashSet::new(),
            hashed: HashSet::new(),
            damage: BTreeMap::new(),
            lists_no_tags: false,
            tags_read: 0,
            objects_read: 0,
            payloads_hashed: 0,
            bytes_hashed: 0,
            found: (0, 0),
        }
    }

    /// Reads every tag, also of namespaces: all their versions.
    pub(super) async fn tags(&mut self) -> Result<Vec<Root>> {
        let repository = self.repository.clone();
        let names = match repository.walk_tags("").await {
            Err(StoreError::Unsupported { .. }) => {
                self.lists_no_tags = true;
                return Ok(Vec::new());
            }
            names => names?,
        };
        let mut roots = self.streams(None, &repository, names).await?;
        for entry in repository.list_tags("").await? {
            let TagEntry::Namespace(namespace) = entry else {
                continue;
            };
            let view = match repository.in_namespace(Some(&namespace)).await {
                Err(StoreError::Unsupported { .. }) => continue,
                view => view?,
            };
            let names = view.walk_tags("").await?;
            roots.extend(self.streams(Some(&namespace), &view, names).await?);
        }
        Ok(roots)
    }

    async fn streams(
        &mut self,
        namespace: Option<&TagNamespace>,
        view: &Arc<dyn Repository>,
        names: Vec<TagName>,
    ) -> Result<Vec<Root>> {
        let mut roots = Vec::new();
        let read = |name: TagName| async move {
            let stream = Read::of(view.read_tag(&name).await);
            (name, stream)
        };
        let mut streams =
            stream::iter(names.into_iter().map(read)).buffered(self.options.tags.max(1));
        while let Some((name, stream)) = streams.next().await {
            match stream? {
                Read::Whole(stream) => {
                    self.tags_read += 1;
                    roots.extend(versions(namespace, &name, &stream));
                }
                // Removed since it was listed.
                Read::Missing => {}
                Read::Corrupt(reason) => {
                    let subject = Subject::of_tag(namespace, name);
                    self.damage.insert(subject, Damage::Corrupt(reason));
                }
            }
        }
        Ok(roots)
    }

    /// Reads objects, and what is below them.
    pub(super) async fn objects(&mut self, mut queue: Vec<Digest>) -> Result<()> {
        queue.retain(|digest| self.seen.insert(*digest));
        self.expect(queue.len() as u64, 0);
        let mut reading = FuturesUnordered::new();
        loop {
            while reading.len() < self.options.objects.max(1)
                && let Some(digest) = queue.pop()
            {
                let repository = self.repository.clone();
                let read = async move { Read::of(repository.get_object(&digest).await) };
                reading.push(spawn(read).map(move |object| (digest, object)).boxed());
            }
            let Some((digest, object)) = reading.next().await else {
                return Ok(());
            };
            self.progress.stored(1, 0);
            match object? {
                Read::Whole(object) => {
                    let mut children = self.note(digest, &object);
                    children.retain(|child| self.seen.insert(*child));
                    self.expect(children.len() as u64, 0);
                    queue.extend(children);
                }
                Read::Missing => {
                    self.damage.insert(Subject::Object(digest), Damage::Missing);
                }
                Read::Corrupt(reason) => {
                    let damage = Damage::Corrupt(reason);
                    self.damage.insert(Subject::Object(digest), damage);
                }
            }
        }
    }

    /// Takes note of an object, and gives what it refers to.
    fn note(&mut self, digest: Digest, object: &Object) -> Vec<Digest> {
        self.objects_read += 1;
        let children = object.children();
        match object {
            Object::Blob(blob) => {
                self.blobs.insert(digest, blob.size);
            }
            Object::Manifest(_) => {
                self.manifests.insert(digest);
            }
            Object::Layer(_) | Object::Platform(_) => {
                self.stacks.insert(digest, children.clone());
            }
        }
        children
    }

    /// Those of `stored` payloads that no blob object names, also none that is damaged; sorted.
    pub(super) fn orphans(&self, stored: &HashSet<Digest>) -> Vec<Digest> {
        let is_named = |digest: &Digest| {
            self.blobs.contains_key(digest) || self.damage.contains_key(&Subject::Object(*digest))
        };
        let mut orphans: Vec<Digest> = stored.iter().copied().filter(|d| !is_named(d)).collect();
        orphans.sort_unstable();
        orphans
    }

    /// Hashes the payloads of all blobs that were not hashed yet, and `more`.
    pub(super) async fn payloads(&mut self, more: &[Digest]) -> Result<()> {
        let mut queue: Vec<(Digest, Option<u64>)> = self
            .blobs
            .iter()
            .map(|(digest, size)| (*digest, Some(*size)))
            .chain(more.iter().map(|digest| (*digest, None)))
            .collect();
        queue.retain(|(digest, _)| self.hashed.insert(*digest));
        // The largest are begun first.
        queue.sort_unstable_by_key(|(_, size)| *size);
        let bytes = queue.iter().filter_map(|(_, size)| *size);
        self.expect(queue.len() as u64, bytes.fold(0, u64::saturating_add));
        // What lies under the name of a payload may be another one that is larger.
        let largest = self.blobs.values().copied().max().unwrap_or(0);
        let mut hashing = FuturesUnordered::new();
        loop {
            while hashing.len() < self.options.payloads.max(1)
                && let Some((digest, size)) = queue.pop()
            {
                let most = size.map_or(PAYLOAD_MAX, |_| largest);
                let hash = hash(self.repository.clone(), digest, most, self.progress.clone());
                hashing.push(
                    spawn(hash)
                        .map(move |hashed| (digest, size, hashed))
                        .boxed(),
                );
            }
            let Some((digest, size, hashed)) = hashing.next().await else {
                return Ok(());
            };
            self.progress.stored(1, 0);
            self.judge(digest, size, hashed?);
        }
    }

    /// Takes note of a payload that blob objects say is of `size`.
    fn judge(&mut self, digest: Digest, size: Option<u64>, hashed: Read<(Digest, u64)>) {
        let damage = match hashed {
            // Removed since it was listed, where no blob names it.
            Read::Missing if size.is_none() => return,
            Read::Missing => Damage::Missing,
            Read::Corrupt(reason) => Damage::Corrupt(reason),
            Read::Whole((found, bytes)) => {
                self.payloads_hashed += 1;
                self.bytes_hashed += bytes;
                match size {
                    _ if found != digest => self.wrong(found, bytes, size),
                    Some(size) if size != bytes => {
                        let damage = Damage::WrongSize(size, bytes);
                        self.damage.insert(Subject::Object(digest), damage);
                        return;
                    }
                    _ => return,
                }
            }
        };
        self.damage.insert(Subject::Payload(digest), damage);
    }

    /// A payload that is not the one it is named.
    fn wrong(&self, found: Digest, bytes: u64, size: Option<u64>) -> Damage {
        if self.blobs.contains_key(&found) {
            return Damage::Misplaced(found);
        }
        Damage::Corrupt(match size {
            Some(size) if size != bytes => {
                format!("it has {bytes} bytes instead of {size}, those of {found}")
            }
            _ => format!("its bytes are those of {found}"),
        })
    }

    /// Forgets what was wrong, and looks again at that and at what is below it.
    pub(super) async fn again(
        &mut self,
        subjects: &[Subject],
        roots: &mut Vec<Root>,
    ) -> Result<()> {
        let (mut objects, mut unnamed) = (Vec::new(), Vec::new());
        for subject in subjects {
            self.damage.remove(subject);
            match subject {
                Subject::Object(digest) => {
                    self.seen.remove(digest);
                    self.hashed.remove(digest);
                    objects.push(*digest);
                }
                Subject::Payload(digest) => {
                    self.hashed.remove(digest);
                    unnamed.extend((!self.blobs.contains_key(digest)).then_some(*digest));
                }
                Subject::Tag(_) | Subject::TagOf(..) => {
                    objects.extend(self.tag_again(subject, roots).await?);
                }
            }
        }
        self.objects(objects).await?;
        unnamed.retain(|digest| !self.blobs.contains_key(digest));
        self.payloads(&unnamed).await
    }

    async fn tag_again(&mut self, subject: &Subject, roots: &mut Vec<Root>) -> Result<Vec<Digest>> {
        let (namespace, name) = subject.as_tag().expect("the subject is a tag");
        let view = match namespace {
            None => self.repository.clone(),
            Some(_) => self.repository.in_namespace(namespace).await?,
        };
        let damage = match Read::of(view.read_tag(name).await)? {
            Read::Whole(stream) => {
                let versions = versions(namespace, name, &stream);
                let targets = versions.iter().map(|root| root.target).collect();
                roots.extend(versions);
                return Ok(targets);
            }
            Read::Missing => Damage::Missing,
            Read::Corrupt(reason) => Damage::Corrupt(reason),
        };
        self.damage.insert(subject.clone(), damage);
        Ok(Vec::new())
    }

    /// What has been found by now: things and bytes.
    pub(super) fn found(&self) -> (u64, u64) {
        self.found
    }

    pub(super) fn progress(&self) -> Arc<dyn Progress> {
        self.progress.clone()
    }

    fn expect(&mut self, items: u64, bytes: u64) {
        self.found.0 += items;
        self.found.1 = self.found.1.saturating_add(bytes);
        self.progress.found(self.found.0, self.found.1);
    }
}

/// The versions of a tag, as what wants its targets.
fn versions(namespace: Option<&TagNamespace>, name: &TagName, stream: &TagStream) -> Vec<Root> {
    let version = |(version, tag): (usize, &farseek_object::Tag)| {
        let spec = TagSpec {
            name: name.clone(),
            version: version as u64,
        };
        Root {
            name: match namespace {
                None => spec.to_string(),
                Some(namespace) => format!("{spec} of the namespace {namespace}"),
            },
            target: tag.target,
        }
    };
    stream.newest_first().enumerate().map(version).collect()
}

async fn hash(
    repository: Arc<dyn Repository>,
    digest: Digest,
    most: u64,
    progress: Arc<dyn Progress>,
) -> Result<Read<(Digest, u64)>> {
    let size = Some(most).filter(|most| *most < PAYLOAD_MAX);
    let hashed = match Incoming::open(&repository, digest, size, &progress).await {
        Ok(incoming) => incoming.drain(most).await,
        Err(error) => Err(error),
    };
    Read::of(hashed)
}
