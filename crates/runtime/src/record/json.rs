//! The JSON of a record, every field of it (FORMAT.md section 9.1).
//!
//! What we do not know is kept as it stands and written again. What we add stands under one key,
//! which SPFS ignores, and leaves out when it saves a record of ours: the rest then has to do.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Local, Utc};
use farseek_object::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::host::{Host, ProcessId};
use super::text;

/// What SPFS calls a mount that FUSE serves without an overlay.
const FUSE_ONLY: &str = "FuseOnly";

/// Where SPFS's own runtimes have their working directories.
const SPFS_ROOT: &str = "/tmp/spfs-runtime";

/// A runtime: who uses what, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuntimeRecord {
    /// Its name, which is part of the names of its tags.
    pub name: String,
    /// Who made it.
    pub author: Author,
    /// What it uses, and who runs in it.
    pub status: Status,
    /// How it is set up.
    pub config: RuntimeConfig,
    /// What only we say of it. SPFS's own records have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub farseek: Option<Origin>,
    /// What we do not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Who made a runtime.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Author {
    /// The user's login name.
    pub user_name: String,
    /// The host's name.
    pub host_name: String,
    /// When, as RFC 3339.
    pub created: String,
    /// What we do not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a runtime uses, and who runs in it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Status {
    /// Its platforms, layers and manifests, the topmost first.
    #[serde(with = "text::digests")]
    pub stack: Vec<Digest>,
    /// Layers that were made by merging others.
    #[serde(default, with = "text::digests", skip_serializing_if = "Vec::is_empty")]
    pub flattened_layers: Vec<Digest>,
    /// Whether what is in it can be changed.
    pub editable: bool,
    /// Whether it is in use.
    pub running: bool,
    /// The process that it was made for.
    pub owner: Option<u32>,
    /// The process that removes it when it has ended.
    pub monitor: Option<u32>,
    /// What runs in it.
    pub command: Vec<String>,
    /// What we do not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// How a runtime is set up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuntimeConfig {
    /// The directory of its working directories; for it alone where it is ours.
    pub runtime_dir: Option<PathBuf>,
    /// The size of the file system on it.
    pub tmpfs_size: Option<String>,
    /// What was changed.
    pub upper_dir: PathBuf,
    /// What lies below everything.
    pub lower_dir: PathBuf,
    /// The overlay's own.
    pub work_dir: PathBuf,
    /// The script that PowerShell starts with.
    #[serde(default)]
    pub ps_startup_file: PathBuf,
    /// The script that shells of sh's kind start with.
    pub sh_startup_file: PathBuf,
    /// The script that shells of csh's kind start with.
    pub csh_startup_file: PathBuf,
    /// Nothing any more: SPFS writes it and does not read it.
    #[serde(default = "dev_null")]
    pub csh_expect_file: PathBuf,
    /// The mount namespace, like `mnt:[4026532177]`.
    pub mount_namespace: Option<PathBuf>,
    /// SPFS's name of the way it is mounted; absent for an overlay of renders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_backend: Option<String>,
    /// Addresses of the repositories that are read beside the local one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secondary_repositories: Vec<String>,
    /// Whether those are looked for tags, too.
    #[serde(default = "yes")]
    pub include_secondary_tags: bool,
    /// Whether it stays when nobody uses it, with what was changed.
    #[serde(default)]
    pub durable: bool,
    /// Directories of the host that are shown in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub live_layers: Vec<LiveLayer>,
    /// What we do not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A layer that shows directories of the host, as it is stored.
pub type LiveLayer = Value;

/// What a runtime of ours is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An environment mounted at a directory.
    Mount,
    /// Processes that see the environment.
    Run,
    /// What a later version may add.
    #[serde(other)]
    Other,
}

/// What tells the owner of a record of ours from every other process, now and later, here and
/// elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// What it is.
    pub kind: Kind,
    /// The host and the time since its boot.
    pub host: Host,
    /// It lives as long as any of these does. Numbers are of the host's PID namespace.
    pub holders: Vec<ProcessId>,
    /// Where the environment is mounted, in the mount namespace of the first holder.
    #[serde(default, with = "text::path", skip_serializing_if = "Option::is_none")]
    pub mountpoint: Option<PathBuf>,
    /// The mount namespace that the mount point is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_namespace: Option<String>,
    /// The environment, as it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// What we do not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn dev_null() -> PathBuf {
    "/dev/null".into()
}

fn yes() -> bool {
    true
}

impl RuntimeRecord {
    /// Whether it is of a runtime that is kept and nobody's, until somebody runs it again.
    pub fn is_laid_down(&self) -> bool {
        let status = &self.status;
        self.config.durable && (status.running, status.owner, status.monitor) == (false, None, None)
    }

    /// Makes it so: what is written is kept, and nothing of it is where a process might look.
    pub(crate) fn lay_down(&mut self) {
        let status = &mut self.status;
        (status.running, status.owner, status.monitor) = (false, None, None);
        self.config.mount_namespace = None;
        self.config.runtime_dir = None;
        if let Some(origin) = &mut self.farseek {
            origin.mountpoint = None;
        }
    }

    /// A runtime of `kind` on `host` that is held by `holder`, made now by `user`. It is named
    /// `name`, or as no other is; it uses nothing yet.
    pub fn new(
        name: Option<&str>,
        kind: Kind,
        user: impl Into<String>,
        host: Host,
        holder: ProcessId,
    ) -> Self {
        let name = name.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
        let pid = u32::try_from(holder.pid).ok();
        Self {
            name,
            author: Author {
                user_name: user.into(),
                host_name: host.name.clone(),
                created: Local::now().to_rfc3339(),
                other: Map::new(),
            },
            status: Status {
                running: true,
                owner: pid,
                // SPFS leaves a record alone whose monitor is there.
                monitor: pid,
                ..Status::default()
            },
            config: RuntimeConfig::at(Path::new(SPFS_ROOT)),
            farseek: Some(Origin {
                kind,
                holders: vec![holder],
                mountpoint: None,
                mount_namespace: host.mount_namespace(),
                reference: None,
                host: Host {
                    booted: None,
                    ..host
                },
                other: Map::new(),
            }),
            other: Map::new(),
        }
    }

    /// When it was made, where that can be read.
    pub fn created(&self) -> Option<DateTime<Utc>> {
        let time = DateTime::parse_from_rfc3339(&self.author.created).ok()?;
        Some(time.to_utc())
    }
}

impl RuntimeConfig {
    /// What SPFS has in a record whose working directories are in `root`, mounted by FUSE alone.
    pub fn at(root: &Path) -> Self {
        Self {
            runtime_dir: None,
            tmpfs_size: None,
            upper_dir: root.join("upper"),
            lower_dir: root.join("lower"),
            work_dir: root.join("work"),
            ps_startup_file: "/tmp/startup.ps1".into(),
            sh_startup_file: root.join("startup.sh"),
            csh_startup_file: root.join(".cshrc"),
            csh_expect_file: dev_null(),
            mount_namespace: None,
            mount_backend: Some(FUSE_ONLY.to_owned()),
            secondary_repositories: Vec::new(),
            include_secondary_tags: true,
            durable: false,
            live_layers: Vec::new(),
            other: Map::new(),
        }
    }
}
