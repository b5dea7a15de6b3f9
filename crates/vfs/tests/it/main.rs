//! The file system against a model, and mounted for real.

mod directories;
mod files;
mod fixture;
mod gate;
mod killed;
mod lifecycle;
mod links;
mod model;
mod refusals;

/// The process that `farseek_testkit::Reader` starts.
#[test]
fn reader_worker() {
    farseek_testkit::reader();
}
