//! The file system against a model, and mounted for real.
#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

mod directories;
mod files;
mod fixture;
mod gate;
mod killed;
mod lifecycle;
mod links;
mod model;
mod passthrough;
mod refusals;
mod walks;

/// The process that `farseek_testkit::Reader` starts.
#[test]
fn reader_worker() {
    farseek_testkit::reader();
}
