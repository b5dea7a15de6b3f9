//! A runtime on its way: from a tree to a mount that is served.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use farseek_object::MergedTree;
use farseek_reader::Reader;
use farseek_store::Repository;
use farseek_vfs::fuse::{Connected, receive_connection, serve_connection};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::another::Another;
use super::control::{Control, Runtime};
use super::failed;
use super::front::{PREPARED, SERVING, words_of};
use super::link::Link;
use super::request::HostRequest;
use crate::blocking::blocking;
use crate::daemon::Background;
use crate::error::Result;
use crate::live::LiveBind;
use crate::mount;
use crate::record::RuntimeRecord;

/// Environments that are served in the place of the first.
pub(super) type Later = mpsc::UnboundedReceiver<Connected>;

/// A runtime on its way.
pub(super) struct Opening<'a> {
    /// The front.
    pub(super) link: &'a Arc<Link>,
    pub(super) request: HostRequest,
    pub(super) record: RuntimeRecord,
    pub(super) runtime: Runtime,
    pub(super) live: Vec<LiveBind>,
}

impl Opening<'_> {
    /// Has the front mount what `tree` shows, and serves it. `None` where it has given up, or `stop`
    /// has come.
    pub(super) async fn serve(
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
        self.link.send(&[SERVING]).ok();
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
        if self.link.send(&words).is_err() {
            return Ok(None);
        }
        let link = Arc::clone(self.link);
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
