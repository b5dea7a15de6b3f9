//! The whole way: the real program, a real server, real mounts.
//!
//! Everything here runs the `farseek` binary and looks at the mount through the kernel, from
//! processes of its own. What a test asserts about laziness it reads from the server's log.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod applications;
mod background;
mod bucket;
mod cleaned;
mod differ;
mod killed;
mod memory;
mod records;
mod refused;
mod remote;
mod rounds;
mod runs;
mod stock;
mod requests;
mod stopped;
mod unprivileged;

/// Not a test of its own: what the oracle differ starts its processes as.
#[test]
fn oracle_worker() {
    if !farseek_testkit::oracle::worker() {
        differ::a_mounted_tree_is_the_tree_that_was_committed();
    }
}

/// Not a test of its own: what `runs::oracle` starts inside a runtime. It ends the process.
#[test]
#[ignore = "it is started by the tests of runs::oracle"]
fn changing_worker() {
    runs::oracle::worker();
}

/// Not a test of its own: what `runs::renders` starts inside a runtime. It ends the process.
#[test]
#[ignore = "it is started by the tests of runs::renders"]
fn renders_worker() {
    runs::renders::worker();
}

/// Not a test of its own: what [`farseek_testkit::Reader`] starts. It ends the process.
#[test]
fn reader_worker() {
    if !farseek_testkit::reader() {
        requests::a_byte_costs_one_block_in_every_way_of_reading();
    }
}
