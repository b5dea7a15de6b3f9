//! Object files: read whole, decoded, and checked against their names.

use std::io::Read;

use farseek_object::{Digest, Object, ObjectError};

use super::durable::{self, SHARED_FILE};
use super::hash_store::HashStore;
use crate::error::{Result, StoreError};

/// No object is larger: a FlatBuffer's offsets reach no further.
const MAX_OBJECT_BYTES: u64 = 2 << 30;

/// Reads the object `digest` and checks that it is that one.
pub(super) fn get(store: &HashStore, digest: &Digest) -> Result<Object> {
    let (file, size) = store.open(digest)?;
    let path = store.path(digest);
    let undecodable = |source| StoreError::Undecodable {
        location: path.display().to_string(),
        source,
    };
    if size > MAX_OBJECT_BYTES {
        let limit = MAX_OBJECT_BYTES;
        return Err(undecodable(ObjectError::TooLarge {
            what: "the size of an object",
            limit,
        }));
    }
    let mut bytes = Vec::new();
    file.take(MAX_OBJECT_BYTES)
        .read_to_end(&mut bytes)
        .map_err(StoreError::io("read", &path))?;
    Object::decode_named(digest, &bytes).map_err(undecodable)
}

/// Stores the encoded object `bytes` under `digest`, unless a good one is there.
pub(super) fn put(store: &HashStore, digest: &Digest, bytes: &[u8], deferred: bool) -> Result<()> {
    // One of another size may be the same object in the other encoding, or damaged.
    let is_good = |_: &_, size| size == bytes.len() as u64 || get(store, digest).is_ok();
    if store.reuse(digest, is_good)? || (deferred && store.is_staged(digest)) {
        return Ok(());
    }
    let (temp, file) = store.begin()?;
    durable::write(&temp, &file, bytes)?;
    store.finish(digest, temp, file, SHARED_FILE, deferred)
}
