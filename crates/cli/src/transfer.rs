//! What `push` and `pull` have in common: what is copied, how, and what is said of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use farseek_object::{EnvItem, EnvSpec, Reference};
use farseek_store::{
    CopiedItem, CopyOptions, CopyPolicy, CopySummary, Repository, RepositoryExt as _, Requests,
    TagOutcome, copy,
};
use serde_json::{Value, json};

use crate::app::App;
use crate::args::JsonArgs;
use crate::exit::Failure;
use crate::progress::Progress;
use crate::signals::Signals;
use crate::size;
use crate::specs;
use crate::stats::RequestReport;

/// Where remotes are, unless it is said.
pub(crate) const ORIGIN: &str = "origin";

/// What is copied, and how.
#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// Tags, digests, beginnings of digests, or several joined by '+': each is copied with all it
    /// needs
    #[arg(value_name = "REF", required = true)]
    references: Vec<String>,
    /// Also bring tags up to date that are there already
    #[arg(long, visible_alias = "pull")]
    sync: bool,
    /// Also descend into what is there already, and copy what is missing below it
    #[arg(long)]
    check: bool,
    /// Also read and hash all that is there already, and copy again what is damaged
    #[arg(long)]
    resync: bool,
    /// Payloads on their way at once; each may take some MiB of memory
    #[arg(long, value_name = "N", default_value_t = CopyOptions::default().payloads,
        value_parser = at_least_one)]
    max_concurrent_payloads: usize,
    /// Manifests read ahead
    #[arg(long, value_name = "N", default_value_t = CopyOptions::default().manifests,
        value_parser = at_least_one)]
    max_concurrent_manifests: usize,
    /// Put the repository in this directory, made if need be, in front of the remote `origin`: what
    /// is pulled from there is read from it first, and what is pushed there is written to it
    #[arg(long, value_name = "PATH")]
    pub(crate) wrap_origin: Option<PathBuf>,
    /// Whether to show how far it is
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Shown::Bars)]
    progress: Shown,
    #[command(flatten)]
    json: JsonArgs,
}

/// How progress is shown. The words are SPFS's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shown {
    /// A bar on a terminal, a line now and then elsewhere
    Bars,
    /// Not at all
    None,
}

impl TransferArgs {
    fn options(&self, partial: bool) -> CopyOptions {
        let policy = match (self.sync, self.check, self.resync) {
            (_, _, true) => CopyPolicy::Resync,
            (_, true, _) => CopyPolicy::Check,
            (true, ..) => CopyPolicy::LatestTags,
            _ => CopyPolicy::Missing,
        };
        CopyOptions {
            policy,
            partial,
            payloads: self.max_concurrent_payloads,
            manifests: self.max_concurrent_manifests,
            ..CopyOptions::default()
        }
    }
}

/// A number of things at once.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("nothing would be done: it has to be 1 or more".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("it is no number: {error}")),
    }
}

/// Opens the remote `name` or, where none is given, the one that is configured as `origin`; `flag`
/// is what says another.
pub(crate) async fn remote(
    app: &App,
    name: Option<&str>,
    flag: &str,
) -> Result<Arc<dyn Repository>> {
    if name.is_none() && !app.config.remote.contains_key(ORIGIN) {
        return Err(Failure::not_found(format!(
            "no remote '{ORIGIN}' is configured: say which with {flag} NAME|URL|PATH, or set \
             remote.{ORIGIN}.address"
        )));
    }
    app.remote(name.unwrap_or(ORIGIN)).await
}

/// What each of `references` means to `source`: a tag where there is one, else digests; a stack is
/// the items it is made of.
pub(crate) async fn items(source: &dyn Repository, references: &[String]) -> Result<Vec<EnvItem>> {
    let mut items = Vec::new();
    for text in references {
        let spec: EnvSpec = text.parse()?;
        if spec.items.is_empty() {
            return Err(Failure::usage("an empty stack has nothing in it"));
        }
        let tag = match spec.items[..] {
            [EnvItem::Prefix(_)] => text.parse::<Reference>()?.tag,
            _ => None,
        };
        match tag {
            // The name of a tag, and perhaps the beginning of a digest: the tag is tried first.
            Some(tag) => match source.resolve_tag(&tag).await {
                Ok(_) => items.push(EnvItem::Tag(tag)),
                Err(error) if error.is_not_found() => items.extend(spec.items),
                Err(error) => bail!(error),
            },
            None => items.extend(specs::digests(&spec).await?.items),
        }
    }
    Ok(items)
}

/// Copies, with progress shown, and says what was done. `doing` is a word such as "pulling";
/// `partial` says whether in `to` something may be missing below what is there.
pub(crate) async fn run(
    args: TransferArgs,
    app: &mut App,
    doing: &str,
    from: Arc<dyn Repository>,
    to: Arc<dyn Repository>,
    partial: bool,
) -> Result<()> {
    if from.location() == to.location() {
        return Err(Failure::usage(format!(
            "{} cannot be copied to itself: say --from or --to",
            from.location()
        )));
    }
    let what = format!("{doing} {}", args.references.join(" "));
    let terminal = app.environment.terminal && args.progress == Shown::Bars;
    let progress = Arc::new(Progress::new(what, "files", terminal));
    let started = Instant::now();
    let copying = async {
        let items = items(&*from, &args.references).await?;
        let (from, to) = (from.clone(), to.clone());
        let shown: Arc<dyn farseek_store::Progress> = match args.progress {
            Shown::Bars => progress.clone(),
            Shown::None => Arc::new(()),
        };
        Ok(copy(from, to, &items, args.options(partial), shown).await?)
    };
    // Given up, it leaves what has come so far, and nothing that refers to what has not.
    let summary = Signals::listen()?.unless(copying).await?;
    progress.finish();
    if args.json.json {
        return app.output.json(&describe(&*from, &*to, &summary));
    }
    for item in &summary.items {
        app.output.line(tell(item))?;
    }
    app.output.line(in_words(&summary, started.elapsed()))
}

fn tell(item: &CopiedItem) -> String {
    let CopiedItem { item, digest, tag } = item;
    let Some((tag, outcome)) = tag else {
        return digest.to_string();
    };
    let name = &tag.name;
    match outcome {
        TagOutcome::Updated => format!("{name} -> {digest}"),
        TagOutcome::Unchanged => format!("{name} -> {digest} (it did before)"),
        TagOutcome::Older => {
            format!("{name} -> {digest}, below a newer version, which stays the newest")
        }
        TagOutcome::Kept(there) if there == digest => {
            format!("{name} -> {digest} (by another version, which stays)")
        }
        TagOutcome::Kept(there) => format!(
            "{item} is left as it is there, at {there}: --sync brings it up to date, to {digest}"
        ),
    }
}

fn in_words(summary: &CopySummary, took: Duration) -> String {
    let CopySummary {
        objects,
        payloads,
        bytes,
        ..
    } = summary;
    if (*objects, *payloads) == (0, 0) {
        return "nothing was missing".to_owned();
    }
    let seconds = took.as_secs_f64();
    let rate = size::human((*bytes as f64 / seconds.max(0.001)) as u64);
    let bytes = size::human(*bytes);
    let (objects, files) = (counted(*objects, "object"), counted(*payloads, "file"));
    format!("copied {objects} and {files}, {bytes}, in {seconds:.1} s ({rate}/s)")
}

/// A number with its noun: "1 file", "2 files".
pub(crate) fn counted(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// The requests made of the repositories that count them.
fn requests(from: &dyn Repository, to: &dyn Repository) -> Option<RequestReport> {
    let made = [from.requests(), to.requests()];
    let made = made.into_iter().flatten().reduce(Requests::and)?;
    Some(RequestReport::of(&made))
}

fn describe(from: &dyn Repository, to: &dyn Repository, summary: &CopySummary) -> Value {
    let item = |item: &CopiedItem| {
        let mut value = json!({
            "reference": item.item.to_string(),
            "digest": item.digest.to_string(),
        });
        if let Some((tag, outcome)) = &item.tag {
            value["tag"] = tag.name.to_string().into();
            value["outcome"] = match outcome {
                TagOutcome::Updated => "updated",
                TagOutcome::Older => "older",
                TagOutcome::Unchanged => "unchanged",
                TagOutcome::Kept(_) => "kept",
            }
            .into();
        }
        value
    };
    let mut value = json!({
        "from": from.location(),
        "to": to.location(),
        "items": summary.items.iter().map(item).collect::<Value>(),
        "objects": summary.objects,
        "payloads": summary.payloads,
        "bytes": summary.bytes,
    });
    if let Some(requests) = requests(from, to) {
        value["requests"] = json!(requests);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::at_least_one;

    #[test]
    fn nothing_at_once_is_refused() {
        assert_eq!(at_least_one("3"), Ok(3));
        for text in ["0", "", "-1", "many"] {
            assert!(at_least_one(text).is_err(), "{text}");
        }
    }
}
