//! `farseek cat`.

use anyhow::{Context as _, Result};
use clap::Args;
use farseek_object::{Digest, Hasher, NodeKind, ObjectError};
use farseek_reader::Reader;

use crate::app::App;
use crate::args::RepositoryArgs;
use crate::exit::Failure;
use crate::output::Output;
use crate::view::{self, Named};

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
    pub(crate) repository: RepositoryArgs,
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
            let position = view.follow(&reader, &reference, &path).await?;
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
