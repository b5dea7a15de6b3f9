//! Whether a repository is sound: everything is read and hashed, and what is wrong is named, with
//! the tags it affects; and, where another repository has what is missing, it is repaired.
//!
//! Objects are read first, from a listing where the repository has one, else from its tags or from
//! what was asked for, downwards. Then payloads are hashed: those that blobs name, and those that
//! no blob names. Only where something is wrong are manifests read again, to find who is affected.
//!
//! A payload that no blob object names is said and is not damage: whoever stores a file stores its
//! payload first, and whoever is killed then leaves it behind. So is anything that no tag names.
//! Nor is it damage that something is not there which no tag needs but those of runtimes: a mount
//! keeps what its environment is made of, and brings of its files those that are read.
//!
//! Memory: a digest and a size for everything there is, and some MiB for each payload in flight.
//! Deliberately absent: renders, locks, files whose names are no digests (a repository does not
//! show them), the tags of other namespaces than the one that was opened.

mod affects;
mod survey;
mod repair;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use farseek_object::{Digest, EnvItem, TagName};
use futures::stream::{BoxStream, TryStreamExt};

use self::survey::Survey;
use crate::error::{Result, StoreError};
use crate::ext::RepositoryExt as _;
use crate::progress::Progress;
use crate::repository::Repository;

/// What a check reads at once.
#[derive(Debug, Clone, Copy)]
pub struct CheckOptions {
    /// Objects.
    pub objects: usize,
    /// Payloads.
    pub payloads: usize,
    /// Tags.
    pub tags: usize,
}

impl Default for CheckOptions {
    fn default() -> Self {
        // Twice the processors: while one payload waits for the disk another is hashed.
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            objects: 32,
            payloads: (2 * processors).clamp(4, 32),
            tags: 16,
        }
    }
}

/// What something is wrong with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The object of this digest.
    Object(Digest),
    /// The payload of this digest.
    Payload(Digest),
    /// A tag.
    Tag(TagName),
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// It is referred to, and not there.
    Missing,
    /// It is there, and is not what it is named, or cannot be read: the repository's words.
    Corrupt(String),
    /// A payload that is whole, under the name of another, which it is the payload of.
    Misplaced(Digest),
    /// A blob object says another size than its payload has: what it says, what there is.
    WrongSize(u64, u64),
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What it is wrong with.
    pub subject: Subject,
    /// What is wrong.
    pub damage: Damage,
    /// The tags, with their versions, or the references that were checked, that need it.
    pub affects: Vec<String>,
    /// Whether it has been repaired.
    pub repaired: bool,
    /// Why it could not be repaired, where that was tried.
    pub unrepaired: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.damage, &self.subject) {
            (Damage::Missing, _) => write!(f, "missing {}", self.subject),
            (Damage::Corrupt(reason), _) => write!(f, "corrupt {}: {reason}", self.subject),
            (Damage::Misplaced(of), _) => {
                write!(f, "misplaced {}: it is the payload {of}", self.subject)
            }
            (Damage::WrongSize(says, has), _) => write!(
                f,
                "wrong size in {}: it says {says} bytes, the payload has {has}",
                self.subject
            ),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(digest) => write!(f, "object {digest}"),
            Self::Payload(digest) => write!(f, "payload {digest}"),
            Self::Tag(name) => write!(f, "tag {name}"),
        }
    }
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckReport {
    /// Tags that were read.
    pub tags: u64,
    /// Objects that were read.
    pub objects: u64,
    /// Payloads that were hashed.
    pub payloads: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// What is wrong, or was, sorted.
    pub problems: Vec<Problem>,
    /// Payloads that no blob object names, sorted. No damage: a commit or a copy that goes on, or
    /// was killed, has them.
    pub orphans: Vec<Digest>,
    /// What is not there and needed by no tag but those of runtimes. No damage: files of mounted
    /// environments that nobody has read.
    pub absent: u64,
}

impl CheckReport {
    /// Whether nothing is wrong, or nothing any more.
    pub fn is_sound(&self) -> bool {
        self.problems.iter().all(|problem| problem.repaired)
    }
}

/// Checks all of a repository or, where there are `items`, what these need; and repairs it from
/// `source`, where there is one.
///
/// # Errors
/// `Unsupported` where all is to be checked of a repository that lists neither objects nor tags;
/// and what keeps the check from being done. Damage is no error.
pub async fn check(
    repository: Arc<dyn Repository>,
    items: &[EnvItem],
    source: Option<Arc<dyn Repository>>,
    options: CheckOptions,
    progress: Arc<dyn Progress>,
) -> Result<CheckReport> {
    let mut survey = Survey::new(repository.clone(), options, progress);
    let roots = match items {
        [] => survey.tags().await?,
        items => named(&*repository, items).await?,
    };
    let mut start: Vec<Digest> = roots.iter().map(|root| root.target).collect();
    let mut stored = HashSet::new();
    if items.is_empty() {
        let objects = listed(repository.list_objects(None)).await?;
        if objects.is_none() && survey.lists_no_tags {
            return Err(StoreError::Unsupported {
                operation: "list what it holds: say which tags or digests to check",
                location: repository.location().to_owned(),
            });
        }
        start.extend(objects.unwrap_or_default());
        stored = listed(repository.list_payloads())
            .await?
            .unwrap_or_default();
    }
    survey.objects(start).await?;
    let orphans = survey.orphans(&stored);
    survey.payloads(&orphans).await?;
    let mut problems = affects::problems(&survey, &roots).await?;
    let absent = match items {
        [] => affects::set_absent_aside(&mut survey, &mut problems),
        _ => 0,
    };
    if let Some(source) = source {
        repair::repair(&mut survey, &roots, &source, &mut problems).await?;
    }
    Ok(CheckReport {
        tags: survey.tags_read,
        objects: survey.objects_read,
        payloads: survey.payloads_hashed,
        bytes: survey.bytes_hashed,
        problems: problems.into_values().collect(),
        orphans,
        absent,
    })
}

/// Something that is wanted by name.
#[derive(Debug, Clone)]
struct Root {
    name: String,
    target: Digest,
}

type Problems = BTreeMap<Subject, Problem>;

async fn named(repository: &dyn Repository, items: &[EnvItem]) -> Result<Vec<Root>> {
    let mut roots = Vec::with_capacity(items.len());
    for item in items {
        roots.push(Root {
            name: item.to_string(),
            target: repository.resolve_item(item).await?,
        });
    }
    Ok(roots)
}

/// All that is listed, or `None` where the repository cannot list.
async fn listed(list: BoxStream<'_, Result<Digest>>) -> Result<Option<HashSet<Digest>>> {
    match list.try_collect().await {
        Ok(digests) => Ok(Some(digests)),
        Err(StoreError::Unsupported { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
