//! A bucket, and a sandbox whose programs have the key to it.

use std::path::{Path, PathBuf};

use farseek_testkit::mount::{MountGuard, Sandbox};
use farseek_testkit::{BucketRequest, BucketServer, Cloud};
use serde_json::Value;
use tempfile::TempDir;

use crate::remote::{TAG, sandbox};

/// The prefix of a repository in the bucket.
pub(crate) const SITE: &str = "a/site";

/// A bucket and who uses it.
pub(crate) struct Stand {
    // Before the server, so that it unmounts while the server still answers.
    pub(crate) sandbox: Sandbox,
    pub(crate) server: BucketServer,
    _folder: TempDir,
}

impl Stand {
    /// An empty bucket, and a sandbox with a local repository.
    pub(crate) fn new() -> Self {
        Self::on(Cloud::S3)
    }

    /// The same on a cloud whose needs are met.
    pub(crate) fn on(cloud: Cloud) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = BucketServer::start_as(cloud, folder.path());
        let mut sandbox = sandbox();
        for (name, value) in server.variables() {
            sandbox.set_variable(name, &value);
        }
        sandbox.init();
        Self {
            sandbox,
            server,
            _folder: folder,
        }
    }

    /// A stand with `tree` committed, and pushed to [`SITE`].
    pub(crate) fn with_tree(tree: &Path) -> Self {
        Self::on_with_tree(Cloud::S3, tree)
    }

    /// The same on a cloud whose needs are met.
    pub(crate) fn on_with_tree(cloud: Cloud, tree: &Path) -> Self {
        let stand = Self::on(cloud);
        stand.sandbox.commit(tree, TAG);
        stand.push(TAG, SITE);
        stand.server.clear();
        stand
    }

    /// The address of the repository at `prefix`.
    pub(crate) fn url(&self, prefix: &str) -> String {
        self.server.address_of(prefix)
    }

    /// Pushes a tag, and returns what `--json` says.
    pub(crate) fn push(&self, tag: &str, prefix: &str) -> Value {
        let said = self
            .sandbox
            .succeed(&["push", tag, "--to", &self.url(prefix), "--json"]);
        serde_json::from_str(&said).unwrap()
    }

    /// Mounts from the bucket alone.
    pub(crate) fn mount(&self, tag: &str, arguments: &[&str]) -> MountGuard<'_> {
        let url = self.url(SITE);
        let mut all = vec!["--no-local", "--remote", url.as_str()];
        all.extend(arguments);
        self.sandbox.mount(tag, "mnt", &all)
    }

    /// What a check says of the repository at `prefix`.
    pub(crate) fn checked(&self, prefix: &str) -> Value {
        check(&self.sandbox, &self.url(prefix))
    }

    /// The requests for payloads since the last clearing of the log.
    pub(crate) fn payload_requests(&self) -> Vec<BucketRequest> {
        self.server.requests_for("payloads/")
    }

    /// Where the server keeps the repository at `prefix`.
    pub(crate) fn folder(&self, prefix: &str) -> PathBuf {
        self.server.folder().join(prefix)
    }
}

/// The address of the repository at `prefix`, of S3's.
pub(crate) fn url(prefix: &str) -> String {
    format!("s3://{}/{prefix}", BucketServer::BUCKET)
}

/// What a check says of a repository.
pub(crate) fn check(sandbox: &Sandbox, repository: &str) -> Value {
    let output = sandbox.run(&["check", "--json", "-r", repository]);
    let error = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout);
    report.unwrap_or_else(|_| panic!("farseek check -r {repository}: {error}"))
}
