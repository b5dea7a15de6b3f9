//! The locks of the modules whose interleavings are tested: the tests compile those modules a
//! second time, with locks that try every order (see `tests/interleavings.rs`).

pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};
