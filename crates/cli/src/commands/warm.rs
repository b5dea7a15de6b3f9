//! `farseek warm`.
//!
//! What is fetched goes where a mount would put it: into the disk tier, and what is then complete
//! and verified into the local repository. So it may be interrupted at any time, and goes on
//! where it was when it is started again.

mod plan;
mod place;

use anyhow::Result;
use clap::Args;
use farseek_reader::{ReadError, Reader, ReaderOptions};
use farseek_store::{Progress as _, Repository};
use serde_json::json;
use tokio::runtime::Handle;

use self::place::Place;
use self::plan::{Wanted, wanted};
use crate::app::App;
use crate::args::JsonArgs;
use crate::config::PromoteName;
use crate::exit::{self, Code, Failure};
use crate::output::note;
use crate::progress::Progress;
use crate::reading::ReadingArgs;
use crate::signals::Signals;
use crate::size;
use crate::sources::{SourceArgs, Sources};
use crate::view::{self, Named};

const EXAMPLES: &str = "\
Examples:
  farseek warm tools/python
  farseek warm tools/python bin lib/python3/site-packages
  farseek warm --remote https://packages.example/repo tools/python --json

It may be interrupted: what has been fetched stays, and the next time the rest is fetched.";

/// Times that what did not stay is fetched again.
const ROUNDS: usize = 3;

/// `farseek warm`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct WarmArgs {
    /// A tag, a digest, or several joined by '+', the topmost last
    #[arg(value_name = "REF")]
    reference: String,
    /// Files and directories in it; everything where none is given
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    reading: ReadingArgs,
}

/// Files and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Amount {
    files: u64,
    bytes: u64,
}

impl Amount {
    fn of(list: &[Wanted]) -> Self {
        Self {
            files: list.len() as u64,
            bytes: list.iter().map(|wanted| wanted.size).sum(),
        }
    }
}

/// Fetches what is not here yet, and says what was done.
pub(crate) async fn run(args: WarmArgs, app: &mut App) -> Result<()> {
    args.reading.overlay(&mut app.config)?;
    if app.config.reader.promote == PromoteName::OnSeek {
        // Nobody will seek, and everything is wanted.
        app.config.reader.promote = PromoteName::Complete;
    }
    let sources = args.sources.open(app).await?;
    let options = options(app, &sources)?;
    let mut signals = Signals::listen()?;
    let warming = warm(&args, app, &sources, options);
    let (all, warmth) = signals.unless(warming).await?;
    tell(&args, app, all, &warmth)?;
    let lost = warmth.lost;
    for (path, error) in warmth.failures.iter().skip(1) {
        let error = exit::message(&anyhow::Error::new(error.clone()));
        note(format_args!("cannot fetch '{path}': {error}"));
    }
    match warmth.failures.into_iter().next() {
        Some((path, error)) => {
            Err(anyhow::Error::new(error).context(format!("cannot fetch '{path}'")))
        }
        None if lost.files > 0 => Err(Failure::error(
            Code::Other,
            format!(
                "{} files, {}, could be fetched and did not stay: make room on the disk, or raise \
                 cache.disk_cache_max_bytes",
                lost.files,
                size::human(lost.bytes)
            ),
        )),
        None => Ok(()),
    }
}

fn tell(args: &WarmArgs, app: &mut App, all: Amount, warmth: &Warmth) -> Result<()> {
    let Warmth {
        before,
        fetched,
        wire,
        failures,
        lost,
    } = warmth;
    if args.json.json {
        let failures = failures.iter().map(|(path, error)| {
            let error = exit::message(&anyhow::Error::new(error.clone()));
            json!({ "path": path, "error": error })
        });
        return app.output.json(&json!({
            "reference": args.reference, "files": all.files, "bytes": all.bytes,
            "files_before": before.files, "bytes_before": before.bytes,
            "files_fetched": fetched.files, "files_lost": lost.files, "bytes_fetched": wire,
            "failures": failures.collect::<serde_json::Value>(),
        }));
    }
    let (bytes, wire) = (size::human(all.bytes), size::human(*wire));
    app.output.line(format_args!(
        "{} files, {bytes}: {} were here, {} came, {wire} over the wire",
        all.files, before.files, fetched.files
    ))
}

fn options(app: &App, sources: &Sources) -> Result<ReaderOptions> {
    let options = ReaderOptions {
        // Nothing is read twice, and what was only in memory would not be kept.
        blob_cache_max_bytes: 0,
        readahead_max_bytes: 0,
        ..app.reader_options(sources)?
    };
    if sources.has_remotes && options.disk.is_none() {
        return Err(Failure::usage(
            "without a disk cache nothing would stay: leave out --no-disk-cache, or set \
             cache.enabled and cache.directory",
        ));
    }
    Ok(options)
}

/// What has been done.
#[derive(Debug, Default)]
struct Warmth {
    /// What was here before.
    before: Amount,
    /// What is here now and was not.
    fetched: Amount,
    /// Bytes that came over the wire.
    wire: u64,
    /// Files that could not be had.
    failures: Vec<(String, ReadError)>,
    /// Files that came, and are not whole in the end: a disk that is full or failing.
    lost: Amount,
}

async fn warm(
    args: &WarmArgs,
    app: &App,
    sources: &Sources,
    options: ReaderOptions,
) -> Result<(Amount, Warmth)> {
    let reader = Reader::new(sources.repository.clone(), options, Handle::current());
    let list = choose(args, &*sources.repository, &reader).await?;
    let all = Amount::of(&list);
    let place = Place {
        reader,
        local: sources.local.clone(),
    };
    let mut missing = place.missing(list).await;
    let first = Amount::of(&missing);
    let mut warmth = Warmth {
        before: Amount {
            files: all.files - first.files,
            bytes: all.bytes - first.bytes,
        },
        ..Warmth::default()
    };
    let what = format!("fetching {}", args.reference);
    let progress = Progress::new(what, "files", app.environment.terminal);
    progress.found(first.files, first.bytes);
    for _ in 0..ROUNDS {
        if missing.is_empty() || !warmth.failures.is_empty() {
            break;
        }
        warmth.failures = place.fetch(&missing, &progress).await;
        place.reader.settle().await;
        missing = place.missing(missing).await;
    }
    progress.finish();
    let failed: Vec<&str> = warmth.failures.iter().map(|(path, _)| &**path).collect();
    missing.retain(|wanted| !failed.contains(&&*wanted.path));
    warmth.lost = Amount::of(&missing);
    let failed = warmth.failures.len() as u64;
    warmth.fetched.files = first.files - failed - warmth.lost.files;
    warmth.wire = place.reader.stats().bytes_fetched;
    Ok((all, warmth))
}

/// The payloads that are meant, each once.
async fn choose(
    args: &WarmArgs,
    repository: &dyn Repository,
    reader: &Reader,
) -> Result<Vec<Wanted>> {
    let reference = &args.reference;
    let view = match view::find(repository, reference).await? {
        Named::Environment(view) => view,
        Named::Blob { payload, size } if args.paths.is_empty() => {
            let path = reference.clone();
            return Ok(vec![Wanted {
                payload,
                size,
                path,
            }]);
        }
        Named::Blob { .. } => {
            let message = format!("'{reference}' is a single blob: leave out the paths");
            return Err(Failure::usage(message));
        }
    };
    let mut roots = Vec::new();
    for path in &args.paths {
        // A link is wanted for what it leads to; it is read on the way.
        roots.push(view.follow(reader, reference, path).await?);
    }
    if args.paths.is_empty() {
        roots.push(0);
    }
    Ok(wanted(&view.tree, &roots))
}
