//! The host: resolves the environment, serves the mount that the front makes, and outlives it.
//! See [`run`](super).

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use farseek_object::MergedTree;
use farseek_reader::{Promote, Reader};
use farseek_store::{Repository, RepositoryExt as _, ResolvedEnvironment};
use farseek_vfs::fuse::{Connected, MountError, receive_connection, serve_connection};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task;

use super::another::Another;
use super::control::{Control, Runtime};
use super::directory::RuntimeDirectory;
use super::front::{FAILED, PREPARED, SERVING, words_of};
use super::link::Link;
use super::renders::{self, RenderBackend};
use crate::daemon::Background;
use crate::environment::{self, Named};
use crate::error::{Result, RuntimeError};
use crate::kept::{Kept, KeptId};
use crate::live::{self, LiveBind, LiveLayer};
use crate::mount::{self, MountRequest};
use crate::namespace;
use crate::overlay::{Upper, UpperDirs};
use crate::record::{self, Kind, ProcessId, PruneOptions, Reference, RuntimeRecord, Runtimes};
use crate::startup::CSH_STARTUP_FILE;

/// The startup file of an interactive shell, in the runtime's directory.
pub const STARTUP_FILE: &str = "startup.sh";

/// How long the host goes on after its runtime to put away what it has fetched.
const TO_SETTLE: Duration = Duration::from_secs(5);

/// How long the host of a runtime that has ended may take to tidy up.
const TO_TIDY_UP: Duration = Duration::from_secs(7);

/// How often to look whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// This process as the host of a runtime, with the front at the other end of its standard output.
#[derive(Debug)]
pub struct Host {
    link: Arc<Link>,
}

impl Host {
    /// Takes this process for a host. Its standard output is the link to the front.
    ///
    /// # Errors
    /// It has no standard output.
    pub fn of_process() -> Result<Self> {
        let link = Arc::new(Link::of_stdout().map_err(failed)?);
        Ok(Self { link })
    }

    /// Leaves the front's children and session, and makes a namespace of users where this user
    /// may not mount without. This process must have one thread.
    ///
    /// # Errors
    /// The system refuses.
    pub fn detach(&self) -> Result<()> {
        // Its directory and its standard streams are still needed.
        nix::unistd::daemon(true, true).map_err(|errno| failed(errno.into()))?;
        close_inherited().map_err(failed)?;
        match namespace::may_mount() {
            true => Ok(()),
            false => namespace::new_users(),
        }
    }

    /// Tells the front that this cannot go on, and with which exit code. The person has to be told
    /// by the caller.
    pub fn fail(&self, code: u8) {
        // It may be gone, and then nobody asks.
        let code = code.to_string();
        self.link.send(&[FAILED, code.as_bytes()]).ok();
    }

    /// Does `work`, which leaves nothing when it is given up, unless the front goes before: nobody
    /// waits for the runtime then, and a remote may take its time. `None` in that case.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn unless_alone<T, E: From<RuntimeError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<Option<T>, E> {
        let (tell, told) = oneshot::channel();
        let link = Arc::clone(&self.link);
        // A thread of its own: it may wait for as long as the front does for this process to end.
        thread::Builder::new()
            .name("farseek-front".to_owned())
            .spawn(move || {
                let gone = link.wait_for_end();
                gone.map(|()| tell.send(()).ok()).ok()
            })
            .map_err(failed)?;
        tokio::select! {
            done = work => done.map(Some),
            Ok(()) = told => Ok(None),
        }
    }

    /// Resolves an environment, keeps it from being cleaned, and serves it to the front. `None`
    /// where the front has given up meanwhile, or `stop` has come: then nothing is left. While the
    /// record is written `stop` waits, so this is not to be dropped before it is done.
    ///
    /// # Errors
    /// Whatever is in the way. Nothing is left.
    pub async fn open(
        &self,
        repository: Arc<dyn Repository>,
        mut request: HostRequest,
        background: Background,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<Hosted>> {
        let mut stop = pin!(stop);
        let local = request.mount.local(request.runtimes.as_ref());
        let named = Named::now(local, &request.mount.spec).await;
        let resolving = async {
            let environment = repository.resolve_environment(&request.mount.spec).await;
            Ok::<_, RuntimeError>(Arc::new(environment?))
        };
        let resolved = tokio::select! {
            resolved = self.unless_alone(resolving) => resolved?,
            () = &mut stop => None,
        };
        let Some(environment) = resolved else {
            return Ok(None);
        };
        let mut record = self.record(&request)?;
        let upper = request.upper.take();
        request.upper = upper.map(|upper| upper.of_runtime(record.name.as_ref()));
        let lock = lock(request.upper.as_ref()).await?;
        clear(&request, &record.name).await;
        let directory = RuntimeDirectory::create(&request.directories, &record.name)?;
        self.describe(&mut record, &request, directory.path());
        let control = Control::new(directory.path()).map_err(failed)?;
        record.status.stack = environment.stack().iter().rev().copied().collect();
        let live = live::binds(&request.live)?;
        let merging =
            environment::merge_with(Arc::clone(&environment), live.clone(), request.mount.merge);
        let (tree, reference) = tokio::join!(merging, keep(&request, &record, &environment));
        let reference = reference?;
        let confirming = named.confirm(&repository, &request.mount.spec, &environment);
        let tree = confirming.await.and(tree);
        if reference.is_none() {
            request.mount.reader.promote = Promote::Never;
            request.runtimes = None;
        }
        let tree = {
            let (place, is_rendered) = (directory.path(), request.renders.is_some());
            let rendering = renders::lay_out(&request, &repository, &environment, tree, place);
            match (is_rendered, reference.is_some()) {
                (true, true) => self.unless_alone(rendering).await,
                (true, false) => Err(renders::unkept(&request.mount.mountpoint)),
                (false, _) => rendering.await.map(Some),
            }
        };
        request.renders = None;
        drop(environment);
        let runtime = Runtime {
            mounts: String::new(),
            at: request.mount.mountpoint.clone(),
            directory: directory.path().to_owned(),
            upper: request.upper.clone(),
            kept: lock.as_ref().map(|(_, id)| *id),
            live: live.clone(),
        };
        let mut opening = Opening {
            host: self,
            request,
            record,
            runtime,
            live,
        };
        let served = match tree {
            Ok(Some(tree)) => {
                let serving = opening.serve(repository, tree, control, background, stop);
                serving.await
            }
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        match served {
            Ok(Some((connected, later, reader))) => Ok(Some(Hosted {
                connected,
                later,
                reader,
                reference,
                record: opening.record,
                runtimes: opening.request.runtimes,
                is_over: false,
                directory,
                _lock: lock.map(|(lock, _)| lock),
            })),
            given_up => {
                if let Some(reference) = reference {
                    reference.release().await;
                }
                given_up.map(|_| None)
            }
        }
    }

    /// The record of the runtime, which lives as long as the front, which becomes the command, or
    /// this process does.
    fn record(&self, request: &HostRequest) -> Result<RuntimeRecord> {
        let (host, user) = (record::Host::current()?, request.user.as_str());
        let kept = request.kept.as_ref().map(|kept| kept.name.as_str());
        let (name, me) = (kept.or(request.name.as_deref()), ProcessId::current()?);
        let mut record = RuntimeRecord::new(name, Kind::Run, user, host, me);
        let front = getsockopt(self.link.socket(), PeerCredentials).map(|peer| peer.pid());
        let front = front.ok().and_then(ProcessId::of);
        if let (Some(front), Some(origin)) = (front, &mut record.farseek) {
            origin.holders.push(front);
            record.status.owner = u32::try_from(front.pid).ok();
        }
        Ok(record)
    }

    fn describe(&self, record: &mut RuntimeRecord, request: &HostRequest, directory: &Path) {
        let (status, config) = (&mut record.status, &mut record.config);
        status.editable = request.upper.is_some();
        status.command.clone_from(&request.command);
        config.runtime_dir = Some(directory.to_owned());
        config.lower_dir = request.mount.mountpoint.clone();
        config.sh_startup_file = directory.join(STARTUP_FILE);
        config.csh_startup_file = directory.join(CSH_STARTUP_FILE);
        config.live_layers = request.live.iter().map(LiveLayer::to_record).collect();
        config
            .secondary_repositories
            .clone_from(&request.secondary_repositories);
        let upper = request
            .upper
            .clone()
            .unwrap_or(Upper::Memory { size: None });
        let dirs = UpperDirs::of(&upper, directory);
        (config.upper_dir, config.work_dir) = (dirs.upper, dirs.work);
        match upper {
            Upper::Memory { size } => config.tmpfs_size = size,
            Upper::Kept(_) => config.durable = true,
        }
        if request.renders.is_some() {
            // What none is named for.
            config.mount_backend = None;
        } else if status.editable {
            config.mount_backend = Some(OVERLAY_WITH_FUSE.to_owned());
        }
        if let Some(origin) = &mut record.farseek {
            origin.mountpoint = Some(request.mount.mountpoint.clone());
            origin.reference = Some(request.reference.clone());
            // Not known before the front has made it.
            origin.mount_namespace = None;
        }
    }
}

/// What a host is to serve.
#[derive(Debug)]
pub struct HostRequest {
    /// The environment, and where it is to appear.
    pub mount: MountRequest,
    /// What the environment was asked for as.
    pub reference: String,
    /// What of the host is shown in it.
    pub live: Vec<LiveLayer>,
    /// Where changes go, if it is to be editable. What is kept goes to a directory of the runtime's
    /// name in the one that is given.
    pub upper: Option<Upper>,
    /// How renders are made, if the environment is to be read from them.
    pub renders: Option<RenderBackend>,
    /// A runtime that was kept, and is to be run again.
    pub kept: Option<RuntimeRecord>,
    /// The name of the runtime; one that no other has where there is none.
    pub name: Option<String>,
    /// Where runtimes have their directories.
    pub directories: PathBuf,
    /// Where its record is kept. Without, no payload becomes local.
    pub runtimes: Option<Runtimes>,
    /// The user's login name.
    pub user: String,
    /// What is run.
    pub command: Vec<String>,
    /// What is read beside the local repository.
    pub secondary_repositories: Vec<String>,
}

/// SPFS's name for an overlay over a mount of FUSE.
const OVERLAY_WITH_FUSE: &str = "OverlayFsWithFuse";

/// Writes the record, if it can be.
///
/// # Errors
/// Another has the name that is asked for: whoever uses the name would mean the other.
async fn keep(
    request: &HostRequest,
    record: &RuntimeRecord,
    environment: &ResolvedEnvironment,
) -> Result<Option<Reference>> {
    let Some(runtimes) = request.runtimes.clone() else {
        return Ok(None);
    };
    let taken = match request.kept {
        None => Reference::take(runtimes, record.clone(), environment).await,
        Some(_) => Reference::take_again(runtimes, record.clone(), environment).await,
    };
    match taken {
        Ok(reference) => Ok(Some(reference)),
        Err(error @ (RuntimeError::RuntimeExists { .. } | RuntimeError::RuntimeName { .. })) => {
            Err(error)
        }
        Err(error) => {
            let why = &error as &dyn std::error::Error;
            tracing::info!(
                why,
                "no record is kept of the runtime, so no file becomes local"
            );
            Ok(None)
        }
    }
}

/// Takes away what a runtime of this name has left whose processes were killed. What is in the way
/// of that is in the way of a new one, which then says so.
async fn clear(request: &HostRequest, name: &str) {
    let left = request.directories.join(name).symlink_metadata().is_ok();
    let (Some(runtimes), true) = (&request.runtimes, left) else {
        return;
    };
    let options = PruneOptions {
        user: Some(request.user.clone()),
        root: Some(request.directories.clone()),
        ..PruneOptions::default()
    };
    let cleared = match record::Host::current() {
        Ok(here) => runtimes.prune_named(&here, &options, name).await,
        Err(error) => Err(error),
    };
    if let Err(error) = cleared {
        let why = &error as &dyn std::error::Error;
        tracing::warn!(
            why,
            "what a runtime of this name has left cannot be removed"
        );
    }
}

/// Claims an upper directory that is kept: two overlays must not share one. Waits a little for a
/// runtime that has ended and is tidied up.
async fn lock(upper: Option<&Upper>) -> Result<Option<(Flock<File>, KeptId)>> {
    let Some(Upper::Kept(place)) = upper else {
        return Ok(None);
    };
    let refused = |error: &dyn std::fmt::Display| RuntimeError::Overlay {
        path: place.clone(),
        reason: error.to_string(),
    };
    let (mut file, id) = lock_file(place).map_err(|error| refused(&error))?;
    let deadline = Instant::now() + TO_TIDY_UP;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some((lock, id))),
            Err((back, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file = back,
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(refused(&"it is in use by another runtime"));
            }
            Err((_, errno)) => return Err(refused(&errno.desc())),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The file that claims the upper directory `place`, both of which are made if need be, and which
/// directory that is.
fn lock_file(place: &Path) -> io::Result<(File, KeptId)> {
    let kept = Kept::make(place)?;
    Ok((kept.file("lock")?, kept.id()?))
}

/// A runtime on its way.
struct Opening<'a> {
    host: &'a Host,
    request: HostRequest,
    record: RuntimeRecord,
    runtime: Runtime,
    live: Vec<LiveBind>,
}

impl Opening<'_> {
    async fn serve(
        &mut self,
        repository: Arc<dyn Repository>,
        tree: MergedTree,
        control: Control,
        background: Background,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<(Connected, Later, Reader)>> {
        let vfs = mount::prepare(Arc::clone(&repository), &self.request.mount, tree).await;
        let reader = vfs.reader().clone();
        let connection = tokio::select! {
            connection = self.connection() => connection?,
            () = stop => None,
        };
        let Some((connection, words)) = connection else {
            return Ok(None);
        };
        let mut words = words.into_iter().map(OsString::from_vec);
        let (mounts, at) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let (request, path) = (&self.request.mount, PathBuf::from(at));
        let (options, handle) = (request.fuse_options(), Handle::current());
        let name = path.clone();
        let connected =
            blocking(move || serve_connection(vfs, connection, &name, &options, handle)).await?;
        self.runtime.mounts = mounts.to_string_lossy().into_owned();
        self.runtime.at = path;
        self.save().await;
        let (served, later) = mpsc::unbounded_channel();
        let another = Another {
            handle: Handle::current(),
            repository,
            request: self.request.mount.clone(),
            reader: reader.clone(),
            runtimes: self.request.runtimes.clone(),
            name: self.record.name.clone(),
            live: self.live.clone(),
            served,
        };
        let listening = control.listen(self.runtime.clone(), another);
        listening.map_err(failed)?;
        background.leave(b"")?;
        // The front may have been killed. Others may be in the runtime by now, for its record is
        // there; if nobody is, the mount ends with the namespace, and this with the mount.
        self.host.link.send(&[SERVING]).ok();
        Ok(Some((connected, later, reader)))
    }

    /// Tells the front that it can mount, and waits for the connection and for where that is.
    async fn connection(&self) -> Result<Option<(OwnedFd, Vec<Vec<u8>>)>> {
        let host = std::process::id().to_string();
        let (name, directory) = (self.record.name.as_bytes(), &self.runtime.directory);
        let directory = directory.as_os_str().as_bytes();
        let kept = self.runtime.kept.map(|kept| kept.to_string());
        let kept = kept.unwrap_or_default();
        let mut words = vec![PREPARED, host.as_bytes(), name, directory, kept.as_bytes()];
        words.extend(self.live.iter().flat_map(words_of));
        if self.host.link.send(&words).is_err() {
            return Ok(None);
        }
        let link = Arc::clone(&self.host.link);
        let received = blocking(move || {
            let connection = receive_connection(link.socket())?;
            let words = link.receive()?;
            Ok(connection.zip(words))
        });
        received.await.map_err(failed)
    }

    /// Writes down which namespace it is, for those who want to join it.
    async fn save(&mut self) {
        self.record.config.mount_namespace = Some(self.runtime.mounts.clone().into());
        if let Some(origin) = &mut self.record.farseek {
            origin.mount_namespace = Some(self.runtime.mounts.clone());
            origin.mountpoint = Some(self.runtime.at.clone());
        }
        if let Some(runtimes) = &self.request.runtimes
            && let Err(error) = runtimes.save(&self.record).await
        {
            tracing::info!("the record of the runtime is not complete: {error}");
        }
    }
}

/// Environments that are served in the place of the first.
type Later = mpsc::UnboundedReceiver<Connected>;

/// A runtime that is being served.
#[derive(Debug)]
pub struct Hosted {
    connected: Connected,
    /// What is served in its place, each as soon as it is mounted.
    later: Later,
    reader: Reader,
    reference: Option<Reference>,
    record: RuntimeRecord,
    runtimes: Option<Runtimes>,
    /// Whether the last process of the runtime has ended.
    is_over: bool,
    /// Removed last.
    directory: RuntimeDirectory,
    /// Of a kept upper directory.
    _lock: Option<Flock<File>>,
}

impl Hosted {
    /// Its record.
    pub fn record(&self) -> &RuntimeRecord {
        &self.record
    }

    /// Waits until the last process of the runtime has ended.
    ///
    /// # Errors
    /// Serving the kernel broke down.
    pub async fn ended(&mut self) -> Result<()> {
        loop {
            let ended = self.connected.ended().await;
            if let Ok(next) = self.later.try_recv() {
                self.connected = next;
                continue;
            }
            self.is_over = ended.is_ok();
            return ended.map_err(|error| {
                let (path, reason) = (self.record.config.lower_dir.clone(), error.to_string());
                MountError::Broken { path, reason }.into()
            });
        }
    }

    /// Removes the record and the directory. A runtime that is to be kept keeps its record; one that
    /// somebody still is in leaves both for the next who prunes, for it may be read from renders.
    pub async fn close(self) {
        // What has been fetched is to stay: it may still be on its way to the disk.
        tokio::time::timeout(TO_SETTLE, self.reader.settle())
            .await
            .ok();
        let Some(reference) = self.reference else {
            return;
        };
        let place = self.directory.path().to_owned();
        if !self.is_over && blocking(move || is_anybody_in(&place)).await {
            return self.directory.leave();
        }
        match (self.record.config.durable, &self.runtimes) {
            (true, Some(runtimes)) => lay_down(runtimes, self.record).await,
            _ => reference.release().await,
        }
    }
}

/// Whether somebody may be in the runtime with this directory.
fn is_anybody_in(directory: &Path) -> bool {
    let nobody = record::Presence::Nobody;
    !record::Host::current()
        .is_ok_and(|here| here.users_of(record::Place::Directory(directory)) == nobody)
}

/// A kept runtime that nobody is in is nobody's, until somebody runs it again.
async fn lay_down(runtimes: &Runtimes, mut record: RuntimeRecord) {
    // It may have become editable, or another environment, since it was made.
    if let Ok(now) = runtimes.load(&record.name).await {
        record = now;
    }
    // Nobody has anything of what it showed before.
    record.status.flattened_layers.clear();
    let status = &mut record.status;
    (status.running, status.owner, status.monitor) = (false, None, None);
    record.config.mount_namespace = None;
    record.config.runtime_dir = None;
    if let Some(origin) = &mut record.farseek {
        origin.mountpoint = None;
        origin.mount_namespace = None;
    }
    if let Err(error) = runtimes.save(&record).await {
        let why = &error as &dyn std::error::Error;
        tracing::warn!(
            why,
            "the record of a runtime that is kept cannot be written"
        );
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    task::spawn_blocking(work)
        .await
        .expect("the work does not panic and is not cancelled")
}

/// Closes what the front was given by others, and gave to this process without knowing: a pipe
/// would otherwise stay open for as long as the runtime lives.
fn close_inherited() -> io::Result<()> {
    let mut inherited = Vec::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let info = fs::read_to_string(Path::new("/proc/self/fdinfo").join(&name));
        if number > 2 && info.is_ok_and(|info| survives_exec(&info)) {
            inherited.push(number);
        }
    }
    for number in inherited {
        nix::unistd::close(number)?;
    }
    Ok(())
}

/// Whether the text of a `/proc/<id>/fdinfo/<number>` is of a descriptor that programs inherit:
/// all that we open ourselves is not.
fn survives_exec(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & OFlag::O_CLOEXEC.bits() == 0)
}

fn failed(source: io::Error) -> RuntimeError {
    RuntimeError::Daemon {
        action: "serve the runtime",
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_directory_leads_nowhere_else() {
        let base = tempfile::tempdir().unwrap();
        let (place, foreign) = (base.path().join("kept/name"), base.path().join("foreign"));
        lock_file(&place).unwrap();
        lock_file(&place).unwrap();
        fs::write(&foreign, "theirs").unwrap();
        let lock = place.join("lock");
        fs::remove_file(&lock).unwrap();
        std::os::unix::fs::symlink(&foreign, &lock).unwrap();
        assert!(lock_file(&place).is_err());
        assert_eq!(fs::read_to_string(&foreign).unwrap(), "theirs");
        let link = place.with_file_name("link");
        std::os::unix::fs::symlink(base.path(), &link).unwrap();
        assert!(lock_file(&link).is_err());
        assert!(!base.path().join("lock").exists());
    }

    #[test]
    fn inherited_descriptors_are_told_from_ours() {
        assert!(survives_exec("pos:\t0\nflags:\t0100002\nmnt_id:\t9\n"));
        assert!(!survives_exec("pos:\t0\nflags:\t02100002\nmnt_id:\t9\n"));
        assert!(!survives_exec("pos:\t0\n"));
    }
}
