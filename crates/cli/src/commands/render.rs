//! `farseek render`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use farseek_object::{EnvSpec, MergeOptions};
use farseek_runtime::load_environment;
use farseek_store::{
    CopyOptions, FsRepository, RenderOptions, RenderSource, RenderStore, RenderStrategy,
    RenderSummary, Repository, RepositoryExt as _, render_directory,
};
use serde_json::{Value, json};

use crate::app::App;
use crate::args::JsonArgs;
use crate::config::PromoteName;
use crate::exit::Failure;
use crate::output::note;
use crate::progress::Progress;
use crate::signals::Signals;
use crate::size;
use crate::sources::SourceArgs;
use crate::specs;
use crate::transfer::{at_least_one, counted};

const EXAMPLES: &str = "\
Examples:
  farseek render tools/python /opt/python         # a directory of plain files, to be used as it is
  farseek render base+tools/python~1 ./both --remote https://packages.example/repo
  farseek render tools/python                     # each layer, into the local repository

A directory gets copies, every one of which is verified; it is complete when the command succeeds.
Programs in it do not run as who renders: set-user-ID and set-group-ID bits, which SPFS gives files,
are left out, unless --set-id says that whoever writes to the repository is trusted that far.
Without a directory, each layer is rendered into the local repository, as SPFS does it: by hard
links of payloads, where that can be. Those directories are for overlays to be read from. Nothing in
them may be changed: that would change the repository.";

/// `farseek render`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RenderArgs {
    /// A tag, a digest, or several joined by '+', the topmost last
    #[arg(value_name = "REF")]
    reference: EnvSpec,
    /// The directory, empty or not there yet; without one each layer is rendered into the local
    /// repository
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Let the directory hold something: what the environment has as well is replaced
    #[arg(long, requires = "directory")]
    allow_existing: bool,
    /// Let files be set-user-ID and set-group-ID programs, as the environment has them
    #[arg(long, requires = "directory")]
    set_id: bool,
    /// How files come into the local repository's renders
    #[arg(long, value_name = "HOW", value_enum, conflicts_with = "directory")]
    strategy: Option<StrategyName>,
    /// Files that are rendered at once
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_concurrent_blobs: Option<usize>,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// How files come into a store of renders. The words are SPFS's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum StrategyName {
    /// As hard links of one copy for each payload and mode
    HardLink,
    /// As hard links of payloads that have the mode, otherwise as copies
    HardLinkNoProxy,
    /// As copies
    Copy,
}

impl From<StrategyName> for RenderStrategy {
    fn from(name: StrategyName) -> Self {
        match name {
            StrategyName::HardLink => Self::HardLink,
            StrategyName::HardLinkNoProxy => Self::HardLinkNoProxy,
            StrategyName::Copy => Self::Copy,
        }
    }
}

/// Files of remotes on their way at once: enough to hide the way to small ones.
const REMOTE_FILES: usize = 32;

/// Renders, and says what was done.
pub(crate) async fn run(mut args: RenderArgs, app: &mut App) -> Result<()> {
    let mut signals = Signals::listen()?;
    args.reference = specs::digests(&args.reference).await?;
    // Given up, it leaves nothing in the repository, and a part in a directory.
    let rendering = async {
        match args.directory.clone() {
            Some(directory) => into_directory(args, &directory, app).await,
            None => into_repository(args, app).await,
        }
    };
    signals.unless(rendering).await
}

async fn into_directory(args: RenderArgs, directory: &Path, app: &mut App) -> Result<()> {
    ensure!(
        !directory.as_os_str().is_empty(),
        Failure::usage("DIR is empty: say which directory")
    );
    // Nothing becomes local: no repository is made for that.
    app.config.reader.promote = PromoteName::Never;
    let started = Instant::now();
    let sources = args.sources.open(app).await?;
    let local = match sources.local {
        Some(_) => Some(Arc::new(local(app)?)),
        None => None,
    };
    let spec = &args.reference;
    let tree = load_environment(&sources.repository, spec, MergeOptions::default()).await?;
    let mut options = args.options();
    if sources.has_remotes && args.max_concurrent_blobs.is_none() {
        options.concurrency = REMOTE_FILES;
    }
    let source = RenderSource {
        local,
        all: sources.repository,
    };
    let progress = shown(format!("rendering {spec}"), app);
    let rendering = render_directory(
        source,
        Arc::new(tree),
        directory,
        &options,
        Arc::clone(&progress) as Arc<_>,
    );
    let summary = rendering.await;
    progress.finish();
    let summary = summary?;
    if args.json.json {
        let path = std::path::absolute(directory)?;
        return app.output.json(&json!({
            "directory": path.to_string_lossy(),
            "render_summary": describe(&summary),
        }));
    }
    let took = started.elapsed().as_secs_f64();
    let words = in_words(&summary);
    app.output
        .line(format_args!("rendered {words}, in {took:.1} s"))
}

async fn into_repository(args: RenderArgs, app: &mut App) -> Result<()> {
    let root = &app.config.storage.root;
    let local = Arc::new(FsRepository::create(root, app.fs_options()?)?);
    let store = RenderStore::new(Arc::clone(&local), &app.environment.user)?;
    let sources = args.sources.open(app).await?;
    // Until the last one is there. From then on a tag has to lead to them.
    let _hold = local.hold().await?;
    let environment = sources
        .repository
        .resolve_environment(&args.reference)
        .await?;
    let spec = &args.reference;
    let fetching = shown(format!("fetching {spec}"), app);
    let fetched = store.fetch(
        &sources.repository,
        environment.manifest_digests(),
        CopyOptions::default(),
        Arc::clone(&fetching) as Arc<_>,
    );
    let fetched = fetched.await;
    fetching.finish();
    fetched?;
    let options = args.options();
    let (mut paths, mut made) = (Vec::new(), RenderSummary::default());
    for manifest in environment.into_manifests() {
        let progress = shown(format!("rendering {spec}"), app);
        let rendering = store.render(manifest, &options, Arc::clone(&progress) as Arc<_>);
        let rendered = rendering.await;
        progress.finish();
        let rendered = rendered?;
        made = made.and(&rendered.summary.unwrap_or_default());
        paths.push(rendered.path.to_string_lossy().into_owned());
    }
    if args.json.json {
        return app.output.json(&json!({
            "paths_rendered": paths,
            "render_summary": describe(&made),
        }));
    }
    if made == RenderSummary::default() {
        note("nothing was missing");
    } else {
        note(format_args!("rendered {}", in_words(&made)));
    }
    paths.iter().try_for_each(|path| app.output.line(path))
}

fn local(app: &App) -> Result<FsRepository> {
    let root = &app.config.storage.root;
    Ok(FsRepository::open(root, app.fs_options()?)?)
}

fn shown(what: String, app: &App) -> Arc<Progress> {
    Arc::new(Progress::new(what, "files", app.environment.terminal))
}

impl RenderArgs {
    fn options(&self) -> RenderOptions {
        let defaults = RenderOptions::default();
        RenderOptions {
            strategy: self.strategy.map_or(defaults.strategy, Into::into),
            concurrency: self.max_concurrent_blobs.unwrap_or(defaults.concurrency),
            allow_existing: self.allow_existing,
            set_id: self.set_id,
            ..defaults
        }
    }
}

fn in_words(summary: &RenderSummary) -> String {
    let RenderSummary {
        files,
        directories,
        symlinks,
        bytes,
        ..
    } = *summary;
    let directories = match directories {
        1 => "1 directory".to_owned(),
        _ => format!("{directories} directories"),
    };
    let (files, links) = (counted(files, "file"), counted(symlinks, "link"));
    format!("{files}, {directories} and {links}, {}", size::human(bytes))
}

fn describe(summary: &RenderSummary) -> Value {
    json!({
        "files": summary.files,
        "directories": summary.directories,
        "symlinks": summary.symlinks,
        "bytes": summary.bytes,
        "linked": summary.linked,
    })
}
