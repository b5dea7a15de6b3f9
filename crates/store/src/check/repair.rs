//! What is missing or damaged is fetched again from another repository.
//!
//! What is damaged is removed once the other repository is known to have it, because a repository
//! leaves what is there; then everything is copied as any graph is, children first, and what was
//! wrong is looked at again: only that says what has been repaired. A tag that cannot be read gets
//! the other repository's history and what can be read of its own, with those versions whose targets
//! are there.

use std::collections::BTreeMap;
use std::sync::Arc;

use farseek_object::{Digest, EnvItem, Object, TagName, TagNamespace, TagStream};
use futures::stream::{self, StreamExt};

use super::survey::Survey;
use super::{Damage, Problems, Root, Subject, affects};
use crate::copy::{CopyOptions, CopyPolicy, CopySummary, Incoming, PAYLOAD_MAX, copy};
use crate::error::{Result, StoreError};
use crate::progress::Progress;
use crate::repository::Repository;

/// Questions to the other repository at once.
const CONCURRENCY: usize = 16;

/// Below what was repaired more may turn out to be wrong, a level of the graph at a time.
const ROUNDS: usize = 8;

/// The work of one round.
struct Repair {
    to: Arc<dyn Repository>,
    from: Arc<dyn Repository>,
    progress: Arc<dyn Progress>,
}

/// Progress of the repair, told after what the check has told.
struct After {
    progress: Arc<dyn Progress>,
    items: u64,
    bytes: u64,
}

impl Progress for After {
    fn found(&self, items: u64, bytes: u64) {
        let bytes = self.bytes.saturating_add(bytes);
        self.progress.found(self.items + items, bytes);
    }

    fn stored(&self, items: u64, bytes: u64) {
        self.progress.stored(items, bytes);
    }
}

/// Repairs what of `problems` can be, and takes note of it there.
pub(super) async fn repair(
    survey: &mut Survey,
    roots: &[Root],
    source: &Arc<dyn Repository>,
    problems: &mut Problems,
) -> Result<()> {
    let mut roots = roots.to_vec();
    for _ in 0..ROUNDS {
        let open = problems.values();
        let open = open.filter(|problem| !problem.repaired && problem.unrepaired.is_none());
        let subjects: Vec<Subject> = open.map(|problem| problem.subject.clone()).collect();
        if subjects.is_empty() {
            return Ok(());
        }
        let (items, bytes) = survey.found();
        let repair = Repair {
            to: survey.repository.clone(),
            from: source.clone(),
            progress: Arc::new(After {
                progress: survey.progress(),
                items,
                bytes,
            }),
        };
        let mut reasons = repair.round(&subjects, &survey.damage).await;
        survey.again(&subjects, &mut roots).await?;
        let now = affects::problems(survey, &roots).await?;
        for problem in problems.values_mut().filter(|problem| !problem.repaired) {
            problem.repaired = !now.contains_key(&problem.subject);
            if problem.repaired {
                problem.unrepaired = None;
            } else {
                let reason = reasons.remove(&problem.subject);
                let still = || "it is still wrong after it was copied again".to_owned();
                problem
                    .unrepaired
                    .get_or_insert_with(|| reason.unwrap_or_else(still));
            }
        }
        for (subject, problem) in now {
            problems.entry(subject).or_insert(problem);
        }
    }
    Ok(())
}

/// Why something could not be repaired.
type Reasons = BTreeMap<Subject, String>;

impl Repair {
    /// Tries to repair `subjects`, and says of those it could not why.
    async fn round(&self, subjects: &[Subject], damage: &BTreeMap<Subject, Damage>) -> Reasons {
        let mut reasons = Reasons::new();
        let ready = stream::iter(subjects.iter().filter(|s| s.as_tag().is_none()))
            .map(|subject| async move { (subject, self.make_way(subject, &damage[subject]).await) })
            .buffered(CONCURRENCY);
        let ready: Vec<_> = ready.collect().await;
        let mut wanted = Vec::new();
        for (subject, made) in ready {
            match made {
                Ok(digest) => wanted.push((subject, digest)),
                Err(error) => {
                    reasons.insert(subject.clone(), error.with_causes());
                }
            }
        }
        self.bring_all(wanted, &mut reasons).await;
        for subject in subjects {
            if let Some((namespace, name)) = subject.as_tag()
                && let Err(error) = self.tag(namespace, name).await
            {
                reasons.insert(subject.clone(), error.with_causes());
            }
        }
        reasons
    }

    /// Removes something damaged that the source has. Gives what is then to be copied.
    async fn make_way(&self, subject: &Subject, damage: &Damage) -> Result<Digest> {
        match subject {
            Subject::Payload(digest) => {
                self.has_payload(digest).await?;
                if *damage != Damage::Missing {
                    self.is_whole(digest).await?;
                    self.to.remove_payload(digest).await?;
                }
                Ok(*digest)
            }
            Subject::Object(digest) => {
                let object = self.from.get_object(digest).await?;
                if let (Damage::WrongSize(_, size), Object::Blob(blob)) = (damage, &object)
                    && blob.size != *size
                {
                    let location = self.from.location().to_owned();
                    let reason = format!("its blob {digest} says {} bytes", blob.size);
                    return Err(StoreError::Corrupt { location, reason });
                }
                if *damage != Damage::Missing {
                    self.to.remove_object(digest).await?;
                }
                Ok(*digest)
            }
            Subject::Tag(_) | Subject::TagOf(..) => unreachable!("tags are repaired by themselves"),
        }
    }

    async fn has_payload(&self, digest: &Digest) -> Result<()> {
        match self.from.payload_size(digest).await {
            Ok(None) => Err(StoreError::NotFound {
                what: "payload",
                digest: *digest,
                location: self.from.location().to_owned(),
            }),
            // It is there, and its size is not told.
            Ok(Some(_)) | Err(StoreError::Unsupported { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads the source's payload once, before what is here is thrown away for it.
    async fn is_whole(&self, digest: &Digest) -> Result<()> {
        let nobody: Arc<dyn Progress> = Arc::new(());
        let incoming = Incoming::open(&self.from, *digest, None, &nobody).await?;
        let (found, _) = incoming.drain(PAYLOAD_MAX).await?;
        if found == *digest {
            return Ok(());
        }
        Err(StoreError::Corrupt {
            location: format!("the payload {digest} of {}", self.from.location()),
            reason: format!("its bytes are those of {found}"),
        })
    }

    /// Copies all at once or, where that fails, one by one, to tell which.
    async fn bring_all(&self, wanted: Vec<(&Subject, Digest)>, reasons: &mut Reasons) {
        let digests: Vec<Digest> = wanted.iter().map(|(_, digest)| *digest).collect();
        if digests.is_empty() || self.bring(&digests).await.is_ok() {
            return;
        }
        let mut gone: Option<String> = None;
        for (subject, digest) in wanted {
            let reason = match &gone {
                Some(reason) => Some(reason.clone()),
                None => match self.bring(&[digest]).await {
                    Ok(_) => None,
                    Err(error) => {
                        let reason = error.with_causes();
                        gone = error.is_transient().then(|| reason.clone());
                        Some(reason)
                    }
                },
            };
            reasons.extend(reason.map(|reason| (subject.clone(), reason)));
        }
    }

    async fn bring(&self, digests: &[Digest]) -> Result<CopySummary> {
        let items: Vec<EnvItem> = digests.iter().copied().map(EnvItem::Digest).collect();
        let options = CopyOptions {
            policy: CopyPolicy::Check,
            ..CopyOptions::default()
        };
        let (from, to) = (self.from.clone(), self.to.clone());
        copy(from, to, &items, options, self.progress.clone()).await
    }

    /// Puts the source's history of a tag, and what can still be read of its own, in the place of
    /// one that cannot be read, which a repository on disk keeps beside it.
    async fn tag(&self, namespace: Option<&TagNamespace>, name: &TagName) -> Result<()> {
        let (from, to) = (
            view(&self.from, namespace).await?,
            view(&self.to, namespace).await?,
        );
        let stream = from.read_tag(name).await?;
        let mut history = TagStream::default();
        let mut failed = None;
        for tag in stream.newest_first() {
            match self.bring(&[tag.target]).await {
                Ok(_) => drop(history.insert(tag.clone())),
                Err(error) => failed = Some(error),
            }
        }
        if let (true, Some(error)) = (history.is_empty(), failed) {
            return Err(error);
        }
        // Of what is damaged also that may be wrong which can be read: what names nothing is.
        let own = to.readable_tag(name).await.unwrap_or_default();
        for tag in own.newest_first() {
            if self.to.has_object(&tag.target).await? || self.bring(&[tag.target]).await.is_ok() {
                history.insert(tag.clone());
            }
        }
        to.replace_tag(name, &history).await
    }
}

/// A repository with the tags of a namespace.
async fn view(
    repository: &Arc<dyn Repository>,
    namespace: Option<&TagNamespace>,
) -> Result<Arc<dyn Repository>> {
    match namespace {
        None => Ok(repository.clone()),
        Some(_) => repository.in_namespace(namespace).await,
    }
}
