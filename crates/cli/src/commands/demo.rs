//! `farseek demo`: what this is for, on one machine, in one command.
//!
//! Everything happens in one temporary directory: `repository`, served over HTTP on loopback;
//! `local`, an empty repository; `mnt`, the mount. With `--keep` the whole demo runs in the child
//! that goes to the background and stays until `mnt` is unmounted; then it removes the directory.

mod peek;
mod report;
mod scene;
mod tour;

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use farseek_object::{EnvItem, EnvSpec, TagName};
use farseek_runtime::daemon::Background;
use farseek_runtime::{MountRequest, MountedEnvironment, check_mountpoint, mount};
use farseek_store::{
    Chain, ChainOptions, FsOptions, FsRepository, Repository, ServeOptions, Server,
};
use nix::sys::statvfs::statvfs;
use tempfile::TempDir;
use tokio::time::sleep;

use self::report::{Report, Step};
use super::commit::commit;
use crate::app::{App, spawn_in_background};
use crate::args::JsonArgs;
use crate::exit::{Code, Failure};
use crate::output::note;
use crate::signals::{self, Signals};
use crate::size;

const EXAMPLES: &str = "\
Examples:
  farseek demo
  farseek demo --keep               # leave it mounted to look around
  farseek demo --size 10G --json

It needs about twice the size in the temporary directory ($TMPDIR), for a moment.";

/// The tag of the demo's environment.
const TAG: &str = "demo/environment";

/// Where in the temporary directory the child leaves its report for its parent.
const REPORT: &str = "report";

/// How long a counter of the server may lag behind what a client has received.
const SETTLE: Duration = Duration::from_millis(20);

/// What the demo needs beside its large file: two copies of this program, and the small files.
const BESIDES: u64 = 256 << 20;

/// `farseek demo`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoArgs {
    /// Leave it mounted, and say how to look around and how to end it
    #[arg(long)]
    keep: bool,
    /// Bytes of the large file
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size::parse)]
    size: u64,
    #[command(flatten)]
    json: JsonArgs,
    /// Print the byte of FILE at OFFSET by way of mmap, and nothing else
    #[arg(long, hide = true, num_args = 2, value_names = ["FILE", "OFFSET"])]
    peek: Option<Vec<OsString>>,
    /// The directory that the child in the background works in
    #[arg(long, hide = true)]
    directory: Option<PathBuf>,
}

/// Shows it.
pub(crate) async fn run(args: DemoArgs, app: &mut App) -> Result<()> {
    if let Some(words) = &args.peek {
        return print_byte(words, app);
    }
    match (&args.directory, args.keep) {
        (Some(directory), _) if app.in_background => stay(&args, app, directory).await,
        (_, true) => keep(&args, app).await,
        (_, false) => pass(&args, app).await,
    }
}

fn print_byte(words: &[OsString], app: &mut App) -> Result<()> {
    let [path, offset] = words else {
        bail!("--peek needs a file and an offset")
    };
    let offset = offset
        .to_str()
        .and_then(|text| text.parse().ok())
        .context("no offset")?;
    app.output.line(peek::byte_of(Path::new(path), offset)?)
}

/// The demo from its beginning to its end.
async fn pass(args: &DemoArgs, app: &mut App) -> Result<()> {
    let mut signals = Signals::listen()?;
    let directory = Removal(temporary()?.keep());
    let (running, report) = perform(args, app, &directory.0, &mut signals).await?;
    let printed = print(args, app, &report);
    running.end().await;
    directory.remove()?;
    printed
}

/// The parent's side of `--keep`.
async fn keep(args: &DemoArgs, app: &mut App) -> Result<()> {
    let directory = temporary()?;
    let flag = [OsString::from("--directory"), directory.path().into()];
    let pid = spawn_in_background(directory.path(), &flag).await?;
    // From here on it is the child's.
    let path = directory.keep();
    let text = std::fs::read_to_string(path.join(REPORT));
    let text = text.with_context(|| format!("cannot read the report in {}", path.display()))?;
    let mountpoint = path.join("mnt");
    let mountpoint = mountpoint.display();
    if args.json.json {
        let report: serde_json::Value = serde_json::from_str(&text)?;
        return app.output.json(&serde_json::json!({
            "report": report, "mountpoint": mountpoint.to_string(), "pid": pid,
        }));
    }
    app.output.bytes(text.as_bytes())?;
    app.output.line("")?;
    app.output.line("It is still mounted. Look around:")?;
    app.output.line(format_args!("  ls -l {mountpoint}"))?;
    app.output.line(format_args!("  {mountpoint}/bin/hello"))?;
    app.output.line(format_args!(
        "  tail -c 64 {mountpoint}/{} | od -A n -t x1",
        scene::LARGE
    ))?;
    app.output.line("This ends it and removes everything:")?;
    app.output
        .line(format_args!("  farseek unmount {mountpoint}"))
}

/// The child's side of `--keep`.
async fn stay(args: &DemoArgs, app: &mut App, directory: &Path) -> Result<()> {
    let mut signals = Signals::listen()?;
    let removal = Removal(directory.to_owned());
    let background = Background::enter(app.config.log.file.as_deref())?;
    let (running, report) = perform(args, app, directory, &mut signals).await?;
    let text = match args.json.json {
        true => serde_json::to_string(&report)?,
        false => report.lines().join("\n") + "\n",
    };
    let path = directory.join(REPORT);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    background.ready()?;
    let Running { mounted, server } = running;
    signals.serve(mounted).await?;
    drop(server);
    drop(removal);
    Ok(())
}

/// Removes the demo's directory, when nothing is mounted in it any more.
struct Removal(PathBuf);

impl Removal {
    /// Removes it, and again where somebody who was just stopped has put something in meanwhile.
    fn remove(&self) -> Result<()> {
        const ATTEMPTS: u32 = 10;
        for attempt in 1.. {
            match std::fs::remove_dir_all(&self.0) {
                Ok(()) => break,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
                Err(_) if attempt < ATTEMPTS => std::thread::sleep(SETTLE),
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot remove {}", self.0.display()));
                }
            }
        }
        Ok(())
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        // A mount point that is in use stays, and so does what is around it.
        self.remove().ok();
    }
}

fn temporary() -> Result<TempDir> {
    let parent = std::env::temp_dir();
    tempfile::Builder::new()
        .prefix("farseek-demo-")
        .tempdir()
        .with_context(|| format!("cannot make a temporary directory in {}", parent.display()))
}

fn print(args: &DemoArgs, app: &mut App, report: &Report) -> Result<()> {
    if args.json.json {
        return app.output.json(report);
    }
    report
        .lines()
        .iter()
        .try_for_each(|line| app.output.line(line))
}

/// The server and the mount of a demo. Dropping it ends both.
struct Running {
    // In this order: the mount goes before what it reads from.
    mounted: MountedEnvironment,
    server: Server,
}

impl Running {
    async fn end(self) {
        signals::end(self.mounted).await;
        drop(self.server);
    }

    /// Requests and bytes so far.
    async fn wire(&self) -> (u64, u64) {
        wire(&self.server).await
    }
}

/// Requests and bytes so far, once the server has counted what it sent.
async fn wire(server: &Server) -> (u64, u64) {
    sleep(SETTLE).await;
    let stats = server.stats();
    (stats.requests, stats.body_bytes_sent)
}

/// Commits, serves, mounts, looks.
async fn perform(
    args: &DemoArgs,
    app: &App,
    directory: &Path,
    signals: &mut Signals,
) -> Result<(Running, Report)> {
    let mountpoint = directory.join("mnt");
    std::fs::create_dir(&mountpoint)
        .with_context(|| format!("cannot make {}", mountpoint.display()))?;
    // Before the large file is made: nothing is worse than to hear it afterwards.
    check_mountpoint(&mountpoint, Default::default())?;
    check_space(directory, args.size)?;
    let repository = signals.unless(prepare(args, app, directory)).await?;
    let server = Server::bind(
        repository,
        (Ipv4Addr::LOCALHOST, 0).into(),
        ServeOptions::default(),
    );
    let server = server.await?;
    note(format_args!(
        "serving it at {}, mounting it from there at {}",
        server.url(),
        mountpoint.display()
    ));

    let local: Arc<dyn Repository> = Arc::new(FsRepository::create(
        &directory.join("local"),
        FsOptions::default(),
    )?);
    let remote = app.remote(&server.url()).await?;
    let chain = Arc::new(Chain::new(local, [remote], ChainOptions::default()));
    let spec = EnvSpec {
        items: vec![EnvItem::Tag(TAG.parse()?)],
    };
    let request = MountRequest {
        reader: app.memory_options()?,
        ..MountRequest::new(spec, &mountpoint)
    };
    let start = Instant::now();
    let mounted = signals.mounted(mount(chain, request)).await?;
    let took = start.elapsed();
    let running = Running { mounted, server };
    let first = Step::new("mount it", "it answers", took, running.wire().await);
    match signals
        .unless(tour::tour(args.size, &running, &mountpoint, first))
        .await
    {
        Ok(report) => Ok((running, report)),
        Err(error) => {
            running.end().await;
            Err(error)
        }
    }
}

/// Refuses to begin what would fill the disk.
fn check_space(directory: &Path, size: u64) -> Result<()> {
    let place = directory.parent().unwrap_or(directory);
    let found = statvfs(place)
        .with_context(|| format!("cannot look at the free space in {}", place.display()))?;
    let free = found.blocks_available() as u64 * found.fragment_size() as u64;
    let needed = size.saturating_mul(2).saturating_add(BESIDES);
    if free >= needed {
        return Ok(());
    }
    let (place, free, needed) = (place.display(), size::human(free), size::human(needed));
    Err(Failure::error(
        Code::Other,
        format!(
            "{place} has {free} free and the demo needs {needed}: choose a smaller --size, or \
             another directory with TMPDIR=DIR"
        ),
    ))
}

/// Builds the tree and commits it. The tree is not kept.
async fn prepare(args: &DemoArgs, app: &App, directory: &Path) -> Result<Arc<dyn Repository>> {
    let tree = directory.join("tree");
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    note(format_args!(
        "making an environment with a file of {}",
        size::human(args.size)
    ));
    let (root, size) = (tree.clone(), args.size);
    // Dropped with this future: then nobody wants the tree any more.
    let wanted = Arc::new(());
    let asked = Arc::downgrade(&wanted);
    let building = tokio::task::spawn_blocking(move || {
        scene::build(&root, &program, size, &|| asked.strong_count() > 0)
    });
    building
        .await
        .context("making the environment was given up")??;
    let path = directory.join("repository");
    let repository: Arc<dyn Repository> =
        Arc::new(FsRepository::create(&path, FsOptions::default())?);
    let start = Instant::now();
    let summary = commit(app, &repository, &tree, Vec::new()).await?;
    let tag: TagName = TAG.parse()?;
    repository
        .push_tag(&tag, &summary.layer, &app.config.signature())
        .await?;
    note(format_args!(
        "committed {} files, {}, in {:.1} s",
        summary.files,
        size::human(summary.bytes),
        start.elapsed().as_secs_f64()
    ));
    std::fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {}", tree.display()))?;
    Ok(repository)
}
