//! Compares two trees by hand: `oracle-differ LEFT RIGHT [SEED [OPERATIONS [PROCESSES]]]`.
//!
//! LEFT is the oracle; RIGHT is the mount. `oracle-differ --generate DIRECTORY [SEED]` makes a
//! tree to commit.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people"
)]

use std::env;
use std::path::Path;
use std::process::ExitCode;

use farseek_testkit::oracle::{self, Options};
use farseek_testkit::tree::{self, TreeOptions};

const USAGE: &str = "usage: oracle-differ LEFT RIGHT [SEED [OPERATIONS [PROCESSES]]]
       oracle-differ --generate DIRECTORY [SEED]";

fn main() -> ExitCode {
    if oracle::worker() {
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(line) => {
            eprintln!("{line}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<String, String> {
    let number = |at: usize, default: u64| match arguments.get(at) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| format!("'{text}' is no number\n{USAGE}")),
    };
    match arguments {
        ["--generate", directory, ..] if arguments.len() <= 3 => {
            let options = TreeOptions {
                seed: number(2, 1)?,
                ..TreeOptions::default()
            };
            let made = tree::generate(Path::new(directory), &options);
            made.map_err(|error| format!("{directory}: {error}"))?;
            Ok(format!(
                "made the tree of seed {} in {directory}",
                options.seed
            ))
        }
        [left, right, ..] if arguments.len() <= 5 && !left.starts_with("--") => {
            let default = Options::default();
            let options = Options {
                seed: number(2, default.seed)?,
                operations: number(3, default.operations)?,
                processes: number(4, default.processes)?,
                worker_arguments: Vec::new(),
                ..default
            };
            let report = oracle::run(Path::new(left), Path::new(right), &options);
            let report = report.map_err(|difference| difference.to_string())?;
            Ok(format!(
                "{} entries, {} operations: no difference",
                report.entries, report.operations
            ))
        }
        _ => Err(USAGE.to_owned()),
    }
}
