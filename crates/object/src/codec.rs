//! The two encodings of an object's body behind one pair of functions.

use crate::error::Result;
use crate::object::Object;

pub(crate) fn decode(_bytes: &[u8]) -> Result<Object> {
    todo!()
}

pub(crate) fn encode(_object: &Object) -> Result<Vec<u8>> {
    todo!()
}
