//! What the demo does with its mount: what anyone would, each thing with what it costs.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use farseek_object::NodeKind;

use super::Running;
use super::report::{Report, Step};
use super::scene;
use crate::size::human;

/// Uses the mount at `at` as anyone would, and counts what that costs.
pub(super) async fn tour(size: u64, running: &Running, at: &Path, first: Step) -> Result<Report> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut steps = vec![first];
    for errand in errands(size, at, &program) {
        steps.push(measure(running, errand).await?);
    }
    let nodes = running.mounted.vfs().tree().nodes();
    let files = nodes
        .iter()
        .filter(|node| node.kind() != NodeKind::Directory);
    let (mounted_files, mounted_bytes) = files.fold((0, 0), |(count, bytes), node| {
        (count + 1, bytes + node.size)
    });
    Ok(Report {
        steps,
        mounted_files,
        mounted_bytes,
    })
}

/// Something to run.
struct Errand {
    what: String,
    command: Command,
    /// What it must say; `None` where anything will do.
    expected: Option<String>,
}

fn errands(size: u64, at: &Path, program: &Path) -> Vec<Errand> {
    let errand = |what: &str, program: &Path, expected| Errand {
        what: what.to_owned(),
        command: Command::new(program),
        expected,
    };
    let mut list = errand("list every file (ls -lR)", Path::new("ls"), None);
    list.command.arg("-lR").arg(at);
    let greeting = Some(scene::GREETING.to_owned());
    let hello = errand(
        "run a script (bin/hi -> hello)",
        &at.join("bin/hi"),
        greeting,
    );
    let own = Some(format!("farseek {}", env!("CARGO_PKG_VERSION")));
    let mut version = errand("run a program (bin/farseek)", &at.join("bin/farseek"), own);
    version.command.arg("--version");
    let mut errands = vec![list, hello, version];
    if size > 0 {
        let offset = middle(size);
        let what = format!("map {} and read byte {offset}", human(size));
        let mut byte = errand(&what, program, Some(scene::byte_at(offset).to_string()));
        byte.command
            .args(["demo", "--peek"])
            .arg(at.join(scene::LARGE))
            .arg(offset.to_string());
        errands.push(byte);
    }
    errands
}

/// A place in the middle of the file, and of a block: the kernel reads around a page it misses,
/// and this far from a block's edge that is still one block.
fn middle(size: u64) -> u64 {
    const INTO_THE_BLOCK: u64 = (128 << 10) + 1234;
    let middle = size / 2;
    if size > 4 * INTO_THE_BLOCK {
        middle + INTO_THE_BLOCK
    } else {
        middle
    }
}

/// Runs a program, checks what it says, and counts what went over the wire meanwhile.
async fn measure(running: &Running, errand: Errand) -> Result<Step> {
    let Errand {
        what,
        mut command,
        expected,
    } = errand;
    let (requests, bytes) = running.wire().await;
    let start = Instant::now();
    command.stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.context("running a program was given up")?;
    let output = output.with_context(|| format!("cannot {what}"))?;
    let took = start.elapsed();
    let said = String::from_utf8_lossy(&output.stdout);
    let said = said.trim();
    if !output.status.success() || expected.as_ref().is_some_and(|expected| said != expected) {
        let error = String::from_utf8_lossy(&output.stderr);
        let right = expected.unwrap_or_default();
        bail!(
            "cannot {what}: {}: it said '{said}' instead of '{right}': {error}",
            output.status
        );
    }
    let answer = match said.lines().count() {
        0 | 1 => said.to_owned(),
        lines => format!("{lines} lines"),
    };
    let after = running.wire().await;
    Ok(Step::new(
        what,
        answer,
        took,
        (after.0 - requests, after.1 - bytes),
    ))
}
