//! `farseek commit`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use farseek_object::{
    Annotation, Digest, EnvSpec, Layer, MergedTree, Object, Platform, TagName, TagSpec,
};
use farseek_store::{
    CommitOptions, CommitSummary, Location, PutOptions, Repository, RepositoryExt as _,
    commit_directory,
};
use serde_json::json;

use super::tag::writable_names;
use crate::active::{Active, merged};
use crate::annotations::{self, AnnotationArgs};
use crate::app::App;
use crate::args::{JsonArgs, RepositoryArgs};
use crate::exit::Failure;
use crate::progress::Progress;
use crate::signals::Signals;
use crate::size;
use crate::specs;

const EXAMPLES: &str = "\
Examples:
  farseek commit ./build --tag tools/python --annotation version=3.12
  farseek commit platform --ref tools/python+project/extra -t project/env
  farseek commit layer -t project/extra        # in a runtime: what has changed in it

SPFS's form, `commit layer --path DIR`, is understood too. In a runtime, `commit platform` without
--ref stores all of it, with what has changed; the runtime itself goes on as it is.";

/// `farseek commit`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CommitArgs {
    /// The directory; SPFS's form with the word `layer` or `platform` before it is understood
    /// too (a directory of that name is `./layer`)
    #[arg(value_name = "DIR", num_args = 0..=2)]
    words: Vec<PathBuf>,
    /// Tag what was committed
    #[arg(short, long = "tag", value_name = "TAG")]
    tags: Vec<TagSpec>,
    /// The directory, given as an option
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Instead of a directory, stack these: a platform
    #[arg(long = "ref", value_name = "A+B", conflicts_with = "path")]
    reference: Option<EnvSpec>,
    #[command(flatten)]
    annotations: AnnotationArgs,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// What is to be committed.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    Directory(PathBuf),
    Stack(EnvSpec),
    /// What has changed in the runtime that this is run in.
    Changes,
    /// The runtime that this is run in, with its changes.
    Runtime,
}

/// Stores, then tags, then prints the digest.
pub(crate) async fn run(args: CommitArgs, app: &mut App) -> Result<()> {
    let CommitArgs {
        words,
        tags,
        path,
        reference,
        annotations,
        repository,
        json,
    } = args;
    let input = chosen(&words, path, reference)?;
    let names = writable_names(&tags)?;
    let annotations = annotations.read()?;
    if let Input::Directory(directory) = &input {
        check_directory(directory)?;
    }
    let active = match &input {
        Input::Changes | Input::Runtime => Some(Active::find(app).await?),
        Input::Directory(_) | Input::Stack(_) => None,
    };
    let repository = app.writable(repository.remote.as_deref()).await?;
    if let Input::Directory(directory) = &input {
        check_apart(&*repository, directory)?;
    }
    // Until the tags are there.
    let hold = repository.hold().await?;
    let storing = store_and_tag(
        app,
        &repository,
        &input,
        active.as_ref(),
        annotations,
        &names,
    );
    let stored = storing.await;
    hold.release().await;
    let (digest, summary) = stored?;
    if json.json {
        let tags: Vec<String> = names.iter().map(ToString::to_string).collect();
        return app.output.json(&describe(digest, summary.as_ref(), &tags));
    }
    match &summary {
        Some(summary) => app
            .output
            .line(format_args!("{digest} {}", in_words(summary)))?,
        None => app.output.line(digest)?,
    }
    names
        .iter()
        .try_for_each(|name| app.output.line(format_args!("{name} -> {digest}")))
}

/// Stores what `input` says, with its annotations, and tags it.
async fn store_and_tag(
    app: &App,
    repository: &Arc<dyn Repository>,
    input: &Input,
    active: Option<&Active>,
    annotations: Vec<(String, String)>,
    names: &[TagName],
) -> Result<(Digest, Option<CommitSummary>)> {
    let annotations = annotations::store(app, &**repository, annotations).await?;
    let (digest, summary) = match input {
        Input::Directory(directory) => {
            // Given up, it removes what it has written and not yet published.
            let mut signals = Signals::listen()?;
            let summary = signals
                .unless(commit(app, repository, directory, annotations))
                .await?;
            (summary.layer, Some(summary))
        }
        Input::Stack(spec) => {
            let layers = resolved(&**repository, spec).await?;
            (stack(app, &**repository, layers, annotations).await?, None)
        }
        Input::Changes | Input::Runtime => {
            let active = active.expect("it was found for this");
            let is_platform = *input == Input::Runtime;
            let mut signals = Signals::listen()?;
            let committing = changes(app, repository, active, is_platform, annotations);
            signals.unless(committing).await?
        }
    };
    repository.publish().await?;
    for name in names {
        repository
            .push_tag(name, &digest, &app.config.signature())
            .await?;
    }
    Ok((digest, summary))
}

/// Makes sense of SPFS's form and ours.
fn chosen(words: &[PathBuf], path: Option<PathBuf>, stack: Option<EnvSpec>) -> Result<Input> {
    let kind = match words.first().map(PathBuf::as_path).and_then(Path::to_str) {
        Some(kind @ ("layer" | "platform")) => Some(kind),
        _ => None,
    };
    let rest = if kind.is_some() { &words[1..] } else { words };
    match (kind, rest, path, stack) {
        (Some("platform") | None, [], None, Some(stack)) => Ok(Input::Stack(stack)),
        (Some("platform"), [], None, None) => Ok(Input::Runtime),
        (Some("platform"), ..) => Err(Failure::usage(
            "a platform is made of what there is: say --ref A+B, or nothing in a runtime",
        )),
        (Some("layer"), _, _, Some(_)) => Err(Failure::usage(
            "--ref A+B makes a platform: say `commit platform`",
        )),
        (_, [directory], None, None) => Ok(Input::Directory(directory.clone())),
        (_, [], Some(directory), None) => Ok(Input::Directory(directory)),
        (Some(_), [], None, None) => Ok(Input::Changes),
        (None, [], None, None) => Err(Failure::usage("say which directory: `farseek commit DIR`")),
        _ => Err(Failure::usage(
            "say which directory once: `farseek commit DIR`",
        )),
    }
}

fn check_directory(directory: &Path) -> Result<()> {
    match std::fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => check_readable(directory),
        Ok(_) => {
            let parent = directory
                .parent()
                .filter(|parent| *parent != OsStr::new(""));
            let parent = parent.unwrap_or(Path::new("."));
            Err(Failure::usage(format!(
                "{} is not a directory; commit the directory that holds it, such as {}",
                directory.display(),
                parent.display()
            )))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Failure::not_found(
            format!("there is no directory {}", directory.display()),
        )),
        Err(error) => {
            Err(anyhow::Error::new(error).context(format!("cannot read {}", directory.display())))
        }
    }
}

/// A tree that may not be listed at all is told before anything is made.
fn check_readable(directory: &Path) -> Result<()> {
    let listed = std::fs::read_dir(directory);
    let listed = listed.with_context(|| format!("cannot read {}", directory.display()));
    listed.map(drop)
}

/// Refuses to commit the very repository that is written to: it changes all the while.
fn check_apart(repository: &dyn Repository, directory: &Path) -> Result<()> {
    let location = repository.location().parse::<Location>().ok();
    let path = location.as_ref().and_then(Location::path);
    let path = path.and_then(|path| path.canonicalize().ok());
    let within = directory.canonicalize().ok().zip(path);
    match within {
        Some((directory, path)) if path.starts_with(&directory) => Err(Failure::usage(format!(
            "{} holds the repository {} that it would be committed to; commit another directory, \
             or to another repository",
            directory.display(),
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// Commits a directory with progress shown.
pub(crate) async fn commit(
    app: &App,
    repository: &Arc<dyn Repository>,
    directory: &Path,
    annotations: Vec<Annotation>,
) -> Result<CommitSummary> {
    commit_over(app, repository, directory, annotations, None).await
}

/// The same of an upper directory, over `base`.
async fn commit_over(
    app: &App,
    repository: &Arc<dyn Repository>,
    directory: &Path,
    annotations: Vec<Annotation>,
    base: Option<Arc<MergedTree>>,
) -> Result<CommitSummary> {
    let options = CommitOptions {
        header: app.header(),
        annotations,
        base,
        ..CommitOptions::default()
    };
    let what = format!("committing {}", directory.display());
    let progress = Progress::new(what, "files", app.environment.terminal);
    Ok(commit_directory(repository.clone(), directory, options, &progress).await?)
}

/// Stores what has changed in a runtime as a layer, and for a platform puts it on top of what the
/// runtime was made of. The runtime goes on as it is.
async fn changes(
    app: &App,
    repository: &Arc<dyn Repository>,
    active: &Active,
    is_platform: bool,
    annotations: Vec<Annotation>,
) -> Result<(Digest, Option<CommitSummary>)> {
    let mut layers = active.stack();
    if is_platform && !active.record.status.editable {
        return Ok((stack(app, &**repository, layers, annotations).await?, None));
    }
    let upper = active.upper()?;
    let base = Arc::new(merged(&active.manifests().await?)?);
    let (of_layer, of_platform) = match is_platform {
        true => (Vec::new(), annotations),
        false => (annotations, Vec::new()),
    };
    let is_annotated = !of_layer.is_empty();
    let summary = commit_over(app, repository, upper.path(), of_layer, Some(base)).await?;
    let is_empty = summary.files + summary.directories + summary.symlinks + summary.masks == 0;
    if is_platform {
        layers.extend((!is_empty).then_some(summary.layer));
        let platform = stack(app, &**repository, layers, of_platform).await?;
        return Ok((platform, Some(summary)));
    }
    if is_empty && !is_annotated {
        return Err(Failure::usage(format!(
            "nothing has changed in {}, so there is nothing to commit",
            active.at().display()
        )));
    }
    Ok((summary.layer, Some(summary)))
}

async fn resolved(repository: &dyn Repository, spec: &EnvSpec) -> Result<Vec<Digest>> {
    let spec = specs::digests(spec).await?;
    let mut layers = Vec::with_capacity(spec.items.len());
    for item in &spec.items {
        let layer = repository.resolve_item(item).await?;
        // It may be old, and named by nothing yet.
        repository.refresh_object(&layer).await?;
        layers.push(layer);
    }
    Ok(layers)
}

/// Stores a platform of `layers`, bottom first. What it says of itself is a layer of its own, the
/// topmost.
async fn stack(
    app: &App,
    repository: &dyn Repository,
    mut layers: Vec<Digest>,
    annotations: Vec<Annotation>,
) -> Result<Digest> {
    if layers.is_empty() {
        return Err(Failure::usage("an empty stack cannot be committed"));
    }
    if !annotations.is_empty() {
        let layer = Object::Layer(Layer::new(app.header(), None, annotations)?);
        let put = PutOptions::default();
        layers.push(repository.put_object(&layer, put).await?);
    }
    let platform = Object::Platform(Platform {
        header: app.header(),
        layers,
    });
    Ok(repository
        .put_object(&platform, PutOptions::default())
        .await?)
}

fn in_words(summary: &CommitSummary) -> String {
    let CommitSummary {
        files,
        directories,
        symlinks,
        bytes,
        new_bytes,
        ..
    } = summary;
    let (bytes, new_bytes) = (size::human(*bytes), size::human(*new_bytes));
    format!("{files} files, {symlinks} links, {directories} directories, {bytes}, {new_bytes} new")
}

fn describe(digest: Digest, summary: Option<&CommitSummary>, tags: &[String]) -> serde_json::Value {
    let mut value = json!({ "digest": digest.to_string(), "tags": tags });
    if let Some(summary) = summary {
        value["manifest"] = summary.manifest.to_string().into();
        value["files"] = summary.files.into();
        value["directories"] = summary.directories.into();
        value["symlinks"] = summary.symlinks.into();
        value["masks"] = summary.masks.into();
        value["bytes"] = summary.bytes.into();
        value["new_payloads"] = summary.new_payloads.into();
        value["new_bytes"] = summary.new_bytes.into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(words: &[&str], path: Option<&str>, stack: Option<&str>) -> Option<Input> {
        let words: Vec<PathBuf> = words.iter().map(PathBuf::from).collect();
        chosen(
            &words,
            path.map(PathBuf::from),
            stack.map(|s| s.parse().unwrap()),
        )
        .ok()
    }

    #[test]
    fn both_forms_are_understood() {
        let directory = |path: &str| Some(Input::Directory(path.into()));
        let stack = |spec: &str| Some(Input::Stack(spec.parse().unwrap()));
        assert_eq!(choose(&["d"], None, None), directory("d"));
        assert_eq!(choose(&[], Some("d"), None), directory("d"));
        assert_eq!(choose(&["layer"], Some("d"), None), directory("d"));
        assert_eq!(choose(&["layer", "d"], None, None), directory("d"));
        assert_eq!(choose(&["./layer"], None, None), directory("./layer"));
        assert_eq!(choose(&["platform"], None, Some("a+b")), stack("a+b"));
        assert_eq!(choose(&[], None, Some("a+b")), stack("a+b"));
    }

    #[test]
    fn without_a_directory_it_is_about_the_runtime() {
        assert_eq!(choose(&["layer"], None, None), Some(Input::Changes));
        assert_eq!(choose(&["platform"], None, None), Some(Input::Runtime));
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(choose(&[], None, None), None);
        assert_eq!(choose(&["platform"], Some("d"), None), None);
        assert_eq!(choose(&["platform", "d"], None, Some("a+b")), None);
        assert_eq!(choose(&["layer"], None, Some("a+b")), None);
        assert_eq!(choose(&["a", "b"], None, None), None);
        assert_eq!(choose(&["a"], Some("b"), None), None);
    }
}
