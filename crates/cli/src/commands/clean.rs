//! `farseek clean`.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, Write as _};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use farseek_object::{Age, Digest, ObjectKind, TagName};
use farseek_runtime::record::{Host, PruneOptions, Runtimes};
use farseek_store::{
    CleanOptions, CleanPlan, CleanSummary, DoomedList, LeftoverKind, PruneRules, PrunedTag,
    Repository, Upkeep, plan_clean, sweep,
};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::app::App;
use crate::args::{JsonArgs, RepositoryArgs};
use crate::exit::{Code, Failure};
use crate::output::note;
use crate::progress::Progress;
use crate::signals::Signals;
use crate::size;
use crate::transfer::counted;

const EXAMPLES: &str = "\
Examples:
  farseek clean --dry-run                          # what would go, and how large it is
  farseek clean --yes
  farseek clean --prune-if-older-than 52w --keep-if-less-than 10
  farseek clean --remote /shows/spfs --prune-repeated

What no tag leads to is removed once it is older than --min-age. Commits, pulls and mounts may go on
meanwhile. An age is a number and a unit: 15m, 10d, 2w.";

/// `farseek clean`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CleanArgs {
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// What is younger stays. Stock SPFS, writing at the same time, is protected by this alone
    #[arg(long, value_name = "AGE", default_value = "15m", alias = "threshold")]
    min_age: Age,
    #[command(flatten)]
    prune: PruneArgs,
    /// Keep copies of payloads for renders that no render has, where the payload stays
    #[arg(long)]
    keep_proxies_with_no_links: bool,
    /// Tags that are read at once
    #[arg(long, value_name = "N", default_value_t = CleanOptions::default().tags)]
    max_tag_stream_concurrency: usize,
    /// Objects and payloads that are removed at once
    #[arg(long, value_name = "N", default_value_t = CleanOptions::default().removals)]
    max_removal_concurrency: usize,
    /// Objects that are read at once; each may be a large manifest
    #[arg(long, value_name = "N", default_value_t = CleanOptions::default().discoveries)]
    max_discover_concurrency: usize,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Which versions of tags go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Pruning of tags")]
struct PruneArgs {
    /// Of versions of a tag with the same target keep only the newest
    #[arg(long, conflicts_with = "prune_repeated_keep")]
    prune_repeated: bool,
    /// Of versions of a tag with the same target keep only the newest N
    #[arg(long, value_name = "N")]
    prune_repeated_keep: Option<u64>,
    /// Prune versions older than this
    #[arg(long, value_name = "AGE")]
    prune_if_older_than: Option<Age>,
    /// Keep versions newer than this, whatever else is said
    #[arg(long, value_name = "AGE")]
    keep_if_newer_than: Option<Age>,
    /// Prune versions that more than N others come after
    #[arg(long, value_name = "N")]
    prune_if_more_than: Option<u64>,
    /// Keep versions that fewer than N others come after, whatever else is said
    #[arg(long, value_name = "N")]
    keep_if_less_than: Option<u64>,
    /// Prune in all tag namespaces, not only outside of them
    #[arg(long)]
    prune_all_tag_namespaces: bool,
}

impl PruneArgs {
    fn rules(&self, now: DateTime<Utc>) -> Result<PruneRules> {
        let before = |age: Option<Age>| match age {
            None => Ok(None),
            Some(age) => match now.checked_sub_signed(age.duration()) {
                Some(moment) => Ok(Some(moment)),
                None => Err(Failure::usage("an age goes back to before all time")),
            },
        };
        Ok(PruneRules {
            keep_repeated: self
                .prune_repeated
                .then_some(1)
                .or(self.prune_repeated_keep),
            keep_if_less_than: self.keep_if_less_than,
            keep_if_newer_than: before(self.keep_if_newer_than)?,
            prune_if_more_than: self.prune_if_more_than,
            prune_if_older_than: before(self.prune_if_older_than)?,
        })
    }
}

impl CleanArgs {
    fn options(&self, now: DateTime<Utc>) -> Result<CleanOptions> {
        let threshold = self.min_age.duration().to_std();
        Ok(CleanOptions {
            threshold: threshold.context("--min-age cannot be negative")?,
            rules: self.prune.rules(now)?,
            prune_all_namespaces: self.prune.prune_all_tag_namespaces,
            keep_proxies_with_no_links: self.keep_proxies_with_no_links,
            tags: self.max_tag_stream_concurrency,
            discoveries: self.max_discover_concurrency,
            removals: self.max_removal_concurrency,
            ..CleanOptions::default()
        })
    }
}

/// Plans, shows, asks, and sweeps.
pub(crate) async fn run(args: CleanArgs, app: &mut App) -> Result<()> {
    let asks = !args.yes && !args.dry_run;
    if asks && (!app.environment.answers || args.json.json) {
        return Err(Failure::usage(
            "nobody can be asked whether to remove things: say --yes to do it, or --dry-run to see \
             what would go",
        ));
    }
    let mut options = args.options(app.now.to_utc())?;
    let repository = app.repository(args.repository.remote.as_deref()).await?;
    let mut signals = Signals::listen()?;
    let records = records(app, &*repository).await?;
    let ended = match &records {
        Some(records) => prune(app, records, true).await?,
        None => Vec::new(),
    };
    options.without = ended.iter().flat_map(|name| tags_of(name)).collect();
    let plan = signals.unless(plan(app, &repository, &options)).await?;
    if args.dry_run {
        return match args.json.json {
            true => app
                .output
                .json(&describe(&*repository, &plan, &ended, None)),
            false => tell_plan(app, &plan, &ended),
        };
    }
    if asks && !(plan.is_empty() && ended.is_empty()) {
        note(format_args!(
            "{}: {}",
            repository.location(),
            in_words(&plan, "would remove")
        ));
        signals.unless(confirm()).await?;
    }
    if let (Some(records), false) = (&records, ended.is_empty()) {
        prune(app, records, false).await?;
    }
    let swept = signals
        .unless(carry_out(app, &repository, &plan, &options))
        .await;
    if swept.is_err()
        && let Some(upkeep) = repository.upkeep()
    {
        // Writers need not wait for one that was given up.
        upkeep.finish().await;
    }
    let summary = swept?;
    match args.json.json {
        true => app
            .output
            .json(&describe(&*repository, &plan, &ended, Some(&summary))),
        false => app.output.line(tell(&plan, &summary)),
    }
}

/// The records of runtimes, where the repository keeps any.
async fn records(app: &App, repository: &dyn Repository) -> Result<Option<Runtimes>> {
    if !repository.upkeep().is_some_and(Upkeep::is_at_hand) {
        return Ok(None);
    }
    Ok(Some(app.runtimes_in(repository.in_namespace(None).await?)))
}

/// Removes the records of runtimes that have ended for certain: those of the user with what they
/// have left on this host, those of others where they have left nothing. Or only says their names.
async fn prune(app: &App, records: &Runtimes, pretend: bool) -> Result<Vec<String>> {
    let ours = PruneOptions {
        user: Some(app.config.user.name.clone()),
        pretend,
        root: Some(app.environment.runtimes_dir()),
        ..PruneOptions::default()
    };
    let all = PruneOptions {
        user: None,
        records_only: true,
        ..ours.clone()
    };
    let here = Host::current()?;
    let mut names = BTreeSet::new();
    for options in [ours, all] {
        let pruned = records.prune(&here, &options).await?;
        for (name, error) in pruned.failed {
            tracing::info!("what the runtime {name} uses stays: {error}");
        }
        names.extend(pruned.removed);
    }
    Ok(names.into_iter().collect())
}

/// The tags of a runtime's record.
fn tags_of(runtime: &str) -> Vec<TagName> {
    let tag = |kind| format!("spfs/runtimes/{kind}/{runtime}").parse().ok();
    ["meta", "data"].into_iter().filter_map(tag).collect()
}

async fn plan(
    app: &App,
    repository: &Arc<dyn Repository>,
    options: &CleanOptions,
) -> Result<CleanPlan> {
    let what = format!("marking what tags of {} lead to", repository.location());
    let progress = Progress::new(what, "objects", app.environment.terminal);
    let planning = plan_clean(repository, options, &progress);
    planning.await.context("nothing was removed")
}

async fn carry_out(
    app: &App,
    repository: &Arc<dyn Repository>,
    plan: &CleanPlan,
    options: &CleanOptions,
) -> Result<CleanSummary> {
    let what = format!("cleaning {}", repository.location());
    let progress = Progress::new(what, "things", app.environment.terminal);
    Ok(sweep(repository, plan, options, &progress).await?)
}

/// Asks on the standard error, whatever the standard output is.
async fn confirm() -> Result<()> {
    let asking = spawn_blocking(|| {
        write!(io::stderr(), "Remove all this? [y/N] ").ok();
        io::stderr().flush().ok();
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok::<_, io::Error>(answer)
    });
    let answer = asking.await.context("asking was given up")?;
    let answer = answer.context("cannot read the answer")?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::error(Code::Other, "nothing was removed")),
    }
}

/// All that would go, one a line, then how much that is.
fn tell_plan(app: &mut App, plan: &CleanPlan, ended: &[String]) -> Result<()> {
    for name in ended {
        app.output
            .line(format_args!("runtime {name}, which has ended"))?;
    }
    for pruned in &plan.tags {
        let target = pruned.tag.target;
        app.output
            .line(format_args!("tag {} -> {target}", spec(pruned)))?;
    }
    for object in plan.objects.iter() {
        let bytes = bytes(object.bytes);
        let (kind, digest) = (kind(object.kind), object.digest);
        app.output.line(format_args!("{kind} {digest}{bytes}"))?;
    }
    for payload in plan.payloads.iter() {
        let (digest, bytes) = (payload.digest, bytes(payload.bytes));
        app.output.line(format_args!("payload {digest}{bytes}"))?;
    }
    for leftover in &plan.leftovers {
        let (kind, path) = (leftover_kind(leftover.kind), leftover.path.display());
        let bytes = bytes(Some(leftover.bytes));
        app.output.line(format_args!("{kind} {path}{bytes}"))?;
    }
    app.output.line(in_words(plan, "would remove"))
}

/// A version of a tag, with its namespace.
fn spec(pruned: &PrunedTag) -> String {
    let name = &pruned.tag.name;
    match (&pruned.namespace, pruned.version) {
        (None, 0) => name.to_string(),
        (None, version) => format!("{name}~{version}"),
        (Some(namespace), version) => format!("{name}~{version} (in {namespace})"),
    }
}

fn bytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(String::new, |bytes| format!(", {}", size::human(bytes)))
}

fn kind(kind: Option<ObjectKind>) -> &'static str {
    kind.map_or("object", ObjectKind::as_str)
}

fn leftover_kind(kind: LeftoverKind) -> &'static str {
    match kind {
        LeftoverKind::Unfinished => "unfinished",
        LeftoverKind::Lock => "lock",
        LeftoverKind::Render => "render",
        LeftoverKind::Proxy => "proxy",
    }
}

/// How much a plan comes to.
fn in_words(plan: &CleanPlan, does: &str) -> String {
    let counts = amounts([
        (
            plan.tags.len() as u64,
            "version of a tag",
            "versions of tags",
        ),
        (plan.objects.len() as u64, "object", "objects"),
        (plan.payloads.len() as u64, "payload", "payloads"),
        (plan.leftovers.len() as u64, "leftover", "leftovers"),
    ]);
    let stays = stays(plan);
    match counts.is_empty() {
        true => format!("nothing to remove; {stays}"),
        false => format!("{does} {counts}, {}; {stays}", size::human(plan.bytes())),
    }
}

fn stays(plan: &CleanPlan) -> String {
    let mut text = format!("tags lead to {}", counted(plan.kept, "digest"));
    if plan.young > 0 {
        let young = counted(plan.young, "thing");
        text = format!("{text}, {young} that no tag leads to may be in use yet");
    }
    if plan.ageless > 0 {
        let ageless = counted(plan.ageless, "payload");
        text = format!(
            "{text}, {ageless} that no tag leads to must stay, for this server does not tell how old \
             they are: clean where the repository is"
        );
    }
    text
}

fn amounts<const N: usize>(amounts: [(u64, &str, &str); N]) -> String {
    let there = amounts.into_iter().filter(|(number, ..)| *number > 0);
    let words = there.map(|(number, one, many)| match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {many}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// What was done.
fn tell(plan: &CleanPlan, summary: &CleanSummary) -> String {
    let counts = amounts([
        (summary.tags, "version of a tag", "versions of tags"),
        (summary.objects, "object", "objects"),
        (summary.payloads, "payload", "payloads"),
        (summary.leftovers, "leftover", "leftovers"),
    ]);
    let mut text = match counts.is_empty() {
        true => "nothing was removed".to_owned(),
        false => format!("removed {counts}, {}", size::human(summary.bytes)),
    };
    if summary.left > 0 {
        let left = counted(summary.left, "thing");
        text = format!("{text}; {left} stayed, being used, or removed by another, meanwhile");
    }
    format!("{text}; {}", stays(plan))
}

/// What is printed as JSON: what goes is not copied, for it may be millions of things.
#[derive(Serialize)]
struct Report<'a> {
    repository: &'a str,
    dry_run: bool,
    older_than: String,
    runtimes: &'a [String],
    tags: Vec<Value>,
    objects: Rows<'a>,
    payloads: Rows<'a>,
    leftovers: Vec<Value>,
    bytes: u64,
    kept: u64,
    young: u64,
    payloads_of_unknown_age: u64,
    removed: Option<Value>,
}

/// Objects or payloads, each written when its turn has come.
struct Rows<'a> {
    list: &'a DoomedList,
    has_kinds: bool,
}

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.list.iter().map(|doomed| Row {
            digest: doomed.digest,
            kind: self.has_kinds.then(|| kind(doomed.kind)),
            bytes: doomed.bytes,
        }))
    }
}

/// An object or a payload.
#[derive(Serialize)]
struct Row {
    #[serde(serialize_with = "as_text")]
    digest: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    bytes: Option<u64>,
}

fn as_text<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(digest)
}

fn describe<'a>(
    repository: &'a dyn Repository,
    plan: &'a CleanPlan,
    ended: &'a [String],
    done: Option<&CleanSummary>,
) -> Report<'a> {
    let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let tag = |pruned: &PrunedTag| {
        json!({
            "namespace": pruned.namespace.as_ref().map(ToString::to_string),
            "name": pruned.tag.name.to_string(),
            "version": pruned.version,
            "target": pruned.tag.target.to_string(),
            "time": time(pruned.tag.time),
        })
    };
    let leftovers = plan.leftovers.iter().map(|leftover| {
        let path = leftover.path.display().to_string();
        json!({ "kind": leftover_kind(leftover.kind), "path": path, "bytes": leftover.bytes })
    });
    let rows = |list, has_kinds| Rows { list, has_kinds };
    Report {
        repository: repository.location(),
        dry_run: done.is_none(),
        older_than: time(plan.limit.into()),
        runtimes: ended,
        tags: plan.tags.iter().map(tag).collect(),
        objects: rows(&plan.objects, true),
        payloads: rows(&plan.payloads, false),
        leftovers: leftovers.collect(),
        bytes: plan.bytes(),
        kept: plan.kept,
        young: plan.young,
        payloads_of_unknown_age: plan.ageless,
        removed: done.map(removed),
    }
}

fn removed(done: &CleanSummary) -> Value {
    json!({
        "tags": done.tags,
        "objects": done.objects,
        "payloads": done.payloads,
        "leftovers": done.leftovers,
        "bytes": done.bytes,
        "left": done.left,
    })
}
