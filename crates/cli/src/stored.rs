//! Objects of one kind that a repository holds, and the tags that name them.

use std::collections::HashMap;

use anyhow::Result;
use farseek_object::{Digest, ObjectKind, TagSpec};
use farseek_store::{Repository, RepositoryExt as _, StoreError};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use crate::app::App;
use crate::args::{JsonArgs, RepositoryArgs};
use crate::exit::{self, Code, Failure};
use crate::output::note;

/// Objects and tags that are read at once.
const CONCURRENCY: usize = 16;

/// How they are shown.
#[derive(Debug, clap::Args)]
pub(crate) struct StoredArgs {
    /// Shorten digests
    #[arg(long)]
    short: bool,
    /// Also show the tags that name each
    #[arg(long)]
    tags: bool,
    #[command(flatten)]
    json: JsonArgs,
}

/// Prints the objects of `kind`, one a line, in the order of their digests.
pub(crate) async fn list(
    kind: ObjectKind,
    args: &StoredArgs,
    repository: &RepositoryArgs,
    app: &mut App,
) -> Result<()> {
    let repository = app.repository(repository.remote.as_deref()).await?;
    let found = find(&*repository, kind).await?;
    let tags = match args.tags {
        true => tags_by_target(&*repository).await?,
        false => HashMap::new(),
    };
    let mut list = Vec::with_capacity(found.digests.len());
    for digest in &found.digests {
        let shown = match args.short {
            true => digest.short(),
            false => digest.to_string(),
        };
        let names = tags.get(digest).map(Vec::as_slice).unwrap_or_default();
        let names: Vec<String> = names.iter().map(TagSpec::to_string).collect();
        if args.json.json {
            let mut value = json!({ "digest": shown });
            if args.tags {
                value["tags"] = names.into();
            }
            list.push(value);
            continue;
        }
        match names.is_empty() {
            true => app.output.line(shown)?,
            false => app
                .output
                .line(format_args!("{shown} {}", names.join(" ")))?,
        }
    }
    if args.json.json {
        app.output.json(&Value::Array(list))?;
    }
    found.complain(repository.location())
}

/// What was found, and how many objects could not be looked at.
struct Found {
    digests: Vec<Digest>,
    unreadable: usize,
}

impl Found {
    fn complain(&self, location: &str) -> Result<()> {
        let n = self.unreadable;
        match n {
            0 => Ok(()),
            _ => Err(Failure::error(
                Code::Corrupt,
                format!("{n} objects of {location} cannot be read and may be missing above"),
            )),
        }
    }
}

/// Looks at every object. One that is damaged is told and does not hide the others.
async fn find(repository: &dyn Repository, kind: ObjectKind) -> Result<Found> {
    let mut objects = repository
        .list_objects(None)
        .map_ok(|digest| async move {
            match repository.get_object(&digest).await {
                Ok(object) => Ok(Some((digest, Some(object.kind())))),
                // Removed since it was listed.
                Err(error) if error.is_not_found() => Ok(None),
                Err(error @ (StoreError::Corrupt { .. } | StoreError::Undecodable { .. })) => {
                    note(format_args!("warning: {}", exit::message(&error.into())));
                    Ok(Some((digest, None)))
                }
                Err(error) => Err(error),
            }
        })
        .try_buffer_unordered(CONCURRENCY);
    let mut found = Found {
        digests: Vec::new(),
        unreadable: 0,
    };
    while let Some(object) = objects.try_next().await? {
        match object {
            Some((digest, Some(its))) if its == kind => found.digests.push(digest),
            Some((_, None)) => found.unreadable += 1,
            _ => {}
        }
    }
    found.digests.sort_unstable();
    Ok(found)
}

/// For each target the tags that name it, each at its newest version that does.
async fn tags_by_target(repository: &dyn Repository) -> Result<HashMap<Digest, Vec<TagSpec>>> {
    let names = repository.walk_tags("").await?;
    let reads = names.into_iter().map(|name| async move {
        match repository.read_tag(&name).await {
            Ok(history) => Ok(Some((name, history))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    });
    let reads: Vec<_> = reads.collect();
    let mut reads = stream::iter(reads).buffered(CONCURRENCY);
    let mut tags: HashMap<Digest, Vec<TagSpec>> = HashMap::new();
    while let Some(read) = reads.try_next().await? {
        let Some((name, history)) = read else {
            continue;
        };
        for (tag, version) in history.newest_first().zip(0..) {
            let named = tags.entry(tag.target).or_default();
            if named.last().is_none_or(|last| last.name != name) {
                let name = name.clone();
                named.push(TagSpec { name, version });
            }
        }
    }
    Ok(tags)
}
