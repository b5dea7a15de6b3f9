//! The command line as a whole. Each command's own arguments stand beside the command.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{ArgAction, Args, Parser, Subcommand};
use farseek_runtime::daemon;

use crate::commands::{
    cache, cat, check, clean, commit, completions, config, demo, diff, edit, info, init, join,
    layers, log, ls, ls_tags, mount, pull, push, render, reset, run, runtime, search, serve,
    server, shell, stats, tag, tags, unmount, untag, warm, write,
};
use crate::exit;

/// Mount software environments that live in a remote, content-addressed repository.
///
/// Every file of a mounted environment is seekable at once: only the blocks that are touched
/// cross the network. Repositories and tags are those of SPFS.
#[derive(Debug, Parser)]
#[command(name = "farseek", version, max_term_width = 100, after_help = exit::HELP)]
#[command(
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    /// This is the child that goes to the background
    #[arg(long, hide = true)]
    pub(crate) in_background: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The hidden flag by which a process starts its own child in the background.
pub(crate) const IN_BACKGROUND: &str = "--in-background";

impl Cli {
    /// The command line, which a child that goes to the background gets from its parent.
    ///
    /// # Errors
    /// The parent cannot be heard.
    pub(crate) fn of_process() -> Result<Self> {
        let mut shown = std::env::args_os();
        let program = shown.next().unwrap_or_default();
        if shown.next().is_none_or(|first| first != IN_BACKGROUND) {
            return Ok(Self::parse());
        }
        // First of all, where it cannot be taken for another flag's value.
        let first = [program, IN_BACKGROUND.into()];
        let arguments = daemon::arguments()?;
        if arguments.is_empty() {
            // The parent was killed before it could say anything: nobody waits for an answer.
            return Err(exit::AlreadyTold(1).into());
        }
        Ok(Self::parse_from(first.into_iter().chain(arguments)))
    }
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Say more: -v information, -vv details, -vvv everything
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    /// Append logs to this file instead of writing them to the standard error
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) log_file: Option<PathBuf>,
}

/// Which repository a command works on.
#[derive(Debug, Args)]
pub(crate) struct RepositoryArgs {
    /// Work on this repository instead of the local one: a configured name, a URL or a path
    #[arg(short, long, value_name = "NAME|URL|PATH")]
    pub(crate) remote: Option<String>,
    /// Put the repository in this directory, made if need be, in front of the remote `origin`:
    /// read first, and written to
    #[arg(long, value_name = "PATH")]
    pub(crate) wrap_origin: Option<PathBuf>,
}

/// Output for scripts.
#[derive(Debug, Args)]
pub(crate) struct JsonArgs {
    /// Print JSON, for scripts
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a repository
    Init(init::InitArgs),
    /// Store a directory as a layer, and tag it
    Commit(commit::CommitArgs),
    /// Make something the newest version of tags
    Tag(tag::TagArgs),
    /// Remove a version of a tag, or the whole tag
    Untag(untag::UntagArgs),
    /// List all tags
    Tags(tags::TagsArgs),
    /// Browse the folders of tags
    #[command(visible_alias = "list-tags")]
    LsTags(ls_tags::LsTagsArgs),
    /// Search the names of tags, in every configured remote
    Search(search::SearchArgs),
    /// Show the history of a tag
    Log(log::LogArgs),
    /// Describe what references name
    Info(info::InfoArgs),
    /// List the layers that are stored
    Layers(layers::KindArgs),
    /// List the platforms that are stored
    Platforms(layers::KindArgs),
    /// List a directory of an environment, without mounting it
    #[command(visible_aliases = ["list", "list-dir"])]
    Ls(ls::LsArgs),
    /// Print a file of an environment, without mounting it
    #[command(visible_aliases = ["read", "read-file", "cat-file"])]
    Cat(cat::CatArgs),
    /// Copy environments from the local repository to a remote
    Push(push::PushArgs),
    /// Copy environments from a remote to the local repository
    Pull(pull::PullArgs),
    /// Write an environment to a directory, or to the local repository's store of renders
    Render(render::RenderArgs),
    /// Read and hash all of a repository, say what is wrong, and repair it
    Check(check::CheckArgs),
    /// Remove what no tag leads to any more
    Clean(Box<clean::CleanArgs>),
    /// Store a file, or what comes from the standard input, as a blob
    #[command(visible_alias = "write-file")]
    Write(write::WriteArgs),
    /// Compare two environments, path by path
    Diff(diff::DiffArgs),
    /// Serve a repository over HTTP, read-only
    Serve(serve::ServeArgs),
    /// Serve a repository to clients of SPFS, and of Farseek: gRPC, and HTTP for payloads
    Server(Box<server::ServerArgs>),
    /// Mount an environment on a directory
    Mount(Box<mount::MountArgs>),
    /// Run a command in an environment
    Run(Box<run::RunArgs>),
    /// Start a shell in an environment
    Shell(Box<shell::ShellArgs>),
    /// Run a command in a runtime that is there
    Join(join::JoinArgs),
    /// In a runtime: let its environment be written to, or no more
    Edit(edit::EditArgs),
    /// In a runtime: undo changes of its environment
    Reset(reset::ResetArgs),
    /// Take a mounted environment off its directory
    #[command(visible_alias = "umount")]
    Unmount(unmount::UnmountArgs),
    /// Show who uses which environment, and remove records of those who have ended
    #[command(visible_alias = "rt")]
    Runtime(runtime::RuntimeArgs),
    /// Fetch an environment ahead, so that it can be read without waiting
    Warm(Box<warm::WarmArgs>),
    /// Show what blocks take on the disk, and remove some
    Cache(cache::CacheArgs),
    /// Show what mounts have read, fetched and kept
    Stats(stats::StatsArgs),
    /// Print the effective configuration as JSON
    Config(config::ConfigArgs),
    /// Show what this is for: commit, serve, mount and read, all on this machine
    Demo(demo::DemoArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Print the version
    Version,
}

impl Command {
    /// The directory that is put in front of `origin`.
    pub(crate) fn wrap_origin(&self) -> Option<&Path> {
        let wrapped = match self {
            Self::Push(args) => &args.transfer.wrap_origin,
            Self::Pull(args) => &args.transfer.wrap_origin,
            _ => &self.repository()?.wrap_origin,
        };
        wrapped.as_deref()
    }

    /// Which repository it works on, where that is one that can be said.
    fn repository(&self) -> Option<&RepositoryArgs> {
        match self {
            Self::Commit(args) => Some(&args.repository),
            Self::Tag(args) => Some(&args.repository),
            Self::Untag(args) => Some(&args.repository),
            Self::Tags(args) => Some(&args.repository),
            Self::LsTags(args) => Some(&args.repository),
            Self::Search(args) => Some(&args.repository),
            Self::Log(args) => Some(&args.repository),
            Self::Info(args) => Some(&args.repository),
            Self::Layers(args) => Some(&args.repository),
            Self::Platforms(args) => Some(&args.repository),
            Self::Ls(args) => Some(&args.repository),
            Self::Cat(args) => Some(&args.repository),
            Self::Write(args) => Some(&args.repository),
            Self::Diff(args) => Some(&args.repository),
            Self::Check(args) => Some(&args.repository),
            Self::Clean(args) => Some(&args.repository),
            Self::Serve(args) => Some(&args.repository),
            Self::Server(args) => Some(&args.repository),
            Self::Runtime(args) => Some(args.repository()),
            // All are named, so that a new command with these flags is not forgotten.
            Self::Init(_)
            | Self::Push(_)
            | Self::Pull(_)
            | Self::Render(_)
            | Self::Mount(_)
            | Self::Run(_)
            | Self::Shell(_)
            | Self::Join(_)
            | Self::Edit(_)
            | Self::Reset(_)
            | Self::Unmount(_)
            | Self::Warm(_)
            | Self::Cache(_)
            | Self::Stats(_)
            | Self::Config(_)
            | Self::Demo(_)
            | Self::Completions(_)
            | Self::Version => None,
        }
    }
}
