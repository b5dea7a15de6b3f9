//! Listings of a chain: unions without duplicates, that say when they are not whole.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use farseek_object::Digest;
use futures::stream::{self, BoxStream, StreamExt};

use super::health::{Verdict, combine, verdict};
use super::{Member, report};
use crate::error::{Result, StoreError};
use crate::repository::{Repository, TagEntry};

/// The digests of all `members`, each once, one member after the other.
///
/// Holds 32 bytes for each digest it has given. For what the stream ends with when a member
/// fails, see the chain's own page; `whole` says that everything was asked for.
pub(super) fn union<'a>(
    members: Vec<&'a Arc<Member>>,
    whole: bool,
    location: &'a str,
    list: impl Fn(&'a dyn Repository) -> BoxStream<'a, Result<Digest>> + Send + 'a,
) -> BoxStream<'a, Result<Digest>> {
    let state = Union {
        members: members.into_iter(),
        list,
        current: None,
        seen: HashSet::new(),
        errors: Vec::new(),
        listed: false,
    };
    stream::unfold(Some(state), move |state| async move {
        let mut state = state?;
        match state.next().await {
            Some(digest) => Some((Ok(digest), Some(state))),
            None => state.end(whole, location).map(|error| (Err(error), None)),
        }
    })
    .boxed()
}

struct Union<'a, List> {
    members: std::vec::IntoIter<&'a Arc<Member>>,
    list: List,
    current: Option<(&'a Arc<Member>, BoxStream<'a, Result<Digest>>)>,
    seen: HashSet<Digest>,
    errors: Vec<StoreError>,
    /// Whether a member has listed all it has.
    listed: bool,
}

impl<'a, List> Union<'a, List>
where
    List: Fn(&'a dyn Repository) -> BoxStream<'a, Result<Digest>> + Send + 'a,
{
    /// The next digest not given before.
    async fn next(&mut self) -> Option<Digest> {
        loop {
            let Some((member, digests)) = &mut self.current else {
                let member = self.members.next()?;
                self.current = Some((member, (self.list)(&*member.repository)));
                continue;
            };
            match digests.next().await {
                Some(Ok(digest)) if self.seen.insert(digest) => return Some(digest),
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    member.note(Some(&error));
                    if verdict(&error) == Verdict::Failed {
                        report(member, &error);
                    }
                    self.errors.push(error);
                    self.current = None;
                }
                None => {
                    member.note(None);
                    self.listed = true;
                    self.current = None;
                }
            }
        }
    }

    /// The error to end with, if the listing must not be taken for a whole one.
    fn end(self, whole: bool, location: &str) -> Option<StoreError> {
        let unsupported = |e: &StoreError| matches!(e, StoreError::Unsupported { .. });
        let (cannot, failed): (Vec<_>, Vec<_>) = self.errors.into_iter().partition(unsupported);
        let matters = match whole {
            true => failed,
            false if self.seen.is_empty() => failed,
            false => Vec::new(),
        };
        if matters.is_empty() && !self.listed && self.seen.is_empty() {
            return combine(location, cannot);
        }
        combine(location, matters)
    }
}

/// What all `members` have in `folder`, sorted, each once.
///
/// # Errors
/// Only where no member could list it: what there is, is shown, and the rest is logged.
pub(super) async fn tags(
    members: Vec<&Arc<Member>>,
    location: &str,
    folder: &str,
) -> Result<Vec<TagEntry>> {
    let mut entries = BTreeSet::new();
    let mut errors = Vec::new();
    let mut listed = false;
    for member in members {
        let answer = member.repository.list_tags(folder).await;
        member.note(answer.as_ref().err());
        match answer {
            Ok(more) => {
                listed = true;
                entries.extend(more);
            }
            Err(error) => {
                if verdict(&error) == Verdict::Failed {
                    report(member, &error);
                }
                errors.push(error);
            }
        }
    }
    match combine(location, errors) {
        Some(error) if !listed => Err(error),
        _ => Ok(entries.into_iter().collect()),
    }
}
