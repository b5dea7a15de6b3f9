//! From the command line to the command: surroundings, configuration, logs, the runtime.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::app::App;
use crate::args::{Cli, Command};
use crate::commands;
use crate::config::Config;
use crate::environment::Environment;
use crate::exit::{self, Failure};
use crate::log;
use crate::output::Output;

/// How long blocking work that was given up may take to end.
const TO_TIDY_UP: Duration = Duration::from_secs(2);

/// How long it may take to take back what others see of us: keys in buckets.
const TO_LET_GO: Duration = Duration::from_secs(3);

/// Runs the command to its end and shows all it printed.
pub(crate) fn run(cli: Cli) -> Result<()> {
    let environment = Environment::of_process();
    let mut config = match cli.command {
        // These work whatever is configured.
        Command::Version | Command::Completions(_) => Config::default_for(&environment),
        _ => Config::load(&environment).map_err(as_usage)?,
    };
    if let Some(path) = cli.command.wrap_origin() {
        config.wrap_origin(path)?;
    }
    if let Some(file) = cli.log.log_file {
        let absolute = std::path::absolute(&file);
        config.log.file = Some(absolute.with_context(|| "--log-file is empty")?);
    }
    log::start(cli.log.verbose, quiet_filter(&cli.command), &config.log)?;
    let mut app = App {
        environment,
        config,
        output: Output::stdout(),
        now: chrono::Local::now(),
        in_background: cli.in_background,
        host: None,
    };
    let Some(command) = commands::begin(cli.command, &mut app)? else {
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers(&command))
        .enable_all()
        .build()
        .context("cannot start the threads that wait for repositories")?;
    let done = runtime.block_on(commands::run(command, &mut app));
    // What was printed before a failure is shown too; its own failure matters less.
    let shown = app.output.finish();
    // What others see of what was given up is taken back; a bucket that hangs must not hold the process.
    let gone = farseek_store::nothing_lingers();
    runtime.block_on(async { tokio::time::timeout(TO_LET_GO, gone).await.ok() });
    // What was given up removes its temporary files; a disk that hangs must not hold the process.
    runtime.shutdown_timeout(TO_TIDY_UP);
    done.and(shown)
}

/// Threads for what waits. A mount shares the machine with those who read from it, and has threads
/// for the kernel and for the disk besides: to hand work from one to the next costs more, on few
/// cores, than is won by doing two things at once.
fn workers(command: &Command) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match command {
        Command::Mount(_) | Command::Run(_) | Command::Shell(_) => cores.div_ceil(2),
        _ => cores,
    }
}

/// What is logged where nothing is said: what a reader finds, a short command tells in its own
/// error; a mount has nobody else to tell. Never what fuser complains of: it does so whenever a
/// program is gone before its reply.
fn quiet_filter(command: &Command) -> &'static str {
    match command {
        Command::Mount(_) | Command::Serve(_) | Command::Run(_) | Command::Shell(_) => {
            "warn,fuser=off"
        }
        _ => "warn,fuser=off,farseek_reader=off",
    }
}

/// A configuration that is wrong is wrong usage, unless it is for instance not readable.
fn as_usage(error: anyhow::Error) -> anyhow::Error {
    match exit::code(&error) {
        exit::Code::Other => Failure::usage(exit::message(&error)),
        _ => error,
    }
}
