//! Calls that were recorded, to be answered again.

use std::collections::HashMap;

use farseek_object::Object;

use super::wire::Message;

/// The messages answered to each call, by its path and its message.
///
/// Objects are compared as what they are: the same object may be laid out in more than one way.
#[derive(Debug, Default)]
pub struct Recorded(HashMap<(String, Vec<u8>), Vec<Vec<u8>>>);

impl Recorded {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers a call and its answer.
    pub fn add(&mut self, path: &str, request: &[u8], answer: Vec<Vec<u8>>) {
        self.0.insert(key(path, request), answer);
    }

    pub(super) fn answer(&self, path: &str, request: &[u8]) -> Option<Vec<Vec<u8>>> {
        self.0.get(&key(path, request)).cloned()
    }
}

fn key(path: &str, request: &[u8]) -> (String, Vec<u8>) {
    let object = path
        .ends_with("/WriteObject")
        .then(|| Object::decode_wire(Message::new(request).message(1).bytes(7)).ok())
        .flatten();
    let laid_out = object.and_then(|object| object.encode_wire().ok());
    (
        path.to_owned(),
        laid_out.unwrap_or_else(|| request.to_vec()),
    )
}
