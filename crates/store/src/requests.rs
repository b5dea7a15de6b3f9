//! Requests made of a repository where each is paid for.

/// How many requests of each kind were made, repeated ones counted each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requests {
    /// Reads of keys, whole or in part.
    pub get: u64,
    /// Questions whether a key is there.
    pub head: u64,
    /// Keys written in one request, and copies within the bucket.
    pub put: u64,
    /// Pages of listings.
    pub list: u64,
    /// Removals.
    pub delete: u64,
    /// Beginnings, parts and ends of keys written in parts.
    pub multipart: u64,
    /// Of all these, those that had failed before.
    pub repeated: u64,
}

impl Requests {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.get + self.head + self.put + self.list + self.delete + self.multipart
    }

    /// Those of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            get: self.get + other.get,
            head: self.head + other.head,
            put: self.put + other.put,
            list: self.list + other.list,
            delete: self.delete + other.delete,
            multipart: self.multipart + other.multipart,
            repeated: self.repeated + other.repeated,
        }
    }
}
