//! SPFS's wire protocol (FORMAT.md section 6): the messages and what they mean.
//!
//! The messages are generated from `proto/spfs.proto` and committed. Everything that comes from a
//! peer passes through [`convert`], which is total and strict, before anything else sees it.

pub(crate) mod convert;
#[rustfmt::skip]
#[expect(
    unreachable_pub,
    dead_code,
    clippy::all,
    reason = "generated: it looks as its generator wants, and holds both ends of every call"
)]
pub(crate) mod generated;
pub(crate) mod outcome;
