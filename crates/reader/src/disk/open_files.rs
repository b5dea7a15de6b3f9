//! The payload files that this process has open: a bounded number, least recently used first out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::map::Geometry;
use super::payload_file::PayloadFile;

/// The open files.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    max: usize,
    /// Guards the table alone, for the length of a lookup; no other lock is taken under it.
    table: Mutex<Table>,
    /// Held while files are opened, so that this process opens those of a payload once: a second
    /// opener would look to the first like another process.
    opening: Mutex<()>,
}

#[derive(Debug, Default)]
struct Table {
    tick: u64,
    files: HashMap<Geometry, (u64, Arc<PayloadFile>)>,
}

impl OpenFiles {
    /// None yet, and never more than `max`.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            table: Mutex::default(),
            opening: Mutex::default(),
        }
    }

    /// The files of a payload, opened by `open` where they are not yet.
    pub(crate) fn get_or<E>(
        &self,
        geometry: Geometry,
        open: impl FnOnce() -> Result<Option<PayloadFile>, E>,
    ) -> Result<Option<Arc<PayloadFile>>, E> {
        if let Some(file) = self.find(&geometry) {
            return Ok(Some(file));
        }
        let _one_at_a_time = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = self.find(&geometry) {
            return Ok(Some(file));
        }
        let Some(file) = open()?.map(Arc::new) else {
            return Ok(None);
        };
        self.insert(geometry, Arc::clone(&file));
        Ok(Some(file))
    }

    /// Those that are open, unless somebody has removed them from the disk meanwhile.
    fn find(&self, geometry: &Geometry) -> Option<Arc<PayloadFile>> {
        let file = self.lock().touch(geometry)?;
        if file.is_unlinked() {
            self.close(geometry);
            return None;
        }
        Some(file)
    }

    /// The files of a payload, where this process has them open. Asks the disk for nothing.
    pub(crate) fn peek(&self, geometry: &Geometry) -> Option<Arc<PayloadFile>> {
        let table = self.lock();
        table.files.get(geometry).map(|(_, file)| Arc::clone(file))
    }

    fn insert(&self, geometry: Geometry, file: Arc<PayloadFile>) {
        let mut table = self.lock();
        table.tick += 1;
        let tick = table.tick;
        table.files.insert(geometry, (tick, file));
        if table.files.len() > self.max {
            let idle = table.files.iter().min_by_key(|(_, (used, _))| *used);
            let idle = idle.map(|(geometry, _)| *geometry);
            idle.and_then(|geometry| table.files.remove(&geometry));
        }
    }

    /// Closes the files of a payload, once nobody uses them.
    pub(crate) fn close(&self, geometry: &Geometry) {
        // Files are closed with no lock held: that may wait for the disk, and who peeks must not.
        let closed = self.lock().files.remove(geometry);
        drop(closed);
    }

    /// Closes what has been removed from the disk: open, it would still take space there.
    pub(crate) fn close_unlinked(&self) {
        let open = |(geometry, (_, file)): (&Geometry, &(u64, Arc<PayloadFile>))| {
            (*geometry, Arc::clone(file))
        };
        let files: Vec<_> = self.lock().files.iter().map(open).collect();
        for (geometry, _) in files.iter().filter(|(_, file)| file.is_unlinked()) {
            self.close(geometry);
        }
    }

    /// Closes everything.
    pub(crate) fn clear(&self) {
        let closed = std::mem::take(&mut self.lock().files);
        drop(closed);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn touch(&mut self, geometry: &Geometry) -> Option<Arc<PayloadFile>> {
        self.tick += 1;
        let (used, file) = self.files.get_mut(geometry)?;
        *used = self.tick;
        Some(Arc::clone(file))
    }
}
