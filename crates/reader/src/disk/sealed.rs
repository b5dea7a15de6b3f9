//! A data file that nobody writes to any more.

use std::path::Path;
use std::sync::Arc;

use super::map::Geometry;
use super::payload_file::{Found, PayloadFile};
use super::tier::now;

/// A payload's files while they are hashed and perhaps become a payload of a repository. Dropping
/// it lets them be written again.
#[derive(Debug)]
pub(crate) struct Sealed {
    geometry: Geometry,
    file: Arc<PayloadFile>,
    alone: bool,
}

impl Sealed {
    /// Seals `file`; `None` where it is sealed already.
    pub(super) fn new(geometry: Geometry, file: Arc<PayloadFile>) -> Option<Self> {
        let alone = file.seal()?;
        Some(Self {
            geometry,
            file,
            alone,
        })
    }

    /// How the payload is cut.
    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Whether no other process has the data file open, nor can open it: only then are its bytes
    /// sure to stay what they are, and only then may it be renamed.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }

    /// The data file.
    pub(crate) fn data_path(&self) -> &Path {
        self.file.data_path()
    }

    /// Reads a block and compares its checksum.
    pub(crate) fn read(&self, block: u64) -> std::io::Result<Found> {
        self.file.read(block, now())
    }

    /// Notes that all of it has been hashed and is right, so that nobody has to hash it again,
    /// unless another process may have written to it meanwhile. A failure is no matter: somebody
    /// will hash it.
    pub(crate) fn mark(&self) {
        if self.alone {
            let _ = self.file.mark();
        }
    }

    #[cfg(test)]
    pub(super) fn file_for_test(&self) -> &Arc<PayloadFile> {
        &self.file
    }

    pub(super) fn file(&self) -> &PayloadFile {
        &self.file
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.file.unseal();
    }
}
