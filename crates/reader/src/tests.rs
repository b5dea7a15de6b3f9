//! Tests of the reader as a whole, against a repository that misbehaves by script.
//!
//! Time is paused: a deadline of 30 s costs nothing, and how long something took is exact.

mod ahead;
mod bounds;
mod disk;
mod faults;
mod flights;
mod interleavings;
mod model;
mod parts;
mod promote;
mod requests;
mod source;
mod trust;
mod turns;
mod whole_streams;
