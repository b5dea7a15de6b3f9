//! `farseek cat`.

use anyhow::{Context as _, Result};
use clap::Args;
use farseek_object::{Digest, Hasher, NodeKind, ObjectError};
use farseek_reader::Reader;

use crate::app::App;
use crate::args::RepositoryArgs;
use crate::exit::Failure;
use crate::output::Output;
use crate::view::{self, LinkBudget, Named, View, Walk};

const EXAMPLES: &str = "\
Examples:
  farseek cat tools/python lib/python3/os.py
  farseek cat some/blob --remote origin > file";

/// Bytes asked for at once: the longest request a reader makes by default.
const STEP: u64 = 4 << 20;

/// `farseek cat`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CatArgs {
    /// A tag, a digest, or several joined by '+', the topmost last
    #[arg(value_name = "REF")]
    reference: String,
    /// The file to print; not needed where REF is a single blob
    path: Option<String>,
    #[command(flatten)]
    repository: RepositoryArgs,
}

/// Prints a payload and checks that it is the one that was committed.
pub(crate) async fn run(args: CatArgs, app: &mut App) -> Result<()> {
    let repository = app.repository(args.repository.remote.as_deref()).await?;
    let reader = app.reader(repository.clone())?;
    let CatArgs {
        reference, path, ..
    } = args;
    match (view::find(&*repository, &reference).await?, path) {
        (Named::Blob { payload, size }, None) => {
            print(&reader, payload, size, &reference, &mut app.output).await
        }
        (Named::Blob { .. }, Some(path)) => Err(Failure::usage(format!(
            "'{reference}' is a single blob: it holds no '{path}'; leave out the path"
        ))),
        (Named::Environment(_), None) => Err(Failure::usage(format!(
            "'{reference}' is a tree of files: say which one, as in `farseek cat {reference} PATH`"
        ))),
        (Named::Environment(view), Some(path)) => {
            let position = follow(&view, &reader, &reference, &path).await?;
            let node = &view.tree.nodes()[position as usize];
            if node.kind() == NodeKind::Directory {
                return Err(Failure::usage(format!(
                    "'{path}' is a directory in '{reference}'"
                )));
            }
            print(&reader, node.payload, node.size, &path, &mut app.output).await
        }
    }
}

/// Finds `path` through symbolic links, which stay inside the environment.
async fn follow(view: &View, reader: &Reader, reference: &str, path: &str) -> Result<u32> {
    let missing = || Failure::not_found(format!("'{reference}' has no file '{path}'"));
    let mut budget = LinkBudget::default();
    let mut directory = 0;
    let mut way = path.to_owned();
    loop {
        let inner = way.strip_prefix("/spfs/").map(str::to_owned);
        let walk = match inner.map(|inner| view.walk(0, &inner)) {
            None | Some(Walk::Missing) => view.walk(directory, &way),
            Some(found) => found,
        };
        match walk {
            Walk::Found(position) => return Ok(position),
            Walk::Missing => return Err(missing()),
            Walk::Link { position, rest } => {
                budget.follow(path)?;
                let node = &view.tree.nodes()[position as usize];
                let target = reader
                    .open(node.payload, node.size)
                    .read_at(0..node.size)
                    .await?;
                let target = std::str::from_utf8(&target).map_err(|_| missing())?;
                directory = if target.starts_with('/') {
                    0
                } else {
                    node.parent
                };
                way = if rest.is_empty() {
                    target.to_owned()
                } else {
                    format!("{target}/{rest}")
                };
            }
        }
    }
}

async fn print(
    reader: &Reader,
    payload: Digest,
    size: u64,
    name: &str,
    output: &mut Output,
) -> Result<()> {
    let blob = reader.open(payload, size);
    let mut hasher = Hasher::new();
    let mut at = 0;
    while at < size {
        let end = size.min(at + STEP);
        let bytes = blob
            .read_at(at..end)
            .await
            .with_context(|| format!("cannot read '{name}'"))?;
        if bytes.is_empty() {
            break;
        }
        hasher.update(&bytes);
        output.bytes(&bytes)?;
        at += bytes.len() as u64;
    }
    let actual = hasher.finish();
    if actual != payload {
        return Err(ObjectError::WrongDigest {
            expected: payload,
            actual,
        })
        .with_context(|| format!("what was printed of '{name}' is not what was committed"));
    }
    Ok(())
}
