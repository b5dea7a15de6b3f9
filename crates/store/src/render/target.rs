//! Rendering into a directory of somebody's.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use farseek_object::MergedTree;

use super::directory::Directory;
use super::fill::{self, Fill};
use super::source::{Bytes, RenderSource};
use super::{RenderOptions, RenderSummary};
use crate::blocking::run;
use crate::error::{Result, StoreError};
use crate::progress::Progress;

/// Renders `tree` into the directory `target`, which is made if need be, by copies of the payloads
/// of `source`: what is not on this machine is fetched.
///
/// It is complete when this returns; whoever is stopped leaves a part.
///
/// # Errors
/// The directory holds something, unless that is allowed; a payload that is nowhere, or not what it
/// is named; whatever cannot be made, or is made there by somebody else meanwhile.
pub async fn render_directory(
    source: RenderSource,
    tree: Arc<MergedTree>,
    target: &Path,
    options: &RenderOptions,
    progress: Arc<dyn Progress>,
) -> Result<RenderSummary> {
    let (path, existing) = (target.to_owned(), options.allow_existing);
    let root = run(move || prepare(&path, existing)).await?;
    let summary = RenderSummary::of(&tree);
    summary.announce(&progress);
    let filling = Fill {
        tree,
        bytes: Bytes::new(source),
        links: None,
        root_mode: None,
        dated: true,
        set_id: options.set_id,
        existing,
        progress,
        linked: AtomicU64::new(0),
    };
    fill::fill(Arc::new(filling), root, options.concurrency).await?;
    Ok(summary)
}

/// Opens the directory, which is made when it is missing.
fn prepare(path: &Path, existing: bool) -> Result<Directory> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => made.map_err(StoreError::io("create", path))?,
    }
    let directory = Directory::open(path)?;
    let mut entries = fs::read_dir(path).map_err(StoreError::io("list", path))?;
    if !existing && entries.next().is_some() {
        return Err(StoreError::Invalid {
            what: "directory to render into",
            text: path.display().to_string(),
            reason: "it is not empty: name another, or allow what is in it to be replaced \
                     (--allow-existing)"
                .into(),
        });
    }
    Ok(directory)
}
