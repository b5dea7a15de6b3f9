//! Spec files that were named on the command line, and what to do about live layers.

use std::path::Path;

use anyhow::{Context as _, Result};
use farseek_object::EnvSpec;
use farseek_runtime::specs::{self, Expanded};

use crate::exit::Failure;
use crate::output::note;

/// Reads the spec files of `spec`. What is ignored in them is told.
///
/// # Errors
/// One cannot be read or understood.
pub(crate) async fn expand(spec: &EnvSpec) -> Result<Expanded> {
    let spec = spec.clone();
    let reading = tokio::task::spawn_blocking(move || specs::expand(&spec));
    let expanded = reading.await.context("reading spec files was given up")??;
    for (path, reason) in &expanded.ignored {
        note(format_args!("warning: {}: {reason}", path.display()));
    }
    Ok(expanded)
}

/// The same for what works on digests: a live layer has none. That it is left out is told.
///
/// # Errors
/// As [`expand`], and where nothing is left of something.
pub(crate) async fn digests(spec: &EnvSpec) -> Result<EnvSpec> {
    let expanded = expand(spec).await?;
    for (path, _) in &expanded.live {
        let path = path.display();
        note(format_args!(
            "warning: left out: {path} is a live layer, which has no digest"
        ));
    }
    match expanded.spec.items.is_empty() && !spec.items.is_empty() {
        true => Err(Failure::usage(format!("nothing in '{spec}' has a digest"))),
        false => Ok(expanded.spec),
    }
}

/// The same for a mount, which shows no live layers.
///
/// # Errors
/// As [`expand`], and where there is one.
pub(crate) async fn mountable(spec: &EnvSpec) -> Result<EnvSpec> {
    let expanded = expand(spec).await?;
    match expanded.live.first() {
        None => Ok(expanded.spec),
        Some((path, _)) => Err(of_runtimes(
            path,
            "a mount cannot show it; `farseek run` can",
        )),
    }
}

/// That something cannot be done with the live layer `path`.
pub(crate) fn of_runtimes(path: &Path, why: &str) -> anyhow::Error {
    let path = path.display();
    Failure::usage(format!("{path} is a live layer: {why}"))
}
