//! `farseek check`.

use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use farseek_store::{CheckOptions, CheckReport, Damage, Problem, Repository, Subject, check};
use serde_json::{Value, json};

use crate::app::App;
use crate::args::{JsonArgs, RepositoryArgs};
use crate::exit::{Code, Failure};
use crate::progress::Progress;
use crate::signals::Signals;
use crate::size;
use crate::transfer::{self, ORIGIN, counted};

const EXAMPLES: &str = "\
Examples:
  farseek check                                   # all of the local repository
  farseek check tools/python --remote https://packages.example/repo
  farseek check --pull                            # repair from the remote 'origin'

Everything is read and hashed. The exit code is 1 where something is wrong and was not repaired.";

/// Tags and references of one problem that are named.
const MAX_AFFECTED: usize = 5;

/// `farseek check`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {
    /// Tags, digests, or several joined by '+'; everything where none is given
    #[arg(value_name = "REF")]
    references: Vec<String>,
    /// Repair: copy what is missing or damaged from this repository ('origin' where none is said)
    #[arg(
        long,
        value_name = "NAME|URL|PATH",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ORIGIN
    )]
    pull: Option<String>,
    /// Tags that are read at once
    #[arg(long, value_name = "N", default_value_t = CheckOptions::default().tags)]
    max_tag_stream_concurrency: usize,
    /// Objects that are read at once
    #[arg(long, value_name = "N", default_value_t = CheckOptions::default().objects)]
    max_object_concurrency: usize,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Checks, repairs where that is asked for, and says what is wrong.
pub(crate) async fn run(args: CheckArgs, app: &mut App) -> Result<()> {
    let repository = app.repository(args.repository.remote.as_deref()).await?;
    let source = match args.pull.as_deref() {
        Some(ORIGIN) => Some(transfer::remote(app, None, "--pull").await?),
        Some(name) => Some(app.remote(name).await?),
        None => None,
    };
    if source
        .as_ref()
        .is_some_and(|source| source.location() == repository.location())
    {
        let location = repository.location();
        let message = format!("{location} cannot be repaired from itself: say --pull=ANOTHER");
        return Err(Failure::usage(message));
    }
    let what = format!("checking {}", repository.location());
    let progress = Arc::new(Progress::new(what, "things", app.environment.terminal));
    let options = CheckOptions {
        objects: args.max_object_concurrency,
        tags: args.max_tag_stream_concurrency,
        ..CheckOptions::default()
    };
    let repairs = source.is_some();
    let checking = async {
        let items = transfer::items(&*repository, &args.references).await?;
        let repository = repository.clone();
        Ok(check(repository, &items, source, options, progress.clone()).await?)
    };
    let report = Signals::listen()?.unless(checking).await?;
    progress.finish();
    match args.json.json {
        true => app.output.json(&describe(&*repository, &report))?,
        false => tell(app, &report)?,
    }
    conclude(&*repository, &report, repairs)
}

fn tell(app: &mut App, report: &CheckReport) -> Result<()> {
    for problem in &report.problems {
        app.output.line(in_words(problem))?;
    }
    if !report.orphans.is_empty() {
        let orphans = counted(report.orphans.len() as u64, "payload");
        app.output.line(format_args!(
            "{orphans} without a blob object: a commit or a copy goes on, or was killed; nothing is \
             wrong"
        ))?;
    }
    if report.absent > 0 {
        let absent = counted(report.absent, "file");
        app.output.line(format_args!(
            "{absent} not here that no tag needs: of environments that are or were mounted; nothing \
             is wrong"
        ))?;
    }
    let CheckReport {
        tags,
        objects,
        payloads,
        bytes,
        ..
    } = report;
    let (tags, objects) = (counted(*tags, "tag"), counted(*objects, "object"));
    let (payloads, bytes) = (counted(*payloads, "payload"), size::human(*bytes));
    app.output.line(format_args!(
        "checked {tags}, {objects} and {payloads}, {bytes}"
    ))
}

fn in_words(problem: &Problem) -> String {
    let mut line = problem.to_string();
    if let Some(affected) = affected(&problem.affects) {
        line = format!("{line}; affects {affected}");
    }
    match (&problem.unrepaired, problem.repaired) {
        (_, true) => format!("{line}; repaired"),
        (Some(reason), false) => format!("{line}; not repaired: {reason}"),
        (None, false) => line,
    }
}

fn affected(names: &[String]) -> Option<String> {
    let shown = names.iter().take(MAX_AFFECTED).cloned().collect::<Vec<_>>();
    match (names.len(), shown.join(", ")) {
        (0, _) => None,
        (all, shown) if all > MAX_AFFECTED => {
            Some(format!("{shown} and {} more", all - MAX_AFFECTED))
        }
        (_, shown) => Some(shown),
    }
}

fn conclude(repository: &dyn Repository, report: &CheckReport, repairs: bool) -> Result<()> {
    let open = report.problems.iter().filter(|problem| !problem.repaired);
    let remain = match open.count() {
        0 => return Ok(()),
        open => counted(open as u64, "problem"),
    };
    let (location, hint) = (
        repository.location(),
        "--pull=REPOSITORY repairs what another has",
    );
    let message = match repairs {
        true => format!("{location} is unsound: {remain} could not be repaired"),
        false => format!("{location} is unsound: {remain}; {hint}"),
    };
    Err(Failure::error(Code::Other, message))
}

fn describe(repository: &dyn Repository, report: &CheckReport) -> Value {
    let orphans = report.orphans.iter().map(ToString::to_string);
    json!({
        "repository": repository.location(),
        "sound": report.is_sound(),
        "tags": report.tags,
        "objects": report.objects,
        "payloads": report.payloads,
        "bytes": report.bytes,
        "problems": report.problems.iter().map(describe_problem).collect::<Value>(),
        "payloads_without_blob": orphans.collect::<Value>(),
        "absent": report.absent,
    })
}

fn describe_problem(problem: &Problem) -> Value {
    let (what, which) = match &problem.subject {
        Subject::Object(digest) => ("object", digest.to_string()),
        Subject::Payload(digest) => ("payload", digest.to_string()),
        Subject::Tag(name) => ("tag", name.to_string()),
    };
    let damage = match problem.damage {
        Damage::Missing => "missing",
        Damage::Corrupt(_) => "corrupt",
        Damage::Misplaced(_) => "misplaced",
        Damage::WrongSize(..) => "wrong size",
    };
    json!({
        "damage": damage,
        "what": what,
        "name": which,
        "message": problem.to_string(),
        "affects": problem.affects,
        "repaired": problem.repaired,
        "not_repaired_because": problem.unrepaired,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_of_the_affected_are_named() {
        let names = |count: usize| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>();
        assert_eq!(affected(&names(0)), None);
        assert_eq!(affected(&names(2)).unwrap(), "t0, t1");
        assert_eq!(affected(&names(5)).unwrap(), "t0, t1, t2, t3, t4");
        assert_eq!(
            affected(&names(7)).unwrap(),
            "t0, t1, t2, t3, t4 and 2 more"
        );
    }
}
