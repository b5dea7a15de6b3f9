//! The record of this process: written before anything is mounted, removed when that has ended.

use std::path::{Path, PathBuf};
use std::time::Duration;

use farseek_object::EnvSpec;
use farseek_store::ResolvedEnvironment;
use tokio::time::{Instant, sleep};

use super::host::{Host, ProcessId};
use super::json::{Kind, RuntimeRecord};
use super::judge::Verdict;
use super::runtimes::Runtimes;
use crate::error::{Result, RuntimeError};

/// A claim on what a runtime of this process may read.
///
/// It is given up by [`release`](Self::release), which waits for the repository. One that is
/// dropped stays until the process has ended and somebody prunes.
#[derive(Debug)]
pub struct Reference {
    runtimes: Runtimes,
    name: String,
}

impl Reference {
    /// Keeps `environment`, and stores `record` with its stack.
    ///
    /// # Errors
    /// There is a record of that name, or the repository cannot be written.
    pub async fn take(
        runtimes: Runtimes,
        mut record: RuntimeRecord,
        environment: &ResolvedEnvironment,
    ) -> Result<Self> {
        record.status.stack = environment.stack().iter().rev().copied().collect();
        // Until the record is there.
        let _hold = runtimes.repository().hold().await?;
        runtimes.keep(environment).await?;
        runtimes.create(&record).await?;
        Ok(Self {
            runtimes,
            name: record.name,
        })
    }

    /// The same for a record that is there, of a runtime that was kept and that nobody is in.
    ///
    /// # Errors
    /// The repository cannot be written.
    pub async fn take_again(
        runtimes: Runtimes,
        mut record: RuntimeRecord,
        environment: &ResolvedEnvironment,
    ) -> Result<Self> {
        record.status.stack = environment.stack().iter().rev().copied().collect();
        runtimes.keep(environment).await?;
        runtimes.save(&record).await?;
        Ok(Self {
            runtimes,
            name: record.name,
        })
    }

    /// The name of the record.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Removes the record. Where that fails, it is pruned when this process has ended.
    pub async fn release(self) {
        if let Err(error) = self.runtimes.remove(&self.name).await {
            tracing::info!(
                "the record of the runtime {} stays for now: {error}",
                self.name
            );
        }
    }
}

/// Makes the records of mounts.
#[derive(Debug, Clone)]
pub struct Keeper {
    /// Where they are kept.
    pub runtimes: Runtimes,
    /// The user's login name.
    pub user: String,
}

impl Keeper {
    /// Keeps `environment`, which was asked for as `spec`, for a mount at `mountpoint` that this
    /// process serves.
    ///
    /// # Errors
    /// The repository cannot be written, or the system does not say who we are.
    pub async fn keep(
        &self,
        spec: &EnvSpec,
        mountpoint: &Path,
        environment: &ResolvedEnvironment,
    ) -> Result<Reference> {
        let (host, holder) = (Host::current()?, ProcessId::current()?);
        let mut record = RuntimeRecord::new(None, Kind::Mount, self.user.as_str(), host, holder);
        if let Some(origin) = &mut record.farseek {
            origin.mountpoint = Some(mountpoint.to_owned());
            origin.reference = Some(spec.to_string());
        }
        Reference::take(self.runtimes.clone(), record, environment).await
    }
}

/// How long a process may take to remove the record of its mount when that has ended. Many that end
/// at once wait for one disk.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// How soon to look whether it has, and how seldom in the end: each look costs what they need to end,
/// too.
const LOOK_FIRST: Duration = Duration::from_millis(2);
const LOOK_LAST: Duration = Duration::from_millis(200);

/// The records of the mounts of this host that were there at a time.
#[derive(Debug)]
pub struct MountRecords {
    runtimes: Runtimes,
    here: Host,
    found: Vec<(String, PathBuf)>,
}

impl MountRecords {
    /// Those that are there now.
    ///
    /// # Errors
    /// They cannot be listed.
    pub async fn now(runtimes: Runtimes, here: Host) -> Result<Self> {
        let records = runtimes.list().await?.into_iter();
        let mount = |record: RuntimeRecord| {
            let origin = record.farseek.filter(|origin| origin.kind == Kind::Mount)?;
            let is_here =
                origin.mount_namespace == here.mount_namespace() && origin.host.boot == here.boot;
            origin.mountpoint.filter(|_| is_here)
        };
        let mounts = records.filter_map(|found| Some((found.name, mount(found.record.ok()?)?)));
        Ok(Self {
            found: mounts.collect(),
            runtimes,
            here,
        })
    }

    /// After the mount at `mountpoint` has ended: removes its record where its process is gone,
    /// and waits a little for a process that is there to do so, if `patient`.
    ///
    /// # Errors
    /// A record cannot be read or removed.
    pub async fn settle(&self, mountpoint: &Path, patient: bool) -> Result<()> {
        let deadline = Instant::now() + GONE_WITHIN;
        for (name, _) in self.found.iter().filter(|(_, path)| path == mountpoint) {
            let mut pause = LOOK_FIRST;
            while self.is_held(name).await? && patient && Instant::now() < deadline {
                sleep(pause).await;
                pause = (2 * pause).min(LOOK_LAST);
            }
        }
        Ok(())
    }

    /// Whether the record `name` is there and its process too, which will remove it. Where the
    /// process is gone it is removed here.
    async fn is_held(&self, name: &str) -> Result<bool> {
        let found = match self.runtimes.find(name).await {
            Err(RuntimeError::UnknownRuntime { .. }) => return Ok(false),
            found => found?,
        };
        let verdict = match &found.record {
            Ok(record) => self.here.judge(record),
            Err(_) => Verdict::Unknown,
        };
        if verdict == Verdict::Ended {
            self.runtimes.remove_listed(&found).await?;
        }
        Ok(verdict == Verdict::Alive)
    }
}
