//! The processes: the calling program started again, watched, and heard.
//!
//! A worker writes a line to its log before every step, so that the step that killed it (a map
//! whose pages cannot be read gives `SIGBUS`) or that never ended can be named.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::sequence::{self, Job};
use super::{Difference, Options};
use crate::child::ChildGuard;

const WORKER: &str = "FARSEEK_ORACLE_WORKER";
const LEFT: &str = "FARSEEK_ORACLE_LEFT";
const RIGHT: &str = "FARSEEK_ORACLE_RIGHT";
const LOG: &str = "FARSEEK_ORACLE_LOG";

const POLL: Duration = Duration::from_millis(10);

/// Does a worker's job where this process was started as one, and says whether it was.
///
/// # Panics
/// Where the log cannot be written, or the job makes no sense.
#[must_use]
pub fn worker() -> bool {
    let Some(numbers) = env::var_os(WORKER) else {
        return false;
    };
    let path = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .expect("the parent passes every path")
    };
    let numbers = numbers
        .to_str()
        .and_then(parse_numbers)
        .expect("the parent passes three numbers");
    let [seed, operations, process] = numbers;
    let job = Job {
        left: path(LEFT),
        right: path(RIGHT),
        seed,
        operations,
        process,
    };
    let mut log = File::options()
        .append(true)
        .open(path(LOG))
        .expect("the parent made the log");
    let result = sequence::perform(&job, |number, step| {
        writeln!(log, "at step {number}: {step:?}")
    });
    let last = match result {
        Ok(()) => "done".to_owned(),
        Err(difference) => {
            let text = serde_json::to_string(&difference).expect("strings and numbers");
            format!("difference {text}")
        }
    };
    writeln!(log, "{last}").expect("the log can be written");
    true
}

fn parse_numbers(text: &str) -> Option<[u64; 3]> {
    let numbers: Option<Vec<u64>> = text.split(':').map(|number| number.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// A worker at work.
struct Running {
    job: Job,
    log: PathBuf,
    child: ChildGuard,
    /// How long its log was, and since when.
    heard: (u64, Instant),
}

/// Runs every process to its end and counts the operations.
pub(super) fn run(left: &Path, right: &Path, options: &Options) -> Result<u64, Difference> {
    let logs = tempfile::tempdir().map_err(|error| trouble(options.seed, &error))?;
    let mut running = Vec::new();
    for process in 0..options.processes {
        let job = Job {
            left: left.to_owned(),
            right: right.to_owned(),
            seed: options.seed,
            operations: options.operations,
            process,
        };
        let log = logs.path().join(process.to_string());
        running.push(start(job, log, options).map_err(|error| trouble(options.seed, &error))?);
    }
    // The guards of those that still run kill them when one has found a difference.
    while !running.is_empty() {
        let mut still = Vec::new();
        for mut worker in running {
            if !has_ended(&mut worker, options.patience)? {
                still.push(worker);
            }
        }
        running = still;
        thread::sleep(POLL);
    }
    Ok(options.processes * options.operations)
}

fn trouble(seed: u64, error: &io::Error) -> Difference {
    Difference {
        seed,
        step: None,
        path: "".into(),
        operation: "start a worker".into(),
        left: "nothing".into(),
        right: error.to_string().into(),
    }
}

fn start(job: Job, log: PathBuf, options: &Options) -> io::Result<Running> {
    File::create_new(&log)?;
    let numbers: OsString = format!("{}:{}:{}", job.seed, job.operations, job.process).into();
    let child = Command::new(env::current_exe()?)
        .args(&options.worker_arguments)
        .envs([(WORKER, numbers.as_os_str()), (LEFT, job.left.as_os_str())])
        .envs([(RIGHT, job.right.as_os_str()), (LOG, log.as_os_str())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let heard = (0, Instant::now());
    Ok(Running {
        job,
        log,
        child: ChildGuard::new(child),
        heard,
    })
}

/// Whether the worker has ended well; an error where it has not, or is stuck.
fn has_ended(worker: &mut Running, patience: Duration) -> Result<bool, Difference> {
    let status = worker
        .child
        .try_wait()
        .map_err(|error| trouble(worker.job.seed, &error))?;
    if let Some(status) = status {
        return match last_line(&worker.log) {
            line if line == "done" => Ok(true),
            line => Err(parse_difference(&line)
                .unwrap_or_else(|| broken(&worker.job, &line, &format!("a worker's {status}")))),
        };
    }
    let len = fs::metadata(&worker.log).map_or(0, |metadata| metadata.len());
    if len != worker.heard.0 {
        worker.heard = (len, Instant::now());
    }
    if worker.heard.1.elapsed() > patience {
        let what = format!("nothing for {} s", patience.as_secs());
        return Err(broken(&worker.job, &last_line(&worker.log), &what));
    }
    Ok(false)
}

fn last_line(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .next_back()
        .unwrap_or("before its first step")
        .to_owned()
}

fn parse_difference(line: &str) -> Option<Difference> {
    serde_json::from_str(line.strip_prefix("difference ")?).ok()
}

/// A worker that did not live to tell.
fn broken(job: &Job, line: &str, what: &str) -> Difference {
    let number = line
        .strip_prefix("at step ")
        .and_then(|rest| rest.split(':').next());
    Difference {
        seed: job.seed,
        step: number
            .and_then(|number| number.parse().ok())
            .map(|number| (job.process, number)),
        path: "".into(),
        operation: line.into(),
        left: "an answer, or nothing yet".into(),
        right: what.into(),
    }
}
