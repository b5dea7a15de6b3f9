//! How far long work is: a commit, a copy, a check.

/// Is told how far long work is. Called from the tasks that do it: be quick.
pub trait Progress: Send + Sync {
    /// So many things, of so many bytes, are to be done in all, as far as is known by now. Told
    /// again whenever that changes.
    fn found(&self, items: u64, bytes: u64) {
        let _ = (items, bytes);
    }

    /// So many *more* things and bytes have been done.
    fn stored(&self, items: u64, bytes: u64) {
        let _ = (items, bytes);
    }
}

/// Shows nothing.
impl Progress for () {}
