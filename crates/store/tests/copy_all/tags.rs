//! Tags: exactly the version that was meant, as SPFS has it.

use farseek_object::{Digest, Tag};
use farseek_store::CopyPolicy::{LatestTags, Missing};
use farseek_store::TagOutcome;

use crate::graph::{Graph, digest, fill, name};
use crate::{copy_with, memory};

fn version(target: Digest, time: &str) -> Tag {
    Tag {
        name: name("org/env"),
        target,
        parent: digest("its parent"),
        user: "they@there".into(),
        time: time.parse().unwrap(),
    }
}

/// Copies the tag over one version that is there; what becomes of it, and of the history.
async fn over(there: &Tag, policy: farseek_store::CopyPolicy) -> (Graph, TagOutcome, Vec<Tag>) {
    let (from, to) = (memory(), memory());
    let graph = fill(&*from).await;
    to.insert_tag(there).await.unwrap();
    let summary = copy_with(from, to.clone(), "org/env", policy)
        .await
        .unwrap();
    let stream = to.read_tag(&there.name).await.unwrap();
    let (_, outcome) = summary.items[0].tag.clone().unwrap();
    let copied = to.has_object(&graph.env).await.unwrap();
    assert_eq!(copied, !matches!(outcome, TagOutcome::Kept(_)));
    (graph, outcome, stream.newest_first().cloned().collect())
}

#[tokio::test]
async fn another_version_is_kept_unless_tags_are_updated() {
    let old = version(digest("theirs"), "2001-01-01T00:00:00Z");
    let (_, outcome, history) = over(&old, Missing).await;
    assert_eq!(outcome, TagOutcome::Kept(digest("theirs")));
    assert_eq!(history, std::slice::from_ref(&old));
    let (graph, outcome, history) = over(&old, LatestTags).await;
    assert_eq!(outcome, TagOutcome::Updated);
    assert_eq!(history.len(), 2);
    assert_eq!((history[0].target, &history[1]), (graph.env, &old));
}

#[tokio::test]
async fn the_version_is_the_source_s_to_the_last_byte() {
    let (from, to) = (memory(), memory());
    fill(&*from).await;
    copy_with(from.clone(), to.clone(), "org/env", Missing)
        .await
        .unwrap();
    let original = from.read_tag(&name("org/env")).await.unwrap();
    let copy = to.read_tag(&name("org/env")).await.unwrap();
    assert_eq!(copy.len(), 1, "its history is not copied");
    assert_eq!(copy.head(), original.head());
    // Its parent is the version before it in the source, which the destination does not have.
    let parent = original.version(1).unwrap().digest();
    assert_eq!(copy.head().unwrap().parent, parent);
    // The one before it comes to its place before it.
    copy_with(from, to.clone(), "org/env~1", Missing)
        .await
        .unwrap();
    let copy = to.read_tag(&name("org/env")).await.unwrap();
    assert_eq!(copy, original);
}

#[tokio::test]
async fn an_older_version_goes_below_the_newest() {
    let new = version(digest("theirs"), "2999-01-01T00:00:00Z");
    let (graph, outcome, history) = over(&new, LatestTags).await;
    assert_eq!(outcome, TagOutcome::Older);
    assert_eq!((&history[0], history[1].target), (&new, graph.env));
}

#[tokio::test]
async fn the_same_version_is_not_written_again() {
    let (from, to) = (memory(), crate::watched::Watched::new(memory()));
    fill(&*from).await;
    for (policy, expected) in [
        (Missing, TagOutcome::Updated),
        (Missing, TagOutcome::Unchanged),
        (LatestTags, TagOutcome::Unchanged),
    ] {
        let summary = copy_with(from.clone(), to.clone(), "layer", policy)
            .await
            .unwrap();
        assert_eq!(summary.items[0].tag.clone().unwrap().1, expected);
    }
    assert_eq!(to.counts()["insert_tag"], 1);
}
