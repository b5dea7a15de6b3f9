//! SPFS's wire protocol (FORMAT.md section 6), and the repository that speaks it.
//!
//! The messages are generated from `proto/spfs.proto`, those of our own services, for many small blobs
//! and for cleaners, from `proto/farseek.proto`, and committed. Everything that comes from a
//! peer passes through [`convert`], which is total and strict, before anything else sees it.

#[rustfmt::skip]
#[expect(
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes,
    reason = "generated: it looks as its generator wants"
)]
pub(crate) mod generated;
#[rustfmt::skip]
#[expect(
    unreachable_pub,
    clippy::allow_attributes,
    reason = "generated: it looks as its generator wants"
)]
pub(crate) mod generated_bulk;
pub(crate) mod outcome;
pub(crate) mod convert;
pub(crate) mod ages;
mod token;
mod address;
mod options;
mod line;
mod status;
mod calls;
pub(crate) mod bunzip;
mod unzstd;
mod place;
mod payloads;
mod upload;
mod pushed;
mod repository;
mod bulk;
mod keeper;
#[cfg(test)]
mod tests;

pub use options::{GrpcOptions, Packing};
pub use repository::GrpcRepository;
pub use token::Token;
