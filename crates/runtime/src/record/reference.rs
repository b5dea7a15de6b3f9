//! The record of this process: written before anything is mounted, removed when that has ended.

use farseek_store::ResolvedEnvironment;

use super::json::RuntimeRecord;
use super::runtimes::Runtimes;
use crate::error::Result;

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
        runtimes.keep(environment).await?;
        runtimes.create(&record).await?;
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
