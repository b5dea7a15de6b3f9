//! The host: resolves the environment, serves the mount that the front makes, and outlives it.
//! See [`run`](super).

use std::pin::pin;
use std::sync::Arc;
use std::thread;

use farseek_reader::Promote;
use farseek_store::{Repository, RepositoryExt as _, ResolvedEnvironment};
use tokio::sync::oneshot;

use super::control::{Control, Runtime};
use super::directory::RuntimeDirectory;
use super::failed;
use super::front::FAILED;
use super::hosted::{Hosted, lay_down};
use super::inherited::close_inherited;
use super::link::Link;
use super::locked::lock;
use super::opening::Opening;
use super::renders;
use super::request::HostRequest;
use crate::blocking::blocking;
use crate::daemon::Background;
use crate::environment::{self, Named};
use crate::error::{Result, RuntimeError};
use crate::live;
use crate::namespace;
use crate::record::{self, PruneOptions, Reference, RuntimeRecord};

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
        let mut named = Named::now(local, &request.mount.spec).await;
        if request.kept.is_some() {
            // Its record is not to go, not even for a moment.
            named.follow_nothing();
        }
        let resolving = async {
            let environment = repository.resolve_environment(&request.mount.spec).await;
            Ok::<_, RuntimeError>(Arc::new(environment?))
        };
        let resolved = tokio::select! {
            resolved = self.unless_alone(resolving) => resolved?,
            () = &mut stop => None,
        };
        let Some(mut environment) = resolved else {
            return Ok(None);
        };
        let mut record = request.record(&self.link)?;
        let upper = request.upper.take();
        request.upper = upper.map(|upper| upper.of_runtime(record.name.as_ref()));
        let lock = lock(request.upper.as_ref()).await?;
        see_it_rests(&request).await?;
        clear(&request, &record.name).await;
        let directory = RuntimeDirectory::create(&request.directories, &record.name)?;
        request.describe(&mut record, directory.path());
        let control = Control::new(directory.path()).map_err(failed)?;
        let live = live::binds(&request.live)?;
        let (tree, reference) = loop {
            record.status.stack = environment.stack().iter().rev().copied().collect();
            let (points, merge) = (live.clone(), request.mount.merge);
            let merging = environment::merge_with(Arc::clone(&environment), points, merge);
            let (tree, reference) = tokio::join!(merging, keep(&request, &record, &environment));
            let reference = reference?;
            let confirming = named.confirm(&repository, &request.mount.spec, &environment);
            match confirming.await {
                Ok(None) => break (tree, reference),
                Ok(Some(again)) => environment = Arc::new(again),
                Err(error) => break (Err(error), reference),
            }
            if let Some(reference) = reference {
                reference.release().await;
            }
        };
        if reference.is_none() {
            request.mount.reader.promote = Promote::Never;
            request.runtimes = None;
        }
        let tree = {
            let (backend, merge) = (request.renders.as_ref(), request.mount.merge);
            let (place, is_rendered) = (directory.path(), backend.is_some());
            let rendering =
                renders::lay_out(backend, merge, &repository, &environment, tree, place);
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
            link: &self.link,
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
                let request = opening.request;
                match (reference, &request.runtimes, request.kept) {
                    // It was there before, and so were its changes.
                    (Some(_), Some(runtimes), Some(_)) => {
                        lay_down(runtimes, opening.record).await;
                    }
                    (Some(reference), ..) => reference.release().await,
                    (None, ..) => {}
                }
                given_up.map(|_| None)
            }
        }
    }
}

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

/// Sees that nobody is in a runtime that is to be run again: its host may have been killed, and its
/// lock has gone with it. Called with the lock, so that what is seen stays true.
async fn see_it_rests(request: &HostRequest) -> Result<()> {
    let (Some(kept), Some(runtimes)) = (&request.kept, &request.runtimes) else {
        return Ok(());
    };
    let record = runtimes.load(&kept.name).await?;
    if record.is_laid_down() {
        return Ok(());
    }
    let name = record.name.clone();
    let judging = move || record::Host::current().map(|here| here.judge(&record));
    match blocking(judging).await? {
        record::Verdict::Ended => Ok(()),
        _ => Err(RuntimeError::Occupied { name }),
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
    let cleared = match (cleared, &request.kept) {
        // Whoever made it may be of another host, or be hidden: nobody is in it.
        (Ok(()), Some(_)) => runtimes.take_unrecorded(&request.directories, name).await,
        (cleared, _) => cleared,
    };
    if let Err(error) = cleared {
        let why = &error as &dyn std::error::Error;
        tracing::warn!(
            why,
            "what a runtime of this name has left cannot be removed"
        );
    }
}
