//! `farseek write`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use farseek_object::{Blob, Digest, Object, TagName, TagSpec};
use farseek_store::{Body, PutOptions, Repository, StoreError};
use futures::stream::{self, StreamExt as _};
use serde_json::json;
use tokio::task::spawn_blocking;

use super::tag::writable_names;
use crate::app::App;
use crate::args::{JsonArgs, RepositoryArgs};
use crate::exit::Failure;
use crate::signals::Signals;

const EXAMPLES: &str = "\
Examples:
  make-table | farseek write -t data/table
  farseek write --file table.bin -t data/table --remote origin
  farseek cat data/table";

/// Bytes read at a time.
const STEP: usize = 1 << 20;

/// `farseek write`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct WriteArgs {
    /// Tag what was stored
    #[arg(short, long = "tag", value_name = "TAG")]
    tags: Vec<TagSpec>,
    /// Store this file instead of the standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Stores, then tags, then prints the digest.
pub(crate) async fn run(args: WriteArgs, app: &mut App) -> Result<()> {
    let names = writable_names(&args.tags)?;
    // Before anything is made.
    let body = match &args.file {
        Some(file) => body_of(open(file)?, file.clone()),
        None => body_of(io::stdin(), "the standard input".into()),
    };
    let repository = app.writable(args.repository.remote.as_deref()).await?;
    // Until the tags are there.
    let hold = repository.hold().await?;
    let stored = store_and_tag(app, &*repository, body, &names).await;
    hold.release().await;
    let (digest, size) = stored?;
    if args.json.json {
        let tags: Vec<String> = names.iter().map(ToString::to_string).collect();
        let value = json!({ "digest": digest.to_string(), "size": size, "tags": tags });
        return app.output.json(&value);
    }
    app.output.line(digest)?;
    names
        .iter()
        .try_for_each(|name| app.output.line(format_args!("{name} -> {digest}")))
}

/// Stores `body` and tags it: its digest and its bytes.
async fn store_and_tag(
    app: &App,
    repository: &dyn Repository,
    body: Body,
    names: &[TagName],
) -> Result<(Digest, u64)> {
    let mut signals = Signals::listen()?;
    let storing = store_blob(app, repository, body);
    let (digest, size) = signals.unless(storing).await?;
    repository.publish().await?;
    for name in names {
        let user = app.config.signature();
        repository.push_tag(name, &digest, &user).await?;
    }
    Ok((digest, size))
}

/// Stores `body` as a payload with its blob object: its digest and its bytes.
pub(crate) async fn store_blob(
    app: &App,
    repository: &dyn Repository,
    body: Body,
) -> Result<(Digest, u64)> {
    let put = PutOptions::default();
    let (payload, size) = repository.put_payload(body, put).await?;
    let header = app.header();
    let blob = Object::Blob(Blob {
        header,
        payload,
        size,
    });
    Ok((repository.put_object(&blob, put).await?, size))
}

fn open(path: &Path) -> Result<File> {
    let directory = || Failure::usage(format!("{} is a directory: say which file", path.display()));
    match File::open(path) {
        Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_dir()) => Err(directory()),
        Ok(file) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::not_found(format!(
            "there is no file {}",
            path.display()
        ))),
        Err(error) => Err(StoreError::io("open", path)(error).into()),
    }
}

/// The bytes of `source`, which messages call `name`, read where blocking is allowed.
fn body_of(source: impl Read + Send + 'static, name: PathBuf) -> Body {
    stream::try_unfold((source, name), |(mut source, name)| async move {
        let reading = spawn_blocking(move || {
            let mut bytes = Vec::new();
            let read = source.by_ref().take(STEP as u64).read_to_end(&mut bytes);
            read.map_err(StoreError::io("read", &name))?;
            let bytes = Bytes::from(bytes);
            Ok((!bytes.is_empty()).then_some((bytes, (source, name))))
        });
        match reading.await {
            Ok(read) => read,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    })
    .boxed()
}
