//! What a host is asked to serve, and what the record says of it.

use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::directory::STARTUP_FILE;
use super::link::Link;
use super::renders::RenderBackend;
use crate::error::Result;
use crate::live::LiveLayer;
use crate::mount::MountRequest;
use crate::overlay::{Upper, UpperDirs};
use crate::record::{self, Kind, ProcessId, RuntimeRecord, Runtimes};
use crate::startup::CSH_STARTUP_FILE;

/// SPFS's name for an overlay over a mount of FUSE.
const OVERLAY_WITH_FUSE: &str = "OverlayFsWithFuse";

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

impl HostRequest {
    /// The record of the runtime, which lives as long as the front, which becomes the command, or
    /// this process does.
    pub(super) fn record(&self, front: &Link) -> Result<RuntimeRecord> {
        let (host, user) = (record::Host::current()?, self.user.as_str());
        let kept = self.kept.as_ref().map(|kept| kept.name.as_str());
        let (name, me) = (kept.or(self.name.as_deref()), ProcessId::current()?);
        let mut record = RuntimeRecord::new(name, Kind::Run, user, host, me);
        let front = getsockopt(front.socket(), PeerCredentials).map(|peer| peer.pid());
        let front = front.ok().and_then(ProcessId::of);
        if let (Some(front), Some(origin)) = (front, &mut record.farseek) {
            origin.holders.push(front);
            record.status.owner = u32::try_from(front.pid).ok();
        }
        Ok(record)
    }

    /// Writes down in `record` how it is set up, with its `directory`.
    pub(super) fn describe(&self, record: &mut RuntimeRecord, directory: &Path) {
        let (status, config) = (&mut record.status, &mut record.config);
        status.editable = self.upper.is_some();
        status.command.clone_from(&self.command);
        config.runtime_dir = Some(directory.to_owned());
        config.lower_dir = self.mount.mountpoint.clone();
        config.sh_startup_file = directory.join(STARTUP_FILE);
        config.csh_startup_file = directory.join(CSH_STARTUP_FILE);
        config.live_layers = self.live.iter().map(LiveLayer::to_record).collect();
        config
            .secondary_repositories
            .clone_from(&self.secondary_repositories);
        let upper = self.upper.clone().unwrap_or(Upper::Memory { size: None });
        let dirs = UpperDirs::of(&upper, directory);
        (config.upper_dir, config.work_dir) = (dirs.upper, dirs.work);
        match upper {
            Upper::Memory { size } => config.tmpfs_size = size,
            Upper::Kept(_) => config.durable = true,
        }
        if self.renders.is_some() {
            // What none is named for.
            config.mount_backend = None;
        } else if status.editable {
            config.mount_backend = Some(OVERLAY_WITH_FUSE.to_owned());
        }
        if let Some(origin) = &mut record.farseek {
            origin.mountpoint = Some(self.mount.mountpoint.clone());
            origin.reference = Some(self.reference.clone());
            // Not known before the front has made it.
            origin.mount_namespace = None;
        }
    }
}
