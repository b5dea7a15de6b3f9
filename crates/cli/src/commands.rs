//! The commands, one a file: each has its arguments, does one thing and prints it.

pub(crate) mod cache;
pub(crate) mod cat;
pub(crate) mod check;
pub(crate) mod clean;
pub(crate) mod commit;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod diff;
pub(crate) mod edit;
pub(crate) mod info;
pub(crate) mod init;
pub(crate) mod join;
pub(crate) mod layers;
pub(crate) mod log;
pub(crate) mod ls;
pub(crate) mod ls_tags;
pub(crate) mod mount;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod render;
pub(crate) mod reset;
pub(crate) mod run;
pub(crate) mod runtime;
pub(crate) mod search;
pub(crate) mod serve;
pub(crate) mod server;
pub(crate) mod shell;
pub(crate) mod stats;
pub(crate) mod tag;
pub(crate) mod tags;
pub(crate) mod unmount;
pub(crate) mod untag;
pub(crate) mod warm;
pub(crate) mod write;

use anyhow::Result;
use farseek_object::ObjectKind;

use crate::app::App;
use crate::args::Command;

/// Does what takes a process with one thread. Returns the command where there is more to do.
pub(crate) fn begin(command: Command, app: &mut App) -> Result<Option<Command>> {
    let command = match command {
        Command::Shell(args) => Command::Run(Box::new(run::RunArgs::from(*args))),
        command => command,
    };
    match command {
        Command::Run(args) if !app.in_background => run::front(*args, app).map(|()| None),
        Command::Run(args) => {
            app.host = Some(run::begin_host()?);
            Ok(Some(Command::Run(args)))
        }
        Command::Join(args) => join::run(args, app).map(|()| None),
        command => Ok(Some(command)),
    }
}

/// Runs one command to its end.
pub(crate) async fn run(command: Command, app: &mut App) -> Result<()> {
    match command {
        Command::Init(args) => init::run(args, app).await,
        Command::Commit(args) => commit::run(args, app).await,
        Command::Tag(args) => tag::run(args, app).await,
        Command::Untag(args) => untag::run(args, app).await,
        Command::Tags(args) => tags::run(args, app).await,
        Command::LsTags(args) => ls_tags::run(args, app).await,
        Command::Search(args) => search::run(args, app).await,
        Command::Log(args) => log::run(args, app).await,
        Command::Info(args) => info::run(args, app).await,
        Command::Layers(args) => layers::run(ObjectKind::Layer, args, app).await,
        Command::Platforms(args) => layers::run(ObjectKind::Platform, args, app).await,
        Command::Ls(args) => ls::run(args, app).await,
        Command::Cat(args) => cat::run(args, app).await,
        Command::Push(args) => push::run(args, app).await,
        Command::Pull(args) => pull::run(args, app).await,
        Command::Render(args) => render::run(args, app).await,
        Command::Check(args) => check::run(args, app).await,
        Command::Clean(args) => clean::run(*args, app).await,
        Command::Write(args) => write::run(args, app).await,
        Command::Diff(args) => diff::run(args, app).await,
        Command::Serve(args) => serve::run(args, app).await,
        Command::Server(args) => server::run(*args, app).await,
        Command::Mount(args) => mount::run(*args, app).await,
        Command::Run(args) => run::host(*args, app).await,
        Command::Shell(_) | Command::Join(_) => unreachable!("it was done at the beginning"),
        Command::Edit(args) => edit::run(args, app).await,
        Command::Reset(args) => reset::run(args, app).await,
        Command::Unmount(args) => unmount::run(args, app).await,
        Command::Runtime(args) => runtime::run(args, app).await,
        Command::Warm(args) => warm::run(*args, app).await,
        Command::Cache(args) => cache::run(args, app).await,
        Command::Stats(args) => stats::run(args, app).await,
        Command::Config(args) => config::run(args, app),
        Command::Demo(args) => demo::run(args, app).await,
        Command::Completions(args) => completions::run(args, app),
        Command::Version => app
            .output
            .line(format_args!("farseek {}", env!("CARGO_PKG_VERSION"))),
    }
}
